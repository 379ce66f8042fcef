"""`host prune` on a real server: what goes there with a run, and what stays."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from live_runs import ask, deployment_of, finished, log_of, project_in
from orchctl import wiring
from orchctl.core.backfill import TAG
from orchctl.core.retention import Kind
from orchctl.services import prune
from orchctl.services.prune import Pruned
from orchctl.services.prune_ports import World
from orchctl.wiring import prune as parts
from pruning import Host
from support import Live, Project, eventually

LATER = timedelta(days=200)
AGES: dict[Kind, int] = {"history": 100 * 86_400}
GONE = "(jobs without deployment)"


def synced(project: Project, *jobs: str) -> None:
    project.jobs = {job: {"command": [project.script(f"{job}.sh", f"echo {job}; test {job} != bad")]} for job in jobs}
    project.write()
    project.orchctl("sync", "--prune", "--yes")


@contextlib.contextmanager
def later(project: Project) -> Iterator[World]:
    """Yield what pruning works with, 200 days from now: an age is a day at least."""
    app = wiring.App(wiring.Settings.of(project.env()), project.env())
    with app.prefect:
        yield replace(parts.world(app, print), now=datetime.now(UTC) + LATER, sleep=lambda _: None)


def ended(live: Live, job: str, count: int, **options: Any) -> list[str]:
    """Make flow runs that have ended, one after the other, without a worker; return their ids."""
    key, made = deployment_of(live, job).id, []
    with live.api() as api:
        for number in range(count):
            # Not due before it has ended: a worker would take it.
            when, mark = datetime.now(UTC) + timedelta(hours=2), f"{job}-{number}-{options}"
            options.setdefault("parameters", {})
            run = api.create_run(key, idempotency_key=mark, scheduled_for=when, **options)
            api.set_run_state(run.id, type="COMPLETED", force=True)
            made.append(run.id)
    return made


def there(live: Live, *ids: str) -> set[str]:
    with live.api() as api:
        return {run.id for run in api.flow_runs(ids)}


def counts(found: Pruned) -> dict[str, int]:
    assert found.problems == ()
    return {row.job: row.count for row in found.rows}


@pytest.mark.live
def test_history_goes_in_batches_with_all_that_hangs_on_it(live: Live, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with project_in(tmp_path, live) as project, project_in(tmp_path / "other", live) as other:
        synced(project, "much", "bad")
        synced(other, "theirs")
        failed = finished(live, ask(live, "bad").id).id
        of_it = {"artifacts": {"flow_run_id": {"any_": [failed]}}}
        eventually(lambda: log_of(live, failed) and live.request("POST", "/artifacts/filter", of_it))
        much, bad, theirs = ended(live, "much", 55), ended(live, "bad", 1), ended(live, "theirs", 3)
        waiting = ask(live, "much", scheduled_for=datetime.now(UTC) + timedelta(days=3)).id
        every = [*much, *bad, failed, waiting, *theirs]
        with later(project) as world:
            assert counts(prune.look(world, AGES)) == {"much": 54, "bad": 1}
            assert there(live, *every) == set(every)
            assert counts(prune.prune(world, AGES)) == {"much": 54, "bad": 1}
            assert there(live, *every) == {much[-1], *bad, waiting, *theirs}
            assert counts(prune.prune(world, AGES)) == {}
        assert live.request("POST", "/artifacts/filter", of_it) == []
        eventually(lambda: not log_of(live, failed))


@pytest.mark.live
def test_a_backfill_goes_as_a_whole_and_runs_without_deployment_too(live: Live, tmp_path: Path) -> None:
    with project_in(tmp_path, live) as project:
        synced(project, "filled", "gone", "once")
        of = {"parameters": {"backfill": "b"}, "tags": [TAG + "b"], "work_queue": "backfill"}
        filled, single = ended(live, "filled", 3, **of), ended(live, "filled", 2)
        gone, once = ended(live, "gone", 2), ended(live, "once", 1)
        synced(project, "filled")
        with later(project) as world:
            assert counts(prune.look(world, AGES)) == {"filled": 1, GONE: 1}
            assert counts(prune.prune(world, AGES)) == {"filled": 1, GONE: 1}
            assert there(live, *filled, *single, *gone, *once) == {*filled, single[-1], gone[-1], *once}
            folder = project.data_root / "manifests" / "backfills" / "b"
            folder.mkdir(parents=True)
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            (folder / "summary.json").write_text(json.dumps({"finished_at": at, "runs": []}))
            assert counts(prune.look(world, AGES)) == counts(prune.prune(world, AGES)) == {"filled": 3}
        assert there(live, *filled, *single) == {single[-1]}


@pytest.mark.live
def test_a_schedule_of_the_catalog_lets_go_what_its_policy_says(live: Live, tmp_path: Path) -> None:
    host = Host(tmp_path)
    _, *stay = (host.ran(datetime.now(UTC) - timedelta(days=days)).name for days in (200, 150, 1))
    with project_in(tmp_path, live) as project:
        places = [
            "--config",
            str(tmp_path / "config"),
            "--state-dir",
            str(project.state_dir),
            "--api-url",
            live.api_url,
        ]
        command = [sys.executable, "-m", "orchctl", *places, "host", "prune", "--yes"]
        project.schedules["often"] = {"every": "20s"}
        project.jobs = {"job": {"command": ["true"]}, "prune": {"command": command, "schedules": ["often"]}}
        project.write()
        with (tmp_path / "config" / "jobs.toml").open("a") as file:
            file.write('[retention]\nhistory = "90d"\nmanifests = "180d"\n')
        project.orchctl("sync")
        (run, *_) = eventually(lambda: [each for each in runs_of_prune(project) if each["finished_at"]], within=120)
        assert (run["status"], run["trigger"]) == ("success", "schedule")
        assert host.runs() == sorted(stay)
        assert "1 folder of runs removed" in project.orchctl("runs", "logs", run["run_id"]).stdout


def runs_of_prune(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.json("runs", "--since", "1d", "--job", "prune")["runs"]
    return found
