"""What a sync does to scheduled runs: the plan says which go, and no slot is lost or doubled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import catalog
from orchctl.core.catalog import Catalog
from orchctl.core.remote import RemoteRun
from support import Live
from syncing import Site, site

JOB = "running"
HOURLY = {"cron": "0 * * * *"}
YEARLY = {"cron": "0 5 1 1 *"}


def wanted(*slugs: str, description: str = "", **tables: dict[str, Any]) -> Catalog:
    return catalog(
        {JOB: {"schedules": list(slugs), "description": description}}, {"one": HOURLY, "two": YEARLY, **tables}
    )


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def here(live: Live, tmp_path: Path) -> Iterator[Site]:
    """An operator whose job has late runs of two hours, waiting ones of every kind, and runs ahead."""
    with site(live.api_url, tmp_path / "state", wanted("one", "two")) as made:
        made.sync()
        yield made


class Kinds(dict[str, str]):
    """The kind of each run by id. Those made later are Prefect's own: its scheduler does not stop for tests."""

    def __missing__(self, key: str) -> str:
        return "ahead"


def wait_in_every_way(here: Site) -> Kinds:
    """Make runs of every kind that can wait."""
    key = here.deployment(JOB).id
    here.api.schedule_from(key, this_hour() - timedelta(hours=3))
    here.api.schedule_from(key, this_hour())
    runs = here.runs(JOB)
    by_slot = {run.expected_start: run.id for run in runs}
    kinds = Kinds({run.id: "ahead" if _ahead(run) else "late" for run in runs})
    for state, hours in (("Late", -3), ("AwaitingConcurrencySlot", -2), ("AwaitingRetry", -1), ("Pending", 0)):
        run = by_slot[this_hour() + timedelta(hours=hours)]
        if state == "AwaitingRetry":
            # Only a run that has begun waits for a retry.
            here.api.set_run_state(run, type="RUNNING", force=True)
        kind = "PENDING" if state == "Pending" else "SCHEDULED"
        here.api.set_run_state(run, type=kind, name=state, force=True)
        kinds[run] = state
    for name, slot in (("by hand, late", -1), ("by hand, ahead", 24)):
        moment = datetime.now(UTC) + timedelta(hours=slot)
        made = here.api.create_run(key, parameters={}, idempotency_key=name, scheduled_for=moment)
        kinds[made.id] = name
    return kinds


def _ahead(run: RemoteRun) -> bool:
    return run.expected_start is not None and run.expected_start > datetime.now(UTC)


def slots(runs: list[RemoteRun]) -> Counter[datetime | None]:
    return Counter(run.expected_start for run in runs if run.auto_scheduled)


KEPT = {"Late", "AwaitingConcurrencySlot", "AwaitingRetry", "Pending", "by hand, late", "by hand, ahead"}


@pytest.mark.parametrize(
    ("change", "stay"),
    [
        (wanted("one", "two", description="new"), KEPT),
        (wanted("one", "two", one={"cron": "0,30 * * * *"}), KEPT),
        (wanted("one", "two", "three", three={"cron": "7 * * * *"}), KEPT),
        (wanted("one"), KEPT - {"Late"}),
    ],
    ids=["a field", "a schedule", "one more schedule", "one schedule less"],
)
def test_the_plan_lists_exactly_the_runs_that_go_and_stay(here: Site, change: Catalog, stay: set[str]) -> None:
    kinds = wait_in_every_way(here)
    here.catalog = change
    planned = here.change(JOB)
    assert {kinds[run.id] for run in planned.runs_kept} == stay - {"Pending"}
    assert {kinds[run.id] for run in planned.runs_deleted} == set(kinds.values()) - stay
    here.sync()
    left = {run.id for run in here.runs(JOB)}
    assert {run.id for run in planned.runs_kept} <= left
    assert not {run.id for run in planned.runs_deleted} & left
    assert {kinds[key] for key in left & set(kinds)} == stay


def test_the_end_of_a_schedule_loses_no_late_run_of_another(here: Site) -> None:
    key = here.deployment(JOB).id
    for hours in (7, 4, 1):
        here.api.schedule_from(key, this_hour() - timedelta(hours=hours))
    was = slots([run for run in here.runs(JOB) if not _ahead(run)])
    assert len(was) == 8
    here.catalog = wanted("one", "three", three={"cron": "30 5 1 1 *"})
    here.sync()
    runs = here.runs(JOB)
    assert slots([run for run in runs if not _ahead(run)]) == was
    assert any(_ahead(run) for run in runs)
    assert {run.created_by_schedule for run in runs} == set(here.ids(JOB).values())


def test_a_new_cadence_gets_no_slots_in_the_past(here: Site) -> None:
    here.api.schedule_from(here.deployment(JOB).id, this_hour() - timedelta(hours=3))
    begun = datetime.now(UTC)
    here.catalog = wanted("three", three={"cron": "* * * * *"})
    here.sync()
    ids = here.ids(JOB)
    new = [run.expected_start for run in here.runs(JOB) if run.created_by_schedule == ids["three"]]
    assert new
    assert all(slot is not None and slot > begun for slot in new)


@pytest.mark.parametrize("gone", ["labels", "description"])
def test_runs_are_ahead_again_right_after_a_sync(here: Site, gone: str) -> None:
    here.api.schedule_from(here.deployment(JOB).id, datetime.now(UTC))
    was = slots(here.runs(JOB))
    if gone == "labels":
        found = here.deployment(JOB)
        body = {"name": JOB, "flow_id": found.flow_id, "tags": ["orchctl"], "parameters": dict(found.parameters)}
        schedules = [{"slug": e.slug, "schedule": dict(e.schedule), "active": True} for e in found.schedules]
        here.by_hand("POST", "/deployments/", {**body, "work_pool_name": "nobody", "schedules": schedules})
    here.catalog = wanted("one", "two", description="new")
    here.sync()
    now = slots(here.runs(JOB))
    assert {slot: now[slot] for slot in was} == was


def test_a_pruned_deployment_takes_its_waiting_runs_along(here: Site) -> None:
    kinds = wait_in_every_way(here)
    here.names.add(JOB)
    here.catalog = catalog({})
    (planned,) = here.plan(prune=True).changes
    stay = {"AwaitingConcurrencySlot", "AwaitingRetry"}
    assert {kinds[run.id] for run in planned.runs_kept} == stay
    assert {kinds[run.id] for run in planned.runs_deleted} == set(kinds.values()) - stay - {"Pending"}
    here.sync(prune=True)
    assert here.prefect.deployment(JOB, JOB) is None
    left = here.api.flow_runs(list(kinds))
    assert {kinds[run.id] for run in left} == stay | {"Pending"}


def test_ten_changes_across_slots_lose_and_double_none(here: Site) -> None:
    two = {"fast": {"every": "2s"}, "minute": {"cron": "* * * * *"}}
    here.catalog = catalog({JOB: {"schedules": list(two)}}, two)
    here.sync()
    here.api.schedule_from(here.deployment(JOB).id, datetime.now(UTC))
    ids = here.ids(JOB)
    first = min(slot for slot in slots(here.runs(JOB)) if slot is not None)
    if datetime.now(UTC).second < 55:
        time.sleep(55 - datetime.now(UTC).second)
    for number in range(10):
        here.catalog = catalog({JOB: {"schedules": list(two), "description": f"change {number}"}}, two)
        here.sync()
        time.sleep(0.3)
    assert here.ids(JOB) == ids
    runs = here.runs(JOB)
    now = datetime.now(UTC)
    for slug, step in (("fast", timedelta(seconds=2)), ("minute", timedelta(minutes=1))):
        found = [run.expected_start for run in runs if run.created_by_schedule == ids[slug]]
        past = [slot for slot in found if slot is not None and slot <= now]
        # The scheduler's own runs of the fast schedule end 200 s after the start.
        begin = first if slug == "fast" else past[0]
        assert past == [begin + step * number for number in range(1 + (now - begin) // step)]
        assert len(found) > len(past)
    assert now.replace(second=0, microsecond=0) in {run.expected_start for run in runs}
