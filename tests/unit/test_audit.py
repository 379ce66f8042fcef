"""The verdict of each slot, on made-up days."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.core import calendar
from orchctl.core.audit import VERDICTS, Doubt, Due, JobAudit, Slot, audit, holes, reach
from orchctl.core.audit_match import Ran

NEW_YORK = ZoneInfo("America/New_York")
DAY = datetime(2025, 12, 19, tzinfo=NEW_YORK)
START, END = DAY.timestamp(), (DAY + timedelta(days=1)).timestamp()
TIMER, COPY = "job.service (system)", "job.service (user)"
MINUTE, HOUR = 60, 3600


def at(text: str, day: datetime = DAY) -> float:
    """Return the epoch seconds of a local time of the day, `HH:MM:SS`."""
    return datetime.combine(day.date(), time.fromisoformat(text), NEW_YORK).timestamp()


def timer(*times: str, tolerance: float = 60, feed: str = TIMER, doubts: tuple[Doubt, ...] = ()) -> Due:
    instants = sorted(int(at(time)) for time in times)
    reached = reach(instants, tolerance)
    return Due(feed.replace("service", "timer"), "legacy", instants, reached, reached, feed, doubts)


def schedule(*times: str, patience: float = 60, doubts: tuple[Doubt, ...] = ()) -> Due:
    return Due("schedule hourly", "prefect", sorted(int(at(time)) for time in times), 60, patience, "Prefect", doubts)


def legacy(start: str, took: float = 10, status: str = "success", *, feed: str = TIMER, slot: str | None = None) -> Ran:
    begun = at(start)
    named = int(at(slot)) if slot else None
    return Ran(f"{feed[-4:-1]}-{start}", "legacy", feed, status, named, begun, begun + took)


def prefect(slot: str, start: str, status: str = "success", *, run_id: str = "", reason: str | None = None) -> Ran:
    begun = at(start)
    executed = status not in {"skipped", "observed"}
    name = run_id or f"p-{slot}-{status}"
    return Ran(name, "prefect", "Prefect", status, int(at(slot)), begun, begun + 10, executed, reason=reason)


def judge(dues: list[Due], runs: list[Ran], *, now: float = END + 86400) -> JobAudit:
    return audit("job", dues, runs, start=START, end=END, now=now)


def verdicts(dues: list[Due], runs: list[Ran], *, now: float = END + 86400) -> list[str]:
    return [slot.verdict for slot in judge(dues, runs, now=now).slots]


def only(dues: list[Due], runs: list[Ran], *, now: float = END + 86400) -> Slot:
    (slot,) = judge(dues, runs, now=now).slots
    return slot


HOURLY = tuple(f"{hour:02d}:00:00" for hour in range(24))


def test_a_clean_day_is_clean() -> None:
    runs = [legacy(f"{hour:02d}:00:{20 + hour}") for hour in range(24)]
    found = judge([timer(*HOURLY)], runs)
    assert found.counts == {"ok": 24}
    assert not found.wrong
    assert list(found.groups()) == []
    assert found.extra == ()


def test_a_clean_day_of_prefect_is_clean() -> None:
    runs = [prefect(slot, slot[:6] + "04") for slot in HOURLY]
    assert judge([schedule(*HOURLY)], runs).counts == {"ok": 24}


def test_a_slot_that_nothing_ran_is_missed() -> None:
    runs = [legacy(f"{hour:02d}:00:20") for hour in range(24) if hour != 7]
    found = judge([timer(*HOURLY)], runs)
    assert found.counts == {"ok": 23, "missed": 1}
    assert found.wrong
    (group,) = found.groups()
    assert [slot.at for slot in group.slots] == [int(at("07:00:00"))]


def test_a_missed_slot_of_prefect_is_missed_and_what_the_observer_said_is_told() -> None:
    seen = prefect("12:00:00", "12:00:05", "observed", reason="systemd did not run it")
    slot = only([timer("12:00:00")], [seen])
    assert (slot.verdict, slot.detail) == ("missed", "systemd did not run it")
    assert verdicts([schedule("12:00:00")], []) == ["missed"]


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([legacy("12:00:03"), legacy("12:00:31", feed=COPY)], (TIMER, COPY)),
        ([legacy("12:00:03"), prefect("12:00:00", "12:00:04")], (TIMER, "Prefect")),
        ([legacy("12:00:03"), prefect("12:00:00", "12:00:04", "running")], (TIMER, "Prefect")),
        ([legacy("12:00:03"), legacy("12:00:40")], (TIMER,)),
        ([prefect("12:00:00", "12:00:04", run_id="a"), prefect("12:00:00", "12:00:05", "failed", run_id="b")], ()),
    ],
    ids=["two scopes", "both sides", "both sides, still running", "one service twice", "two runs of Prefect's"],
)
def test_two_executions_for_one_slot_are_a_double(runs: list[Ran], names: tuple[str, ...]) -> None:
    slot = only([timer("12:00:00"), timer("12:00:00", feed=COPY)], runs)
    assert slot.verdict == "double"
    assert all(name in (slot.why or "") for name in names)
    assert set(slot.runs) == {run.run_id for run in runs}


def test_a_legacy_run_in_prefects_time_is_a_double() -> None:
    runs = [prefect("12:00:00", "12:00:04"), legacy("12:00:20")]
    old = replace(timer("11:00:00"), instants=[int(at("11:00:00"))])
    assert verdicts([old, schedule("12:00:00")], [legacy("11:00:02"), *runs]) == ["ok", "double"]


def test_a_slot_of_prefects_that_legacy_ran_for_it_is_served() -> None:
    """As after a rollback: what fell due while Prefect was draining is started through the old service."""
    assert verdicts([timer("11:00:00"), schedule("12:00:00")], [legacy("11:00:01"), legacy("12:00:30")]) == ["ok", "ok"]


def test_observing_and_skipping_are_no_executions() -> None:
    runs = [legacy("12:00:03"), prefect("12:00:00", "12:00:04", "observed")]
    assert verdicts([timer("12:00:00")], runs) == ["ok"]


def test_a_second_start_after_a_failure_is_a_retry_of_the_service() -> None:
    runs = [legacy("12:00:03", 5, "failed"), legacy("12:00:20")]
    slot = only([timer("12:00:00")], runs)
    assert (slot.verdict, slot.runs) == ("ok", (runs[1].run_id,))


@pytest.mark.parametrize(
    ("due", "run"),
    [(timer("02:00:00"), legacy("09:14:00")), (schedule("02:00:00"), prefect("02:00:00", "02:04:00"))],
    ids=["a persistent timer after a boot", "a catch-up"],
)
def test_a_run_that_came_after_its_time_is_late(due: Due, run: Ran) -> None:
    slot = only([due], [run])
    assert (slot.verdict, slot.runs) == ("late", (run.run_id,))
    assert not judge([due], [run]).wrong


def test_a_late_run_serves_the_latest_slot_only() -> None:
    """Persistent= runs once, however many slots went by."""
    runs = [legacy("05:30:00"), legacy("06:00:02")]
    assert verdicts([timer("03:00:00", "04:00:00", "05:00:00", "06:00:00")], runs) == ["missed", "missed", "late", "ok"]


def test_a_start_by_hand_does_not_serve_a_slot_that_its_timer_would_not_catch_up() -> None:
    found = judge([replace(timer("02:00:00"), catches_up=False)], [legacy("09:14:00")])
    assert [slot.verdict for slot in found.slots] == ["missed"]
    assert found.wrong


def test_a_run_of_the_next_day_does_not_serve_yesterday() -> None:
    tomorrow = DAY + timedelta(days=1)
    instants = [int(at("02:00:00")), int(at("02:00:00", tomorrow))]
    due = replace(timer("02:00:00"), instants=instants)
    begun = at("02:00:04", tomorrow)
    run = Ran("next", "legacy", TIMER, "success", None, begun, begun + 5)
    assert verdicts([due], [run]) == ["missed"]


@pytest.mark.parametrize("status", ["failed", "crashed", "cancelled"])
def test_a_run_that_did_not_end_well_is_failed(status: str) -> None:
    found = judge([timer("12:00:00")], [legacy("12:00:03", status=status)])
    assert found.counts == {"failed": 1}
    assert not found.wrong


def test_a_policy_that_skipped_is_named() -> None:
    reason = "stale: 12m late, and catchup is skip"
    slot = only([schedule("12:00:00")], [prefect("12:00:00", "12:12:00", "skipped", reason=reason)])
    assert (slot.verdict, slot.why) == ("skipped", reason)


def test_a_slot_within_the_run_before_is_skipped_as_systemd_does() -> None:
    due = timer("12:00:00", "12:05:00", "12:10:00", "12:15:00")
    runs = [legacy("12:00:02", 7 * MINUTE), legacy("12:10:02"), legacy("12:15:01")]
    assert verdicts([due], runs) == ["ok", "skipped", "ok", "ok"]


def test_a_young_slot_is_unknown() -> None:
    now = at("12:00:40")
    assert verdicts([timer("12:00:00")], [], now=now) == ["unknown"]
    assert verdicts([schedule("12:00:00")], [], now=now) == ["unknown"]
    assert verdicts([timer("12:00:00")], [], now=at("12:01:10")) == ["missed"]
    assert verdicts([schedule("12:00:00", patience=600)], [], now=at("12:09:00")) == ["unknown"]


def test_a_run_that_goes_on_is_unknown() -> None:
    assert verdicts([timer("12:00:00")], [legacy("12:00:03", status="running")]) == ["unknown"]


def test_where_the_record_has_a_hole_nothing_is_called_ok_or_missed() -> None:
    hole = Doubt(at("11:30:00"), at("13:30:00"), "the journal was not read", total=True)
    due = timer("11:00:00", "12:00:00", "13:00:00", "14:00:00", doubts=(hole,))
    found = judge([due], [legacy("11:00:02"), legacy("12:00:02"), legacy("14:00:02")])
    assert [slot.verdict for slot in found.slots] == ["ok", "unknown", "unknown", "ok"]
    assert [len(group.slots) for group in found.groups()] == [2]


def test_a_hole_that_begins_within_a_slots_tolerance_makes_it_unknown() -> None:
    hole = Doubt(at("12:00:30"), at("13:00:00"), "the journal was not read", total=True)
    assert verdicts([timer("12:00:00", doubts=(hole,))], [legacy("12:00:02")]) == ["unknown"]


def test_a_double_that_was_seen_is_one_whatever_else_may_be_hidden() -> None:
    hole = Doubt(START, END, "the journal was not read", total=True)
    runs = [legacy("12:00:02"), legacy("12:00:30", feed=COPY)]
    assert verdicts([timer("12:00:00", doubts=(hole,))], runs) == ["double"]


def test_what_leaves_no_record_is_unknown_unless_one_is_there() -> None:
    doubt = Doubt(START, END, "cron leaves no record")
    due = timer("11:00:00", "12:00:00", doubts=(doubt,), feed="cron")
    assert verdicts([due], [legacy("12:00:02", feed="cron")]) == ["unknown", "ok"]


def test_starts_that_belong_to_no_slot_are_told() -> None:
    runs = [legacy("12:00:03"), legacy("12:30:00"), replace(prefect("12:00:00", "12:45:00"), slot=None, by_hand=True)]
    found = judge([timer("12:00:00")], runs)
    assert found.counts == {"ok": 1}
    assert [(each.feed, each.runs) for each in found.extra] == [(TIMER, (runs[1].run_id,))]


# --- timers that are finer than their accuracy


def dense(feed: str = TIMER) -> Due:
    """The timer of live-score: every five seconds, within a random delay of 30 s and an accuracy of a minute."""
    instants = calendar.instants("*-*-* 08..23:*:00/5", "America/New_York", DAY, DAY + timedelta(days=1))
    reached = reach(instants, 90)
    return Due(feed.replace("service", "timer"), "legacy", instants, reached, reached, feed)


def about_once_a_minute(feed: str = TIMER, *, took: float = 20, phase: float = 0.0) -> list[Ran]:
    starts = [at("08:00:41") + phase + 71.0 * number for number in range(812)]
    return [Ran(f"{feed[-4:-1]}{start}", "legacy", feed, "success", None, start, start + took) for start in starts]


def test_a_dense_timer_that_fires_about_once_a_minute_is_clean() -> None:
    found = judge([dense()], about_once_a_minute())
    assert found.counts == {"ok": 11520}
    assert all(slot.coalesced for slot in found.slots)
    assert list(found.groups()) == []


def test_a_dense_timer_whose_runs_take_minutes_is_clean_too() -> None:
    """systemd starts nothing while the service runs, and starts it again as soon as it has ended."""
    starts = [at("08:00:41") + 171.0 * number for number in range(340)]
    runs = [Ran(f"r{start}", "legacy", TIMER, "success", None, start, start + 170) for start in starts]
    assert set(judge([dense()], runs).counts) == {"ok"}


def test_a_dense_timer_that_stood_still_for_an_hour_has_missed_it() -> None:
    runs = [run for run in about_once_a_minute() if not at("12:00:00") <= run.started < at("13:00:00")]
    found = judge([dense()], runs)
    (group,) = found.groups()
    assert 660 <= len(group.slots) <= 740
    assert {slot.verdict for slot in group.slots} == {"missed"}


def test_a_dense_timer_in_both_scopes_is_a_double_all_day_and_both_are_named() -> None:
    runs = [*about_once_a_minute(), *about_once_a_minute(COPY, phase=17)]
    found = judge([dense(), dense(COPY)], runs)
    assert found.counts == {"double": 11520}
    (group,) = found.groups()
    assert group.slots[0].why == f"{TIMER} and {COPY} both ran it"


def test_the_grace_never_hides_a_neighbour() -> None:
    """Each two seconds, exactly: one start that is not there is one missed slot."""
    instants = [int(START) + 2 * number for number in range(60)]
    reached = reach(instants, 0)
    due = Due("t", "legacy", instants, reached, reached, TIMER)
    runs = [
        Ran(f"r{n}", "legacy", TIMER, "success", None, t + 0.01, t + 0.2) for n, t in enumerate(instants) if n != 30
    ]
    assert [index for index, slot in enumerate(judge([due], runs).slots) if slot.verdict != "ok"] == [30]


# --- days on which clocks change


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25)])
def test_a_day_on_which_clocks_change_has_the_slots_that_systemd_has(day: tuple[int, int, int], hours: int) -> None:
    first = datetime(*day, tzinfo=NEW_YORK)
    last = first + timedelta(days=1)
    assert (last.timestamp() - first.timestamp()) / HOUR == hours
    instants = calendar.instants("*-*-* *:30:00", "America/New_York", first, last)
    reached = reach(instants, 60)
    due = Due("t", "legacy", instants, reached, reached, TIMER)
    runs = [Ran(f"r{t}", "legacy", TIMER, "success", None, t + 3, t + 9) for t in instants]
    clean = audit("job", [due], runs, start=first.timestamp(), end=last.timestamp(), now=last.timestamp() + 90)
    # The repeated hour fires once: systemd's own rule. The hour that does not exist fires not at all.
    assert clean.counts == {"ok": hours if hours == 23 else hours - 1}
    short = audit("job", [due], runs[:-1], start=first.timestamp(), end=last.timestamp(), now=last.timestamp() + 90)
    assert short.counts == {"ok": len(instants) - 1, "missed": 1}


# --- properties

SECONDS = st.integers(0, 4 * HOUR)
STATUSES = st.sampled_from(["success", "failed", "running"])
RUNS = st.lists(st.tuples(SECONDS, st.integers(1, 900), STATUSES, st.sampled_from([TIMER, COPY])), max_size=12)
INSTANTS = st.lists(SECONDS, min_size=1, max_size=30, unique=True)


def made(instants: list[int], tolerance: int, runs: list[tuple[int, int, str, str]]) -> tuple[Due, list[Ran]]:
    times = [int(START) + second for second in sorted(instants)]
    reached = reach(times, tolerance)
    ran = [
        Ran(f"r{number}", "legacy", feed, status, None, START + start + 0.5, START + start + 0.5 + took)
        for number, (start, took, status, feed) in enumerate(runs)
    ]
    return Due("t", "legacy", times, reached, reached, TIMER), ran


@given(INSTANTS, st.integers(0, 120), RUNS)
def test_every_slot_gets_exactly_one_verdict(
    instants: list[int], tolerance: int, runs: list[tuple[int, int, str, str]]
) -> None:
    due, ran = made(instants, tolerance, runs)
    found = judge([due], ran)
    assert [slot.at for slot in found.slots] == list(due.instants)
    assert all(slot.verdict in VERDICTS for slot in found.slots)
    assert sum(found.counts.values()) == len(instants)
    told = {run for slot in found.slots for run in slot.runs} | {run for each in found.extra for run in each.runs}
    assert len(told) <= len(ran)


UNSERVED = {"missed", "skipped"}
WORSE = ["ok", "late", "skipped", "missed"]


@given(INSTANTS, st.integers(0, 120), RUNS, st.data())
def test_taking_a_run_away_serves_no_slot_that_was_not_served(
    instants: list[int], tolerance: int, runs: list[tuple[int, int, str, str]], data: st.DataObject
) -> None:
    due, ran = made(instants, tolerance, runs)
    if not ran:
        return
    gone = data.draw(st.sampled_from(ran))
    before, after = judge([due], ran), judge([due], [run for run in ran if run is not gone])
    for was, now in zip(before.slots, after.slots, strict=True):
        if was.verdict in UNSERVED:
            assert now.verdict in UNSERVED
        if was.verdict == "skipped":
            assert now.verdict in UNSERVED
        if was.verdict == "missed":
            assert now.verdict == "missed"


@given(INSTANTS, st.integers(0, 120), RUNS, st.data())
def test_taking_a_good_run_away_betters_no_slot_but_a_double(
    instants: list[int], tolerance: int, runs: list[tuple[int, int, str, str]], data: st.DataObject
) -> None:
    due, ran = made(instants, tolerance, [(start, took, "success", TIMER) for start, took, _, _ in runs])
    if not ran:
        return
    gone = data.draw(st.sampled_from(ran))
    before, after = judge([due], ran), judge([due], [run for run in ran if run is not gone])
    for was, now in zip(before.slots, after.slots, strict=True):
        if was.verdict != "double":
            assert now.verdict != "double"
            assert WORSE.index(now.verdict) >= WORSE.index(was.verdict)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6))
def test_holes_are_what_no_span_holds(spans: list[tuple[int, int]]) -> None:
    covered = [(min(pair), max(pair)) for pair in spans]
    found = list(holes(covered, 0, 50))
    for point in range(50):
        held = any(first <= point and point + 1 <= last for first, last in _joined(covered))
        assert held != any(first <= point < last for first, last in found)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
