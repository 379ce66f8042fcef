"""What the tests of archives share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import unpacking
from orchctl.adapters.databases import SqliteDatabase
from orchctl.adapters.installed import Installed
from orchctl.adapters.restoring import Place
from orchctl.core.backup import COUNTED, PARTS, Database, Manifest, Member, OpenRun, Part
from orchctl.core.installation import ENCRYPTION_KEY, Installation
from orchctl.services import backup, restore
from orchctl.services.backup import Made
from orchctl.services.backup_ports import Facts, World
from orchctl.services.restore import Desk, Restored, Target, Verified
from orchctl.wiring import App, Settings
from orchctl.wiring import backup as backup_wiring

NOW = datetime(2025, 12, 19, 5, 0, tzinfo=UTC)
DIGEST = "a" * 64
MANIFEST = Manifest(
    created_at=NOW,
    hostname="box",
    state_dir="/state",
    config_dir="/config",
    orchctl="1.0",
    prefect="3.8.8",
    database=Database("sqlite", "abc", {"flow_runs": 7}),
    members=(Member("database/prefect.db", 10, DIGEST), Member("state/owners/live-score.json", 2, DIGEST)),
)


def make_database(path: Path, *, runs: int, wal: bool = True) -> sqlite3.Connection:
    """Make a database with the tables that are counted; the connection stays open, as a server's does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
    for table in COUNTED.values():
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, is_anonymous BOOLEAN DEFAULT 0, text TEXT)")
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES ('abc')")
    connection.execute("INSERT INTO block_document (is_anonymous) VALUES (1), (0)")
    connection.executemany("INSERT INTO flow_run (id) VALUES (?)", [(number,) for number in range(runs)])
    return connection


class Server:
    """A server on trial that answers what its database holds. `runs` are those that have not ended."""

    def __init__(self, counts: Mapping[str, int], runs: Sequence[OpenRun] = ()) -> None:
        self._counts, self._runs = counts, runs
        self.ended: list[tuple[str, str]] = []
        self.freed = False

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def read_blocks(self) -> int:
        return self._counts["blocks"]

    def open_runs(self) -> Iterator[OpenRun]:
        return iter(self._runs)

    def free_places(self) -> tuple[str, ...]:
        self.freed = True
        return ()

    def end_run(self, run: OpenRun, why: str) -> None:
        self.ended.append((run.id, why))


@dataclass
class Host:
    """A host in a folder, with everything real but the server on trial: what is backed up is what `wiring` says."""

    root: Path
    runs: list[OpenRun] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    prefect: str = "3.8.8"
    here_key: str | None = None
    now: datetime = NOW
    say: Callable[[str], None] = lambda _text: None

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def database(self) -> SqliteDatabase:
        return SqliteDatabase(self.state / "prefect" / "prefect.db")

    def install(self, home: Path | None = None) -> None:
        """Record an installation whose server has made no database yet. `home`: its PREFECT_HOME."""
        self.fill({"state/host/settings.env": ""})
        settings = self.state / "host" / "settings.env"
        for path in (settings.parent, settings):
            path.chmod(0o600 if path == settings else 0o700)
        its = Installation(
            scope="system",
            user="root",
            api_url="http://127.0.0.1:4200/api",
            python="/usr/bin/python3",
            config_dir=str(self.config),
            state_dir=str(self.state),
            home=str(home or self.state / "prefect"),
            settings=str(settings),
            units=(),
            pools={},
        )
        Installed(self.state).write(its)

    def fill(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def texts(self, folder: str) -> dict[str, str]:
        root = self.root / folder
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_text(errors="replace") for path in found}

    def world(self) -> World:
        environment = {} if self.here_key is None else {ENCRYPTION_KEY: self.here_key}
        app = App(Settings(self.config, self.state, api_url=None), environment)
        facts = Facts("box", str(self.state), str(self.config), "1.0", self.prefect)
        made = backup_wiring.world(app, environment, self.say)
        return replace(made, facts=facts, now=lambda: self.now)

    @contextmanager
    def _serve(self, url: str, _key: str | None) -> Iterator[Server]:
        # The server on trial opens the copy; what a look at it counts is what it answers.
        copy = SqliteDatabase(Path(url.partition("///")[2]))
        self.servers.append(Server(copy.look(None).counts, self.runs))
        yield self.servers[-1]
        self.running += self.starts

    def desk(self) -> Desk:
        return Desk(
            unpack=lambda path: unpacking.unpacked(path, self.state / "host" / "scratch"),
            serve=self._serve,
            trial=lambda _kind: SqliteDatabase(self.state / "host" / "scratch" / "trial" / "prefect.db"),
        )

    def target(self) -> Target:
        return Target(Place(self.state, self.config, self.state / "prefect"), lambda: self.running, self.here_key)

    def back_up(self, to: str | None = None, keep: int | None = None) -> Made:
        return backup.back_up(self.world(), None if to is None else self.root / to, keep)

    def verify(self, path: Path | None = None) -> Verified:
        return restore.verify(self.world(), self.desk(), path)

    def restore(self, path: str, *parts: Part) -> Restored:
        return restore.restore(self.world(), self.desk(), self.target(), Path(path), parts or PARTS)
