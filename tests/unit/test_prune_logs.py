"""Logs that were compressed are read as before, and which logs are compressed, or go."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from orchctl.adapters import accounts, host_facts, run_logs
from orchctl.adapters.retention import Marks
from orchctl.core import manifest as form
from orchctl.core.manifest import Run
from orchctl.core.names import parse_date
from orchctl.errors import Interrupted, OrchctlError
from orchctl.services import prune
from orchctl.services import run_logs as service
from pruning import Host, ago, files_below, kept, seconds, spied

TEXT = b"".join(b"line %d of a log\n" % number for number in range(200_000))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "attempt-1.log"
    path.write_bytes(TEXT)
    path.chmod(0o640)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def packed(log: Path) -> Path:
    return log.with_name(log.name + ".gz")


def run_of(host: Host, folder: Path) -> Run:
    day, name = folder.parent.name.removeprefix("game_date="), folder.name.removeprefix("run=")
    data = host.tree.existing("job", parse_date(day), name)
    assert data is not None
    return form.run_of_manifest(data, data_root=str(host.data))


def shown(host: Host, run: Run) -> bytes:
    return b"".join(service.chunks(host.tree, run, follow=False, sleep=lambda _: None))


# --- the file


def test_a_compressed_log_holds_the_same_with_the_same_mode_and_time(log: Path) -> None:
    run_logs.compress(log)
    found = packed(log)
    status = found.stat()
    assert (log.exists(), gzip.decompress(found.read_bytes())) == (False, TEXT)
    assert (status.st_mode & 0o777, status.st_mtime) == (0o640, 1_700_000_000)
    assert status.st_size < len(TEXT) / 4
    assert [path.name for path in log.parent.iterdir()] == [found.name]


@pytest.mark.parametrize("offset", [0, 1, 999_999, 1 << 20, len(TEXT) - 1, len(TEXT), len(TEXT) + 5])
def test_it_is_read_from_any_place_on(log: Path, offset: int) -> None:
    plain, end = b"".join(run_logs.read(log, offset)), run_logs.end(log, 1000)
    run_logs.compress(log)
    assert b"".join(run_logs.read(packed(log), offset)) == plain == TEXT[offset:]
    assert run_logs.end(packed(log), 1000) == end == TEXT[-1000:]


def test_a_log_that_is_compressed_between_list_and_look_is_read_all_the_same(log: Path) -> None:
    (listed,) = run_logs.logs_in(log.parent)
    run_logs.compress(log)
    assert b"".join(run_logs.read(listed, 0)) == TEXT
    assert run_logs.end(listed, 10) == TEXT[-10:]


def test_a_log_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert list(run_logs.read(tmp_path / "attempt-1.log.gz", 0)) == []
    assert run_logs.end(tmp_path / "attempt-1.log", 10) is None


@pytest.mark.parametrize(
    "torn", [lambda whole: whole[:-9], lambda whole: whole[:200] + b"?" + whole[201:], lambda _: b"no"]
)
def test_what_is_torn_is_an_error_and_no_short_log(log: Path, torn: Callable[[bytes], bytes]) -> None:
    run_logs.compress(log)
    packed(log).write_bytes(torn(packed(log).read_bytes()))
    with pytest.raises(OrchctlError, match="cannot be read"):
        list(run_logs.read(packed(log), 0))
    with pytest.raises(OrchctlError, match="cannot be read"):
        run_logs.end(packed(log), 10)


def test_logs_come_by_attempt_and_each_once(tmp_path: Path) -> None:
    for name in [
        "attempt-10.log",
        "attempt-2.log.gz",
        "attempt-1.log",
        "attempt-1.log.gz",
        "attempt-x.log",
        "other.log",
    ]:
        (tmp_path / name).touch()
    assert [path.name for path in run_logs.logs_in(tmp_path)] == ["attempt-1.log", "attempt-2.log.gz", "attempt-10.log"]


@pytest.mark.parametrize("at", ["write", "replace", "unlink"])
def test_killed_halfway_either_form_is_whole_and_the_next_one_ends_it(
    log: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:

        def die_writing(_source: object, temporary: Path, *_: object) -> None:
            temporary.write_bytes(b"half")
            patched.setattr(Path, "unlink", die)  # a kill cleans nothing up
            raise Killed

        if at == "write":
            patched.setattr(run_logs, "_pack", die_writing)
        else:
            patched.setattr(Path, at, die)
        with pytest.raises(Killed):
            run_logs.compress(log)
    (found,) = run_logs.logs_in(log.parent)
    assert b"".join(run_logs.read(found, 0)) == TEXT
    for left in run_logs.unpacked_in(log.parent):
        run_logs.compress(left)
    assert [path.name for path in log.parent.iterdir()] == ["attempt-1.log.gz"]
    assert b"".join(run_logs.read(packed(log), 0)) == TEXT


def test_a_log_that_was_written_to_meanwhile_stays(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run_logs._pack

    def pack(source: object, *words: object) -> None:
        real(source, *words)  # type: ignore[arg-type]
        with log.open("ab") as file:
            file.write(b"more\n")

    monkeypatch.setattr(run_logs, "_pack", pack)
    run_logs.compress(log)
    assert [path.name for path in log.parent.iterdir()] == ["attempt-1.log"]
    assert log.read_bytes() == TEXT + b"more\n"


@pytest.mark.parametrize("what", ["link", "fifo"])
def test_nothing_but_a_plain_file_is_compressed(tmp_path: Path, what: str) -> None:
    secret, log = tmp_path / "shadow", tmp_path / "run" / "attempt-1.log"
    log.parent.mkdir()
    secret.write_text("secret")
    log.symlink_to(secret) if what == "link" else os.mkfifo(log)
    with pytest.raises(OrchctlError):
        run_logs.compress(log)
    assert [path.name for path in log.parent.iterdir()] == ["attempt-1.log"]


# --- which


def test_old_logs_are_compressed_older_ones_go_and_the_newest_stay(host: Host) -> None:
    for days in (200, 100, 10, 3):
        host.ran(ago(days), log=f"of {days}\n")
    before = list(files_below(host.root))
    ages = {"logs": 90, "compress_logs": 7}
    assert host.look(**ages) == {("logs", "job"): 2, ("compress_logs", "job"): 3}
    assert list(files_below(host.root)) == before
    assert host.prune(**ages) == {("logs", "job"): 2, ("compress_logs", "job"): 1}
    assert host.logs() == ["attempt-1.log", "attempt-1.log.gz"]
    assert len(host.runs()) == 4
    assert host.prune(**ages) == {}


def test_what_goes_with_its_folder_is_not_told_of_twice(host: Host) -> None:
    host.ran(ago(100))
    host.ran(ago(1))
    ages = {"manifests": 90, "logs": 30, "compress_logs": 7}
    assert host.look(**ages) == host.prune(**ages) == {("manifests", "job"): 1}


def test_compressed_logs_go_too(host: Host) -> None:
    host.ran(ago(100))
    host.ran(ago(1))
    host.prune(compress_logs=7)
    assert host.prune(logs=90) == {("logs", "job"): 1}
    assert host.logs() == ["attempt-1.log"]


def test_logs_of_steps_are_compressed_and_read(host: Host) -> None:
    host.ran(ago(10), step="a.b", log="of a step\n")
    whole = host.ran(ago(10), log=None, execution="steps", steps=[{"name": "a.b", "status": "success"}])
    host.ran(ago(1))
    run = run_of(host, whole)
    before = shown(host, run)
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 1}
    assert shown(host, run) == before == b"a.b | of a step\n"


def test_a_run_that_goes_on_keeps_its_log(host: Host) -> None:
    going = host.ran(ago(10), status="running", place=host_facts.here())
    host.ran(ago(1))
    found = prune.prune(host.world(), seconds({"compress_logs": 7}))
    assert (kept(found), (going / "attempt-1.log").exists()) == ({"still going": 1}, True)


def test_a_run_shows_the_same_before_and_after_and_a_follower_nothing_twice(host: Host) -> None:
    run = run_of(host, host.ran(ago(10)))
    host.ran(ago(1))
    logs = service.Logs(host.tree, host.tree.directory_of(run))
    logs.pass_over()
    before = shown(host, run)
    host.prune(compress_logs=7)
    assert shown(host, run) == before == b"a line\n"
    assert list(logs.new(last=True)) == []
    (host.tree.directory_of(run) / "attempt-2.log").write_text("again\n")
    assert list(logs.new(last=True)) == [b"again\n"]


def test_who_asks_for_a_log_that_went_is_told_so(host: Host) -> None:
    run = run_of(host, host.ran(ago(100)))
    host.ran(ago(1))
    assert service.note(host.tree, run) is None
    host.prune(logs=90)
    assert "host prune" in (service.note(host.tree, run) or "")


# --- what an earlier look was done with


def marks(host: Host) -> object:
    return Marks(host.state).read(str(host.data), "job", "compress_logs")


def test_what_was_done_is_not_looked_at_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in range(1, 90):
        host.ran(ago(days))
    assert host.look(compress_logs=7) == {("compress_logs", "job"): 82}
    assert marks(host) is None
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 82}
    assert marks(host) == ago(7)
    host.now += timedelta(days=2)
    asked: list[Path] = []
    monkeypatch.setattr(run_logs, "unpacked_in", spied(run_logs.unpacked_in, asked))
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 2}
    assert len(asked) <= 14 + 2 + 1


def test_a_mark_that_is_lost_or_torn_costs_a_look_and_nothing_else(host: Host) -> None:
    host.ran(ago(50))
    host.ran(ago(1))
    host.prune(compress_logs=7)
    (host.state / "retention" / "marks.json").write_text("{")
    assert host.prune(compress_logs=7) == {}
    assert marks(host) == ago(7)


def test_what_was_the_newest_is_compressed_once_it_is_not(host: Host) -> None:
    host.ran(ago(50))
    assert host.prune(compress_logs=7) == {}
    assert marks(host) == ago(50)
    host.ran(ago(1))
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 1}


def failing(error: BaseException, at: int) -> Callable[[Path], bool]:
    """Return what compresses, but for the log of this number, from 1."""
    real, seen = run_logs.compress, []

    def compress(path: Path) -> bool:
        seen.append(path)
        if len(seen) == at:
            raise error
        return real(path)

    return compress


def test_stopped_halfway_nothing_is_marked_as_done(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (50, 40, 1):
        host.ran(ago(days))
    with monkeypatch.context() as patched:
        patched.setattr(run_logs, "compress", failing(KeyboardInterrupt(), 2))
        with pytest.raises(Interrupted, match="done until then: 1 log compressed"):
            host.prune(compress_logs=7)
    assert marks(host) is None
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 1}


def test_where_a_log_fails_the_next_ones_go_and_a_later_look_begins_there(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (50, 40, 30, 1):
        host.ran(ago(days))
    with monkeypatch.context() as patched:
        patched.setattr(run_logs, "compress", failing(OrchctlError("the disk is full"), 2))
        found = prune.prune(host.world(), seconds({"compress_logs": 7}))
    assert ([row.count for row in found.rows], found.problems[0].error.message) == ([2], "the disk is full")
    assert marks(host) == ago(40)
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 1}
    assert marks(host) == ago(7)


@pytest.mark.parametrize("what", ["link", "fifo"])
def test_what_is_no_log_keeps_no_other_run_from_being_compressed(host: Host, what: str) -> None:
    for days in (60, 50, 40, 1):
        log = host.ran(ago(days)) / "attempt-1.log"
        if days in {60, 50}:
            log.unlink()
            log.symlink_to("/etc/passwd") if what == "link" else os.mkfifo(log)
    found = prune.prune(host.world(), seconds({"compress_logs": 7}))
    assert ([row.count for row in found.rows], [each.more for each in found.problems]) == ([1], [1])
    assert found.problems[0].job == "job"


def test_what_is_counted_is_what_was_done(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a log that somebody else has just compressed or removed, nor its bytes."""
    for days in (50, 40, 1):
        host.ran(ago(days), log="x" * 100)
    monkeypatch.setattr(run_logs, "compress", lambda path: "2026-01-10" in str(path))
    (row,) = prune.prune(host.world(), seconds({"compress_logs": 7})).rows
    assert (row.count, row.size_bytes) == (1, 100)


def test_a_log_that_went_meanwhile_is_not_counted(host: Host) -> None:
    log = host.ran(ago(50)) / "attempt-1.log"
    assert (run_logs.compress(log), run_logs.compress(log)) == (True, False)
    assert (host.folders.remove(packed(log)), host.folders.remove(packed(log))) == (True, False)


def test_of_two_jobs_that_make_one_asset_each_has_its_own_newest_and_its_own_mark(host: Host) -> None:
    mine, theirs = shared(host)
    host.ran(ago(50), asset="job")
    host.ran(ago(45), asset="job", job="other", flow="two")
    newest = [host.ran(ago(40), asset="job"), host.ran(ago(42), asset="job", job="other", flow="two")]
    expected = {("compress_logs", "job"): 1, ("compress_logs", "other"): 1}
    assert host.look(compress_logs=7) == host.prune(compress_logs=7) == expected
    assert [(folder / "attempt-1.log").exists() for folder in newest] == [True, True]
    assert (mine(), theirs()) == (ago(40), ago(42))


def shared(host: Host) -> tuple[Callable[[], object], Callable[[], object]]:
    """Let both jobs make one asset; return what tells the mark of each."""
    jobs = {name: job.model_copy(update={"asset": "job"}) for name, job in host.catalog.jobs.items()}
    host.catalog = host.catalog.model_copy(update={"jobs": jobs})
    return (
        lambda: Marks(host.state).read(str(host.data), "job", "compress_logs"),
        lambda: Marks(host.state).read(str(host.data), "other", "compress_logs"),
    )


@pytest.mark.parametrize("how", ["group", "link"])
def test_marks_are_kept_in_a_state_directory_that_is_believed_elsewhere(
    host: Host, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    host.ran(ago(50))
    host.ran(ago(1))
    if how == "link":
        (host.root / "elsewhere").mkdir(mode=0o700)
        host.state.symlink_to(host.root / "elsewhere")
    else:
        monkeypatch.setattr(accounts, "is_private_group", lambda *_: True)
        host.state.mkdir()
        host.state.chmod(0o775)
    assert host.prune(compress_logs=7) == {("compress_logs", "job"): 1}
    assert marks(host) == ago(7)
