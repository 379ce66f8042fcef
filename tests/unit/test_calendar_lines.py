"""Several lines of one schedule: each instant by one of them only, as systemd starts a unit once."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prefect_dates
from catalogs import SCHEDULES, catalog
from orchctl.core import calendar
from orchctl.core.calendar_lines import disjoint
from orchctl.core.schedules import to_prefect

NEW_YORK = "America/New_York"
TIMERS = Path(__file__).parents[1] / "data" / "timers.jsonl"
SPAN = (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["daily", "12:00"], ["daily", "12:00"]),
        (["Mon 12:00", "Tue 12:00"], ["Mon 12:00", "Tue 12:00"]),
        (["*-*-1 12:00", "*-*-2 12:00"], ["*-*-1 12:00", "*-*-2 12:00"]),
        (["*-*-1 12:00", "*-*~1 12:00"], ["*-*-1 12:00", "*-*~1 12:00"]),
        (["2027-*-* 12:00", "2028-*-* 12:00"], ["2027-*-* 12:00", "2028-*-* 12:00"]),
        (["12:00", "12:30 Asia/Tokyo"], ["12:00", "12:30 Asia/Tokyo"]),
        (["hourly", "daily"], ["hourly"]),
        (["12:00", "12:00:00"], ["12:00"]),
        (["daily", "Mon *-*~07/1"], ["daily"]),
        (["*:0/15", "*:0/10"], ["*:0/15", "*-*-* *:10,20,40,50:00"]),
        (["daily", "00,12:00"], ["daily", "*-*-* 12:00:00"]),
        (["Mon 12:00", "*-*-13 12:00"], ["Mon 12:00", "Tue,Wed,Thu,Fri,Sat,Sun *-*-13 12:00:00"]),
        (["*-*-13 12:00", "Mon 12:00"], ["*-*-13 12:00", "Mon *-*-01..12,14..31 12:00:00"]),
        (["*-*~1..3 12:00", "*-*~2..5 12:00"], ["*-*~1..3 12:00", "*-*~04..05 12:00:00"]),
        (["*:*:0/2", "*:*:0/3"], ["*:*:0/2", "*-*-* *:*:03,09,15,21,27,33,39,45,51,57"]),
        (["daily UTC", "0/12:00 UTC"], ["daily UTC", "*-*-* 12:00:00 UTC"]),
    ],
)
def test_what_an_earlier_line_has_is_taken_out_of_a_later_one(lines: list[str], kept: list[str]) -> None:
    assert disjoint(lines, NEW_YORK) == tuple(kept)


def test_what_is_left_may_be_several_lines() -> None:
    kept = disjoint(["Mon 10:00", "Mon,Tue 10,11:00,30"], NEW_YORK)
    assert kept == ("Mon 10:00", "Tue *-*-* 10..11:00,30:00", "Mon *-*-* 11:00,30:00", "Mon *-*-* 10:30:00")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["10:00", "15:00 UTC"], "both elapse at 2026-01-01T15:00:00Z"),
        (["*-*~1 *:00", "10:00"], "both elapse on 2026-01-31, and Prefect would start two runs; count the days"),
        (["*-*~04 12:00", "*-*~2..28/2 12:00"], "what is left of it cannot be said"),
        (["daily", "25:00"], "outside 0..23"),
    ],
)
def test_lines_that_meet_and_cannot_be_parted_are_refused(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        disjoint(lines, NEW_YORK)


numbers = st.sampled_from(["*", "0", "1,3", "0/2", "5..9", "0..22/3", "1/2,4"])
days = st.sampled_from(["*-*-*", "Mon *-*-*", "*-*-1..7", "Fri *-*-13", "Mon..Wed *-12,1-*", "*-*-1,15,31", "2027-*-*"])
lines_of = st.lists(st.builds("{} {}:{}".format, days, numbers, numbers), min_size=2, max_size=4)


@given(lines=lines_of)
@settings(max_examples=100)
def test_together_the_lines_have_the_same_instants_and_none_of_them_twice(lines: list[str]) -> None:
    kept = [calendar.instants(line, "UTC", *SPAN) for line in disjoint(lines, "UTC")]
    # What is left of a line is written without repetitions, and so loses nothing.
    wanted = {at for line in lines for at in calendar.instants(line, "UTC", *SPAN)}
    twice = {at for at, count in Counter(at for each in kept for at in each).items() if count > 1}
    assert not twice
    assert {at for each in kept for at in each} | lost(lines) == wanted | lost(lines)


def lost(lines: list[str]) -> set[int]:
    return {at for line in lines for at in calendar.defects(line, "UTC", *SPAN)[0]}


def test_a_catalog_never_gives_two_prefect_schedules_one_instant() -> None:
    text = SCHEDULES.replace('on_calendar = "*-*-* 08..23:05,35:00"', 'on_calendar = ["*:0/15", "*:0/10", "hourly"]')
    found = catalog(schedules=text).schedules["loop"]
    assert [(each.name, each.on_calendar) for each in found] == [
        ("loop", ("*:0/15",)),
        ("loop-2", ("*-*-* *:10,20,40,50:00",)),
    ]
    base = int(SPAN[0].timestamp())
    dates = [at for each in found for at in prefect_dates.due(to_prefect(each), base, count=50)]
    assert len(dates) == len(set(dates)) == 100


def test_the_lines_of_every_timer_of_the_corpus_can_be_parted() -> None:
    timers = [json.loads(line)["on_calendar"] for line in TIMERS.read_text(encoding="utf-8").splitlines()]
    parted = [disjoint(lines, NEW_YORK) for lines in timers if len(lines) > 1]
    # The second is of systemd's own tests: every shorthand there is, each elapsing within that of each minute.
    assert [len(lines) for lines in parted] == [6, 2]
    assert parted[1] == ("minutely", "Fri 2012-11-23 11:12:13")
    assert all(calendar.convert(line, NEW_YORK) for lines in parted for line in lines)
