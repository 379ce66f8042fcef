"""A small process beside each flow run, which ends the command where the flow run's own process no longer can.

Prefect's worker, on SIGTERM, kills the process of every flow run with SIGKILL within a tenth of a second and
says nothing to the server: commands would run on, and the run would stay Running and hold its concurrency slot.
The guard lives in a session of its own, is told over a pipe what there is to end, and acts when that pipe ends
without a goodbye:

- the worker lives, or has ended in order (it then removes the flow run's folder): the command is stopped as a
  cancel would stop it, and the record is completed in its manifest and in Prefect; a run that had not begun is
  handed back to Prefect instead.
- the worker was killed too: somebody else's doing, and no reason to stop a healthy command. It runs on, holds
  the job's lock, and is stopped at its time-out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any

from orchctl.adapters import host_facts
from orchctl.core import manifest as manifests_format
from orchctl.core.manifest import RunError
from orchctl.errors import OrchctlError
from orchctl.runner.descendants import Family, send

SETTLE_S = 0.5
"""Whoever kills the worker and the flow run's process kills them within this time of each other."""
WORKER_ENDS_S = 10.0
"""A worker that was told to stop has ended by then."""
GIVE_UP_S = 5.0
_POLL_S = 0.05
_GOODBYE_S = 2.0
_SNIPPET = 8 * 1024

Tell = Callable[..., None]


@contextmanager
def watching(flow_run_id: str) -> Iterator[Tell]:
    """Keep a guard for the duration; yield what tells it facts (see `_TakeOver`). Without one the run goes on."""
    process = _start()
    pipe = process.stdin if process is not None else None

    def tell(**facts: Any) -> None:
        if pipe is not None:
            if "command" in facts:
                facts["command_started"] = host_facts.started_ticks(facts["command"])
            # One write, below what a pipe takes whole. A guard that was killed is done without.
            with suppress(OSError):
                os.write(pipe.fileno(), json.dumps(facts).encode() + b"\n")

    worker = os.getppid()
    tell(
        flow_run_id=flow_run_id,
        flow_pid=os.getpid(),
        worker=worker,
        worker_started=host_facts.started_ticks(worker),
        folder=os.getcwd() if "prefect" in os.path.basename(os.getcwd()) else None,
    )
    try:
        yield tell
    finally:
        tell(done=True)
        if process is not None and pipe is not None:
            with suppress(OSError):
                pipe.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GOODBYE_S)


def _start() -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            # The worker waits for the end of the flow run's output: the guard must not hold that open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        return None


def main(pipe: IO[bytes]) -> None:
    """Listen until the pipe ends; then act, unless goodbye was said."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A control group that is stopped as a whole must not take the guard before its work is done.
        signal.signal(number, signal.SIG_IGN)
    told: dict[str, Any] = {}
    for line in pipe:
        told.update(json.loads(line))
    if told and not told.get("done"):
        _TakeOver(told).run()


class _TakeOver:
    """What is left to do for a flow run whose process was killed.

    Told: `flow_run_id`, `flow_pid`, `worker` and `worker_started` (ticks), `folder` (which an orderly worker
    removes, or None), `run` (where its manifest is) once the start is recorded, and while the command runs
    `command` (its pid), `command_started`, `token`, `kill_after` (s), `ends_by` (monotonic).
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.family = Family(main_thread_waits=True, token=told.get("token"))
        if told.get("command"):
            self.family.take_over(told["command"], told["command_started"])

    def run(self) -> None:
        if not self._was_stopped():
            self._abandoned()
            return
        self._sweep()
        until = time.monotonic() + WORKER_ENDS_S
        while self._worker_lives() and time.monotonic() < until:
            time.sleep(_POLL_S)
        if self._worker_lives():
            reason = "the flow run's process was killed"
            self._record("cancelled" if self._is_cancelled() else "crashed", reason)
            return
        reason = "its worker was stopped"
        self._record("cancelled", reason)
        if self.told.get("run"):
            self._report("CANCELLED", f"{reason}; nothing of the command runs on")
        else:
            self._report("SCHEDULED", f"{reason} before the command began")

    def _was_stopped(self) -> bool:
        """Whether the worker did it, or something that leaves it alive: then the command ends as well."""
        lived = self._worker_lives()
        until = time.monotonic() + SETTLE_S
        while self._worker_lives():
            if time.monotonic() >= until:
                return True
            time.sleep(_POLL_S)
        folder = self.told.get("folder")
        return not os.path.exists(folder) if folder else lived

    def _abandoned(self) -> None:
        reason = "its worker and its process were killed"
        self._record("crashed", reason)
        still = f"; the command (pid {self.told['command']}) may still run" if self.told.get("command") else ""
        self._report("CRASHED", reason + still)
        if not self.told.get("command"):
            return
        while self.family.living():
            if time.monotonic() >= self.told["ends_by"]:
                self._sweep()
                return
            time.sleep(1.0)

    def _worker_lives(self) -> bool:
        started = self.told["worker_started"]
        return started is not None and host_facts.started_ticks(self.told["worker"]) == started

    def _sweep(self) -> None:
        """SIGTERM to each process of the command, SIGKILL after `kill_after`."""
        kill_at = time.monotonic() + float(self.told.get("kill_after") or 0)
        asked: set[tuple[int, int]] = set()
        while living := self.family.living():
            now = time.monotonic()
            if now >= kill_at + GIVE_UP_S:
                return
            for process in living:
                if now >= kill_at:
                    send(process, signal.SIGKILL)
                elif process.key not in asked:
                    send(process, signal.SIGTERM, signal.SIGCONT)
            asked |= {process.key for process in living}
            time.sleep(_POLL_S)

    def _record(self, status: manifests_format.Status, reason: str) -> None:
        """Complete the manifest that the dead process left as running; any other is not ours to change."""
        from orchctl.adapters.manifests import Manifests

        run = self.told.get("run")
        if not run:
            return
        tree = Manifests(run["data_root"])
        directory = tree.run_directory(run["asset"], date.fromisoformat(run["game_date"]), run["run_id"])
        with suppress(OSError, ValueError, KeyError, TypeError, OrchctlError):
            data = json.loads((directory / "manifest.json").read_bytes())
            if data["status"] != "running" or data["environment"]["pid"] != self.told["flow_pid"]:
                return
            now = datetime.now(UTC)
            began = datetime.fromisoformat(data["timing"]["started_at"])
            error = None
            if status == "crashed":
                error = RunError("Crashed", reason, _tail(directory / f"attempt-{data['attempt']}.log"))
            ended = manifests_format.finished(
                data, status, at=now, duration_s=(now - began).total_seconds(), reason=reason, error=error
            )
            tree.write(ended)
            tree.append(manifests_format.event(manifests_format.final_event_name(status), ended, at=now))

    def _is_cancelled(self) -> bool:
        with suppress(OrchctlError), _prefect() as api:
            run = api.flow_run(self.told["flow_run_id"])
            return run is not None and run.state_type in {"CANCELLING", "CANCELLED"}
        return False

    def _report(self, state: str, message: str) -> None:
        """Say it to Prefect, which would show the run as Running for ever. Without a server nothing is lost."""
        with suppress(OrchctlError), _prefect() as api:
            run = api.flow_run(self.told["flow_run_id"])
            if run is not None and not run.finished and run.state_type != "SCHEDULED":
                api.set_run_state(run.id, type=state, message=message)


def _prefect() -> Any:
    from orchctl import wiring

    environment = wiring.environment()
    app = wiring.App(wiring.Settings.of(environment), environment)
    return app.connect(app.api_url, attempts=3)


def _tail(log: Path) -> str | None:
    """Return the end of a log, which holds no secrets: they were masked before they were written."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _SNIPPET))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


if __name__ == "__main__":
    main(sys.stdin.buffer)
