"""The timer that runs the watchdog every minute: a unit pair in systemd's own folders, outside Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from orchctl.adapters import files, unit_links
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders
from orchctl.core import watch_unit
from orchctl.core.watch_unit import SERVICE, TIMER, TimerState, Watch
from orchctl.errors import OrchctlError


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
