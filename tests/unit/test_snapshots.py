"""The choice of a snapshot: the newest at or before an instant, by name and never by age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.core.names import format_instant, run_id
from orchctl.core.snapshots import MARK, candidates, instant_of, pattern

AS_OF = datetime(2025, 12, 19, 2, 1, 43, tzinfo=UTC)
RIGHT = [
    "20251219T020143Z", "20251219T020143.000000Z", "2025-12-19T02:01:43Z", "2025-12-19T02-01-43Z",
    "2025-12-18T21:01:43-05:00", "2025-12-19T02:01:43.000Z", "20251219T020143Z-3f9a1c",
]  # fmt: skip
WRONG = [
    "",
    "2025-12-19",
    "20251219",
    "latest",
    "20251319T020143Z",
    "2025-12-19T02:01:43",
    "20251219T020143Z.tmp",
    "1766109703",
]


@pytest.mark.parametrize("text", RIGHT)
def test_instants_in_names(text: str) -> None:
    assert instant_of(text) == AS_OF


@pytest.mark.parametrize("text", WRONG)
def test_no_instants(text: str) -> None:
    assert instant_of(text) is None


@pytest.mark.parametrize(
    ("path", "folder", "rest", "whole"),
    [
        (f"/d/run_ts={MARK}/x.parquet", "/d", "x.parquet", "/d/run_ts=T/x.parquet"),
        (f"/d/x-{MARK}.parquet", "/d", "", "/d/x-T.parquet"),
        (f"/{MARK}/a/{MARK}.csv", "/", f"a/{MARK}.csv", "/T/a/T.csv"),
    ],
)
def test_patterns(path: str, folder: str, rest: str, whole: str) -> None:
    from orchctl.core.snapshots import Snapshot

    found = pattern(path)
    assert found is not None
    assert (found.folder, found.rest, found.path(Snapshot("T", AS_OF))) == (folder, rest, whole)


def test_a_path_without_a_snapshot_is_none() -> None:
    assert pattern("/d/x.parquet") is None


instants = st.integers(0, 365 * 86_400).map(lambda later: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=later))
written = st.sampled_from(
    [format_instant, lambda at: at.strftime("%Y%m%dT%H%M%SZ"), lambda at: run_id(at, "x"), lambda at: at.isoformat()]
)
other = st.sampled_from(
    ["latest", "run_ts=", "run_ts=latest", "tmp", "run_ts=20251219T020143Z.tmp", "x-run_ts=20250101T000000Z"]
)


@given(st.lists(st.tuples(instants, written)), st.lists(other), instants)
def test_the_newest_at_or_before_is_chosen(
    taken: list[tuple[datetime, object]], noise: list[str], as_of: datetime
) -> None:
    wanted = pattern(f"/d/run_ts={MARK}/x")
    assert wanted is not None
    names = [f"run_ts={write(at)}" for at, write in taken]  # type: ignore[operator]
    found = candidates([*names, *noise], wanted, as_of=as_of)
    before = sorted((at for at, _ in taken if at <= as_of), reverse=True)
    assert [one.at for one in found] == before
    assert found == candidates([*noise, *reversed(names)], wanted, as_of=as_of)


def test_exactly_at_the_instant_counts_and_a_moment_later_does_not() -> None:
    wanted = pattern(f"/d/{MARK}")
    assert wanted is not None
    later = format_instant(AS_OF + timedelta(milliseconds=1))
    assert [one.at for one in candidates([format_instant(AS_OF), later], wanted, as_of=AS_OF)] == [AS_OF]
