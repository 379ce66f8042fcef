"""A backfill on a real server, with a client and a worker that are killed: each date once, and the slots on time.

ORCHCTL_BACKFILL_DATES says of how many dates; fewer than that are enough for every day.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import live_runs
from live_runs import OwnWorker
from orchctl.core.backfill import newest_of
from orchctl.core.names import parse_instant
from support import Live, Project, eventually, sigint_as_usual

DATES = int(os.environ.get("ORCHCTL_BACKFILL_DATES", "12"))
# Slots go first: on a busy machine, where a run takes longer than this, they leave no place for a long backfill.
EVERY = "15s" if DATES < 30 else "60s"
PARALLEL = 2
FIRST = date(2025, 10, 1)
PATIENCE_S = 400.0 + 20 * DATES


def period(count: int) -> tuple[str, ...]:
    return ("--start", FIRST.isoformat(), "--end", (FIRST + timedelta(days=count - 1)).isoformat())


@pytest.fixture
def worker(live: Live, tmp_path: Path) -> Iterator[OwnWorker]:
    """A worker with one place more than backfills may have: when these are all taken, one is left for a slot."""
    with OwnWorker(live, tmp_path / "own", limit=PARALLEL + 1) as own:
        yield own.start()


@pytest.fixture
def stepped(project: Project, worker: OwnWorker) -> Project:
    """A job of two steps that is often due; the second fails the first time for each slot and some dates.

    Each step leaves a line when its work is done.
    """
    note = 'echo "$ORCHCTL_GAME_DATE $ORCHCTL_STEP" >> lines'
    often = 'mkdir -p tried; case "$ORCHCTL_GAME_DATE" in *5) [ -e tried/$ORCHCTL_GAME_DATE ] ||'
    fail = "{ touch tried/$ORCHCTL_GAME_DATE; echo no rows for $ORCHCTL_GAME_DATE >&2; exit 3; };; esac;"
    once = 'if [ -n "$ORCHCTL_SLOT" ] && mkdir -p slots && mkdir "slots/$ORCHCTL_SLOT" 2>/dev/null; then exit 75; fi'
    project.schedules["often"] = {"every": EVERY, "timezone": "UTC"}
    project.defaults["work_pool"] = worker.pool
    project.jobs["job"] = {
        "schedules": ["often"],
        "execution": "steps",
        "catchup": "all",
        "catchup_window": "10m",
        "backfill": {"parallel": PARALLEL},
        "steps": [
            {"name": "make", "command": [project.script("make.sh", f"sleep 0.3; {note}")]},
            {
                "name": "check",
                "after": ["make"],
                "command": [project.script("check.sh", f"{once}; {often} {fail} {note}")],
                "retries": 1,
                "retry_delay": "1s",
                "permanent": ["no rows"],
            },
        ],
    }
    project.write()
    project.orchctl("sync")
    return project


def lines(project: Project) -> Counter[str]:
    """Return how often each step of each date of the backfill has done its work."""
    path = project.root / "lines"
    found = path.read_text().splitlines() if path.exists() else []
    return Counter(line for line in found if line.startswith("2025-"))


def client(project: Project, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchctl", "backfill", "job", *period(DATES), *words],
        env=project.env(),
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(process: subprocess.Popen[str], after_s: float) -> bool:
    """Kill it after a while, unless it has ended by then; return whether it was killed."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def manifests(project: Project, asset: str) -> list[dict[str, Any]]:
    found = []
    for path in project.data_root.glob(f"manifests/{asset}/game_date=*/run=*/manifest.json"):
        with contextlib.suppress(ValueError):
            found.append(json.loads(path.read_text()))
    return found


@pytest.mark.campaign
def test_each_date_has_one_success_whoever_is_killed(live: Live, stepped: Project, worker: OwnWorker) -> None:
    rng = random.Random(20251219)
    deadline = time.monotonic() + PATIENCE_S
    lives = kills = 0
    while True:
        assert time.monotonic() < deadline, worker.log()[-2000:]
        lives += 1
        process = client(stepped, *(["--wait"] if lives % 3 else []))
        # The first lives are short; then each is given more time, so that it ends.
        if killed(process, rng.uniform(1.5, 5.0) if lives < 6 else 30.0):
            kills += 1
        elif lives % 3 and process.returncode == 0:
            break
        if lives in {2, 5}:
            worker.signal(signal.SIGKILL)
            eventually(worker.is_gone, within=10)
            worker.start()
    assert kills >= 3

    dates = [FIRST + timedelta(days=number) for number in range(DATES)]
    expected = {f"{day} {step}" for day in dates for step in ("make", "check")}
    # No step has done its work twice, not even where the one after it failed and was tried again.
    assert lines(stepped) == Counter(expected)

    (summary,) = [json.loads(path.read_text()) for path in stepped.data_root.glob("manifests/backfills/*/summary.json")]
    assert (summary["attempted"], summary["succeeded"], summary["failed"]) == (DATES, DATES, 0)
    assert [row["game_date"] for row in summary["runs"]] == [day.isoformat() for day in dates]
    assert {row["step"]: row["runs"] + row["kept"] for row in summary["steps"]} == {"make": DATES, "check": DATES}
    with live.api() as api:
        by_date = newest_of(api.tagged_runs(f"orchctl-backfill:{summary['backfill']}"))
    assert {day: len(runs) for day, runs in by_date.items()} == {day.isoformat(): 1 for day in dates}
    assert {run.state_type for runs in by_date.values() for run in runs} == {"COMPLETED"}
    _slots_were_served(stepped)


def _slots_were_served(project: Project) -> None:
    """Each slot was run, none waited for a backfill's lock or was overtaken by more than the worker's own haste.

    When a slot is due, the worker has a place left: at most the backfills that it takes in the same breath, and those
    that it took just before, begin between the slot and its run.
    """
    runs = [each for each in manifests(project, "job") if each["trigger"] == "schedule"]
    others = [parse_instant(each["timing"]["started_at"]) for each in manifests(project, "job") if each.get("backfill")]
    tries = {each["partition"]["run_id"]: each["attempt"] for each in manifests(project, "check")}
    assert len(runs) >= 2
    assert {each["status"] for each in runs} <= {"success", "running", "skipped"}
    for each in runs:
        assert "@" not in (each["reason"] or ""), each["reason"]
        if each["status"] == "success":
            due, began = parse_instant(each["slot"]), parse_instant(each["timing"]["started_at"])
            assert tries[each["partition"]["run_id"]] == 2  # the step was tried again by itself
            assert sum(due < other < began for other in others) <= 3 * PARALLEL


def test_limits_and_the_queue_stand_on_a_real_server(live: Live, stepped: Project, worker: OwnWorker) -> None:
    name = f"limit-{worker.pool}"
    with live.api() as api:
        try:
            stepped.limits[name] = 3
            stepped.jobs["job"]["steps"][0]["concurrency"] = [name]
            stepped.write()
            planned = stepped.json("plan", check=3)
            assert [each["limit"] for each in planned["limits"]] == [name]
            stepped.orchctl("sync")
            stepped.orchctl("plan")
            queues = {each.name: each for each in api.queues(worker.pool)}
            assert queues["backfill"].concurrency_limit == PARALLEL
            assert queues["backfill"].priority > queues["default"].priority
            assert {each.name: each.limit for each in api.limits()}[name] == 3
            api.update_limit(name, {"limit": 1, "active": False})
            api.update_queue(worker.pool, "backfill", {"priority": 1, "concurrency_limit": 9, "is_paused": True})
            drifted = stepped.json("plan", check=3)
            assert [(each["after"], each["because"]) for each in drifted["limits"]] == [({"limit": 3}, "by hand")]
            (queue,) = drifted["queues"]
            assert queue["after"]["concurrency_limit"] == PARALLEL
            assert len(drifted["notes"]) == 2
            stepped.orchctl("sync")
            assert not stepped.json("plan")["limits"]
            (found,) = [each for each in api.queues(worker.pool) if each.name == "backfill"]
            assert (found.concurrency_limit, found.is_paused) == (PARALLEL, True)
            (limit,) = [each for each in api.limits() if each.name == name]
            assert (limit.limit, limit.active) == (3, False)
            # What is there already is no error of a request that was sent twice, and one of a second request.
            with pytest.raises(Exception, match="HTTP 409"):
                api.create_limit(name, limit=3)
            with pytest.raises(Exception, match="HTTP 409"):
                api.create_queue(worker.pool, "backfill", priority=9, limit=1)
        finally:
            api.request("DELETE", f"/v2/concurrency_limits/{name}", done_if=404)


def test_a_dry_run_and_what_cannot_be(stepped: Project, live: Live) -> None:
    before = len(live_runs.runs_of(live, "job"))
    found = stepped.json("backfill", "job", *period(5), "--dry-run")
    assert [each["action"] for each in found["partitions"]] == ["create"] * 5
    assert not list(stepped.data_root.glob("manifests/backfills"))
    made = [run for run in live_runs.runs_of(live, "job")[before:] if not run["auto_scheduled"]]
    assert not made
    for words, said in {
        ("--steps", "chekc"): 'did you mean "check"?',
        ("--max-parallel", "3"): "--wait",
        ("--as-of-mode", "lock"): "has no mode",
        ("--only-missed", "--failed"): "exclude",
        ("--param", "x"): "KEY=VALUE",
    }.items():
        assert said in stepped.orchctl("backfill", "job", *period(5), *words, check=2).stderr
    assert "no job" in stepped.orchctl("backfill", "jop", *period(5), check=2).stderr


def test_ctrl_c_ends_it_and_says_how_to_go_on(stepped: Project, live: Live) -> None:
    with sigint_as_usual():
        process = client(stepped, "--wait")
    eventually(lambda: any(run["tags"] and not run["auto_scheduled"] for run in live_runs.runs_of(live, "job")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "left to submit" in err
    assert "the same command goes on" in err
    submitted = [run for run in live_runs.runs_of(live, "job") if not run["auto_scheduled"]]
    assert 0 < len(submitted) <= PARALLEL + 1
