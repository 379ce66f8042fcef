"""The timer that runs the watchdog every minute: a unit pair in systemd's own folders, outside Prefect."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from orchctl.adapters import accounts, belief, files, unit_links
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders
from orchctl.core import unit_text, watch_unit
from orchctl.core.legacy import SYSTEM
from orchctl.core.unit_text import quoted
from orchctl.core.watch_unit import SERVICE, TIMER, TimerState, Watch
from orchctl.errors import OrchctlError, UsageError


class WatchTimer:
    """It is in the manager of who runs orchctl: root's is the system's. Raises NotAllowed, OrchctlError."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self.manager = unit_links.own_manager()

    def contents(self, watch: Watch) -> dict[Path, str]:
        """Return the files that `install` writes, and what they hold."""
        where = self._folders()
        try:
            return {where.config / SERVICE: watch_unit.service(watch), where.config / TIMER: watch_unit.timer()}
        except ValueError as error:
            raise OrchctlError(f"the watchdog's unit cannot be written: {error}") from error

    def install(self, watch: Watch) -> tuple[Path, ...]:
        """Write both, start the timer, and let a boot start it. Return the files. Repeatable, also for another one."""
        where, contents = self._folders(), self.contents(watch)
        files.make_directory(where.config, mode=0o755)
        files.write_together([files.Content(path, text.encode()) for path, text in contents.items()])
        unit_links.lead([(where.config / unit_links.TIMERS_WANTED / TIMER, str(where.config / TIMER))])
        self._call("daemon-reload")
        self._call("restart", "--", TIMER)
        return tuple(contents)

    def uninstall(self) -> tuple[Path, ...]:
        """Take all of it away, and end a look that is going; return the files that were there. Repeatable."""
        where = self._folders()
        there = [path for path in self._paths(where) if os.path.lexists(path)]
        unit_links.lead([(where.config / unit_links.TIMERS_WANTED / TIMER, None)])
        for name in (TIMER, SERVICE):
            if self._show(name, "ActiveState") not in {"inactive", "failed"}:
                self._call("stop", "--", name)
        # What it kept in memory; of a unit that has failed systemd cleans nothing.
        for words in (("reset-failed",), ("clean", "--what=runtime")):
            self._systemd.call("systemctl", self.manager, *words, "--", SERVICE, check=False)
        for path in self._paths(where):
            files.remove(path)
        self._call("daemon-reload")
        return tuple(there)

    def state(self) -> TimerState:
        """Return how it stands. Never raises: where systemd cannot be asked, that is why it is not known."""
        try:
            return self._state()
        except OrchctlError as error:
            return TimerState(str(self.manager), unknown=error.message)

    def _state(self) -> TimerState:
        where = self._folders()
        there = all((where.config / name).exists() for name in (SERVICE, TIMER))
        result = self._show(SERVICE, "Result") if self._show(SERVICE, "ExecMainExitTimestampMonotonic") != "0" else None
        return TimerState(str(self.manager), there, self._show(TIMER, "ActiveState") == "active", result or None)

    def obstacles(self) -> tuple[str, ...]:
        """Say why it might not fire."""
        return unit_links.ends_with_login(self._systemd, self.manager)

    def env_files(self, state_dir: str) -> tuple[str, ...]:
        """Return the files of variables that the watchdog of a state directory reads, root's or ours, in its order.

        None where it is not there, or not known.
        """
        # Of one manager there is one, but it may be another state directory's.
        ours = f"{quoted('--state-dir')} {quoted(state_dir)} "
        found: list[str] = []
        for manager in dict.fromkeys((SYSTEM, self.manager)):
            try:
                text = (unit_links.folders(self._systemd, manager).config / SERVICE).read_text(encoding="utf-8")
            except (OrchctlError, OSError, ValueError):
                continue
            files_of = [each.value for each in unit_text.settings(text) if each.key == "EnvironmentFile"]
            found += [each.removeprefix("-").replace("%%", "%") for each in files_of if ours in text]
        return tuple(dict.fromkeys(found))

    def check_env_file(self, path: str, user: str | None) -> None:
        """See that a file of variables is there, and only for root and for who runs the unit: `user`, None: we.

        It says what the unit's program loads, and holds secrets. Raises UsageError.
        """
        own = os.geteuid() if user is None else accounts.uid_of(user)
        believed = {0} if own is None else {0, own}
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"--env-file: {path} is no file")
            doubts = belief.doubts(Path(path), status, trust=believed)
        except FileNotFoundError as error:
            raise UsageError(f"--env-file: there is no file {path}") from error
        except OSError as error:
            raise UsageError(f"--env-file: {path} cannot be looked at: {error.strerror}") from error
        if doubts:
            said, mend = belief.told(doubts)
            raise UsageError(f"--env-file: somebody else could have written {path}: {said}", hint=mend)
        if status.st_uid not in believed:
            whose, wanted = accounts.user_name(status.st_uid), user or pwd.getpwuid(os.geteuid()).pw_name
            hint = f"chown {wanted} {quote(path)}"
            raise UsageError(f"--env-file: {path} belongs to {whose}, and the unit runs as {wanted}", hint=hint)
        if status.st_mode & 0o077:
            said = f"--env-file: {path} may be read by others ({stat.S_IMODE(status.st_mode):04o})"
            raise UsageError(said, hint=f"chmod 600 {quote(path)}; think of what is in it as known")

    @staticmethod
    def _paths(where: Folders) -> Iterator[Path]:
        yield where.config / TIMER
        yield where.config / SERVICE
        yield where.stamp(TIMER)
        for name in (TIMER, SERVICE):
            yield from files.torn(where.config / name)

    def _folders(self) -> Folders:
        return unit_links.folders(self._systemd, self.manager)

    def _show(self, name: str, key: str) -> str:
        return self._call("show", f"--property={key}", "--value", "--", name).strip()

    def _call(self, verb: str, *words: str) -> str:
        return self._systemd.call("systemctl", self.manager, verb, *words)
