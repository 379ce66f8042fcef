"""Local time: when clocks change in a zone, and what a day there is. Instants are whole epoch seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

DAY_S = 86400


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The clocks of `zone` change at the instant `at`; the offsets from UTC before and after are in seconds."""

    zone: str
    at: int
    before_s: int
    after_s: int

    @property
    def forward(self) -> bool:
        """Whether an hour is left out (else it comes twice)."""
        return self.after_s > self.before_s

    @property
    def day(self) -> date:
        """The local date on which it happens."""
        return (datetime.fromtimestamp(self.at, UTC) + timedelta(seconds=self.before_s)).date()

    @property
    def walls(self) -> tuple[int, int]:
        """The time of day, in seconds, that clocks show before and after the change."""
        first = (self.at + self.before_s) % DAY_S
        return first, first + self.after_s - self.before_s

    def __str__(self) -> str:
        first, second = (clock(wall % DAY_S) for wall in self.walls)
        return f"clocks go {'forward' if self.forward else 'back'} from {first} to {second}"


def changes(zone: str, start: int, end: int) -> tuple[ClockChange, ...]:
    """Return the changes of clocks in `zone` after `start` and before `end`."""
    info = ZoneInfo(zone)
    found, low, before = [], start, _offset(info, start)
    while low < end:
        high = min(low + DAY_S, end)
        after = _offset(info, high)
        if after != before:
            found.append(ClockChange(zone, _when(info, low, high), before, after))
        low, before = high, after
    return tuple(found)


def _when(zone: ZoneInfo, low: int, high: int) -> int:
    """Return the first second with the offset of `high`; `low` has another one."""
    wanted = _offset(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == wanted else (middle, high)
    return high


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def bounds(day: date, zone: str) -> tuple[int, int]:
    """Return the instants at which a local day begins, and the next one does."""
    info = ZoneInfo(zone)
    first, last = (datetime(each.year, each.month, each.day, tzinfo=info) for each in (day, day + timedelta(days=1)))
    return int(first.timestamp()), int(last.timestamp())


def days(zone: str, start: int, end: int) -> Iterator[tuple[date, int, int]]:
    """Yield the local days that lie wholly between `start` and `end`, each with its bounds."""
    day = local(start, zone).date()
    while True:
        first, last = bounds(day, zone)
        if last > end:
            return
        if first >= start:
            yield day, first, last
        day += timedelta(days=1)


def within(instants: Sequence[int], first: int, last: int) -> Sequence[int]:
    """Return those of the sorted `instants` from `first` up to, and without, `last`."""
    return instants[bisect_left(instants, first) : bisect_left(instants, last)]


def local(instant: int, zone: str) -> datetime:
    """Return an instant as the clocks of `zone` show it."""
    return datetime.fromtimestamp(instant, ZoneInfo(zone))


def time_of_day(instant: int, zone: str) -> int:
    """Return the seconds that the clocks of `zone` show after their midnight."""
    moment = local(instant, zone)
    return moment.hour * 3600 + moment.minute * 60 + moment.second


def clock(seconds: int, *, exact: bool = False) -> str:
    """Write a time of day: `08:05`; with seconds where there are any or `exact`."""
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
    return f"{text}:{seconds % 60:02d}" if exact or seconds % 60 else text


def same_zone(one: str, other: str) -> bool:
    """Whether two names mean one zone, as far as the names tell (`Etc/UTC` and `UTC` do)."""
    utc = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"}
    return one == other or (one in utc and other in utc)
