"""What a run leaves behind when it is interrupted, killed, raced for, or cannot write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from desk import DIGEST, SLOT, Desk
from orchctl.adapters import files
from orchctl.adapters.manifests import Manifests
from orchctl.errors import NotAllowed, OrchctlError, StateBroken
from orchctl.runner import process
from orchctl.runner.job import execute
from orchctl.runner.shapes import Request


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_job_that_was_not_applied(desk: Desk) -> None:
    host = desk.host(desk.job())
    for name, digest in (("job", "sha256:" + "b" * 64), ("job", "../x"), ("../job", DIGEST), ("job\0", DIGEST)):
        with pytest.raises(StateBroken):
            execute(Request(name, digest, "one", SLOT, 1, SLOT, "schedule"), host, desk.log.append)
    assert list(desk.data.iterdir()) == []


def test_a_command_that_cannot_start(desk: Desk) -> None:
    outcome = desk.run(desk.job("./no-such-program"))
    assert (outcome.status, outcome.exit_code) == ("failed", 127)
    assert desk.manifest()["error"]["type"] == "NotStarted"


class Dying(Manifests):
    """A tree that fails at its n-th write, as a full disk or a kill would have it."""

    def __init__(self, root: str, at: int, error: BaseException) -> None:
        super().__init__(root)
        self.calls, self.at, self.error = 0, at, error

    def _count(self) -> None:
        self.calls += 1
        if self.calls >= self.at:
            raise self.error

    def write(self, manifest: Any) -> Path:
        self._count()
        return super().write(manifest)

    def append(self, event: Any) -> None:
        self._count()
        super().append(event)


@pytest.mark.parametrize("at", [1, 2])
def test_a_start_that_cannot_be_recorded_starts_nothing(desk: Desk, at: int) -> None:
    tree = Dying(str(desk.data), at, OrchctlError("cannot write x: No space left on device"))
    desk.changes["manifests"] = lambda _root: tree
    with pytest.raises(OrchctlError, match="No space left"):
        desk.run(desk.job())
    assert desk.ran() == 0


@pytest.mark.parametrize("at", [3, 4])
def test_an_end_that_cannot_be_recorded_is_told(desk: Desk, at: int) -> None:
    tree = Dying(str(desk.data), at, OrchctlError("cannot write x: No space left on device"))
    desk.changes["manifests"] = lambda _root: tree
    outcome = desk.run(desk.job())
    assert (outcome.status, outcome.unrecorded) == ("success", "cannot write x: No space left on device")
    assert any("could not be recorded" in line for line in desk.log)


class Killed(BaseException):
    """As if this process ended here: nothing after it is done."""


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_kill_at_any_write_leaves_state_that_can_be_read(desk: Desk, at: int) -> None:
    tree = Dying(str(desk.data), at, Killed())
    desk.changes["manifests"] = lambda _root: tree
    with pytest.raises(Killed):
        desk.run(desk.job())
    desk.changes.clear()
    skipped: list[Any] = []
    told = list(desk.tree.events(SLOT.date(), skipped=skipped))
    assert [run.status for run in told] == ["running"] * (at > 1) + []
    assert [data["status"] for _, data in desk.tree.all_manifests(skipped=skipped)] == {
        1: [],
        2: [],
        3: ["running"],
        4: ["success"],
    }[at]
    assert skipped == []
    # Nobody else may take the slot; the same flow run may, and completes the record.
    assert desk.run(desk.job(), "two").status == "skipped"
    assert desk.run(desk.job(), attempt=2).status == "success"
    assert desk.manifest()["status"] == "success"


# --- interruption


class Terminated(BaseException):
    """What Prefect's handler of SIGTERM raises."""


@pytest.fixture
def sigterm() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_an_interruption_ends_the_command_and_is_recorded(desk: Desk, sigterm: None) -> None:
    desk.changes["tell"] = lambda **facts: os.kill(os.getpid(), signal.SIGTERM) if "command" in facts else None
    with pytest.raises(Terminated):
        desk.run(desk.job("sleep", "77.25"))
    manifest = desk.manifest()
    assert (manifest["status"], manifest["signal"]) == ("cancelled", "SIGTERM")
    assert manifest["reason"] == "interrupted by Terminated"
    assert desk.events()[-1] == ("run_finished", 1, "cancelled")
    desk.changes.clear()
    assert desk.run(desk.job(), "two", slot=None).status == "success"


@pytest.mark.parametrize(("at", "status"), [(1, "cancelled"), (2, "cancelled"), (3, "success"), (4, "success")])
def test_an_interruption_breaks_off_no_record(desk: Desk, sigterm: None, at: int, status: str) -> None:
    class Interrupting(Dying):
        def _count(self) -> None:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(0.1)

    tree = Interrupting(str(desk.data), at, Killed())
    desk.changes["manifests"] = lambda _root: tree
    with pytest.raises(Terminated):
        desk.run(desk.job())
    assert (desk.manifest()["status"], desk.events()[-1][2]) == (status, status)
    assert [event[2] for event in desk.events()] == ["running", status]


def test_an_interruption_leaves_less_time_than_prefect_gives(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.INTERRUPTED_S <= 20
    monkeypatch.setattr(process, "INTERRUPTED_S", 0.3)

    def tell(**facts: Any) -> None:
        if "command" in facts:
            threading.Event().wait(0.3)
            raise Terminated

    desk.changes["tell"] = tell
    with pytest.raises(Terminated):
        desk.run(desk.job("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", kill_after="60s"))
    assert desk.manifest()["signal"] == "SIGKILL"
    assert desk.manifest()["timing"]["duration_s"] < 10


# --- races


def test_one_of_sixteen_threads_runs_a_slot(desk: Desk) -> None:
    job = desk.job(overlap="queue")
    barrier = threading.Barrier(16)

    def go(number: int) -> str:
        barrier.wait()
        return desk.run(job, f"flow-{number}").status

    with ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(go, range(16)))
    assert statuses == ["skipped"] * 15 + ["success"]
    assert desk.ran() == 1


CLAIMANT = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from orchctl.adapters.claims import Claims
from orchctl.core.names import run_id

print("ready", flush=True)
sys.stdin.read()
claims, me, won = Claims(Path(sys.argv[1])), sys.argv[2], 0
for minute in range(20):
    slot = datetime(2025, 12, 19, 5, minute, tzinfo=UTC)
    won += claims.take("job", slot, run_id=run_id(slot, me), flow_run_id=me, at=slot).ours
print(won)
"""


def test_one_of_eight_processes_claims_a_slot(tmp_path: Path) -> None:
    gate, opener = os.pipe()

    def start(number: int) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", CLAIMANT, str(tmp_path), str(number)]
        return subprocess.Popen(argv, stdin=gate, stdout=subprocess.PIPE, text=True)

    children = [start(number) for number in range(8)]
    os.close(gate)
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    os.close(opener)
    wins = [int(child.communicate()[0]) for child in children]
    assert sum(wins) == 20
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_lock_that_cannot_be_made(desk: Desk) -> None:
    files.make_directory(desk.state / "locks")
    (desk.state / "locks" / "job.lock").symlink_to("/etc/passwd")
    with pytest.raises(NotAllowed):
        desk.run(desk.job())
    assert desk.ran() == 0
