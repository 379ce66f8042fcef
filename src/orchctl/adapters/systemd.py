"""systemd, through its own programs: fixed argv lists, a time-out on each call, its messages kept.

The programs, not D-Bus: they reach the system's manager as root also where no bus broker runs, know every
version's ways, and an operator can repeat each call by hand.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from orchctl.adapters import host_facts
from orchctl.core import systemd_show
from orchctl.core.legacy import SYSTEM, Manager, Service, Timer, Units
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

CALL_TIMEOUT_S = 30.0
# There exactly while systemd is the first process: what sd_booted(3) looks at.
_BOOTED = Path("/run/systemd/system")
_LINGER = Path("/var/lib/systemd/linger")
# Command lines have limits (2 MiB here, 128 KiB elsewhere): more names than this go in several calls.
_NAMES_A_CALL = 1000
# A timer names its service, that names its failure handlers.
_ROUNDS = 3
_NO_MANAGER = re.compile(r"has not been booted with systemd|Failed to connect to .*\bbus\b|\$DBUS_SESSION_BUS_ADDRESS")
_LOST = ("Transport endpoint is not connected", "Connection reset by peer", "Connection timed out", "timed out")
_REFUSED = ("Access denied", "Permission denied", "authentication required", "Operation not permitted")
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\-][A-Za-z0-9:_.\\@-]{0,254}\Z")
_FIXED = {"LC_ALL": "C", "TZ": "UTC", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "", "SYSTEMD_LOG_LEVEL": "err"}
_UnitT = TypeVar("_UnitT", Timer, Service)


class Systemd:
    """The managers of this host. `environment` is the caller's; `caller` the user whose manager is meant by default.

    `timeout_s` is how long one call may take.
    """

    def __init__(
        self, environment: Mapping[str, str], caller: str | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._environment = environment
        self._caller = caller
        self._timeout_s = timeout_s

    def read(
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units:
        """Return the timers and services of these names, and what they start; `everything`: all timers besides.

        One `systemctl show`, and more only where what it shows names units that nobody asked for: a service called
        otherwise than its timer; with `handlers`, a failure handler. With `everything`, one call before these lists the
        installed timers. A name that systemd cannot be asked about is there with the reason. Raises SystemdUnavailable,
        NotAllowed, OrchctlError.
        """
        asked = {name for timer in names for name in _pair(timer)}
        if everything:
            asked |= {name for timer in self._installed(manager) for name in _pair(timer)} | {"*.timer", "*.service"}
        odd = {name: reason for name in asked if (reason := _unaskable(name))}
        timers, services, others = dict[str, Timer](), dict[str, Service](), dict[str, str]()
        left = asked - odd.keys()
        for _ in range(_ROUNDS):
            if not left:
                break
            more = self._show(manager, left)
            timers.update(more.timers)
            services.update(more.services)
            others.update(more.others)
            asked |= left
            left = _named_by(timers, services, asked, handlers=handlers) - asked - services.keys() - others.keys()
        timers |= {
            name: systemd_show.unasked(name, manager, load=load, reason=reason)
            for name, (load, reason) in odd.items()
            if name.endswith(".timer")
        }
        return Units(manager, _also_as(_on_the_clock(timers), names), _also_as(services, names), others)

    def owner(self, manager: Manager) -> str | None:
        """Return whose manager it is, None for the system's. Raises OrchctlError for a user who does not exist."""
        return self._account(manager).pw_name if manager.scope == "user" else None

    def lingers(self, manager: Manager) -> bool | None:
        """Whether a user's manager runs without a login too; None for the system's."""
        owner = self.owner(manager)
        return None if owner is None else (_LINGER / owner).exists()

    def synchronised(self) -> bool | None:
        """Whether this host's clock is kept by a time server; None where nothing says."""
        try:
            said = self.call("timedatectl", SYSTEM, "show", "--property=NTPSynchronized", "--value").strip()
        except OrchctlError:
            return None
        return {"yes": True, "no": False}.get(said)

    def call(self, program: str, manager: Manager, *words: str, check: bool = True) -> str:
        """Run one of systemd's programs for `manager` and return what it printed.

        Raises SystemdUnavailable, NotAllowed, or OrchctlError with its own words where it failed and `check` says so.
        """
        argv = [program, *(["--user"] if manager.scope == "user" else []), *words]
        status, printed, said = self._run(argv, manager)
        if status != 0 and check:
            raise self._failed(manager, said.strip() or printed.strip(), argv)
        if "ignoring command" in said:
            # In a chroot it does nothing and reports success: no answer must not pass for "there are none".
            raise SystemdUnavailable(
                f"{program} refuses to work in this environment: {_telling(said, 'ignoring command')}",
                hint="run orchctl outside of the chroot, on the host whose timers are meant",
            )
        return printed

    def _run(self, argv: Sequence[str], manager: Manager) -> tuple[int, str, str]:
        """Run a program, and end it with all that it started where it takes too long or we are stopped."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
                **self._as(manager),
            )
        except FileNotFoundError as error:
            raise SystemdUnavailable(f"{argv[0]} is not installed: this host has no systemd", absent=True) from error
        except PermissionError as error:
            raise NotAllowed(f"{argv[0]} may not be run: {error.strerror}") from error
        with process:
            try:
                printed, said = process.communicate(timeout=self._timeout_s)
            except subprocess.TimeoutExpired as error:
                _end(process)
                message = f"{argv[0]} did not answer within {self._timeout_s:g} s ({manager})"
                raise SystemdUnavailable(message, hint=f"try it by hand: {_by_hand(argv)}") from error
            except BaseException:
                _end(process)
                raise
        return process.returncode, printed.decode("utf-8", "replace"), said.decode("utf-8", "replace")

    def _show(self, manager: Manager, names: Collection[str]) -> Units:
        ordered, text = sorted(names), ""
        for start in range(0, len(ordered), _NAMES_A_CALL):
            some = ordered[start : start + _NAMES_A_CALL]
            # --all: else a pattern stands for active units only.
            words = ["show", "--all", "--no-pager", f"--property={systemd_show.PROPERTIES}", "--", *some]
            text += self.call("systemctl", manager, *words) + "\n"
        try:
            return systemd_show.units_of(text, manager)
        except ValueError as error:
            raise OrchctlError(f"what systemd says of its units cannot be read ({manager}): {error}") from error

    def _installed(self, manager: Manager) -> list[str]:
        """Return the installed timers that are no template: those may be there without being loaded."""
        words = ["list-unit-files", "--no-pager", "--no-legend", "--full", "--type=timer"]
        names = [line.split()[0] for line in self.call("systemctl", manager, *words).splitlines() if line.split()]
        return [name for name in names if "@." not in name]

    def _as(self, manager: Manager) -> dict[str, Any]:
        """Return how to start a program so that it speaks to this manager."""
        environment = {**self._environment, **_FIXED}
        if manager.scope == "system":
            return {"env": environment}
        account = self._account(manager)
        own = account.pw_uid == os.geteuid()
        if not own and os.geteuid() != 0:
            raise NotAllowed(
                f"the units of {account.pw_name} can be read by that user and by root only",
                hint=f"run it as {account.pw_name}, or with sudo",
            )
        runtime = self._runtime(account)
        if not os.path.isdir(runtime):
            raise _no_user_manager(account, absent=True)
        environment |= {"XDG_RUNTIME_DIR": runtime, "HOME": account.pw_dir, "USER": account.pw_name}
        if runtime != self._environment.get("XDG_RUNTIME_DIR"):
            environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
        if own:
            return {"env": environment}
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        return {"env": environment, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}

    def _runtime(self, account: pwd.struct_passwd) -> str:
        """Return the folder of a user's manager. XDG_RUNTIME_DIR is missing over ssh, and stale after `su`."""
        named = self._environment.get("XDG_RUNTIME_DIR", "")
        with contextlib.suppress(OSError):
            if named and os.stat(named).st_uid == account.pw_uid:
                return named
        return f"/run/user/{account.pw_uid}"

    def _account(self, manager: Manager) -> pwd.struct_passwd:
        return host_facts.account(manager.user or self._caller)

    def _failed(self, manager: Manager, said: str, argv: Sequence[str]) -> OrchctlError:
        if any(word in said for word in _REFUSED):
            message = f"systemd refuses ({manager}): {_telling(said, *_REFUSED)}"
            if manager.scope == "user":
                return NotAllowed(message, hint=f"run it as {self._account(manager).pw_name}, whose units they are")
            return NotAllowed(message, hint=f"root may: run orchctl with sudo; by hand, `sudo {_by_hand(argv)}`")
        if _NO_MANAGER.search(said):
            return self._unreachable(manager, said)
        if any(word in said for word in _LOST):
            message = f"systemd broke off ({manager}): {_telling(said, *_LOST)}"
            return SystemdUnavailable(message, hint=f"try again, or by hand: {_by_hand(argv)}")
        return OrchctlError(f"`{' '.join(argv[:3])}` failed ({manager}): {_telling(said, 'Failed to')}")

    def _unreachable(self, manager: Manager, said: str) -> SystemdUnavailable:
        if manager.scope == "user":
            account = self._account(manager)
            socket = Path(self._runtime(account), "systemd", "private")
            return _no_user_manager(account, absent=not socket.exists())
        if _BOOTED.is_dir():
            return SystemdUnavailable(
                f"systemd runs, and cannot be asked: {_telling(said, 'Failed to')}",
                hint="D-Bus does not run (`systemctl status dbus` as root); root can ask without it: use sudo",
            )
        return SystemdUnavailable(
            "systemd does not run on this host (it was not booted with it)",
            hint="run orchctl on the host whose timers are meant",
            absent=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _telling(said: str, *words: str) -> str:
    """Return the line of a program's messages that holds one of these words, else the first."""
    lines = said.splitlines() or ["no message"]
    return next((line.strip() for line in lines if any(word in line for word in words)), lines[0].strip())


def _by_hand(argv: Sequence[str]) -> str:
    """Return a command for people: the names that were asked for are too many to show."""
    return " ".join([word for word in argv if not word.startswith(("--property", "--all", "--no-"))][:4])


def _no_user_manager(account: pwd.struct_passwd, *, absent: bool) -> SystemdUnavailable:
    return SystemdUnavailable(
        f"the systemd of user {account.pw_name} does not run (looked for it in /run/user/{account.pw_uid})",
        hint=f"`sudo loginctl enable-linger {account.pw_name}` starts it, and keeps it running without a login",
        absent=absent,
    )


def _pair(name: str) -> tuple[str, ...]:
    """Return a timer and the service that it starts by default: asked for at once they cost one call."""
    return (name, f"{name.removesuffix('.timer')}.service") if name.endswith(".timer") else (name,)


def _named_by(
    timers: Mapping[str, Timer], services: Mapping[str, Service], asked: Collection[str], *, handlers: bool
) -> set[str]:
    """Return the units that these timers start, and what is started when timers or their services fail.

    A pattern brings all services of a host: those that nobody asked for and no timer starts are of no interest.
    """
    loaded = [timer for timer in timers.values() if timer.load == "loaded"]
    named = {timer.unit for timer in loaded}
    ours = [service for name, service in services.items() if name in named or name in asked]
    return named | {name for unit in (*loaded, *ours) if handlers for name in unit.on_failure}


def _unaskable(name: str) -> tuple[str, str] | None:
    """Say why systemd cannot be asked about a name, as (load, reason): one such name makes the whole call fail."""
    if "@." in name:
        return "template", "a template starts nothing: its instances do"
    if any(char in name for char in "*?["):
        return None
    return None if _UNIT_NAME.match(name) else ("not-found", f"{name!r} is no name of a unit")


def _also_as(units: Mapping[str, _UnitT], names: Collection[str]) -> dict[str, _UnitT]:
    """Return the units also under those of their other names that were asked for."""
    return {**units, **{alias: unit for unit in units.values() for alias in unit.aliases if alias in names}}


def _on_the_clock(timers: Mapping[str, Timer]) -> dict[str, Timer]:
    """Return the timers with the instants that systemd gives on the monotonic clock turned into ours."""
    now = datetime.now(UTC)
    started, awake = (
        now - timedelta(seconds=time.clock_gettime(clock)) for clock in (time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC)
    )
    return {
        name: systemd_show.on_the_clock(timer, started=started, started_awake=awake) for name, timer in timers.items()
    }
