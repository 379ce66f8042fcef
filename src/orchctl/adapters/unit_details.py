"""What `systemctl show` does not say of a service, or not exactly: its argv from D-Bus, its settings from its files.

Everything goes through systemd's own programs (`Systemd.call`). D-Bus needs a broker; where none answers, a command
is read from the file, if only one reading of it is possible.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from orchctl.core import exec_command
from orchctl.core.exec_command import ExecLine
from orchctl.core.import_units import EXECS, Details
from orchctl.core.legacy import Manager, Service
from orchctl.core.unit_text import Setting, settings
from orchctl.errors import OrchctlError, SystemdUnavailable

_BUS = "org.freedesktop.systemd1"
# systemd's compiled-in search path, for the versions whose systemd-path does not tell.
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Caller(Protocol):
    """`adapters.systemd.Systemd`."""

    def call(self, program: str, manager: Manager, *words: str, check: bool = True) -> str: ...


class UnitDetails:
    """Asks the systemds of this host. `caller` is the user whose manager `Manager("user")` is."""

    def __init__(self, systemd: _Caller, caller: str | None = None) -> None:
        self._systemd = systemd
        self._me = pwd.getpwuid(os.geteuid())
        self._caller = caller or self._me.pw_name
        self._no_bus: dict[Manager, str] = {}

    @property
    def me(self) -> str:
        """Who runs orchctl."""
        return self._me.pw_name

    def owner(self, manager: Manager) -> str | None:
        """Return whose manager it is, None for the system's."""
        return (manager.user or self._caller) if manager.scope == "user" else None

    def settings(self, manager: Manager, unit: str) -> tuple[Setting, ...]:
        """Return the settings in force in a unit's file and drop-ins. Raises as `Systemd.call`."""
        return settings(self._systemd.call("systemctl", manager, "cat", "--no-pager", "--", unit))

    def of(self, service: Service) -> Details:
        """Return what there is to know of a service. Raises as `Systemd.call`."""
        written = self.settings(service.manager, service.name)
        properties, problem = self._properties(service)
        lines: Mapping[str, tuple[ExecLine, ...]] | None
        if properties is not None:
            lines = {name: _exec_lines(properties, name) for name in EXECS}
        else:
            lines, problem = _read(written, problem)
        account = self._account(service)
        return Details(
            settings=written,
            exec=lines,
            problem=problem,
            unset=_unset(written, properties),
            programs=_found(lines, _search_path(written, properties)),
            account=account.pw_name if account else None,
            home=account.pw_dir if account else None,
        )

    def _properties(self, service: Service) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return the service's properties as D-Bus has them, or why there are none."""
        manager = service.manager
        if manager in self._no_bus:
            return None, self._no_bus[manager]
        path = f"/org/freedesktop/systemd1/unit/{_label(service.name)}"
        words = ["call", _BUS, path, "org.freedesktop.DBus.Properties", "GetAll", "s", f"{_BUS}.Service"]
        try:
            answer = json.loads(self._systemd.call("busctl", manager, "--json=short", *words))
            properties = {name: value["data"] for name, value in answer["data"][0].items()}
            for name in EXECS:
                _exec_lines(properties, name)
            return properties, None
        except SystemdUnavailable as error:
            self._no_bus[manager] = error.message
            return None, error.message
        except OrchctlError as error:
            return None, error.message
        except (ValueError, LookupError, TypeError, AttributeError):
            return None, "busctl answers with less than it should"

    def _account(self, service: Service) -> pwd.struct_passwd | None:
        name = self.owner(service.manager) or service.user or "root"
        try:
            return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except (KeyError, OverflowError):
            return None


def _label(name: str) -> str:
    """Escape a unit's name for a D-Bus path, as sd-bus does."""
    escaped = "".join(
        char if (char.isascii() and char.isalnum()) else "".join(f"_{byte:02x}" for byte in char.encode())
        for char in name
    )
    return f"_{ord(escaped[0]):02x}{escaped[1:]}" if escaped[:1].isdecimal() else escaped


def _exec_lines(properties: Mapping[str, Any], name: str) -> tuple[ExecLine, ...]:
    return tuple(ExecLine(each[0], tuple(each[1]), frozenset(each[2])) for each in properties[f"{name}Ex"])


def _read(
    written: Iterable[Setting], problem: str | None
) -> tuple[Mapping[str, tuple[ExecLine, ...]] | None, str | None]:
    """Return the Exec lines as the files have them, or why they cannot be read with certainty."""
    texts: dict[str, list[str]] = {name: [] for name in EXECS}
    for each in written:
        if each.section == "Service" and each.key in texts:
            texts[each.key].append(each.value)
    try:
        return {name: exec_command.fallback(values) for name, values in texts.items()}, None
    except ValueError as error:
        return None, f"{error} ({problem})"


def _unset(written: Iterable[Setting], properties: Mapping[str, Any] | None) -> tuple[str, ...]:
    if properties is not None:
        return tuple(properties.get("UnsetEnvironment", ()))
    return tuple(word for each in written if each.key == "UnsetEnvironment" for word in each.value.split())


def _search_path(written: Iterable[Setting], properties: Mapping[str, Any] | None) -> str:
    own: Sequence[str] = (
        properties.get("ExecSearchPath", ())
        if properties is not None
        else [each.value for each in written if each.key == "ExecSearchPath"]
    )
    return ":".join(own) or _SEARCH_PATH


def _found(lines: Mapping[str, tuple[ExecLine, ...]] | None, search_path: str) -> dict[str, str]:
    """Return where the programs are that are named without a path."""
    names = {line.path for each in (lines or {}).values() for line in each if "/" not in line.path}
    return {name: path for name in sorted(names) if (path := shutil.which(name, path=search_path)) is not None}
