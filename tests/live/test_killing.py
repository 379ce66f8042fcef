"""Whatever is killed and however, the command ends or keeps its lock, and every record says which.

Each command here ignores SIGTERM, and so does a grandchild in a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import live_runs
from live_runs import Marked, OwnWorker
from orchctl.adapters import host_facts
from orchctl.core.names import format_instant, parse_instant
from support import Live, Project, eventually

KILL_AFTER_S = 1.0
A_FEW_S = 5.0
STUBBORN = """#!/bin/bash
trap '' TERM
(setsid bash -c 'trap "" TERM; sleep 99.5 & wait; sleep 99.5') &
echo "i am $$"
while :; do sleep 0.2; done
"""


@pytest.fixture(scope="module")
def own(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnWorker]:
    """A worker that every test may kill; `start` it first."""
    with OwnWorker(live, tmp_path_factory.mktemp("own")) as worker:
        yield worker


@pytest.fixture
def mark() -> Iterator[Marked]:
    with live_runs.marked() as mark:
        yield mark


@dataclass(frozen=True)
class Going:
    """A run whose command is going."""

    run_id: str
    flow_run_id: str
    flow_pid: int


def stubborn(project: Project, mark: Marked, *, script: str = STUBBORN, **job: Any) -> dict[str, Any]:
    command = [project.script(f"{abs(hash(script))}.sh", script)]
    return {"command": command, "env": mark.env(), "kill_after": f"{KILL_AFTER_S:.0f}s", **job}


def begin(project: Project, name: str = "job") -> Going:
    run = project.json("run", name)
    eventually(lambda: live_runs.attempt_log(project, run["run_id"]))
    place = project.manifest(run["run_id"])["environment"]
    return Going(run["run_id"], run["flow_run_id"], place["pid"])


def none_survive(mark: Marked) -> None:
    eventually(lambda: not mark.pids(), within=KILL_AFTER_S + A_FEW_S, poll=0.1)


def status(project: Project, run: Going) -> str:
    return str(project.manifest(run.run_id)["status"])


@dataclass(frozen=True)
class Three:
    """Three stubborn jobs of the shared worker at once: one timed out, one cancelled, one without its process."""

    project: Project
    runs: dict[str, Going]
    marks: dict[str, Marked]


@pytest.fixture(scope="module")
def three(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with contextlib.ExitStack() as stack:
        project = stack.enter_context(live_runs.project_in(tmp_path_factory.mktemp("three"), live))
        marks = {name: stack.enter_context(live_runs.marked()) for name in ("slow", "cancelled", "killed")}
        for name, mark in marks.items():
            project.jobs[name] = stubborn(project, mark, **({"timeout": "2s"} if name == "slow" else {}))
        project.write()
        project.orchctl("sync")
        asked = {name: project.json("run", name) for name in marks}
        eventually(lambda: all(live_runs.attempt_log(project, run["run_id"]) for run in asked.values()))
        pids = {name: project.manifest(run["run_id"])["environment"]["pid"] for name, run in asked.items()}
        runs = {name: Going(run["run_id"], run["flow_run_id"], pids[name]) for name, run in asked.items()}
        live_runs.cancel(live, runs["cancelled"].flow_run_id)
        os.kill(runs["killed"].flow_pid, signal.SIGKILL)
        for name in ("cancelled", "killed"):
            none_survive(marks[name])
        yield Three(project, runs, marks)


def test_a_time_out(live: Live, three: Three) -> None:
    run = three.runs["slow"]
    end = live_runs.finished(live, run.flow_run_id)
    assert three.marks["slow"].pids() == []
    assert (end.state_type, end.state_name) == ("FAILED", "Failed")
    assert "time-out of 2" in (end.state_message or "")
    manifest = three.project.manifest(run.run_id)
    assert (manifest["status"], manifest["error"]["type"], manifest["signal"]) == ("failed", "TimedOut", "SIGKILL")
    assert 2 + KILL_AFTER_S <= manifest["timing"]["duration_s"] < 60  # its command would never end


def test_a_cancel_from_the_api(live: Live, three: Three) -> None:
    run = three.runs["cancelled"]
    end = live_runs.finished(live, run.flow_run_id)
    assert (end.state_type, end.state_name) == ("CANCELLED", "Cancelled")
    assert status(three.project, run) == "cancelled"
    assert live_runs.line_of(three.project, run.run_id)["status"] == "cancelled"


def test_sigkill_to_the_flow_process_alone(live: Live, three: Three) -> None:
    """As when memory runs out: Prefect calls it crashed, and no command goes on without anybody to watch it."""
    run = three.runs["killed"]
    assert live_runs.finished(live, run.flow_run_id).state_type == "CRASHED"
    assert live_runs.line_of(three.project, run.run_id)["status"] == "crashed"
    eventually(lambda: status(three.project, run) == "crashed", within=20)
    error = three.project.manifest(run.run_id)["error"]
    assert error["type"] == "Crashed"
    assert error["snippet"].startswith("i am ")


def test_sigterm_to_the_worker(live: Live, project: Project, mark: Marked, own: OwnWorker) -> None:
    own.start()
    project.jobs["job"] = stubborn(project, mark, work_pool=own.pool)
    project.write()
    project.orchctl("sync")
    run = begin(project)
    assert len(mark.pids()) >= 3
    own.signal(signal.SIGTERM)
    # A worker first takes leave of the server, which may be busy.
    eventually(lambda: host_facts.started_ticks(run.flow_pid) is None, within=15, poll=0.05)
    none_survive(mark)
    end = live_runs.finished(live, run.flow_run_id, within=15)
    assert (end.state_type, end.state_message) == (
        "CANCELLED",
        "its worker was stopped; nothing of the command runs on",
    )
    manifest = project.manifest(run.run_id)
    assert (manifest["status"], manifest["reason"]) == ("cancelled", "its worker was stopped")
    assert [attempt["status"] for attempt in manifest["attempts"]] == ["cancelled"]
    assert live_runs.line_of(project, run.run_id)["status"] == "cancelled"
    assert own.is_gone()


def test_a_run_that_had_not_begun_goes_back_to_prefect(
    live: Live, project: Project, mark: Marked, own: OwnWorker
) -> None:
    own.start()
    project.jobs["early"] = {"command": [project.script("ok.sh", "echo ok")], "work_pool": own.pool}
    project.write()
    project.orchctl("sync")
    slot = (live_runs.now() + timedelta(seconds=20)).replace(microsecond=0)
    run = live_runs.ask(live, "early", parameters={"slot": format_instant(slot)})
    eventually(lambda: live_runs.flow_run(live, run.id).state_type == "RUNNING")
    # The name is the last thing set before the run waits for its slot.
    name = eventually(lambda: (n := live_runs.flow_run(live, run.id).name) != run.name and n)
    time.sleep(1)
    own.signal(signal.SIGTERM)
    eventually(lambda: live_runs.flow_run(live, run.id).state_type == "SCHEDULED", within=30)
    assert not list(project.data_root.glob("manifests/early/**/manifest.json"))
    own.start()
    assert live_runs.finished(live, run.id).state_type == "COMPLETED"
    manifest = project.manifest(name)
    assert (manifest["status"], manifest["slot"]) == ("success", format_instant(slot))
    assert parse_instant(manifest["timing"]["started_at"]) >= slot


def test_sigkill_to_the_worker_alone_hurts_no_run(live: Live, project: Project, mark: Marked, own: OwnWorker) -> None:
    own.start()
    project.jobs["job"] = stubborn(project, mark, script="echo begun; sleep 4; echo ended", work_pool=own.pool)
    project.write()
    project.orchctl("sync")
    run = begin(project)
    own.signal(signal.SIGKILL)
    end = live_runs.finished(live, run.flow_run_id)
    assert end.state_type == "COMPLETED"
    assert status(project, run) == "success"
    assert live_runs.attempt_log(project, run.run_id) == "begun\nended\n"


@pytest.mark.campaign
def test_sigkill_to_worker_and_flow_process(live: Live, project: Project, mark: Marked, own: OwnWorker) -> None:
    own.start()
    project.jobs["job"] = stubborn(project, mark, work_pool=own.pool)
    project.write()
    project.orchctl("sync")
    run = begin(project)
    before = mark.pids()
    own.signal(signal.SIGKILL)
    os.kill(run.flow_pid, signal.SIGKILL)
    end = live_runs.finished(live, run.flow_run_id, within=15)
    assert end.state_type == "CRASHED"
    assert "may still run" in (end.state_message or "")
    assert live_runs.line_of(project, run.run_id)["status"] == "crashed"

    own.start()
    second = project.json("run", "job")
    assert live_runs.finished(live, second["flow_run_id"]).state_name == "Skipped"
    assert set(before) & set(mark.pids())
    skipped = live_runs.line_of(project, second["run_id"])
    assert (skipped["status"], run.run_id in skipped["reason"]) == ("skipped", True)

    mark.end()
    project.script(Path(project.jobs["job"]["command"][0]).name, "echo fine")
    third = project.json("run", "job")
    assert live_runs.finished(live, third["flow_run_id"]).state_type == "COMPLETED"
    assert live_runs.line_of(project, third["run_id"])["status"] == "success"
