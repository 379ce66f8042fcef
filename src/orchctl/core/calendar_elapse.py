"""When systemd's calendar expressions elapse.

The rules are systemd's own: a local time that does not exist is skipped, of one that is twice the first is taken
(systemd.time(7); measured with systemd 252, 257 and 262). What its calculation loses is lost here too, for that is
what happens on the host (`calendar_walk`). Instants are whole epoch seconds (UTC).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from orchctl.core import calendar_hints, calendar_walk
from orchctl.core.calendar_parse import BOUNDS, DAYS, MICRO, Expression, parse

_DAY = timedelta(days=1)
# So far back the elapse is looked for from which systemd goes on: a month may come once a year.
_BEFORE = timedelta(days=400)


def instants(expression: str, timezone: str, start: datetime, end: datetime) -> list[int]:
    """Return systemd's own instants (epoch seconds) from `start` up to, and without, `end`, sorted, none twice.

    `timezone` is the zone where the expression names none. Raises ValueError where systemd refuses the expression,
    where it elapses within a second, and where its zone is an abbreviation. Where systemd's calculation gets stuck
    (`defects`), what follows is what it finds when it is asked afresh, as after a restart.
    """
    return _counted(*read(expression, timezone), start, end)[0]


def defects(expression: str, timezone: str, start: datetime, end: datetime) -> tuple[list[int], list[int]]:
    """Return what systemd's calculation leaves out in the same span, and the instants after which it gets stuck.

    Stuck is the answer "Infinite loop in calendar calculation": a running timer then waits for nothing more until
    its manager is reloaded or restarted.
    """
    spec, zone = read(expression, timezone)
    if not calendar_walk.runs_over(spec) and not open_hours(spec):
        return [], []
    found, stuck = _counted(spec, zone, start, end)
    whole, _ = _counted(spec.listed(), zone, start, end)
    return sorted(set(whole).difference(found)), stuck


def read(expression: str, timezone: str) -> tuple[Expression, ZoneInfo]:
    """Return the expression read, and the zone in force. Raises ValueError as `instants` does."""
    spec = parse(expression)
    if any(n % MICRO for n in spec.numbers("second") or ()):
        raise ValueError("it elapses within a second; write whole seconds")
    local = ZoneInfo(timezone)
    zone = spec.zone
    if zone not in {None, "UTC", timezone} and str(zone).lower() in _abbreviations(local):
        raise ValueError(calendar_hints.abbreviation(str(zone), local=timezone))
    return spec, ZoneInfo(zone) if zone else local


def _abbreviations(zone: ZoneInfo) -> set[str]:
    return {str(datetime(2026, month, 1, tzinfo=zone).tzname()).lower() for month in (1, 7)}


def _counted(spec: Expression, zone: ZoneInfo, start: datetime, end: datetime) -> tuple[list[int], list[int]]:
    found: list[int] = []
    stuck: list[int] = []
    for day in _days(spec, zone, start, end, stuck):
        found += day
    low, high = start.timestamp(), end.timestamp()
    within = found[bisect_left(found, low) : bisect_left(found, high)]
    return within, [instant for instant in stuck if low <= instant < high]


def _days(
    spec: Expression, zone: ZoneInfo, start: datetime, end: datetime, stuck: list[int]
) -> Iterator[Sequence[int]]:
    """Yield the instants of each day from that of `start` to that of `end`; note in `stuck` where systemd is."""
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    over = calendar_walk.runs_over(spec)
    days: Iterable[date] = dates(spec, first, last)
    if over or open_hours(spec):
        # Where a day begins depends on the elapse before it.
        listed = list(dates(spec, first - _BEFORE, last))
        days = listed[max(0, bisect_left(listed, first) - 1) :]
    previous: int | None = None
    for day in days:
        plain = _plain(zone, day)
        found = _of_day(spec, zone, day, over=over, plain=plain)
        if previous is not None and not plain and not _exists(datetime.combine(day, time(), zone)):
            # Without a midnight, mktime(3) decides; a repetition of hours then gets stuck (measured, 252).
            stuck += [previous] if open_hours(spec) else []
        elif previous is not None and over:
            found = _from(spec, zone, previous, found, walk=not plain, stuck=stuck)
        previous = found[-1] if found else previous
        yield found


def open_hours(spec: Expression) -> bool:
    """Whether hours repeat without an end: where a day has no midnight, systemd then gets stuck."""
    return any(element.step and element.stop is None for element in spec.hour or ())


def _from(
    spec: Expression, zone: ZoneInfo, previous: int, day: Sequence[int], *, walk: bool, stuck: list[int]
) -> Sequence[int]:
    """Return what systemd reaches of a day's instants, coming from the elapse `previous`.

    `walk`: clocks change on this day, so each step counts; else only the first one.
    """
    reached: list[int] = []
    at = previous
    while (rest := bisect_right(day, at)) < len(day):
        try:
            found = calendar_walk.after(spec, zone, at)
        except calendar_walk.Stall:
            stuck.append(at)
            found = day[rest]
        if found is None or found > day[-1]:
            break
        if not walk:
            return day[bisect_left(day, found) :]
        reached.append(found)
        at = found
    return reached


def _plain(zone: ZoneInfo, day: date) -> bool:
    """Whether no clock changes on that day."""
    begin, end = (datetime.combine(d, time(), zone) for d in (day, day + _DAY))
    return begin.utcoffset() == end.utcoffset() and _exists(begin)


def _exists(local: datetime) -> bool:
    return local == local.astimezone(UTC).astimezone(local.tzinfo)


def _of_day(spec: Expression, zone: ZoneInfo, day: date, *, over: bool, plain: bool) -> Sequence[int]:
    midnight = datetime.combine(day, time(), zone)
    if plain:
        begin = int(midnight.timestamp())
        return [begin + second for second in (_reached(spec) if over else times(spec))]
    from oncalendar import BaseIterator

    found: list[int] = []
    for moment in BaseIterator(f"{_date_text(spec)} {_time_text(spec)}", midnight - timedelta(seconds=1)):
        if moment.date() > day:
            break
        found.append(int(moment.timestamp()))
    return found


def dates(spec: Expression, first: date, last: date) -> Iterator[date]:
    """Yield the dates from `first` to `last`, both included, that `spec` matches."""
    from oncalendar import BaseIterator

    for moment in BaseIterator(_date_text(spec), datetime.combine(first, time()) - timedelta(seconds=1)):
        if moment.date() > last:
            return
        yield moment.date()


def fires(spec: Expression) -> bool:
    """Whether there is a date that `spec` matches at all: there is no 30 February."""
    first, last = BOUNDS["year"]
    return next(dates(spec, date(first, 1, 1), date(last, 12, 31)), None) is not None


@lru_cache(maxsize=32)
def times(spec: Expression) -> tuple[int, ...]:
    """Return the seconds of a day (from midnight) on which `spec` elapses, where no clock changes."""
    from oncalendar import BaseIterator

    day = datetime(2026, 6, 10)  # noqa: DTZ001 (any day)
    found = []
    for moment in BaseIterator(_time_text(spec), day - timedelta(seconds=1)):
        if moment.day != day.day:
            break
        found.append(moment.hour * 3600 + moment.minute * 60 + moment.second)
    return tuple(found)


@lru_cache(maxsize=32)
def _reached(spec: Expression) -> tuple[int, ...]:
    """Return those of `times` that systemd reaches: seconds that run over lose the first ones of the next hour."""
    listed, midnight = times(spec), datetime(2026, 6, 10, tzinfo=UTC)
    any_day, begin = spec.any_day(), int(midnight.timestamp())
    lost: set[int] = set()
    for before, second in pairwise(listed):
        if before // 3600 != second // 3600 and second % 3600 < 60:
            reached = (calendar_walk.after(any_day, UTC, begin + before) or begin) - begin
            lost.update(listed[bisect_left(listed, second) : bisect_left(listed, reached)])
    return tuple(second for second in listed if second not in lost)


def text(spec: Expression) -> str:
    """Write `spec` without its zone, and without repetitions: numbers and ranges only."""
    weekdays = _weekdays_text(spec)
    separator = "~" if spec.from_end else "-"
    day = f"{_ranges(spec, 'year')}-{_ranges(spec, 'month')}{separator}{_ranges(spec, 'day')}"
    return f"{weekdays}{day} {_ranges(spec, 'hour')}:{_ranges(spec, 'minute')}:{_ranges(spec, 'second')}"


def _weekdays_text(spec: Expression) -> str:
    return ",".join(DAYS[day - 1] for day in sorted(spec.weekdays)) + " " if spec.weekdays else ""


def _date_text(spec: Expression) -> str:
    """Write the date as the library reads it: without ranges and repetitions, whose ends it takes otherwise."""
    separator = "~" if spec.from_end else "-"
    return f"{_weekdays_text(spec)}{_list(spec, 'year')}-{_list(spec, 'month')}{separator}{_list(spec, 'day')}"


def _time_text(spec: Expression) -> str:
    return f"{_list(spec, 'hour')}:{_list(spec, 'minute')}:{_list(spec, 'second')}"


def _list(spec: Expression, name: str) -> str:
    found = _found(spec, name)
    return "*" if found is None else ",".join(str(number) for number in found)


def _ranges(spec: Expression, name: str) -> str:
    found = _found(spec, name)
    if found is None:
        return "*"
    starts = [number for number in found if number - 1 not in found]
    ends = [number for number in found if number + 1 not in found]
    return ",".join(
        f"{low:02}" if low == high else f"{low:02}..{high:02}" for low, high in zip(starts, ends, strict=True)
    )


def _found(spec: Expression, name: str) -> list[int] | None:
    """Return the numbers of a field, seconds whole, sorted; None for all."""
    numbers = spec.numbers(name)
    unit = MICRO if name == "second" else 1
    low, high = BOUNDS[name]
    if numbers is None or len(numbers) == high // unit - low + 1:
        return None
    return sorted(number // unit for number in numbers)
