"""A job's steps under a real Prefect: tasks with states and logs of their own, retries, limits, resuming, both ways."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from live_runs import OwnWorker, ask, cancel, deployment_of, finished, flow_run, marked, runs_of
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteRun
from support import Live, Project, eventually

pytestmark = pytest.mark.live


def step(project: Project, name: str, line: str = "true", **fields: Any) -> dict[str, Any]:
    """Return a step that writes down its start and its end; `line` is what it does in between."""
    log = project.root / "steps.log"
    text = f'echo "start {name}" >> {log}; ({line}); code=$?; echo "end {name}" >> {log}; exit $code'
    return {"name": name, "command": ["sh", "-c", text.replace("{", "{{").replace("}", "}}")], **fields}


def write(project: Project, *steps: dict[str, Any], **fields: Any) -> None:
    project.jobs["dag"] = {"execution": "steps", "command": ["true"], "steps": list(steps), "timeout": "2m", **fields}
    project.write()
    project.orchctl("sync")


def began(project: Project) -> list[str]:
    path = project.root / "steps.log"
    return [line[6:] for line in path.read_text().splitlines() if line.startswith("start ")] if path.exists() else []


def tasks_of(live: Live, flow_run_id: str) -> dict[str, dict[str, Any]]:
    """Return Prefect's task runs of a flow run by name; the newest of each, and `all` of them counted by name."""
    body = {"task_runs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    rows = live.request("POST", "/task_runs/filter", body)
    return {row["name"]: row for row in rows}


def states_of(live: Live, flow_run_id: str) -> dict[str, str]:
    """Return the names of the states of task runs; Prefect 3.9 has some without a state, for a moment."""
    return {name: row["state"]["name"] for name, row in tasks_of(live, flow_run_id).items() if row["state"]}


def task_log(live: Live, task_run_id: str) -> list[str]:
    body = {"logs": {"task_run_id": {"any_": [task_run_id]}}, "sort": "TIMESTAMP_ASC"}
    return [row["message"] for row in live.request("POST", "/logs/filter", body)]


def own_id(run: RemoteRun) -> str:
    assert run.expected_start is not None
    return run_id(run.expected_start, run.id)


def job_manifest(project: Project, run: RemoteRun) -> dict[str, Any]:
    (path,) = project.data_root.glob(f"manifests/dag/game_date=*/run={own_id(run)}/manifest.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def statuses(project: Project, run: RemoteRun) -> dict[str, str]:
    return {row["name"]: row["status"] for row in job_manifest(project, run)["steps"]}


def test_steps_are_tasks_with_states_retries_and_logs_of_their_own(live: Live, project: Project) -> None:
    once = project.root / "once"
    write(
        project,
        step(project, "first", "echo said by first"),
        step(
            project, "again", f"test -e {once} || (touch {once}; exit 4)", after=["first"], retries=2, retry_delay="1s"
        ),
        step(project, "bad.one", "echo no such column; exit 65", after=["first"], retries=5),
        step(project, "child", after=["bad.one"]),
        step(project, "warns", "exit 1", optional=True),
    )
    run = finished(live, ask(live, "dag").id)
    assert (run.state_type, run.run_count) == ("FAILED", 1)
    assert statuses(project, run) == {
        "first": "success", "again": "success", "bad.one": "failed", "child": "skipped", "warns": "warned",
    }  # fmt: skip
    wanted = {"first": "Completed", "again": "Completed", "bad.one": "Failed", "child": "Skipped", "warns": "Failed"}
    eventually(lambda: states_of(live, run.id) == wanted, within=30)
    tasks = tasks_of(live, run.id)
    assert {name: row["run_count"] for name, row in tasks.items()} == {**dict.fromkeys(wanted, 1), "again": 2}
    assert tasks["child"]["state"]["message"] == "upstream failed: bad.one"
    assert tasks["bad.one"]["state"]["message"] == "exit code 65"
    eventually(lambda: "said by first" in task_log(live, tasks["first"]["id"]), within=30)
    assert "said by first" not in task_log(live, tasks["again"]["id"])
    assert run.state_message is not None
    assert "step bad.one failed: exit code 65" in run.state_message


def test_a_retry_of_a_run_runs_only_what_failed(live: Live, project: Project) -> None:
    mended = project.root / "mended"
    write(
        project,
        step(project, "a"),
        step(project, "b", f"test -e {mended}", after=["a"]),
        step(project, "c", after=["b"]),
    )
    run = finished(live, ask(live, "dag").id)
    assert began(project) == ["a", "b"]
    refused = project.orchctl("runs", "retry", own_id(run), "--from", "nope", check=2)
    assert "its steps: a, b, c" in refused.stderr
    mended.touch()
    told = project.json("runs", "retry", own_id(run))
    assert (told["kept"], told["again"], told["attempt"]) == (["a"], ["b", "c"], 2)
    eventually(lambda: flow_run(live, run.id).state_type == "COMPLETED")
    after = flow_run(live, run.id)
    assert (after.run_count, after.expected_start, own_id(after)) == (2, run.expected_start, own_id(run))
    assert began(project) == ["a", "b", "b", "c"]
    assert statuses(project, run) == {"a": "kept", "b": "success", "c": "success"}
    assert job_manifest(project, run)["attempt"] == 2
    # A run that has succeeded: refused, unless a step is named.
    assert "has succeeded" in project.orchctl("runs", "retry", own_id(run), check=5).stderr
    assert project.json("runs", "retry", own_id(run), "--from", "c")["again"] == ["c"]
    eventually(lambda: began(project) == ["a", "b", "b", "c", "c"])
    eventually(lambda: flow_run(live, run.id).state_type == "COMPLETED" and flow_run(live, run.id).run_count == 3)
    # And what was asked for once is not remembered.
    waited = project.orchctl("runs", "retry", own_id(run), "--force", "--wait")
    assert (flow_run(live, run.id).run_count, flow_run(live, run.id).state_type) == (4, "COMPLETED")
    assert f"run {own_id(run)} is run again (attempt 4)" in waited.stderr
    assert "said by" not in waited.stdout  # what it wrote before is not shown again
    assert set(statuses(project, run).values()) == {"kept"}
    assert began(project) == ["a", "b", "b", "c", "c"]


def test_a_cancel_stops_the_steps_and_the_run_can_be_gone_on_with(live: Live, project: Project) -> None:
    go = project.root / "go"
    with marked() as mark:
        env = mark.env()
        write(
            project,
            step(project, "a"),
            step(project, "b", f"test -e {go} || sleep 77", after=["a"], env=env),
            step(project, "c", f"test -e {go} || sleep 77", after=["a"], env=env),
            step(project, "d", f"test -e {go}", retries=1, retry_delay="5m"),
            step(project, "e", after=["b"]),
        )
        run = ask(live, "dag")
        eventually(lambda: {"b", "c", "d"} <= set(began(project)))
        eventually(lambda: states_of(live, run.id).get("d") == "AwaitingRetry")
        refused = project.orchctl("runs", "retry", own_id(run), check=5)
        assert "is not over" in refused.stderr
        cancel(live, run.id)
        eventually(lambda: flow_run(live, run.id).state_type == "CANCELLED")
        eventually(lambda: not mark.pids())
        wanted = {"a": "success", "b": "cancelled", "c": "cancelled", "d": "failed", "e": "cancelled"}
        assert statuses(project, run) == wanted
        assert job_manifest(project, run)["status"] == "cancelled"
        eventually(lambda: states_of(live, run.id).get("d") == "Cancelled", within=30)
        go.touch()
        assert project.json("runs", "retry", own_id(run))["kept"] == ["a"]
        eventually(lambda: statuses(project, run)["e"] == "success", within=120)
        assert began(project).count("a") == 1


def test_a_killed_flow_process_leaves_no_step_running_and_is_resumed(live: Live, project: Project) -> None:
    go = project.root / "go"
    with marked() as mark:
        write(
            project,
            step(project, "a"),
            step(project, "b", f"test -e {go} || sleep 77", after=["a"], env=mark.env()),
            step(project, "c", f"test -e {go} || sleep 77", after=["a"], env=mark.env()),
        )
        run = ask(live, "dag")
        eventually(lambda: {"b", "c"} <= set(began(project)))
        pid = job_manifest(project, run)["environment"]["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: flow_run(live, run.id).finished)
        eventually(lambda: job_manifest(project, run)["status"] == "crashed")
        assert statuses(project, run) == {"a": "success", "b": "crashed", "c": "crashed"}
        assert not mark.pids()
        shown = project.json("runs", "show", own_id(run))
        assert "crashed" in json.dumps(shown)
        go.touch()
        project.orchctl("runs", "retry", own_id(run))
        eventually(lambda: flow_run(live, run.id).state_type == "COMPLETED")
        assert statuses(project, run) == {"a": "kept", "b": "success", "c": "success"}


@pytest.mark.campaign
def test_a_limit_is_held_only_while_a_step_runs_and_waiting_can_be_cancelled(live: Live, project: Project) -> None:
    name = f"limit-{project.name}"
    live.request("POST", "/v2/concurrency_limits/", {"name": name, "limit": 1})

    def used() -> int:
        found: int = live.request("GET", f"/v2/concurrency_limits/{name}")["active_slots"]
        return found

    log = project.root / "steps.log"
    one_at_a_time = f"test $(grep -c start {log}) -eq $(($(grep -c end {log}) + 1)) && sleep 0.3"
    try:
        project.jobs["dag"] = {
            "execution": "steps",
            "steps": [step(project, f"s{number}", one_at_a_time, concurrency=[name]) for number in range(3)],
        }
        project.limits = {name: 1}
        project.write()
        project.orchctl("sync")
        run = finished(live, ask(live, "dag").id)
        assert set(statuses(project, run).values()) == {"success"}
        assert used() == 0
        # Somebody else holds the place: the steps wait, and a cancel ends that.
        taken = {"names": [name], "slots": 1, "mode": "concurrency"}
        live.request("POST", "/v2/concurrency_limits/increment", taken)
        before = len(began(project))
        run = ask(live, "dag")
        eventually(lambda: len(tasks_of(live, run.id)) == 3)
        eventually(
            lambda: any(
                f"waiting for a place in {name}" in line
                for row in tasks_of(live, run.id).values()
                for line in task_log(live, row["id"])
            ),
            within=30,
        )
        cancel(live, run.id)
        eventually(lambda: flow_run(live, run.id).state_type == "CANCELLED")
        assert set(statuses(project, run).values()) == {"cancelled"}
        assert len(began(project)) == before
    finally:
        live.request("DELETE", f"/v2/concurrency_limits/{name}")


def test_back_to_the_command_is_one_edit_and_one_sync(live: Live, project: Project) -> None:
    """The schedule's id, who owns the job and what ran stay as they were."""
    project.schedules["daily"] = {"cron": "0 3 * * *"}
    write(project, step(project, "a"), schedules=["daily"], command=["touch", "blackbox"])
    before = deployment_of(live, "dag")
    run = finished(live, ask(live, "dag").id)
    owners = project.state_dir / "owners"
    history = job_manifest(project, run)
    path = project.root / "config" / "jobs.toml"
    text = path.read_text()
    assert text.count('execution = "steps"') == 1
    path.write_text(text.replace('execution = "steps"', 'execution = "command"'))
    project.orchctl("sync")
    after = deployment_of(live, "dag")
    assert (after.id, after.flow_id) == (before.id, before.flow_id)
    assert [(one.id, one.slug, one.active) for one in after.schedules] == [
        (one.id, one.slug, one.active) for one in before.schedules
    ]
    assert not owners.exists() or not list(owners.iterdir())
    second = finished(live, ask(live, "dag").id)
    assert (job_manifest(project, second)["execution"], began(project)) == ("command", ["a"])
    assert (project.root / "blackbox").exists()
    assert job_manifest(project, run) == history
    assert {one["id"] for one in runs_of(live, "dag") if not one["auto_scheduled"]} == {run.id, second.id}


def test_run_by_hand_either_way_as_of_a_mode(live: Live, project: Project) -> None:
    (project.root / "locks.json").write_text(json.dumps({"2025-12-18": {"lock": "2025-12-18T23:30:00Z"}}))
    write(
        project,
        step(project, "a", "echo as of $ORCHCTL_RUN_AS_OF_TS in $ORCHCTL_SEASON"),
        step(project, "b", "echo said by b", after=["a"]),
        as_of={"lock": {"file": f"{project.root}/locks.json", "key": "{game_date}.lock", "shift": "-15m"}},
        partition={"season": {"default": "2025"}},
        command=["sh", "-c", "echo black box"],
    )
    done = project.orchctl(
        "run", "dag", "--date", "2025-12-18", "--as-of-mode", "lock", "--param", "season=2024", "--wait"
    )
    assert "a | as of 2025-12-18T23:15:00Z in 2024" in done.stdout
    assert "b | said by b" in done.stdout
    found = project.json("runs", "--since", "1h")["runs"][-1]["run_id"]
    assert project.orchctl("runs", "logs", found, "--step", "b").stdout == "said by b\n"
    assert "no step 'x'" in project.orchctl("runs", "logs", found, "--step", "x", check=2).stderr
    assert "black box" in project.orchctl("run", "dag", "--execution", "command", "--wait").stdout
    refused = project.orchctl("run", "dag", "--date", "2025-12-17", "--as-of-mode", "lock", check=1)
    assert "has no instant for 2025-12-17" in refused.stderr
    assert "did you mean" in project.orchctl("run", "dag", "--as-of-mode", "lok", check=2).stderr
    assert "no partition key" in project.orchctl("run", "dag", "--param", "x=1", check=2).stderr


@pytest.mark.campaign
def test_a_worker_that_stops_takes_its_steps_along(live: Live, tmp_path: Path, project: Project) -> None:
    with OwnWorker(live, tmp_path / "worker").start() as worker, marked() as mark:
        project.defaults["work_pool"] = worker.pool
        write(
            project,
            step(project, "a", "sleep 77", env=mark.env()),
            step(project, "b", "sleep 77", env=mark.env()),
        )
        run = ask(live, "dag")
        eventually(lambda: set(began(project)) == {"a", "b"})
        worker.signal(signal.SIGTERM)
        eventually(lambda: not mark.pids())
        eventually(lambda: flow_run(live, run.id).state_type == "CANCELLED", within=60)
        assert statuses(project, run) == {"a": "cancelled", "b": "cancelled"}
