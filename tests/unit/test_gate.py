"""The gate where runs meet: waiting for the lock, ownership that changes meanwhile, slots yet to come, cancels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from desk import DIGEST, LEGACY, SLOT, Desk
from orchctl.adapters.claims import Locks
from orchctl.core.catalog import CronTrigger
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError
from orchctl.runner.job import execute
from orchctl.runner.shapes import Request

OWNED = Owner(SLOT - timedelta(days=1), draining=False)


class Terminated(BaseException):
    """What Prefect's SIGTERM handler raises, by shape."""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def when_asleep(desk: Desk, act: Callable[[], None]) -> None:
    """Do `act` at the first sleep of a run."""

    def sleep(seconds: float) -> None:
        if not desk.clock.slept:
            act()
        desk.clock.sleep(seconds)

    desk.changes["sleep"] = sleep


def held(desk: Desk) -> Any:
    lock = Locks(desk.state).try_take("job", run_id="20251219T040000Z-000000", pid=1)
    assert lock is not None
    return lock


def test_a_queued_run_observes_where_the_job_was_handed_back_while_it_waited(desk: Desk) -> None:
    lock = held(desk)

    class Changing:
        def read(self, job: str) -> Owner | None:
            return OWNED if lock.descriptor >= 0 else None

    desk.changes["owners"] = Changing()
    when_asleep(desk, lock.release)
    outcome = desk.run(desk.job(legacy=LEGACY, overlap="queue"))
    assert (outcome.status, desk.ran()) == ("observed", 0)
    # It gave the lock back.
    held(desk).release()


@pytest.mark.parametrize("catchup", ["latest", "all"])
def test_a_late_slot_waits_for_the_run_that_holds_the_job(desk: Desk, catchup: str) -> None:
    desk.clock.at = SLOT + timedelta(minutes=3)
    when_asleep(desk, held(desk).release)
    outcome = desk.run(desk.job(catchup=catchup, overlap="skip", catchup_window="10m"))
    assert (outcome.status, desk.ran()) == ("success", 1)


def test_a_slot_on_time_that_finds_the_job_going_is_skipped_at_once(desk: Desk) -> None:
    lock = held(desk)
    outcome = desk.run(desk.job(overlap="skip"))
    lock.release()
    assert (outcome.status, desk.clock.slept) == ("skipped", [])
    assert "20251219T040000Z-000000" in (outcome.reason or "")


def test_a_retry_waits_for_the_lock_and_stays_failed_where_it_never_gets_it(desk: Desk) -> None:
    job = desk.job("sh", "-c", "exit 3", retries=1, timeout="1s")
    desk.run(job)
    lock = held(desk)
    outcome = desk.run(job, attempt=2)
    lock.release()
    assert outcome.status == "failed"
    assert (outcome.reason or "").startswith("not tried again: the job is locked by run 20251219T040000Z-000000")
    assert [one["exit_code"] for one in desk.manifest()["attempts"]] == [3, None]


def test_a_slot_that_is_yet_to_come_cannot_be_asked_for(desk: Desk) -> None:
    job, later = desk.job(), SLOT + timedelta(days=30)
    request = Request("job", DIGEST, "one", SLOT, 1, later, "catchup")
    with pytest.raises(OrchctlError, match="2026-01-18T05:00:00Z is yet to come"):
        execute(request, desk.host(job), desk.log.append)
    assert desk.ran() == 0
    assert not list(desk.state.glob("slots/job/*"))


@pytest.mark.parametrize("waits_for", ["slot", "lock"])
def test_a_cancel_while_it_waits_is_recorded_and_raised(desk: Desk, waits_for: str) -> None:
    def cancel() -> None:
        raise Terminated

    lock = held(desk) if waits_for == "lock" else None
    if waits_for == "slot":
        desk.clock.at = SLOT - timedelta(seconds=5)
    when_asleep(desk, cancel)
    with pytest.raises(Terminated):
        desk.run(desk.job(overlap="queue"))
    if lock is not None:
        lock.release()
    assert desk.manifest()["status"] == "cancelled"
    assert desk.events() == [("run_finished", 1, "cancelled")]


def test_the_end_is_on_disk_before_the_outputs_are_looked_at(desk: Desk) -> None:
    seen = []

    def look(*_: Any, **__: Any) -> list[dict[str, Any]]:
        seen.append(desk.manifest()["status"])
        return [{"name": "x"}]

    desk.changes["find_outputs"] = look
    desk.run(desk.job(outputs=["{data_root}/x"]))
    assert seen == ["success"]
    assert desk.manifest()["outputs"] == [{"name": "x"}]


# --- step 4: a legacy service that runs


def running(desk: Desk, times: int) -> list[int]:
    """Let a legacy service of the job run for the next `times` looks; return how often it was asked, as a list."""
    asked: list[int] = []

    def look(_: Any) -> tuple[str, ...]:
        asked.append(1)
        return ("old.service (system)",) if len(asked) <= times else ()

    desk.changes["legacy_running"] = look
    return asked


@pytest.mark.parametrize("slot", [SLOT, None], ids=["a slot", "by hand"])
def test_a_legacy_run_that_goes_on_holds_the_job_back(desk: Desk, slot: Any) -> None:
    desk.owner = OWNED
    running(desk, 100)
    outcome = desk.run(desk.job(legacy=LEGACY), slot=slot)
    assert (outcome.status, desk.ran()) == ("skipped", 0)
    assert outcome.reason == "legacy old.service (system) is running"
    held(desk).release()  # the lock was given back


@pytest.mark.parametrize("how", ["queue", "retry", "late"])
def test_whoever_waits_for_the_lock_waits_for_a_legacy_run_too_with_the_lock_held(desk: Desk, how: str) -> None:
    desk.owner = OWNED
    asked = running(desk, 3)
    job = desk.job(legacy=LEGACY, overlap="queue" if how == "queue" else "skip", catchup_window="10m")
    if how == "late":
        desk.clock.at = SLOT + timedelta(minutes=3)
    taken = []
    when_asleep(desk, lambda: taken.append(Locks(desk.state).try_take("job", run_id="20251219T040000Z-000000", pid=1)))
    outcome = desk.run(job, attempt=2 if how == "retry" else 1)
    assert (outcome.status, desk.ran(), len(asked)) == ("success", 1, 4)
    assert taken == [None]


def test_a_job_that_is_handed_back_while_it_waits_for_a_legacy_run_observes(desk: Desk) -> None:
    running(desk, 1)
    owners = [OWNED, OWNED, None]

    class Changing:
        def read(self, job: str) -> Owner | None:
            return owners.pop(0)

    desk.changes["owners"] = Changing()
    outcome = desk.run(desk.job(legacy=LEGACY, overlap="queue"))
    assert (outcome.status, desk.ran()) == ("observed", 0)


def test_a_systemd_that_gives_no_answer_fails_the_run_and_says_so(desk: Desk) -> None:
    def look(_: Any) -> tuple[str, ...]:
        raise OrchctlError("systemctl did not answer within 30 s (system)")

    desk.owner = OWNED
    desk.changes["legacy_running"] = look
    outcome = desk.run(desk.job(legacy=LEGACY))
    reason = "whether a legacy service of the job runs cannot be known: systemctl did not answer within 30 s (system)"
    assert (outcome.status, outcome.reason, desk.ran()) == ("failed", reason, 0)
    assert (desk.manifest()["status"], desk.manifest()["reason"]) == ("failed", reason)
    held(desk).release()


@pytest.mark.parametrize("cron", [True, False])
def test_only_jobs_with_timers_cost_a_look(desk: Desk, cron: bool) -> None:
    asked = running(desk, 100)
    legacy = (CronTrigger(cron="* * * * * true", user="daniel"),) if cron else ()
    desk.owner = OWNED
    assert desk.run(desk.job(legacy=legacy)).status == "success"
    assert asked == []
