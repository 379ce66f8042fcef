"""`schedule compare` and `schedule next` without a systemd and without Prefect: who is asked, what is said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes import catalog
from orchctl.core import calendar
from orchctl.core.catalog import Catalog
from orchctl.core.legacy import SYSTEM, Manager, Timer, Units
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable, UsageError
from orchctl.services import compare, upcoming
from orchctl.services.compare import Compared
from shown import timer

NEW_YORK = "America/New_York"
NOW = datetime(2025, 12, 19, 5, 0, 0, 250000, tzinfo=UTC)
DANIEL = Manager("user", "daniel")
SYSTEM_TIMER = {"timer": "a.timer"}
USER_TIMER = {"timer": "a.timer", "scope": "user", "user": "daniel"}


def at(expression: str, manager: Manager = SYSTEM, *lines: str, active: str = "active") -> Timer:
    found = timer("AccuracyUSec=1us", *lines, manager=manager, active=active)
    return replace(found, calendars=(expression,))


@dataclass
class Host:
    """systemd as it is told; a manager without a timer raises what `errors` holds."""

    timers: Sequence[Timer] = ()
    errors: Mapping[Manager, OrchctlError] = field(default_factory=dict)
    asked: list[tuple[Manager, set[str]]] = field(default_factory=list)

    def read(self, manager: Manager, names: Collection[str] = (), *, everything: bool = False) -> Units:
        self.asked.append((manager, set(names)))
        if manager in self.errors:
            raise self.errors[manager]
        return Units(manager, {each.name: each for each in self.timers if each.manager == manager})


class Rule:
    """Prefect's rule, as systemd's own calendar has it: these tests are not about the difference."""

    def __init__(self, *expressions: str) -> None:
        self._expressions = expressions

    @contextmanager
    def asked(
        self,
        schedules: Sequence[Mapping[str, Any]],
        start: datetime,
        end: datetime | None,
        *,
        count: int | None = None,
    ) -> Iterator[Callable[[], tuple[list[int], ...]]]:
        last = end or start + timedelta(days=400)
        found = [calendar.instants(each, NEW_YORK, start, last)[:count] for each in self._expressions]
        assert len(found) == len(schedules)
        yield lambda: tuple(found)


def told(*legacy: dict[str, Any], **fields: Any) -> Catalog:
    tables = {"one": {"cron": "30 3 * * *", "timezone": NEW_YORK}, "two": {"cron": "30 3 * * *", "timezone": NEW_YORK}}
    return catalog({"job": {"schedules": ["one"], "legacy": list(legacy), **fields}}, tables)


def compared(found: Catalog, host: Host, *expressions: str, zone: str = NEW_YORK, days: int = 10) -> Compared:
    rule = Rule(*(expressions or ("*-*-* 03:30:00",)))
    return compare.run(found, host, rule, "job", days=days, now=NOW, host_zone=zone)


def test_the_window_begins_now_and_both_sides_get_the_same() -> None:
    found = compared(told(SYSTEM_TIMER), Host([at("*-*-* 03:30:00")]))
    assert (found.start, found.end - found.start) == (NOW.replace(microsecond=0), timedelta(days=10))
    assert (found.verdict, found.differs, found.legacy_cadence) == ("equal", False, "at 03:30 each day")
    assert found.comparison is not None
    assert (found.comparison.same, found.findings) == (10, ())


def test_one_call_a_manager_asks_for_the_job_s_own_timers() -> None:
    host = Host([at("*-*-* 03:30:00"), at("*-*-* 03:30:00", DANIEL)])
    compared(told(SYSTEM_TIMER, USER_TIMER), host)
    assert sorted(host.asked, key=str) == [(SYSTEM, {"a.timer"}), (DANIEL, {"a.timer"})]


def test_two_managers_that_are_due_together_start_the_job_twice() -> None:
    both = told(SYSTEM_TIMER, USER_TIMER)
    (said,) = compared(both, Host([at("*-*-* 03:30:00"), at("*-*-* 03:30:00", DANIEL)])).findings
    assert said == (
        "a.timer (system) and a.timer (user of daniel) are due at the same instants: each starts the job twice today"
    )
    some = Host([at("*-*-* 03:30:00"), at("*-*-* 03,04:30:00", DANIEL)])
    assert "together at 10 instants: each of these starts the job twice" in compared(both, some).findings[0]
    off = Host([at("*-*-* 03:30:00"), at("*-*-* 03:30:00", DANIEL, active="inactive")])
    assert not any("twice" in each for each in compared(both, off).findings)


def test_two_timers_of_one_service_start_it_once() -> None:
    other = replace(at("*-*-* 03:30:00"), name="b.timer")
    found = compared(told(SYSTEM_TIMER, {"timer": "b.timer"}), Host([at("*-*-* 03:30:00"), other]))
    assert found.findings == ()


def test_the_union_of_the_triggers_is_the_legacy_side() -> None:
    cron = {"cron": "30 15 * * * x", "user": "daniel"}
    found = compared(told(SYSTEM_TIMER, cron), Host([at("*-*-* 03:30:00")]), "*-*-* 03,15:30:00")
    assert (found.verdict, found.legacy_cadence) == ("equal", "at 03:30 and 15:30 each day")
    assert [(each.kind, each.fires) for each in found.triggers] == [("timer", 10), ("cron", 10)]


def test_a_difference_is_accepted_with_a_reason_and_an_equality_needs_none() -> None:
    why = "half an hour later is meant"
    found = compared(told(SYSTEM_TIMER, accept_cadence=why), Host([at("*-*-* 03:00:00")]))
    assert (found.verdict, found.accepted) == ("different", why)
    equal = compared(told(SYSTEM_TIMER, accept_cadence=why), Host([at("*-*-* 03:30:00")]))
    assert equal.findings == ("accept_cadence is no longer needed: the schedule does not differ any more",)


def test_what_systemd_may_delay_anyway_is_told_and_no_difference() -> None:
    host = Host([at("*-*-* 03:25:00", SYSTEM, "RandomizedDelayUSec=10min")])
    found = compared(told(SYSTEM_TIMER), host)
    assert found.verdict == "equal"
    assert any("10 fires are moved later by no more than systemd may delay them" in each for each in found.findings)
    less = Host([at("*-*-* 03:25:00", SYSTEM, "RandomizedDelayUSec=4min")])
    assert compared(told(SYSTEM_TIMER), less).verdict == "different"


def test_a_manager_that_cannot_be_asked_is_named_and_hides_no_other() -> None:
    error = NotAllowed("the units of daniel can be read by that user only", hint="use sudo")
    host = Host([at("*-*-* 03:30:00")], {DANIEL: error})
    found = compared(told(SYSTEM_TIMER, USER_TIMER), host)
    (unknown,) = found.unknown
    assert (found.verdict, unknown.problem, unknown.hint) == ("incomplete", error.message, "use sudo")
    other = compared(told(SYSTEM_TIMER, USER_TIMER), Host([at("*-*-* 04:30:00")], {DANIEL: error}))
    assert other.verdict == "different"


def test_where_nothing_can_be_read_the_first_reason_is_raised() -> None:
    error = SystemdUnavailable("systemd does not run on this host", hint="go there")
    with pytest.raises(SystemdUnavailable) as raised:
        compared(told(SYSTEM_TIMER), Host(errors={SYSTEM: error}))
    assert raised.value is error
    with pytest.raises(OrchctlError, match=r"no legacy trigger of job can be read here \(a.timer .*no such timer"):
        compared(told(SYSTEM_TIMER), Host())


def test_an_expression_that_cannot_be_counted_is_that_trigger_s_problem() -> None:
    host = Host([at("*-*-* 03:30:00.5"), at("*-*-* 03:30:00", DANIEL)])
    found = compared(told(SYSTEM_TIMER, USER_TIMER), host)
    assert [each.label for each in found.unknown] == ["a.timer (system)"]
    assert found.verdict == "incomplete"


@pytest.mark.parametrize(("accepted", "findings"), [(None, 1), ("boot is not needed", 1)])
def test_a_start_at_boot_is_a_difference_that_no_instant_shows(accepted: str | None, findings: int) -> None:
    reboot = {"cron": "@reboot x", "user": "daniel"}
    fields = {"accept_cadence": accepted} if accepted else {}
    alone = compared(told(reboot, **fields), Host())
    assert (alone.verdict, alone.comparison, alone.accepted) == ("different", None, accepted)
    assert alone.legacy_cadence == "@reboot"
    beside = compared(told(SYSTEM_TIMER, reboot, **fields), Host([at("*-*-* 03:30:00")]))
    assert beside.comparison is not None
    assert (beside.verdict, beside.comparison.differs, len(beside.findings)) == ("different", False, findings)
    assert beside.legacy_cadence == "at 03:30 each day and @reboot"


def test_a_job_without_a_schedule_is_compared_with_nothing() -> None:
    host = Host([at("*-*-* 03:30:00")])
    found = compare.run(told(SYSTEM_TIMER, schedules=[]), host, Rule(), "job", days=3, now=NOW, host_zone=NEW_YORK)
    assert (found.verdict, found.schedule_cadence) == ("different", "never")


def test_a_job_that_nothing_starts_today_has_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="nothing else starts job today"):
        compared(told(), Host())
    with pytest.raises(UsageError, match="there is no job 'jab'"):
        compare.run(told(), Host(), Rule(), "jab", days=1, now=NOW, host_zone=NEW_YORK)


def next_of(found: Catalog, host: Host, *expressions: str, count: int = 3) -> upcoming.Upcoming:
    return upcoming.run(found, host, Rule(*expressions), "job", count=count, now=NOW, host_zone=NEW_YORK)


def test_next_shows_each_schedule_and_each_trigger() -> None:
    due = NOW + timedelta(minutes=5)
    host = Host([replace(at("*-*-* 03:30:00"), next_fire=due)], {DANIEL: NotAllowed("ask daniel")})
    found = next_of(
        told(SYSTEM_TIMER, USER_TIMER, schedules=["one", "two"]), host, "*-*-* 03:30:00", "*-*-* 12:00:00", count=2
    )
    assert [(each.name, len(each.instants)) for each in found.schedules] == [("one", 2), ("two", 2)]
    first, second = found.legacy
    assert (first.instant, first.problem, second.instant, second.problem) == (due, None, None, "ask daniel")


def test_next_leaves_out_what_is_due_in_this_very_second() -> None:
    found = next_of(told(), Host(), "*-*-* *:*:00")
    assert found.schedules[0].instants[0] == datetime(2025, 12, 19, 5, 1, tzinfo=UTC)


def test_next_of_a_job_that_runs_by_hand_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="runs by hand only"):
        next_of(told(schedules=[]), Host())
    with pytest.raises(UsageError, match="there is no job"):
        upcoming.run(told(), Host(), Rule(), "jab", count=1, now=NOW, host_zone=NEW_YORK)
