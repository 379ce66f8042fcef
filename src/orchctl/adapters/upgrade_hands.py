"""What an upgrade does to processes: workers that end alone, programs of another environment, itself from there."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from orchctl.adapters import environments
from orchctl.adapters.accounts import account_of
from orchctl.adapters.host_units import HostUnits
from orchctl.adapters.installed import Installed
from orchctl.adapters.systemd import Systemd
from orchctl.core import upgrade
from orchctl.core.installation import Installation
from orchctl.errors import OrchctlError

HOPPED = "ORCHCTL_UPGRADE_GOES_ON_IN"
"""The environment's variable that says where the process before this one wanted to go on."""
_STOP_S = 120.0
_POLL_S = 0.25


class UpgradeHands:
    """`options` say where catalog and state directory are, `shown` how this command shows what it did; `variables` are
    this process's environment.
    """

    def __init__(
        self,
        its: Installation,
        units: HostUnits,
        systemd: Systemd,
        *,
        options: Sequence[str],
        shown: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        self._its, self._units, self._systemd = its, units, systemd
        self._options, self._shown, self._variables = tuple(options), tuple(shown), variables

    def runs(self) -> Collection[str]:
        """Return the flow runs of this installation that a process of this host is at work for."""
        mark, name = f"ORCHCTL_STATE_DIR={self._its.state_dir}".encode(), b"PREFECT__FLOW_RUN_ID="
        found: set[str] = set()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                entries = (path / "environ").read_bytes().split(b"\0")
                if mark in entries:
                    found |= {each.removeprefix(name).decode() for each in entries if each.startswith(name)}
        return frozenset(found)

    def let_go(self, unit: str) -> None:
        """End a worker as if it were killed: what it runs goes on; and keep it from starting anew. Repeatable."""
        for words in (("kill", "--kill-who=main", "--signal=SIGKILL"), ("stop", "--no-block")):
            self._systemd.call("systemctl", self._its.manager, *words, "--", unit, check=words[0] == "stop")
        deadline = time.monotonic() + _STOP_S
        # Without that stop systemd would start it anew: also one that has not ended yet is told.
        while (state := self._units.state(unit)).runs or state.changes:
            if time.monotonic() >= deadline:
                raise OrchctlError(f"{unit} does not stop: it is {state.active} ({state.sub})")
            time.sleep(_POLL_S)

    def try_archive(self, environment: str, archive: str) -> None:
        """Restore an archive on trial with the packages of an environment. Raises OrchctlError with what it said."""
        argv = upgrade.command(environment, *self._options, "host", "verify", archive)
        status, said = environments.run(argv, self._variables, account=None)
        if status != 0:
            raise OrchctlError(f"what was installed does not open the database's copy: {environments.tail(said)}")

    def migrate(self, environment: str) -> None:
        """Change the database's tables to those that an environment's Prefect needs. Repeatable."""
        kept = {key: value for key, value in self._variables.items() if key in {"PATH", "HOME", "LANG", "TZ"}}
        argv = [upgrade.python_of(environment), "-m", "prefect", "server", "database", "upgrade", "-y"]
        settings = {**kept, **Installed.settings(self._its)}
        account = account_of(self._its.user) if os.geteuid() == 0 else None
        status, said = environments.run(argv, settings, account=account, cwd=self._its.home)
        if status != 0:
            raise OrchctlError(f"the database's tables could not be changed: {environments.tail(said)}")

    def runs_from(self, environment: str) -> bool:
        """Whether this process runs with the packages of an environment."""
        return os.path.realpath(sys.prefix) == os.path.realpath(environment)

    def go_on(self, environment: str) -> NoReturn:
        """Run `orchctl host upgrade` with the packages of an environment, in place of this process."""
        if self._variables.get(HOPPED) == environment:
            raise OrchctlError(f"{upgrade.python_of(environment)} does not run from {environment}")
        argv = upgrade.command(environment, *self._options, *self._shown, "host", "upgrade")
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execve(argv[0], argv, {**self._variables, HOPPED: environment})  # noqa: S606
        except OSError as error:
            raise OrchctlError(f"{argv[0]} cannot be started: {error.strerror}") from error
