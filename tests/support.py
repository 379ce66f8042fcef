"""What the live tests work with: a running stack, an operator's folder, patience."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import tomli_w

from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.errors import PrefectApiError
from orchctl.services import stack

POOL = "tests"


@dataclass(frozen=True)
class Live:
    """The running server and its worker. `state_dir` is that of the stack (the worker's ORCHCTL_STATE_DIR)."""

    api_url: str
    state_dir: Path
    stack: LocalStack

    def api(self) -> PrefectApi:
        return PrefectApi(url=self.api_url)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Return what the server answers to what orchctl itself never asks."""
        answer = httpx.request(method, self.api_url + path, json=body, timeout=90)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


def clock() -> stack.Clock:
    return stack.Clock(time.monotonic, time.sleep, lambda: datetime.now(UTC))


@contextlib.contextmanager
def sigint_as_usual() -> Iterator[None]:
    """Let processes that are started within obey SIGINT.

    Tests in the background of a script ignore it, their children inherit that, and a worker, which passes SIGTERM on
    to itself as SIGINT, could not even be stopped.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


STRESS = os.environ.get("ORCHCTL_STRESS") == "1"
"""Whether campaigns have their full length: `make stress`."""


def command_line(*words: str, home: Path, check: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run orchctl in a process of its own, without a terminal, with this HOME; see that it ends with `check`."""
    done = subprocess.run(
        [sys.executable, "-m", "orchctl", *words],
        env={**clean_env(), "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done


def answers(api_url: str, auth_string: str | None = None) -> bool:
    """Whether a server answers, asked once."""
    with contextlib.suppress(PrefectApiError), PrefectApi(url=api_url, auth_string=auth_string, attempts=1) as api:
        return bool(api.version())
    return False


def clean_env() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "ORCHCTL_"))}


@dataclass
class Project:
    """An operator's folder: catalog, state directory, data root and scripts, driven by the real command line."""

    root: Path
    api_url: str
    jobs: dict[str, Any] = field(default_factory=dict)
    schedules: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    name: str = "tests"

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    def script(self, name: str, text: str) -> str:
        """Write an executable script (`#!/bin/sh` unless it says otherwise); return the argv word for it."""
        path = self.root / "scripts" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return f"scripts/{name}"

    def write(self) -> None:
        """Write the catalog's two files from `jobs`, `schedules` and `defaults`."""
        config = self.root / "config"
        config.mkdir(exist_ok=True)
        self.data_root.mkdir(exist_ok=True)
        defaults = {"data_root": str(self.data_root), "working_directory": str(self.root), "work_pool": POOL}
        jobs = {"version": 1, "name": self.name, "defaults": {**defaults, **self.defaults}, "jobs": self.jobs}
        jobs |= {"limits": self.limits} if self.limits else {}
        (config / "jobs.toml").write_text(tomli_w.dumps(jobs))
        zones = {"version": 1, "timezone": "America/New_York", "schedules": self.schedules}
        (config / "schedules.toml").write_text(tomli_w.dumps(zones))

    def orchctl(self, *words: str, check: int | None = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command line as a process; `check` is the exit code that must come, None for any."""
        done = subprocess.run(
            [sys.executable, "-m", "orchctl", *words],
            env=self.env(),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check is not None:
            assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def env(self) -> dict[str, str]:
        places = {"ORCHCTL_CONFIG": str(self.root / "config"), "ORCHCTL_STATE_DIR": str(self.state_dir)}
        return {**clean_env(), **places, **({"PREFECT_API_URL": self.api_url} if self.api_url else {})}

    def json(self, *words: str, check: int | None = 0) -> Any:
        """Run with --json and return the envelope's data."""
        return json.loads(self.orchctl(*words, "--json", check=check).stdout)["data"]

    def manifest(self, run_id: str) -> dict[str, Any]:
        """Return the manifest of a run."""
        (path,) = self.data_root.glob(f"manifests/*/game_date=*/run={run_id}/manifest.json")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


patience = 1
"""3 where real parts take part: set before each test, in conftest.py."""


def eventually(what: Callable[[], Any], *, within: float = 60, poll: float = 0.2) -> Any:
    """Return the first true answer of `what`; fail with the last one after `within` seconds, times `patience`.

    `within` is what a quiet machine needs at most. Where Prefect takes part, it is tripled: on a busy machine its
    SQLite database answers after half a minute.
    """
    deadline = time.monotonic() + patience * within
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {patience} * {within} s: {answer!r}"
        time.sleep(poll)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 KiB, at a path that is made; skips where none may be mounted."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "orchctl-test", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
