"""A run that a worker took and lost is put back on the real server, and the next worker runs it once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import live_runs
from live_runs import OwnWorker
from orchctl.adapters import host_facts
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.manifests import Manifests
from orchctl.services import strays
from support import Live, Project


@pytest.fixture
def own(live: Live, tmp_path: Path) -> Iterator[OwnWorker]:
    with OwnWorker(live, tmp_path / "own") as worker:
        yield worker


def test_what_a_worker_took_and_lost_is_run_by_the_next_one(live: Live, project: Project, own: OwnWorker) -> None:
    project.jobs["job"] = {"command": [project.script("job.sh", "echo once")], "work_pool": own.pool}
    project.write()
    project.orchctl("sync")
    taken = {kind: live_runs.ask(live, "job").id for kind in ("PENDING", "RUNNING", "CANCELLING")}
    name = LocalStack.worker_name(own.pool)
    with live.api() as api:
        for kind, id in taken.items():  # noqa: A001 - the word of the domain
            # A worker writes its name on a run after it took it: one that is killed in between has not.
            if kind != "PENDING":
                live.request("PATCH", f"/flow_runs/{id}/labels", {"prefect.worker.name": name})
            for state in ("RUNNING", kind) if kind == "CANCELLING" else (kind,):
                api.set_run_state(id, type=state, force=True)
        applied = AppliedCatalogs(project.state_dir)
        world = strays.World(api, applied, Manifests, host_facts.flow_runs_here, lambda: datetime.now(UTC))
        # As long as a worker that goes on may be about to begin it, a run is left alone.
        assert strays.put_back(world, own.pool, name, stopped=False) == ()
        found = {each.flow_run_id: each.type for each in strays.put_back(world, own.pool, name, stopped=True)}
        assert found == {
            taken["PENDING"]: "SCHEDULED",
            taken["RUNNING"]: "SCHEDULED",
            taken["CANCELLING"]: "CANCELLED",
        }
        assert strays.put_back(world, own.pool, name, stopped=True) == ()
    own.start()
    for kind in ("PENDING", "RUNNING"):
        assert live_runs.finished(live, taken[kind]).state_type == "COMPLETED"
    assert live_runs.flow_run(live, taken["CANCELLING"]).state_type == "CANCELLED"
    assert len(project.json("runs", "--since", "1d")["runs"]) == 2
