"""The slot rule, step by step, as `execute` applies it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from desk import DIGEST, LEGACY, SLOT, Desk
from orchctl.adapters.claims import Locks
from orchctl.adapters.owners import Owners
from orchctl.core import sealed
from orchctl.core.names import format_instant, run_id, slot_name
from orchctl.core.slots import Owner
from orchctl.errors import StateBroken


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_run_leaves_its_record(desk: Desk) -> None:
    outcome = desk.run(desk.job(outputs=("{data_root}/../ran",)))
    assert (outcome.status, outcome.exit_code, desk.ran()) == ("success", 0, 1)
    manifest = desk.manifest()
    assert (manifest["status"], manifest["slot"]) == ("success", "2025-12-19T05:00:00Z")
    assert manifest["environment"]["catalog_digest"] == DIGEST
    assert manifest["outputs"][0]["file_count"] == 1
    assert desk.events() == [("run_started", 1, "running"), ("run_finished", 1, "success")]


# --- the slot rule, step by step

SINCE = SLOT - timedelta(hours=1)
OBSERVED = [
    (None, "legacy owns the job"),
    (Owner(SINCE, draining=True), "a rollback is draining the job"),
    (Owner(SLOT + timedelta(microseconds=1), draining=False), "the slot fell due before Prefect owned the job"),
]


@pytest.mark.parametrize(("owner", "reason"), OBSERVED)
def test_step_1_a_slot_of_legacy_is_observed(desk: Desk, owner: Owner | None, reason: str) -> None:
    desk.owner = owner
    outcome = desk.run(desk.job("echo", "https://me:secret-word@host/", legacy=LEGACY))
    assert (outcome.status, outcome.reason, desk.ran()) == ("observed", reason, 0)
    assert desk.events() == [("slot_observed", 1, "observed")]
    assert desk.manifest()["mode"] == "observe"
    assert "would have run echo https://me:***@host/" in desk.log[0]
    assert not (desk.state / "slots").exists()


@pytest.mark.parametrize("owner", [Owner(SLOT, draining=False), Owner(SINCE, draining=False)])
def test_step_1_a_slot_of_prefect_runs(desk: Desk, owner: Owner) -> None:
    desk.owner = owner
    assert desk.run(desk.job(legacy=LEGACY)).status == "success"
    assert desk.ran() == 1


def owner_file(path: Path, *, content: str | None = None, **said: object) -> None:
    """Write an owner file that is as it should be but for what is said, or for its whole content."""
    whole = json.dumps(sealed.seal({"since": "2025-12-01T00:00:00Z", **said}))
    path.write_text(whole if content is None else content)
    path.chmod(0o600)


def linked(path: Path) -> None:
    owner_file(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def open_to_all(path: Path) -> None:
    owner_file(path)
    path.chmod(0o666)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: owner_file(path, content="{"),
        lambda path: owner_file(path, content="[]"),
        lambda path: owner_file(path, since=None),
        lambda path: owner_file(path, since="yesterday"),
        lambda path: owner_file(path, draining="no"),
        lambda path: owner_file(path, content='{"since": "2025-12-01T00:00:00Z"}'),
        linked,
        open_to_all,
    ],
    ids=["torn", "a list", "no since", "no instant", "no boolean", "no checksum", "a symlink", "world-writable"],
)
def test_step_1_an_owner_file_that_cannot_be_believed_runs_nothing(desk: Desk, write: Callable[[Path], None]) -> None:
    path = desk.state / "owners" / "job.json"
    path.parent.mkdir(parents=True)
    write(path)
    desk.changes["owners"] = Owners(desk.state)
    with pytest.raises(StateBroken):
        desk.run(desk.job(legacy=LEGACY))
    assert desk.ran() == 0


NOON = SLOT + timedelta(hours=1)
LATE = [
    ("latest", 60, None, "success"),
    ("latest", 61, None, "success"),
    ("latest", 61, NOON, "skipped"),
    ("latest", 60, NOON, "success"),
    ("latest", 601, None, "skipped"),
    ("all", 600, NOON, "success"),
    ("all", 601, None, "skipped"),
    ("skip", 60, None, "success"),
    ("skip", 61, None, "skipped"),
]


@pytest.mark.parametrize(("catchup", "late_s", "later", "status"), LATE)
def test_step_2_staleness(desk: Desk, catchup: str, late_s: int, later: datetime | None, status: str) -> None:
    desk.clock.at = SLOT + timedelta(seconds=late_s)
    desk.changes["later_due"] = lambda _slot: later
    outcome = desk.run(desk.job(catchup=catchup, catchup_window="10m"))
    assert (outcome.status, desk.ran()) == (status, int(status == "success"))
    if status == "skipped":
        assert (outcome.reason or "").startswith("stale: ")
        assert desk.events() == [("slot_skipped", 1, "skipped")]


def test_step_2_a_retry_is_not_stale(desk: Desk) -> None:
    job = desk.job("sh", "-c", "echo ran >> ran; exit $(( $(wc -l < ran) < 2 ))", catchup="skip", retries=1)
    assert desk.run(job).status == "failed"
    desk.clock.at += timedelta(hours=5)
    assert desk.run(job, attempt=2).status == "success"
    attempts = desk.manifest()["attempts"]
    assert [(one["attempt"], one["status"], one["exit_code"]) for one in attempts] == [
        (1, "failed", 1),
        (2, "success", 0),
    ]
    assert len(desk.events()) == 4


def test_a_retry_that_does_not_run_keeps_the_record_of_the_attempt_before(desk: Desk) -> None:
    desk.owner = Owner(SINCE, draining=False)
    job = desk.job("false", legacy=LEGACY)
    desk.run(job)
    desk.owner = None
    outcome = desk.run(job, attempt=2)
    assert (outcome.status, outcome.reason) == ("failed", "not tried again: legacy owns the job")
    assert [one["status"] for one in desk.manifest()["attempts"]] == ["failed", "failed"]


def test_step_3_a_slot_that_was_claimed_is_skipped(desk: Desk) -> None:
    desk.run(desk.job())
    outcome = desk.run(desk.job(), "two")
    assert (outcome.status, desk.ran()) == ("skipped", 1)
    assert outcome.reason == f"the slot was claimed by run {run_id(SLOT, 'one')}"


@pytest.mark.parametrize("content", ["", "{", "{}", '{"run_id": "../../x", "flow_run_id": "one"}', "null"])
def test_step_3_a_claim_that_cannot_be_read_is_nobodys(desk: Desk, content: str) -> None:
    path = desk.state / "slots" / "job" / f"{slot_name(SLOT)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StateBroken):
        desk.run(desk.job())
    assert desk.ran() == 0


def test_step_4_a_locked_job_is_skipped_and_the_holder_named(desk: Desk) -> None:
    lock = Locks(desk.state).try_take("job", run_id="20251219T000000Z-abcdef", pid=4711)
    assert lock is not None
    outcome = desk.run(desk.job())
    assert outcome.reason == "the job is locked by run 20251219T000000Z-abcdef (pid 4711)"
    lock.release()
    assert desk.run(desk.job(), attempt=2).status == "success"


def test_step_4_queue_waits_for_the_lock(desk: Desk) -> None:
    lock = Locks(desk.state).try_take("job", run_id="20251219T000000Z-abcdef", pid=4711)
    assert lock is not None

    def sleep(seconds: float) -> None:
        desk.clock.sleep(seconds)
        if len(desk.clock.slept) == 3:
            lock.release()

    desk.changes["sleep"] = sleep
    assert desk.run(desk.job(overlap="queue")).status == "success"
    assert len(desk.clock.slept) == 3


def test_a_run_by_hand_needs_no_slot_and_no_owner(desk: Desk) -> None:
    assert desk.run(desk.job(legacy=LEGACY), slot=None).status == "success"
    assert not (desk.state / "slots").exists()


@pytest.mark.parametrize(("early_s", "sleeps"), [(7.5, 1), (60.0, 1), (61.0, 0), (0.0, 0)])
def test_no_slot_runs_before_its_time_unless_a_person_asked(desk: Desk, early_s: float, sleeps: int) -> None:
    desk.clock.at = SLOT - timedelta(seconds=early_s)
    desk.run(desk.job())
    assert len(desk.clock.slept) == sleeps
    assert sleeps == 0 or desk.manifest()["timing"]["started_at"] >= format_instant(SLOT)


def test_a_clock_that_is_set_back_while_we_wait(desk: Desk) -> None:
    desk.clock.at = SLOT - timedelta(seconds=5)

    def sleep(seconds: float) -> None:
        desk.clock.sleep(seconds - 2 if len(desk.clock.slept) == 0 else seconds)

    desk.changes["sleep"] = sleep
    desk.run(desk.job())
    assert desk.clock.slept == [3, 2]
