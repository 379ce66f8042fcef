"""Which run took a slot, and which process holds a job: `state/slots/` and `state/locks/`."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.core.names import format_instant, is_run_id, slot_name
from orchctl.errors import NotAllowed, StateBroken


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot and the run that took it; `ours` where it is the caller's flow run (a new claim, or a retry)."""

    run_id: str
    flow_run_id: str
    ours: bool


class Claims:
    """Slots that were taken, one file each, created exclusively: whoever creates it runs the slot."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "slots"

    def take(self, job: str, slot: datetime, *, run_id: str, flow_run_id: str, at: datetime) -> Claim:
        """Claim (`job`, `slot`) for a flow run, or say who has it. Repeatable by the same flow run.

        Raises StateBroken where the claim that is there cannot be read: the slot is then nobody's to run.
        """
        path = self._path(job, slot)
        files.make_directory(path.parent, mode=0o700)
        content = files.dump({"run_id": run_id, "flow_run_id": flow_run_id, "at": format_instant(at)})
        if files.create_exclusive(path, content):
            return Claim(run_id, flow_run_id, ours=True)
        held = self.read(job, slot)
        if held is None:
            raise StateBroken(f"the claim {path} came and went")
        return Claim(held[0], held[1], ours=held[1] == flow_run_id)

    def read(self, job: str, slot: datetime) -> tuple[str, str] | None:
        """Return (run id, flow run id) of the claim on a slot, None where nobody took it."""
        path = self._path(job, slot)
        data = files.read_json(path)
        if data is None:
            return None
        if (
            not isinstance(data, dict)
            or not is_run_id(str(data.get("run_id")))
            or not isinstance(data.get("flow_run_id"), str)
        ):
            raise StateBroken(f"{path} is not a claim")
        return data["run_id"], data["flow_run_id"]

    def _path(self, job: str, slot: datetime) -> Path:
        return self._directory / job / f"{slot_name(slot)}.json"


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
        path = self._directory / f"{job}.lock"
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
        try:
            data = json.loads((self._directory / f"{job}.lock").read_bytes())
            return f"run {data['run_id']} (pid {data['pid']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
