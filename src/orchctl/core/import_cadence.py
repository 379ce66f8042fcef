"""From the timers that start one service to one schedule of the catalog, or to the reason why there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchctl.core import durations
from orchctl.core.legacy import Timer
from orchctl.core.unit_text import Setting

Judge = Callable[[Mapping[str, Any]], str | None]
"""Says what the catalog holds against the keys of a schedule, None where nothing."""

_ZONE = re.compile(r" (UTC|[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*)\Z")
_WEEKDAYS = re.compile(r"[A-Z][a-z]{2}[A-Za-z.,]* ")
_SECONDS = re.compile(r":[^ :]*[*/,.][^ :]*\Z")
_ONCE = {"OnBootSec", "OnStartupSec", "OnActiveSec"}
# systemd's default, which hardly anybody means.
_USUAL_ACCURACY_S = 60.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """`keys` are those of a schedule's table, None where the catalog cannot say this cadence: `comments` say why.

    `job_keys` are keys of the job that belong to it. `warnings` are for the operator, and stand in the file too.
    """

    keys: Mapping[str, Any] | None
    job_keys: Mapping[str, Any]
    comments: tuple[str, ...]
    warnings: tuple[str, ...]


def cadence(
    timers: Sequence[Timer],
    settings: Mapping[str, Sequence[Setting]],
    judge: Judge,
    *,
    host_zone: str,
    default_zone: str,
) -> Cadence:
    """Return what starts a service, as a schedule. `settings` are those of each timer's file, by its name."""
    comments: list[str] = []
    warnings = [text for timer in timers for text in _unread(timer, settings.get(timer.name, ()))]
    calendars = list(dict.fromkeys(line for timer in timers for line in timer.calendars))
    keys: dict[str, Any] | None = None
    if calendars:
        keys = _calendar_keys(calendars, host_zone, default_zone)
        reason = judge(keys)
        if reason is not None:
            warnings.append(f"it has no schedule: OnCalendar={reason}")
            keys = None
        warnings += _sub_minute(timers)
        comments += [f"{each} is not carried" for each in _monotonic(timers, _ONCE)]
        more = _monotonic(timers, {"OnUnitActiveSec", "OnUnitInactiveSec"})
        warnings += [f"{each} beside OnCalendar= is not carried" for each in more]
    else:
        keys, said, warned = _interval(timers, settings)
        comments += said
        warnings += warned
        if keys is not None:
            keys = {**keys, **({"timezone": "UTC"} if default_zone != "UTC" else {})}
    comments += [f"{text} is not carried{why}" for timer in timers for text, why in looseness(timer).items()]
    return Cadence(keys, _catchup(timers, calendars) if keys else {}, _unique(comments), _unique(warnings))


def _unique(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _calendar_keys(calendars: Sequence[str], host_zone: str, default_zone: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"on_calendar": calendars[0] if len(calendars) == 1 else list(calendars)}
    if host_zone != default_zone and any(_ZONE.search(line) is None for line in calendars):
        keys["timezone"] = host_zone
    return keys


def _interval(
    timers: Sequence[Timer], settings: Mapping[str, Sequence[Setting]]
) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """Return the schedule of timers without OnCalendar=, comments and warnings."""
    after_end = _monotonic(timers, {"OnUnitInactiveSec"})
    periods = [each.seconds for timer in timers for each in timer.monotonic if each.base == "OnUnitActiveSec"]
    if after_end:
        nearest = next(each.seconds for timer in timers for each in timer.monotonic if each.base == "OnUnitInactiveSec")
        near = f'; the nearest is every = "{durations.canonical(round(nearest))}"' if round(nearest) else ""
        return (
            None,
            [],
            [f"it has no schedule: {after_end[0]} counts from the end of each run, which Prefect cannot{near}"],
        )
    if not periods:
        events = _monotonic(timers, _ONCE) + _clock_events(timers, settings)
        what = ", ".join(events) or "the timer"
        return None, [], [f"it has no schedule: {what} is no cadence, the job runs by hand only"]
    period = min(periods)
    if period != int(period) or not 0 < period <= durations.MAX_SECONDS:
        return (
            None,
            [],
            [f"it has no schedule: OnUnitActiveSec={span(period)} is no whole number of seconds up to 366d"],
        )
    drift = "systemd counts from each start of the service, so that it drifts; here it is counted from a fixed instant"
    said = [f"OnUnitActiveSec={span(period)}: {drift}"]
    said += [f"{each}: the start after a boot is not carried" for each in _monotonic(timers, _ONCE)]
    return {"every": durations.canonical(int(period))}, said, []


def _monotonic(timers: Sequence[Timer], bases: set[str]) -> list[str]:
    found = [each for timer in timers for each in timer.monotonic if each.base in bases]
    return [f"{each.base}={span(each.seconds)}" for each in found]


def _clock_events(timers: Sequence[Timer], settings: Mapping[str, Sequence[Setting]]) -> list[str]:
    wanted = {"OnClockChange", "OnTimezoneChange"}
    found = [each for timer in timers for each in settings.get(timer.name, ()) if each.key in wanted]
    return [f"{each.key}=" for each in found if _yes(each.value)]


def _yes(value: str) -> bool:
    return value.lower() in {"1", "yes", "y", "true", "t", "on"}


def _unread(timer: Timer, settings: Sequence[Setting]) -> Iterator[str]:
    """Yield what stands in a timer's file and is not in force, or means something that no schedule has."""
    written = [each for each in settings if each.section == "Timer"]
    lines = [each.value for each in written if each.key == "OnCalendar"]
    if len(lines) > len(timer.calendars):
        yield (
            f"{timer.name} has {len(lines)} OnCalendar= lines, and systemd took {len(timer.calendars)}: it ignores "
            f"what it cannot read ({'; '.join(lines)})"
        )
    for each in written:
        if each.key.lower() == "timezone":
            yield f"{timer.name}: {each} is no setting of systemd, which ignores it: the timer runs in the host's zone"
        elif each.key in {"OnClockChange", "OnTimezoneChange"} and _yes(each.value):
            yield f"{timer.name}: {each} is not carried"


def _sub_minute(timers: Sequence[Timer]) -> Iterator[str]:
    """Yield a warning for what says seconds and is blurred to minutes by AccuracySec=."""
    for timer in timers:
        seconds = [line for line in timer.calendars if _SECONDS.search(_ZONE.sub("", line))]
        if seconds and timer.accuracy_s > 1:
            accuracy = f"with AccuracySec={span(timer.accuracy_s)} systemd starts it less often than that"
            yield f"{timer.name}: {seconds[0]} says {_often(seconds[0])}; {accuracy}: see whether minutes were meant"


def _often(line: str) -> str:
    step = re.search(r":[0-9]+/([0-9]+)\Z", _ZONE.sub("", line))
    return f"every {step[1]} seconds" if step else "several seconds of a minute"


def looseness(timer: Timer) -> dict[str, str]:
    """Return what systemd does to an instant before it starts something, and Prefect does not, each with what that
    means for a job ("" for nothing more).
    """
    found = {}
    if timer.random_delay_s:
        fixed = ", the same each time (FixedRandomDelay=)" if timer.fixed_random_delay else ""
        found[f"RandomizedDelaySec={span(timer.random_delay_s)}{fixed}"] = ": runs start at the instant"
    if timer.random_offset_s:
        found[f"RandomizedOffsetSec={span(timer.random_offset_s)}"] = ": runs start at the instant"
    if timer.accuracy_s != _USUAL_ACCURACY_S:
        found[f"AccuracySec={span(timer.accuracy_s)}"] = ""
    if timer.wake_system:
        found["WakeSystem=yes"] = ": nothing wakes the machine"
    return found


def _catchup(timers: Sequence[Timer], calendars: Sequence[str]) -> dict[str, Any]:
    if not calendars or not any(timer.persistent for timer in timers):
        return {"catchup": "skip"}
    return {"catchup": "latest", "catchup_window": f"{min(_longest_gap(line) for line in calendars)}d"}


def _longest_gap(line: str) -> int:
    """Return days that are longer than any time without an instant: within them a later slot takes over."""
    text = _ZONE.sub("", line)
    weekdays = _WEEKDAYS.match(text) is not None
    year, month, day = re.split("[-~]", _WEEKDAYS.sub("", text, count=1).split(" ")[0], maxsplit=2)
    if year != "*" or month != "*" or (weekdays and day != "*"):
        return 366
    # 31 is in every other month only, and a time of day that clocks skip makes a day longer.
    return 63 if day != "*" else 8 if weekdays else 2


def span(seconds: float) -> str:
    """Write a measured time span as the catalog would, fractions included."""
    return durations.canonical(int(seconds)) if seconds == int(seconds) else f"{seconds:g}s"
