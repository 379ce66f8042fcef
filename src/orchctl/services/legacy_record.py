"""Write a legacy run down once: its manifest, and the events that it must have left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from orchctl.core import manifest
from orchctl.core.journal import LegacyRun
from orchctl.core.manifest import Run
from orchctl.core.names import parse_date, parse_instant
from orchctl.services.ports import LegacyTree


@dataclass
class _Day:
    """What the events of one UTC date tell of: the runs by id and by the id's last part, and which events are there."""

    runs: dict[str, Run] = field(default_factory=dict)
    alike: dict[str, list[Run]] = field(default_factory=dict)
    told: set[tuple[str, bool]] = field(default_factory=set)


class Record:
    """The record of one job's legacy runs.

    `careful`: an earlier look may have written some of these runs and not said so. Then the events are asked for each
    run; otherwise only for one whose manifest is there, for they are long.
    """

    def __init__(self, tree: LegacyTree, *, careful: bool) -> None:
        self._tree, self._careful = tree, careful
        self._days: dict[date, _Day] = {}

    def find(self, run: LegacyRun, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest that a run has already, where `content` is what it would be; None where it has none.

        The catalog may have changed since and name another partition, and the journal may have lost the run's first
        entry, from which its id comes: the invocation tells.
        """
        run_id = content["partition"]["run_id"]
        found = self._tree.existing(content["asset"], parse_date(content["partition"]["game_date"]), run_id)
        if found is not None or not self._careful:
            return found
        day = self._day(run.started_at.date())
        known = [day.runs[run_id]] if run_id in day.runs else day.alike.get(run_id[-6:], []) if run.ready else []
        for one in known:
            try:
                data = self._tree.read(one)
            except ValueError:
                continue
            if data is not None and data["environment"].get("invocation_id") == run.invocation:
                return data
        return None

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the manifest of a run that has none, and its events."""
        self._tree.write(content)
        self.complete(content, new=not self._careful)

    def complete(self, content: Mapping[str, Any], *, new: bool = False) -> None:
        """Append the events that a manifest's run must have left and that are missing; `new`: all are."""
        for at, event in manifest.events_of(content):
            key = (event["run_id"], event["status"] == "running")
            day = None if new else self._day(parse_instant(at).date())
            if day is None or key not in day.told:
                self._tree.append(event)
            if day is not None:
                day.told.add(key)

    def _day(self, day: date) -> _Day:
        if day not in self._days:
            found = self._days[day] = _Day()
            for run in self._tree.events(day, skipped=[]):
                found.told.add((run.run_id, run.status == "running"))
                if run.run_id not in found.runs:
                    found.runs[run.run_id] = run
                    found.alike.setdefault(run.run_id[-6:], []).append(run)
        return self._days[day]
