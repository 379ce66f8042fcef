"""Prefect's database in PostgreSQL: by its own programs pg_dump, pg_restore and psql.

They get the password in their environment (PGPASSWORD), which nobody else may read, and never as an argument. What is
loaded first lies in a database of its own beside (`<name>_orchctl_<label>`); it takes its place by two renames in one
transaction, and what was there stays as `<name>_before_<time>`.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchctl.adapters.databases import query_of
from orchctl.core.backup import COUNTED, Database, Held, Moved
from orchctl.core.database_url import Kind, Postgres
from orchctl.errors import BackupBroken, GateRefused, NotAllowed, OrchctlError

_INSTALL = "install PostgreSQL's client programs, of the server's version or newer"
# The database that every server has, for what cannot be done from within the one that is meant.
_ELSEWHERE = "postgres"
_CONNECT_S = "15"
_SOON_S = 60.0
_WAIT_S = 15.0
_LATE_S = 600.0
_KNOWN: Sequence[tuple[str, type[OrchctlError], str]] = (
    (
        "permission denied to create database",
        NotAllowed,
        "let an administrator run: ALTER ROLE … CREATEDB, for a copy is made beside the database",
    ),
    (
        r"permission denied|must be (owner|superuser|member)|authentication failed|no password supplied",
        NotAllowed,
        "see the URL of the database in the settings of the server",
    ),
    ("is being accessed by other users", GateRefused, "stop what is connected to the database"),
    ("aborting because of server version|unsupported version", OrchctlError, _INSTALL),
    # pg_dump waits for a lock with the other of the two limits.
    (
        "due to lock timeout|Query was: LOCK TABLE",
        OrchctlError,
        "somebody holds a lock on a table: see pg_stat_activity",
    ),
    ("due to statement timeout", OrchctlError, "the server is busy, or slow: try again later"),
)
"""What the programs say, what it is, and what helps."""
# What pg_restore itself says of a file. What the server answers to it (a full disk, a setting that it does not know) is
# no fault of the file's.
_DAMAGED = re.compile(
    r"valid archive|magic string|file is too short|end of file|corrupt|could not uncompress|unexpected (block|section)"
    r"|unrecognized data block|invalid (dump|compression)"
)


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """A database. `environment` is what the programs inherit besides: PATH and HOME will do.

    What is asked has to be answered within `soon_s` seconds once no lock is waited for, and a lock is waited for
    `wait_s`: others may wait for us meanwhile. What the server counts anew, copies or removes has `late_s`; a dump and
    its loading may take any time.
    """

    place: Postgres
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    kind: Kind = "postgresql"
    soon_s: float = _SOON_S
    wait_s: float = _WAIT_S
    late_s: float = _LATE_S

    @property
    def shown(self) -> str:
        """Where it is, without the password."""
        return self.place.shown

    @contextmanager
    def snapshot(self) -> Iterator[Held]:
        """Hold on to the database as it is now, without keeping anybody from writing, until it has been dumped.

        One session exports its snapshot, counts, and stays; pg_dump reads the same snapshot. Raises OrchctlError where
        somebody's lock, or a server that does not answer, keeps it from that.
        """
        with _Session(self._psql(self.place), self._env(self.place)) as session:
            with session.within(self.soon_s + self.wait_s):
                session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                for limit in self._limits(self.soon_s):
                    session.ask(limit)
                name = session.ask("SELECT pg_export_snapshot()")[0]
                found = _looked(session.ask)
            yield Held(found, lambda target: self._dump(target, name))

    def used_by(self) -> tuple[str, ...]:
        """Return who is connected to the database, for people."""
        shown = "'session ' || pid || ' of ' || coalesce(usename, '') || ' (' || application_name || ')'"
        only = f"datname = {_text(self.place.name)} AND pid <> pg_backend_pid()"
        return tuple(self._ask(self._elsewhere(), f"SELECT {shown} FROM pg_stat_activity WHERE {only}"))  # noqa: S608 - quoted

    def load(self, dump: Path, label: str) -> str:
        """Make a database of a dump, under a label, in place of what has that label; return its URL. Repeatable.

        Raises NotAllowed where this user may make no databases.
        """
        self.drop(label)
        staged = self._staged(label)
        self._tell(f"CREATE DATABASE {_name(staged.name)} TEMPLATE template0 ENCODING 'UTF8'")
        words = ["--no-owner", "--no-privileges", "--no-comments", "--exit-on-error", "--single-transaction"]
        words += ["--dbname", staged.name]
        self._run(["pg_restore", *words, "--no-password", str(dump)], staged)
        return staged.url

    def look(self, label: str | None) -> Database:
        """Count what is in the copy under a label (None: in the database itself)."""
        place = self.place if label is None else self._staged(label)
        return _looked(lambda query: self._ask(place, query, limit_s=self.late_s))

    def put(self, label: str, before: str) -> Moved:
        """Give the database another name (`before` is its end) and the copy under a label its own: both or neither."""
        staged, aside, names = self._staged(label), None, self._names()
        renames = [f"ALTER DATABASE {_name(staged.name)} RENAME TO {_name(self.place.name)}"]
        if self.place.name in names:
            aside = self._free(before.replace("-", "_").lower(), names)
            renames.insert(0, f"ALTER DATABASE {_name(self.place.name)} RENAME TO {_name(aside.name)}")
        self._ask(self._elsewhere(), *renames)
        return Moved(self.place.shown, None if aside is None else aside.shown)

    def drop(self, label: str) -> None:
        """Remove the copy under a label. Repeatable."""
        self._tell(f"DROP DATABASE IF EXISTS {_name(self._staged(label).name)} WITH (FORCE)")

    def _staged(self, label: str) -> Postgres:
        return self.place.beside(f"_orchctl_{label}")

    def _elsewhere(self) -> Postgres:
        place = self.place
        return Postgres(place.host, place.port, place.user, place.password, _ELSEWHERE, place.tls)

    def _names(self) -> list[str]:
        return self._ask(self._elsewhere(), "SELECT datname FROM pg_database")

    def _free(self, before: str, names: Sequence[str]) -> Postgres:
        number, place = 0, self.place.beside(f"_{before}")
        while place.name in names:
            number += 1
            place = self.place.beside(f"_{before}_{number}")
        return place

    def _dump(self, target: Path, snapshot: str) -> None:
        words = ["--format=custom", "--no-owner", "--no-privileges", "--no-password", f"--snapshot={snapshot}"]
        words.append(f"--lock-wait-timeout={_ms(self.soon_s)}")
        target.touch(mode=0o600, exist_ok=False)
        self._run(["pg_dump", *words, "--file", str(target)], self.place)

    def _psql(self, place: Postgres) -> list[str]:
        words = ["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"]
        return ["psql", *words, "--dbname", place.name]

    def _ask(self, place: Postgres, *statements: str, limit_s: float | None = None) -> list[str]:
        """Return what statements answer, in one transaction: all or none of them is done. `limit_s` None: `soon_s`."""
        limit = self.soon_s if limit_s is None else limit_s
        words = ["BEGIN", *self._limits(limit), *statements, "COMMIT"]
        argv = [*self._psql(place), *(word for each in words for word in ("--command", each))]
        return self._run(argv, place, within=limit + self.wait_s).splitlines()

    def _tell(self, statement: str) -> None:
        """Let the server do what it does in no transaction."""
        place = self._elsewhere()
        self._run([*self._psql(place), "--command", statement], place, within=self.late_s)

    def _limits(self, limit_s: float) -> tuple[str, ...]:
        # For this transaction, and not by PGOPTIONS: not every pooler before a server takes that, and one may give the
        # session to somebody else afterwards.
        limits = {"lock_timeout": self.wait_s, "statement_timeout": limit_s}
        return tuple(f"SET LOCAL {name} = {_ms(seconds)}" for name, seconds in limits.items())

    def _run(self, argv: Sequence[str], place: Postgres, *, within: float | None = None) -> str:
        try:
            done = subprocess.run(
                argv, env=self._env(place), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=within
            )
        except subprocess.TimeoutExpired:
            raise _unanswered(argv[0]) from None
        except OSError as error:
            raise OrchctlError(f"cannot start {argv[0]}: {error.strerror}", hint=_INSTALL) from error
        if done.returncode != 0:
            raise _failed(argv[0], done.stderr, place)
        return done.stdout.decode(errors="replace")

    def _env(self, place: Postgres) -> dict[str, str]:
        found = {key: value for key, value in self.environment.items() if not key.startswith("PG")}
        named = {"PGHOST": place.host, "PGPORT": str(place.port), "PGUSER": place.user, "PGSSLMODE": place.tls}
        known = {"PGDATABASE": place.name, "PGPASSWORD": place.password, "PGCONNECT_TIMEOUT": _CONNECT_S, "LC_ALL": "C"}
        return found | {key: value for key, value in (named | known).items() if value is not None}


class _Session:
    """A session of psql that stays open: one statement after the other."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv, self._environment, self._late = argv, environment, False

    def __enter__(self) -> _Session:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._argv, env=dict(self._environment), stdin=pipe, stdout=pipe, stderr=pipe, text=True
            )
        except OSError as error:
            raise OrchctlError(f"cannot start psql: {error.strerror}", hint=_INSTALL) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @contextmanager
    def within(self, limit_s: float) -> Iterator[None]:
        """End the session, and with it what is being asked, where all that takes longer."""
        timer = threading.Timer(limit_s, self._end)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def ask(self, query: str) -> list[str]:
        """Return the rows of a statement. Raises OrchctlError where the session has ended."""
        end = "orchctl-end-of-rows"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{query};\n\\echo {end}\n")
            self._process.stdin.flush()
        except OSError:
            raise self._over() from None
        rows = []
        while (line := self._process.stdout.readline()) != f"{end}\n":
            if not line:
                raise self._over()
            rows.append(line.rstrip("\n"))
        return rows

    def _over(self) -> OrchctlError:
        _, said = self._process.communicate()
        if self._late:
            return _unanswered("psql")
        return _failed("psql", said.encode(), None)


def _looked(ask: Callable[[str], list[str]]) -> Database:
    """Return the revision of the tables and how many rows of each kind there are."""
    counts = {name: int(ask(query_of(name))[0]) for name in COUNTED}
    revision = ask("SELECT version_num FROM alembic_version")
    return Database("postgresql", revision[0] if revision else None, counts)


def _failed(program: str, said: bytes, place: Postgres | None) -> OrchctlError:
    """Return the error for a program's words; libpq's hold no password, but are scrubbed of it all the same."""
    text = said.decode(errors="replace")
    if place is not None and place.password:
        text = text.replace(place.password, "***")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = next((line for line in lines if "ERROR" in line or "FATAL" in line or "error:" in line), None)
    reason = (
        (telling or (lines[-1] if lines else "it said nothing")).removeprefix(f"{program}: ").removeprefix("error: ")
    )
    for pattern, kind, hint in _KNOWN:
        if re.search(pattern, text):
            return kind(f"{program}: {reason}", hint=hint)
    if program == "pg_restore" and any(_DAMAGED.search(line) for line in lines if "ERROR:" not in line):
        return BackupBroken(f"{program}: {reason}")
    return OrchctlError(f"{program}: {reason}")


def _unanswered(program: str) -> OrchctlError:
    return OrchctlError(
        f"{program}: PostgreSQL gave no answer in time", hint="the server is busy, or hangs: see pg_stat_activity"
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
