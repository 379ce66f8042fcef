"""Legacy runs as systemd's journal tells of them: entries of its managers, folded by invocation. Pure.

What the managers log differs by type and scope (systemd 252 to 257): a oneshot is "Starting" and then "Finished", any
other service only "Started"; the user's managers do not log that a service ended well. A start that a condition held
back has no invocation of its own, and carries that of the run before.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchctl.core.legacy import SYSTEM, Manager, Service

KINDS = {
    "7d4958e842da4a758f6c1cdc7b36dcc5": "starting",
    "39f53479d3a045ac8e11786248231fbf": "started",
    "be02cf6855d2428ba40df7e9d022f03d": "start-failed",
    "98e322203f7a4ed290d09fe03c09fe15": "exit",
    "d9b373ed55a64feb8242e02dbe79a49c": "failed",
    "7ad2d189f7e94e70a38c781354912448": "succeeded",
    "0e4284a0caca4bfc81c0bb6786972673": "condition",
    "de5b426a63be47a7b6ac3eaac82e2f6f": "stopping",
    "9d1aaa27d60140bd96365438aad20286": "stopped",
}
"""systemd's MESSAGE_IDs, by what they mean here."""
FIELDS = (
    "MESSAGE,MESSAGE_ID,INVOCATION_ID,USER_INVOCATION_ID,UNIT,USER_UNIT,JOB_RESULT,UNIT_RESULT,COMMAND,EXIT_CODE,"
    "EXIT_STATUS,_UID"
)
"""What to ask for, as `journalctl --output-fields` takes it."""
LOST, REBOOTED = "lost", "rebooted"
SETTLED_S, GONE_S = 2.0, 60.0
"""Seconds after which the journal holds the end of a run, and after which a service shows a run that goes on."""
_NEVER_STARTED = "resources"
_HELD = {
    "assert": "an assertion of the unit does not hold",
    "dependency": "a unit that it requires failed",
    "start-limit-hit": "it was started too often (its start limit)",
}
_MAIN_CODES = {1: "exited", 2: "killed", 3: "dumped"}


def run_key(manager: Manager, invocation: str) -> str:
    """Return what tells a run from every other: scope and invocation."""
    return f"{manager.scope}:{invocation}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a manager about a service. `invocation` is "" where the message carries none."""

    cursor: str
    at: datetime
    boot_id: str
    manager: Manager
    unit: str
    invocation: str
    kind: str
    message: str
    result: str | None = None
    command: str | None = None
    code: str | None = None
    status: int | None = None

    @property
    def key(self) -> str:
        """Which run it is about (see `LegacyRun.key`)."""
        return run_key(self.manager, self.invocation)


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """One invocation of a service. Instants are UTC.

    `result` None: it goes on, as far as was read; else systemd's own word (success, exit-code, signal, timeout,
    oom-kill, resources, …), or `LOST` and `REBOOTED`, where how it ended is in no journal. `ended_at` None: it goes on,
    or nobody wrote down when it ended. `exit_code` is 0 where systemd counts it as success. `command` is the line whose
    exit that is (ExecStart, ExecStartPre, …), None for success. `stopped`: it was told to stop (systemctl, shutdown).
    `ran` is False where an ExecCondition= held it back. `ready`: it was seen to have "Started", so it is no oneshot.
    """

    unit: str
    manager: Manager
    invocation: str
    boot_id: str
    started_at: datetime
    ended_at: datetime | None = None
    result: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    command: str | None = None
    stopped: bool = False
    ran: bool = True
    ready: bool = False

    @property
    def is_open(self) -> bool:
        """Whether no end of it was read."""
        return self.result is None

    @property
    def key(self) -> str:
        """What tells it from every other run (see `run_key`)."""
        return run_key(self.manager, self.invocation)


@dataclass(frozen=True, slots=True)
class Written:
    """Which run's output is meant, and when it ran; `until` None: nobody wrote down when it ended."""

    manager: Manager
    unit: str
    invocation: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A start that systemd did not carry out, and why."""

    unit: str
    manager: Manager
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Folded:
    """The runs that entries tell of, those that go on included, and the starts that were held back."""

    runs: tuple[LegacyRun, ...]
    held: tuple[HeldBack, ...]


def entry_of(data: Mapping[str, Any], users: Mapping[str, Manager]) -> Entry | None:
    """Read one line of `journalctl -o json`; None where it is no message of a manager about a service.

    `users` are the users' managers by uid. Raises ValueError where a field that every entry has is missing.
    """
    kind = KINDS.get(str(data.get("MESSAGE_ID")))
    unit = data.get("UNIT") or data.get("USER_UNIT")
    manager = SYSTEM if "UNIT" in data else users.get(str(data.get("_UID")))
    if kind is None or not isinstance(unit, str) or manager is None:
        return None
    try:
        return Entry(
            cursor=str(data["__CURSOR"]),
            at=instant(data["__REALTIME_TIMESTAMP"]),
            boot_id=str(data["_BOOT_ID"]),
            manager=manager,
            unit=unit,
            invocation=str(data.get("INVOCATION_ID") or data.get("USER_INVOCATION_ID") or ""),
            kind=kind,
            message=text_of(data.get("MESSAGE")).decode("utf-8", "backslashreplace"),
            result=data.get("UNIT_RESULT") or data.get("JOB_RESULT"),
            command=data.get("COMMAND"),
            code=data.get("EXIT_CODE"),
            status=int(data["EXIT_STATUS"]) if str(data.get("EXIT_STATUS", "")).isdecimal() else None,
        )
    except KeyError as error:
        raise ValueError(f"an entry of the journal has no {error}") from error


def instant(microseconds: str | int) -> datetime:
    """Read the journal's own time stamp, which is exact where a float would not be."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))


def text_of(message: object) -> bytes:
    """Return a MESSAGE as bytes: text, or a list of numbers where it is not UTF-8; b"" for none."""
    if isinstance(message, str):
        return message.encode("utf-8", "surrogateescape")
    if isinstance(message, list) and all(isinstance(one, int) for one in message):
        return bytes(message)
    return b""


def fold(entries: Iterable[Entry], known: Iterable[LegacyRun] = ()) -> Folded:
    """Return what the entries, oldest first, tell of; `known` are runs that an earlier look left open.

    Reading entries twice changes nothing, as long as the first of a run are among them. What tells of the end of a run
    whose start was not read is passed over.
    """
    folding = _Folding(known)
    for entry in entries:
        folding.take(entry)
    return Folded(tuple(folding.runs.values()), tuple(folding.held))


class _Folding:
    def __init__(self, known: Iterable[LegacyRun]) -> None:
        self.runs: dict[str, LegacyRun] = {}
        self.held: list[HeldBack] = []
        self._going: dict[tuple[Manager, str], str] = {}
        for run in known:
            self._open(run)

    def take(self, entry: Entry) -> None:
        key = entry.key
        run = self.runs.get(key)
        reason = _held_back(entry)
        if reason is not None:
            if run is None or run.ran:  # else its ExecCondition= has been told of
                self._hold(entry, reason)
        elif run is None:
            if entry.invocation and (entry.kind == "starting" or _says(entry, "Started ")):
                self._open(_begun(entry))
            elif entry.invocation and entry.kind == "failed" and entry.result == _NEVER_STARTED:
                # No process, and so no "Starting": an environment file that is missing, for instance.
                self._open(replace(_begun(entry), ended_at=entry.at, result=_NEVER_STARTED))
        elif run.is_open:
            self.runs[key] = _next(run, entry)
            if entry.kind == "condition":
                self._hold(entry, "its ExecCondition= does not hold")

    def _open(self, run: LegacyRun) -> None:
        """Add a run. A service has one at a time: one that was open has ended, and nobody wrote down how."""
        earlier = self.runs.get(self._going.get((run.manager, run.unit), ""))
        if earlier is not None and earlier.is_open:
            self.runs[earlier.key] = superseded(earlier, run.boot_id)
        self.runs[run.key] = run
        self._going[run.manager, run.unit] = run.key

    def _hold(self, entry: Entry, reason: str) -> None:
        self.held.append(HeldBack(entry.unit, entry.manager, entry.at, reason))


def _begun(entry: Entry) -> LegacyRun:
    ready = entry.kind == "started"
    return LegacyRun(entry.unit, entry.manager, entry.invocation, entry.boot_id, entry.at, ready=ready)


def _says(entry: Entry, beginning: str) -> bool:
    return entry.kind == "started" and entry.message.startswith(beginning)


def _held_back(entry: Entry) -> str | None:
    """Return why systemd did not carry out a start; None where the entry is about something else."""
    if entry.kind == "started" and not entry.message.startswith(("Started ", "Finished ")):
        return "a condition of the unit does not hold"
    return _HELD.get(entry.result or "") if entry.kind in {"start-failed", "failed"} else None


def _next(run: LegacyRun, entry: Entry) -> LegacyRun:
    """Return an open run as it is after one more entry of its own."""
    if entry.kind == "exit":
        return _exited(run, entry)
    if entry.kind == "failed":
        return replace(run, ended_at=entry.at, result=entry.result or "failed")
    if entry.kind == "condition":
        return replace(run, ended_at=entry.at, result="exec-condition", ran=False)
    run = replace(run, stopped=run.stopped or entry.kind in {"stopping", "stopped"})
    if entry.kind in {"succeeded", "stopped"} or _says(entry, "Finished "):
        return _succeeded(run, entry.at)
    return replace(run, ready=run.ready or entry.kind == "started")


def _exited(run: LegacyRun, entry: Entry) -> LegacyRun:
    if run.command == "ExecStart":  # what stops a service may fail too, after its main process
        return run
    code, name = exit_of(entry.code, entry.status)
    return replace(run, exit_code=code, signal=name, command=entry.command)


def _succeeded(run: LegacyRun, at: datetime | None) -> LegacyRun:
    # A service that is told to stop ends by a signal, and systemd calls that success too.
    return replace(run, ended_at=at, result="success", exit_code=None if run.stopped else 0, signal=None, command=None)


def exit_of(code: str | None, status: int | None) -> tuple[int | None, str | None]:
    """Return (exit code, signal name) of an exit as systemd says it: exited, killed or dumped, and a number."""
    if status is None or code not in _MAIN_CODES.values():
        return None, None
    if code == "exited":
        return status, None
    try:
        return None, signal.Signals(status).name
    except ValueError:
        return None, f"SIGRTMIN+{status - signal.SIGRTMIN}"


def superseded(run: LegacyRun, boot_id: str) -> LegacyRun:
    """Return an open run as it is once it is certain that it ended: another began, in the boot `boot_id`."""
    if boot_id != run.boot_id:
        return replace(run, result=REBOOTED)
    if run.manager.scope == "user" and run.ready:
        # The users' managers log failures only: this one ended well, and nobody wrote down when.
        return _succeeded(run, None)
    return replace(run, result=LOST)


def settled(run: LegacyRun, service: Service | None, *, shown_at: datetime) -> LegacyRun:
    """Return an open run as it ended by what its service showed at `shown_at`, where that says so.

    The journal tells more, and may lag behind: only an end, or a silence, that is old enough counts.
    """
    if service is None or not run.is_open or (service.invocation_id == run.invocation and service.is_active):
        return run
    if service.invocation_id != run.invocation:
        gone = run.started_at < shown_at - timedelta(seconds=GONE_S)
        return superseded(run, run.boot_id) if gone else run
    ended, settled_before = service.ended_at, shown_at - timedelta(seconds=SETTLED_S)
    # systemctl shows whole seconds, the ones that have passed.
    if ended is None or (ended - run.started_at).total_seconds() <= -1 or ended > settled_before:
        return run
    ended = max(ended, run.started_at)
    code, name = exit_of(_MAIN_CODES.get(service.main_code), service.main_status)
    if service.result == "success":
        return replace(_succeeded(run, ended), exit_code=None if run.stopped else code)
    return replace(run, ended_at=ended, result=service.result, exit_code=code, signal=name, command="ExecStart")
