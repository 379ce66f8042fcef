"""Restoring on a host in a folder: what was there stays, claims add up, and a kill at any instant loses nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from backup_cases import NOW, Host, make_database
from orchctl.core.backup import PARTS, OpenRun
from orchctl.errors import BackupBroken, GateRefused, OrchctlError
from orchctl.services import restore
from support import STRESS, small_disk

OWNER = "state/owners/live-score.json"
NEW_CLAIM = "state/slots/live-score/20251219T060000Z.json"
BEFORE = {
    OWNER: "prefect",
    "state/slots/live-score/20251219T050000Z.json": '{"flow_run_id": "old"}',
    "config/jobs.toml": "version = 1\n",
    "config/schedules.toml": "version = 1\n",
}
SINCE = {
    OWNER: "since",
    "state/handovers/open/live-score": "since",
    NEW_CLAIM: '{"flow_run_id": "new"}',
    "config/jobs.toml": "version = 2\n",
    "config/contracts.toml": "since\n",
}


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM flow_run").fetchone()[0])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with an archive of 100 runs, and a world that has gone on to 150, half of them in the log."""
    made = Host(tmp_path)
    made.fill(BEFORE)
    with contextlib.closing(make_database(made.database.path, runs=100)):
        made.back_up(to="b")
    made.fill(SINCE)
    code = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    code += "for _ in range(50): c.execute('INSERT INTO flow_run DEFAULT VALUES')\nos._exit(0)"
    # Without a goodbye, as a killed server: its log stays.
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code, str(made.database.path)) == 0
    assert Path(f"{made.database.path}-wal").stat().st_size > 0
    made.now = NOW + timedelta(hours=2)
    return made


def archive_of(host: Host) -> str:
    (path,) = (host.root / "b").glob("*.tar.gz")
    return str(path)


def is_restored(host: Host) -> None:
    assert rows(host.database.path) == 100
    state = {
        name: text for name, text in host.texts("state").items() if name.startswith(("owners/", "slots/", "handovers/"))
    }
    assert {f"state/{name}": text for name, text in state.items()} == {
        **{name: text for name, text in BEFORE.items() if name.startswith("state/")},
        NEW_CLAIM: SINCE[NEW_CLAIM],
    }
    assert (host.config / "jobs.toml").read_text() == BEFORE["config/jobs.toml"]
    assert not (host.config / "contracts.toml").exists()
    assert not (host.state / "host" / "restore.json").exists()


def nothing_is_lost(host: Host) -> None:
    """What was there is beside: once at least, and a database together with its log."""
    everything = {
        **host.texts("config"),
        **{name: text for name, text in host.texts("state").items() if "before" in name and "prefect" not in name},
    }
    for name, text in SINCE.items():
        if name != NEW_CLAIM:
            assert text in everything.values(), name
    held = [rows(path) for path in host.database.path.parent.glob("prefect.db.before-*/prefect.db")]
    assert 150 in held


def test_what_was_there_stays_beside(host: Host) -> None:
    found = host.restore(archive_of(host))
    is_restored(host)
    nothing_is_lost(host)
    assert (host.config / "schedules.toml").read_text() == BEFORE["config/schedules.toml"]
    assert not list(host.config.glob("schedules.toml.before*"))
    asides = {Path(each.path).name: each.aside for each in found.moved}
    assert asides["owners"] == f"{host.state}/owners.before-20251219T070000Z"
    assert asides["prefect.db"] == f"{host.database.path}.before-20251219T070000Z"
    assert asides["contracts.toml"] == f"{host.config}/contracts.toml.before-20251219T070000Z"


def test_only_what_is_asked_for(host: Host) -> None:
    host.restore(archive_of(host), "catalog")
    assert (host.config / "jobs.toml").read_text() == BEFORE["config/jobs.toml"]
    assert (host.root / OWNER).read_text() == "since"
    assert rows(host.database.path) == 150
    host.restore(archive_of(host), "state")
    assert (host.root / OWNER).read_text() == "prefect"
    assert rows(host.database.path) == 150
    host.restore(archive_of(host), "database")
    is_restored(host)


def test_a_host_with_nothing_on_it(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other", now=host.now)
    other.install()
    other.restore(archive_of(host))
    assert rows(other.database.path) == 100
    assert (other.root / OWNER).read_text() == "prefect"
    assert (other.root / OWNER).stat().st_mode & 0o777 == 0o600
    assert (other.config / "jobs.toml").read_text() == BEFORE["config/jobs.toml"]
    assert not list(other.root.rglob("*before*"))


def runs() -> list[OpenRun]:
    return [
        OpenRun("old", "old-owl", "SCHEDULED", NOW, True),
        OpenRun("new", "new-owl", "SCHEDULED", NOW + timedelta(hours=1), True),
        OpenRun("due", "due-owl", "SCHEDULED", NOW + timedelta(hours=1), True),
        OpenRun("ahead", "ahead-owl", "SCHEDULED", NOW + timedelta(hours=3), True),
        OpenRun("going", "going-owl", "RUNNING", NOW, True),
    ]


def test_no_slot_that_ran_runs_again(host: Host) -> None:
    host.runs = runs()
    found = host.restore(archive_of(host))
    assert [each.run.id for each in found.settled] == ["old", "new", "going"]
    assert [run for run, _ in host.servers[-1].ended] == ["old", "new", "going"]


def test_places_that_were_taken_then_are_free(host: Host) -> None:
    host.fill({"state/prefect/concurrency_leases/a.json": "{}"})
    found = host.restore(archive_of(host))
    assert host.servers[-1].freed
    leases = host.state / "prefect" / "concurrency_leases"
    assert not leases.exists()
    assert next(each.aside for each in found.moved if each.path == str(leases)) == f"{leases}.before-20251219T070000Z"


def test_where_the_claims_are_gone_no_slot_of_the_past_runs(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other", now=host.now, runs=runs())
    other.install()
    assert [each.run.id for each in other.restore(archive_of(host)).settled] == ["old", "new", "due", "going"]


def test_it_is_refused_while_something_runs(host: Host) -> None:
    host.running = ["server runs (pid 7)"]
    with pytest.raises(GateRefused, match="in use: server runs"):
        host.restore(archive_of(host))
    with pytest.raises(GateRefused, match="in use: server runs"):
        restore.look(host.world(), host.desk(), host.target(), Path(archive_of(host)), ["state"])
    host.running = []
    with contextlib.closing(sqlite3.connect(host.database.path)) as connection:
        connection.execute("SELECT 1 FROM flow")
        with pytest.raises(GateRefused, match="has the database open"):
            host.restore(archive_of(host))
    assert rows(host.database.path) == 150
    host.running = ["server runs (pid 7)"]
    host.restore(archive_of(host), "catalog")


def test_what_starts_while_the_database_is_tried_is_seen(host: Host) -> None:
    host.starts = ["server runs (pid 7)"]
    with pytest.raises(GateRefused, match="in use: server runs"):
        host.restore(archive_of(host))
    assert rows(host.database.path) == 150
    assert not list(host.root.rglob("*before*"))
    assert not list(host.root.rglob(".orchctl-restore"))


def test_a_restore_that_fails_leaves_no_copy_of_the_database(host: Host) -> None:
    desk = host.desk()

    def serve(url: str, _key: str | None) -> NoReturn:
        assert Path(url.partition("///")[2]).is_file()
        raise OrchctlError("a server on the copy of the database does not answer")

    failing = replace(desk, serve=serve)
    with pytest.raises(OrchctlError, match="does not answer"):
        restore.restore(host.world(), failing, host.target(), Path(archive_of(host)), ["database"])
    assert sorted(path.name for path in host.database.path.parent.iterdir()) == [
        "prefect.db",
        "prefect.db-shm",
        "prefect.db-wal",
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 KiB."""
    with small_disk(tmp_path / "disk") as path:
        yield path


@pytest.mark.parametrize("what", ["all of it", "the database", "the state"])
def test_where_there_is_no_room_nothing_is_begun(host: Host, disk: Path, tmp_path: Path, what: str) -> None:
    """300 KB are to go where 256 KiB are: at once, with the database alone, with the state alone."""
    host.fill({"state/alerts/long": "x" * 300_000} if what == "the state" else {})
    with contextlib.closing(sqlite3.connect(host.database.path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO flow_run (text) VALUES (?)", ("x" * (300_000 if what != "the state" else 1),))
    archive = host.back_up(to="large").archive.path
    other = Host(disk if what == "all of it" else tmp_path / "other", now=host.now)
    other.install(home=disk / "prefect" if what == "the database" else None)
    desk = other.desk()
    if what == "the state":
        # Unpacked elsewhere, so that only what is put in place has no room.
        other = Host(disk, now=host.now)
        other.install(home=tmp_path / "home")
    with pytest.raises(GateRefused, match=r"0\.\d MB are needed where .* is, and 0\.\d MB are free"):
        restore.restore(other.world(), desk, other.target(), Path(archive), PARTS)
    there = [*disk.rglob("*"), *other.root.rglob("*"), *(tmp_path / "home").rglob("*")]
    assert {path.name for path in there if path.is_file()} == {
        "host-backup.lock",
        "installation.json",
        "orchctl.lock",
        "settings.env",
    }


@pytest.mark.parametrize("log", [True, False])
def test_a_restore_that_was_killed_between_its_two_moves_is_run_again(host: Host, log: bool) -> None:
    """The database is aside and the new one not in place; a log goes to the database that it is of."""
    path = host.database.path
    (path.parent / "prefect.db.before-20251219T060000Z").mkdir(mode=0o700)
    if not log:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.rename(path.parent / "prefect.db.before-20251219T060000Z" / "prefect.db")
    host.fill({"state/host/restore.json": '{"archive": "a", "before": "before-20251219T060000Z"}'})
    (host.state / "host" / "restore.json").chmod(0o600)
    with pytest.raises(GateRefused, match="a restore was interrupted: a"):
        host.back_up(to="c")
    host.restore(archive_of(host))
    is_restored(host)
    nothing_is_lost(host)


def test_another_prefect_or_another_key_is_refused(host: Host) -> None:
    host.prefect = "3.8.7"
    with pytest.raises(GateRefused, match=r"of Prefect 3\.8\.8, and this is 3\.8\.7"):
        host.restore(archive_of(host))
    host.prefect, host.here_key = "3.9.0", "key"
    with pytest.raises(GateRefused, match="another key"):
        host.restore(archive_of(host))
    assert rows(host.database.path) == 150


def test_a_key_of_the_environment_is_in_it(host: Host) -> None:
    host.here_key = "planted-key"
    made = host.back_up(to="c")
    host.restore(made.archive.path)
    host.here_key = None
    with pytest.raises(GateRefused, match="another key"):
        host.restore(made.archive.path)


def test_an_altered_archive_changes_nothing(host: Host) -> None:
    path = Path(archive_of(host))
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    path.write_bytes(altered)
    before = host.texts("config")
    with pytest.raises(BackupBroken):
        host.restore(str(path))
    assert host.texts("config") == before
    assert rows(host.database.path) == 150
    assert not list(host.root.rglob("*before*"))


class Killed:
    """Ends the process at the n-th call that changes files, before the call."""

    CALLS = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.chmod", "shutil.move"})

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in self.CALLS or writes:
            if self.left == 0:
                os._exit(137)
            self.left -= 1


def killed_at(host: Host, number: int) -> bool:
    """Restore in a process that is killed at a call; return whether it was, or had ended before."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(Killed(number))
        try:
            host.restore(archive_of(host))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 137


def numbers() -> Iterator[int]:
    step = 1 if STRESS else 7
    yield from range(0, 10_000, step)


def test_a_kill_at_any_call_loses_nothing_and_the_next_one_ends_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seen = 0
    for number in numbers():
        host = request.getfixturevalue("host") if number == 0 else None
        host = host or fresh(tmp_path / f"at-{number}")
        was_killed = killed_at(host, number)
        half = host.state / "host" / "restore.json"
        if was_killed and half.exists():
            with pytest.raises(GateRefused, match="a restore was interrupted"):
                host.back_up(to="c")
        host.now += timedelta(minutes=1)
        host.restore(archive_of(host))
        is_restored(host)
        nothing_is_lost(host)
        seen += 1
        if not was_killed:
            break
    assert seen > 8


def fresh(root: Path) -> Host:
    root.mkdir()
    return host.__wrapped__(root)  # type: ignore[attr-defined, no-any-return]
