"""Prefect's part of a handover on a real server with a real worker: what is cleared is never run, what is opened is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import live_runs
from handover_fakes import next_slot
from live_runs import OwnWorker
from orchctl.adapters.owners import Owners
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.names import format_instant
from orchctl.core.slots import Owner
from orchctl.services.prefect_side import PrefectSide
from support import Live, Project, eventually
from syncing import Wire

KINDS = ("Late", "Pending", "AwaitingConcurrencySlot", "AwaitingRetry")
A_WORKERS_LOOK_S = 14.0
"""A worker asks for runs every few seconds, and begins one within a few more."""


@pytest.fixture(scope="module")
def own(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnWorker]:
    with OwnWorker(live, tmp_path_factory.mktemp("own")) as worker:
        yield worker


@pytest.fixture
def api(live: Live) -> Iterator[PrefectApi]:
    with live.api() as api:
        yield api


@pytest.fixture
def side(api: PrefectApi, project: Project) -> PrefectSide:
    return PrefectSide(api, project.name, live_runs.now, time.monotonic, time.sleep)


def synced(project: Project, pool: str, name: str = "job", *, script: str = "", **more: Any) -> None:
    """Sync a job that writes a line for each execution."""
    ran = project.root / "ran"
    command = [project.script(f"{name}.sh", f'echo "$ORCHCTL_SLOT" >> {ran}\n{script}')]
    project.jobs[name] = {"command": command, "work_pool": pool, **more}
    project.write()
    project.orchctl("sync")


def executions(project: Project) -> list[str]:
    path = project.root / "ran"
    return path.read_text().splitlines() if path.exists() else []


def propose(api: PrefectApi, run: str, kind: str) -> str:
    """Propose a state as a worker does; return the server's answer."""
    body = {"state": {"type": kind, "name": kind.title()}, "force": False}
    status: str = api.request("POST", f"/flow_runs/{run}/set_state", body)["status"]
    return status


def states(live: Live, job: str = "job") -> list[str]:
    return [row["state_name"] for row in live_runs.runs_of(live, job)]


def make(live: Live, project: Project, own: OwnWorker, api: PrefectApi, kind: str) -> None:
    """Make a run that stands in a state of this name, as it comes about; no worker runs then."""
    if kind == "AwaitingRetry":
        own.start()
        synced(project, own.pool, script="exit 1", retries=1, retry_delay="3s")
        live_runs.ask(live, "job")
        eventually(lambda: states(live) == [kind], within=60, poll=0.05)
        own._stack.stop(own._name, patience_s=10)
        return
    if kind == "Late":
        project.schedules["hourly"] = {"cron": "0 * * * *"}
        synced(project, own.pool, schedules=["hourly"], catchup="all", catchup_window="1d")
        api.schedule_from(live_runs.deployment_of(live, "job").id, live_runs.now() - timedelta(hours=2))
    else:
        synced(project, own.pool, overlap="queue")
        # Without the places that it has for backfills.
        live_runs.patch(live, "job", concurrency_limit=1)
        first = live_runs.ask(live, "job")
        assert propose(api, first.id, "PENDING") == "ACCEPT"
    if kind == "AwaitingConcurrencySlot":
        second = live_runs.ask(live, "job")
        assert propose(api, second.id, "PENDING") == "REJECT"
    eventually(lambda: kind in states(live), within=60)


@pytest.mark.parametrize("kind", KINDS)
def test_what_waits_is_cleared_and_no_worker_takes_it_any_more(
    live: Live, project: Project, own: OwnWorker, api: PrefectApi, side: PrefectSide, kind: str
) -> None:
    make(live, project, own, api, kind)
    before = executions(project)
    waiting = len(api.waiting_runs([live_runs.deployment_of(live, "job").id]))
    assert waiting > 0
    assert not side.is_clear("job")
    assert side.clear("job") == waiting
    assert side.is_clear("job")
    assert side.clear("job") == 0
    with own.start():
        time.sleep(A_WORKERS_LOOK_S)
    assert executions(project) == before
    assert side.is_clear("job")


def test_a_mere_pause_lets_a_worker_run_what_is_late(
    live: Live, project: Project, own: OwnWorker, api: PrefectApi, side: PrefectSide
) -> None:
    """The control of the test above."""
    make(live, project, own, api, "Late")
    api.update_deployment(live_runs.deployment_of(live, "job").id, {"paused": True})
    assert side.is_paused("job")
    assert not side.is_clear("job")
    with own.start():
        eventually(lambda: executions(project), within=60)


def test_what_is_cleared_holds_no_slot_of_the_deployments_limit(
    live: Live, project: Project, own: OwnWorker, api: PrefectApi, side: PrefectSide
) -> None:
    make(live, project, own, api, "AwaitingConcurrencySlot")
    assert side.clear("job") == 2
    next_one = live_runs.ask(live, "job")
    assert propose(api, next_one.id, "PENDING") == "ACCEPT"


@pytest.mark.campaign
def test_a_worker_that_asks_meanwhile_begins_nothing_after_the_clearing(
    live: Live, project: Project, own: OwnWorker, side: PrefectSide
) -> None:
    project.schedules["often"] = {"every": "1s"}
    project.defaults["timeout"] = "1m"
    synced(project, own.pool, schedules=["often"], catchup="all", catchup_window="1h", script="sleep 3")
    with own.start():
        eventually(lambda: "Running" in states(live) and "Pending" in states(live), within=90, poll=0.05)
        assert side.clear("job") > 0
        cleared = datetime.now(UTC)
        assert side.is_clear("job")
        time.sleep(A_WORKERS_LOOK_S)
        eventually(lambda: "Running" not in states(live))
        rows = live_runs.runs_of(live, "job")
    begun = [datetime.fromisoformat(row["start_time"]) for row in rows if row["start_time"]]
    assert begun
    assert max(begun) < cleared
    assert {row["state_type"] for row in rows} <= {"COMPLETED", "CANCELLED"}
    assert side.is_clear("job")


# --- opening up


def test_to_open_up_lets_runs_be_made_at_once_and_leaves_what_is_paused_by_hand(
    live: Live, project: Project, api: PrefectApi, side: PrefectSide
) -> None:
    project.schedules |= {"minutely": {"cron": "* * * * *"}, "hourly": {"cron": "30 * * * *"}}
    synced(project, "tests", schedules=["minutely", "hourly"])
    deployment = live_runs.deployment_of(live, "job")
    hourly = next(each.id for each in deployment.schedules if each.slug == "hourly")
    api.request("PATCH", f"/deployments/{deployment.id}/schedules/{hourly}", {"active": False})
    side.clear("job")
    assert (side.is_paused("job"), side.is_scheduled("job"), next_slot(side, "job")) == (True, False, None)
    side.open_up("job")
    assert (side.is_paused("job"), side.is_scheduled("job")) == (False, True)
    slot = next_slot(side, "job")
    assert slot is not None
    assert timedelta() < slot - live_runs.now() <= timedelta(minutes=1)
    assert {each.slug: each.active for each in live_runs.deployment_of(live, "job").schedules} == {
        "minutely": True,
        "hourly": False,
    }
    side.pause("job")
    assert side.is_paused("job")


def test_a_run_taken_ahead_of_its_slot_does_not_cost_the_slot_at_the_next_cutover(
    live: Live, project: Project, own: OwnWorker, api: PrefectApi, side: PrefectSide
) -> None:
    project.schedules["hourly"] = {"cron": "0 * * * *"}
    synced(project, own.pool, schedules=["hourly"])
    slot = eventually(lambda: next_slot(side, "job"))
    (taken,) = (
        run for run in api.waiting_runs([live_runs.deployment_of(live, "job").id]) if run.expected_start == slot
    )
    api.set_run_state(taken.id, type="PENDING", force=True)
    side.clear("job")
    side.open_up("job")
    assert next_slot(side, "job") == slot


# --- catching up


def test_a_granted_slot_is_run_once_and_another_is_not(live: Live, project: Project, side: PrefectSide) -> None:
    slot = live_runs.now().replace(second=0, microsecond=0) - timedelta(minutes=30)
    line = f"0 0 1 1 * true # {uuid.uuid4().hex}"
    synced(project, "tests", legacy=[{"cron": line, "user": "root"}], catchup="all", catchup_window="2h")
    Owners(project.state_dir).create("job", Owner(live_runs.now(), draining=False, granted=(slot,)), still=lambda: True)
    (granted,) = side.catch_up("job", [slot])
    (other,) = side.catch_up("job", [slot - timedelta(minutes=1)])
    assert side.catch_up("job", [slot]) == (granted,)
    assert live_runs.finished(live, granted).state_name == "Completed"
    assert live_runs.finished(live, other).state_name == "Observed"
    assert executions(project) == [format_instant(slot)]
    (run,) = (row for row in live_runs.runs_of(live, "job") if row["id"] == granted)
    assert "orchctl-catchup" in run["tags"]
    assert project.manifest(run["name"])["trigger"] == "catchup"


def test_a_killed_client_leaves_what_the_next_one_finishes(
    live: Live, project: Project, own: OwnWorker, api: PrefectApi, side: PrefectSide
) -> None:
    """Each process dies at one writing call more than the one before, until one lives."""
    make(live, project, own, api, "AwaitingConcurrencySlot")
    wire = Wire()
    died = 0

    def cut(number: int | None, _request: httpx.Request) -> None:
        if number == died:
            raise KeyboardInterrupt

    with PrefectApi(url=live.api_url, transport=wire) as dying:
        while True:
            wire.heal()
            wire.before = cut
            try:
                PrefectSide(dying, project.name, live_runs.now, time.monotonic, time.sleep).clear("job")
            except KeyboardInterrupt:
                died += 1
                assert not side.is_clear("job")
                continue
            break
    assert died == 3
    assert side.is_clear("job")
