"""The example pipeline on a real server and worker: its demo, and the way back to one command."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import example_pipeline
from example_pipeline import AS_OF, DAY, published
from orchctl.adapters.owners import Owners
from orchctl.core.slots import Owner
from support import POOL, Live, Project, clean_env

JOB = "live-score"


@pytest.fixture
def example(project: Project) -> Project:
    """The example in a project of the test's server, with a schedule that is not due soon."""
    example_pipeline.set_up(project.root)
    edit(project, "jobs.toml", ('name = "projections-example"', f'name = "{project.name}"'))
    edit(project, "jobs.toml", ('work_pool = "projections-example"', f'work_pool = "{POOL}"'))
    edit(project, "jobs.toml", ("# schedules = ", "schedules = "))
    edit(project, "schedules.toml", ('cron = "*/5 8-23 * * *"', 'cron = "0 0 1 1 *"'))
    return project


def edit(project: Project, name: str, change: tuple[str, str]) -> None:
    path = project.root / "config" / name
    text = path.read_text()
    assert text.count(change[0]) == 1
    path.write_text(text.replace(*change))


def score(project: Project) -> dict[str, Any]:
    project.orchctl("run", JOB, "--date", DAY, "--as-of", AS_OF, "--wait", timeout=300)
    run: dict[str, Any] = project.json("runs", "--since", "1h")["runs"][-1]
    return run


def seen(live: Live, project: Project) -> dict[str, Any]:
    """Return what must stay as it is: the deployment, its schedules, who owns the job, what ran."""
    with live.api() as api:
        (deployment,) = (
            each
            for each in api.deployments(names=(), tag="orchctl")
            if each.labels.get("orchctl.catalog") == project.name
        )
    owner = project.state_dir / "owners" / f"{JOB}.json"
    return {
        "deployment": deployment.id,
        "schedules": [(each.id, each.slug, each.schedule, each.active) for each in deployment.schedules],
        "paused": deployment.paused,
        "owner": (owner.read_bytes(), owner.stat().st_mtime_ns),
        "runs": [run["run_id"] for run in project.json("runs", "--since", "1h")["runs"]],
    }


@pytest.mark.campaign
def test_going_back_to_one_command_is_one_edit_and_one_sync(live: Live, example: Project) -> None:
    Owners(example.state_dir).replace(JOB, Owner(datetime(2025, 1, 1, tzinfo=UTC), draining=False))
    example.orchctl("sync")
    steps = score(example)
    before = seen(live, example)
    edit(example, "jobs.toml", ('execution = "steps"', 'execution = "command"'))
    example.orchctl("plan", check=3)
    example.orchctl("sync")
    assert seen(live, example) == before
    assert "no changes" in example.orchctl("plan").stdout
    command = score(example)
    after = seen(live, example)
    assert after["runs"] == [steps["run_id"], command["run_id"]]
    assert {key: after[key] for key in after if key != "runs"} == {key: before[key] for key in before if key != "runs"}
    executions = [example.json("runs", "show", run["run_id"])["manifest"]["execution"] for run in (steps, command)]
    assert executions == ["steps", "command"]
    files = [published(example.root, run["run_id"]) for run in (steps, command)]
    assert files[0] == files[1]
    assert len(files[0]) == 9


@pytest.mark.campaign
def test_the_demo_of_steps_plays_to_its_end_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchctl", "demo", "--steps"],
        env={**clean_env(), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr}"
    assert "Both have published 9 files, and every byte of them is the same." in done.stdout
    assert "contract broken: rates.features_live: missing column season_fg2_pct; 3 of " in done.stdout
    assert re.search(r"3 attempted, 3 succeeded, 0 failed", done.stdout)
    assert done.stdout.rstrip().endswith("All as it should be; everything is stopped and removed.")
    assert not list(tmp_path.glob("orchctl-demo-*"))
