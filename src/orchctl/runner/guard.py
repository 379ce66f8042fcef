"""A small process beside each flow run, which ends the command where the flow run's own process no longer can.

Prefect's worker, on SIGTERM, kills the process of every flow run with SIGKILL within a tenth of a second and
says nothing to the server: commands would run on, and the run would stay Running and hold its concurrency slot.
The guard lives in a session of its own, is told over a pipe what there is to end, and acts when that pipe ends
without a goodbye:

- the worker lives, or has ended in order (it then removes the flow run's folder): the command, or each of those of
  steps that run side by side, is stopped as a cancel would stop it, and the record is completed in the manifests and
  in Prefect; a run that had not begun is handed back to Prefect instead.
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
from orchctl.core import step_events
from orchctl.core.manifest import RunError
from orchctl.errors import OrchctlError
from orchctl.runner.descendants import Family, Process, send

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
    told = _Told()
    for line in pipe:
        told.hear(json.loads(line))
    if told.facts and not told.facts.get("done"):
        _TakeOver(told).run()


class _Told:
    """What the flow run's process has said.

    `facts`: `flow_run_id`, `flow_pid`, `worker` and `worker_started` (ticks), `folder` (which an orderly worker
    removes, or None), `run` (where its manifest is) once the start is recorded. `steps`: where the manifests of the
    steps are that have begun. `commands`, by their token, while they run: `command` (the pid), `command_started`,
    `kill_after` (s), `ends_by` (monotonic).
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, dict[str, Any]] = {}

    def hear(self, said: dict[str, Any]) -> None:
        """Take in one line."""
        if "command" in said:
            self.commands[said["token"]] = said
        elif "ended" in said:
            self.commands.pop(said["ended"], None)
        elif "step" in said:
            self.steps[said["step"]["asset"]] = said["step"]
        else:
            self.facts.update(said)


class _TakeOver:
    """What is left to do for a flow run whose process was killed."""

    def __init__(self, told: _Told) -> None:
        self.told, self.steps = told.facts, tuple(told.steps.values())
        self.commands = tuple(_Command(said) for said in told.commands.values())

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
        pids = ", ".join(str(command.pid) for command in self.commands)
        several = "s" if len(self.commands) > 1 else ""
        still = f"; the command{several} (pid {pids}) may still run" if pids else ""
        self._report("CRASHED", reason + still)
        left = list(self.commands)
        while left := [command for command in left if command.living()]:
            for command in left:
                if time.monotonic() >= command.ends_by:
                    command.begin_to_end()
                    command.end_some()
            time.sleep(_POLL_S if any(command.ending for command in left) else 1.0)

    def _worker_lives(self) -> bool:
        started = self.told["worker_started"]
        return started is not None and host_facts.started_ticks(self.told["worker"]) == started

    def _sweep(self) -> None:
        """SIGTERM to each process of each command, SIGKILL after its `kill_after`."""
        for command in self.commands:
            command.begin_to_end()
        left = self.commands
        while left := tuple(command for command in left if command.end_some()):
            time.sleep(_POLL_S)

    def _record(self, status: manifests_format.Status, reason: str) -> None:
        """Complete the manifests that the dead process left as running: those of the steps, then that of the run."""
        for step in self.steps:
            self._complete(step, status, reason)
        if self.told.get("run"):
            self._complete(self.told["run"], status, reason)

    def _complete(self, where: dict[str, Any], status: manifests_format.Status, reason: str) -> None:
        """Complete one manifest; one that is not running, or is another process's, is not ours to change."""
        from orchctl.adapters.manifests import Manifests

        tree = Manifests(where["data_root"])
        directory = tree.run_directory(where["asset"], date.fromisoformat(where["game_date"]), where["run_id"])
        with suppress(OSError, ValueError, KeyError, TypeError, OrchctlError):
            data = json.loads((directory / "manifest.json").read_bytes())
            if data["status"] != "running" or data["environment"]["pid"] != self.told["flow_pid"]:
                return
            now = datetime.now(UTC)
            began = datetime.fromisoformat(data["timing"]["started_at"])
            error = None
            if status == "crashed":
                error = RunError("Crashed", reason, _tail(directory / f"attempt-{data['attempt']}.log"))
            if data.get("steps"):
                data["steps"] = _rows(data["steps"], tree.steps_of(data), status)
            ended = manifests_format.finished(
                data, status, at=now, duration_s=(now - began).total_seconds(), reason=reason, error=error
            )
            tree.write(ended)
            if manifests_format.is_step(ended):
                tree.append(step_events.finished(ended, at=now))
            else:
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


class _Command:
    """A command that the dead process left behind."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.pid: int = said["command"]
        self.ends_by: float = said["ends_by"]
        self.ending = False
        self._kill_after = float(said["kill_after"] or 0)
        self._kill_at = float("inf")
        self._asked: set[tuple[int, int]] = set()
        self._family = Family(main_thread_waits=True, token=said["token"])
        self._family.take_over(self.pid, said["command_started"])

    def living(self) -> tuple[Process, ...]:
        """Return its processes that still run."""
        return self._family.living()

    def begin_to_end(self) -> None:
        """From now on it is to end. Repeatable."""
        if not self.ending:
            self.ending, self._kill_at = True, time.monotonic() + self._kill_after

    def end_some(self) -> bool:
        """Signal what has to be signalled now; False where nothing is left, or cannot be killed."""
        now, living = time.monotonic(), self.living()
        if now >= self._kill_at + GIVE_UP_S:
            return False
        for process in living:
            if now >= self._kill_at:
                send(process, signal.SIGKILL)
            elif process.key not in self._asked:
                send(process, signal.SIGTERM, signal.SIGCONT)
        self._asked |= {process.key for process in living}
        return bool(living)


def _rows(
    rows: list[dict[str, Any]], steps: list[dict[str, Any]], status: manifests_format.Status
) -> list[dict[str, Any]]:
    """Return the lines of a run's manifest by those of its steps, for a run that could not write them itself."""
    by_name = {step["step"]: step for step in steps}
    return [
        {**row, **_row_of(by_name[row["name"]])} if row["name"] in by_name else {**row, "status": status}
        for row in rows
    ]


def _row_of(step: dict[str, Any]) -> dict[str, Any]:
    reason = step["reason"] or (step["error"] or {}).get("message")
    return {"status": step["status"], "reason": reason, "attempts": step["attempt"], **step["timing"]}


def _prefect() -> Any:
    from orchctl import wiring

    environment = wiring.environment()
    app = wiring.App(wiring.Settings.of(environment), environment)
    return app.connect(app.api_url, attempts=3)


def _tail(log: Path) -> str | None:
    """Return the end of a log, which holds no secrets: they were masked before they were written."""
    from orchctl.adapters.manifests import Manifests

    try:
        end = Manifests.log_end(log, _SNIPPET)
    except OrchctlError:
        return None
    return None if end is None else end.decode("utf-8", "replace")


if __name__ == "__main__":
    main(sys.stdin.buffer)
