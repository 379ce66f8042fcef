"""Prefect's own instants, asked of the Prefect that is installed, in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters.prefect_rule import PrefectRule
from orchctl.errors import OrchctlError

NEW_YORK = "America/New_York"
SPRING = datetime(2026, 3, 8, 4, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)


def cron(expression: str, zone: str = NEW_YORK) -> dict[str, Any]:
    return {"cron": expression, "timezone": zone, "day_or": True}


def every(seconds: float, zone: str = "UTC") -> dict[str, Any]:
    return {"interval": seconds, "anchor_date": "2020-01-01T00:00:00Z", "timezone": zone}


def rrule(rule: str, zone: str = NEW_YORK) -> dict[str, Any]:
    return {"rrule": f"DTSTART:20200101T000000\nRRULE:{rule}", "timezone": zone}


def asked(
    *schedules: Mapping[str, Any], start: datetime, end: datetime | None = None, count: int | None = None
) -> tuple[list[int], ...]:
    with PrefectRule(os.environ).asked(schedules, start, end, count=count) as answer:
        return answer()


def utc(instants: list[int]) -> list[str]:
    return [f"{datetime.fromtimestamp(instant, UTC):%H:%M}" for instant in instants]


def test_the_day_on_which_clocks_go_forward() -> None:
    daily, often, by_rule, interval = asked(
        cron("30 2 * * *"),
        cron("*/30 1-3 * * *"),
        rrule("FREQ=DAILY;BYHOUR=1,2;BYMINUTE=30"),
        every(3600),
        start=SPRING,
        end=SPRING + timedelta(hours=6),
    )
    # 02:30 does not exist: what Prefect makes of it depends on its version, and on the Python it runs on.
    later = sys.version_info >= (3, 13) or version("prefect").split(".")[:2] >= ["3", "9"]
    assert utc(daily) == (["07:30"] if later else ["06:30"])
    assert utc(often)[:2] == ["06:00", "06:30"]
    assert utc(by_rule) == ["06:30"]
    assert utc(interval) == ["04:00", "05:00", "06:00", "07:00", "08:00", "09:00"]


def test_the_day_on_which_clocks_go_back() -> None:
    often, by_rule, interval = asked(
        cron("*/30 * * * *"),
        rrule("FREQ=DAILY;BYHOUR=1,2;BYMINUTE=30"),
        every(1800),
        start=AUTUMN,
        end=AUTUMN + timedelta(hours=4),
    )
    assert utc(often) == ["04:00", "04:30", "05:00", "05:30", "07:00", "07:30"]
    assert utc(by_rule) == ["05:30", "07:30"]
    assert utc(interval) == [f"{hour:02d}:{minute}" for hour in range(4, 8) for minute in ("00", "30")]


def test_no_number_of_instants_ends_the_answer() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    found = asked(
        cron("*/5 * * * *"),
        every(300),
        rrule("FREQ=MINUTELY;INTERVAL=5", "UTC"),
        start=start,
        end=start + timedelta(days=14),
    )
    by_cron, interval, by_rule = found
    even = list(range(int(start.timestamp()), int(start.timestamp()) + 14 * 86400, 300))
    assert interval == by_rule == even
    # Not a second time and none missing, through the hour that does not exist.
    assert by_cron == even


def test_the_start_is_in_the_window_and_the_end_is_not() -> None:
    start = datetime(2026, 6, 1, tzinfo=UTC)
    (found,) = asked(cron("0 * * * *"), start=start, end=start + timedelta(hours=3))
    assert utc(found) == ["00:00", "01:00", "02:00"]


def test_a_number_can_be_asked_for_instead_of_an_end() -> None:
    start = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    often, leap, over = asked(
        cron("*/5 * * * *"),
        cron("0 0 29 2 *", "UTC"),
        rrule("FREQ=DAILY;UNTIL=20261103T000000", "UTC"),
        start=start,
        count=3,
    )
    assert utc(often) == ["07:00", "07:05", "07:10"]
    assert [later - earlier for earlier, later in pairwise(leap)] == [1461 * 86400] * 2
    assert len(over) == 2


def test_a_schedule_that_prefect_does_not_take_is_an_error() -> None:
    with pytest.raises(OrchctlError, match=r"Prefect does not take the schedule: .*nonsense"):
        asked(cron("nonsense"), start=SPRING, count=1)


def test_what_the_process_says_when_it_fails_is_passed_on() -> None:
    # 30 February: Prefect takes the line, and then finds no instant.
    with pytest.raises(OrchctlError, match=r"Prefect's rules failed: .*failed to find next date"):
        asked(cron("0 0 30 2 *"), start=SPRING, count=1)


def children() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def test_no_answer_in_time_is_an_error_and_leaves_no_process() -> None:
    before = children()
    with (
        PrefectRule(os.environ, timeout_s=0.2).asked([every(1)], SPRING, SPRING + timedelta(days=1)) as answer,
        pytest.raises(OrchctlError, match=r"no answer within 0 s") as raised,
    ):
        answer()
    assert raised.value.hint == "compare fewer days: --days 30"
    assert children() <= before


def test_who_does_not_wait_for_the_answer_leaves_no_process() -> None:
    before = children()
    with PrefectRule(os.environ).asked([every(1)], SPRING, SPRING + timedelta(days=400)):
        assert children() > before
    assert children() <= before


def test_no_setting_of_prefect_matters_and_none_is_made(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PREFECT_API_DATABASE_TIMEOUT": "not a number"}
    with PrefectRule(environment).asked([cron("0 3 * * *")], SPRING, None, count=1) as answer:
        assert utc(answer()[0]) == ["07:00"]
    assert not list(tmp_path.iterdir())
