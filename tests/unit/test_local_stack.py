"""What the processes of `host up` are given. That they work is seen in tests/live/test_host.py."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters.local_stack import LocalStack
from orchctl.core.host_settings import SERVER_ONLY
from orchctl.core.installation import AUTH_SERVER, DATABASE, DATABASES
from orchctl.errors import GateRefused


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
