"""The guard beside a flow run, without Prefect: a worker and a flow run's process that are only called so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands import eventually
from orchctl.adapters import host_facts
from orchctl.adapters.manifests import Manifests
from orchctl.core import manifest as form
from orchctl.core.manifest import Identity, Place
from orchctl.runner import guard

RUN = "20251219T050000Z-abcdef"
AT = datetime(2025, 12, 19, 5, tzinfo=UTC)

# The worker; its child is the flow run's process, and that one's child the command.
WORKER = """
import subprocess, sys, tempfile
with tempfile.TemporaryDirectory(suffix="prefect") as folder:
    child = subprocess.Popen([sys.executable, "-c", sys.stdin.read(), *sys.argv[1:]], cwd=folder)
    print(child.pid, flush=True)
    child.wait()
"""
FLOW = """
import json, os, subprocess, sys, time
from orchctl.runner import guard
from pathlib import Path
root = Path(sys.argv[1])
with guard.watching("flow-run") as tell:
    script = "trap '' TERM; setsid sleep 77.25 & echo x > ready; while :; do sleep 0.1; done"
    env = {**os.environ, "ORCHCTL_RUN_TOKEN": "t" * 32}
    command = subprocess.Popen(["sh", "-c", script], cwd=root, start_new_session=True, env=env)
    tell(run={"data_root": str(root), "asset": "job", "game_date": "2025-12-19", "run_id": sys.argv[2]})
    tell(command=command.pid, token="t" * 32, kill_after=0.3, ends_by=time.monotonic() + float(sys.argv[3]))
    (root / "command.pid").write_text(str(command.pid))
    time.sleep(77)
"""


class Stage:
    def __init__(self, root: Path) -> None:
        self.root, self.tree = root, Manifests(str(root))

    def begin(self, ends_in: float = 60, flow: str = FLOW) -> None:
        root = str(self.root)
        env = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "ORCHTEST": root, "TMPDIR": root}
        argv = [sys.executable, "-c", WORKER, str(self.root), RUN, str(ends_in)]
        self.worker = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(flow)
        self.worker.stdin.close()
        self.flow = int(self.worker.stdout.readline())
        ticks = host_facts.started_ticks(self.flow) or 0
        place = Place("host", "boot", self.flow, ticks)
        who = Identity("job", "job", RUN, AT.date(), AT, AT, "schedule", "live", 1)
        self.tree.write(form.started(who, place, {}, at=AT))
        assert eventually((self.root / "command.pid").exists)
        assert eventually((self.root / "ready").exists)

    def rewrite(self, **fields: Any) -> None:
        """Write a manifest as that of the run, with other fields."""
        self.tree.write({**self.read("job"), **fields})

    def read(self, asset: str) -> dict[str, Any]:
        path = self.tree.run_directory(asset, AT.date(), RUN) / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def lives(self, token: bytes) -> bool:
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if b"ORCHCTL_RUN_TOKEN=" + token in path.read_bytes().split(b"\0"):
                    return True
        return False

    def command_lives(self) -> bool:
        found = 0
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                found += f"ORCHCTL_RUN_TOKEN={'t' * 32}".encode() in path.read_bytes().split(b"\0")
        return found > 0

    def manifest(self) -> dict[str, Any]:
        path = self.tree.run_directory("job", AT.date(), RUN) / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def ours(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"ORCHTEST={self.root}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return [pid for pid in found if host_facts.started_ticks(pid) is not None]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for pid in stage.ours():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with stage.worker:
        stage.worker.kill()


def test_a_worker_that_kills_and_ends_leaves_no_command(stage: Stage) -> None:
    stage.begin()
    os.kill(stage.flow, signal.SIGKILL)
    assert eventually(lambda: not stage.command_lives(), within_s=15)
    assert eventually(lambda: stage.manifest()["status"] == "cancelled", within_s=15)
    assert stage.manifest()["reason"] == "its worker was stopped"
    assert eventually(lambda: stage.ours() == [], within_s=15)


def test_a_killed_worker_leaves_the_command_to_its_time_out(stage: Stage) -> None:
    stage.begin(ends_in=5)
    stage.worker.kill()
    os.kill(stage.flow, signal.SIGKILL)
    assert eventually(lambda: stage.manifest()["status"] == "crashed", within_s=15)
    assert stage.command_lives()
    assert eventually(lambda: not stage.command_lives(), within_s=15)


def test_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = guard._start

    def remembered() -> subprocess.Popen[bytes] | None:
        process = start()
        assert process is not None
        started.append(process)
        return process

    monkeypatch.setattr(guard, "_start", remembered)
    with guard.watching("flow-run") as tell:
        tell(command=os.getpid(), token="x", kill_after=0, ends_by=0)
    assert started[0].returncode == 0


def test_a_run_goes_on_without_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_start", lambda: None)
    with guard.watching("flow-run") as tell:
        tell(command=os.getpid())


def test_a_guard_that_was_killed_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["true"], stdin=subprocess.PIPE)
        process.wait()
        return process

    monkeypatch.setattr(guard, "_start", dead)
    with guard.watching("flow-run") as tell:
        tell(command=os.getpid())


STEPS = """
import json, os, subprocess, sys, time
from orchctl.runner import guard
from pathlib import Path
root = Path(sys.argv[1])
with guard.watching("flow-run") as tell:
    where = {"data_root": str(root), "game_date": "2025-12-19", "run_id": sys.argv[2]}
    tell(run={**where, "asset": "job"})
    for name in ("done", "one", "two"):
        tell(step={**where, "asset": name})
        token = (name * 32)[:32]
        script = "trap '' TERM; setsid sleep 77.25 & while :; do sleep 0.1; done"
        env = {**os.environ, "ORCHCTL_RUN_TOKEN": token}
        command = subprocess.Popen(["sh", "-c", script], cwd=root, start_new_session=True, env=env)
        tell(command=command.pid, token=token, kill_after=0.3, ends_by=time.monotonic() + float(sys.argv[3]))
        if name == "done":
            command.kill()
            command.wait()
            tell(ended=token)
    (root / "command.pid").write_text("all")
    (root / "ready").touch()
    time.sleep(77)
"""


def test_all_steps_that_run_are_stopped_and_completed(stage: Stage) -> None:
    stage.begin(flow=STEPS)
    names = ("done", "one", "two", "later")
    stage.rewrite(steps=[{"name": name, "status": "waiting", "reason": None, "attempts": 0} for name in names])
    for name, status in (("done", "success"), ("one", "running"), ("two", "running")):
        stage.rewrite(status=status, step=name, asset=name)
    os.kill(stage.flow, signal.SIGKILL)
    assert eventually(lambda: stage.read("job")["status"] == "cancelled", within_s=15)
    found = {row["name"]: row["status"] for row in stage.read("job")["steps"]}
    assert found == {"done": "success", "one": "cancelled", "two": "cancelled", "later": "cancelled"}
    assert [stage.read(name)["status"] for name in names[:3]] == ["success", "cancelled", "cancelled"]
    assert eventually(lambda: not any(stage.lives((name * 32)[:32].encode()) for name in ("one", "two")), within_s=15)
    lines = [line for path in stage.root.glob("manifests/events/*") for line in path.read_text().splitlines()]
    told = [(one["event"], one.get("step")) for one in map(json.loads, lines)]
    assert told == [("step_finished", "one"), ("step_finished", "two"), ("run_finished", None)]
