"""Prefect's database as a file of SQLite: a copy of one instant while others write, and a copy put in its place.

What is copied in and looked at first lies beside the database (`.orchctl-<label>/`), on the same file system, so that
it takes its place by a rename. What was there is moved as a whole, with its write-ahead log, into a folder
`<file>.before-<time>`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import files
from orchctl.adapters.unpacking import room_for
from orchctl.core.backup import COUNTED, Database, Held, Moved
from orchctl.core.database_url import Kind, Sqlite
from orchctl.errors import BackupBroken, NotAllowed, OrchctlError

_BESIDES = ("", "-wal", "-shm", "-journal")
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class SqliteDatabase:
    """The file at `path`."""

    path: Path
    kind: Kind = "sqlite"

    @property
    def shown(self) -> str:
        """Where it is."""
        return str(self.path)

    @contextmanager
    def snapshot(self) -> Iterator[Held]:
        """Hold on to the database as it is now, without keeping anybody from writing, until it has been copied.

        Raises OrchctlError where there is none, or where it cannot be read.
        """
        with _sqlite(self.path), contextlib.closing(_open(self.path, "ro")) as source:
            # One read transaction for all that follows: SQLite's backup uses the one that its connection has.
            source.execute("BEGIN")
            yield Held(_looked(source), lambda target: _copy(source, target, self.path))

    def used_by(self) -> tuple[str, ...]:
        """Return the processes that have the database open, for people."""
        names = {os.path.realpath(f"{self.path}{suffix}") for suffix in _BESIDES}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if any(os.readlink(each) in names for each in (process / "fd").iterdir()):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    found.append(f"pid {process.name} ({b' '.join(words).decode(errors='replace').strip()[:80]})")
        return tuple(sorted(found))

    def load(self, dump: Path, label: str) -> str:
        """Put a copy beside the database, under a label, in place of what is there; return its URL. Repeatable.

        Raises GateRefused where it comes from another file system and there is no room for it.
        """
        self.drop(label)
        staged = self._staged(label)
        files.make_private(staged.parent)
        try:
            status = os.stat(dump)
            if status.st_dev != os.stat(staged.parent).st_dev:
                room_for(staged.parent, status.st_size)
            shutil.move(dump, staged)
        except OSError as error:
            raise OrchctlError(f"cannot write {staged}: {error.strerror or error}") from error
        return Sqlite(str(staged)).url

    def look(self, label: str | None) -> Database:
        """Check every page of the copy under a label (None: of the database itself), and count what is in it.

        Nobody else may have it open: its log is folded into it. Raises BackupBroken where it is damaged.
        """
        path = self.path if label is None else self._staged(label)
        with _sqlite(path), contextlib.closing(_open(path, "rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if label is not None:
                connection.execute("PRAGMA journal_mode=DELETE")
            _check(connection, path, "integrity_check")
            return _looked(connection)

    def put(self, label: str, before: str) -> Moved:
        """Move the database aside (`before` is the end of the folder's name) and the copy under a label to its place.

        Repeatable after a kill at any instant: what was moved stays moved, and nothing is moved over it.
        """
        staged, aside = self._staged(label), self._aside(before)
        with _writing(self.path):
            there = [suffix for suffix in _BESIDES if os.path.lexists(f"{self.path}{suffix}")]
            if there:
                files.make_private(aside)
            # The database before its log: a log without its database is taken for that of the next one.
            for suffix in there:
                os.rename(f"{self.path}{suffix}", aside / f"{self.path.name}{suffix}")
            if (heir := files.heir(self.path.parent)) is not None:
                os.chown(staged, *heir, follow_symlinks=False)
            os.replace(staged, self.path)
            files.sync_directory(self.path.parent)
        self.drop(label)
        return Moved(str(self.path), str(aside) if aside.is_dir() else None)

    def drop(self, label: str) -> None:
        """Remove the copy under a label. Repeatable."""
        shutil.rmtree(self._staged(label).parent, ignore_errors=True)

    def _staged(self, label: str) -> Path:
        return self.path.parent / f".orchctl-{label}" / "prefect.db"

    def _aside(self, before: str) -> Path:
        """Return the folder that takes what is there: the next one where it would be moved over another database.

        One that holds a database without a log, while only a log is left in place, is that of an interrupted move.
        """
        number = 0
        while True:
            folder = self.path.parent / f"{self.path.name}.{before}{f'.{number}' if number else ''}"
            taken = {suffix for suffix in _BESIDES if os.path.lexists(folder / f"{self.path.name}{suffix}")}
            if not any(os.path.lexists(f"{self.path}{suffix}") for suffix in taken):
                return folder
            number += 1


def _open(path: Path, mode: str) -> sqlite3.Connection:
    if not path.is_file():
        raise OrchctlError(f"there is no database {path}", hint="`orchctl host status` says what runs where")
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_TIMEOUT_S, isolation_level=None
    )


def _looked(connection: sqlite3.Connection) -> Database:
    """Return the revision of the tables and how many rows of each kind there are."""
    counts = {name: int(connection.execute(query_of(name)).fetchone()[0]) for name in COUNTED}
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return Database("sqlite", None if row is None else str(row[0]), counts)


def query_of(name: str) -> str:
    """Return the query that counts what `COUNTED` names: the same in both kinds of databases."""
    only = " WHERE NOT is_anonymous" if name == "blocks" else ""
    return f"SELECT count(*) FROM {COUNTED[name]}{only}"  # noqa: S608 - the names are ours


def _copy(source: sqlite3.Connection, target: Path, path: Path) -> None:
    """Copy what the source's transaction sees, and look whether it is sound."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _sqlite(path), contextlib.closing(_open(target, "rw")) as copy:
        # All pages in one step: with several, each write of another begins it anew, and under load it never ends.
        source.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")
        _check(copy, path, "quick_check")


def _check(connection: sqlite3.Connection, path: Path, pragma: str) -> None:
    said = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(1)")]
    if said != ["ok"]:
        raise BackupBroken(
            f"the database {path} is damaged: {said[0].splitlines()[0] if said else 'no answer'}",
            hint="an older backup may be sound: `orchctl host verify ARCHIVE`",
        )


@contextmanager
def _sqlite(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        damaged = type(error) is sqlite3.DatabaseError
        if damaged:
            raise BackupBroken(f"the database {path} cannot be read: {error}") from error
        raise OrchctlError(f"the database {path} cannot be read or copied: {error}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowed(f"cannot replace {path}: {error.strerror}", hint="see who owns its folder") from error
    except OSError as error:
        raise OrchctlError(f"cannot replace {path}: {error.strerror or error}") from error
