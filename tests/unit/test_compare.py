"""Two cadences, instant by instant."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchctl.core import calendar, clocks
from orchctl.core.compare import Comparison, compare

NEW_YORK = "America/New_York"
START = datetime(2025, 12, 19, 5, tzinfo=UTC)
DAY = 86400


def due(expression: str, *, days: int = 400, zone: str = NEW_YORK, start: datetime = START) -> list[int]:
    return calendar.instants(expression, zone, start, start + timedelta(days=days))


def compared(old: Sequence[int], new: Sequence[int], *, tolerance_s: float = 0.0) -> Comparison:
    first = int(START.timestamp())
    changes = clocks.changes(NEW_YORK, first, first + 400 * DAY)
    return compare(old, new, changes=changes, tolerance_s=tolerance_s)


def counts(found: Comparison) -> tuple[int, int, int, int]:
    return found.same, found.only_old.count, found.only_new.count, found.shifted.count


def test_equal_cadences_do_not_differ() -> None:
    found = compared(due("*-*-* 03:30:00"), due("*-*-* 03:30:00"))
    assert counts(found) == (400, 0, 0, 0)
    assert not found.differs
    assert not any(day.differs for day in found.changed_days)


def test_what_only_one_side_has_is_counted_and_shown() -> None:
    often, seldom = due("*-*-* *:00:00", days=2), due("*-*-* 00/6:00:00", days=2)
    found = compared(often, seldom)
    assert counts(found) == (8, 40, 0, 0)
    assert found.only_old.first == tuple(often[1:6])
    assert counts(compared(seldom, often)) == (8, 0, 40, 0)
    assert found.differs


def test_one_side_may_be_empty() -> None:
    assert counts(compared([], [10, 20])) == (0, 0, 2, 0)
    assert counts(compared([10, 20], [])) == (0, 2, 0, 0)
    assert counts(compared([], [])) == (0, 0, 0, 0)


def test_a_moved_fire_is_one_difference_not_two() -> None:
    found = compared(due("*-*-* 04:00:00"), due("*-*-* 04:20:00"))
    assert counts(found) == (0, 0, 0, 400)
    assert (found.shifted.least_s, found.shifted.most_s, found.shifted.tolerated) == (1200, 1200, 0)
    assert found.shifted.first[0].seconds == 1200
    assert found.differs


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Half-way between two is no one's neighbour; nor is a day away a move where each comes once.
        ("*-*-* 00:00:00", "*-*-* 12:00:00"),
        ("2026-01-01 00:00:00", "2026-01-03 00:00:00"),
    ],
)
def test_what_is_far_from_all_others_did_not_move(old: str, new: str) -> None:
    assert compared(due(old, days=30), due(new, days=30)).shifted.count == 0


def test_what_is_crowded_is_not_paired() -> None:
    found = compared([0, 100, 200], [10, 20, 110])
    # 10 and 20 are nearer to each other than to 0: which of them would have moved?
    assert counts(found) == (0, 2, 2, 1)
    assert (found.shifted.first[0].old, found.shifted.first[0].new) == (100, 110)


@pytest.mark.parametrize(("minute", "tolerated", "differs"), [(1, 400, False), (2, 0, True), (59, 0, True)])
def test_what_systemd_may_delay_anyway_is_no_difference(minute: int, tolerated: int, differs: bool) -> None:
    hour = 3 if minute == 59 else 4
    found = compared(due("*-*-* 04:00:00"), due(f"*-*-* {hour:02d}:{minute:02d}:00"), tolerance_s=90)
    assert (found.shifted.count, found.shifted.tolerated, found.differs) == (400, tolerated, differs)


def test_the_days_on_which_clocks_change_are_named() -> None:
    old = due("*-*-* 02:00:00")
    first = int(datetime(2026, 3, 8, 6, tzinfo=UTC).timestamp())
    found = compared(old, sorted([*old, first]))
    spring, autumn = found.changed_days
    assert (str(spring.day), spring.old, spring.new, spring.gone) == ("2026-03-08", 0, 1, (7200,))
    assert spring.only_new.first == (first,)
    assert str(spring.change) == "clocks go forward from 02:00 to 03:00"
    assert spring.differs
    assert not spring.as_before
    assert (str(autumn.day), autumn.differs, autumn.gone) == ("2026-11-01", False, ())
    assert str(autumn.change) == "clocks go back from 02:00 to 01:00"


def test_a_difference_of_every_day_is_not_laid_to_the_clocks() -> None:
    found = compared(due("*-*-* 08..23:*:00/5", days=120), due("*-*-* 08..23:00/5:00", days=120))
    (spring,) = [day for day in found.changed_days if day.change.forward]
    assert spring.differs
    assert spring.as_before


def test_millions_of_instants_are_compared_in_a_moment() -> None:
    old, new = due("*-*-* 08..23:*:00/5"), due("*-*-* 08..23:00/5:00")
    began = time.monotonic()
    found = compared(old, new)
    # 0.3 s on an idle machine; a loop over objects would take minutes.
    assert time.monotonic() - began < 10
    assert counts(found) == (76800, 4531200, 0, 0)


@given(some.sets(some.integers(0, 300)), some.sets(some.integers(0, 300)))
def test_every_instant_is_counted_once(old: set[int], new: set[int]) -> None:
    found = compare(sorted(old), sorted(new))
    assert found.same == len(old & new)
    assert found.same + found.only_old.count + found.shifted.count == len(old)
    assert found.same + found.only_new.count + found.shifted.count == len(new)
    assert found.differs == (old != new)


@given(some.sets(some.integers(0, 300)), some.sets(some.integers(0, 300)))
def test_sides_swapped_say_the_same(old: set[int], new: set[int]) -> None:
    there, back = compare(sorted(old), sorted(new)), compare(sorted(new), sorted(old))
    assert there.same == back.same
    if there.shifted.count == back.shifted.count:
        assert there.only_old == back.only_new
