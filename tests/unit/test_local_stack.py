"""What the processes of `host up` are given. That they work is seen in tests/live/test_host.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters import local_stack
from orchctl.adapters.local_stack import LocalStack
from orchctl.core.host_settings import SERVER_ONLY
from orchctl.core.installation import AUTH_SERVER, DATABASE, DATABASES


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The environment of each process that was to be started, in order."""
    found: list[dict[str, str]] = []

    class Started:
        pid = os.getpid()

        def __init__(self, *_: object, env: dict[str, str], **__: Any) -> None:
            found.append(env)

    monkeypatch.setattr(local_stack.subprocess, "Popen", Started)
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
