"""The timer that rolls a job back by itself unless somebody confirms its cutover: a unit pair in systemd's own folders.

It outlives a reboot, and needs neither Prefect nor the operator's shell: systemd runs one command, given in full, and
again until it succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import files, unit_links
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders
from orchctl.core.unit_text import quoted
from orchctl.errors import OrchctlError

_PREFIX = "orchctl-confirm-"


class ConfirmTimer:
    """Arms it in the manager of who runs orchctl: root's is the system's.

    `command` returns the argv that rolls a job back, its program an absolute path; `environment` is what it needs.
    """

    def __init__(
        self, systemd: Systemd, command: Callable[[str], Sequence[str]], environment: Mapping[str, str]
    ) -> None:
        self._systemd = systemd
        self._command = command
        self._environment = dict(environment)
        self._manager = unit_links.own_manager()

    def is_armed(self, job: str) -> bool:
        """Whether the timer is there in full: its files, its link, and systemd has started it."""
        where = self._folders()
        timer, service, link = _paths(where, job)
        if not timer.exists() or not service.exists() or unit_links.target_of(link) is None:
            return False
        return self._is_active(timer)

    def has_trace(self, job: str) -> bool:
        """Whether anything of the timer is left: also of one that was not armed in full."""
        where = self._folders()
        if any(os.path.lexists(path) for path in (*_paths(where, job), *_torn(where, job))):
            return True
        return self._is_active(_paths(where, job)[0])

    def arm(self, job: str, at: datetime) -> None:
        """Roll `job` back at `at` (whole seconds), or as soon after as this host is up.

        Repeatable, also for another time. Raises NotAllowed, OrchctlError.
        """
        where = self._folders()
        timer, service, link = _paths(where, job)
        files.make_directory(where.config, mode=0o755)
        try:
            content = self.service(job)
        except ValueError as error:
            raise OrchctlError(f"the rollback of {job} cannot be armed: {error}") from error
        files.write_atomic(service, content.encode())
        files.write_atomic(timer, _timer(job, at).encode())
        unit_links.lead([(link, str(timer))])
        # Persistent= counts from the stamp, and one that systemd makes at the start would be after an instant that has
        # passed, or passes until then: the timer would never fire.
        _write_stamp(where.stamp(timer.name), before=min(at, datetime.now(UTC)))
        self._call("daemon-reload")
        # Not start: one that is armed for another time already would keep that.
        self._call("restart", "--", timer.name)

    def disarm(self, job: str) -> None:
        """Take the timer away; its service, which may be what runs us, goes on. Repeatable."""
        where = self._folders()
        timer, service, link = _paths(where, job)
        unit_links.lead([(link, None)])
        if self._is_active(timer):
            self._call("stop", "--", timer.name)
        for path in (timer, service, where.stamp(timer.name), *_torn(where, job)):
            files.remove(path)
        self._call("daemon-reload")

    def obstacles(self) -> tuple[str, ...]:
        """Say why no timer could be armed that is sure to fire."""
        try:
            where = self._folders()
            self._call("show", "--property=Version")
        except OrchctlError as error:
            return (error.message,)
        found = []
        if not unit_links.may_write(where.config / "x"):
            found.append(f"no right to write into {where.config}: use sudo")
        return (*found, *unit_links.ends_with_login(self._systemd, self._manager))

    def service(self, job: str) -> str:
        """Return the text of the service, which everybody may read."""
        environment = [f"Environment={quoted(f'{key}={value}')}" for key, value in self._environment.items()]
        program, *words = self._command(job)
        lines = [
            f"# orchctl: rolls {job} back unless `orchctl confirm {job}` comes first.",
            "[Unit]",
            f"Description=Roll {job} back to its legacy timers",
            "StartLimitIntervalSec=0",
            "[Service]",
            "Type=oneshot",
            *environment,
            f"ExecStart=:{quoted(program)} {' '.join(map(quoted, words))}",
            # Another orchctl may hold the lock, or the disk be full: nobody else will ask again.
            "Restart=on-failure",
            "RestartSec=10",
        ]
        return "\n".join(lines) + "\n"

    def _folders(self) -> Folders:
        return unit_links.folders(self._systemd, self._manager)

    def _is_active(self, timer: Path) -> bool:
        return self._call("show", "--property=ActiveState", "--value", "--", timer.name).strip() == "active"

    def _call(self, verb: str, *words: str) -> str:
        return self._systemd.call("systemctl", self._manager, verb, *words)


def _timer(job: str, at: datetime) -> str:
    return f"""# orchctl: rolls {job} back unless `orchctl confirm {job}` comes first.
[Unit]
Description=Roll {job} back to its legacy timers unless somebody confirms
[Timer]
OnCalendar={at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC
Persistent=true
AccuracySec=1s
[Install]
WantedBy=timers.target
"""


def _paths(where: Folders, job: str) -> tuple[Path, Path, Path]:
    """Return the timer, the service, and the link that starts the timer at boot."""
    timer = f"{_PREFIX}{job}.timer"
    link = where.config / unit_links.TIMERS_WANTED / timer
    return where.config / timer, where.config / f"{_PREFIX}{job}.service", link


def _write_stamp(path: Path, *, before: datetime) -> None:
    files.make_directory(path.parent, mode=0o755)
    files.write_atomic(path, b"")
    os.utime(path, (before.timestamp() - 1,) * 2)


def _torn(where: Folders, job: str) -> list[Path]:
    """Return what a kill left of files that were being written."""
    return [left for path in _paths(where, job)[:2] for left in files.torn(path)]
