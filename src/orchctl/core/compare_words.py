"""What a comparison of cadences means, in sentences for the operator. No full stop at their ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from orchctl.core import cadence, calendar, clocks, durations
from orchctl.core.cadence import Source
from orchctl.core.cadence_words import listed, short, span
from orchctl.core.catalog import CronTrigger
from orchctl.core.compare import ChangedDay, Shifts, Some
from orchctl.core.legacy import Monotonic, Timer

# Enough to see how often something is due.
_SAMPLE = 2000
_TIME = re.compile(r"(?P<before>.* )?(?P<hour>[^ :]+):(?P<minute>[^ :]+):(?P<second>[^ :]+)(?P<zone> \S+)?\Z")
_REPEATED = re.compile(r"[0-9]+(?:\.\.[0-9]+)?/(?P<step>[0-9]+)\Z")


def seconds_for_minutes(source: Source, new: Sequence[int], start: datetime, end: datetime) -> str | None:
    """Explain a repetition that stands in the seconds and would, in the minutes, be exactly the new schedule."""
    for expression in source.calendars if new else ():
        parts = _TIME.match(expression)
        repeated = _REPEATED.match(parts["second"]) if parts else None
        if parts is None or repeated is None:
            continue
        meant = f"{parts['before'] or ''}{parts['hour']}:{parts['second']}{parts['zone'] or ''}"
        if _instants(meant, source.timezone, start, end) == list(new):
            step = int(repeated["step"])
            rule = f"the timer says {_every(step, 'SECOND')}, the schedule says {_every(step, 'MINUTE')}"
            place = f"in `{expression}` the `{parts['second']}` stands in the seconds (hour:minute:second)"
            return f"{rule}: {place}; {_every(step, 'minute')} is written `{meant}`"
    return None


def _every(number: int, unit: str) -> str:
    ending = "S" if unit.isupper() else "s"
    return f"every {unit}" if number == 1 else f"every {number} {unit}{ending}"


def _instants(expression: str, timezone: str, start: datetime, end: datetime) -> list[int]:
    try:
        return calendar.instants(expression, timezone, start, end)
    except ValueError:
        return []


def delays(source: Source, instants: Sequence[int]) -> list[str]:
    """Say how much later than its instants systemd starts it, and what that makes of them."""
    timer = source.timer
    if timer is None or not source.calendars:
        return []
    notes = [_delay(source, timer)] if timer.tolerance_s > 1 else []
    gap = min((later - earlier for earlier, later in pairwise(instants[:_SAMPLE])), default=None)
    if gap is not None and timer.accuracy_s > gap:
        notes.append(
            f"AccuracySec={short(timer.accuracy_s)} is longer than the {short(gap)} between two instants: in practice "
            f"systemd starts it about once {'a' if timer.accuracy_s == 60 else 'every'} {span(timer.accuracy_s)}"
        )
    return notes


def _delay(source: Source, timer: Timer) -> str:
    settings = {"RandomizedDelaySec": timer.random_delay_s, "RandomizedOffsetSec": timer.random_offset_s}
    named = [f"{name}={short(seconds)}" for name, seconds in settings.items() if seconds]
    fixed = timer.fixed_random_delay and timer.random_delay_s
    why = ", ".join([*named, *(["FixedRandomDelay"] if fixed else []), f"AccuracySec={short(timer.accuracy_s)}"])
    most = short(timer.tolerance_s)
    if not fixed:
        return f"systemd may start it up to {most} after an instant ({why}); Prefect adds no delay"
    offset = fixed_offset(source, timer)
    by = f"about {short(offset)}" if offset is not None else f"always the same time, at most {most}"
    return f"systemd starts it {by} after an instant ({why}); Prefect adds no delay"


def fixed_offset(source: Source, timer: Timer) -> float | None:
    """Return the delay in force of a timer with FixedRandomDelay=, None where its next fire does not tell."""
    if timer.next_fire is None:
        return None
    try:
        earliest = timer.next_fire - timedelta(seconds=timer.random_delay_s + timer.random_offset_s)
        found = cadence.instants(source, earliest, timer.next_fire + timedelta(microseconds=1))
    except ValueError:
        return None
    return timer.next_fire.timestamp() - found[0] if len(found) == 1 else None


def switched_off(source: Source) -> str | None:
    """Say that a trigger starts nothing at present."""
    if source.timer is None or source.counts:
        return None
    state = ", ".join(filter(None, (source.timer.active, source.timer.enabled)))
    return f"switched off now ({state}); compared is what it would do"


def zones(source: Source, schedule_zone: str) -> str | None:
    """Say that a trigger follows the clocks of another zone than the schedule."""
    others = [zone for zone in source.zones if not clocks.same_zone(zone, schedule_zone)]
    if not source.expressions or not others:
        return None
    own = source.zones[0] != source.timezone or (isinstance(source.trigger, CronTrigger) and source.trigger.timezone)
    whose = "the zone it names" if own else "the zone of this host, which it follows,"
    return f"{whose} is {listed(others)}; the schedule is in {schedule_zone}"


def monotonic(source: Source) -> list[str]:
    """Say of each start without a calendar that it cannot be compared, and what comes nearest."""
    return [_monotonic(each) for each in source.monotonic]


def monotonic_start(trigger: Monotonic) -> str:
    """Return a start without a calendar as the timer has it: `OnUnitActiveSec=5s`; `@reboot` of cron."""
    return f"{trigger.base}={short(trigger.seconds)}" if trigger.base.startswith("On") else trigger.base


def _monotonic(trigger: Monotonic) -> str:
    every = durations.canonical(round(trigger.seconds)) if trigger.seconds >= 1 else None
    what = monotonic_start(trigger)
    if trigger.base in {"OnUnitActiveSec", "OnUnitInactiveSec"}:
        counted = "start" if trigger.base == "OnUnitActiveSec" else "end"
        nearest = f'the nearest is `every = "{every}"`, which counts by the clock' if every else "nothing comes near"
        return f"{what} counts from the {counted} of the last run: no instants to compare; {nearest}"
    when = "once its timer is started" if trigger.base == "OnActiveSec" else "after a boot or a login"
    return f"{what} starts it {when}: no schedule does that, and there are no instants to compare"


def twice(labels: Sequence[str], count: int, fires: int) -> str:
    """Say that triggers are due together."""
    which = "at the same instants: each" if count == fires else f"together at {count:,} instants: each of these"
    times = "twice" if len(labels) == 2 else f"{len(labels)} times"
    return f"{listed(labels)} are due {which} starts the job {times} today"


def tolerated(shifts: Shifts) -> str | None:
    """Say that fires moved by no more than what systemd may delay them by."""
    if not shifts.tolerated:
        return None
    return (
        f"{shifts.tolerated:,} fires are moved later by no more than systemd may delay them today: "
        "that counts as no difference"
    )


def changed_day(day: ChangedDay) -> str | None:
    """Say what a change of clocks does to the two cadences; None where it makes no difference between them."""
    if not day.differs or day.as_before:
        return None
    head = f"{day.day:%a %Y-%m-%d}, {day.change}"
    gone = f"{listed(map(clocks.clock, day.gone[:3]))} does not exist that day" if day.gone else ""
    sides = [_side("the legacy side", day.only_old, day.old, day), _side("Prefect", day.only_new, day.new, day)]
    return f"{head}: {'; '.join(filter(None, (gone, *sides)))}"


def _side(name: str, lone: Some, fires: int, day: ChangedDay) -> str:
    if not lone.count:
        return f"{name} skips it" if not fires else f"{name} has no fire of its own"
    times = listed(clocks.clock(clocks.time_of_day(instant, day.change.zone)) for instant in lone.first)
    more = f" and {lone.count - len(lone.first):,} more" if lone.count > len(lone.first) else ""
    return f"{name} alone fires at {times}{more}{_early(lone, day)}"


def _early(lone: Some, day: ChangedDay) -> str:
    """Say how far from a time that does not exist the one fire is that stands for it."""
    if lone.count != 1 or len(day.gone) != 1:
        return ""
    moved = day.gone[0] - clocks.time_of_day(lone.first[0], day.change.zone)
    how = "an hour" if abs(moved) == 3600 else short(abs(moved))
    return f", {how} {'early' if moved > 0 else 'late'}" if moved else ""
