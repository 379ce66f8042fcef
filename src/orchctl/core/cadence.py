"""When the legacy triggers of a job are due, by what they say. Instants are whole epoch seconds (UTC)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from orchctl.core import calendar
from orchctl.core.catalog import CronTrigger, Job, TimerTrigger
from orchctl.core.crontab import read_line
from orchctl.core.legacy import Manager, Monotonic, Timer, Units


@dataclass(frozen=True, slots=True)
class Source:
    """One legacy trigger of a job, and when it is due.

    `calendars` and `cron` are mutually exclusive; both are empty where nothing is due by the calendar. `timezone`
    is that of expressions that name none. `tolerance_s` is how long after an instant a start still belongs to it.
    `missing` says why nothing is known (the unit does not exist, the line cannot be read), else None. `counts` is
    False where the trigger is switched off: it is known, and starts nothing now.
    """

    label: str
    trigger: TimerTrigger | CronTrigger
    timezone: str
    calendars: tuple[str, ...] = ()
    cron: str | None = None
    monotonic: tuple[Monotonic, ...] = ()
    tolerance_s: float = 0.0
    missing: str | None = None
    counts: bool = True
    service: str | None = None
    timer: Timer | None = None


def manager_of(trigger: TimerTrigger) -> Manager:
    """Return the systemd that holds the trigger's timer."""
    return Manager(trigger.scope, trigger.user if trigger.scope == "user" else None)


def managers_of(jobs: Mapping[str, Job]) -> dict[Manager, set[str]]:
    """Return the timers that the jobs name, by the systemd that holds them."""
    found: dict[Manager, set[str]] = {}
    for job in jobs.values():
        for trigger in job.legacy:
            if isinstance(trigger, TimerTrigger):
                found.setdefault(manager_of(trigger), set()).add(trigger.timer)
    return found


def sources(job: Job, units: Mapping[Manager, Units], host_zone: str) -> tuple[Source, ...]:
    """Return the legacy triggers of `job` in its order. `units`: what those of `managers_of` answered."""
    return tuple(
        _timer_source(trigger, units.get(manager_of(trigger)), host_zone)
        if isinstance(trigger, TimerTrigger)
        else _cron_source(trigger, host_zone)
        for trigger in job.legacy
    )


def _timer_source(trigger: TimerTrigger, units: Units | None, host_zone: str) -> Source:
    label = f"{trigger.timer} ({manager_of(trigger)})"
    if units is None:
        return Source(label, trigger, host_zone, missing="its systemd could not be asked", counts=False)
    timer = units.timers.get(trigger.timer)
    if timer is None or timer.load != "loaded":
        reason = "there is no such timer on this host" if timer is None or timer.load == "not-found" else timer.load
        return Source(label, trigger, host_zone, missing=reason, counts=False)
    return Source(
        label,
        trigger,
        host_zone,
        calendars=timer.calendars,
        monotonic=timer.monotonic,
        tolerance_s=timer.tolerance_s,
        counts=timer.active == "active",
        service=timer.unit,
        timer=timer,
    )


def _cron_source(trigger: CronTrigger, host_zone: str) -> Source:
    label = f"cron of {trigger.user}" + (f" in {trigger.file}" if trigger.file else "")
    zone = trigger.timezone or host_zone
    try:
        line = read_line(trigger.cron, with_user=trigger.file is not None)
    except ValueError as error:
        return Source(label, trigger, zone, missing=str(error), counts=False)
    if line.schedule is None:
        return Source(label, trigger, zone, missing="@reboot is no cadence")
    # cron looks once a minute, and starts its jobs one after another.
    return Source(label, trigger, zone, cron=line.schedule, tolerance_s=60.0)


def instants(source: Source, start: datetime, end: datetime) -> list[int]:
    """Return the instants from `start` up to, and without, `end` at which the source is due, sorted, none twice."""
    found: set[int] = set()
    for expression in source.calendars:
        found.update(calendar.instants(expression, source.timezone, start, end))
    if source.cron is not None:
        found.update(_cron_instants(source.cron, source.timezone, start, end))
    return sorted(found)


def _cron_instants(expression: str, timezone: str, start: datetime, end: datetime) -> Iterator[int]:
    """Yield cron's own instants, Debian's rules for the change of clocks included (cronsim follows those)."""
    from cronsim import CronSim

    zone = ZoneInfo(timezone)
    # CronSim yields instants after the one it is given.
    before = datetime.fromtimestamp(start.timestamp() - 1, UTC).astimezone(zone)
    for moment in CronSim(expression, before):
        stamp = int(moment.timestamp())
        if stamp >= end.timestamp():
            return
        if stamp >= start.timestamp():
            yield stamp
