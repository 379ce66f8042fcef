"""`orchctl host`: processes of this host, judged by what they do, stopped by pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl.adapters.demo_stage import DemoStage
from orchctl.adapters.local_stack import LocalStack
from support import Project, eventually, sigint_as_usual


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Project]:
    """A project with no server named; whatever `host up` starts in it is stopped."""
    project = Project(tmp_path, "")
    project.jobs["hello"] = {"command": [project.script("hello.sh", "echo hello")], "work_pool": "alone"}
    project.write()
    yield project
    stack = LocalStack(project.state_dir, {})
    for name in stack.names():
        stack.stop(name, patience_s=5)


def processes_with(text: str) -> list[int]:
    """Return the pids of processes with `text` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_up_status_down_and_again(alone: Project) -> None:
    down = alone.orchctl("host", "status", check=1)
    assert "DOWN server: cannot reach the Prefect API" in down.stdout
    assert "hint: `orchctl host up` starts what does not run" in down.stderr
    assert "nothing was running" in alone.orchctl("host", "down").stdout
    up = alone.orchctl("host", "up", "--port", "0", timeout=280)
    assert "server schedules runs" in up.stderr
    status = alone.json("host", "status")
    assert status["ok"]
    assert status["api_url"].startswith("http://127.0.0.1:")
    again = alone.orchctl("host", "up", "--port", "0")
    assert "server is running" in again.stderr
    assert [part["pid"] for part in alone.json("host", "status")["parts"]] == [part["pid"] for part in status["parts"]]
    # Commands find this server without being told.
    alone.orchctl("sync")
    assert alone.orchctl("run", "hello", "--wait").stdout == "hello\n"
    server = status["parts"][0]["pid"]
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not alone.json("host", "status", check=1)["ok"], within=20)
    assert "DOWN" in alone.orchctl("host", "status", check=1).stdout
    alone.orchctl("host", "down")
    assert processes_with(str(alone.state_dir)) == []
    assert not list((alone.state_dir / "host").glob("*.json"))


def test_a_taken_port_is_refused_and_named(alone: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = alone.orchctl("host", "up", "--port", str(port), check=5)
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert processes_with(str(alone.state_dir)) == []


def test_a_pid_that_was_given_to_somebody_else_is_not_ours(alone: Project) -> None:
    folder = alone.state_dir / "host"
    folder.mkdir(parents=True)
    record = folder / "server.json"
    record.write_text(
        f'{{"pid": {os.getpid()}, "pid_started": 1, "boot_id": "x", "api_url": "http://127.0.0.1:9/api"}}'
    )
    record.chmod(0o600)
    alone.orchctl("host", "down")  # would end this very test


def test_the_demo_cleans_up_when_it_is_interrupted(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with sigint_as_usual():
        demo = subprocess.Popen(
            [sys.executable, "-m", "orchctl", "demo"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("$ orchctl host up") or "A Prefect server and a worker" in line:
            break
    (root,) = (path for path in tmp_path.glob("orchctl-demo-*") if "systemd" not in path.name)
    # Until the server's process is there, so that there is something to clean up.
    eventually((root / "state" / "host" / "server.json").exists, within=60)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert not list(tmp_path.glob("orchctl-demo-*"))
    assert processes_with(str(root)) == []


def test_the_demo_s_stage_passes_nothing_of_the_operator_s_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stage = DemoStage(
        {"PATH": os.environ["PATH"], "PREFECT_API_URL": "http://example.invalid/api", "ORCHCTL_CONFIG": "/x"}
    )
    try:
        code, out, err = stage.orchctl("jobs", "pulse", "--json")
        assert (code, err) == (0, "")
        assert '"work_pool": "demo"' in out
    finally:
        stage.remove()
