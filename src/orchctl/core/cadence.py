"""When the legacy triggers of a job are due, by what they say. Instants are whole epoch seconds (UTC)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchctl.core import calendar
from orchctl.core.catalog import CronTrigger, Job, TimerTrigger
from orchctl.core.crontab import read_line
from orchctl.core.legacy import Manager, Monotonic, Timer, Units

if TYPE_CHECKING:
    from cronsim import CronSim

# cron can say "29 February": the next one is at most eight years away.
_YEARS_DAYS = 9 * 366
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\Z")
NONE_UNREAD: Mapping[Manager, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Source:
    """One legacy trigger of a job, and when it is due.

    `calendars` and `cron` are mutually exclusive; both are empty where nothing is due by the calendar. `timezone`
    is that of expressions that name none. `monotonic` are the starts that no calendar knows; cron's @reboot is one.
    `tolerance_s` is how long after an instant a start still belongs to it. `missing` says why nothing is known (the
    unit does not exist, the line cannot be read), else None. `counts` is False where the trigger is switched off: it
    is known, and starts nothing now.
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

    @property
    def expressions(self) -> tuple[str, ...]:
        """What is due by the calendar, as the timer or the crontab says it."""
        return self.calendars or ((self.cron,) if self.cron else ())

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that its expressions are in: those they name, else `timezone`."""
        named = [zone_named(expression) or self.timezone for expression in self.calendars]
        return tuple(dict.fromkeys(named)) or (self.timezone,)


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


def sources(
    job: Job, units: Mapping[Manager, Units], host_zone: str, *, unread: Mapping[Manager, str] = NONE_UNREAD
) -> tuple[Source, ...]:
    """Return the legacy triggers of `job` in its order.

    `units` are what those of `managers_of` answered; `unread` says why one that did not could not be asked.
    """
    return tuple(
        _timer_source(trigger, units.get(manager_of(trigger)), host_zone, unread)
        if isinstance(trigger, TimerTrigger)
        else cron_source(trigger, host_zone)
        for trigger in job.legacy
    )


def _timer_source(trigger: TimerTrigger, units: Units | None, host_zone: str, unread: Mapping[Manager, str]) -> Source:
    label = f"{trigger.timer} ({manager_of(trigger)})"
    if units is None:
        reason = unread.get(manager_of(trigger), "its systemd could not be asked")
        return Source(label, trigger, host_zone, missing=reason, counts=False)
    timer = units.timers.get(trigger.timer)
    if timer is None or timer.load != "loaded":
        reason = _why_not_loaded(timer)
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


def _why_not_loaded(timer: Timer | None) -> str:
    if timer is None or timer.load == "not-found":
        return "there is no such timer on this host"
    return "it is masked" if timer.load == "masked" else f"{timer.load}: {timer.load_error or 'systemd refuses it'}"


def cron_source(trigger: CronTrigger, host_zone: str) -> Source:
    """Return a crontab line as a source."""
    label = f"cron of {trigger.user}" + (f" in {trigger.file}" if trigger.file else "")
    zone = trigger.timezone or host_zone
    try:
        line = read_line(trigger.cron, with_user=trigger.file is not None)
        if line.schedule is None:
            return Source(label, trigger, zone, monotonic=(Monotonic("@reboot", 0.0),))
        _simulated(line.schedule, zone, 0)
    except ValueError as error:
        return Source(label, trigger, zone, missing=str(error), counts=False)
    # cron looks once a minute, and starts its jobs one after another.
    return Source(label, trigger, zone, cron=line.schedule, tolerance_s=60.0)


def instants(source: Source, start: datetime, end: datetime) -> list[int]:
    """Return the instants from `start` up to, and without, `end` at which the source is due, sorted, none twice.

    Raises ValueError where an expression cannot be read.
    """
    if source.cron is not None:
        return list(_cron_instants(source.cron, source.timezone, start, end))
    found = [calendar.instants(expression, source.timezone, start, end) for expression in source.calendars]
    return found[0] if len(found) == 1 else sorted(set().union(*found))


def zone_named(expression: str) -> str | None:
    """Return the zone that a calendar expression of systemd names, None where it names none."""
    # In the form in which systemd gives it back there is always a time before the zone.
    *_, time, word = ["", *expression.split()]
    return word if ":" in time and _ZONE.match(word) else None


def following(source: Source, after: datetime) -> datetime | None:
    """Return when the source is next due: a timer as systemd says it, a cron line counted; None for never.

    Of a timer that only the monotonic clock drives, systemd says nothing that is an instant.
    """
    if source.timer is not None:
        return source.timer.next_fire
    if source.cron is None:
        return None
    found = _cron_instants(source.cron, source.timezone, after, after + timedelta(days=_YEARS_DAYS))
    return next((datetime.fromtimestamp(instant, UTC) for instant in found), None)


def _cron_instants(expression: str, timezone: str, start: datetime, end: datetime) -> Iterator[int]:
    """Yield cron's own instants, Debian's rules for the change of clocks included (cronsim follows those)."""
    first, last = start.timestamp(), end.timestamp()
    for moment in _simulated(expression, timezone, first):
        stamp = int(moment.timestamp())
        if stamp >= last:
            return
        if stamp >= first:
            yield stamp


def _simulated(expression: str, timezone: str, first: float) -> CronSim:
    from cronsim import CronSim, CronSimError

    try:
        # CronSim yields instants after the one it is given.
        return CronSim(expression, datetime.fromtimestamp(first - 1, UTC).astimezone(ZoneInfo(timezone)))
    except CronSimError as error:
        raise ValueError(f"{expression!r} is not a cron line: {str(error).lower()}") from error
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"there is no time zone {timezone!r}") from error
