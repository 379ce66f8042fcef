"""Keys of a partition beside the date."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk import Desk
from orchctl.core.partition import is_of, is_value, keys

RULES = {"season": {"format": "%Y", "shift_months": -9}, "month": {"format": "%m"}, "day": {"format": "%Y%m%d"}}
DATES = [
    ("2025-12-19", {"season": "2025", "month": "12", "day": "20251219"}),
    ("2026-01-31", {"season": "2025", "month": "01", "day": "20260131"}),
    ("2026-09-30", {"season": "2025", "month": "09", "day": "20260930"}),
    ("2026-10-01", {"season": "2026", "month": "10", "day": "20261001"}),
    ("2024-02-29", {"season": "2023", "month": "02", "day": "20240229"}),
]


@pytest.mark.parametrize(("day", "expected"), DATES)
def test_rules(tmp_path: Path, day: str, expected: dict[str, str]) -> None:
    assert keys(Desk(tmp_path).job(partition=RULES), date.fromisoformat(day), {}) == expected


def test_what_is_given_goes_before_rule_and_default(tmp_path: Path) -> None:
    job = Desk(tmp_path).job(partition={**RULES, "group": {"default": "0"}})
    found = keys(job, date(2025, 12, 19), {"season": "1999"})
    assert (found["season"], found["group"]) == ("1999", "0")
    assert keys(job, date(2025, 12, 19), {"group": "7"})["group"] == "7"


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "ä", "x" * 65, "a\n", "-x", "--x"])
def test_what_may_not_be_part_of_a_path(text: str, tmp_path: Path) -> None:
    assert not is_value(text)
    with pytest.raises(ValueError, match="group"):
        keys(Desk(tmp_path).job(partition={"group": {}}), date(2025, 12, 19), {"group": text})


@given(st.integers(-120, 120), st.dates(date(1980, 1, 1), date(2100, 1, 1)))
def test_a_shift_moves_by_whole_months(months: int, day: date) -> None:
    from orchctl.core.catalog_steps import PartitionKey
    from orchctl.core.partition import _by_rule

    text = _by_rule(PartitionKey(format="%Y-%m", shift_months=months), day)
    assert text is not None
    year, month = (int(part) for part in text.split("-"))
    assert year * 12 + month - (day.year * 12 + day.month) == months


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"season": "2025", "group": "late"}, True),
        ({"season": "2025", "group": "all"}, False),
        # Written before the job had the key.
        ({"group": "late"}, True),
        ({"season": "2025"}, False),
        ({}, False),
    ],
)
def test_which_partition_a_manifest_is_of(tmp_path: Path, told: dict[str, str], expected: bool) -> None:
    job = Desk(tmp_path).job(partition={"season": RULES["season"], "group": {"default": "all"}, "must": {}})
    wanted = {"season": "2025", "group": "late"}
    assert is_of({"game_date": "2025-12-19", **told}, job, wanted) is expected
    assert is_of({"game_date": "2025-12-19", **told}, job, {**wanted, "group": told.get("group", "all")})
    assert not is_of({"game_date": "2025-12-19", **told}, job, {**wanted, "must": "x"})
    assert not is_of(told, job, wanted), "of no date"
