"""What backing up, verifying and restoring need of the outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchctl.core.backup import Archive, Database, Gathered, Held, Manifest, Member, Moved, OpenRun, Part
from orchctl.core.database_url import Kind


class PrefectDatabase(Protocol):
    """Prefect's database. See `adapters/databases.py` and `adapters/postgres.py`."""

    @property
    def kind(self) -> Kind: ...  # noqa: D102
    @property
    def shown(self) -> str: ...  # noqa: D102
    def snapshot(self) -> AbstractContextManager[Held]: ...  # noqa: D102
    def used_by(self) -> tuple[str, ...]: ...  # noqa: D102
    def load(self, dump: Path, label: str) -> str: ...  # noqa: D102
    def look(self, label: str | None) -> Database: ...  # noqa: D102
    def put(self, label: str, before: str) -> Moved: ...  # noqa: D102
    def drop(self, label: str) -> None: ...  # noqa: D102


class Shelf(Protocol):
    """Where archives are, and what goes into one. See `adapters/backups.py`."""

    def folder(self, to: Path | None) -> Path: ...  # noqa: D102
    def staging(self, folder: Path) -> AbstractContextManager[Path]: ...  # noqa: D102
    def gather(self, staging: Path) -> Gathered: ...  # noqa: D102
    def members(self, staging: Path, paths: Collection[str]) -> tuple[Member, ...]: ...  # noqa: D102
    def put(self, folder: Path, manifest: Manifest, staging: Path) -> Archive: ...  # noqa: D102
    def archives(self, folder: Path) -> Sequence[Archive]: ...  # noqa: D102
    def remove(self, archive: Archive) -> None: ...  # noqa: D102
    def needed(self) -> str | None: ...  # noqa: D102
    def unfinished_restore(self) -> str | None: ...  # noqa: D102
    def newest(self) -> Path | None: ...  # noqa: D102
    def note_backup(self, archive: Archive) -> None: ...  # noqa: D102
    def note_verified(self, archive: Archive, at: datetime) -> None: ...  # noqa: D102
    def note_broken(self, path: Path, said: str, at: datetime) -> None: ...  # noqa: D102


class Unpacked(Protocol):
    """An archive unpacked into a scratch folder. See `adapters/unpacking.py`."""

    @property
    def archive(self) -> Archive: ...  # noqa: D102
    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def dump(self) -> Path: ...  # noqa: D102
    @property
    def encryption_key(self) -> str | None: ...  # noqa: D102
    def claimed(self) -> Collection[str]: ...  # noqa: D102


class Scratch(Protocol):
    """A server that only answers. See `adapters/scratch_server.py`."""

    def counts(self) -> dict[str, int]: ...  # noqa: D102
    def read_blocks(self) -> int: ...  # noqa: D102
    def open_runs(self) -> Iterator[OpenRun]: ...  # noqa: D102
    def end_run(self, run: OpenRun, why: str) -> None: ...  # noqa: D102
    def free_places(self) -> tuple[str, ...]: ...  # noqa: D102


class Place(Protocol):
    """Where state and catalog are put back. See `adapters/restoring.py`."""

    def begin(self, archive: Archive, parts: Sequence[Part], at: datetime) -> str: ...  # noqa: D102
    def claimed(self) -> Collection[str] | None: ...  # noqa: D102
    def put(self, unpacked: Path, manifest: Manifest, part: Part, before: str) -> tuple[Moved, ...]: ...  # noqa: D102
    def leases_aside(self, before: str) -> tuple[Moved, ...]: ...  # noqa: D102
    def check(self, manifest: Manifest, part: Part) -> None: ...  # noqa: D102
    def end(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Facts:
    """Who makes an archive, and with what."""

    hostname: str
    state_dir: str
    config_dir: str
    orchctl: str
    prefect: str


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside that a backup touches. `database` is asked for late: where there is none it raises.

    `alone` keeps two of these commands apart, `exclusive` is the lock of the host.
    """

    facts: Facts
    shelf: Shelf
    database: Callable[[], PrefectDatabase]
    alone: Callable[[str], AbstractContextManager[None]]
    exclusive: Callable[[str], AbstractContextManager[None]]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
