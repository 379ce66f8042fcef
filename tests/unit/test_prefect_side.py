"""Prefect's part of a handover against the fake server, and against servers that are none."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

import broken_api
import fakes
from fakes import NOON, FakeApplied, FakePrefect, failing_at
from handover_fakes import next_slot
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.remote import RemoteRun
from orchctl.errors import NotAllowed, OrchctlError, PrefectApiError, PrefectRejected, PrefectUnreachable
from orchctl.services import sync
from orchctl.services.prefect_side import AHEAD_S, PrefectSide

SCHEDULES = {"hourly": {"cron": "0 * * * *"}, "daily": {"cron": "0 3 * * *"}}
WAITING = ("Scheduled", "Late", "AwaitingConcurrencySlot", "AwaitingRetry", "Pending")


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.slept)

    def elapsed(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@dataclass
class Site:
    """A synced job on a fake server."""

    prefect: FakePrefect
    clock: Clock = field(default_factory=Clock)
    catalog: str | None = "tests"

    @property
    def side(self) -> PrefectSide:
        return PrefectSide(self.prefect, self.catalog, self.clock.now, self.clock.elapsed, self.clock.sleep)

    @property
    def id(self) -> str:
        (key,) = self.prefect.by_id
        return key

    def run(self, name: str, *, due: timedelta = timedelta(minutes=-5), **more: Any) -> str:
        """Make a run that stands in a state of this name, made by a schedule unless `auto_scheduled` is False."""
        made = self.prefect.create_run(self.id, parameters={}, idempotency_key=f"{name} {due} {more}")
        kind = {"Pending": "PENDING", "Running": "RUNNING"}.get(name, "SCHEDULED")
        count = 1 if name == "AwaitingRetry" else 0
        fields = {"auto_scheduled": True, "run_count": count, "expected_start": NOON + due, **more}
        self.prefect.set_run(made.id, state_type=kind, state_name=name, **fields)
        return made.id

    def takeable(self) -> list[RemoteRun]:
        return [run for run in self.prefect.runs.values() if run.state_type in {"SCHEDULED", "PENDING"}]


@pytest.fixture
def site() -> Site:
    prefect, applied = FakePrefect(), FakeApplied()
    catalog = fakes.catalog({"job": {"schedules": ["hourly", "daily"]}}, SCHEDULES)
    proposed = sync.propose(catalog, prefect, applied, state_dir="/state", now=NOON)
    sync.apply(proposed, catalog, prefect, applied, now=lambda: NOON)
    prefect.runs.clear()
    prefect.writes.clear()
    return Site(prefect)


def test_a_job_that_prefect_does_not_know_is_paused_clear_and_not_scheduled(site: Site) -> None:
    side = site.side
    assert side.is_paused("other") is True
    assert side.is_clear("other")
    assert not side.is_scheduled("other")
    assert side.clear("other") == 0
    side.pause("other")
    with pytest.raises(PrefectApiError, match="other is not in Prefect"):
        side.open_up("other")
    with pytest.raises(PrefectApiError, match="other is not in Prefect"):
        side.catch_up("other", [NOON])
    assert site.prefect.writes == []


@pytest.mark.parametrize("catalog", ["tests", None])
def test_a_deployment_of_another_catalog_is_left_alone(site: Site, catalog: str | None) -> None:
    labels = {"orchctl.catalog": "other", "orchctl.job": "another"}
    site.prefect.set_by_hand(site.id, labels=labels, parameters={})
    site.run("Late")
    site.catalog = catalog
    site.prefect.writes.clear()
    assert site.side.is_clear("job")
    assert site.side.clear("job") == 0
    site.side.pause("job")
    assert site.prefect.writes == []


def test_without_a_catalog_the_deployments_own_label_is_enough(site: Site) -> None:
    site.catalog = None
    site.side.pause("job")
    assert site.prefect.by_id[site.id].paused


# --- opening up


def test_to_open_up_makes_the_runs_from_now_on_at_once(site: Site) -> None:
    site.prefect.set_by_hand(site.id, paused=True)
    assert not site.side.is_scheduled("job")
    site.side.open_up("job")
    assert site.side.is_scheduled("job")
    assert site.prefect.writes == ["resume_deployment", "schedule_from"]
    assert next_slot(site.side, "job") == NOON.replace(hour=18, minute=0, second=0)
    assert site.clock.slept == 0


def test_a_schedule_without_a_run_ahead_is_not_scheduled(site: Site) -> None:
    site.side.open_up("job")
    daily = next(each.id for each in site.prefect.by_id[site.id].schedules if each.slug == "daily")
    site.prefect.runs = {key: run for key, run in site.prefect.runs.items() if run.created_by_schedule != daily}
    assert not site.side.is_scheduled("job")


def test_what_is_paused_by_hand_stays_paused_and_is_not_waited_for(site: Site) -> None:
    schedules = tuple(replace(each, active=each.slug != "daily") for each in site.prefect.by_id[site.id].schedules)
    site.prefect.set_by_hand(site.id, paused=True, schedules=schedules)
    site.side.open_up("job")
    assert site.side.is_scheduled("job")
    assert {each.slug: each.active for each in site.prefect.by_id[site.id].schedules} == {
        "hourly": True,
        "daily": False,
    }


def test_a_schedule_that_is_due_next_year_is_not_waited_for(site: Site) -> None:
    schedules = [replace(each, schedule={"cron": "0 3 1 6 *"}) for each in site.prefect.by_id[site.id].schedules]
    site.prefect.set_by_hand(site.id, schedules=tuple(schedules))
    site.prefect.schedule_from = lambda *_: None  # type: ignore[method-assign]
    site.side.open_up("job")
    assert site.side.is_scheduled("job")


def test_a_scheduler_that_does_not_work_is_waited_for_half_a_minute(site: Site) -> None:
    site.prefect.schedule_from = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(PrefectApiError, match="no run of job ahead for hourly, daily in 30 s"):
        site.side.open_up("job")
    assert AHEAD_S <= site.clock.slept < AHEAD_S + 1


# --- catching up


def test_each_slot_is_started_once_whoever_asks(site: Site) -> None:
    slots = [NOON - timedelta(minutes=5), NOON - timedelta(minutes=10)]
    first = site.side.catch_up("job", slots)
    assert site.side.catch_up("job", slots) == first
    assert len(set(first)) == len(site.prefect.runs) == 2
    assert site.side.catch_up("job", ()) == ()


def test_the_slot_is_a_parameter_and_the_key_names_it(site: Site) -> None:
    asked: list[dict[str, Any]] = []
    made = site.prefect.create_run

    def create_run(deployment: str, **more: Any) -> RemoteRun:
        asked.append(more)
        return made(deployment, **more)

    site.prefect.create_run = create_run  # type: ignore[method-assign, assignment]
    site.side.catch_up("job", [NOON, NOON - timedelta(milliseconds=1500)])
    assert [(each["parameters"], each["idempotency_key"], each["tags"]) for each in asked] == [
        (
            {"slot": "2025-12-19T17:00:28.500000Z"},
            "orchctl catch-up job 2025-12-19T17:00:28.500000Z",
            ("orchctl-catchup",),
        ),
        ({"slot": "2025-12-19T17:00:30Z"}, "orchctl catch-up job 2025-12-19T17:00:30.000000Z", ("orchctl-catchup",)),
    ]


def test_a_catch_up_that_a_rollback_cancelled_is_started_anew_by_the_next_cutover(site: Site) -> None:
    (first,) = site.side.catch_up("job", [NOON])
    site.side.clear("job")
    assert site.prefect.runs[first].state_type == "CANCELLED"
    (second,) = site.side.catch_up("job", [NOON])
    assert second != first
    assert site.side.catch_up("job", [NOON]) == (second,)
    site.side.clear("job")
    (third,) = site.side.catch_up("job", [NOON])
    assert third not in {first, second}


def test_a_catch_up_that_had_begun_is_not_started_anew(site: Site) -> None:
    (first,) = site.side.catch_up("job", [NOON])
    site.prefect.set_run(first, state_type="CANCELLED", state_name="Cancelled", run_count=1)
    assert site.side.catch_up("job", [NOON]) == (first,)


# --- clearing


@pytest.mark.parametrize("by_hand", [False, True])
def test_nothing_that_a_worker_could_take_is_left(site: Site, by_hand: bool) -> None:
    for name in WAITING:
        site.run(name, auto_scheduled=not by_hand)
    going = site.run("Running")
    assert not site.side.is_clear("job")
    assert site.side.clear("job") == len(WAITING)
    assert site.takeable() == []
    assert site.side.is_clear("job")
    assert site.prefect.runs[going].state_name == "Running"
    assert site.prefect.by_id[site.id].paused
    assert site.side.clear("job") == 0


def test_a_paused_deployment_with_a_run_left_is_not_clear(site: Site) -> None:
    site.prefect.set_by_hand(site.id, paused=True)
    assert site.side.is_clear("job")
    site.run("AwaitingRetry")
    assert not site.side.is_clear("job")


def test_a_run_that_was_taken_ahead_of_its_slot_does_not_keep_the_slot_from_another_cutover(site: Site) -> None:
    site.side.open_up("job")
    slot = next_slot(site.side, "job")
    (taken,) = (run.id for run in site.prefect.runs.values() if run.expected_start == slot)
    site.prefect.set_run(taken, state_type="PENDING", state_name="Pending")
    site.side.clear("job")
    assert taken not in site.prefect.runs
    site.side.open_up("job")
    assert next_slot(site.side, "job") == slot


def test_a_run_of_the_past_and_one_by_hand_stay_on_record(site: Site) -> None:
    past = site.run("Pending")
    ahead = site.run("Pending", due=timedelta(minutes=5), auto_scheduled=False)
    site.side.clear("job")
    assert [site.prefect.runs[key].state_type for key in (past, ahead)] == ["CANCELLED", "CANCELLED"]
    assert "legacy runs the job" in (site.prefect.runs[past].state_message or "")


def test_what_the_scheduler_puts_back_meanwhile_is_found(site: Site) -> None:
    late = itertools.count()

    def insert(_: int) -> None:
        if site.prefect.writes[-1:] == ["pause_deployment"] and next(late) < 3:
            site.run("Pending", due=timedelta(minutes=-1 - len(site.prefect.writes)))

    site.prefect.after = insert
    assert site.side.clear("job") == 3
    assert site.takeable() == []


def test_runs_that_keep_coming_are_an_error_and_no_endless_loop(site: Site) -> None:
    numbers = itertools.count(1)

    def insert(_: int) -> None:
        if site.prefect.writes[-1:] == ["pause_deployment"]:
            site.run("Pending", due=timedelta(minutes=-next(numbers)))

    site.prefect.after = insert
    with pytest.raises(PrefectApiError, match="still gets new runs"):
        site.side.clear("job")


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_run_that_cannot_be_cancelled_any_more_is_passed_over(site: Site, status: int) -> None:
    key = site.run("Pending")
    refuse = site.prefect.set_run_state

    def set_run_state(run: str, **more: Any) -> None:
        refuse(run, **more)
        raise PrefectRejected("it has ended", status=status)

    site.prefect.set_run_state = set_run_state  # type: ignore[method-assign, assignment]
    assert site.side.clear("job") == 1
    assert site.prefect.runs[key].state_type == "CANCELLED"


def test_a_deployment_that_goes_meanwhile_is_clear(site: Site) -> None:
    site.run("Pending")

    def gone(_: str) -> None:
        raise PrefectRejected("no such deployment", status=404)

    site.prefect.pause_deployment = gone  # type: ignore[method-assign, assignment]
    site.side.clear("job")
    assert site.takeable() == []


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_clearing_that_broke_off_anywhere_is_finished_by_the_next(lost: str, site: Site) -> None:
    def fill() -> None:
        site.prefect.set_by_hand(site.id, paused=False)
        for name in WAITING:
            site.run(name, due=timedelta(minutes=5))
            site.run(name)

    fill()
    site.prefect.writes.clear()
    site.side.clear("job")
    steps = len(site.prefect.writes)
    assert steps > 8
    for number in range(steps):
        site.prefect.runs.clear()
        fill()
        site.prefect.writes.clear()
        setattr(site.prefect, lost, failing_at(number))
        with pytest.raises(PrefectUnreachable):
            site.side.clear("job")
        setattr(site.prefect, lost, lambda _: None)
        site.side.clear("job")
        assert (site.takeable(), site.side.is_clear("job")) == ([], True), number


# --- servers that are none


CALLS: dict[str, Callable[[PrefectSide], object]] = {
    "is_paused": lambda side: side.is_paused("job"),
    "is_scheduled": lambda side: side.is_scheduled("job"),
    "open_up": lambda side: side.open_up("job"),
    "pause": lambda side: side.pause("job"),
    "catch_up": lambda side: side.catch_up("job", [NOON]),
    "is_clear": lambda side: side.is_clear("job"),
    "clear": lambda side: side.clear("job"),
}
PATIENCE_S = 1.5
FAILING = [kind for kind in broken_api.KINDS if kind != "slow"]


def of(api: PrefectApi) -> PrefectSide:
    clock = Clock()
    return PrefectSide(api, None, clock.now, clock.elapsed, clock.sleep)


@pytest.mark.parametrize("kind", FAILING)
def test_a_sick_server_costs_a_rollback_no_more_than_its_patience(kind: str) -> None:
    with broken_api.api(kind) as url, PrefectApi(url=url, patience=PATIENCE_S) as api:
        begun = time.monotonic()
        for call in CALLS.values():
            with pytest.raises(PrefectApiError if kind != "unauthorised" else NotAllowed):
                call(of(api))
        assert time.monotonic() - begun < len(CALLS) * PATIENCE_S  # and not each of them for as long
        with pytest.raises(OrchctlError):
            of(api).clear("job")


@pytest.mark.parametrize("kind", ["deaf", "hung", "trickling"])
def test_once_its_patience_is_spent_a_client_fails_at_once(kind: str) -> None:
    with broken_api.api(kind) as url, PrefectApi(url=url, patience=PATIENCE_S) as api:
        with pytest.raises(PrefectUnreachable, match=r"no answer within 1\.5 s"):
            api.version()
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises(PrefectUnreachable, match=r"no answer within 1\.5 s"):
                api.version()
        assert time.monotonic() - begun < 25  # and not 50 times its patience, 75 s


def test_a_slow_server_is_given_up_after_a_few_answers() -> None:
    with broken_api.api("slow") as url, PrefectApi(url=url, patience=2.0) as api:
        assert api.deployment("job", "job") is None
        with pytest.raises(PrefectUnreachable):
            api.deployment("job", "job")
        with pytest.raises(PrefectUnreachable):
            api.deployment("job", "job")


def test_without_patience_a_slow_server_is_waited_for() -> None:
    with broken_api.api("slow") as url, PrefectApi(url=url) as api:
        assert [api.deployment("job", "job") for _ in range(2)] == [None, None]
