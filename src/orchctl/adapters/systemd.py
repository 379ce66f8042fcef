"""systemd, through its own programs: fixed argv lists, a time-out on each call, its messages kept.

The programs, not D-Bus: they reach the system's manager as root also where no bus broker runs, know every
version's ways, and an operator can repeat each call by hand.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchctl.core import systemd_show
from orchctl.core.legacy import Manager, Units
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

CALL_TIMEOUT_S = 30.0
# Command lines have limits (2 MiB here, 128 KiB elsewhere): more names than this go in several calls.
_NAMES_A_CALL = 1000
_NO_MANAGER = (
    "has not been booted with systemd",
    "Host is down",
    "No such file or directory",
    "Connection refused",
    "No medium found",
    "Transport endpoint is not connected",
)
_REFUSED = ("Access denied", "Permission denied", "authentication required", "Operation not permitted")


class Systemd:
    """The managers of this host. `environment` is the caller's; `caller` the user whose manager is meant by default."""

    def __init__(self, environment: Mapping[str, str], caller: str | None = None) -> None:
        self._environment = environment
        self._caller = caller

    def read(self, manager: Manager, names: Collection[str] = (), *, everything: bool = False) -> Units:
        """Return the timers and services of these names, and what they start; `everything`: all timers besides.

        One `systemctl show`, and a second where the first named units that nobody asked for: a service called
        otherwise than its timer, a failure handler. With `everything`, one call before these lists the installed
        timers. Raises SystemdUnavailable, NotAllowed.
        """
        asked = {name for timer in names for name in _pair(timer)}
        if everything:
            asked |= {name for timer in self._installed(manager) for name in _pair(timer)} | {"*.timer", "*.service"}
        if not asked:
            return Units(manager)
        found = self._show(manager, asked)
        services, handlers = dict(found.services), dict(found.others)
        wanted = {timer.unit for timer in found.timers.values()}
        wanted |= {name for unit in services.values() for name in unit.on_failure}
        left = wanted - services.keys() - handlers.keys()
        if left:
            more = self._show(manager, left)
            services |= more.services
            handlers |= more.others
        return Units(manager, found.timers, services, handlers)

    def call(self, program: str, manager: Manager, *words: str, check: bool = True) -> str:
        """Run one of systemd's programs for `manager` and return what it printed.

        Raises SystemdUnavailable, NotAllowed, or OrchctlError with its own words where it failed and `check` says so.
        """
        argv = [program, *(["--user"] if manager.scope == "user" else []), *words]
        try:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                stdin=subprocess.DEVNULL,
                timeout=CALL_TIMEOUT_S,
                check=False,
                **self._as(manager),
            )
        except FileNotFoundError as error:
            raise SystemdUnavailable(f"{program} is not installed: this host has no systemd", absent=True) from error
        except subprocess.TimeoutExpired as error:
            message = f"{program} did not answer within {CALL_TIMEOUT_S:.0f} s ({manager})"
            raise SystemdUnavailable(message, hint=f"try it by hand: {' '.join(argv[:4])} …") from error
        except PermissionError as error:
            raise NotAllowed(f"{program} may not be run: {error.strerror}") from error
        if done.returncode != 0 and check:
            raise self._failed(manager, done.stderr.strip() or done.stdout.strip(), argv)
        return done.stdout

    def _show(self, manager: Manager, names: Collection[str]) -> Units:
        ordered, text = sorted(names), ""
        for start in range(0, len(ordered), _NAMES_A_CALL):
            some = ordered[start : start + _NAMES_A_CALL]
            words = ["show", "--no-pager", f"--property={systemd_show.PROPERTIES}", "--", *some]
            text += self.call("systemctl", manager, *words) + "\n"
        return systemd_show.units_of(text, manager)

    def _installed(self, manager: Manager) -> list[str]:
        """Return the installed timers that are no template: those may be there without being loaded."""
        words = ["list-unit-files", "--no-pager", "--no-legend", "--full", "--type=timer"]
        names = [line.split()[0] for line in self.call("systemctl", manager, *words).splitlines() if line.split()]
        return [name for name in names if "@." not in name]

    def _as(self, manager: Manager) -> dict[str, Any]:
        """Return how to start a program so that it speaks to this manager."""
        fixed = {"LC_ALL": "C", "TZ": "UTC", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "", "SYSTEMD_LOG_LEVEL": "err"}
        environment = {**self._environment, **fixed}
        if manager.scope == "system":
            return {"env": environment}
        account = self._account(manager)
        own = account.pw_uid == os.geteuid()
        runtime = self._environment.get("XDG_RUNTIME_DIR") if own else None
        runtime = runtime or f"/run/user/{account.pw_uid}"
        if not os.path.isdir(runtime) and (own or os.geteuid() == 0):
            raise _no_user_manager(account.pw_name)
        environment |= {"XDG_RUNTIME_DIR": runtime, "HOME": account.pw_dir, "USER": account.pw_name}
        if not own:
            environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
            if os.geteuid() != 0:
                raise NotAllowed(
                    f"the units of {account.pw_name} can be read by that user and by root only",
                    hint=f"run it as {account.pw_name}, or with sudo",
                )
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            return {"env": environment, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
        return {"env": environment}

    def _account(self, manager: Manager) -> pwd.struct_passwd:
        name = manager.user or self._caller
        try:
            return pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise OrchctlError(f"there is no user {name or os.geteuid()} on this host") from error

    def _failed(self, manager: Manager, said: str, argv: Sequence[str]) -> OrchctlError:
        line = said.splitlines()[0] if said else "no message"
        if any(word in said for word in _REFUSED):
            again = f"sudo {' '.join(argv[:2])} …" if manager.scope == "system" else "run it as the owner of the units"
            return NotAllowed(f"systemd refuses ({manager}): {line}", hint=f"try with more rights: {again}")
        if any(word in said for word in _NO_MANAGER):
            if manager.scope == "user":
                return _no_user_manager(self._account(manager).pw_name)
            return SystemdUnavailable(
                "systemd does not run on this host (it was not booted with it)",
                hint="run orchctl on the host whose timers are meant",
                absent=True,
            )
        return OrchctlError(f"`{' '.join(argv[:3])}` failed ({manager}): {line}")


def _no_user_manager(user: str) -> SystemdUnavailable:
    return SystemdUnavailable(
        f"the systemd of user {user} does not run",
        hint=f"`loginctl enable-linger {user}` keeps it running without a login; over ssh, XDG_RUNTIME_DIR must be "
        f"/run/user/UID",
        absent=True,
    )


def _pair(name: str) -> tuple[str, ...]:
    """Return a timer and the service that it starts by default: asked for at once they cost one call."""
    return (name, f"{name.removesuffix('.timer')}.service") if name.endswith(".timer") else (name,)
