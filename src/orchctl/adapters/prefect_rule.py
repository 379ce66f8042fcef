"""Prefect's own rules of when a schedule is due, asked in a process of its own: importing them takes a second."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from orchctl.errors import OrchctlError

TIMEOUT_S = 120.0
_MODULE = "orchctl.runner.instants"
Answer = Callable[[], tuple[list[int], ...]]


class PrefectRule:
    """Asks the Prefect that is installed beside orchctl. `environment` is the caller's."""

    def __init__(self, environment: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> None:
        # Settings, a profile or a home of Prefect's play no part in its rules, and importing it makes that home.
        self._environment = {key: value for key, value in environment.items() if not key.startswith("PREFECT_")}
        self._timeout_s = timeout_s

    @contextmanager
    def asked(
        self,
        schedules: Sequence[Mapping[str, Any]],
        start: datetime,
        end: datetime | None,
        *,
        count: int | None = None,
    ) -> Iterator[Answer]:
        """Ask at once; the caller does its own work and then calls what it is given for the answer.

        `schedules` are in the JSON of Prefect's API (`core.schedules.canonical`). The answer is, for each, the epoch
        seconds from `start` up to, and without, `end`, at most `count`. Asking for it raises OrchctlError.
        """
        request = {"schedules": [dict(each) for each in schedules], "start": start.isoformat(), "count": count}
        text = json.dumps({**request, "end": end.isoformat() if end else None})
        deadline = time.monotonic() + self._timeout_s
        with tempfile.TemporaryDirectory(prefix="orchctl-prefect-") as home:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**self._environment, "PREFECT_HOME": home},
            )
            with process:
                try:
                    _send(process, text)
                    yield lambda: self._answer(process, deadline)
                finally:
                    process.kill()

    def _answer(self, process: subprocess.Popen[str], deadline: float) -> tuple[list[int], ...]:
        try:
            out, said = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise OrchctlError(
                f"Prefect's rules gave no answer within {self._timeout_s:.0f} s: the schedule is due too often",
                hint="compare fewer days: --days 30",
            ) from error
        lines = said.strip().splitlines() or ["no message"]
        if process.returncode != 0:
            refused = f"Prefect does not take the schedule: {lines[0]}"
            # An exit code of the module's own, see runner/instants.py.
            raise OrchctlError(refused if process.returncode == 3 else f"Prefect's rules failed: {lines[-1]}")
        try:
            found: list[list[int]] = json.loads(out)
        except ValueError as error:
            raise OrchctlError("Prefect's rules gave an answer that cannot be read") from error
        return tuple(found)


def _send(process: subprocess.Popen[str], text: str) -> None:
    stream = process.stdin
    if stream is not None:
        try:
            stream.write(text)
            stream.close()
        except BrokenPipeError:
            pass  # It ended at once; why is in its own words, which the answer reads.
        finally:
            # `communicate` would write to it again.
            process.stdin = None
