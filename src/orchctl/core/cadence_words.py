"""A cadence in words for people, told from its instants: "every 5 minutes from 08:00 to 23:55"."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby, pairwise

from orchctl.core import clocks
from orchctl.core.clocks import DAY_S

_UNITS = ((DAY_S, "day", "d"), (3600, "hour", "h"), (60, "minute", "m"), (1, "second", "s"))
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LISTED = 6
_MONTH = 28
EACH_DAY = "each day"
Pattern = tuple[int, ...]
"""The times of a day, in seconds after midnight."""


@dataclass(frozen=True, slots=True)
class Days:
    """The whole days of a window on which clocks do not change, and the pattern of each; `()` where nothing is due."""

    patterns: Mapping[date, Pattern]

    def of_kind(self, pattern: Pattern) -> list[date]:
        """Return the days with this pattern."""
        return [day for day, each in self.patterns.items() if each is pattern]

    @property
    def kinds(self) -> list[Pattern]:
        """The different patterns with anything in them, in the order in which they first come."""
        return list({id(each): each for each in self.patterns.values() if each}.values())


def describe(instants: Sequence[int], zone: str, start: int, end: int) -> str:
    """Say when a cadence is due whose sorted `instants` from `start` to `end` are these, in the time of `zone`."""
    if not instants:
        return "never"
    if len(instants) == 1:
        return f"once, at {clocks.local(instants[0], zone):%Y-%m-%d %H:%M}"
    found = patterns(instants, zone, start, end)
    kinds = found.kinds
    if 0 < len(kinds) <= 2:
        parts = [_said(kind, found.of_kind(kind), found.patterns) for kind in kinds]
        if None not in parts:
            return "; ".join(filter(None, parts))
    gaps = {later - earlier for earlier, later in pairwise(instants)}
    if len(gaps) == 1:
        return f"every {span(gaps.pop())}"
    return f"{len(instants)} times, {short(min(gaps))} to {short(max(gaps))} apart"


def patterns(instants: Sequence[int], zone: str, start: int, end: int) -> Days:
    """Return what the days of a window look like; equal patterns are one object."""
    changed = {change.day for change in clocks.changes(zone, start, end)}
    known: dict[Pattern, Pattern] = {}
    found: dict[date, Pattern] = {}
    for day, first, last in clocks.days(zone, start, end):
        if day not in changed:
            pattern = tuple([instant - first for instant in clocks.within(instants, first, last)])
            found[day] = known.setdefault(pattern, pattern)
    return Days(found)


def _said(pattern: Pattern, on: Sequence[date], every: Collection[date]) -> str | None:
    times, which = times_in_words(pattern), days_in_words(on, every)
    if which == EACH_DAY and times.startswith("every"):
        return times
    return None if which is None else f"{times} {which}"


def times_in_words(pattern: Sequence[int]) -> str:
    """Say the times of a day: "every 5 minutes from 08:00 to 23:55", "at 03:30"."""
    exact = any(second % 60 for second in pattern)
    steps = {later - earlier for earlier, later in pairwise(pattern)}
    first, last = (clocks.clock(pattern[index], exact=exact) for index in (0, -1))
    if len(steps) == 1 and len(pattern) > 2:
        step = steps.pop()
        whole = step * len(pattern) == DAY_S and pattern[0] == 0
        return f"every {span(step)}" if whole else f"every {span(step)} from {first} to {last}"
    if len(pattern) <= _LISTED:
        return f"at {listed(clocks.clock(second, exact=exact) for second in pattern)}"
    return _by_hours(pattern) or f"{len(pattern)} times from {first} to {last}"


def _by_hours(pattern: Sequence[int]) -> str | None:
    """Say "at :05 and :20 of each hour from 08 to 23", where that is what it is."""
    hours = {hour: [second % 3600 for second in each] for hour, each in groupby(pattern, lambda second: second // 3600)}
    minutes = next(iter(hours.values()))
    together = list(hours) == list(range(min(hours), max(hours) + 1))
    if not together or len(minutes) > _LISTED or any(each != minutes for each in hours.values()):
        return None
    points = listed(f":{second // 60:02d}" + (f":{second % 60:02d}" if second % 60 else "") for second in minutes)
    return f"at {points} of each hour from {min(hours):02d} to {max(hours):02d}"


def days_in_words(on: Sequence[date], every: Collection[date]) -> str | None:
    """Say which of the days `every` are those `on`; None where there are no words for it."""
    chosen = set(on)
    if len(chosen) == len(every):
        return EACH_DAY
    weekdays = {day.weekday() for day in chosen}
    if len(chosen) > len(weekdays) and chosen == {day for day in every if day.weekday() in weekdays}:
        return _weekdays(sorted(weekdays))
    of_month = {day.day for day in chosen}
    if len(of_month) <= _LISTED and len(every) >= _MONTH and chosen == {day for day in every if day.day in of_month}:
        return f"on the {listed(map(_ordinal, sorted(of_month)))} of each month"
    if chosen == {day for day in every if (day + timedelta(days=1)).day == 1}:
        return "on the last day of each month"
    if len(chosen) <= _LISTED:
        return f"on {listed(day.isoformat() for day in on)}"
    return None


def _weekdays(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"from {_WEEKDAYS[numbers[0]]} to {_WEEKDAYS[numbers[-1]]}"
    return f"on {listed(f'{_WEEKDAYS[number]}s' for number in numbers)}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def listed(words: Iterable[str]) -> str:
    """Join words: "a", "a and b", "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def span(seconds: float) -> str:
    """Say a duration in words: "5 seconds", "minute" (after "every"), "90 seconds", "2 hours"."""
    whole = int(seconds)
    for size, word, _ in _UNITS:
        if whole % size == 0 and whole == seconds:
            number = whole // size
            return word if number == 1 else f"{number} {word}s"
    return f"{seconds:g} seconds"


def short(seconds: float) -> str:
    """Write a duration with its two largest units: `1m30s`, `5s`, `2h`, `1d3h`."""
    rest, parts = abs(seconds), []
    for size, _, unit in _UNITS[:3]:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number:.0f}{unit}")
    if rest or not parts:
        parts.append(f"{rest:.1f}".removesuffix(".0") + "s")
    return ("-" if seconds < 0 else "") + "".join(parts[:2])
