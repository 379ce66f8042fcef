"""What an upgrade does to processes: workers that end alone, programs of another environment, itself from there."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from orchctl.adapters import environments
from orchctl.adapters.accounts import Account, account_of, uid_of, user_name
from orchctl.adapters.host_units import HostUnits
from orchctl.adapters.installed import Installed
from orchctl.adapters.systemd import Systemd
from orchctl.core import backup, upgrade
from orchctl.core.durations import human
from orchctl.core.installation import Installation
from orchctl.errors import ExitCode, Locked, OrchctlError, StateBroken

HOPPED = "ORCHCTL_UPGRADE_GOES_ON_IN"
"""The environment's variable that says where the process before this one wanted to go on."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those by which somebody ends a command: Ctrl-C, a polite kill, a lost terminal."""
MIGRATION_PATIENCE_S = 3600.0
_STOP_S = 120.0
_POLL_S = 0.25


class UpgradeHands:
    """`options` say where catalog and state directory are, `shown` how this command shows what it did; `variables` are
    this process's environment. `owner` is whose the state directory is, for root; None for anybody else.

    Raises StateBroken where root would run for its owner what another user's programs are to do.
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
        owner: int | None,
    ) -> None:
        self._account = _account(its, owner)
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
        """Restore an archive on trial with the packages of an environment. Raises OrchctlError with what it said.

        What does not hold then is not remembered as a fault of the archive. Raises Locked, before anything was tried,
        while a backup is at work, or the trial of one.
        """
        argv = upgrade.command(environment, *self._options, "host", "verify", archive)
        status, said = environments.run(argv, {**self._variables, backup.TRIAL: "1"}, account=None)
        if status == ExitCode.LOCKED:
            raise Locked("a backup is at work on this host, or the trial of one", hint="wait until it has ended")
        if status != 0:
            raise OrchctlError(f"what was installed does not open the database's copy: {environments.tail(said)}")

    def migrate(self, environment: str, say: Callable[[str], None]) -> None:
        """Change the database's tables to those that an environment's Prefect needs. Repeatable.

        Says each minute that it goes on. Raises OrchctlError where it fails, or takes longer than an hour: PostgreSQL
        lets it wait for ever for tables that somebody else has open.
        """
        kept = {key: value for key, value in self._variables.items() if key in {"PATH", "HOME", "LANG", "TZ"}}
        argv = [upgrade.python_of(environment), "-P", "-m", "prefect", "server", "database", "upgrade", "-y"]
        settings = {**kept, **Installed.settings(self._its)}
        try:
            status, said = environments.run(
                argv,
                settings,
                account=self._account,
                cwd=self._its.home,
                patience_s=MIGRATION_PATIENCE_S,
                tell=lambda waited: say(f"still changing the database's tables, after {human(waited)}"),
            )
        except TimeoutError as error:
            took = f"took more than {human(MIGRATION_PATIENCE_S)}"
            raise OrchctlError(
                f"changing the database's tables {took}: {environments.tail(str(error))}",
                hint="in PostgreSQL, whoever has a transaction open may keep them from being changed",
            ) from error
        if status != 0:
            raise OrchctlError(f"the database's tables could not be changed: {environments.tail(said)}")

    def runs_from(self, environment: str) -> bool:
        """Whether this process runs with the packages of an environment; its path has no link in it."""
        return os.path.realpath(sys.prefix) == environment

    def go_on(self, environment: str) -> NoReturn:
        """Run `orchctl host upgrade` with the packages of an environment, in place of this process.

        From here on SIGNALS wait until `heed_signals`: one that came while nothing listens would end us halfway.
        """
        if self._variables.get(HOPPED) == environment:
            raise OrchctlError(f"{upgrade.python_of(environment)} does not run from {environment}")
        argv = upgrade.command(environment, *self._options, *self._shown, "host", "upgrade")
        for stream in (sys.stdout, sys.stderr):
            # Who does not listen any more must not keep us from starting again what was stopped.
            with contextlib.suppress(OSError):
                stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            os.execve(argv[0], argv, {**self._variables, HOPPED: environment})  # noqa: S606
        except OSError as error:
            raise OrchctlError(f"{argv[0]} cannot be started: {error.strerror}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @staticmethod
    def heed_signals() -> None:
        """Let SIGNALS come again, also those that came meanwhile. Repeatable."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @staticmethod
    def ignore_signals() -> None:
        """Ignore SIGNALS from now on, in the processes that go on for this one too. Repeatable."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _account(its: Installation, owner: int | None) -> Account | None:
    """Return whom the programs of an installation run as, None: as we are. `owner`: see `UpgradeHands`.

    Its record and its settings are in a folder of that owner, who could name root there, or anybody.
    """
    if owner is None:
        return None
    if owner not in {0, uid_of(its.user)}:
        raise StateBroken(
            f"{its.state_dir} belongs to {user_name(owner)}, and what is recorded there runs as {its.user}",
            hint="look at who wrote host/installation.json in there, and who is to run server and jobs",
        )
    return account_of(its.user)
