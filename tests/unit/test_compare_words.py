"""Cadences and their differences in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchctl.core import calendar, clocks, compare_words
from orchctl.core.cadence import Source
from orchctl.core.cadence_words import describe, short, span
from orchctl.core.catalog import CronTrigger, TimerTrigger
from orchctl.core.compare import compare
from orchctl.core.legacy import Monotonic
from orchctl.services.upcoming import clock_notes
from shown import timer

NEW_YORK = "America/New_York"
START = datetime(2025, 12, 19, 5, 0, tzinfo=UTC)


def due(expression: str, *, days: int = 400, start: datetime = START) -> list[int]:
    return calendar.instants(expression, NEW_YORK, start, start + timedelta(days=days))


def said(expression: str, *, days: int = 400) -> str:
    first = int(START.timestamp())
    return describe(due(expression, days=days), NEW_YORK, first, first + days * 86400)


def calendar_source(*expressions: str, zone: str = NEW_YORK, **lines: str) -> Source:
    shown = timer(*(f"{key}={value}" for key, value in lines.items()))
    found = replace(shown, calendars=expressions)
    trigger = TimerTrigger(timer="a.timer")
    return Source("a.timer", trigger, zone, calendars=expressions, tolerance_s=found.tolerance_s, timer=found)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("*-*-* 08..23:*:00/5", "every 5 seconds from 08:00:00 to 23:59:55"),
        ("*-*-* 08..23:00/5:00", "every 5 minutes from 08:00 to 23:55"),
        ("*-*-* *:00/5:00", "every 5 minutes"),
        ("*-*-* *:*:00", "every minute"),
        ("*-*-* 00/8:10:00", "every 8 hours from 00:10 to 16:10"),
        ("*-*-* 03:30:00", "at 03:30 each day"),
        ("*-*-* 03:30:15", "at 03:30:15 each day"),
        ("*-*-* 08:05,35:00", "at 08:05 and 08:35 each day"),
        ("*-*-01 02:00:00", "at 02:00 on the 1st of each month"),
        ("*-*-02,03,11,22 02:00:00", "at 02:00 on the 2nd, 3rd, 11th and 22nd of each month"),
        ("*-*~01 02:00:00", "at 02:00 on the last day of each month"),
        ("Mon..Fri *-*-* 16..23:00/10:00", "every 10 minutes from 16:00 to 23:50 from Monday to Friday"),
        ("Sat,Sun *-*-* 12:00:00", "at 12:00 on Saturdays and Sundays"),
        ("*-*-* 10..23:15,20:00", "at :15 and :20 of each hour from 10 to 23 each day"),
        ("*-*-* 1,5,6,9,11,20,22:00:00", "7 times from 01:00 to 22:00 each day"),
        ("2026-01-01 00:00:00", "once, at 2026-01-01 00:00"),
        ("*-02-30 00:00:00", "never"),
        ("*-01-01 00:00:00", "at 00:00 on 2026-01-01 and 2027-01-01"),
        ("Mon *-*-01..07 03:00:00", "13 times, 28d to 35d apart"),
    ],
)
def test_a_cadence_in_words(expression: str, words: str) -> None:
    assert said(expression) == words


def test_two_kinds_of_days_are_both_told() -> None:
    instants = sorted({*due("Mon..Fri *-*-* 09:00:00"), *due("Sat,Sun *-*-* 12:00:00")})
    first = int(START.timestamp())
    words = describe(instants, NEW_YORK, first, first + 400 * 86400)
    assert words == "at 09:00 from Monday to Friday; at 12:00 on Saturdays and Sundays"


def test_a_spacing_that_fits_no_day_is_told_as_one() -> None:
    first = int(START.timestamp())
    assert describe(range(first, first + 40 * 86400, 25200), NEW_YORK, first, first + 40 * 86400) == "every 7 hours"


def test_a_short_window_claims_nothing_of_weeks_and_months() -> None:
    assert said("*-*-20 03:00:00", days=5) == "once, at 2025-12-20 03:00"
    assert said("*-*-20,21 03:00:00", days=5) == "at 03:00 on 2025-12-20 and 2025-12-21"


@pytest.mark.parametrize(
    ("seconds", "words", "brief"),
    [
        (5, "5 seconds", "5s"),
        (60, "minute", "1m"),
        (90, "90 seconds", "1m30s"),
        (7200, "2 hours", "2h"),
        (86400, "day", "1d"),
        (97200, "27 hours", "1d3h"),
        (-90, "-90 seconds", "-1m30s"),
        (0.5, "0.5 seconds", "0.5s"),
    ],
)
def test_durations(seconds: float, words: str, brief: str) -> None:
    assert (span(seconds), short(seconds)) == (words, brief)


class TestSecondsForMinutes:
    """A repetition in the wrong field, where the right one gives exactly the schedule."""

    @pytest.mark.parametrize(
        ("expression", "meant", "found"),
        [
            ("*-*-* 08..23:*:00/5", "*-*-* 08..23:00/5:00", "every 5 minutes is written `*-*-* 08..23:00/5`"),
            (
                "*-*-* *:*:00/10",
                "*-*-* *:00/10:00",
                "the timer says every 10 SECONDS, the schedule says every 10 MINUTES",
            ),
            ("Mon *-*-* 09:*:05/20", "Mon *-*-* 09:05/20:00", "the `05/20` stands in the seconds"),
            ("*-*-* *:*:00/15 UTC", "*-*-* *:00/15:00 UTC", "every 15 minutes is written `*-*-* *:00/15 UTC`"),
        ],
    )
    def test_is_explained(self, expression: str, meant: str, found: str) -> None:
        note = self.note(expression, due(meant, days=20))
        assert note is not None
        assert found in note

    @pytest.mark.parametrize(
        ("expression", "schedule"),
        [
            ("*-*-* 08..23:*:00/5", "*-*-* 08..23:00/10:00"),
            ("*-*-* 08..23:*:00/5", "*-*-* 09..23:00/5:00"),
            ("*-*-* 08..23:00/5:00", "*-*-* 08..23:00/5:00"),
            ("*-*-* *:*:*", "*-*-* *:*:00"),
        ],
    )
    def test_is_not_claimed_elsewhere(self, expression: str, schedule: str) -> None:
        assert self.note(expression, due(schedule, days=20)) is None

    def note(self, expression: str, new: list[int]) -> str | None:
        source = calendar_source(expression)
        return compare_words.seconds_for_minutes(source, new, START, START + timedelta(days=20))


def test_delays_are_told_with_their_settings() -> None:
    source = calendar_source("*-*-* *:*:00/5", AccuracyUSec="1min", RandomizedDelayUSec="30s")
    first, second = compare_words.delays(source, due("*-*-* *:*:00/5", days=1))
    assert "up to 1m30s after an instant (RandomizedDelaySec=30s, AccuracySec=1m)" in first
    assert "AccuracySec=1m is longer than the 5s between two instants" in second
    assert second.endswith("about once a minute")
    apart = calendar_source("*-*-* 03:00:00", AccuracyUSec="1s", RandomizedOffsetUSec="5min")
    (offset,) = compare_words.delays(apart, [])
    assert "up to 5m1s after an instant (RandomizedOffsetSec=5m, AccuracySec=1s)" in offset
    exact = calendar_source("*-*-* *:*:00/5", AccuracyUSec="1us")
    assert compare_words.delays(exact, due("*-*-* *:*:00/5", days=1)) == []


def test_a_fixed_delay_is_read_off_the_next_fire() -> None:
    source = calendar_source("*-*-* 03:00:00", RandomizedDelayUSec="1h", FixedRandomDelay="yes", AccuracyUSec="1s")
    assert source.timer is not None
    nominal = datetime(2025, 12, 20, 8, tzinfo=UTC)
    fire = replace(source.timer, next_fire=nominal + timedelta(seconds=754.5))
    assert compare_words.fixed_offset(source, fire) == 754.5
    assert "starts it about 12m34.5s after" in compare_words.delays(replace(source, timer=fire), [])[0]
    # Where an instant comes every few minutes, the delay of an hour could be counted from any of twelve.
    often = calendar_source("*-*-* *:00/5:00", RandomizedDelayUSec="1h", FixedRandomDelay="yes", AccuracyUSec="1s")
    assert compare_words.fixed_offset(often, fire) is None
    assert "always the same time, at most 1h" in compare_words.delays(replace(often, timer=fire), [])[0]


def test_zones_are_told_where_they_differ() -> None:
    assert compare_words.zones(calendar_source("*-*-* 03:00:00"), NEW_YORK) is None
    assert compare_words.zones(calendar_source("*-*-* 03:00:00", zone="Etc/UTC"), "UTC") is None
    host = compare_words.zones(calendar_source("*-*-* 03:00:00", zone="UTC"), NEW_YORK)
    assert host == "the zone of this host, which it follows, is UTC; the schedule is in America/New_York"
    named = compare_words.zones(calendar_source("*-*-* 03:00:00 Europe/Berlin"), NEW_YORK)
    assert named == "the zone it names is Europe/Berlin; the schedule is in America/New_York"
    line = CronTrigger(cron="0 3 * * * true", user="daniel", timezone="UTC")
    cron = compare_words.zones(Source("cron", line, "UTC", cron="0 3 * * *"), NEW_YORK)
    assert cron == "the zone it names is UTC; the schedule is in America/New_York"


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (
            Monotonic("OnUnitActiveSec", 300),
            "from the start of the last run: no instants to compare; the nearest is `ev",
        ),
        (Monotonic("OnUnitInactiveSec", 300), "from the end of the last run"),
        (Monotonic("OnBootSec", 60), "OnBootSec=1m starts it after a boot or a login"),
        (Monotonic("OnBootSec", 0), "OnBootSec=0s starts it after a boot or a login"),
        (Monotonic("OnActiveSec", 1), "OnActiveSec=1s starts it once its timer is started"),
        (Monotonic("@reboot", 0), "@reboot starts it after a boot or a login"),
        (Monotonic("OnUnitActiveSec", 0.2), "nothing comes near"),
    ],
)
def test_what_has_no_calendar_is_said_not_to_compare(trigger: Monotonic, words: str) -> None:
    source = replace(calendar_source(), monotonic=(trigger,))
    (note,) = compare_words.monotonic(source)
    assert words in note


def test_the_clocks_are_named_where_they_are_the_reason() -> None:
    old = due("*-*-* 02:00:00")
    early = int(datetime(2026, 3, 8, 6, tzinfo=UTC).timestamp())
    first = int(START.timestamp())
    changes = clocks.changes(NEW_YORK, first, first + 400 * 86400)
    spring, autumn = compare(old, sorted([*old, early]), changes=changes).changed_days
    assert compare_words.changed_day(spring) == (
        "Sun 2026-03-08, clocks go forward from 02:00 to 03:00: 02:00 does not exist that day; "
        "the legacy side skips it; Prefect alone fires at 01:00, an hour early"
    )
    assert compare_words.changed_day(autumn) is None


def test_next_tells_what_clocks_do_to_the_fires() -> None:
    spring, autumn = datetime(2026, 3, 5, 5, tzinfo=UTC), datetime(2026, 11, 1, 4, tzinfo=UTC)
    early = int(datetime(2026, 3, 8, 6, tzinfo=UTC).timestamp())
    moved = sorted([*due("*-*-* 02:00:00", days=8, start=spring), early])
    (note,) = clock_notes(moved, NEW_YORK)
    assert note.endswith("02:00 does not exist, it fires at 01:00 instead")
    (note,) = clock_notes(due("*-*-* 02:00:00", days=8, start=spring), NEW_YORK)
    assert note.endswith("02:00 does not exist, it does not fire then")
    (note,) = clock_notes(due("*-*-* *:00/5:00", days=1, start=autumn), NEW_YORK)
    assert note.endswith("the hour comes twice, it fires in the first only: a pause of 1h5m")
    (note,) = clock_notes(due("*-*-* 12:00:00", days=8, start=spring), NEW_YORK)
    assert note.endswith("its fires go on by the new local time")
    assert clock_notes(due("*-*-* 12:00:00", days=2, start=spring), NEW_YORK) == []
