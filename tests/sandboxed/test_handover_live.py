"""Switches back and forth of a job every few seconds, killed in between: each slot is run once, whoever owns it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import invariants
import switching
from box import Box
from support import STRESS, eventually
from switching import SERVER, WORKER, Stage

PAIRS = 50 if STRESS else 8
"""Cutovers and rollbacks for each scope: 32 switches, 200 in `make stress`."""
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def url(booted: Box) -> Iterator[str]:
    with switching.prefect(booted, booted.share / "prefect") as found:
        yield found


@pytest.fixture
def stage(box: Box, url: str) -> Iterator[Stage]:
    number = next(_NUMBERS)
    made = Stage(box, box.share / f"live{number}", url, job=f"tick{number}")
    yield made
    made.close()


def _begin(stage: Stage) -> float:
    """Deploy the job, start its timers, and return from which slot on all are counted."""
    stage.write()
    stage.start_timers()
    stage.deploy()
    stage.quiet()
    return time.time()


def _judge(stage: Stage, first: float) -> list[invariants.Entry]:
    """See that legacy owns the job, and that from `first` on each slot was run once."""
    stage.quiet()
    stage.quiet()
    log = stage.history(first, time.time() - stage.every)
    assert invariants.check(log, policy="all") == []
    assert switching.doubled(log) == []
    # What Prefect had not yet run when it was rolled back, legacy ran for all of it at once, and it was said.
    lost = set(switching.missed(log)) - stage.given_up() - stage.skipped()
    assert lost == set(), sorted(map(switching.at, lost))
    return log


def _recovered(stage: Stage) -> None:
    """Recover; where Prefect does not answer yet, until its part is done too. Then there is nothing to recover."""
    eventually(lambda: not _is_owed(stage.json("recover")), within=240)
    assert stage.json("recover")["jobs"] == []


def _is_owed(told: Any) -> bool:
    return any(job["result"] and job["result"]["owed"] for job in told["jobs"])


# --- what may happen in the middle; each leaves the job with the side that it is told


def _plain(stage: Stage, kind: str, dice: random.Random) -> None:
    done = stage.cutover() if kind == "cutover" else stage.rollback()
    if done["owed"]:  # a busy server does not answer in time
        _recovered(stage)


def _killed(stage: Stage, kind: str, dice: random.Random) -> None:
    steps = {
        "cutover": ["fence", "commit", "timers-off", "grant"],
        "rollback": ["drain", "timers-on", "release", "owed", "unfence", "clear"],
    }
    when = stage.begins(dice.choice(steps[kind]), after_s=dice.choice([0.0, 0.1, 0.5]))
    _killed_when(stage, kind, when)


def _killed_when(stage: Stage, kind: str, when: Callable[[], object], **environment: str) -> None:
    waive = [f"--waive=cadence={switching.WHY}", "--wait"] if kind == "cutover" else []
    stage.killed(when, kind, stage.job, "--yes", *waive, **environment)
    _recovered(stage)
    if stage.owner.exists() != (kind == "cutover"):
        _plain(stage, kind, random.Random(0))


def _killed_at_reload(stage: Stage, kind: str, dice: random.Random) -> None:
    path, under_way = stage.reloads()
    _killed_when(stage, kind, under_way, PATH=path)
    assert under_way()


def _worker_killed(stage: Stage, kind: str, dice: random.Random) -> None:
    if kind == "rollback":
        switching.kill(stage.box, WORKER)
        _plain(stage, kind, dice)
    else:
        stage.cutover()
        switching.kill(stage.box, WORKER)


def _server_killed(stage: Stage, kind: str, dice: random.Random) -> None:
    if kind == "cutover":
        stage.cutover()
    switching.kill(stage.box, SERVER)
    if kind == "rollback":
        stage.rollback()
    eventually(lambda: switching.answers(stage.api_url), within=60)
    if kind == "rollback":
        _recovered(stage)


_FAULTS = (_plain, _killed, _worker_killed, _killed_at_reload, _server_killed, _killed)


@pytest.mark.campaign
@pytest.mark.parametrize("scope", ["system", "user"])
def test_back_and_forth_while_everything_is_killed_no_slot_is_doubled_and_none_missed(stage: Stage, scope: str) -> None:
    stage.scopes = (scope,)
    first, dice = _begin(stage), random.Random(scope)
    for number in range(PAIRS):
        for kind in ("cutover", "rollback"):
            fault = _FAULTS[(number + (kind == "rollback") * 2) % len(_FAULTS)]
            fault(stage, kind, dice)
            assert stage.owner.exists() == (kind == "cutover"), (kind, fault.__name__)
            time.sleep(dice.uniform(0.0, 5.0))  # a slot falls due anywhere in it
            stage.wait_for_worker()
    log = _judge(stage, first)
    ran = [entry.by for entry in log if entry.kind == "start"]
    assert {"legacy", "prefect"} <= set(ran)


@pytest.mark.campaign
def test_without_the_fence_a_timer_that_came_back_doubles_slots_and_the_checker_says_so(stage: Stage) -> None:
    first = _begin(stage)
    stage.cutover()
    stage.start_timers()
    time.sleep(stage.every)
    switched = time.time()
    stage.box.sh(f"rm /etc/systemd/system/{stage.job}.service.d/zz-orchctl-{stage.job}.conf")
    stage.box.reload()
    time.sleep(2 * stage.every)
    stage.quiet()
    log = stage.history(first, time.time() - stage.every)
    doubled = switching.doubled(log)
    assert doubled
    assert all(slot > switched - 1 for slot in doubled)
    said = invariants.check(log, policy="all")
    assert {violation.invariant for violation in said} >= {"I1"}
    _recovered(stage)
    stage.rollback()
