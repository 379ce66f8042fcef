"""A host to upgrade: folders, database and archives are real; systemd, server and pip are as a test wants them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import backup_cases
import host_fakes
from host_fakes import Computer, Killed
from orchctl.adapters import host_lock
from orchctl.adapters.databases import SqliteDatabase
from orchctl.adapters.environments import Environments
from orchctl.adapters.upgrades import Upgrades
from orchctl.core.backup import Held
from orchctl.core.database_url import Kind
from orchctl.core.doctor_facts import Disk, Requirement
from orchctl.core.installation import SERVER_UNIT, Installation
from orchctl.core.upgrade import Change, Journal, Wanted
from orchctl.errors import Locked, NotAllowed, OrchctlError
from orchctl.services import host_install, host_install_plan, restore, upgrade
from orchctl.services.upgrade_ports import Asked, World
from orchctl.services.upgrade_switch import Done

OLD, NEW = "3.8.8", "3.9.1"
RUNS = 20
TABLES = {OLD: "abc", NEW: "def"}
"""The revision of the tables that each Prefect has."""


class Hopped(BaseException):
    """The process goes on with the packages of another environment."""

    def __init__(self, environment: str) -> None:
        self.environment = environment


def version_in(environment: str) -> str:
    """Return the Prefect of an environment."""
    return Path(environment, "prefect").read_text()


@dataclass
class Rig:
    """`broken` says what does not work: `copy`, `install`, `fit`, `trial`, `migrate`, `start`, `rows`, `version`,
    `journal` (on the way back), `remove`. `runs` are flow runs that are at work, and end when they are waited for as
    often as their number says. `busy`: from which change on a backup is at work, and how often it is met. `disks` are
    places with a disk of their own, and the bytes that are free there. `kind` is what the database says that it is, and
    `used` who has it open.
    """

    root: Path
    computer: Computer = field(default_factory=Computer)
    broken: frozenset[str] = frozenset()
    interrupts: str | None = None
    dies_after: str | None = None
    server: bool = True
    migrations: int = 2
    runs: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    held_from: str | None = None
    busy: tuple[str, int] | None = None
    disks: dict[str, int] = field(default_factory=dict)
    kind: Kind = "sqlite"
    used: Sequence[str] = ()
    met: int = 0
    deaf: bool = False
    newest: str = NEW
    here: str = ""

    def __post_init__(self) -> None:
        self.backups = backup_cases.Host(self.root)
        self.environment = str(self.root / "venv")
        Path(self.environment, "bin").mkdir(parents=True)
        Path(self.environment, "prefect").write_text(OLD)
        Path(self.environment, "bin/prefect").write_text(f"#!{self.environment}/bin/python\n")
        backup_cases.make_database(self.database, runs=RUNS).close()
        self.here = self.environment
        words = {} if self.server else {"server": False, "api_url": "http://elsewhere/api"}
        asked = host_fakes.asked(python=f"{self.environment}/bin/python", state_dir=str(self.backups.state), **words)
        host = self.computer.host(self._connect)
        host_install.apply(host, host_install_plan.plan(host, asked), self.computer.clock(), lambda _: None)
        found = host.records.read()
        assert found is not None
        self.its = found
        self.computer.done.clear()

    @property
    def database(self) -> Path:
        return self.root / "state/prefect/prefect.db"

    def _connect(self, its: Installation) -> Any:
        return Server(self, its)

    def change(self, what: str) -> None:
        """Count a change of the host, before it is made: the process may be killed, or interrupted, there."""
        self.computer.change(what)
        if self.busy is not None and what.startswith(self.busy[0]):
            self.met, self.busy = self.busy[1], None
        if self.interrupts is not None and not self.deaf and what.startswith(self.interrupts):
            self.interrupts = None
            raise KeyboardInterrupt

    def _desk(self) -> restore.Desk:
        desk = self.backups.desk()
        return replace(desk, unpack=self._killed) if "restore" in self.broken else desk

    @staticmethod
    def _killed(_archive: Path) -> NoReturn:
        raise Killed

    def disk(self, path: str) -> Disk:
        """Return the disk of the longest of `disks` that a path begins with, else one that has room."""
        mounts = [mount for mount in self.disks if path.startswith(mount)]
        mount = max(mounts, key=len, default="")
        free = self.disks.get(mount, 10**12 if "room" not in self.broken else 10)
        return Disk(path, 1 + len(mount), free, 10**12, 10**6, 10**6)

    def alone(self, command: str) -> AbstractContextManager[None]:
        if self.met > 0:
            self.met -= 1
            raise Locked("orchctl host verify is at work on this host")
        return host_lock.held(self.backups.state, command, lock="host-backup")

    def revision(self) -> str:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])

    def sql(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute(statement)

    def rows(self) -> int:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT count(*) FROM flow_run").fetchone()[0])

    def running(self) -> list[str]:
        return [name for name, state in self.computer.states.items() if state.runs] + self.held

    def world(self) -> World:
        self.backups.prefect = version_in(self.here)
        target = restore.Target(self.backups.target().place, self.running, None)
        database = self.backups.database if self.kind == "sqlite" else AsPostgres(self.database, self.kind, self.used)
        made = replace(self.backups.world(), now=self.computer.now, alone=self.alone, database=lambda: database)
        return World(
            its=self.its,
            options=("--config", "/srv/config", "--state-dir", str(self.backups.state)),
            host=self.computer.host(self._connect),
            backup=made,
            desk=self._desk(),
            target=target,
            environments=Pip(self),
            journal=Journals(self),
            hands=Hands(self),
            needs=lambda python: (self._prefect(python),),
            within=lambda version, bounds: version.startswith(("3.8.", "3.9.")) and bounds != "",
            in_use=self.running,
            unfinished=lambda: self.unfinished,
            disk=self.disk,
            database_size=lambda: (str(self.database.parent), 10**6),
            alone=lambda command: host_lock.held(self.backups.state, command, lock="host-upgrade"),
            exclusive=lambda command: host_lock.held(self.backups.state, command),
            clock=self.computer.clock(),
            say=self.said.append,
        )

    def _prefect(self, python: str) -> Requirement:
        found = version_in(str(Path(python).parent.parent))
        return Requirement("prefect", ">=3.8.8,<3.10", found, "fit" not in self.broken or found == OLD)

    def upgrade(self, **words: Any) -> Done | None:
        """Upgrade as one who types it, through all the processes that it takes; None where nothing was to be done."""
        fields: dict[str, Any] = {
            "version": None,
            "requirements": (),
            "constraints": None,
            "to": None,
            "patience_s": 60.0,
        }
        asked = Asked(**(fields | words))

        def first() -> Done | None:
            done = upgrade.upgrade(self.world(), asked, lambda _: None)
            return done if isinstance(done, Done) else None

        return self.through(first)

    def through(self, begin: Callable[[], Done | None]) -> Done | None:
        """Go on in each process that the one before has named. The operator begins from what is in place."""
        self.here = self.environment
        for _ in range(9):
            try:
                return begin()
            except Hopped as hop:
                self.here = hop.environment
                begin = self.resume
        raise AssertionError("it goes round in circles")

    def resume(self) -> Done | None:
        world = self.world()
        with world.alone("host upgrade"):
            return upgrade.resume(world)


@dataclass(frozen=True)
class AsPostgres(SqliteDatabase):
    """A file of SQLite that says that it is a database of PostgreSQL. `used` are those who are connected to it."""

    used: Sequence[str] = ()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Held]:
        with super().snapshot() as held:
            yield replace(held, database=replace(held.database, kind=self.kind))

    def used_by(self) -> tuple[str, ...]:
        return tuple(self.used)


class Server(host_fakes.Server):
    """The server of what is in place: tables that are newer than it, it cannot open; older ones it changes."""

    def __init__(self, rig: Rig, its: Installation) -> None:
        super().__init__(rig.computer, its)
        self.rig = rig

    def version(self) -> str:
        if not self.its.server:
            return NEW
        wrong = "version" in self.rig.broken and version_in(self.rig.environment) == NEW
        return "0" if wrong else version_in(self.rig.environment)

    def scheduled_runs(self, deployment_ids: Any) -> Any:
        rig, here = self.rig, version_in(self.rig.environment)
        if rig.server and rig.revision() != TABLES[here]:
            if here == OLD:
                return ()
            rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[NEW]}'")
        if rig.dies_after is not None and rig.computer.done[-2:-1] == [rig.dies_after]:
            raise Killed
        if here == NEW and "start" in rig.broken:
            return ()
        if here == NEW and "grows" in rig.broken:
            rig.sql("INSERT INTO flow_run DEFAULT VALUES")
        if here == NEW and "rows" in rig.broken:
            rig.sql("DELETE FROM flow_run WHERE id = 1")
        return super().scheduled_runs(deployment_ids)

    def delete_flow(self, id: str) -> None:  # noqa: A002 - as the port has it
        self.rig.sql("DELETE FROM flow WHERE text = 'probe'")
        self.rig.sql("DELETE FROM flow_run WHERE text = 'probe'")

    def flow_runs(self, ids: Collection[str]) -> Any:
        return ()


class Pip(Environments):
    """Real folders, and packages that are a file with a version."""

    def __init__(self, rig: Rig) -> None:
        super().__init__({"PATH": "/usr/bin:/bin"})
        self.rig = rig

    def of(self, python: str) -> str:
        return str(Path(python).parent.parent)

    def resolve(self, environment: str, wanted: Wanted) -> tuple[Change, ...]:
        before, after = version_in(environment), wanted.version or self.rig.newest
        return (Change("prefect", before, after),) if before != after else ()

    def migrations(self, environment: str, version: str, kind: Kind) -> int | None:
        return self.rig.migrations

    def new_migrations(self, *_: object) -> int:  # type: ignore[override]
        return self.rig.migrations

    def copy(self, environment: str, aside: str) -> None:
        self.rig.change("copy")
        super().copy(environment, aside)

    def install(self, aside: str, environment: str, wanted: Wanted) -> None:
        self.rig.change("install")
        if "install" in self.rig.broken:
            raise OrchctlError("pip install failed")
        Path(aside, "prefect").write_text(wanted.version or "")

    def complaints(self, environment: str) -> tuple[str, ...]:
        return ()

    def mark(self, environment: str, stamp: str) -> None:  # type: ignore[override]
        self.rig.change("mark")
        super().mark(environment, stamp)

    def exchange(self, environment: str, aside: str) -> None:  # type: ignore[override]
        self.rig.change("exchange")
        super().exchange(environment, aside)

    def remove(self, aside: str) -> None:  # type: ignore[override]
        self.rig.change(f"remove {Path(aside).name}")
        if "remove" in self.rig.broken:
            raise NotAllowed(f"{aside} cannot be removed")
        super().remove(aside)


class Journals(Upgrades):
    """The real one, counted."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.backups.state)
        self.rig = rig

    def write(self, journal: Journal) -> None:
        self.rig.change(f"journal {journal.step}")
        if "journal" in self.rig.broken and journal.step == "restoring":
            raise OrchctlError("there is no room on the disk")
        super().write(journal)

    def remove(self) -> None:
        self.rig.change("remove journal")
        super().remove()


@dataclass
class Hands:
    """`adapters/upgrade_hands.py`."""

    rig: Rig

    def runs(self) -> Sequence[str]:
        """Return those that are still at work; each look takes its time."""
        found = [name for name, left in self.rig.runs.items() if left > 0]
        self.rig.runs = {name: left - 1 for name, left in self.rig.runs.items()}
        return found

    def let_go(self, unit: str) -> None:
        self.rig.change(f"let go {unit}")
        self.rig.computer.state(unit).runs = False

    def try_archive(self, environment: str, archive: str) -> None:
        self.rig.change("try")
        with self.rig.alone("host verify"):
            assert Path(archive).is_file()
        if "trial" in self.rig.broken:
            raise OrchctlError("what was installed does not open the database's copy")

    def migrate(self, environment: str, say: Callable[[str], None]) -> None:
        self.rig.change("migrate")
        assert not self.rig.computer.state(SERVER_UNIT).runs
        if self.rig.held_from == "migrate":
            self.rig.held.append("somebody has the database open")
        if "migrate" in self.rig.broken:
            raise OrchctlError("the database's tables could not be changed")
        self.rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[version_in(environment)]}'")

    def runs_from(self, environment: str) -> bool:
        return self.rig.here == environment

    def heed_signals(self) -> None:
        return None

    def ignore_signals(self) -> None:
        self.rig.deaf = True

    def go_on(self, environment: str) -> NoReturn:
        raise Hopped(environment)
