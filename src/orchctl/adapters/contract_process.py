"""Contracts are checked in a process of their own: a worker must not carry Polars, nor run the pipeline's code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchctl.core.contracts import Boundary, Checked
from orchctl.errors import ContractsUnavailable, OrchctlError

_MODULE = "orchctl.adapters.contract_check"
_LOOK_S = 0.1
_BARE = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def ask(
    boundaries: Sequence[Boundary],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout_s: float,
    stopped: Callable[[], bool] = lambda: False,
    identity: Mapping[str, Any] | None = None,
) -> tuple[Checked, ...]:
    """Check all boundaries in one process and return what came of each file, in the order asked and then by path.

    A glob that matches nothing is a finding too. `cwd`: from where a schema's module is found. `env`: the whole
    environment. `timeout_s`: seconds until the process is killed, `inf` for no limit; `stopped` is asked ten times a
    second whether to kill it. `identity`: the user it becomes (`user`, `group`, `extra_groups`: ids), None for ours.

    Raises ContractsUnavailable where Polars or Pandera is missing, OrchctlError for a time-out, a stop or a crash.
    """
    if not boundaries:
        return ()
    asked = [each.to_json() for each in boundaries]
    request = {"boundaries": asked, "env": dict(env), "identity": dict(identity) if identity else None}
    with _started(cwd) as process:
        try:
            out, said = _talk(process, json.dumps(request).encode(), timeout_s, stopped)
        except BaseException:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return _read(process.returncode, out, said)


def _started(cwd: str) -> subprocess.Popen[bytes]:
    # It becomes another user only when Polars is loaded: that user need not be able to read where we are installed.
    # Until then it must have nothing of the job's environment, such as an LD_PRELOAD.
    argv, pipe = [sys.executable, "-P", "-W", "ignore", "-m", _MODULE], subprocess.PIPE
    try:
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=_BARE, start_new_session=True)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if not os.path.isdir(cwd):
            reason = f"there is no directory {cwd}"
        raise OrchctlError(f"the contract check could not be started: {reason}") from error


def _talk(
    process: subprocess.Popen[bytes], request: bytes, timeout_s: float, stopped: Callable[[], bool]
) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    given: bytes | None = request
    while True:
        try:
            return process.communicate(given, timeout=max(0.0, min(_LOOK_S, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            given = None  # it goes on with what it was given first
        if stopped():
            raise OrchctlError("the contract check was stopped")
        if time.monotonic() >= deadline:
            raise OrchctlError(f"the contract check took more than {timeout_s:.0f} s, and was stopped")


def _read(code: int, out: bytes, said: bytes) -> tuple[Checked, ...]:
    try:
        answer = json.loads(out) if code == 0 else {}
    except ValueError:
        answer = {}
    if "unavailable" in answer:
        raise ContractsUnavailable(
            f"contracts cannot be checked: {answer['unavailable']}",
            hint="install what checks them: pip install 'orchctl[contracts]'",
        )
    if "checked" not in answer:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = said.decode("utf-8", "backslashreplace").strip().splitlines()
        raise OrchctlError(
            f"the contract check {how}" + (f": {lines[-1]}" if lines else ""),
            hint="SIGKILL is what the kernel does where memory ends" if code == -signal.SIGKILL else None,
        )
    return tuple(Checked.from_json(each) for each in answer["checked"])
