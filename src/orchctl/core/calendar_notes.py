"""Where a Prefect schedule and the calendar expression it was made from differ all the same.

On days on which clocks change (measured against Prefect 3.8.8), and by defects of systemd's own calculation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from orchctl.core import calendar_elapse, calendar_walk, clocks
from orchctl.core.calendar_parse import Expression

# A fixed span, for the core has no clock: in twelve years a day of change falls on each weekday.
_CHANGES = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC))
# Systemd's defects show within a year, at a change of clocks, or at a leap day.
_DEFECTS = timedelta(days=3 * 366)
_MOST = 300_000
_SOME = timedelta(days=40)
_DAY_S = 86_400


def differences(expression: str, timezone: str, kind: str) -> tuple[str, ...]:
    """Return one sentence for each kind of difference, empty where there is none.

    `kind` is that of the Prefect schedule: cron, interval or rrule. Raises ValueError as `calendar_elapse.read`.
    """
    spec, zone = calendar_elapse.read(expression, timezone)
    found: list[str] = []
    if kind != "interval":
        found += _gaps(spec, zone, kind)
        found += _overlaps(spec, zone)
    return tuple(found + _defects(spec, expression, timezone, zone))


def _gaps(spec: Expression, zone: ZoneInfo, kind: str) -> Iterator[str]:
    """Prefect runs what is due in the hour that clocks leave out; systemd does not."""
    days, said = 0, ""
    times = frozenset(calendar_elapse.times(spec))
    for change in _changes(zone.key):
        if not change.forward or not _matches(spec, change.day):
            continue
        first, after = change.walls
        gap = after - first
        skipped = [time for time in range(first, after) if time in times and not _same(time, gap, times, kind)]
        if skipped:
            days += 1
            said = said or f"{change.day} in {zone.key}: {_when(skipped, gap, kind)}"
    if days:
        yield said + (f"; so on {days} days until 2038" if days > 1 else "")


def _same(time: int, gap: int, times: Collection[int], kind: str) -> bool:
    """Whether Prefect is due at the time that it makes of this one anyway."""
    later = kind == "rrule" or (time + gap) in times
    return time - gap in times and later


def _when(skipped: Sequence[int], gap: int, kind: str) -> str:
    early = clocks.clock((skipped[0] - gap) % _DAY_S) + (" the day before" if skipped[0] < gap else "")
    late = clocks.clock(skipped[0] + gap)
    others = f" (and {len(skipped) - 1} more times)" if len(skipped) > 1 else ""
    prefect = early if kind == "rrule" else f"{early}, or at {late} where its server has Python 3.13"
    return (
        f"there is no {clocks.clock(skipped[0])}{others} when clocks go forward; systemd skips it, "
        f"Prefect runs at {prefect}"
    )


def _overlaps(spec: Expression, zone: ZoneInfo) -> Iterator[str]:
    """Days counted from the month's end: systemd does not always take the first of a time that comes twice."""
    for change in _changes(zone.key) if spec.from_end else ():
        after, first = sorted(change.walls)
        if change.forward or not _matches(spec, change.day):
            continue
        if any(after <= time < first for time in calendar_elapse.times(spec)):
            yield (
                f"{change.day} in {zone.key}: the hour from {clocks.clock(after)} comes twice; Prefect runs in the "
                "first, systemd perhaps in the second"
            )
            return


def _defects(spec: Expression, expression: str, timezone: str, zone: ZoneInfo) -> list[str]:
    lost: list[int] = []
    stuck: list[int] = []
    for begin, end in _spans(spec, zone):
        left_out, after = calendar_elapse.defects(expression, timezone, begin, end)
        lost, stuck = lost + left_out, stuck + after
    found = []
    if lost:
        found.append(
            f"systemd loses instants of this repetition, such as {_local(lost[0], zone)}, and Prefect runs: a defect "
            f"of systemd{_repaired(spec, lost, zone)}, which a range with an end (0..59/35) has not"
        )
    if stuck:
        found.append(
            f"after {_local(stuck[0], zone)} systemd's calculation gets stuck (\"Infinite loop in calendar "
            'calculation") and the timer waits for nothing more until it is reloaded; Prefect goes on'
        )
    return found


def _spans(spec: Expression, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """Return where to look for defects: three years, or where they are likely if that is too many instants."""
    begin = _first_day(spec, zone)
    if begin is None:
        return []
    if _DEFECTS.days * len(calendar_elapse.times(spec)) <= _MOST:
        return [(begin, begin + _DEFECTS)]
    around = timedelta(days=2)
    changes = (datetime.fromtimestamp(change.at, UTC) for change in _changes(zone.key))
    return [
        (begin, begin + _SOME),
        *((at - around, at + around) for at in changes if begin + _SOME < at < begin + _DEFECTS),
    ]


def _repaired(spec: Expression, lost: Sequence[int], zone: ZoneInfo) -> str:
    new_year = all(datetime.fromtimestamp(at, zone).strftime("%m") == "01" for at in lost)
    return " before 257.13" if new_year and spec.day is not None else ""


def _first_day(spec: Expression, zone: ZoneInfo) -> datetime | None:
    """Return where to look for defects, None where the expression cannot have any."""
    if not (calendar_walk.runs_over(spec) or calendar_elapse.open_hours(spec)):
        return None
    day = next(calendar_elapse.dates(spec, _CHANGES[0].date(), date(2199, 12, 31)), None)
    return datetime(day.year, day.month, day.day, tzinfo=zone) if day else None


def _local(instant: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(instant, zone):%Y-%m-%d %H:%M:%S} {zone.key}"


def _matches(spec: Expression, day: date) -> bool:
    return next(calendar_elapse.dates(spec, day, day), None) is not None


@lru_cache(maxsize=64)
def _changes(zone: str) -> tuple[clocks.ClockChange, ...]:
    begin, end = (int(moment.timestamp()) for moment in _CHANGES)
    return clocks.changes(zone, begin, end)
