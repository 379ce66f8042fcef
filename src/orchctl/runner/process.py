"""Run one command, and leave nothing of it behind.

The command runs in a session of its own and is supervised by a thread of its own: Python delivers signals to
the main thread only, so neither Ctrl-C nor Prefect's termination can interrupt the supervision half-way. They
only ask it to stop.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from orchctl.errors import OrchctlError
from orchctl.runner import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchctl.adapters.accounts import Account
    from orchctl.runner.descendants import Family, Process
    from orchctl.runner.output import OutputPump

LEFT_OPEN_S = 2.0
"""Seconds to wait for the end of the output once nothing of the command is left."""
GIVE_UP_S = 5.0
"""Seconds of SIGKILL after which a process counts as unkillable (it hangs in the kernel, or is not ours)."""
INTERRUPTED_S = 20.0
"""Seconds at most from SIGTERM to SIGKILL after an exception: Prefect kills us 30 s after it has asked us to end."""

_LOOK_S = 1.0
_FIRST_LOOK_S = 0.1
_STOP_EVENT_S = 0.1
_SWEEP_S = 0.05
_WAITED_FOR = 8
_NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR})


class StopEvent(Protocol):
    """What asks a command to stop from another thread, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the command is to stop."""


class CommandNotStarted(OrchctlError):
    """The command could not be started. `shell_code`: what a shell would exit with, 127 or 126."""

    code = "not-started"

    def __init__(self, message: str, *, shell_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.shell_code = shell_code


@dataclass(frozen=True)
class Command:
    """What to run, never through a shell.

    `argv[0]` without a slash is looked for in the PATH of `env`, with one it is relative to `cwd`. `env` is
    the whole environment. `timeout_s`: seconds until SIGTERM, `inf` for no limit. `kill_after_s`: seconds
    from SIGTERM to SIGKILL. `inherit_fds`: open descriptors that the command keeps, under the same numbers.
    `token` marks its processes; None draws one. `account` is the user it runs as, None for ours; only root can
    become another. `unfit` is what was found to be wrong with it already: it is raised instead of a start.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(repr=False)
    timeout_s: float
    kill_after_s: float
    nice: int = 0
    inherit_fds: tuple[int, ...] = ()
    token: str | None = None
    account: Account | None = None
    unfit: CommandNotStarted | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Either `exit_code` or `signal` (the name, "SIGKILL") is None. Both are, if even SIGKILL could not end it,
    or if something else in this process took its exit status: never a success.

    `stopped`: "cancelled" by the stop event, "interrupted" by an exception, None if it was left to itself.
    `survivors_killed`: processes that still ran when the command's own had ended, and were signalled.
    `left_alive`: processes that survived SIGKILL. `started_at`, `finished_at`: aware UTC; finished is when
    the last process was gone. `duration_s`: the seconds between, by the monotonic clock.
    """

    exit_code: int | None
    signal: str | None
    timed_out: bool
    stopped: str | None
    survivors_killed: int
    started_at: datetime
    finished_at: datetime
    duration_s: float
    left_alive: int = 0


def run_command(
    command: Command,
    pump: OutputPump,
    *,
    stop: StopEvent | None = None,
    on_started: Callable[[int], None] | None = None,
    on_ended: Callable[[Ended], None] | None = None,
    main_thread_waits: bool | None = None,
) -> Ended:
    """Run the command to its end and return how it ended, once nothing of it runs any more.

    stdin is empty; stdout and stderr share one pipe to `pump`, which is started here and finished on return.
    The time-out, `stop` and any exception raised in the calling thread (signal handlers raise such) all stop
    the command the same way: SIGTERM to each of its processes, SIGKILL after `kill_after_s`, which an exception
    and `stop` limit to INTERRUPTED_S. A second exception brings SIGKILL at once. The first one is raised again in
    the end.

    `on_started` gets the pid, `on_ended` the result, also where an exception is about to follow. Both are
    called in the calling thread. `main_thread_waits`: the main thread starts no processes of its own meanwhile; None:
    that is known of the calling thread only (see `descendants`).

    Raises CommandNotStarted, after which neither was called.
    """
    supervisor = _Supervisor(command, pump, main_thread_waits)
    raised: list[BaseException] = []
    try:
        while True:
            try:
                if not raised:
                    supervisor.start(on_started)
                supervisor.wait(stop)
                break
            except BaseException as exc:  # noqa: BLE001 - raised again below, when nothing is left running
                raised.append(exc)
                supervisor.stop("interrupted", hurry=len(raised) > 1)
    finally:
        # Matters only if yet another exception came inside the handler: the thread then finishes on its own.
        supervisor.stop("interrupted")
    if supervisor.ended is not None and on_ended is not None:
        on_ended(supervisor.ended)
    if raised:
        raise raised[0]
    return supervisor.result()


class _Supervisor:
    """Starts the command in a thread, waits for its end, and sweeps up after it."""

    def __init__(self, command: Command, pump: OutputPump, main_thread_waits: bool | None) -> None:
        self.ended: Ended | None = None
        self._error: BaseException | None = None
        self._command = command
        self._pump = pump
        self._pid: int | None = None
        self._stopped: str | None = None
        self._hurry = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._main_thread_waits = in_main_thread if main_thread_waits is None else main_thread_waits
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._started = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="command-supervisor")

    def start(self, on_started: Callable[[int], None] | None) -> None:
        """Start the command; return when it runs, or cannot."""
        self._thread.start()
        self._started.wait()
        if self._pid is not None and on_started is not None:
            on_started(self._pid)

    def wait(self, stop: StopEvent | None) -> None:
        """Wait until all is over, watching the stop event."""
        while not self._done.wait(_LOOK_S if stop is None else _STOP_EVENT_S):
            if stop is not None and stop.is_set():
                self.stop("cancelled")
            if self._thread.ident is None:
                # An exception came before the thread could even begin.
                return

    def stop(self, why: str, *, hurry: bool = False) -> None:
        """Ask for the end of the command, with `hurry` by SIGKILL at once. Repeatable; too late is fine."""
        with self._lock:
            if self._wake >= 0:
                self._stopped = self._stopped or why
                self._hurry = self._hurry or hurry
                os.eventfd_write(self._wake, 1)

    def result(self) -> Ended:
        """Return how it ended, or raise what kept it from starting."""
        if self._error is not None:
            raise self._error
        assert self.ended is not None
        return self.ended

    def _run(self) -> None:
        try:
            with descendants.adopting(main_thread_waits=self._main_thread_waits, token=self._command.token) as family:
                try:
                    self.ended = self._supervise(family)
                finally:
                    self._pump.finish(LEFT_OPEN_S)
        except BaseException as exc:  # noqa: BLE001 - raised in the calling thread
            self._error = exc
        finally:
            with self._lock:
                os.close(self._wake)
                self._wake = -1
            self._started.set()
            self._done.set()

    def _supervise(self, family: Family) -> Ended:
        started_at, began = datetime.now(UTC), time.monotonic()
        process = self._spawn(family.token)
        family.begin(process.pid)
        self._pid = process.pid
        self._started.set()
        timed_out, stopped = False, None
        try:
            timed_out = self._watch(family, process.pid, began)
            stopped = self._stopped
        finally:
            killed, left_alive = self._sweep(family, process.pid)
            returncode = _reap(process)
        return Ended(
            exit_code=returncode if returncode is not None and returncode >= 0 else None,
            signal=_signal_name(-returncode) if returncode is not None and returncode < 0 else None,
            timed_out=timed_out,
            stopped=stopped,
            survivors_killed=killed,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            duration_s=time.monotonic() - began,
            left_alive=left_alive,
        )

    def _spawn(self, token: str) -> subprocess.Popen[bytes]:
        command = self._command
        if not command.argv:
            raise CommandNotStarted("cannot start a command without a program", shell_code=127)
        if command.unfit is not None:
            raise command.unfit
        reading, writing = os.pipe()
        try:
            self._pump.start(reading)
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=command.cwd,
                env={**command.env, descendants.TOKEN: token},
                start_new_session=True,
                pass_fds=command.inherit_fds,
                **(command.account.identity if command.account else {}),
            )
        except (OSError, ValueError) as exc:
            raise _not_started(command, exc) from exc
        finally:
            os.close(writing)
        if command.nice:
            with suppress(OSError):
                os.setpriority(os.PRIO_PGRP, process.pid, command.nice)
        return process

    def _watch(self, family: Family, pid: int, began: float) -> bool:
        """Wait until the main process ends, or has to. True for the time-out."""
        deadline = began + self._command.timeout_s
        look_at = began + _FIRST_LOOK_S
        pidfd = os.pidfd_open(pid)
        try:
            while self._stopped is None:
                now = time.monotonic()
                if now >= deadline:
                    return True
                if now >= look_at:
                    # Descendants are remembered while they still hang together. At most 1 % of a core.
                    family.living()
                    look_at = now + max(_LOOK_S, 100 * (time.monotonic() - now))
                if pidfd in self._wait_for([pidfd], min(deadline, look_at)):
                    return False
        finally:
            os.close(pidfd)
        return False

    def _sweep(self, family: Family, pid: int) -> tuple[int, int]:
        """End every process of the command; return how many outlived its main one, how many all."""
        began = time.monotonic()
        give_up_at = float("inf")
        survivors: set[tuple[int, int]] = set()
        asked: set[tuple[int, int]] = set()
        while living := family.living():
            now = time.monotonic()
            grace = self._command.kill_after_s
            kill_at = began + (min(grace, INTERRUPTED_S) if self._stopped is not None else grace)
            if now >= give_up_at:
                break
            if all(process.pid != pid for process in living):
                survivors |= {process.key for process in living}
            if self._hurry or now >= kill_at:
                give_up_at = min(give_up_at, now + GIVE_UP_S)
                # The group is killed in one step of the kernel's, which no fork can escape.
                with suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
                for process in living:
                    descendants.send(process, signal.SIGKILL)
            else:
                for process in living:
                    if process.key not in asked:
                        # As systemd does: what is stopped must go on to hear that it is to end.
                        descendants.send(process, signal.SIGTERM, signal.SIGCONT)
                asked |= {process.key for process in living}
            self._pause(living, until=min(now + _SWEEP_S, max(kill_at, now + 0.005)))
        return len(survivors - {process.key for process in living}), len(living)

    def _pause(self, living: tuple[Process, ...], *, until: float) -> None:
        """Wait until one of the first few processes ends, or somebody is in a hurry."""
        fds: list[int] = []
        try:
            for process in living[:_WAITED_FOR]:
                with suppress(OSError):
                    fds.append(os.pidfd_open(process.pid))
            self._wait_for(fds, until)
        finally:
            for fd in fds:
                os.close(fd)

    def _wait_for(self, fds: list[int], until: float) -> set[int]:
        """Wait for one of the descriptors or for `stop`; return those that are ready."""
        poller = select.poll()
        for fd in (*fds, self._wake):
            poller.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, until - time.monotonic()) * 1000 + 1)}
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return ready


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # `poll` would call it 0: success.
        process.poll()
        return None
    return process.poll()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _not_started(command: Command, exc: OSError | ValueError) -> CommandNotStarted:
    program, cwd = command.argv[0], command.cwd
    number = exc.errno if isinstance(exc, OSError) else None
    reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    shell_code, hint = 126, None
    if not os.path.isdir(cwd):
        reason = "there is no such directory"
    elif not os.access(cwd, os.X_OK):
        reason = "the directory may not be entered"
    elif number in _NOT_FOUND and _exists(command):
        reason = "the interpreter in its first line does not exist"
    elif number in _NOT_FOUND:
        shell_code, reason = 127, "no such program"
        if "/" not in program:
            hint = f"it was looked for in PATH={command.env.get('PATH', os.defpath)}"
    elif number == errno.ENOEXEC:
        hint = "a script needs a first line such as #!/bin/sh"
    return CommandNotStarted(f"cannot start {program} in {cwd}: {reason}", shell_code=shell_code, hint=hint)


def _exists(command: Command) -> bool:
    program = command.argv[0]
    if "/" in program:
        return os.path.exists(os.path.join(command.cwd, program))
    return shutil.which(program, mode=os.F_OK, path=command.env.get("PATH", os.defpath)) is not None
