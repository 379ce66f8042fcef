"""Archives on disk, what goes into one, and what is remembered of the newest: `state/host/backups.json`.

An archive is made under another name, in a folder that only its user may look into, and appears whole. Names that
begin with a dot are of a backup that is at work, or are what a killed one left; the next one tells by a lock, and
removes the latter.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import backup_archive, belief, files
from orchctl.adapters.staging import KEPT_FOR, newest
from orchctl.adapters.state_folder import StateFolder
from orchctl.adapters.upgrades import Upgrades
from orchctl.core import backup
from orchctl.core.backup import RESTORING, Archive, Gathered, Manifest, Member
from orchctl.core.doctor_facts import Backup
from orchctl.core.installation import ENCRYPTION_KEY, Installation
from orchctl.core.names import format_instant, parse_instant
from orchctl.errors import GateRefused, NotAllowed, OrchctlError, StateBroken

_RECORD = "backups.json"
"""In `state/host`: there while a restore is going, or was interrupted."""
_STAGING = ".orchctl-backup-"
_LOCK, _CONTENT = "lock", "content"


@dataclass(frozen=True, slots=True)
class Noted:
    """An archive that is remembered: `at` is when it was made, or found whole (UTC)."""

    path: str
    size_bytes: int
    created_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Last:
    """The newest backup, and the newest verification, of a state directory; None: there was none.

    `problem` is what the newest trial of that backup found wrong, None where nothing.
    """

    backup: Noted | None
    verified: Noted | None
    problem: str | None = None

    @property
    def known(self) -> Backup | None:
        """The newest backup as it is judged, None where there is none."""
        if self.backup is None:
            return None
        verified = self.verified.at if self.verified is not None else None
        return Backup(self.backup.created_at, self.backup.path, verified, self.problem, self.backup.size_bytes)


def last(state_dir: Path) -> Last:
    """Return what is remembered of backups. Raises StateBroken."""
    folder = StateFolder(state_dir, "host")
    data = folder.read_json(_RECORD)
    try:
        made, verified = (_noted((data or {}).get(key)) for key in ("backup", "verified"))
        return Last(made, verified, _problem((data or {}).get("broken"), made, verified))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateBroken(f"{folder.path(_RECORD)} cannot be believed", hint="look at it, and remove it") from error


def _noted(data: dict[str, Any] | None) -> Noted | None:
    if data is None:
        return None
    instants = (parse_instant(data["created_at"]), parse_instant(data["at"]))
    return Noted(str(data["path"]), int(data["size_bytes"]), *instants)


def _problem(broken: dict[str, str] | None, made: Noted | None, verified: Noted | None) -> str | None:
    """Return what was found wrong with the newest backup, unless it was found whole after that."""
    if broken is None or made is None or broken["path"] != made.path:
        return None
    mended = verified is not None and verified.path == made.path and verified.at > parse_instant(broken["at"])
    return None if mended else str(broken["said"])


class Shelf:
    """The archives of a state directory, and what goes into the next one.

    `encryption_key` is what encrypts Prefect's blocks where the environment holds it; None: the settings of the
    installation, or the database, do. `trust` are users (uids) whose folders count as ours.
    """

    def __init__(
        self,
        state_dir: Path,
        config_dir: Path,
        *,
        installation: Installation | None,
        encryption_key: str | None,
        trust: Collection[int] = (),
    ) -> None:
        self._state_dir, self._config_dir, self._installation = state_dir, config_dir, installation
        self._encryption_key, self._trust = encryption_key, trust
        self._record = StateFolder(state_dir, "host")

    def folder(self, to: Path | None) -> Path:
        """Return the folder of archives, made where it is missing: `to`, else `backups` in the state directory.

        Raises GateRefused where others may write to it: they could put another archive in the place of one.
        """
        folder = (to or self._state_dir / "backups").absolute()
        files.make_private(folder)
        try:
            doubts = belief.doubts(folder, folder.stat(), trust=self._trust)
        except OSError as error:
            raise OrchctlError(f"cannot look at {folder}: {error.strerror}") from error
        if doubts:
            said, mend = belief.told(doubts)
            raise GateRefused(f"archives in {folder} could not be believed: {said}", hint=mend)
        return folder

    @contextmanager
    def staging(self, folder: Path) -> Iterator[Path]:
        """Give an empty folder beside the archives; it is removed again, and so is what a killed backup left of one.

        Others may be at work in the folder: a backup of another state directory, or of another host.
        """
        for left in folder.glob(f"{_STAGING}*"):
            _remove_left(left)
        made, descriptor = folder / f"{_mine()}{secrets.token_hex(8)}", None
        try:
            with _mapped(made):
                made.mkdir(mode=0o700)
                descriptor = _locked(made / _LOCK)
                (made / _CONTENT).mkdir(mode=0o700)
            yield made / _CONTENT
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if descriptor is not None:
                os.close(descriptor)

    def gather(self, staging: Path) -> Gathered:
        """Copy what belongs in an archive besides the database."""
        copies = _Copies(staging)
        with _mapped(staging):
            for part in ("database", *backup.PARTS, "host/units"):
                (staging / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._gather_state(copies)
            for name in backup.CATALOG_FILES:
                if (path := self._config_dir / name).exists():
                    copies.take(path, f"catalog/{name}", follow=True)
            self._gather_host(copies)
        return Gathered(tuple(copies.paths), tuple(copies.left_out))

    def _gather_state(self, copies: _Copies) -> None:
        if not self._state_dir.is_dir():
            return
        for folder, inner, names, descriptor in os.fwalk(self._state_dir, follow_symlinks=False):
            relative = os.path.relpath(folder, self._state_dir)
            below = "" if relative == "." else f"{relative}/"
            inner[:] = sorted(name for name in inner if backup.belongs(f"{below}{name}"))
            for name in [each for each in inner if not stat.S_ISDIR(_mode(each, descriptor))]:
                copies.left_out.append(f"{folder}/{name} is a symbolic link")
                inner.remove(name)
            (copies.root / "state" / below).mkdir(mode=0o700, exist_ok=True)
            for name in sorted(name for name in names if backup.belongs(f"{below}{name}")):
                copies.take(Path(folder) / name, f"state/{below}{name}", within=descriptor)

    def _gather_host(self, copies: _Copies) -> None:
        installed = self._installation
        if installed is None:
            if self._encryption_key is not None:
                copies.write(f"{ENCRYPTION_KEY}={self._encryption_key}\n".encode(), backup.SETTINGS)
            return
        copies.write(files.dump(installed.to_json()), backup.INSTALLATION)
        copies.take(Path(installed.settings), backup.SETTINGS)
        for unit in installed.units:
            copies.take(Path(unit), f"{backup.UNITS}{Path(unit).name}")

    @staticmethod
    def members(staging: Path, paths: Collection[str]) -> tuple[Member, ...]:
        """Return what is at `paths`, in their order, the database first: it is what takes longest.

        Raises OrchctlError where one of them is not there: an archive that lacks it must not come to be.
        """
        found = sorted(paths, key=lambda path: (not path.startswith("database/"), path))
        return backup_archive.members_of(staging, found)

    def put(self, folder: Path, manifest: Manifest, staging: Path) -> Archive:
        """Make the archive, read all of it again, and give it its name. Raises OrchctlError, BackupBroken."""
        made = staging / "archive.tmp"
        backup_archive.write(made, manifest, staging)
        backup_archive.check(made, trust=self._trust)
        number = 0
        while True:
            path = folder / backup.archive_name(manifest.hostname, manifest.created_at, number)
            with _mapped(path):
                try:
                    os.link(made, path)
                except FileExistsError:
                    number += 1
                    continue
                files.sync_directory(folder)
            return Archive(str(path), path.stat().st_size, manifest)

    @staticmethod
    def archives(folder: Path) -> tuple[Archive, ...]:
        """Return the archives of a folder that say what they are; files that only have such a name are left alone."""
        found = []
        for path in sorted(folder.iterdir()):
            if backup.is_archive_name(path.name) and (manifest := backup_archive.manifest_of(path)) is not None:
                with contextlib.suppress(OSError):
                    found.append(Archive(str(path), path.lstat().st_size, manifest))
        return tuple(found)

    @staticmethod
    def remove(archive: Archive) -> None:
        """Remove an archive. Repeatable."""
        files.remove(Path(archive.path))

    def needed(self) -> str | None:
        """Return the archive from which an unfinished upgrade is put back, None where none needs one.

        Raises StateBroken where its journal cannot be believed.
        """
        journal = Upgrades(self._state_dir).read()
        return None if journal is None else journal.archive

    def unfinished_restore(self) -> str | None:
        """Return the archive whose restore was interrupted, None where none was. Raises StateBroken."""
        data = self._record.read_json(RESTORING)
        return None if data is None else str(data.get("archive", ""))

    def newest(self) -> Path | None:
        """Return the newest archive that is remembered, None where there is none."""
        noted = last(self._state_dir).backup
        return None if noted is None else Path(noted.path)

    def note_backup(self, archive: Archive) -> None:
        """Remember an archive as the newest."""
        self._note("backup", archive, archive.manifest.created_at)

    def note_verified(self, archive: Archive, at: datetime) -> None:
        """Remember that an archive was restored on trial and found whole."""
        self._note("verified", archive, at)

    def note_broken(self, path: Path, said: str, at: datetime) -> None:
        """Remember that an archive was tried and is not whole."""
        self._write("broken", {"path": str(path), "said": said, "at": format_instant(at)})

    def _note(self, key: str, archive: Archive, at: datetime) -> None:
        noted = {
            "path": archive.path,
            "size_bytes": archive.size_bytes,
            "created_at": format_instant(archive.manifest.created_at),
            "at": format_instant(at),
        }
        self._write(key, noted)

    def _write(self, key: str, noted: dict[str, Any]) -> None:
        try:
            before = self._record.read_json(_RECORD)
        except StateBroken:
            before = None
        self._record.write(_RECORD, {"version": 1, **(before if isinstance(before, dict) else {}), key: noted})


def _mine() -> str:
    """Return how names of folders begin in which backups of this host are made."""
    return f"{_STAGING}{re.sub(r'[^A-Za-z0-9._]', '-', socket.gethostname())}-"


def _locked(path: Path) -> int:
    """Make a file that is locked from when it has its name, until the descriptor is closed or its process dies."""
    new = path.with_name(f".{path.name}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # Where a file system has no locks, nobody can take this one for free either.
        with contextlib.suppress(NotAllowed):
            files.try_lock(descriptor, path)
        new.rename(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(left: Path) -> None:
    """Remove what a killed backup left, and not that of one that is at work. Raises nothing.

    Whether another host's is at work its lock may not tell here; then a day without a change does.
    """
    with contextlib.suppress(OSError, OrchctlError):
        ours, lock = re.fullmatch(r"[0-9a-f]{16}", left.name.removeprefix(_mine())), left / _LOCK
        if not (ours and lock.exists()) and newest(left) + KEPT_FOR > datetime.now(UTC):
            return
        with contextlib.ExitStack() as held:
            if lock.exists():
                descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                held.callback(os.close, descriptor)
                if not files.try_lock(descriptor, lock):
                    return
            shutil.rmtree(left, ignore_errors=True)


class _Copies:
    """What is copied below `root`: the `paths` of the copies, and what was `left_out`, in words."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[str] = []
        self.left_out: list[str] = []

    def write(self, content: bytes, to: str) -> None:
        """Write a file of our own."""
        files.write_atomic(self.root / to, content, mode=0o600)
        self.paths.append(to)

    def take(self, path: Path, to: str, *, within: int | None = None, follow: bool = False) -> None:
        """Copy a plain file; what is none, or gone, is left out. `within`: the folder it is in, as it was opened."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        try:
            descriptor = os.open(path if within is None else path.name, flags, dir_fd=within)
        except OSError as error:
            self.left_out.append(f"{path}: {error.strerror}")
            return
        with open(descriptor, "rb") as source:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.left_out.append(f"{path} is not a plain file")
                return
            made = os.open(self.root / to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(made, "wb") as copy:
                shutil.copyfileobj(source, copy)
        self.paths.append(to)


def _mode(name: str, folder: int) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return 0


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowed(f"cannot write {path}: {error.strerror}", hint="see who owns the folder") from error
    except OSError as error:
        raise OrchctlError(f"cannot write {path}: {error.strerror or error}") from error
