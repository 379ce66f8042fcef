"""Slots that fell due while no worker was there to take them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import live_runs
from live_runs import OwnWorker
from orchctl.core.names import format_instant, parse_instant
from support import Live, Project


def test_late_slots_pile_up_while_the_worker_is_down(live: Live, project: Project, tmp_path: Path) -> None:
    with OwnWorker(live, tmp_path / "worker") as worker:
        project.schedules["minutely"] = {"cron": "* * * * *", "timezone": "UTC"}
        note = project.script("note.sh", "echo $ORCHCTL_SLOT >> $ORCHCTL_JOB.ran")
        for catchup in ("latest", "all"):
            project.jobs[catchup] = {
                "command": [note],
                "schedules": ["minutely"],
                "catchup": catchup,
                "overlap": "queue",
                "work_pool": worker.pool,
            }
        project.write()
        project.orchctl("sync")
        count = {"latest": 6, "all": 2}
        began = live_runs.now()
        with live.api() as api:
            for job, slots in count.items():
                api.schedule_from(live_runs.deployment_of(live, job).id, began - timedelta(minutes=slots))
        live_runs.patch(live, *count, paused=True, concurrency_limit=None)
        rows = {job: due_before(live, job, began) for job in count}
        assert {job: len(found) for job, found in rows.items()} == count
        worker.start()
        for row in [*rows["latest"], *rows["all"]]:
            live_runs.finished(live, row["id"], within=200)
        newest = parse_instant(rows["latest"][-1]["expected_start_time"])
        assert (project.root / "latest.ran").read_text().split() == [format_instant(newest)]
        due = sorted(format_instant(parse_instant(row["expected_start_time"])) for row in rows["all"])
        assert sorted((project.root / "all.ran").read_text().split()) == due
        stale = [run for run in project.json("runs", "--job", "latest")["runs"] if run["status"] == "skipped"]
        assert len(stale) == 5
        assert all(run["reason"].startswith("stale: a later slot") for run in stale)


def due_before(live: Live, job: str, instant: datetime) -> list[dict[str, Any]]:
    return [row for row in live_runs.runs_of(live, job) if parse_instant(row["expected_start_time"]) <= instant]
