"""Pointers as data: what one says, and when one may move."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.core.publish import (
    File,
    Pointer,
    Target,
    check,
    decide,
    digest_of,
    holds,
    moved,
    overtaken,
    pointer_of,
)
from publish_cases import run_id

NOW = datetime(2025, 12, 19, 12, tzinfo=UTC)
LOCK = datetime(2025, 12, 19, 0, tzinfo=UTC)


def target(run: str, digest: str = "a") -> Target:
    return Target(run, NOW, NOW, f"run={run}", "sha256:" + digest * 64, "rates.score", date(2025, 12, 19), "/m.json")


def pointer(run: str, **others: Any) -> dict[str, Any]:
    return {**moved(None, target(run), at=NOW, by="run", reason="always").to_json(), **others}


# ------------------------------------------------------------------------------------------------------ what one says


def test_a_pointer_is_read_as_it_was_written() -> None:
    first = moved(None, target(run_id(1)), at=NOW, by="run", reason="policy always")
    second = moved(first, target(run_id(2)), at=NOW, by="hand", reason="by hand")
    for one in (first, second):
        assert pointer_of(json.loads(json.dumps(one.to_json()))) == one


def test_unknown_keys_are_ignored() -> None:
    assert pointer_of(pointer(run_id(1), more=[1, 2])).run_id == run_id(1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no JSON object"),
        ({"run_id": "20251219T020143Z"}, "it has no moved_by"),
        (pointer(run_id(1), run_id="20251219T020143Z"), "run_id is"),
        (pointer(run_id(1), run_id=None), "it has no run_id"),
        (pointer(run_id(1), run_id=3), "run_id is 3, not a text"),
        (pointer(run_id(1), path=".."), "path is"),
        (pointer(run_id(1), path="a/b"), "path is"),
        (pointer(run_id(1), path="/etc"), "path is"),
        (pointer(run_id(1), path="a\nb"), "path is"),
        (pointer(run_id(1), path=""), "path is"),
        (pointer(run_id(1), digest="sha1:abc"), "digest is"),
        (pointer(run_id(1), digest="sha256:" + "A" * 64), "digest is"),
        (pointer(run_id(1), run_as_of_ts="2025-12-19"), "run_as_of_ts"),
        (pointer(run_id(1), promoted_at="2025-12-19T00:00:00"), "promoted_at"),
        (pointer(run_id(1), game_date="20251219"), "game_date"),
        (pointer(run_id(1), asset="../x"), "asset is"),
        (pointer(run_id(1), manifest="m.json"), "manifest is"),
        (pointer(run_id(1), manifest=7), "manifest is 7, not a text"),
        (pointer(run_id(1), previous="x"), "previous is"),
        (pointer(run_id(1), moved_by="cron"), "moved_by is"),
        (pointer(run_id(1), moved_at="now"), "moved_at"),
        (pointer(run_id(2), newest=run_id(1)), "newest is"),
        (pointer(run_id(1), reason=None), "it has no reason"),
    ],
)
def test_what_orchctl_would_not_have_written_is_refused(data: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pointer_of(data)


@given(st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_whatever_stands_there_it_is_read_or_refused(data: object) -> None:
    with pytest.raises(ValueError):
        pointer_of(data)


@given(st.sampled_from(sorted(pointer(run_id(1)))), st.none() | st.integers() | st.text(max_size=30))
def test_a_changed_key_is_read_or_refused_and_what_is_read_stays_the_same(key: str, value: object) -> None:
    try:
        found = pointer_of(pointer(run_id(1), **{key: value}))
    except ValueError:
        return
    assert pointer_of(found.to_json()) == found
    check(found.run)


# ----------------------------------------------------------------------------------------------------- when one moves


def play(runs: Sequence[int]) -> Pointer | None:
    held = None
    for run in map(run_id, runs):
        if overtaken(held, run) is None:
            held = moved(held, target(run), at=NOW, by="run", reason="always")
    return held


RUNS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(RUNS)
def test_whatever_the_order_of_publishing_the_newest_run_is_held(runs: list[int]) -> None:
    held = play(runs)
    assert held is not None
    assert (held.run_id, held.newest) == (run_id(max(runs)), run_id(max(runs)))


@given(RUNS)
def test_a_pointer_never_moves_back_by_itself_and_publishing_again_changes_nothing(runs: list[int]) -> None:
    for end in range(1, len(runs)):
        before, after = play(runs[:end]), play(runs[: end + 1])
        assert before is not None
        assert after is not None
        assert after.run_id >= before.run_id
        again = moved(after, after.run, at=NOW, by="run", reason="always")
        assert (again.run, again.previous, again.newest) == (after.run, after.previous, after.newest)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=10))
def test_after_a_move_by_hand_only_a_run_that_is_newer_than_all_before_moves_it(moves: list[tuple[bool, int]]) -> None:
    held: Pointer | None = None
    ever: set[str] = set()
    for by_hand, number in moves:
        run = run_id(number)
        before = held
        if by_hand or overtaken(held, run) is None:
            assert by_hand or before is None or run == before.run_id or run > max(ever)
            held = moved(before, target(run), at=NOW, by="hand" if by_hand else "run", reason="a test")
            ever.add(run)
            if before is not None and before.run_id != run:
                assert held.previous == before.run_id
        else:
            assert run <= max(ever)
    assert held is not None
    assert held.newest == max(ever)


def test_a_run_that_was_rolled_back_from_does_not_come_back_when_it_is_tried_again() -> None:
    second = moved(play([1]), target(run_id(2)), at=NOW, by="run", reason="always")
    back = moved(second, target(run_id(1)), at=NOW, by="hand", reason="broken")
    assert overtaken(back, run_id(2)) == f"not moved: moved from this run to {run_id(1)} by hand"
    assert "has held a newer run" in str(overtaken(back, run_id(0)))
    assert overtaken(back, run_id(3)) is None


def test_holding_is_the_same_run_with_the_same_files_in_the_same_place() -> None:
    held = play([1])
    assert holds(held, target(run_id(1)))
    assert not holds(held, target(run_id(1), "b"))
    assert not holds(held, target(run_id(2)))
    assert not holds(None, target(run_id(1)))


# -------------------------------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize(
    ("policy", "until", "name", "moves", "reason"),
    [
        ("always", None, "", True, "policy always"),
        ("manual", None, "", False, "not published: moved by hand only"),
        ("window", LOCK, "lock", False, "not published: after lock (2025-12-19T00:00:00Z)"),
        ("window", LOCK, "", False, "not published: after 2025-12-19T00:00:00Z"),
        ("window", NOW, "lock", False, "not published: after lock (2025-12-19T12:00:00Z)"),
        ("window", NOW + timedelta(seconds=1), "lock", True, "before lock (2025-12-19T12:00:01Z)"),
        ("window", None, "lock", False, "not published: when lock is, is not known"),
        ("window", None, "", False, "not published: when its window is, is not known"),
    ],
)
def test_the_policy_decides_and_says_why(
    policy: Any, until: datetime | None, name: str, moves: bool, reason: str
) -> None:
    decision = decide(policy, now=NOW, until=until, name=name)
    assert (decision.moves, decision.reason) == (moves, reason)


# --------------------------------------------------------------------------------------------------------- the digest


def test_the_digest_is_that_of_lines_that_anybody_can_make() -> None:
    text = "aa 2 a.json\nbb 3 b/c.parquet\n"
    files = [File("b/c.parquet", 3, "bb"), File("a.json", 2, "aa")]
    assert digest_of(files) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5)
FILES = st.lists(
    st.builds(File, NAMES, st.integers(0, 99), st.just("ab")), max_size=4, unique_by=lambda file: file.path
)


@given(FILES, FILES)
def test_equal_digests_are_equal_files_in_whatever_order(one: list[File], other: list[File]) -> None:
    assert (digest_of(one) == digest_of(other)) == (set(one) == set(other))
    assert len({digest_of(order) for order in itertools.permutations(one)}) == 1
