"""systemd's calendar expressions: what is one, why another is not, and which Prefect schedule each becomes."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import pytest

import prefect_dates
from orchctl.core import calendar
from orchctl.core.calendar_parse import parse

NEW_YORK = "America/New_York"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "it is empty"),
        (" daily", "a blank stands before or behind it"),
        ("1\u0660:00", "only ASCII"),
        ("*/5 * * * *", "that is a cron line"),
        ("0 5 * * *", "that is a cron line"),
        ("72h", "that is a time span"),
        ("@daily", "write daily"),
        ("secondly", "write *:*:*"),
        ("*-*-01 00:00 # monthly", "has no comment behind it"),
        ("2026-12-24T18:00", "a blank stands between date and time"),
        ("2026-12-24 18:00 +02:00", "a zone has a name"),
        ("09:00:00,12:00:00", "several times are several lines"),
        ("10:00  Asia/Tokyo", "two blanks before the zone"),
        ("10:00 Mon", "the day of the week comes first"),
        ("10:00 europe/berlin", "the nearest is Europe/Berlin"),
        ("10:00 Mars/Base", "not a time zone"),
        ("10:00 CET", "an abbreviation"),
        ("10:00 EDT", "an abbreviation"),
        ("10:00 right/Europe/Berlin", "not a name of the time zone database"),
        ("10:00 surprise", "surprise is not a time zone"),
        ("Sat..Mon 10:00", "does not wrap; write Mon,Sat,Sun"),
        ("Sun..Sat 10:00", "write it without weekdays"),
        ("Mon..Tue..Wed", "not a calendar expression"),
        ("Mon.Fri 10:00", "not a calendar expression"),
        ("*:*/5", "systemd writes 00/5"),
        ("*-*-*/2", "systemd writes 01/2"),
        ("*-*-1/80", "never repeats within 1..31"),
        ("20/4:00", "never repeats within 0..23"),
        ("0/24:00", "never repeats within 0..23"),
        ("*:0/90", "never repeats within 0..59"),
        ("*:*:0/60", "never repeats within 0..59"),
        ("*:0/0", "repeats by nothing"),
        ("23..8:00", "outside 0..23"),
        ("*:60", "outside 0..59"),
        ("2200-01-01", "outside 1970..2199"),
        ("*-*~29", "outside 1..28, counted from the end of the month"),
        ("*-*~01,28", "outside 1..25 as element 2 of a list"),
        ("10:00:0..0", "no range of a second or more"),
        ("*:99999999999", "too large"),
        ("*-" + ",".join(["1"] * 241) + "-1", "at most 240 elements"),
        ("@1790000000.5", "not a whole number of seconds"),
        ("@99999999999", "before the year 2200"),
    ],
)
def test_what_systemd_refuses_is_refused_with_its_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("*:*:0/0.5", "within a second"),
        ("12:00:00.5", "within a second"),
        ("*-*-1/5 *:*:0/5", "as two lines of a list"),
        ("*-*~03,04 *:*", "are too many"),
        ("2026..2027,2029,2040-*-* *:*", "a line for each run of years"),
        ("*-04,06-31", "never fires"),
        ("*-02-30", "never fires"),
        ("Mon 2026-09-01", "never fires"),
        ("10:00 BST", "an abbreviation"),
    ],
)
def test_what_prefect_cannot_say_is_refused_with_its_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        calendar.convert(expression, "Europe/London")


def test_an_abbreviation_of_the_zone_in_force_pins_summer_time_and_is_refused() -> None:
    assert calendar.convert("10:00 GMT", NEW_YORK).schedule["timezone"] == "GMT"
    with pytest.raises(ValueError, match="an abbreviation of Europe/London"):
        calendar.convert("10:00 GMT", "Europe/London")


@pytest.mark.parametrize(
    ("expression", "cron", "day_or"),
    [
        ("*-*-* 08..23:05,35:00", "5,35 8-23 * * *", True),
        ("Mon..Fri *-*-* 16..23:00/10", "0,10,20,30,40,50 16-23 * * 1-5", True),
        ("Sun 10:00", "0 10 * * 7", True),
        ("Fri *-*-13 12:00", "0 12 13 * 5", False),
        ("Wed, 17:48", "48 17 * * 3", True),
        ("*-10..12/4-1", "0 0 1 10 *", True),
        ("anually", "0 0 1 1 *", True),
        ("*-1..12-1..31", "0 0 * * *", True),
        ("*-*~01 23:00", "0 23 L * *", True),
        ("*-02~1", "0 0 L 2 *", True),
        ("Mon,Fri *-*~07/1 3:00", "0 3 * * L1,L5", True),
        ("Sun *-*~01..07", "0 0 * * L0", True),
        ("*-*-* 08..23:*:00/15", "* 8-23 * * * 0,15,30,45", True),
        ("Sat,Sun 10:00:30", "0 10 * * 0,6 30", True),
        ("Fri *-*-13 *:*:*", "* * 13 * 5 *", False),
        ("*-*-1/2", "0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * *", True),
    ],
)
def test_conversions_to_cron(expression: str, cron: str, *, day_or: bool) -> None:
    found = calendar.convert(expression, NEW_YORK)
    assert found.kind == "cron"
    assert found.schedule == {"cron": cron, "timezone": NEW_YORK, "day_or": day_or}


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        ("2027-09-01 10:00", "DTSTART:20270901T100000 RRULE:FREQ=DAILY;COUNT=1"),
        ("@1893456000", "DTSTART:20300101T000000 RRULE:FREQ=DAILY;COUNT=1"),
        ("2027,2029,2034-1-1", "DTSTART:20270101T000000 RDATE:20270101T000000,20290101T000000,20340101T000000"),
        (
            "Mon 2026/2-3-* 10:00",
            "DTSTART:20260101T000000 RRULE:FREQ=YEARLY;INTERVAL=2;BYMONTH=3;BYDAY=MO;BYHOUR=10;BYMINUTE=0;BYSECOND=0",
        ),
        (
            "2026..2028-3-01",
            (
                "DTSTART:20260101T000000 RRULE:FREQ=YEARLY;INTERVAL=1;BYMONTH=3;BYMONTHDAY=1;"
                "BYHOUR=0;BYMINUTE=0;BYSECOND=0;UNTIL=20281231T235959"
            ),
        ),
        (
            "*-03~03 10:00:30",
            "DTSTART:20260101T000000 RRULE:FREQ=MONTHLY;BYMONTH=3;BYMONTHDAY=-3;BYHOUR=10;BYMINUTE=0;BYSECOND=30",
        ),
        (
            "*-02,03-1,31",
            "DTSTART:20260101T000000 RRULE:FREQ=MONTHLY;BYMONTH=2,3;BYMONTHDAY=1,31;BYHOUR=0;BYMINUTE=0;BYSECOND=0",
        ),
    ],
)
def test_conversions_to_a_rule(expression: str, lines: str) -> None:
    found = calendar.convert(expression, "UTC")
    assert found.kind == "rrule"
    assert found.schedule == {"rrule": lines.replace(" ", "\n"), "timezone": "UTC"}


@pytest.mark.parametrize(
    ("expression", "seconds", "anchor"),
    [("*:*:*", 1.0, "00"), ("*:*:0/30", 30.0, "00"), ("*:*:5,25,45", 20.0, "05"), ("*:*:7..59/15 utc", 15.0, "07")],
)
def test_an_even_beat_is_an_interval_only_where_clocks_never_change(
    expression: str, seconds: float, anchor: str
) -> None:
    found = calendar.convert(expression, "UTC")
    assert found.kind == "interval"
    assert found.schedule["interval"] == seconds
    assert found.schedule["anchor_date"] == f"2020-01-01T00:00:{anchor}Z"
    if "utc" not in expression:
        assert calendar.convert(expression, NEW_YORK).kind == "cron"


def test_the_zone_of_the_expression_goes_before_that_of_the_schedule() -> None:
    assert calendar.convert("10:00 Asia/Tokyo", NEW_YORK).schedule["timezone"] == "Asia/Tokyo"
    assert calendar.convert("semi-annually Utc", NEW_YORK).schedule["timezone"] == "UTC"
    assert calendar.convert("@1893456000 Asia/Tokyo", NEW_YORK).schedule["timezone"] == "UTC"


@pytest.mark.parametrize(
    ("expression", "zone", "note"),
    [
        ("02:30", NEW_YORK, "2026-03-08 in America/New_York: there is no 02:30 when clocks go forward"),
        ("02:30", NEW_YORK, "Prefect runs at 01:30, or at 03:30 where its server has Python 3.13; so on 12 days"),
        ("0/2:00", NEW_YORK, "there is no 02:00 when"),
        ("*-*~03 02:30", "Europe/Berlin", "Prefect runs at 01:30"),
        ("00:00", "America/Santiago", "Prefect runs at 23:00 the day before"),
        ("*:0/35", "UTC", "systemd loses instants of this repetition, such as 2026-01-01 00:00:00 UTC"),
        ("*:*:0/7", "UTC", "systemd loses instants"),
        ("*-*-1/7", "UTC", "a defect of systemd before 257.13"),
        ("6/12:00", "Europe/Berlin", "after 2026-03-28 18:00:00 Europe/Berlin systemd's calculation gets stuck"),
        ("0/2:00", "America/Santiago", "systemd's calculation gets stuck"),
        ("*-*~03,04 *:30", "Europe/Berlin", "the hour from 02:00 comes twice"),
    ],
)
def test_a_difference_that_remains_is_noted(expression: str, zone: str, note: str) -> None:
    assert note in "\n".join(calendar.convert(expression, zone).notes)


@pytest.mark.parametrize(
    ("expression", "zone"),
    [("*:0/5", NEW_YORK), ("hourly", NEW_YORK), ("03:00", NEW_YORK), ("02:30", "UTC"), ("*:0..59/35", "UTC"),
     ("Mon 02:30", NEW_YORK), ("*:*:*", "UTC"), ("0/6:00", "Europe/Berlin")],
)  # fmt: skip
def test_where_nothing_differs_there_is_no_note(expression: str, zone: str) -> None:
    assert calendar.convert(expression, zone).notes == ()


def test_400_days_of_every_five_seconds_are_counted_in_a_moment() -> None:
    begin = time.monotonic()
    found = calendar.instants(
        "*-*-* 08..23:*:00/5", NEW_YORK, datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 12, 6, tzinfo=UTC)
    )
    took = time.monotonic() - begin
    assert len(found) == 4_607_280
    assert took < 5, f"{took:.1f} s"


def test_the_span_holds_its_start_and_not_its_end() -> None:
    start, end = datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert calendar.instants("hourly", "UTC", start, end) == [int(start.timestamp()), int(start.timestamp()) + 3600]


@pytest.mark.parametrize(
    "days", ["1/5", "1,31", "2,31", "1,30", "2,30", "1,15,30", "1..31/2", "1,29,30", "3,31", "28..31"]
)
@pytest.mark.parametrize("months", ["*", "02,03", "01..03"])
def test_no_day_at_the_start_of_march_is_left_out(days: str, months: str) -> None:
    """Prefect's croniter leaves some out, in a common year and in a leap year."""
    found = calendar.convert(f"*-{months}-{days} 18:00", "UTC")
    begin, end = datetime(2027, 2, 1, tzinfo=UTC), datetime(2028, 3, 31, 20, tzinfo=UTC)
    due = prefect_dates.due(found.schedule, int(begin.timestamp()) - 1, until=int(end.timestamp()))
    assert due == calendar.instants(found.expression, "UTC", begin, end)


def test_prefects_croniter_still_needs_that_care() -> None:
    before = int(datetime(2027, 2, 27, tzinfo=UTC).timestamp())
    cron = {"cron": "0 18 1,6,11,16,21,26,31 * *", "timezone": "UTC"}
    (first,) = prefect_dates.due(cron, before, count=1)
    assert datetime.fromtimestamp(first, UTC) == datetime(2027, 3, 6, 18, tzinfo=UTC), "it no longer skips 1 March"
