"""Two cadences, instant by instant. Instants are whole epoch seconds, sorted, none twice; there may be millions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from orchctl.core import clocks
from orchctl.core.clocks import ClockChange

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Some:
    """Instants: how many there are, and the first few."""

    count: int
    first: tuple[int, ...]

    @classmethod
    def of(cls, instants: Sequence[int]) -> Some:
        """Return `instants` with no more than `EXAMPLES` of them."""
        return cls(len(instants), tuple(instants[:EXAMPLES]))


@dataclass(frozen=True, slots=True)
class Shift:
    """An instant of the old side and the one of the new side that is obviously the same fire, moved."""

    old: int
    new: int

    @property
    def seconds(self) -> int:
        """How much later the new one is; negative: earlier."""
        return self.new - self.old


@dataclass(frozen=True, slots=True)
class Shifts:
    """Moved fires: how many, how many of them within the tolerance, by how much, and the first few."""

    count: int
    tolerated: int
    least_s: int
    most_s: int
    first: tuple[Shift, ...]


@dataclass(frozen=True, slots=True)
class ChangedDay:
    """A local day on which clocks change: how many instants each side has, and which only one has.

    `gone` are the times of day (seconds) at which either side is due on the day before and which do not exist.
    `as_before`: the sides differ as much on the day before, so clocks are not the reason.
    """

    change: ClockChange
    old: int
    new: int
    only_old: Some
    only_new: Some
    gone: tuple[int, ...]
    as_before: bool

    @property
    def day(self) -> date:
        """The local date."""
        return self.change.day

    @property
    def differs(self) -> bool:
        """Whether the sides differ on it."""
        return bool(self.only_old.count or self.only_new.count)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`same` instants are due on both sides; `shifted` ones are in neither `only_old` nor `only_new`."""

    old: int
    new: int
    same: int
    only_old: Some
    only_new: Some
    shifted: Shifts
    changed_days: tuple[ChangedDay, ...]

    @property
    def differs(self) -> bool:
        """Whether a fire is only on one side, or moved by more than the tolerance."""
        return bool(self.only_old.count or self.only_new.count or self.shifted.count > self.shifted.tolerated)


def compare(
    old: Sequence[int],
    new: Sequence[int],
    *,
    changes: Iterable[ClockChange] = (),
    tolerance_s: float = 0.0,
) -> Comparison:
    """Compare two cadences over one window.

    `tolerance_s` is how long after its instant the old side may start anyway: a fire moved later by less than that
    is told, and is no difference. `changes` are the changes of clocks in the window.
    """
    only_old, only_new = without(old, new), without(new, old)
    pairs = _pairs(only_old, only_new, old, new)
    left_old = without(only_old, [pair.old for pair in pairs])
    left_new = without(only_new, [pair.new for pair in pairs])
    return Comparison(
        len(old),
        len(new),
        len(old) - len(only_old),
        Some.of(left_old),
        Some.of(left_new),
        _shifts(pairs, tolerance_s),
        # A day's own differences: a fire that moved within it is one that each side has alone.
        tuple(_day(change, old, new, only_old, only_new) for change in changes),
    )


def without(instants: Sequence[int], others: Sequence[int]) -> Sequence[int]:
    """Return the `instants` that are not among `others`."""
    if not others or instants == others:
        return () if others else instants
    if len(others) <= len(instants) or len(others) < 1000:
        known = set(others)
        return [instant for instant in instants if instant not in known]
    return [instant for instant in instants if not _among(others, instant)]


def _among(instants: Sequence[int], instant: int) -> bool:
    place = bisect_left(instants, instant)
    return place < len(instants) and instants[place] == instant


def _pairs(only_old: Sequence[int], only_new: Sequence[int], old: Sequence[int], new: Sequence[int]) -> list[Shift]:
    """Pair lone instants that are each other's nearest, and nearer than half the spacing on both sides."""
    pairs = []
    for late in only_new if only_old else ():
        early = _nearest(only_old, late)
        if _nearest(only_new, early) == late and 2 * abs(late - early) < min(_spacing(old, early), _spacing(new, late)):
            pairs.append(Shift(early, late))
    return pairs


def _nearest(instants: Sequence[int], instant: int) -> int:
    place = bisect_left(instants, instant)
    around = instants[max(0, place - 1) : place + 1]
    return min(around, key=lambda each: abs(each - instant))


def _spacing(instants: Sequence[int], instant: int) -> int:
    """Return how far the nearest other one is; where there is none, two days, so that one day is no move."""
    place = bisect_left(instants, instant)
    gaps = [instant - instants[place - 1]] if place > 0 else []
    gaps += [instants[place + 1] - instant] if place + 1 < len(instants) else []
    return min(gaps, default=2 * clocks.DAY_S)


def _shifts(pairs: Sequence[Shift], tolerance_s: float) -> Shifts:
    moved = [pair.seconds for pair in pairs]
    tolerated = sum(0 <= seconds < tolerance_s for seconds in moved)
    return Shifts(len(pairs), tolerated, min(moved, default=0), max(moved, default=0), tuple(pairs[:EXAMPLES]))


def _day(
    change: ClockChange, old: Sequence[int], new: Sequence[int], only_old: Sequence[int], only_new: Sequence[int]
) -> ChangedDay:
    first, last = clocks.bounds(change.day, change.zone)
    before, _ = clocks.bounds(change.day - timedelta(days=1), change.zone)
    low, high = change.walls
    usual = {instant - before for side in (old, new) for instant in clocks.within(side, before, first)}
    lone_old, lone_new = clocks.within(only_old, first, last), clocks.within(only_new, first, last)
    was = (len(clocks.within(only_old, before, first)), len(clocks.within(only_new, before, first)))
    return ChangedDay(
        change,
        len(clocks.within(old, first, last)),
        len(clocks.within(new, first, last)),
        Some.of(lone_old),
        Some.of(lone_new),
        tuple(second for second in sorted(usual) if low <= second < high),
        (len(lone_old), len(lone_new)) == was,
    )
