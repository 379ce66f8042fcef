"""How PostgreSQL's programs are called, and what is made of what they say: with programs that only write it down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchctl.adapters.postgres import PostgresDatabase
from orchctl.core.database_url import Postgres
from orchctl.errors import BackupBroken, GateRefused, NotAllowed, OrchctlError

PLACE = Postgres("db.example", 6543, "pre", "planted-secret", 'pre"fect', "require")


def database(folder: Path, script: str) -> PostgresDatabase:
    """Return one whose programs run a script, after they have written down their arguments and environment."""
    for name in ("psql", "pg_dump", "pg_restore"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/argv\nenv >> {folder}/env\n{script}\n')
        path.chmod(0o755)
    return PostgresDatabase(PLACE, {"PATH": f"{folder}:/usr/bin:/bin", "PGSERVICE": "elsewhere"})


def test_the_password_is_in_the_environment_and_nowhere_else(tmp_path: Path) -> None:
    found = database(tmp_path, ":")
    found.used_by()
    found.load(tmp_path / "dump", "verify")
    found.put("verify", "before-20251219T050000Z")
    argv, environment = (tmp_path / "argv").read_text(), (tmp_path / "env").read_text()
    assert "planted-secret" not in argv
    for line in ("PGPASSWORD=planted-secret", "PGHOST=db.example", "PGPORT=6543", "PGUSER=pre", "PGSSLMODE=require"):
        assert line in environment.splitlines()
    assert "PGSERVICE" not in environment
    assert '--command CREATE DATABASE "pre""fect_orchctl_verify"' in argv
    assert 'ALTER DATABASE "pre""fect_orchctl_verify" RENAME TO "pre""fect"' in argv


def test_a_session_that_ends_says_why(tmp_path: Path) -> None:
    found = database(tmp_path, "echo 'psql: error: FATAL:  password authentication failed' >&2; exit 2")
    with pytest.raises(NotAllowed, match="password authentication failed"), found.snapshot():
        pass


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("psql: error: planted-secret is not nice", OrchctlError, r"psql: \*\*\* is not nice"),
        ("ERROR:  permission denied to create database", NotAllowed, "permission denied"),
        ('ERROR:  source database "x" is being accessed by other users', GateRefused, "by other users"),
        ("", OrchctlError, "it said nothing"),
    ],
)
def test_what_a_program_says_is_told(tmp_path: Path, said: str, kind: type[OrchctlError], message: str) -> None:
    found = database(tmp_path, f"echo '{said}' >&2; exit 1")
    with pytest.raises(kind, match=message):
        found.used_by()


def loading(folder: Path, said: str) -> OrchctlError:
    """Return what is raised where pg_restore says this."""
    found = database(folder, f'case "$0" in */pg_restore) echo "pg_restore: error: {said}" >&2; exit 1;; esac')
    with pytest.raises(OrchctlError) as failed:
        found.load(folder / "dump", "verify")
    return failed.value


@pytest.mark.parametrize(
    "said",
    [
        "input file does not appear to be a valid archive",
        "did not find magic string in file header",
        "input file is too short (read 3, expected 5)",
        "could not read from input file: end of file",
        "entry ID 7 out of range -- perhaps a corrupt TOC",
        "could not uncompress data: incorrect data check",
    ],
)
def test_a_dump_that_is_damaged_is_broken(tmp_path: Path, said: str) -> None:
    failed = loading(tmp_path, said)
    assert isinstance(failed, BackupBroken)
    assert said in failed.message


@pytest.mark.parametrize(
    "said",
    [
        'could not execute query: ERROR:  could not extend file "base/1/2": No space left on device',
        'could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"',
        "unsupported version (1.16) in file header",
        "error returned by PQputCopyData: server closed the connection unexpectedly",
        'connection to server at "db.example", port 6543 failed: Connection refused',
    ],
)
def test_what_is_no_fault_of_the_dump_s_does_not_make_it_broken(tmp_path: Path, said: str) -> None:
    assert not isinstance(loading(tmp_path, said.replace('"', "'")), BackupBroken)


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    found = replace(database(tmp_path, "exec sleep 600"), soon_s=0.3, wait_s=0.3, late_s=0.3)
    with pytest.raises(OrchctlError, match="gave no answer in time"):
        found.used_by()
    with pytest.raises(OrchctlError, match="gave no answer in time"), found.snapshot():
        pass
    with pytest.raises(OrchctlError, match="gave no answer in time"):
        found.drop("verify")


def test_programs_that_are_not_there_are_named(tmp_path: Path) -> None:
    found = PostgresDatabase(PLACE, {"PATH": str(tmp_path)})
    with pytest.raises(OrchctlError, match="cannot start psql") as failed:
        found.used_by()
    assert failed.value.hint is not None
    with pytest.raises(OrchctlError, match="cannot start psql"), found.snapshot():
        pass
