"""The record of one attempt, at a run or at one of its steps, on disk: manifest and events, in the right order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchctl.core import manifest as form
from orchctl.core import step_events
from orchctl.core.manifest import RunError
from orchctl.errors import OrchctlError
from orchctl.runner.facts import Facts, Log
from orchctl.runner.process import Ended


@dataclass(frozen=True, slots=True)
class Written:
    """Where the manifest is, None where it could not be written; `unrecorded` is why the record is not whole."""

    path: str | None
    unrecorded: str | None = None


class Record:
    """The record of attempt number `attempt`; `step` None is the run's own. `begun` is what its start wrote."""

    def __init__(self, facts: Facts, log: Log, attempt: int, *, step: str | None = None) -> None:
        self.attempt, self.step = attempt, step
        self.begun: dict[str, Any] | None = None
        self.ended = False
        self._facts, self._log = facts, log

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._facts.directory(self.step)

    @property
    def log_path(self) -> Path:
        """Where the output of this attempt goes."""
        return self.directory / f"attempt-{self.attempt}.log"

    def begin(self, **fields: Any) -> None:
        """Record the start: the event first, so that no attempt is ever invisible, then the manifest, with `fields`.

        Raises OrchctlError; then nothing may run.
        """
        facts, now = self._facts, self._facts.host.now()
        manifest = self._new("live", now, fields)
        if self.step is None:
            event = form.event("run_started", manifest, at=now)
        else:
            event = step_events.of(step_events.STARTED, manifest, at=now, reason=None)
        facts.append(event)
        facts.manifests.write(manifest)
        self.begun = manifest
        where = {"asset": manifest["asset"], "game_date": facts.game_date.isoformat(), "run_id": facts.run_id}
        facts.host.tell(**{"step" if self.step else "run": {"data_root": facts.job.data_root, **where}})

    def note(self, **fields: Any) -> None:
        """Add fields to the manifest of an attempt that goes on. Raises OrchctlError."""
        assert self.begun is not None
        self.begun = {**self.begun, **fields}
        self._facts.manifests.write(self.begun)

    def end(
        self,
        status: form.Status,
        *,
        ended: Ended | None = None,
        error: RunError | None = None,
        reason: str | None = None,
        exit_code: int | None = None,
        duration_s: float | None = None,
        late: Callable[[], Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> Written:
        """Record the end: the manifest first, it is the truth, then the event. A full disk hides no outcome.

        `late` gives fields that take long to find; the end is on disk before they are asked for. `exit_code` is for an
        end without a command's own (`ended`); `duration_s` (seconds) goes before the command's. An attempt that did not
        begin leaves its whole record here; where that cannot be written, OrchctlError is raised.
        """
        facts, now = self._facts, self._facts.host.now()
        begun = self.begun or self._not_begun("observe" if status == "observed" else "live", now)
        manifest = form.finished(
            {**begun, **fields},
            status,
            at=now,
            duration_s=_seconds(duration_s, ended),
            reason=reason,
            exit_code=ended.exit_code if ended is not None else exit_code,
            signal=ended.signal if ended is not None else None,
            outputs=fields.get("outputs", ()),
            error=error,
        )
        if status == "success":
            manifest.pop("promoting", None)
        path = None
        try:
            if late is not None:
                manifest["outputs"] = None  # not looked at yet
            path = str(facts.manifests.write(manifest))
            self.ended = True
            if late is not None:
                manifest = {**manifest, **late()}
                facts.manifests.write(manifest)
            self._tell_end(manifest, status, now)
        except OrchctlError as problem:
            if self.begun is None:
                raise
            what = f"step {self.step}" if self.step else "the run"
            self._log(f"{what} ended ({status}), and that could not be recorded: {problem.message}")
            return Written(path, problem.message)
        return Written(path)

    def tell(self, name: str, reason: str | None = None, **more: Any) -> None:
        """Append an event of this step. A disk that takes none stops nothing: the manifest is the truth."""
        manifest = self.begun or self._new("live", self._facts.host.now(), {})
        try:
            event = step_events.of(name, manifest, at=self._facts.host.now(), reason=reason, **more)
            self._facts.append(event)
        except OrchctlError as problem:
            self._log(f"the event {name} of step {self.step} could not be recorded: {problem.message}")

    def _tell_end(self, manifest: dict[str, Any], status: str, now: datetime) -> None:
        if self.step is None:
            self._facts.append(form.event(form.final_event_name(status), manifest, at=now))
        else:
            self._facts.append(step_events.finished(manifest, at=now))

    def _new(self, mode: str, now: datetime, fields: Mapping[str, Any]) -> dict[str, Any]:
        manifest = self._facts.manifest(self.attempt, now, mode=mode, step=self.step)
        manifest["attempts"] = earlier_attempts(self.directory, self.attempt)
        return {**manifest, **fields}

    def _not_begun(self, mode: str, now: datetime) -> dict[str, Any]:
        """Return the manifest of an attempt that was never begun.

        A run's steps are as the attempts before left them: what they published leads on from here, and whoever prunes
        looks for it.
        """
        manifest = self._new(mode, now, {})
        if self.step is None and manifest["attempts"]:
            manifest["steps"] = _existing(self.directory).get("steps") or []
        return manifest


def earlier_attempts(directory: Path, attempt: int) -> list[Any]:
    """Return what the manifest there says of the attempts before this one; none where it cannot be read."""
    try:
        return [one for one in _existing(directory)["attempts"] if one["attempt"] < attempt]
    except (KeyError, TypeError):
        return []


def _existing(directory: Path) -> dict[str, Any]:
    """Return the manifest that is there, an empty one where there is none that can be read."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _seconds(given: float | None, ended: Ended | None) -> float:
    return given if given is not None else ended.duration_s if ended is not None else 0.0
