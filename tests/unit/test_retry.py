"""`runs retry`: which runs may be run again, as which run, and with which of their steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dag import DAY, StepsDesk
from desk import LEGACY, SLOT
from fakes import FakePrefect
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import Run
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.errors import GateRefused, OrchctlError, UsageError
from orchctl.services import retry, trigger
from orchctl.services.run_logs import Logs
from syncing import Operator


@dataclass
class Scene:
    """A synced job, one of whose flow runs has run here and is over."""

    desk: StepsDesk
    prefect: FakePrefect
    world: retry.World
    job: Job
    flow_run: str
    run: Run

    def retry(self, *, from_step: str | None = None, force: bool = False) -> retry.Retried:
        return retry.retry(self.world, self.desk.tree, self.run, from_step=from_step, force=force)

    def set(self, **fields: Any) -> None:
        self.prefect.set_run(self.flow_run, **fields)


def scene(
    root: Path,
    make: Callable[[StepsDesk], Job],
    *,
    slot: datetime | None = None,
    owner: Owner | None = None,
    state: str = "FAILED",
    **asked: Any,
) -> Scene:
    desk = StepsDesk(root)
    job = make(desk)
    prefect = FakePrefect()
    applied = AppliedCatalogs(desk.state)
    catalog = Catalog(name="tests", timezone="America/New_York", schedules={}, jobs={job.name: job})
    operator = Operator(prefect, applied, str(desk.state), catalog, prefect.clock)
    if prefect.pool(job.work_pool) is None:
        prefect.create_pool(job.work_pool, description=None)
    operator.sync()
    deployment = operator.deployment(job.name)
    made = prefect.create_run(deployment.id, parameters=asked, idempotency_key="k", scheduled_for=SLOT)
    desk.owner = owner
    desk.go(job, made.id, slot=slot, trigger="schedule" if slot else "manual", **asked)
    prefect.set_run(made.id, state_type=state, state_name=state.title(), run_count=1)
    own = run_id(SLOT, made.id)
    run = desk.tree.find(own, skipped=[])
    assert run is not None
    claims = desk.host(job).claims
    rest = retry.Rest(lambda: (), prefect.clock, lambda _seconds: None)
    world = retry.World(catalog, prefect, applied, lambda _job: desk.owner, claims, rest)
    return Scene(desk, prefect, world, job, made.id, run)


def chain(desk: StepsDesk, **fields: Any) -> Job:
    desk.lines["b"] = "exit 1"
    return desk.steps_job(desk.step("a"), desk.step("b", "a"), desk.step("c", "b"), desk.step("d"), **fields)


def good(desk: StepsDesk) -> Job:
    return desk.steps_job(desk.step("a"), desk.step("b", "a"))


def test_a_failed_run_is_set_to_be_run_again(tmp_path: Path) -> None:
    one = scene(tmp_path, chain)
    done = one.retry()
    assert (done.kept, done.again, done.attempt) == (("a", "d"), ("b", "c"), 2)
    found = one.prefect.flow_run(one.flow_run)
    assert found is not None
    assert (found.state_type, found.state_name, found.state_message) == ("SCHEDULED", "AwaitingRetry", retry.MESSAGE)
    assert "from_step" not in found.parameters
    assert found.parameters["job"] == "job"


def test_who_waits_for_a_retry_sees_what_it_writes_and_how_it_ends(tmp_path: Path) -> None:
    one = scene(tmp_path, lambda desk: chain(desk, env={"SAYS": "{step}"}))
    folder = one.desk.step_folder("b", one.flow_run)
    (folder / "attempt-1.log").write_text("before\n")
    logs = Logs(one.desk.tree, one.desk.tree.directory_of(one.run))
    logs.pass_over()
    started = one.retry().started
    ended_as = iter(["RUNNING", "FAILED"])

    def sleep(_seconds: float) -> None:
        one.set(state_type=next(ended_as))
        (folder / "attempt-2.log").write_text("once more\n")

    *progress, end = trigger.follow(one.prefect, one.desk.tree, started, sleep=sleep, logs=logs)
    assert b"".join(item.output for item in progress if isinstance(item, trigger.Progress)) == b"b | once more\n"
    assert isinstance(end, trigger.Ended)
    assert (end.exit_code, started.run_id) == (1, one.run.run_id)


def test_from_a_step_goes_into_the_parameters_and_is_not_remembered(tmp_path: Path) -> None:
    one = scene(tmp_path, chain)
    assert one.retry(from_step="a").again == ("a", "b", "c")
    assert one.prefect.runs[one.flow_run].parameters["from_step"] == "a"
    one.set(state_type="CRASHED")
    one.retry()
    assert one.prefect.runs[one.flow_run].parameters["from_step"] == ""


def test_what_was_synced_last_is_what_runs(tmp_path: Path) -> None:
    one = scene(tmp_path, chain)
    changed = one.job.model_copy(update={"timeout": 99})
    catalog = one.world.catalog.model_copy(update={"jobs": {"job": changed}})
    Operator(one.prefect, one.world.applied, str(one.desk.state), catalog, one.prefect.clock).sync()
    one = replace(one, world=replace(one.world, catalog=catalog))
    one.retry()
    assert one.prefect.runs[one.flow_run].parameters["digest"] == catalog.digest


def test_only_the_steps_of_the_run_count(tmp_path: Path) -> None:
    one = scene(tmp_path, chain, steps=("a", "b"))
    one.set(parameters={**one.prefect.runs[one.flow_run].parameters, "steps": "a,b"})
    done = one.retry()
    assert (done.kept, done.again) == (("a",), ("b",))
    one.set(state_type="FAILED")
    with pytest.raises(UsageError, match="has no step 'c'"):
        one.retry(from_step="c")


GOING = [
    ("RUNNING", "is not over"),
    ("PENDING", "is not over"),
    ("CANCELLING", "is not over"),
    ("SCHEDULED", "waits already"),
]


@pytest.mark.parametrize(("state", "message"), GOING)
def test_a_run_that_is_not_over_is_refused(tmp_path: Path, state: str, message: str) -> None:
    one = scene(tmp_path, chain, state=state)
    with pytest.raises(GateRefused, match=message):
        one.retry(force=True)
    assert one.prefect.runs[one.flow_run].state_type == state


@pytest.mark.parametrize("state", ["FAILED", "CRASHED", "CANCELLED"])
def test_every_end_but_success_may_be_tried_again(tmp_path: Path, state: str) -> None:
    scene(tmp_path, chain, state=state).retry()


def test_a_success_needs_a_step_or_force(tmp_path: Path) -> None:
    one = scene(tmp_path, good, state="COMPLETED")
    with pytest.raises(GateRefused, match="has succeeded"):
        one.retry()
    assert one.retry(force=True).kept == ("a", "b")
    one.set(state_type="COMPLETED")
    assert one.retry(from_step="b").again == ("b",)


def test_a_command_is_retried_whole(tmp_path: Path) -> None:
    one = scene(tmp_path, lambda desk: desk.job("false", retries=0))
    done = one.retry()
    assert (done.kept, done.again) == ((), ())
    one.set(state_type="FAILED")
    with pytest.raises(UsageError, match="runs as a command"):
        one.retry(from_step="a")


SINCE = Owner(SLOT - timedelta(days=1), draining=False)
OWNERS = [
    (None, "legacy owns the job"),
    (replace(SINCE, draining=True), "a rollback is draining the job"),
    (replace(SINCE, since=SLOT + timedelta(hours=1)), "before Prefect owned the job"),
]


@pytest.mark.parametrize(("owner", "message"), OWNERS)
def test_a_slot_that_is_not_prefects_any_more_is_refused(tmp_path: Path, owner: Owner | None, message: str) -> None:
    one = scene(tmp_path, lambda desk: chain(desk, legacy=LEGACY), slot=SLOT, owner=SINCE)
    one.desk.owner = owner
    with pytest.raises(GateRefused, match=message):
        one.retry()


def test_an_old_slot_is_run_again_by_its_own_claim(tmp_path: Path) -> None:
    one = scene(tmp_path, lambda desk: chain(desk, legacy=LEGACY), slot=SLOT, owner=SINCE)
    one.desk.lines["b"] = "true"
    one.retry()
    one.desk.clock.at = SLOT + timedelta(days=30)
    job = one.desk.steps_job(*(one.desk.step(step.name, *step.after) for step in one.job.steps), legacy=LEGACY)
    assert one.desk.go(job, one.flow_run, attempt=2).status == "success"
    assert one.desk.statuses(one.flow_run) == {"a": "kept", "b": "success", "c": "success", "d": "kept"}


def test_a_slot_that_another_run_has_is_refused(tmp_path: Path) -> None:
    one = scene(tmp_path, chain, slot=SLOT)
    (claim,) = (one.desk.state / "slots").rglob("*.json")
    claim.unlink()
    with pytest.raises(GateRefused, match="was claimed by no run"):
        one.retry()


def test_what_prefect_has_forgotten_or_never_ran(tmp_path: Path) -> None:
    one = scene(tmp_path, chain)
    with pytest.raises(UsageError, match="not run by Prefect but by systemd"):
        replace(one, run=replace(one.run, origin="systemd")).retry()
    for status in ("skipped", "observed"):
        with pytest.raises(GateRefused, match=f"was {status}"):
            replace(one, run=replace(one.run, status=status)).retry()
    del one.prefect.runs[one.flow_run]
    with pytest.raises(OrchctlError, match="does not know run") as caught:
        one.retry()
    assert caught.value.hint == f"for a new run: orchctl run job --date {DAY}"


# --- asking for a run by hand

WRONG = [
    (trigger.Wish(game_date="today"), "--date: 'today' is not a date"),
    (trigger.Wish(as_of="now"), "--as-of: 'now' is not an instant"),
    (trigger.Wish(as_of="2025-12-19T25:00:00Z"), "--as-of: '2025-12-19T25:00:00Z' is not an instant like"),
    (trigger.Wish(as_of="2025-12-19T05:00:00Z", as_of_mode="lock"), "--as-of and --as-of-mode exclude each other"),
    (trigger.Wish(execution="stepwise"), "--execution: 'stepwise' is not command or steps"),
    (trigger.Wish(execution="command"), "job has no command to run"),
    (trigger.Wish(partition={"x": "1"}), "has no partition key 'x'"),
]


def wished(desk: StepsDesk, wish: trigger.Wish) -> dict[str, Any]:
    job = desk.steps_job(desk.step("a"), partition={"season": {"default": "1"}}).model_copy(update={"command": ()})
    wish.check()
    return wish.parameters(job, "America/New_York", lambda *_: SLOT, SLOT)


@pytest.mark.parametrize(("wish", "message"), WRONG)
def test_wishes_that_cannot_be(tmp_path: Path, wish: trigger.Wish, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wished(StepsDesk(tmp_path), wish)


def test_wishes_become_parameters(tmp_path: Path) -> None:
    desk = StepsDesk(tmp_path)
    assert wished(desk, trigger.Wish()) == {}
    # The instant is for today's date: the run must be too, also where it begins after midnight.
    assert wished(desk, trigger.Wish(as_of_mode="lock", execution="steps", partition={"season": "2"})) == {
        "game_date": "2025-12-19",
        "run_as_of_ts": "2025-12-19T05:00:00Z",
        "as_of_mode": "lock",
        "execution": "steps",
        "partition": {"season": "2"},
    }


class Minute:
    """Time that passes where somebody sleeps; `lives` is how long the process of a run goes on, in seconds."""

    def __init__(self, lives: float) -> None:
        self.at, self.end = SLOT, SLOT + timedelta(seconds=lives)

    def rest(self, run: str) -> retry.Rest:
        return retry.Rest(lambda: {run} if self.at < self.end else (), lambda: self.at, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.mark.parametrize(("lives", "waits"), [(0, 0), (3, 3.5), (30, 30.5)])
def test_a_run_whose_process_has_not_ended_is_waited_for(tmp_path: Path, lives: float, waits: float) -> None:
    """Given to its worker before, it would end the worker."""
    one, minute = scene(tmp_path, chain), Minute(lives)
    one.world = replace(one.world, rest=minute.rest(one.flow_run))
    one.retry()
    assert (minute.at - SLOT).total_seconds() == waits
    found = one.prefect.flow_run(one.flow_run)
    assert found is not None
    assert found.state_name == "AwaitingRetry"


def test_a_run_that_has_just_ended_is_left_alone_for_a_moment(tmp_path: Path) -> None:
    one, minute = scene(tmp_path, chain), Minute(0)
    one.set(state_since=SLOT - timedelta(seconds=1))
    one.world = replace(one.world, rest=minute.rest(one.flow_run))
    one.retry()
    assert (minute.at - SLOT).total_seconds() == 4.5


def test_a_process_that_does_not_end_and_somebody_who_is_faster_refuse(tmp_path: Path) -> None:
    one, minute = scene(tmp_path, chain), Minute(3600)
    one.world = replace(one.world, rest=minute.rest(one.flow_run))
    with pytest.raises(GateRefused, match="has ended, and its process has not yet"):
        one.retry()
    minute = Minute(3)

    def sleep(seconds: float) -> None:
        minute.sleep(seconds)
        one.set(state_type="SCHEDULED")

    one.world = replace(one.world, rest=replace(minute.rest(one.flow_run), sleep=sleep))
    with pytest.raises(GateRefused, match="in Prefect by now"):
        one.retry()
