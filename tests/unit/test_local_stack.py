"""What the processes of `host up` are given. That they work is seen in tests/live/test_host.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters import accounts, doctor_sockets
from orchctl.adapters.local_stack import LocalStack, another_listens, free_port, is_free
from orchctl.core.doctor_facts import Listener
from orchctl.core.host_settings import LOOPBACK, SERVER_ONLY
from orchctl.core.installation import AUTH_SERVER, DATABASE, DATABASES
from orchctl.errors import GateRefused, NotAllowed


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The environment of each process that was to be started, in order."""
    found: list[dict[str, str]] = []

    class Started:
        pid = os.getpid()

        def __init__(self, *_: object, env: dict[str, str], **__: Any) -> None:
            found.append(env)

    monkeypatch.setattr(subprocess, "Popen", Started)
    return found


def test_the_server_s_database_is_the_stack_s_own_and_a_worker_gets_none(
    tmp_path: Path, started: list[dict[str, str]]
) -> None:
    shell = {key: f"of the shell {key}" for key in SERVER_ONLY} | {"PATH": "/usr/bin"}
    stack = LocalStack(tmp_path, shell)
    url = stack.start_server(0)
    stack.start_worker("local", url, limit=3)
    server, worker = started
    assert server[DATABASE] == f"sqlite+aiosqlite:///{tmp_path}/prefect/prefect.db"
    assert {key for key in DATABASES if key in server} == {DATABASE}
    assert server[AUTH_SERVER] == shell[AUTH_SERVER]
    assert not set(SERVER_ONLY) & set(worker)
    assert worker["PATH"] == server["PATH"] == "/usr/bin"


def test_a_log_that_has_become_large_makes_room_and_one_before_it_is_kept(
    tmp_path: Path, started: list[dict[str, str]]
) -> None:
    stack, log = LocalStack(tmp_path, {"PATH": "/usr/bin"}), tmp_path / "host/worker-local.log"
    older = tmp_path / "host/worker-local.log.1"
    for size, kept in ((10 * 2**20, None), (10 * 2**20 + 1, 10 * 2**20 + 1), (10 * 2**20 + 2, 10 * 2**20 + 2)):
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with log.open("wb") as file:
            file.truncate(size)
        stack.start_worker("local", "http://127.0.0.1:9/api", limit=3)
        assert (older.stat().st_size if older.exists() else None) == kept
        assert log.stat().st_size == (0 if kept else size)
    assert stack.names() == ("worker-local",)
    assert len(started) == 3


@pytest.fixture
def listener() -> Iterator[tuple[int, int]]:
    """A process that leads a session of its own and listens on a port: both numbers."""
    script = (
        "import os, socket, time\nprobe = socket.socket()\nprobe.bind(('127.0.0.1', 0))\nprobe.listen()\n"
        "print(probe.getsockname()[1], flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_who_listens_is_told_from_another(listener: tuple[int, int]) -> None:
    pid, port = listener
    assert not another_listens(port, pid)
    assert another_listens(port, os.getpid())
    assert another_listens(port, None)
    assert not another_listens(free_port(), None)
    assert not another_listens(None, None)


@pytest.mark.parametrize(("owner", "anothers"), [("mallory", True), (accounts.user_name(os.getuid()), False)])
def test_of_a_process_that_may_not_be_looked_at_it_counts_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, owner: str, anothers: bool
) -> None:
    seen = Listener(LOOPBACK, 4200, owner, None, None, None)
    monkeypatch.setattr(doctor_sockets, "listeners", lambda _port: (seen,))
    assert another_listens(4200, os.getpid()) is anothers


def test_a_server_that_was_started_and_is_gone_has_lost_its_port_to_who_listens(
    tmp_path: Path, listener: tuple[int, int], started: list[dict[str, str]]
) -> None:
    stack = LocalStack(tmp_path, {"PATH": "/usr/bin"})
    assert not stack.port_is_anothers()
    record = tmp_path / "host/server.json"
    stack.start_server(0)
    assert not stack.port_is_anothers()
    data = json.loads(record.read_text()) | {"api_url": f"http://127.0.0.1:{listener[1]}/api"}
    record.write_text(json.dumps(data))
    assert stack.alive("server")
    assert stack.port_is_anothers()


def test_a_port_of_root_s_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(NotAllowed, match="port 420 is root's"):
        is_free(420)


def test_what_another_host_has_started_in_the_same_state_directory_is_not_started_again(
    tmp_path: Path, started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = LocalStack(tmp_path, {"PATH": "/usr/bin"})
    url = stack.start_server(0)
    stack.start_worker("local", url, limit=3)
    stack.start_worker("local", url, limit=3)
    monkeypatch.setattr(socket, "gethostname", lambda: "second")
    with pytest.raises(GateRefused, match=r"server of .* was started on "):
        stack.start_server(0)
    with pytest.raises(GateRefused, match=r"worker-local of .* was started on "):
        stack.start_worker("local", url, limit=3)
    stack.start_worker("other", url, limit=3)
    assert len(started) == 4
