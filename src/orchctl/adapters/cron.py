"""The crontabs of this host: users' through crontab(1), /etc/crontab and /etc/cron.d from the files themselves."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from orchctl.core import crontab
from orchctl.core.catalog import CronTrigger
from orchctl.core.crontab import CronEntry, Crontab, Daemon
from orchctl.errors import NotAllowed, OrchctlError

CALL_TIMEOUT_S = 30.0
SYSTEM_FILE = "/etc/crontab"
SYSTEM_FOLDER = "/etc/cron.d"
_SPOOLS = ("/var/spool/cron/crontabs", "/var/spool/cron")
# What run-parts takes for a name, as Debian's cron does in /etc/cron.d.
_DEBIAN_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_NONE = ("no crontab for", "No such file or directory")
_REFUSED = ("not allowed", "must be privileged", "Permission denied", "Operation not permitted")


class Crontabs:
    """`environment` is the caller's; `caller` the user whose crontab is meant by default (under sudo, who called it).

    `root` is where /etc and /var are; only tests have another.
    """

    def __init__(self, environment: Mapping[str, str], caller: str | None = None, root: Path = Path("/")) -> None:
        self._environment = environment
        self._root = root
        self._me = _name_of(os.geteuid())
        self.caller = caller or self._me

    @property
    def me(self) -> str:
        """Who runs orchctl."""
        return self._me

    @cached_property
    def daemon(self) -> Daemon | None:
        """Which cron is installed, None where none is. Of others than these two, Debian's is nearest."""
        if self._installed("cron"):
            return "debian"
        if self._installed("crond"):
            return "cronie"
        return "debian" if self._program() else None

    def home(self, user: str) -> str | None:
        """Return a user's home, None where there is no such user."""
        try:
            return pwd.getpwnam(user).pw_dir
        except KeyError:
            return None

    def users(self) -> frozenset[str]:
        """Return the users of this host."""
        return frozenset(each.pw_name for each in pwd.getpwall())

    def text_of(self, user: str) -> str:
        """Return a user's own crontab; empty where there is none, or no cron. Raises NotAllowed, OrchctlError."""
        program = self._program()
        if program is None:
            return ""
        own = user == self._me
        if not own and os.geteuid() != 0:
            raise NotAllowed(
                f"the crontab of {user} can be read by that user and by root only",
                hint=f"run it as {user}, or with sudo",
            )
        argv = [program, "-l"] if own else [program, "-u", user, "-l"]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                env={**self._environment, "LC_ALL": "C"},
                timeout=CALL_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OrchctlError(f"`{' '.join(argv)}` could not be run: {error}") from error
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "surrogateescape")
        said = done.stderr.decode("utf-8", "backslashreplace").strip()
        if any(word in said for word in _NONE):
            return ""
        line = said.splitlines()[0] if said else f"exit code {done.returncode}"
        kind = NotAllowed if any(word in said for word in _REFUSED) else OrchctlError
        raise kind(f"the crontab of {user} cannot be read: {line}")

    def read_file(self, path: str) -> str:
        """Return the text of a crontab in a file. Raises NotAllowed, OrchctlError."""
        try:
            return Path(path).read_bytes().decode("utf-8", "surrogateescape")
        except PermissionError as error:
            raise NotAllowed(f"{path} may not be read", hint="try with sudo") from error
        except OSError as error:
            raise OrchctlError(f"{path} cannot be read: {error.strerror}") from error

    @staticmethod
    def is_system(path: str) -> bool:
        """Whether cron reads `path` as one of its own files, whose lines name a user."""
        return path == SYSTEM_FILE or os.path.dirname(path) == SYSTEM_FOLDER

    def entries(self) -> tuple[tuple[CronEntry, ...], tuple[str, ...]]:
        """Return every line of this host that cron runs and that may be read, and notes on what may not or cannot."""
        if self.daemon is None:
            return (), ("cron is not installed on this host",)
        found: list[CronEntry] = []
        notes: list[str] = []
        for user in self._users_with_crontabs(notes):
            try:
                text = self.text_of(user)
            except OrchctlError as error:
                notes.append(error.message)
                continue
            found += self._entries_in(text, user, None, notes)
        for path in self._system_files(notes):
            try:
                text = self._read(path)
            except OSError as error:
                notes.append(f"{path} cannot be read: {error.strerror}")
                continue
            found += self._entries_in(text, "", path, notes)
        return tuple(found), tuple(notes)

    def find(self, trigger: CronTrigger) -> int | None:
        """Return how many times the trigger's exact line stands where it says; None where that cannot be read."""
        if self.daemon is None:
            return 0
        try:
            text = self._read(trigger.file) if trigger.file else self.text_of(trigger.user)
        except FileNotFoundError:
            return 0
        except (OSError, OrchctlError):
            return None
        return text.split("\n").count(trigger.cron)

    def _read(self, path: str) -> str:
        return self._inside(path).read_bytes().decode("utf-8", "surrogateescape")

    def _inside(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _program(self) -> str | None:
        return shutil.which("crontab", path=self._environment.get("PATH", os.defpath))

    def _installed(self, name: str) -> bool:
        return any(self._inside(f"{folder}/{name}").is_file() for folder in ("/usr/sbin", "/usr/bin", "/sbin"))

    def _users_with_crontabs(self, notes: list[str]) -> list[str]:
        """Return whose crontabs to ask for: all that there are, as far as this user may know."""
        if os.geteuid() != 0:
            notes.append("the crontabs of other users can be read by root only")
            return [self._me]
        for spool in _SPOOLS:
            folder = self._inside(spool)
            if folder.is_dir():
                names = (path.name for path in folder.iterdir() if path.is_file())
                return sorted(name for name in names if self.home(name) is not None)
        return []

    def _system_files(self, notes: list[str]) -> Iterator[str]:
        if self._inside(SYSTEM_FILE).exists():
            yield SYSTEM_FILE
        try:
            names = sorted(os.listdir(self._inside(SYSTEM_FOLDER)))
        except OSError:
            return
        for name in names:
            path = f"{SYSTEM_FOLDER}/{name}"
            if not self._takes(name):
                continue
            reason = self._why_ignored(path)
            if reason is None:
                yield path
            else:
                notes.append(f"{path} is ignored by cron: {reason}")

    def _takes(self, name: str) -> bool:
        if self.daemon == "debian":
            return _DEBIAN_NAME.match(name) is not None
        return not (name.startswith((".", "#")) or name.endswith(("~", ".rpmsave", ".rpmorig", ".rpmnew")))

    def _why_ignored(self, path: str) -> str | None:
        try:
            found = self._inside(path).stat()
        except OSError as error:
            return error.strerror or str(error)
        if not stat.S_ISREG(found.st_mode):
            return "it is not a file"
        if found.st_uid != 0:
            return f"it belongs to {_name_of(found.st_uid)}, not to root"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "others than root may write to it"
        if self.daemon == "cronie" and found.st_mode & 0o7111:
            return "it is executable"
        return None

    def _entries_in(self, text: str, user: str, path: str | None, notes: list[str]) -> Iterator[CronEntry]:
        found: Crontab = crontab.parse(text, with_user=path is not None, daemon=self.daemon or "debian")
        where = crontab.place(user, path)
        notes += [f"line {each.number} of {where} cannot be read: {each.reason}" for each in found.unread]
        ignored = self._ignored(found, where)
        if ignored is not None and found.entries:
            notes.append(ignored)
        for entry in found.entries:
            yield CronEntry(
                entry.what.user or user, path, entry.line, entry.number, entry, ignored, self.daemon == "cronie"
            )

    def _ignored(self, found: Crontab, where: str) -> str | None:
        """Say why cron runs nothing of a file: Debian's gives a whole one up over one line that it cannot take."""
        if self.daemon == "cronie":
            return None
        bad = [each.number for each in found.unread]
        bad += [each.number for each in found.entries if each.what.user and not _exists(each.what.user)]
        return f"cron ignores the whole of {where}, for line {min(bad)}" if bad else None


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
