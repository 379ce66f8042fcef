"""The units of an installation on this host: their files, and what systemd does with them, in both scopes."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import environments, files, host_facts, unit_links
from orchctl.adapters.accounts import account_of
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders, acting_as
from orchctl.core.host_settings import HOME
from orchctl.core.host_units import is_ours
from orchctl.core.installation import RECOVER_TIMER
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

_PROPERTIES = "LoadState,ActiveState,SubState,MainPID,UnitFileState,FragmentPath,NRestarts,Result,Job"
_VERSION = re.compile(r"systemd (\d+)")
_MANAGER_PATIENCE_S = 20.0
_POLL_S = 0.25
_STATE_DIRECTORY = "# state directory: "
_CONNECT = """
import asyncio, sys
from prefect.server.database.dependencies import provide_database_interface
from sqlalchemy import text
async def connect():
    engine = await provide_database_interface().engine()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()
try:
    asyncio.run(asyncio.wait_for(connect(), 30))
except Exception as error:
    sys.exit(" ".join(str(error).split("[SQL")[0].split("(Background")[0].split()) or type(error).__name__)
"""


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit as systemd has it. `pid` is its main process, None where none runs; `restarts` are those that systemd made
    since somebody started it; `changes`: it is on its way into another state, or is to be.
    """

    load: str
    active: str
    sub: str
    pid: int | None
    enabled: str
    fragment: str
    restarts: int
    result: str
    changes: bool = False

    @property
    def runs(self) -> bool:
        """Whether it runs, or is about to."""
        return self.active in {"active", "activating", "reloading"}


ABSENT = UnitState("not-found", "inactive", "dead", None, "", "", 0, "")


class HostUnits:
    """One manager's units. Raises NotAllowed, SystemdUnavailable and OrchctlError."""

    def __init__(self, systemd: Systemd, manager: Manager) -> None:
        self._systemd = systemd
        self._manager = manager
        self._found: Folders | None = None

    def version(self) -> int:
        """Return the version of systemd."""
        said = self._systemd.call("systemctl", SYSTEM, "--version")
        match = _VERSION.match(said)
        if match is None:
            raise OrchctlError(f"the version of systemd cannot be read: {said[:80]!r}")
        return int(match[1])

    def path(self, name: str) -> str:
        """Return where the file of a unit belongs."""
        return str(self._folders().config / name)

    def state(self, name: str) -> UnitState:
        """Return what systemd knows of a unit; of a user's manager that does not run, nothing."""
        try:
            said = self._call("show", f"--property={_PROPERTIES}", "--", name)
        except SystemdUnavailable as error:
            if error.absent and self._manager.scope == "user":
                return ABSENT
            raise
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        pid, restarts = int(found.get("MainPID") or 0), int(found.get("NRestarts") or 0)
        return UnitState(
            found.get("LoadState", ""),
            found.get("ActiveState", ""),
            found.get("SubState", ""),
            pid or None,
            found.get("UnitFileState", ""),
            found.get("FragmentPath", ""),
            restarts,
            found.get("Result", ""),
            found.get("ActiveState") == "deactivating" or found.get("Job", "0") not in {"", "0"},
        )

    def read(self, path: str) -> str | None:
        """Return what a unit's file holds, None where there is none."""
        where = self._folders()
        try:
            with acting_as(where.account):
                return Path(path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotAllowed(f"cannot read {path}: {error.strerror}") from error

    def new_folders(self, path: str) -> tuple[str, ...]:
        """Return the folders that writing and enabling a unit makes."""
        where = self._folders()
        wants = [where.config / f"{name}.wants" / "x" for name in self._targets()]
        return tuple(dict.fromkeys(str(each) for one in (Path(path), *wants) for each in unit_links.missing(one)))

    def _targets(self) -> tuple[str, ...]:
        return ("multi-user.target" if self._manager.scope == "system" else "default.target", "timers.target")

    def write(self, path: str, text: str) -> None:
        """Write a unit's file."""
        with acting_as(self._folders().account):
            files.make_directory(Path(path).parent, mode=0o755)
            files.write_atomic(Path(path), text.encode())

    def remove(self, path: str) -> None:
        """Remove a unit's file. Repeatable."""
        with acting_as(self._folders().account):
            if Path(path).parent.is_dir():
                files.remove(Path(path))

    def remove_folders(self, folders: tuple[str, ...]) -> None:
        """Remove those of these folders that are empty. Repeatable."""
        with acting_as(self._folders().account):
            unit_links.remove_empty([Path(each) for each in folders])

    def may_write(self) -> bool:
        """Whether units may be written and switched."""
        where = self._folders()
        with acting_as(where.account):
            return unit_links.may_write(where.config / "x")

    def reload(self) -> None:
        """Make systemd read its units anew; a user's manager that does not run will, when it starts."""
        try:
            self._call("daemon-reload")
        except SystemdUnavailable as error:
            if not error.absent or self._manager.scope == "system":
                raise

    def enable(self, name: str) -> None:
        """Let a unit start at boot. Repeatable."""
        self._call("enable", "--quiet", "--", name)

    def disable(self, name: str) -> None:
        """Take away the links that start a unit at boot. Repeatable; needs no manager that runs."""
        where = self._folders()
        with acting_as(where.account):
            unit_links.lead([(Path(link.path), None) for link in where.links(name)])

    def start(self, name: str) -> None:
        """Begin to start a unit. One that gave up is started too; of a timer's service it is forgotten how it ended."""
        self.forget(name)
        if name.endswith(".timer"):
            self.forget(name.replace(".timer", ".service"))
        self._call("start", "--no-block", "--", name)

    def restart(self, name: str) -> None:
        """Begin to stop a unit, and to start it then."""
        self.forget(name)
        self._call("restart", "--no-block", "--", name)

    def stop(self, name: str, *, patience_s: float) -> bool:
        """Stop a unit and wait until it has. Returns whether it ran. Repeatable."""
        if not self.state(name).runs:
            return False
        self._call("stop", "--no-block", "--", name)
        deadline = time.monotonic() + patience_s
        while (state := self.state(name)).active not in {"inactive", "failed"}:
            if time.monotonic() >= deadline:
                raise OrchctlError(f"{name} does not stop: it is {state.active} ({state.sub})")
            time.sleep(_POLL_S)
        return True

    def forget(self, name: str) -> None:
        """Let systemd forget how a unit ended. Repeatable, also where there is none."""
        with contextlib.suppress(SystemdUnavailable):
            self._systemd.call("systemctl", self._manager, "reset-failed", "--", name, check=False)

    def lingers(self) -> bool | None:
        """Whether a user's manager runs without a login; None for the system's."""
        return self._systemd.lingers(self._manager)

    def linger(self, on: bool) -> None:
        """Let a user's manager run without a login, or not any more; waits for one that starts. Repeatable."""
        owner = self._systemd.owner(self._manager)
        self._systemd.call("loginctl", SYSTEM, "enable-linger" if on else "disable-linger", str(owner))
        deadline = time.monotonic() + _MANAGER_PATIENCE_S
        while on and self.state("default.target") is ABSENT and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _folders(self) -> Folders:
        # Where they are changes with nothing that an install does.
        if self._found is None:
            self._found = unit_links.folders(self._systemd, self._manager)
        return self._found

    def _call(self, verb: str, *words: str) -> str:
        return self._systemd.call("systemctl", self._manager, verb, *words)


def may_run(program: str, user: str) -> bool:
    """Whether a user may run a program: root's own Python, under /root, is nobody else's."""
    with acting_as(host_facts.account(user)):
        return os.access(program, os.X_OK, effective_ids=True)


def may_keep(folder: str, user: str) -> bool:
    """Whether a user may write into a folder, or make it where it is missing."""
    with acting_as(host_facts.account(user)):
        return unit_links.may_write(Path(folder) / "x")


def no_way_to_database(settings: Mapping[str, str], python: str, user: str) -> str | None:
    """Return why a server with these settings would not reach its database, None where it does.

    Tried with what the server will use: its Prefect, its user, its settings, and nothing of our environment.
    """
    account = host_facts.account(user)
    # PREFECT_HOME: Prefect makes the folder where it is missing, and nothing is to be made yet.
    place = {"PATH": os.defpath, "HOME": account.pw_dir, "USER": account.pw_name, HOME: "/"}
    variables = {**settings, **place}
    become = account_of(user) if os.geteuid() == 0 else None
    status, said = environments.run([python, "-I", "-c", _CONNECT], variables, account=become)
    return None if status == 0 else environments.tail(said).splitlines()[-1]


def state_dir_of_system_units() -> str | None:
    """Return the state directory of the installation in the system's scope, None where there is none."""
    try:
        lines = Path("/etc/systemd/system", RECOVER_TIMER).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    named = lines[1].partition(_STATE_DIRECTORY)[2] if len(lines) > 1 else ""
    return named if named and is_ours("\n".join(lines), named) else None
