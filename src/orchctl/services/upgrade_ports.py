"""What an upgrade needs of the outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from orchctl.core.database_url import Kind
from orchctl.core.doctor_facts import Disk, Requirement
from orchctl.core.installation import Installation
from orchctl.core.upgrade import Change, Journal, Wanted
from orchctl.services import backup_ports, restore
from orchctl.services.host_install_ports import Host
from orchctl.services.stack import Clock


class Environments(Protocol):
    """Virtual environments: folders with an interpreter and its packages. See `adapters/environments.py`."""

    def place(self, python: str) -> str: ...  # noqa: D102
    def of(self, python: str) -> str: ...  # noqa: D102
    def resolve(self, environment: str, wanted: Wanted) -> tuple[Change, ...]: ...  # noqa: D102
    def migrations(self, environment: str, version: str, kind: Kind) -> int | None: ...  # noqa: D102
    def new_migrations(self, old: str, new: str, kind: Kind) -> int: ...  # noqa: D102
    def needs_bytes(self, environment: str) -> int: ...  # noqa: D102
    def copy(self, environment: str, aside: str) -> None: ...  # noqa: D102
    def install(self, aside: str, environment: str, wanted: Wanted) -> None: ...  # noqa: D102
    def complaints(self, environment: str) -> tuple[str, ...]: ...  # noqa: D102
    def mark(self, environment: str, stamp: str) -> None: ...  # noqa: D102
    def marked(self, environment: str, stamp: str) -> bool: ...  # noqa: D102
    def exchange(self, environment: str, aside: str) -> None: ...  # noqa: D102
    def asides(self, environment: str) -> tuple[str, ...]: ...  # noqa: D102
    def remove(self, aside: str) -> None: ...  # noqa: D102


class Journals(Protocol):
    """The journal of an upgrade. See `adapters/upgrades.py`."""

    def read(self) -> Journal | None: ...  # noqa: D102
    def write(self, journal: Journal) -> None: ...  # noqa: D102
    def remove(self) -> None: ...  # noqa: D102


class Hands(Protocol):
    """What is done to processes of this host. See `adapters/upgrade_hands.py`.

    `runs` are the flow runs that processes of this host are at work for; `let_go` ends a worker and not what it runs;
    `try_archive` restores an archive on trial with the packages of an environment (Locked while a backup is at work),
    `migrate` changes the database's tables with them, and says now and then that it goes on. `go_on` never returns: it
    runs the same command with the packages of an environment; a signal to stop waits from there until `heed_signals`,
    and none counts any more from `ignore_signals` on.
    """

    def runs(self) -> Collection[str]: ...  # noqa: D102
    def let_go(self, unit: str) -> None: ...  # noqa: D102
    def try_archive(self, environment: str, archive: str) -> None: ...  # noqa: D102
    def migrate(self, environment: str, say: Callable[[str], None]) -> None: ...  # noqa: D102
    def go_on(self, environment: str) -> NoReturn: ...  # noqa: D102
    def runs_from(self, environment: str) -> bool: ...  # noqa: D102
    def heed_signals(self) -> None: ...  # noqa: D102
    def ignore_signals(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class World:
    """Everything outside that an upgrade touches.

    `options` say on a command line where catalog and state directory are. `needs`: the requirements of the orchctl of
    an interpreter, with what is installed. `within`: whether a version is within bounds. `in_use`: what of server and
    workers runs, in words. `unfinished` are the jobs with an unfinished handover. `disk` is the file system where a
    path is or would be, `database_size` the folder of the database and its bytes, None where it is no file. `alone`
    keeps two upgrades apart, `exclusive` is the lock of the host.
    """

    its: Installation
    options: tuple[str, ...]
    host: Host
    backup: backup_ports.World
    desk: restore.Desk
    target: restore.Target
    environments: Environments
    journal: Journals
    hands: Hands
    needs: Callable[[str], Sequence[Requirement]]
    within: Callable[[str, str], bool]
    in_use: Callable[[], Sequence[str]]
    unfinished: Callable[[], Collection[str]]
    disk: Callable[[str], Disk]
    database_size: Callable[[], tuple[str, int] | None]
    alone: Callable[[str], AbstractContextManager[None]]
    exclusive: Callable[[str], AbstractContextManager[None]]
    clock: Clock
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an upgrade is asked for: see `Wanted`. `to` is where the archives go, None: the usual place.

    `patience_s`: how long runs that are at work are waited for; None ends them.
    """

    version: str | None
    requirements: tuple[str, ...]
    constraints: str | None
    to: Path | None
    patience_s: float | None
