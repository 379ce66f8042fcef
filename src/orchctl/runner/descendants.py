"""Find and reap every process that comes from one command, however far it has run.

While a command runs, this process is a child subreaper: a descendant whose parent dies becomes our child
instead of init's, whatever sessions and forks lie between. What belongs to the command is decided by descent,
by session and by a marker in the environment; what has shaken off all three (`setsid env -i`) by being a new
child of ours that neither a thread of ours nor another child has started.

Unlike systemd's control groups this does not see a process that another daemon starts for the command
(`systemd-run`, `docker run`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TOKEN = "ORCHCTL_RUN_TOKEN"  # noqa: S105 - the name of the marker; its value is no secret
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


class Process(NamedTuple):
    """One line of the process table. `start`: clock ticks since boot; `pid` and `start` together never recur.

    `ended`: only its exit status is left, to be reaped.
    """

    pid: int
    ppid: int
    session: int
    start: int
    ended: bool

    @property
    def key(self) -> tuple[int, int]:
        """What tells the process from a later one with the same pid."""
        return self.pid, self.start


class Family:
    """The processes of one command. Made by `adopting`; `begin` names the command's main process."""

    def __init__(self, *, main_thread_waits: bool, token: str | None = None) -> None:
        self.token = token or uuid.uuid4().hex
        self._main_thread_waits = main_thread_waits
        self._main = 0
        self._start = 0
        self._seen: frozenset[tuple[int, int]] = frozenset()
        self._strangers: frozenset[tuple[int, int]] = frozenset()

    def begin(self, pid: int) -> None:
        """Take a process, which must not have been reaped, as the command's main one."""
        main = _process(pid)
        if main is not None:
            self._main, self._start, self._seen = pid, main.start, frozenset({main.key})

    def take_over(self, pid: int, start: int) -> None:
        """Go on for another process that has died; the main process may have ended since."""
        self._main, self._start, self._seen = pid, start, frozenset({(pid, start)})

    def living(self) -> tuple[Process, ...]:
        """Return the command's processes that still run, and reap those left to us that do not.

        The main process is never reaped here: while it waits for that, no other process can get its pid, so
        that signals to its group reach the right one.
        """
        if not self._main:
            return ()
        table = _table()
        self._strangers = self._remember_strangers(table)
        found = self._members(table)
        self._seen = frozenset(process.key for process in found)
        me = os.getpid()
        for process in found:
            if process.ended and process.ppid == me and process.pid != self._main:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        return tuple(process for process in found if not process.ended)

    def _members(self, table: dict[int, Process]) -> tuple[Process, ...]:
        found = {process.pid: process for process in table.values() if process.key in self._seen}
        # A descendant is never older than the command, and never in our own session.
        outside = {os.getsid(0), 0}
        others = [
            process
            for process in table.values()
            if process.pid not in found and process.start >= self._start and process.session not in outside
        ]
        while True:
            sessions = {process.session for process in found.values()} - outside
            new = [process for process in others if process.ppid in found or process.session in sessions]
            new = new or [process for process in others if self._is_marked(process)]
            new = new or list(self._strays(others))
            if not new:
                return tuple(found.values())
            found |= {process.pid: process for process in new}
            others = [process for process in others if process.pid not in found]

    def _remember_strangers(self, table: dict[int, Process]) -> frozenset[tuple[int, int]]:
        """Return what comes from other children of ours, now or when it was last seen.

        A thread that ends leaves its children to the main thread, and a child that ends its own: to us they
        would look like orphans of the command.
        """
        started = _children(main_thread=False) - {self._main}
        known = self._strangers | _Adoption.before
        found = {process.pid for process in table.values() if process.pid in started or process.key in known}
        while new := {process.pid for process in table.values() if process.ppid in found} - found:
            found |= new
        return frozenset(table[pid].key for pid in found)

    def _is_marked(self, process: Process) -> bool:
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            return False
        return f"{TOKEN}={self.token}".encode() in environ.split(b"\0")

    def _strays(self, others: Iterable[Process]) -> Iterator[Process]:
        """Yield the children of ours that can only be orphans of this command."""
        if not _Adoption.is_alone(self):
            # Whose it is cannot be told; the last command to end takes it.
            return
        children = _children(main_thread=True)
        for process in others:
            # A waiting main thread starts nothing. One that goes on might have started a session leader.
            if (
                process.pid in children
                and process.key not in self._strangers
                and (self._main_thread_waits or process.pid != process.session)
            ):
                yield process


class _Adoption:
    """Who is adopting now. `before` holds the children this process had when the first of them began."""

    lock: ClassVar = threading.Lock()
    families: ClassVar[set[Family]] = set()
    before: ClassVar[frozenset[tuple[int, int]]] = frozenset()
    was_subreaper: ClassVar[bool] = False

    @classmethod
    def is_alone(cls, family: Family) -> bool:
        with cls.lock:
            return cls.families == {family}

    @classmethod
    def begin(cls, family: Family) -> None:
        with cls.lock:
            if not cls.families:
                me = os.getpid()
                cls.before = frozenset(process.key for process in _table().values() if process.ppid == me)
                cls.was_subreaper = _is_subreaper()
                _be_subreaper(True)
            cls.families.add(family)

    @classmethod
    def end(cls, family: Family) -> None:
        with cls.lock:
            cls.families.discard(family)
            if not cls.families:
                _be_subreaper(cls.was_subreaper)


@contextmanager
def adopting(*, main_thread_waits: bool, token: str | None = None) -> Iterator[Family]:
    """Adopt the orphans of one command for the duration; several may overlap, in several threads.

    `token` marks the command's processes; None draws one.
    `main_thread_waits`: the main thread is blocked for as long, so that it starts no processes of its own.
    """
    family = Family(main_thread_waits=main_thread_waits, token=token)
    _Adoption.begin(family)
    try:
        yield family
    finally:
        _Adoption.end(family)


def send(process: Process, *signals: signal.Signals) -> None:
    """Send signals to exactly this process; nothing happens if it has gone or is not ours to signal."""
    with suppress(OSError):
        fd = os.pidfd_open(process.pid)
        try:
            now = _process(process.pid)
            if now is not None and now.key == process.key:
                for number in signals:
                    signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _table() -> dict[int, Process]:
    found = (_process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def _process(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The name, in parentheses, may itself hold spaces and parentheses.
    state, ppid, _, session, *rest = stat[stat.rindex(b")") + 2 :].split()
    threads, start = int(rest[13]), int(rest[15])
    # A main thread that has ended before its siblings is a zombie too, of a process that still runs.
    return Process(pid, int(ppid), int(session), start, ended=state in b"ZX" and threads <= 1)


def _children(*, main_thread: bool) -> frozenset[int]:
    """Return the pids the kernel lists under our main thread, or under all our others.

    A process is listed under the thread that started it, an adopted orphan under the main thread. Empty where
    the kernel does not say.
    """
    main = str(os.getpid())
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        if (thread == main) is main_thread:
            with suppress(OSError):
                listed = Path(f"/proc/self/task/{thread}/children").read_bytes()
                found.update(int(pid) for pid in listed.split())
    return frozenset(found)


def _is_subreaper() -> bool:
    value = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return bool(value.value)


def _be_subreaper(wanted: bool) -> None:
    # Where a seccomp filter refuses, orphans go to init and are found by session and marker only.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
