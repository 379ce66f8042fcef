"""Which run took a slot, and which process holds a job: `state/slots/` and `state/locks/`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.names import format_instant, is_name, is_run_id, parse_slot_name, slot_name
from orchctl.errors import NotAllowed, StateBroken

_GOODBYE_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot and the run that took it; `ours` where it is the caller's flow run (a new claim, or a retry)."""

    run_id: str
    flow_run_id: str
    ours: bool


@dataclass(frozen=True, slots=True)
class OldClaims:
    """Claims of a job that are old enough to go, by slot (UTC), oldest first, and what they hold in all."""

    slots: tuple[datetime, ...]
    size_bytes: int


class Claims:
    """Slots that were taken, one file each, created exclusively: whoever creates it runs the slot.

    Claims that are old go at last (`forget`). Before the first of them does, `slots/<job>.forgotten/<slot>` says up to
    which slot, and no slot up to there is anybody's to run ever again. So a claim that is gone lets no slot run twice:
    who creates one where it was creates it after it went, and so looks for that mark after it was written.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def take(self, job: str, slot: datetime, *, run_id: str, flow_run_id: str, at: datetime) -> Claim:
        """Claim (`job`, `slot`) for a flow run, or say who has it. Repeatable by the same flow run.

        Raises StateBroken where the claim that is there cannot be read, or one that was there may have been forgotten:
        the slot is then nobody's to run.
        """
        content = {"run_id": run_id, "flow_run_id": flow_run_id, "at": format_instant(at)}
        if self._folder(job).create(_name(slot), content):
            self._refuse_forgotten(job, slot)
            return Claim(run_id, flow_run_id, ours=True)
        held = self.read(job, slot)
        if held is None:
            raise StateBroken(f"the claim {self._folder(job).path(_name(slot))} came and went")
        if held[1] == flow_run_id:
            # An earlier attempt may have been killed after it had made the claim and before it looked for the mark.
            self._refuse_forgotten(job, slot)
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

    def jobs(self) -> tuple[str, ...]:
        """Return the jobs that have claims, also those that the catalog has no more."""
        return tuple(name for name in StateFolder(self._state_dir, "slots").names() if is_name(name))

    def old(self, job: str, before: datetime) -> OldClaims:
        """Return the claims on slots before an instant, without that on the job's newest slot."""
        found: dict[datetime, int] = {}
        folder = self._folder(job)
        for name in folder.names():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found[parse_slot_name(name.removesuffix(".json"))] = folder.path(name).lstat().st_size
        newest = max(found, default=before)
        slots = tuple(sorted(slot for slot in found if slot < min(before, newest)))
        return OldClaims(slots, sum(found[slot] for slot in slots))

    def forget(self, job: str, slots: Sequence[datetime]) -> None:
        """Remove claims, once it is on the disk that no slot up to the last of them may be taken again. Repeatable."""
        if not slots:
            return
        marks, known, last = self._forgotten(job), self._marks(job), max(slots)
        marks.create(slot_name(last), {"forgotten_up_to": format_instant(last)})
        for each in known:
            # Not the other way round: for an instant there would be none.
            if each < max(last, *known):
                marks.remove(slot_name(each))
        folder = self._folder(job)
        try:
            for slot in slots:
                folder.path(_name(slot)).unlink(missing_ok=True)
        except OSError as error:
            raise NotAllowed(f"cannot remove {error.filename}: {error.strerror}", hint="see who owns it") from error

    def _refuse_forgotten(self, job: str, slot: datetime) -> None:
        """Raise StateBroken, with the claim taken back, for a slot whose first claim may have been forgotten."""
        if any(slot <= each for each in self._marks(job)):
            self._folder(job).remove(_name(slot))
            raise StateBroken(
                f"whether the slot {format_instant(slot)} of {job} has run is not known any more",
                hint="its claim may have been pruned (`orchctl host prune`); `orchctl run` runs the job for no slot",
            )

    def _marks(self, job: str) -> list[datetime]:
        folder = self._forgotten(job)
        try:
            return [parse_slot_name(name) for name in folder.names()]
        except ValueError as error:
            raise StateBroken(
                f"{folder.path('')}: {error}", hint="look at it, and remove what is not a slot"
            ) from error

    def _forgotten(self, job: str) -> StateFolder:
        # Below slots/, where a restore adds what this host has to what the archive has; no job's name holds a dot.
        return StateFolder(self._state_dir, f"slots/{job}.forgotten")

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
