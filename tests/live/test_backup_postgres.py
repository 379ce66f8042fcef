"""Backups of a server on PostgreSQL: while runs are written, tried, and put back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import backup_load
import postgres
from orchctl.adapters.installed import Installed
from orchctl.adapters.local_stack import SERVER, LocalStack
from orchctl.adapters.postgres import PostgresDatabase
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.backup import COUNTED
from orchctl.core.database_url import Postgres
from orchctl.core.installation import Installation
from orchctl.errors import BackupBroken, OrchctlError
from support import STRESS, Project, answers, clean_env, eventually

AUTH = "admin:planted-auth"

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(postgres.missing()) or os.geteuid() != 0, reason="needs root and PostgreSQL's programs"),
]


class Installs:
    """A server on a database of a cluster, recorded as an installation."""

    def __init__(self, root: Path, cluster: postgres.Cluster) -> None:
        self.cluster, self.place = cluster, cluster.make("prefect")
        self.project = Project(root, "")
        self.project.schedules["often"] = {"every": "15s"}
        self.project.jobs["hello"] = {"command": ["/bin/true"], "schedules": ["often"]}
        self.project.write()
        self.stack = LocalStack(root / "server", {**clean_env(), "PREFECT_SERVER_API_AUTH_STRING": AUTH})
        self.api_url = ""

    def start(self) -> None:
        self.api_url = self.stack.start_server(0, database=self.place.url)
        settings = self.project.root / "settings.env"
        # systemd's form: a quoted value, in which the percent signs of a URL are plain.
        settings.write_text(
            f'PREFECT_API_DATABASE_CONNECTION_URL="{self.place.url}"\nPREFECT_API_AUTH_STRING="{AUTH}"\n'
        )
        settings.chmod(0o600)
        record = Installation(
            scope="system",
            user="root",
            api_url=self.api_url,
            python="/usr/bin/python3",
            config_dir=str(self.project.root / "config"),
            state_dir=str(self.project.state_dir),
            home=str(self.project.root / "server" / "prefect"),
            settings=str(settings),
            units=(),
            pools={},
        )
        Installed(self.project.state_dir).write(record)
        eventually(lambda: answers(self.api_url, AUTH), within=90)

    def flow_runs(self) -> int:
        with PrefectApi(url=self.api_url, auth_string=AUTH) as api:
            return int(api.request("POST", "/flow_runs/count", {}))

    def rows(self, database: str) -> int:
        return int(self.cluster.psql("SELECT count(*) FROM flow_run", database=database))

    def last_slot(self) -> str:
        """Return the last instant that a run is scheduled for, "" where none is."""
        query = "SELECT max(expected_start_time) FROM flow_run WHERE auto_scheduled AND state_type = 'SCHEDULED'"
        return self.cluster.psql(query, database=self.place.name)

    def stop(self) -> None:
        self.stack.stop(SERVER, patience_s=20)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Installs]:
    with postgres.cluster() as cluster:
        made = Installs(tmp_path, cluster)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def connected(place: Postgres, statement: str = "SELECT 1") -> Iterator[None]:
    """Be connected to a database, and have begun a transaction with a statement."""
    pipe = subprocess.PIPE
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": place.password or ""}
    words = ["--host", place.host, "--port", str(place.port), "--username", place.user, "--dbname", place.name]
    with subprocess.Popen(["psql", "-qtA", *words], env=environment, stdin=pipe, stdout=pipe, text=True) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        psql.stdin.write(f"BEGIN; {statement};\n\\echo begun\n")
        psql.stdin.flush()
        while psql.stdout.readline() != "begun\n":
            assert psql.poll() is None
        yield


def test_backups_while_runs_are_written_are_whole_and_one_is_put_back(host: Installs) -> None:
    project, made = host.project, list[dict[str, object]]()
    project.orchctl("sync")
    eventually(host.last_slot)
    with backup_load.flow_runs(host.api_url, AUTH) as load:
        for _ in range(10 if STRESS else 2):
            eventually(lambda: load.made > len(made))
            before = load.made
            done = project.orchctl("host", "backup", "--json", "--to", str(project.root / "b"), timeout=300)
            assert "planted" not in done.stdout + done.stderr
            newest = json.loads(done.stdout)["data"]["path"]
            found = project.json("host", "verify", newest)
            assert (found["path"], found["database"]) == (newest, "postgresql")
            assert found["found"] == found["counts"]
            assert found["counts"]["flow_runs"] >= before
            made.append(found)
    assert "orchctl" not in host.cluster.psql("SELECT datname FROM pg_database")
    then, now = found["counts"]["flow_runs"], host.flow_runs()
    assert then < now
    refused = project.orchctl("host", "restore", newest, "--yes", check=5)
    assert "a server answers at" in refused.stderr
    host.stop()
    with connected(host.place):
        refused = project.orchctl("host", "restore", newest, "--yes", check=5)
    assert "has the database open" in refused.stderr
    restored = project.json("host", "restore", newest, "--yes")
    assert "planted" not in str(restored)
    names = host.cluster.psql("SELECT datname FROM pg_database").splitlines()
    (aside,) = [name for name in names if name.startswith("prefect_before_")]
    assert host.rows(aside) >= now
    assert host.rows(host.place.name) == then
    # It schedules again: past the last slot that it was put back with.
    last = host.last_slot()
    host.start()
    assert project.json("plan")["changes"] == []
    eventually(lambda: host.last_slot() > last, within=120)
    with backup_load.flow_runs(host.api_url, AUTH) as load:
        eventually(lambda: load.made > 3)


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    """A database with the tables that are counted, and no server of Prefect's on it."""
    with postgres.cluster() as cluster:
        place = cluster.make("prefect")
        for table in (*COUNTED.values(), "log"):
            text = f'CREATE TABLE "{table}" (id int, is_anonymous boolean DEFAULT false)'
            cluster.psql(text, database="prefect", user=postgres.USER)
        cluster.psql("CREATE TABLE alembic_version (version_num text)", database="prefect", user=postgres.USER)
        yield PostgresDatabase(place, {"PATH": os.environ["PATH"]}, wait_s=1)


def test_a_lock_of_somebody_else_s_is_not_waited_for_for_ever(database: PostgresDatabase, tmp_path: Path) -> None:
    with connected(database.place, "LOCK TABLE flow_run IN ACCESS EXCLUSIVE MODE"):
        with pytest.raises(OrchctlError, match="due to lock timeout") as locked, database.snapshot():
            pass
        assert "pg_stat_activity" in (locked.value.hint or "")
        with pytest.raises(OrchctlError, match="due to lock timeout"):
            database.look(None)
    with replace(database, soon_s=10).snapshot() as held:
        locked_log = connected(database.place, "LOCK TABLE log IN ACCESS EXCLUSIVE MODE")
        with locked_log, pytest.raises(OrchctlError, match=r"pg_dump: .* timeout") as locked:
            held.write(tmp_path / "dump")
        assert "pg_stat_activity" in (locked.value.hint or "")
        held.write(tmp_path / "later")


def test_a_dump_that_is_not_whole_is_broken_and_one_that_does_not_fit_is_not(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    with database.snapshot() as held:
        held.write(tmp_path / "dump")
    database.load(tmp_path / "dump", "verify")
    assert database.look("verify") == held.database
    whole = (tmp_path / "dump").read_bytes()
    for content in (b"", b"PGD", b"nothing of the kind", whole[: len(whole) // 3], whole[:40] + b"\xff" * 200):
        (tmp_path / "torn").write_bytes(content)
        with pytest.raises(BackupBroken):
            database.load(tmp_path / "torn", "verify")
    # A type that the server does not have, as one of another version: the dump is whole.
    (tmp_path / "foreign").write_bytes(whole.replace(b"is_anonymous boolean", b"is_anonymous buulean"))
    with pytest.raises(OrchctlError, match="buulean") as failed:
        database.load(tmp_path / "foreign", "verify")
    assert not isinstance(failed.value, BackupBroken)
    database.drop("verify")
