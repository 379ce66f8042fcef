"""Backups of a host in a folder: all parts are real, but the server on trial."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backup_cases import NOW, Host, make_database
from orchctl.adapters import backup_archive, backups
from orchctl.adapters.databases import SqliteDatabase
from orchctl.adapters.upgrades import Upgrades
from orchctl.core.upgrade import Journal
from orchctl.errors import BackupBroken, GateRefused, Locked, OrchctlError, StateBroken
from orchctl.services import backup

OWNER = "state/owners/live-score.json"
CLAIM = "state/slots/live-score/20251219T050000Z.json"
FILES = {
    OWNER: '{"owner": "prefect"}',
    CLAIM: '{"run_id": "r", "flow_run_id": "old"}',
    "state/handovers/h.jsonl": "{}\n",
    "state/locks/live-score.lock": "",
    "state/orchctl.lock": "",
    "state/host/server.json": "{}",
    "config/jobs.toml": "version = 1\n",
    "config/schedules.toml": "version = 1\n",
    "config/other.toml": "not ours\n",
}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    made.fill(FILES)
    with contextlib.closing(make_database(made.database.path, runs=100)):
        yield made


def members(path: str) -> list[str]:
    return [member.path for member in backup_archive.check(Path(path)).members]


def test_what_is_in_it(host: Host) -> None:
    made = host.back_up()
    assert members(made.archive.path) == [
        "database/prefect.db",
        "catalog/jobs.toml",
        "catalog/schedules.toml",
        "state/handovers/h.jsonl",
        OWNER,
        CLAIM,
    ]
    counts = made.archive.manifest.database.counts
    assert counts == {"flows": 0, "flow_runs": 100, "deployments": 0, "work_pools": 0, "automations": 0, "blocks": 1}
    assert made.left_out == ()
    folder = Path(made.archive.path).parent
    assert folder == host.state / "backups"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["orchctl-box-20251219T050000Z.tar.gz"]
    assert Path(made.archive.path).stat().st_mode & 0o777 == 0o600


def test_an_archive_of_archives_is_none(host: Host) -> None:
    first = host.back_up(to="state/elsewhere")
    again = host.back_up(to="state/elsewhere")
    assert members(first.archive.path) == members(again.archive.path)
    assert again.archive.path.endswith("Z-1.tar.gz")


def test_a_link_is_left_out_and_said(host: Host, tmp_path: Path) -> None:
    (host.state / "owners/evil.json").symlink_to("/etc/shadow")
    (host.state / "evil").symlink_to("/etc")
    os.mkfifo(host.state / "fifo")
    made = host.back_up()
    assert not [path for path in members(made.archive.path) if "evil" in path or "fifo" in path]
    assert sorted(said.rpartition("/")[2].partition(":")[0].split()[0] for said in made.left_out) == [
        "evil",
        "evil.json",
        "fifo",
    ]


def test_the_newest_are_kept(host: Host) -> None:
    paths = []
    for day in range(4):
        host.now = NOW + timedelta(days=day)
        made = host.back_up(to="b", keep=2)
        paths.append(made.archive.path)
    assert made.removed == (paths[1],)
    assert sorted(str(path) for path in (host.root / "b").iterdir()) == paths[2:]


def test_a_backup_that_fails_removes_nothing(host: Host) -> None:
    kept = [host.back_up(to="b", keep=1).archive.path]
    path = host.database.path
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    host.now = NOW + timedelta(days=1)
    with pytest.raises(BackupBroken, match=r"is damaged|cannot be read"):
        host.back_up(to="b", keep=1)
    assert [str(each) for each in (host.root / "b").iterdir()] == kept


KILLED = """
import os, sys
from pathlib import Path
from orchctl.adapters.backups import Shelf
folder = Path(sys.argv[1])
shelf = Shelf(folder, folder, installation=None, encryption_key=None)
with shelf.staging(shelf.folder(folder)) as staging:
    (staging / "half").write_text("x")
    os._exit(0)
"""


def test_what_a_killed_one_left_goes(host: Host) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(host.root / "b")], check=True)
    assert [path.name for path in (host.root / "b").rglob("half")] == ["half"]
    made = host.back_up(to="b")
    assert [str(path) for path in (host.root / "b").iterdir()] == [made.archive.path]


@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_what_another_host_left_goes_after_a_day(host: Host, hours: int, stays: bool) -> None:
    """Its lock may not be seen here."""
    left = host.root / "b" / ".orchctl-backup-elsewhere-0123456789abcdef"
    (left / "content").mkdir(parents=True, mode=0o700)
    left.parent.chmod(0o700)
    (left / "lock").touch(0o600)
    then = time.time() - hours * 3600
    for path in (left / "content", left / "lock", left):
        os.utime(path, (then, then))
    host.back_up(to="b")
    assert left.exists() == stays


def test_two_backups_into_one_folder_leave_each_other_alone(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other")
    other.fill(FILES)
    make_database(other.database.path, runs=3).close()
    shared, theirs = tmp_path / "shared", list[str]()
    host.say = lambda _text: theirs.append(backup.back_up(other.world(), shared, 1).archive.path)
    made = backup.back_up(host.world(), shared, 1).archive
    assert len(theirs) == 1
    assert members(made.path) == members(theirs[0])
    assert {str(path) for path in shared.iterdir()} == {made.path, *theirs}


def test_what_vanishes_while_it_is_archived_is_missed(host: Host) -> None:
    def vanish(_text: str) -> None:
        (path,) = (host.root / "b").rglob("live-score.json")
        path.unlink()

    host.say = vanish
    with pytest.raises(OrchctlError, match=r"cannot read .*/owners/live-score\.json"):
        host.back_up(to="b")
    assert list((host.root / "b").iterdir()) == []


def test_what_an_unfinished_upgrade_is_put_back_from_is_kept(host: Host) -> None:
    paths = []
    for day in range(3):
        host.now = NOW + timedelta(days=day)
        paths.append(host.back_up(to="b").archive.path)
    (host.root / "also").symlink_to("b")
    named = str(host.root / "also" / Path(paths[0]).name)
    journal = Journal("20251219T050000Z", "starting", "/venv", "/venv.before-20251219T050000Z", "3.8.8", "3.9.1", 2)
    Upgrades(host.state).write(replace(journal, archive=named))
    host.now = NOW + timedelta(days=3)
    made = host.back_up(to="b", keep=1)
    assert made.removed == tuple(paths[1:])
    Upgrades(host.state).remove()
    host.now = NOW + timedelta(days=4)
    assert host.back_up(to="b", keep=1).removed == (paths[0], made.archive.path)


def test_a_folder_that_others_may_write_to_is_refused(host: Host) -> None:
    (host.root / "b").mkdir()
    (host.root / "b").chmod(0o777)
    with pytest.raises(GateRefused, match="may be written by anybody"):
        host.back_up(to="b")


def test_the_newest_and_its_verification_are_remembered(host: Host) -> None:
    assert backups.last(host.state) == backups.Last(None, None)
    with pytest.raises(GateRefused, match="there is no backup yet"):
        host.verify()
    made = host.back_up()
    host.now = NOW + timedelta(hours=1)
    found = host.verify()
    last = backups.last(host.state)
    assert last.backup is not None
    assert last.verified is not None
    assert (last.backup.path, last.backup.at) == (made.archive.path, NOW)
    assert (last.verified.path, last.verified.at) == (made.archive.path, NOW + timedelta(hours=1))
    assert found.counts["flow_runs"] == 100
    assert not (host.state / "host" / "scratch").exists()
    (host.state / "host" / "backups.json").write_text('{"backup": {}}')
    with pytest.raises(StateBroken):
        backups.last(host.state)


def test_a_server_that_counts_other_things_makes_it_broken(host: Host) -> None:
    made = host.back_up()
    wrong = host.desk()

    @contextlib.contextmanager
    def serve(url: str, key: str | None) -> Iterator[object]:
        with wrong.serve(url, key) as server:
            server._counts = {**server._counts, "flow_runs": 99}  # type: ignore[attr-defined]
            yield server

    from orchctl.services import restore

    desk = restore.Desk(wrong.unpack, serve, wrong.trial)  # type: ignore[arg-type]
    with pytest.raises(BackupBroken, match="flow runs: 99 instead of 100"):
        restore.verify(host.world(), desk, Path(made.archive.path))
    assert backups.last(host.state).verified is None
    known = backups.last(host.state).known
    assert known is not None
    assert "flow runs: 99 instead of 100" in (known.problem or "")
    host.now = NOW + timedelta(hours=1)
    host.verify()
    known = backups.last(host.state).known
    assert known is not None
    assert (known.problem, known.verified) == (None, NOW + timedelta(hours=1))


def test_it_waits_for_the_lock_of_the_host_and_two_backups_do_not_meet(host: Host) -> None:
    world = host.world()
    with world.exclusive("cutover"):
        thread = threading.Thread(target=host.back_up)
        thread.start()
        time.sleep(0.2)
        assert not list((host.state / "backups").glob("*.tar.gz"))
    thread.join()
    assert list((host.state / "backups").glob("*.tar.gz"))
    with world.alone("host backup"), pytest.raises(Locked):
        host.back_up()


def test_a_copy_under_load_is_of_one_instant(host: Host) -> None:
    """Two rows a transaction: an archive that holds an odd number holds half of one."""
    stop = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(host.database.path, isolation_level=None, timeout=60)) as connection:
            while not stop.is_set():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO flow_run (text) VALUES (?)", ("x" * 2000,))
                connection.execute("INSERT INTO flow_run (text) VALUES (?)", ("x" * 2000,))
                connection.execute("COMMIT")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        archives = [host.back_up().archive for _ in range(5)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    # What was counted is what was copied.
    for archive in archives:
        host.verify(Path(archive.path))
    counts = [archive.manifest.database.counts["flow_runs"] for archive in archives]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert [count % 2 for count in counts] == [0] * 5


def test_what_cannot_be_read_again_gets_no_name(host: Host, tmp_path: Path) -> None:
    manifest = host.back_up(to="b").archive.manifest
    shelf = host.world().shelf
    with shelf.staging(tmp_path / "b") as staging:
        shelf.gather(staging)
        (staging / "database" / "prefect.db").write_bytes(b"x" * manifest.members[0].size_bytes)
        with pytest.raises(BackupBroken, match="has another digest"):
            shelf.put(tmp_path / "b", manifest, staging)
    assert len(list((tmp_path / "b").iterdir())) == 1


def test_who_has_the_database_open_is_seen(host: Host) -> None:
    code = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM flow')"
    code += "; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(host.database.path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [who for who in host.database.used_by() if f"pid {process.pid} " in who]
        process.kill()


def test_a_damaged_copy_is_not_taken_for_a_database(host: Host, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(b"nothing of the kind" * 1000)
    trial = SqliteDatabase(tmp_path / "trial" / "prefect.db")
    trial.load(dump, "verify")
    with pytest.raises(BackupBroken, match="cannot be read"):
        trial.look("verify")
    with pytest.raises(OrchctlError, match="there is no database"), SqliteDatabase(tmp_path / "gone.db").snapshot():
        pass
