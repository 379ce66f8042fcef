"""What a legacy run is to us: the slot it served, its manifest, and how it is told. Pure."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from orchctl.core import cadence, manifest, slots
from orchctl.core.cadence import Source
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.durations import human
from orchctl.core.journal import LOST, REBOOTED, HeldBack, LegacyRun
from orchctl.core.legacy import Manager, Service, Units
from orchctl.core.manifest import Away, Identity, RunError, Status
from orchctl.core.names import run_id
from orchctl.core.observed import Looked

GRACE_S = 5.0
"""Seconds that systemd may take from the instant a timer elapses to the start of its service."""
_LOST = {
    LOST: "how it ended is not in the journal",
    REBOOTED: "the machine went down while it ran",
}


def services_of(sources: Iterable[Source]) -> dict[Manager, tuple[str, ...]]:
    """Return the services that the timers among `sources` start, by the systemd that holds them, sorted.

    A timer that is gone (after a cutover) still has its history: then it is the service of its own name.
    """
    found: dict[Manager, set[str]] = {}
    for source in sources:
        if isinstance(source.trigger, TimerTrigger):
            name = source.service or f"{source.trigger.timer.removesuffix('.timer')}.service"
            if name.endswith(".service"):
                found.setdefault(cadence.manager_of(source.trigger), set()).add(name)
    return {manager: tuple(sorted(found[manager])) for manager in sorted(found, key=str)}


def marks(services: Mapping[Manager, Iterable[str]]) -> tuple[str, ...]:
    """Return services as a look writes down which it was about (`Looked.units`)."""
    return tuple(f"{manager}:{name}" for manager, names in services.items() for name in names)


def remembered(looked: Looked | None, manager: Manager) -> set[str]:
    """Return the services of a manager that were looked at last, none where nobody has looked."""
    mark = f"{manager}:"
    return {name.removeprefix(mark) for name in (looked.units if looked else ()) if name.startswith(mark)}


def with_remembered(sources: Iterable[Source], looked: Looked | None) -> tuple[Source, ...]:
    """Return the sources; a timer that does not say what it starts (masked, gone) with what it started last."""
    listed = tuple(sources)
    told = {(cadence.manager_of(one.trigger), one.service) for one in listed if isinstance(one.trigger, TimerTrigger)}
    found = []
    for source in listed:
        if isinstance(source.trigger, TimerTrigger) and source.service is None:
            manager = cadence.manager_of(source.trigger)
            own = f"{source.trigger.timer.removesuffix('.timer')}.service"
            known = remembered(looked, manager) - {name for one, name in told if one == manager}
            name = own if own in known else min(known, default=None)
            found.append(replace(source, service=name) if name is not None else source)
        else:
            found.append(source)
    return tuple(found)


def going(sources: Iterable[Source], units: Mapping[Manager, Units]) -> tuple[str, ...]:
    """Return the legacy services that run now, as `live-score.service (system)`."""
    return tuple(
        f"{name} ({manager})"
        for manager, names in services_of(sources).items()
        for name in names
        if (service := service_in(units, manager, name)) is not None and is_going(service)
    )


def is_going(service: Service) -> bool:
    """Whether a service runs. One that remains after its exit is active, and does nothing."""
    return service.is_active and service.sub != "exited"


def service_in(units: Mapping[Manager, Units], manager: Manager, name: str) -> Service | None:
    """Return a service as its manager showed it, None where it did not."""
    return units[manager].services.get(name) if manager in units else None


def slot_of(run: LegacyRun, sources: Iterable[Source]) -> tuple[str, datetime | None]:
    """Return what a run was for: ("schedule", slot), or ("manual", None) where no timer was due.

    Nothing in the journal says who started a service. A start belongs to the nearest instant before it that a timer of
    the service names, if it came within the timer's tolerance. With a timer that counts from boots or runs, any start
    may be its: ("schedule", None). Timers are judged as they are now.
    """
    mine = [
        source
        for source in sources
        if isinstance(source.trigger, TimerTrigger)
        and source.service == run.unit
        and cadence.manager_of(source.trigger) == run.manager
    ]
    due = [instant for source in mine for instant in _instants(source, run.started_at)]
    if due:
        return "schedule", datetime.fromtimestamp(max(due), UTC)
    return ("schedule" if any(source.monotonic for source in mine) else "manual"), None


def _instants(source: Source, start: datetime) -> list[int]:
    reach = timedelta(seconds=source.tolerance_s + GRACE_S)
    after = datetime.fromtimestamp(math.ceil((start - reach).timestamp()), UTC)
    try:
        return cadence.instants(source, after, datetime.fromtimestamp(math.floor(start.timestamp()) + 1, UTC))
    except ValueError:  # a calendar that only systemd can read
        return []


@dataclass(frozen=True, slots=True)
class Recorder:
    """What every manifest of a job's legacy runs has in common. `zone` is the catalog's."""

    job: Job
    sources: tuple[Source, ...]
    zone: str
    hostname: str
    code_version: str

    def manifest(self, run: LegacyRun, *, exit_code: int | None) -> dict[str, Any]:
        """Return the manifest of a run that has ended; the end of its output is the caller's to fill in."""
        trigger, slot = slot_of(run, self.sources)
        who = Identity(
            job=self.job.name,
            asset=self.job.asset,
            # It follows from the run and the job alone: every observer computes the same, and two jobs on one service
            # do not take each other's.
            run_id=run_id(run.started_at, f"{self.job.name}:{run.key}"),
            game_date=slots.game_date(self.job, slot or run.started_at, self.zone),
            as_of=run.started_at,
            slot=slot,
            trigger=trigger,
            mode="live",
            attempt=1,
            origin="systemd",
        )
        environment = {
            "git_sha": None,
            "code_version": self.code_version,
            "python": None,
            "orchestrator_run_id": None,
            "catalog_digest": None,
            "unit": run.unit,
            "scope": run.manager.scope,
            "user": run.manager.user,
            "invocation_id": run.invocation,
        }
        place = Away(self.hostname, _dashed(run.boot_id))
        status = status_of(run)
        return manifest.finished(
            manifest.started(who, place, environment, at=run.started_at),
            status,
            at=run.ended_at,
            duration_s=seconds_of(run),
            reason=_reason(run, status),
            exit_code=exit_code,
            signal=run.signal,
            error=RunError(*failure_of(run)) if status == "failed" else None,
        )


def _dashed(boot_id: str) -> str:
    try:
        return str(uuid.UUID(boot_id))
    except ValueError:
        return boot_id


def seconds_of(run: LegacyRun) -> float | None:
    """Return how long a run took, by the journal's clock; None where nobody wrote down when it ended."""
    return max(0.0, (run.ended_at - run.started_at).total_seconds()) if run.ended_at is not None else None


def status_of(run: LegacyRun) -> Status:
    """Return the status of a run that has ended, as manifests say it."""
    if run.result in _LOST:
        return "crashed"
    if run.result == "success":
        return "cancelled" if run.stopped else "success"
    return "failed"


def _reason(run: LegacyRun, status: Status) -> str | None:
    if status == "crashed":
        return _LOST[run.result or LOST]
    if status == "cancelled":
        return "it was told to stop, by systemctl or a shutdown"
    if status == "success" and run.ended_at is None:
        return "when it ended is not in the journal: the users' managers log failures only"
    return None


def failure_of(run: LegacyRun) -> tuple[str, str]:
    """Return the type and the message of a failed run's error."""
    before = f"{run.command}: " if run.command not in {None, "ExecStart"} else ""
    if run.result in {"timeout", "watchdog"}:
        return "TimedOut", f"stopped by systemd after its {'time-out' if run.result == 'timeout' else 'watchdog'}"
    if run.result == "oom-kill":
        return "Killed", "killed: out of memory"
    if run.result == "resources":
        return "NotStarted", "systemd could not start it (result: resources)"
    if run.signal is not None:
        return "Killed", f"{before}killed by {run.signal}"
    if run.exit_code is not None:
        return "NonZeroExit", f"{before}exit code {run.exit_code}"
    return "Failed", f"systemd says: {run.result}"


def exit_code_of(run: LegacyRun, service: Service | None) -> int | None:
    """Return a run's exit code; None where `SuccessExitStatus=` lets others than 0 count as success."""
    loose = service is not None and bool(service.success_statuses.strip())
    return None if loose and run.result == "success" else run.exit_code


# --- how it is told


def told(runs: Sequence[LegacyRun], held: Sequence[HeldBack], *, zone: str, now: datetime) -> str:
    """Say what systemd did for a slot: `runs` and `held` are those that began in its time, oldest first.

    Where several services ran, each one's first is named: a double is worth saying.
    """
    if not runs and not held:
        return "systemd did not run it"
    if not runs:
        return f"systemd was to start it {clock(held[0].at, zone)}, and did not: {held[0].reason}"
    first: dict[tuple[Manager, str], LegacyRun] = {}
    for run in runs:
        first.setdefault((run.manager, run.unit), run)
    more = len(runs) - len(first)
    again = f", and {more} more time{'s' if more > 1 else ''} by {clock(runs[-1].started_at, zone)}" if more else ""
    if len(first) == 1:
        verb = "started" if runs[0].is_open else "ran"
        return f"systemd {verb} it {_how(runs[0], zone, now)}{again}"
    parts = [f"{run.unit} ({run.manager}) {_how(run, zone, now)}" for run in first.values()]
    return f"systemd ran it {len(first)} times: {'; '.join(parts)}{again}"


def _how(run: LegacyRun, zone: str, now: datetime) -> str:
    at = clock(run.started_at, zone)
    if run.is_open:
        return f"{at}, still running after {human((now - run.started_at).total_seconds())}"
    took = seconds_of(run)
    return f"{at}, {_ending(run)}" + (f", {human(took)}" if took is not None else "")


def _ending(run: LegacyRun) -> str:
    status = status_of(run)
    if status == "success":
        return "exit 0" if run.exit_code == 0 else "success"
    if status == "cancelled":
        return "told to stop"
    if status == "crashed":
        return _LOST[run.result or LOST]
    plain = run.result == "exit-code" and run.command == "ExecStart"
    return f"exit {run.exit_code}" if plain else failure_of(run)[1]


def clock(instant: datetime, zone: str) -> str:
    """Write an instant as a clock in `zone` shows it."""
    return f"{instant.astimezone(ZoneInfo(zone)):%H:%M:%S}"
