"""Which run took a slot, and which process holds a job: `state/slots/` and `state/locks/`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.names import format_instant, is_run_id, slot_name
from orchctl.errors import NotAllowed, StateBroken

_GOODBYE_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot and the run that took it; `ours` where it is the caller's flow run (a new claim, or a retry)."""

    run_id: str
    flow_run_id: str
    ours: bool


class Claims:
    """Slots that were taken, one file each, created exclusively: whoever creates it runs the slot."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def take(self, job: str, slot: datetime, *, run_id: str, flow_run_id: str, at: datetime) -> Claim:
        """Claim (`job`, `slot`) for a flow run, or say who has it. Repeatable by the same flow run.

        Raises StateBroken where the claim that is there cannot be read: the slot is then nobody's to run.
        """
        content = {"run_id": run_id, "flow_run_id": flow_run_id, "at": format_instant(at)}
        if self._folder(job).create(_name(slot), content):
            return Claim(run_id, flow_run_id, ours=True)
        held = self.read(job, slot)
        if held is None:
            raise StateBroken(f"the claim {self._folder(job).path(_name(slot))} came and went")
        return Claim(held[0], held[1], ours=held[1] == flow_run_id)

    def read(self, job: str, slot: datetime) -> tuple[str, str] | None:
        """Return (run id, flow run id) of the claim on a slot, None where nobody took it."""
        data = self._folder(job).read_json(_name(slot))
        if data is None:
            return None
        if (
            not isinstance(data, dict)
            or not is_run_id(str(data.get("run_id")))
            or not isinstance(data.get("flow_run_id"), str)
        ):
            raise StateBroken(f"{self._folder(job).path(_name(slot))} is not a claim")
        return data["run_id"], data["flow_run_id"]

    def _folder(self, job: str) -> StateFolder:
        return StateFolder(self._state_dir, f"slots/{job}")


def _name(slot: datetime) -> str:
    return f"{slot_name(slot)}.json"


class JobLock:
    """The job's lock. It belongs to the open descriptor: who inherits that (the command) holds it too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Close our descriptor. An orphan that inherited it still holds the lock. Repeatable."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Locks:
    """One lock file a job."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "locks"

    def try_take(self, job: str, *, run_id: str, pid: int) -> JobLock | None:
        """Take the lock of `job` and write down for whom; None where somebody holds it. Never waits."""
        path = self._path(job)
        descriptor = files.open_lock(path)
        try:
            taken = files.try_lock(descriptor, path)
        except NotAllowed:
            os.close(descriptor)
            raise
        if not taken:
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"run_id": run_id, "pid": pid}).encode(), 0)
        return JobLock(descriptor)

    def holder(self, job: str) -> str:
        """Say who took the lock last, as far as the file tells: `run 2025…-3f9a1c (pid 4711)`."""
        found = self.recorded(job)
        return "another process" if found is None else f"run {found[0]} (pid {found[1]})"

    def stop_holders(self, job: str, *, kill_after: float) -> None:
        """End what holds the job's lock, and return when nothing does.

        The flow process gets SIGTERM: it ends its command, and writes down how that ended. Where it is gone, what is
        left of the run (an orphan) gets it. What still holds the lock after the command's `kill_after` seconds, and as
        many as Prefect needs to say goodbye, gets SIGKILL. Raises NotAllowed where these are another user's.
        """
        recorded = self.recorded(job)
        holders = self._holders(job)
        first = [pid for pid in holders if recorded is not None and pid == recorded[1]] or holders
        _signal(first, signal.SIGTERM)
        deadline = time.monotonic() + kill_after + (_GOODBYE_S if first != holders else 0.0)
        while holders := self._holders(job):
            if time.monotonic() >= deadline:
                _signal(holders, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _holders(self, job: str) -> list[int]:
        """Return the processes that have the job's lock file open: those that inherited the lock have."""
        try:
            lock = self._path(job).stat()
        except FileNotFoundError:
            return []
        found = set()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                seen = link.stat()
                if (seen.st_dev, seen.st_ino) == (lock.st_dev, lock.st_ino):
                    found.add(int(link.parts[2]))
        return sorted(found - {os.getpid()})

    def recorded(self, job: str) -> tuple[str, int] | None:
        """Return the run and the process that took the lock last, as far as the file tells."""
        try:
            data = json.loads(self._path(job).read_bytes())
            return str(data["run_id"]), int(data["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, job: str) -> Path:
        return self._directory / f"{job}.lock"


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise NotAllowed(f"the run with pid {pid} is another user's", hint="run it with sudo") from error
