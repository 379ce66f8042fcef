"""Planning, and carrying a plan out on the fake server: what must hold for every catalog and every server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import NOON, FakeApplied, FakePrefect, catalog, failing_at
from orchctl.core import schedules
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import LABEL_CATALOG, TAG
from orchctl.core.plan import Change, ScheduleChange
from orchctl.core.plan_apply import split_runs
from orchctl.core.remote import RemoteRun, RemoteSchedule
from orchctl.errors import ExitCode, GateRefused, Interrupted, OrchctlError, PartialFailure, UsageError
from syncing import Operator, reasons

JOBS = ("alpha", "beta", "gamma", "delta")
SLUGS = ("one", "two", "three", "four")
CADENCES: tuple[dict[str, Any], ...] = (
    {"cron": "*/5 8-23 * * *"},
    {"cron": "0 5 1 1 *", "timezone": "America/New_York"},
    {"every": "90s", "anchor": "2025-12-19T00:00:00Z"},
    {"every": "90s", "anchor": "2025-12-19T00:00:00.500Z"},
    {"every": "2h", "timezone": "Europe/Berlin"},
    {"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9;BYMINUTE=0;BYSECOND=0"},
    {"on_calendar": ["Mon *-*-1..7 03:00:00"]},
    {"on_calendar": ["*-*-* 08..23:05,35:00 America/New_York"]},
)
HAND_MADE = RemoteSchedule("by-hand", None, True, {"cron": "0 0 29 2 *", "timezone": "UTC"})
SETTINGS = settings(max_examples=60, deadline=None)


def job_tables(slugs: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"schedules": st.lists(st.sampled_from(slugs), unique=True, max_size=3) if slugs else st.just([])},
        optional={
            "description": st.sampled_from(["", "what it does", "ünï"]),
            "tags": st.lists(st.sampled_from(["nightly", "b", "orchctl"]), unique=True),
            "overlap": st.sampled_from(["skip", "queue"]),
            "work_pool": st.sampled_from(["nobody", "somebody"]),
            "command": st.sampled_from([["true"], ["false", "-x"]]),
            "timeout": st.sampled_from(["1m", "2h"]),
        },
    )


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    tables = draw(st.dictionaries(st.sampled_from(SLUGS), st.sampled_from(CADENCES)))
    jobs = draw(st.dictionaries(st.sampled_from(JOBS), job_tables(sorted(tables)), max_size=4))
    return catalog(jobs, tables)


def operator(wanted: Catalog) -> tuple[FakePrefect, Operator]:
    server = FakePrefect()
    return server, Operator(server, FakeApplied(), "/state", wanted, server.clock)


def hands() -> st.SearchStrategy[list[tuple[str, str]]]:
    """Things that people do, each to the deployment of a job."""
    return st.lists(st.tuples(st.sampled_from(JOBS), st.sampled_from(sorted(BY_HAND))), max_size=6)


def _pause_schedules(server: FakePrefect, id: str) -> None:  # noqa: A002
    found = server.by_id[id].schedules
    server.set_by_hand(id, schedules=tuple(replace(each, active=False) for each in found))


def _drop_schedule(server: FakePrefect, id: str) -> None:  # noqa: A002
    server.set_by_hand(id, schedules=server.by_id[id].schedules[1:])


def _move_schedules(server: FakePrefect, id: str) -> None:  # noqa: A002
    moved = {"cron": "1 2 3 4 *", "timezone": "Asia/Tokyo"}
    found = server.by_id[id].schedules
    ours = tuple(each if each.slug is None else replace(each, schedule=moved) for each in found)
    server.set_by_hand(id, schedules=ours)


def _add_schedule(server: FakePrefect, id: str) -> None:  # noqa: A002
    found = server.by_id[id].schedules
    if all(each.slug is not None for each in found):
        server.set_by_hand(id, schedules=(*found, HAND_MADE))


BY_HAND: dict[str, Callable[[FakePrefect, str], None]] = {
    "pause": lambda server, key: server.set_by_hand(key, paused=True),
    "pause schedules": _pause_schedules,
    "drop a schedule": _drop_schedule,
    "move schedules": _move_schedules,
    "add a schedule": _add_schedule,
    "description": lambda server, key: server.set_by_hand(key, description=None),
    "tags": lambda server, key: server.set_by_hand(key, tags=()),
    "parameters": lambda server, key: server.set_by_hand(key, parameters={"job": "other"}),
    "labels": lambda server, key: server.set_by_hand(key, labels={"orchctl.catalog": "tests", "mine": 1}),
    "limit": lambda server, key: server.set_by_hand(key, concurrency_limit=None),
    "delete": lambda server, key: server.delete_deployment(key),
}


def do(server: FakePrefect, acts: list[tuple[str, str]]) -> None:
    for job, act in acts:
        found = server.deployment(job, job)
        if found is not None:
            BY_HAND[act](server, found.id)


@given(wanted=catalogs())
@SETTINGS
def test_a_plan_carried_out_leaves_nothing_to_plan_and_nothing_to_write(wanted: Catalog) -> None:
    server, someone = operator(wanted)
    someone.sync()
    assert someone.plan().empty
    writes = len(server.writes)
    someone.sync()
    assert len(server.writes) == writes


@given(before=catalogs(), after=catalogs(), acts=hands())
@SETTINGS
def test_any_state_becomes_what_the_catalog_says(before: Catalog, after: Catalog, acts: list[tuple[str, str]]) -> None:
    server, someone = operator(before)
    someone.sync()
    do(server, acts)
    someone.catalog = after
    someone.sync(prune=True)
    assert someone.plan(prune=True).empty
    # A deployment that lost its job *and* its tag cannot be found.
    marked = {each.name for each in server.by_id.values() if TAG in each.tags and LABEL_CATALOG in each.labels}
    assert marked == set(after.jobs)
    # Also where no deployment names it: what looks on from outside goes by the catalog that was applied.
    assert someone.applied.read(after.digest) == after


@given(before=catalogs(), after=catalogs(), acts=hands())
@SETTINGS
def test_what_people_paused_or_added_stays(before: Catalog, after: Catalog, acts: list[tuple[str, str]]) -> None:
    server, someone = operator(before)
    someone.sync()
    do(server, acts)
    was = dict(server.by_id)
    someone.catalog = after
    done = {change.job: change for change in someone.sync().applied}
    for id, old in was.items():  # noqa: A001
        new = server.by_id[id]
        assert new.paused == old.paused
        stayed = [each for each in old.schedules if each.slug in {item.slug for item in new.schedules}]
        assert {each.slug: each.active for each in stayed}.items() <= {e.slug: e.active for e in new.schedules}.items()
        assert any(each.slug is None for each in old.schedules) <= any(each.slug is None for each in new.schedules)
        if old.name not in done or done[old.name].action != "recreate":
            assert {each.id for each in stayed} <= {each.id for each in new.schedules}


@pytest.mark.parametrize("lost", ["request", "answer"])
@given(before=catalogs(), after=catalogs(), number=st.integers(0, 12))
@SETTINGS
def test_a_sync_that_stops_anywhere_is_finished_by_the_next(
    before: Catalog, after: Catalog, number: int, lost: str
) -> None:
    server, someone = operator(before)
    someone.sync()
    someone.catalog = after
    fault = failing_at(len(server.writes) + number)
    server.before, server.after = (fault, lambda _: None) if lost == "request" else (lambda _: None, fault)
    with contextlib.suppress(OrchctlError):
        someone.sync(prune=True)
    server.before = server.after = lambda _: None
    someone.sync(prune=True)
    assert someone.plan(prune=True).empty
    for job in after.jobs.values():
        assert set(someone.schedules(job.name)) == set(job.schedules)


@given(before=catalogs(), after=catalogs(), acts=hands())
@SETTINGS
def test_the_plan_names_exactly_the_runs_that_go(before: Catalog, after: Catalog, acts: list[tuple[str, str]]) -> None:
    server, someone = operator(before)
    someone.sync()
    do(server, acts)
    for each in list(server.by_id.values()):
        server.schedule_from(each.id, NOON - timedelta(minutes=20))
    someone.catalog = after
    plan = someone.plan(prune=True)
    server.schedule_from = lambda deployment_id, start: None  # type: ignore[method-assign]
    was = set(server.runs)
    touched = {change.deployment_id for change in plan.changes}
    kept = {key for key, run in server.runs.items() if run.deployment_id not in touched}
    someone.apply(plan)
    assert {run.id for change in plan.changes for run in change.runs_deleted} == was - set(server.runs)
    assert kept | {run.id for change in plan.changes for run in change.runs_kept} == set(server.runs)


@given(wanted=catalogs(), job=st.sampled_from(JOBS))
@SETTINGS
def test_an_edited_job_changes_only_its_own_deployment(wanted: Catalog, job: str) -> None:
    _, someone = operator(wanted)
    someone.sync()
    jobs = {**wanted.jobs}
    if job in jobs:
        jobs[job] = jobs[job].model_copy(update={"retries": 7})
    someone.catalog = wanted.model_copy(update={"jobs": jobs})
    assert [change.job for change in someone.plan().changes] == [job] * (job in jobs)


def two_jobs(**more: Any) -> Catalog:
    return catalog(
        {"alpha": {"schedules": ["one", "two"], **more}, "beta": {}}, {"one": CADENCES[0], "two": CADENCES[2]}
    )


def test_late_runs_of_a_schedule_that_stays_survive_the_end_of_another() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    stays = someone.ids("alpha")["one"]
    for hours in (5, 3, 0):
        server.schedule_from(someone.deployment("alpha").id, NOON - timedelta(hours=hours))
    was = {run.expected_start for run in server.runs.values() if run.created_by_schedule == stays}
    someone.catalog = two_jobs(schedules=["one"])
    someone.sync()
    assert was <= {run.expected_start for run in server.runs.values()}
    assert {run.created_by_schedule for run in server.runs.values()} == {stays}


def test_a_new_cadence_has_no_slots_in_the_past() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    server.schedule_from(someone.deployment("alpha").id, NOON - timedelta(hours=2))
    someone.catalog = catalog({"alpha": {"schedules": ["new"]}, "beta": {}}, {"new": {"cron": "* * * * *"}})
    someone.sync()
    assert min(run.expected_start for run in server.runs.values() if run.expected_start) > NOON


def test_nothing_is_scheduled_for_a_paused_deployment() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    server.set_by_hand(someone.deployment("alpha").id, paused=True)
    someone.catalog = two_jobs(description="new")
    someone.sync()
    assert someone.plan().empty
    assert not server.runs


def test_a_deployment_whose_parameters_lead_nowhere_was_changed_by_hand() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    server.set_by_hand(someone.deployment("alpha").id, parameters={})
    assert reasons(someone.change("alpha")) == {"parameters": "by hand"}


def test_a_deployment_without_the_tag_of_its_catalog_gets_it_and_nobody_is_said_to_have_changed_it() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    found = someone.deployment("alpha")
    assert "orchctl:tests" in found.tags
    server.set_by_hand(found.id, tags=tuple(each for each in found.tags if each != "orchctl:tests"))
    assert reasons(someone.change("alpha")) == {"tags": "catalog"}
    assert [each.job for each in someone.plan().changes] == ["alpha"]
    someone.sync()
    assert someone.deployment("alpha") == found
    assert someone.plan().empty
    server.set_by_hand(found.id, tags=("orchctl", "orchctl:tests", "theirs"))
    assert reasons(someone.change("alpha")) == {"tags": "by hand"}


def test_a_deployment_of_another_flow_is_in_nobodys_way() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    body = {"name": "alpha", "flow_id": server.create_flow("a-person's"), "work_pool_name": "nobody"}
    theirs = server.create_deployment({**body, "tags": [TAG], "parameters": {"job": "alpha"}})
    was = server.by_id[theirs]
    assert someone.plan(prune=True).empty
    someone.sync(prune=True)
    assert server.by_id[theirs] == was


@pytest.mark.parametrize(
    "mark", [{}, {"tags": [TAG]}, {"tags": [TAG], "labels": {LABEL_CATALOG: "other"}, "parameters": {"job": "old"}}]
)
def test_prune_leaves_what_does_not_carry_our_label(mark: dict[str, Any]) -> None:
    server, someone = operator(two_jobs())
    server.create_pool("nobody", description=None)
    body = {"name": "old", "flow_id": server.create_flow("old"), "work_pool_name": "nobody", **mark}
    theirs = server.create_deployment(body)
    someone.sync(prune=True)
    assert theirs in server.by_id


def test_prune_leaves_another_catalogs_deployment_that_lost_its_label() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    flows = server.deployment("beta", "beta")
    assert flows is not None
    server.set_by_hand(flows.id, labels={})
    someone.catalog = catalog({"alpha": {}}, name="other")
    with pytest.raises(GateRefused, match="belongs to the catalog 'tests'"):
        someone.sync(prune=True)
    someone.catalog = catalog({"omega": {}}, name="other")
    someone.sync(prune=True)
    assert flows.id in server.by_id
    # Even of the same name as one of ours it is not ours.
    someone.catalog = catalog({"beta": {}}, name="other")
    with pytest.raises(GateRefused):
        someone.sync()


def test_a_sync_of_one_job_minds_only_that_job() -> None:
    server, someone = operator(two_jobs())
    someone.sync()
    server.set_by_hand(someone.deployment("beta").id, description="by hand")
    someone.applied = FakeApplied()
    assert someone.sync("alpha").applied == ()
    assert someone.applied.catalogs
    assert [change.job for change in someone.sync("beta").applied] == ["beta"]


def test_a_job_that_nobody_knows_is_named_with_the_nearest() -> None:
    _, someone = operator(two_jobs())
    with pytest.raises(UsageError) as raised:
        someone.plan("alhpa")
    assert raised.value.hint == 'did you mean "alpha"?'


def test_a_stop_says_what_was_done() -> None:
    server, someone = operator(two_jobs())
    server.before = failing_at(4)
    with pytest.raises(PartialFailure, match=r"1 of 2 jobs were synced \(alpha\), beta may be half done, 0 were not"):
        someone.sync()
    server, someone = operator(two_jobs())
    server.before = failing_at(2)
    with pytest.raises(PartialFailure, match="0 of 2 jobs were synced, alpha may be half done, 1 were not") as raised:
        someone.sync()
    assert raised.value.exit_code == ExitCode.PREFECT


def test_ctrl_c_says_what_was_done() -> None:
    def interrupt(call: int) -> None:
        if call == 4:
            raise KeyboardInterrupt

    server, someone = operator(two_jobs())
    server.before = interrupt
    with pytest.raises(Interrupted, match=r"1 of 2 jobs were synced \(alpha\), beta may be half done") as raised:
        someone.sync()
    assert raised.value.hint is not None
    server.before = lambda _: None
    someone.sync()
    assert someone.plan().empty


def run(**fields: Any) -> RemoteRun:
    base: dict[str, Any] = {"id": "r", "name": "n", "deployment_id": "d", "state_type": "SCHEDULED"}
    base |= {"state_name": "Scheduled", "state_message": None, "expected_start": NOON + timedelta(minutes=1)}
    return RemoteRun(**{**base, "auto_scheduled": True, "created_by_schedule": "s", "run_count": 0, **fields})


LATE = {"state_name": "Late", "expected_start": NOON - timedelta(minutes=1)}
ENDS = ScheduleChange("s", "delete", {}, None, "catalog", "s")


@pytest.mark.parametrize(
    ("fields", "update", "ends_schedule", "recreate", "delete"),
    [
        ({}, True, True, True, True),
        (LATE, False, True, False, True),
        ({"auto_scheduled": False}, False, False, False, True),
        ({"state_name": "AwaitingConcurrencySlot"}, False, False, False, False),
        ({"state_name": "AwaitingRetry", "run_count": 1}, False, False, False, False),
        ({"expected_start": None}, False, True, False, True),
    ],
)
def test_which_runs_go(fields: dict[str, Any], update: bool, ends_schedule: bool, recreate: bool, delete: bool) -> None:
    changes = (
        Change("j", "update"),
        Change("j", "update", schedules=(ENDS,)),
        Change("j", "recreate", schedules=(ENDS,)),
        Change("j", "delete"),
    )
    goes = [bool(split_runs([run(**fields)], change, now=NOON)[0]) for change in changes]
    assert goes == [update, ends_schedule, recreate, delete]


@pytest.mark.parametrize("rule", ["dtstart:20250101T000000\nrrule:FREQ=DAILY", "DTSTART:20250101T000000\nFREQ=DAILY"])
def test_a_rule_with_a_start_keeps_it_whatever_its_case(rule: str) -> None:
    assert schedules.with_start(rule) == rule


def test_a_rule_without_a_start_counts_from_2020() -> None:
    assert schedules.with_start(" freq=daily\n") == "DTSTART:20200101T000000\nRRULE:freq=daily"
    assert schedules.with_start("rrule:freq=daily") == "DTSTART:20200101T000000\nrrule:freq=daily"


def test_anchors_are_equal_exactly_if_they_are_the_same_instant() -> None:
    def anchored(anchor: str) -> dict[str, Any]:
        return schedules.canonical({"interval": 90, "anchor_date": anchor, "timezone": None})

    assert anchored("2025-12-19T00:00:00+00:00") == anchored("2025-12-18T19:00:00-05:00") == anchored("2025-12-19")
    assert anchored("2025-12-19T00:00:00.500000Z") == anchored("2025-12-19T00:00:00.5Z")
    assert anchored("2025-12-19T00:00:00.500000Z") != anchored("2025-12-19T00:00:00Z")
