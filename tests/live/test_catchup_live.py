"""Slots that fell due while no worker was there to take them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import live_runs
from live_runs import OwnWorker
from orchctl.core.names import format_instant, parse_instant
from support import Live, Project

COUNT = {"latest": 6, "all": 2}


def last_minutes(instants: list[datetime]) -> dict[str, str]:
    """Return a schedule of just these instants, which is silent for most of an hour after them."""
    minutes, hours = ({getattr(instant, part) for instant in instants} for part in ("minute", "hour"))
    return {
        "cron": f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours)))} * * *",
        "timezone": "UTC",
    }


@pytest.mark.campaign
def test_late_slots_pile_up_while_the_worker_is_down(live: Live, project: Project, tmp_path: Path) -> None:
    began = live_runs.now()
    newest = began.replace(second=0, microsecond=0)
    due = {job: [newest - timedelta(minutes=back) for back in range(count)] for job, count in COUNT.items()}
    with OwnWorker(live, tmp_path / "worker") as worker:
        note = project.script("note.sh", "echo $ORCHCTL_SLOT >> $ORCHCTL_JOB.ran")
        for job, slots in due.items():
            project.schedules[job] = last_minutes(slots)
            project.jobs[job] = {
                "command": [note],
                "schedules": [job],
                "catchup": job,
                "work_pool": worker.pool,
            }
        project.write()
        project.orchctl("sync")
        with live.api() as api:
            for job in due:
                api.schedule_from(live_runs.deployment_of(live, job).id, newest - timedelta(minutes=6))
        rows = {job: due_before(live, job, began) for job in due}
        assert {job: len(found) for job, found in rows.items()} == COUNT
        worker.start()
        for row in [*rows["latest"], *rows["all"]]:
            live_runs.finished(live, row["id"], within=150)
    ran = {job: sorted((project.root / f"{job}.ran").read_text().split()) for job in due}
    assert ran == {"latest": [format_instant(newest)], "all": sorted(map(format_instant, due["all"]))}
    stale = [
        run for run in project.json("runs", "--since", "1d", "--job", "latest")["runs"] if run["status"] == "skipped"
    ]
    assert len(stale) == 5
    assert all(run["reason"].startswith("stale: a later slot") for run in stale)


def due_before(live: Live, job: str, instant: datetime) -> list[dict[str, Any]]:
    return [row for row in live_runs.runs_of(live, job) if parse_instant(row["expected_start_time"]) <= instant]
