"""A PostgreSQL of the tests' own: a cluster in a temporary folder, run as the user postgres, on a free port."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters.local_stack import free_port
from orchctl.core.database_url import Postgres

PROGRAMS = ("initdb", "pg_ctl", "psql", "pg_dump", "pg_restore", "runuser")
USER, PASSWORD = "prefect", "planted p@ss/word:1"
_SUPER = "planted-super"


def missing() -> list[str]:
    """Return the programs that are not there."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True)
class Cluster:
    """A running cluster. The user `prefect` may log in with a password, and make databases."""

    port: int
    folder: Path

    def stop(self) -> None:
        """Stop it as a power cut would: whoever is connected is cut off."""
        _as_postgres("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start it, on its port."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        where = ["-D", str(self.folder / "data"), "-l", str(self.folder / "log")]
        _as_postgres("pg_ctl", *where, "-o", options, "-w", "-t", "120", "start")

    def psql(self, query: str, *, database: str = "postgres", user: str = "postgres") -> str:
        password = _SUPER if user == "postgres" else PASSWORD
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--username", user, "--dbname", database]
        argv = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", *words]
        done = subprocess.run([*argv, "--command", query], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make(self, name: str) -> Postgres:
        """Make an empty database of the user `prefect`."""
        self.psql(f'CREATE DATABASE "{name}" OWNER "{USER}"')
        return Postgres("127.0.0.1", self.port, USER, PASSWORD, name)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, in a folder of its own: pytest's folders are closed to other users, as is the user postgres."""
    folder = Path(tempfile.mkdtemp(prefix="orchctl-pg-"))
    try:
        with _running(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[Cluster]:
    shutil.chown(folder, "postgres", "postgres")
    secret = folder / "super"
    secret.write_text(_SUPER)
    shutil.chown(secret, "postgres")
    where = ["-D", str(folder / "data")]
    _as_postgres("initdb", *where, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync")
    made = Cluster(free_port(), folder)
    made.start()
    try:
        made.psql(f"CREATE ROLE \"{USER}\" LOGIN CREATEDB PASSWORD '{PASSWORD}'")
        yield made
    finally:
        made.stop()


def _as_postgres(*words: str) -> None:
    argv = ["runuser", "-u", "postgres", "--", *words]
    # Not captured: the server keeps what pg_ctl's output goes to, and a pipe would never end.
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", check=False)
    assert done.returncode == 0, words
