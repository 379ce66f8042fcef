"""When legacy triggers are due, by what they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchctl.core import cadence
from orchctl.core.cadence import Source
from orchctl.core.catalog import CronTrigger, Job, TimerTrigger
from orchctl.core.legacy import SYSTEM, Manager, Monotonic, Timer, Units
from shown import timer

NEW_YORK = "America/New_York"
SPRING = datetime(2026, 3, 8, 5, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def job(*legacy: TimerTrigger | CronTrigger) -> Job:
    fields = {"name": "job", "asset": "job", "work_pool": "pool", "data_root": "/d", "working_directory": "/w"}
    return Job.model_validate({**fields, "command": ["true"], "legacy": legacy})


def source_of(trigger: TimerTrigger | CronTrigger, found: Timer | None = None) -> Source:
    units = {} if found is None else {found.manager: Units(found.manager, {found.name: found})}
    (source,) = cadence.sources(job(trigger), units, NEW_YORK)
    return source


def line(text: str, **fields: str) -> CronTrigger:
    return CronTrigger.model_validate({"cron": text, "user": "daniel", **fields})


def local(instants: list[int], zone: str = NEW_YORK) -> list[str]:
    from orchctl.core import clocks

    return [f"{clocks.local(instant, zone):%H:%M}" for instant in instants]


A_TIMER = TimerTrigger(timer="a.timer")


def test_a_timer_is_due_by_all_its_lines_and_once_where_two_agree() -> None:
    found = timer(
        "TimersCalendar={ OnCalendar=*-*-* 12:00:00 ; next_elapse=n/a }",
        "TimersCalendar={ OnCalendar=*-*-* 06,12:00:00 ; next_elapse=n/a }",
        "AccuracyUSec=1min",
        "RandomizedDelayUSec=30s",
    )
    source = source_of(A_TIMER, found)
    assert local(cadence.instants(source, SPRING, SPRING + DAY)) == ["06:00", "12:00"]
    assert source.tolerance_s == 90


def test_of_a_window_the_start_is_in_and_the_end_is_not() -> None:
    source = source_of(line("*/5 * * * * true"))
    assert len(cadence.instants(source, SPRING, SPRING + timedelta(minutes=10))) == 2
    assert len(cadence.instants(source, SPRING + timedelta(seconds=1), SPRING + timedelta(minutes=10))) == 1


@pytest.mark.parametrize(
    ("text", "start", "times"),
    [
        # Debian's cron: what a gap swallows runs at its end, what comes twice runs once, a wildcard goes on.
        ("30 2 * * * true", SPRING, ["03:00"]),
        ("30 1 * * * true", AUTUMN, ["01:30"]),
        ("30 * * * * true", AUTUMN, ["00:30", "01:30", "01:30", "02:30"]),
    ],
)
def test_cron_has_its_own_way_where_clocks_change(text: str, start: datetime, times: list[str]) -> None:
    source = source_of(line(text))
    assert local(cadence.instants(source, start, start + timedelta(hours=4))) == times


def test_a_timer_skips_what_does_not_exist() -> None:
    found = timer("TimersCalendar={ OnCalendar=*-*-* 02:30:00 ; next_elapse=n/a }")
    assert cadence.instants(source_of(A_TIMER, found), SPRING, SPRING + timedelta(hours=20)) == []


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("*-*-* 08..23:*:00/5", None),
        ("Mon..Fri *-*-* 10:00:00 UTC", "UTC"),
        ("*-*-* *:00/15:00 Europe/Berlin", "Europe/Berlin"),
        ("Sun *-*-* 10:00:00 America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
    ],
)
def test_the_zone_that_an_expression_names(expression: str, zone: str | None) -> None:
    assert cadence.zone_named(expression) == zone
    found = timer(f"TimersCalendar={{ OnCalendar={expression} ; next_elapse=n/a }}")
    assert source_of(A_TIMER, found).zones == (zone or NEW_YORK,)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (timer(load="not-found"), "there is no such timer on this host"),
        (timer(load="masked"), "it is masked"),
        (timer('LoadError=org.x "no seconds"', load="bad-setting"), "bad-setting: no seconds"),
        (None, "its systemd could not be asked"),
    ],
)
def test_of_what_is_not_there_the_reason_is_told(found: Timer | None, reason: str) -> None:
    source = source_of(A_TIMER, found)
    assert (source.missing, source.counts) == (reason, False)


def test_why_a_manager_could_not_be_asked_is_passed_on() -> None:
    (source,) = cadence.sources(job(A_TIMER), {}, NEW_YORK, unread={SYSTEM: "it sleeps"})
    assert source.missing == "it sleeps"


def test_a_timer_that_is_off_is_known_and_counts_for_nothing() -> None:
    source = source_of(A_TIMER, timer(active="inactive"))
    assert (source.missing, source.counts) == (None, False)


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        (line("61 * * * * true"), "61"),
        (line("* * * * * true", timezone="Mars/Olympus"), "there is no time zone 'Mars/Olympus'"),
        (line("nonsense"), "command"),
    ],
)
def test_a_cron_line_that_cannot_be_read_says_why(trigger: CronTrigger, reason: str) -> None:
    source = source_of(trigger)
    assert source.missing is not None
    assert reason in source.missing


def test_a_start_at_boot_is_no_cadence_but_known() -> None:
    source = source_of(line("@reboot true"))
    assert (source.missing, source.monotonic) == (None, (Monotonic("@reboot", 0.0),))
    assert cadence.instants(source, SPRING, SPRING + DAY) == []


def test_what_is_next_comes_from_systemd_or_is_counted() -> None:
    due = SPRING + timedelta(minutes=7)
    found = replace(timer("TimersCalendar={ OnCalendar=*-*-* 12:00:00 ; next_elapse=n/a }"), next_fire=due)
    assert cadence.following(source_of(A_TIMER, found), SPRING) == due
    leap = cadence.following(source_of(line("0 0 29 2 * true", timezone="UTC")), SPRING)
    assert leap == datetime(2028, 2, 29, tzinfo=UTC)
    assert cadence.following(source_of(line("@reboot true")), SPRING) is None


def test_the_timers_of_all_jobs_are_asked_for_by_manager() -> None:
    users = TimerTrigger(timer="b.timer", scope="user", user="daniel")
    jobs = {"one": job(A_TIMER, users), "two": job(A_TIMER, line("* * * * * true"))}
    assert cadence.managers_of(jobs) == {SYSTEM: {"a.timer"}, Manager("user", "daniel"): {"b.timer"}}
