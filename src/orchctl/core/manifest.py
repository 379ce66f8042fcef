"""Manifest v1 and the events: the durable record of what ran. docs/formats.md shows both in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal

from orchctl.core import step_events
from orchctl.core.names import format_instant, is_dotted_name, is_name, is_run_id, parse_date, parse_instant

VERSION = "v1"
Status = Literal["running", "success", "failed", "skipped", "crashed", "cancelled", "observed"]
STATUSES: tuple[Status, ...] = ("running", "success", "failed", "skipped", "crashed", "cancelled", "observed")
_REASON_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a run is, or one of its steps. All instants are UTC; `slot` is None for a run that is for no slot.

    `step` None: the run itself, of which `execution` says what it runs. `keys` are those of the partition beside the
    date.
    """

    job: str
    asset: str
    run_id: str
    game_date: date
    as_of: datetime
    slot: datetime | None
    trigger: str
    mode: Literal["live", "observe"]
    attempt: int
    origin: str = "prefect"
    step: str | None = None
    execution: Literal["command", "steps"] = "command"
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's process lives: enough to tell later whether it still does, on this host.

    `pid_started` is the process's start in clock ticks after boot (field 22 of /proc/PID/stat): a pid alone
    may be somebody else's by then.
    """

    hostname: str
    boot_id: str
    pid: int
    pid_started: int


@dataclass(frozen=True, slots=True)
class Away:
    """Where a run was whose process was never ours (systemd ran it), and is gone."""

    hostname: str
    boot_id: str
    pid: None = None
    pid_started: None = None


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed. `snippet` is the end of its output with secrets masked, None where there was none.

    `kind` is the class of a step's failure (`core.failures`), None where nobody asked.
    """

    type: str
    message: str
    snippet: str | None = None
    kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest holds it."""
        own = {"class": self.kind} if self.kind is not None else {}
        return {"type": self.type, "message": self.message, "snippet": self.snippet, **own}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A manifest, or a line of events, that was passed over, and why."""

    path: str
    reason: str


def started(who: Identity, place: Place | Away, environment: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """Return the manifest of a run, or of a step, that starts `at`: status `running`."""
    own: dict[str, Any] = {"publish": None} if who.step is not None else {"execution": who.execution, "steps": []}
    return {
        "manifest_version": VERSION,
        "asset": who.asset,
        "job": who.job,
        "step": who.step,
        "task_name": who.step or who.job,
        "partition": {
            "game_date": who.game_date.isoformat(),
            "run_as_of_ts": format_instant(who.as_of),
            "run_id": who.run_id,
            **who.keys,
        },
        "status": "running",
        "reason": None,
        "origin": who.origin,
        "trigger": who.trigger,
        "mode": who.mode,
        "slot": format_instant(who.slot) if who.slot else None,
        "attempt": who.attempt,
        "timing": {"started_at": format_instant(at), "finished_at": None, "duration_s": None},
        "exit_code": None,
        "signal": None,
        "inputs": [],
        "outputs": [],
        "checks": [],
        "error": None,
        "attempts": [],
        **own,
        "environment": {
            **environment,
            "hostname": place.hostname,
            "boot_id": place.boot_id,
            "pid": place.pid,
            "pid_started": place.pid_started,
        },
    }


def finished(  # noqa: PLR0913 (keyword-only: the fields of a record)
    manifest: Mapping[str, Any],
    status: Status,
    *,
    at: datetime | None,
    duration_s: float | None,
    reason: str | None = None,
    exit_code: int | None = None,
    signal: str | None = None,
    outputs: Iterable[Mapping[str, Any]] = (),
    error: RunError | None = None,
) -> dict[str, Any]:
    """Return `manifest` with its end filled in, and this attempt added to `attempts`.

    `duration_s` is measured on the monotonic clock, so it need not equal the difference of the two instants. Both are
    None where nobody wrote down when the run ended.
    """
    ended = format_instant(at) if at is not None else None
    took = round(duration_s, 3) if duration_s is not None else None
    timing = {**manifest["timing"], "finished_at": ended, "duration_s": took}
    attempt = {
        "attempt": manifest["attempt"],
        "status": status,
        "exit_code": exit_code,
        "signal": signal,
        **timing,
    }
    return {
        **manifest,
        "status": status,
        "reason": reason,
        "timing": timing,
        "exit_code": exit_code,
        "signal": signal,
        "outputs": [dict(output) for output in outputs],
        "error": error.to_json() if error else None,
        "attempts": [*manifest.get("attempts", []), attempt],
    }


def event(name: str, manifest: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """Return the event `name` of a run: what `runs` lists, taken from its manifest."""
    environment = manifest["environment"]
    reason = manifest["reason"] or (manifest["error"] or {}).get("message")
    return {
        "ts": format_instant(at),
        "event": name,
        "run_id": manifest["partition"]["run_id"],
        "job": manifest["job"],
        "asset": manifest["asset"],
        "game_date": manifest["partition"]["game_date"],
        "status": manifest["status"],
        "slot": manifest["slot"],
        "origin": manifest["origin"],
        "trigger": manifest["trigger"],
        "mode": manifest["mode"],
        "attempt": manifest["attempt"],
        **manifest["timing"],
        "exit_code": manifest["exit_code"],
        "signal": manifest["signal"],
        "reason": reason[:_REASON_LIMIT] if reason else None,
        "hostname": environment["hostname"],
        "boot_id": environment["boot_id"],
        "pid": environment["pid"],
        "pid_started": environment.get("pid_started"),
    }


def events_of(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events that a manifest's run must have left, oldest first, each with its instant.

    For the manifest of a step, those of the step (`step_events.known_by`). They are those that were written at the
    time, but for the reasons and processes of earlier attempts, which no manifest keeps.
    """
    if is_step(manifest):
        yield from step_events.known_by(manifest)
        return
    running = {"status": "running", "reason": None, "error": None, "exit_code": None, "signal": None}
    attempts = [one for one in manifest.get("attempts") or [] if one["attempt"] < manifest["attempt"]]
    last = {key: manifest[key] for key in ("attempt", "status", "exit_code", "signal")} | manifest["timing"]
    for one in (*attempts, last):
        timing = {key: one[key] for key in ("started_at", "finished_at", "duration_s")}
        same = one is last
        of_attempt = {**manifest, "attempt": one["attempt"]} | ({} if same else {"reason": None, "error": None})
        if one["status"] not in {"skipped", "observed"}:
            begun = {**timing, "finished_at": None, "duration_s": None}
            content = {**of_attempt, **running, "timing": begun}
            yield one["started_at"], event("run_started", content, at=parse_instant(one["started_at"]))
        if one["status"] != "running":
            ended = one["finished_at"] or one["started_at"]
            content = {**of_attempt, **{key: one[key] for key in ("status", "exit_code", "signal")}, "timing": timing}
            yield ended, event(final_event_name(one["status"]), content, at=parse_instant(ended))


def is_step(data: Mapping[str, Any]) -> bool:
    """Whether a manifest or an event is that of a step, and so of no run of its own."""
    return data.get("step") is not None


def final_event_name(status: str) -> str:
    """Return the name of the event that tells of this final status."""
    return {"skipped": "slot_skipped", "observed": "slot_observed"}.get(status, "run_finished")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as a list shows it. None: not known, or not the case. Instants are UTC, `duration_s` seconds."""

    run_id: str
    job: str
    asset: str
    game_date: date
    status: str
    slot: datetime | None
    origin: str
    trigger: str
    mode: str
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    duration_s: float | None
    exit_code: int | None
    signal: str | None
    reason: str | None
    place: Place | None
    data_root: str

    def with_status(self, status: str, reason: str) -> Run:
        """Return the run with another status, as `crashed` replaces `running`."""
        return replace(self, status=status, reason=reason)


def run_of_event(data: Mapping[str, Any], *, data_root: str) -> Run:
    """Read a run event. Raises ValueError where it is not one; unknown keys are ignored."""
    return _run(data, data, data, data, data_root)


def run_of_manifest(data: Mapping[str, Any], *, data_root: str) -> Run:
    """Read a manifest. Raises ValueError where it is not one; unknown keys are ignored."""
    if data.get("manifest_version") != VERSION:
        raise ValueError(f"manifest_version is {data.get('manifest_version')!r}, not {VERSION!r}")
    partition, environment = data.get("partition"), data.get("environment")
    if not isinstance(partition, dict) or not isinstance(environment, dict) or not isinstance(data.get("timing"), dict):
        raise ValueError("a part of the manifest is missing")
    error = data.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return _run(
        {**data, "reason": data.get("reason") or message},
        data["timing"],
        partition,
        environment,
        data_root,
    )


def _run(
    data: Mapping[str, Any],
    timing: Mapping[str, Any],
    partition: Mapping[str, Any],
    environment: Mapping[str, Any],
    data_root: str,
) -> Run:
    try:
        run_id, job, asset = str(partition["run_id"]), str(data["job"]), str(data["asset"])
        if not (is_run_id(run_id) and is_name(job) and is_dotted_name(asset)) or data["status"] not in STATUSES:
            raise ValueError("a name, run id or status is not one of orchctl's")
        return Run(
            run_id=run_id,
            job=job,
            asset=asset,
            game_date=parse_date(str(partition["game_date"])),
            status=data["status"],
            slot=_instant(data.get("slot")),
            origin=str(data.get("origin", "prefect")),
            trigger=str(data["trigger"]),
            mode=str(data["mode"]),
            attempt=int(data["attempt"]),
            started_at=parse_instant(str(timing["started_at"])),
            finished_at=_instant(timing.get("finished_at")),
            duration_s=_number(timing.get("duration_s")),
            exit_code=_integer(data.get("exit_code")),
            signal=_text(data.get("signal")),
            reason=_text(data.get("reason")),
            place=place_of(environment),
            data_root=data_root,
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a run of orchctl: {error!r}") from error


def place_of(environment: Mapping[str, Any]) -> Place | None:
    """Return where a run's process lives by the `environment` of its manifest, None where that does not say."""
    try:
        return Place(
            str(environment["hostname"]),
            str(environment["boot_id"]),
            int(environment["pid"]),
            int(environment["pid_started"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _instant(value: object) -> datetime | None:
    return parse_instant(value) if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def fold(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the newest state of each run from its events in file order.

    Within one attempt the end beats the start, and a later attempt beats an earlier one, whatever the order
    in which two files were read.
    """
    newest: dict[str, Run] = {}
    for run in runs:
        have = newest.get(run.run_id)
        if have is None or (run.attempt, run.status != "running") >= (have.attempt, have.status != "running"):
            newest[run.run_id] = run
    return newest
