"""Promotion, pointers and staging on a real file system."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import publish_cases
from orchctl.adapters import host_facts, pointers, publishing
from orchctl.adapters import staging as stagings
from orchctl.adapters.accounts import Account
from orchctl.core.catalog_steps import PublishTable
from orchctl.core.manifest import Place
from orchctl.core.publish import CURRENT, LATEST, Target
from orchctl.errors import ExitCode, PublishError, PublishNotAllowed
from orchctl.runner import publish
from publish_cases import AS_OF, DAY, files_of, folder_of, publish_once, run_id, torn
from support import small_disk

NOW = datetime(2025, 12, 19, 12, tzinfo=UTC)
NOBODY = 65534
ROOT = os.geteuid() == 0


def make(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def target(number: int, digest: str = "a") -> Target:
    run = run_id(number)
    return Target(run, AS_OF, NOW, f"run={run}", "sha256:" + digest * 64, "rates.score", DAY)


def move(folder: Path, number: int, name: str = CURRENT) -> pointers.Move:
    (folder / f"run={run_id(number)}").mkdir(exist_ok=True)
    return pointers.move(folder, name, target(number), at=NOW, reason="policy always")


def table(**fields: Any) -> PublishTable:
    return PublishTable.model_validate({"to": publish_cases.TABLE.to, **fields})


# --------------------------------------------------------------------------------------------------------- promotion


def test_a_folder_is_moved_whole_and_its_parents_are_made(tmp_path: Path) -> None:
    source = make(tmp_path / "staged", a="1", by_team__b="22")
    done = publishing.promote(source, tmp_path / "gold" / "rates" / "run=1")
    assert tree(done.to) == {"a": b"1", "by_team/b": b"22"}
    assert (done.files, done.size, done.again, source.exists()) == (2, 3, False, False)
    assert done.digest == publishing.digest(done.to)


def test_the_digest_is_what_a_shell_says(tmp_path: Path) -> None:
    make(tmp_path / "run", **{"b": "2", "a.json": "1", "by team__x": "", "Z": "z"})
    script = Path(__file__).parents[2].joinpath("docs/publish.md").read_text().split("```sh\n")[1].split("```")[0]
    said = subprocess.run(["bash", "-c", script], cwd=tmp_path / "run", capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == publishing.digest(tmp_path / "run").removeprefix("sha256:")


def test_the_same_files_again_are_the_same_promotion(tmp_path: Path) -> None:
    first = publishing.promote(make(tmp_path / "one", a="1"), tmp_path / "run")
    again = publishing.promote(make(tmp_path / "two", a="1"), tmp_path / "run")
    assert (again.again, again.digest, (tmp_path / "two").exists()) == (True, first.digest, False)


def test_other_files_in_the_place_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    publishing.promote(make(tmp_path / "one", a="1"), tmp_path / "run")
    with pytest.raises(PublishError, match="is there with other files") as error:
        publishing.promote(make(tmp_path / "two", a="2"), tmp_path / "run")
    assert "nothing was changed" in str(error.value.hint)
    assert (tree(tmp_path / "run"), tree(tmp_path / "two")) == ({"a": b"1"}, {"a": b"2"})


@pytest.mark.parametrize("way", ["file", "symlink", "dangling", "empty"])
def test_what_is_in_the_way_is_never_replaced(tmp_path: Path, way: str) -> None:
    to = tmp_path / "run"
    if way == "file":
        to.write_text("mine")
    elif way == "empty":
        to.mkdir()
    else:
        to.symlink_to(tmp_path if way == "symlink" else tmp_path / "nowhere")
    before = to.lstat()
    with pytest.raises(PublishError):
        publishing.promote(make(tmp_path / "staged", a="1"), to)
    assert to.lstat().st_ino == before.st_ino
    assert tree(tmp_path / "staged") == {"a": b"1"}


def test_a_file_above_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "gold").write_text("")
    with pytest.raises(PublishError, match=r"in the way and is no folder .*gold"):
        publishing.promote(make(tmp_path / "staged", a="1"), tmp_path / "gold" / "rates" / "run")


def hard_link(path: Path) -> None:
    make(path.parent.parent, outside="1")
    os.link(path.parent.parent / "outside", path)


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def given_away(path: Path) -> None:
    path.touch()
    os.chown(path, NOBODY, NOBODY)


def deep(path: Path) -> None:
    (path / "/".join(["d"] * (publishing.DEEPEST + 1))).mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.symlink_to("a"), "a symlink"),
        (lambda path: path.symlink_to("/etc"), "a symlink"),
        (os.mkfifo, "no plain file"),
        (bound_socket, "no plain file"),
        (hard_link, "hard link"),
        (deep, "folders deep"),
        (lambda path: make(path.parent, **{"new\nline": "1"}), "cannot be written on a line"),
        (lambda path: Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff")).touch(), "cannot be written on a line"),
        (lambda path: (path.touch(), path.chmod(0)), "its mode is 0000"),
        (lambda path: (path.mkdir(), path.chmod(0o200)), "its mode is 0200"),
        pytest.param(
            given_away,
            "belongs to uid 65534",
            marks=pytest.mark.skipif(not ROOT, reason="only root gives files away"),
        ),
    ],
)
@pytest.mark.parametrize("folder", ["", "below/it"])
def test_hard_surprises_are_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], said: str, folder: str
) -> None:
    staged = make(tmp_path / "staged", a="1")
    (staged / folder).mkdir(parents=True, exist_ok=True)
    spoil(staged / folder / "odd")
    with pytest.raises(PublishError, match=said) as error:
        publishing.promote(staged, tmp_path / "gold" / "run")
    assert error.value.hint
    assert str(staged / folder) in error.value.message
    assert (staged / "a").read_text() == "1"
    assert not (tmp_path / "gold").exists()


@pytest.mark.parametrize("what", ["missing", "empty", "empty folders", "file", "symlink"])
def test_what_is_nothing_to_publish_is_refused(tmp_path: Path, what: str) -> None:
    staged = tmp_path / "staged"
    if what == "file":
        staged.touch()
    elif what == "symlink":
        staged.symlink_to(make(tmp_path / "real", a="1"))
    elif what != "missing":
        (staged / "below" if what == "empty folders" else staged).mkdir(parents=True)
    with pytest.raises(PublishError, match=r"nothing to publish|no folder"):
        publishing.promote(staged, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_still_written_is_refused(tmp_path: Path) -> None:
    staged = make(tmp_path / "staged", a="1")
    (staged / "big").write_bytes(bytes(64 << 20))
    done = threading.Event()

    def write() -> None:
        with (staged / "big").open("r+b") as file:
            while not done.is_set():
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(PublishError, match="big cannot be published: it is still being written"):
            publishing.promote(staged, tmp_path / "run")
    finally:
        done.set()
        writer.join()


# ------------------------------------------------------------------------------------- other disks, and other people


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 KiB."""
    with small_disk(tmp_path / "disk") as path:
        yield path


def test_another_file_system_is_refused_before_the_step_and_after(disk: Path, tmp_path: Path) -> None:
    values = {"data_root": str(disk), "game_date": DAY.isoformat(), "run_id": run_id(1)}
    with pytest.raises(PublishError, match="two file systems") as error:
        publish.check_place(table(), values, tmp_path / "manifests" / "run")
    assert "one file system" in str(error.value.hint)
    staged = make(tmp_path / "staged", a="1")
    with pytest.raises(PublishError, match="two file systems"):
        publishing.promote(staged, disk / "run")
    assert (tree(staged), (disk / "run").exists()) == ({"a": b"1"}, False)


def test_a_mount_below_the_staging_directory_is_refused(disk: Path) -> None:
    make(disk, b="1")
    make(disk.parent, a="1")
    with pytest.raises(PublishError, match="disk cannot be published: it is on another file system"):
        publishing.promote(disk.parent, disk.parent.parent / f"{disk.parent.name}-run")


def test_a_disk_that_is_really_full_leaves_nothing_half(disk: Path) -> None:
    publish_once(disk, run_id(1))
    page, said = os.sysconf("SC_PAGE_SIZE"), []
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        # A page more is free each time: it fails later and later, and at last it does not.
        for free in range(64):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(page)):
                    pass
            ballast.truncate(ballast.seek(-free * page, os.SEEK_END))
            try:
                publish_once(disk, run_id(2))
                break
            except (PublishError, publish_cases.StepFailed) as error:
                said.append(str(error))
            assert torn(folder_of(disk), all_runs=True) == []
    assert all("No space left" in each for each in said)
    assert any("pointer" in each for each in said)
    assert any("staging directory" in each for each in said)
    assert torn(folder_of(disk), all_runs=True) == []
    held = pointers.read_pointer(folder_of(disk), CURRENT)
    assert held is not None
    assert held.run_id == run_id(2)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="orchctl-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Everything is done as another user."""
    if not ROOT:
        pytest.skip("only root can be somebody else")
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    os.setegid(0)


def test_a_place_that_may_not_be_written_is_refused_before_the_step(open_folder: Path, as_nobody: None) -> None:
    values = {"data_root": str(open_folder), "game_date": DAY.isoformat(), "run_id": run_id(1)}
    with pytest.raises(PublishNotAllowed, match="nothing can be made in") as error:
        publish.check_place(table(), values, open_folder / "manifests")
    assert error.value.exit_code is ExitCode.NOT_ALLOWED
    assert error.value.hint


def test_a_place_that_may_not_be_written_changes_nothing(open_folder: Path, as_nobody: None) -> None:
    os.seteuid(0)
    for name in ("mine", "theirs"):
        (open_folder / name).mkdir()
    os.chown(open_folder / "mine", NOBODY, NOBODY)
    os.seteuid(NOBODY)
    staged = make(open_folder / "mine" / "staged", a="1")
    with pytest.raises(PublishNotAllowed, match="Permission denied") as error:
        publishing.promote(staged, open_folder / "theirs" / "run")
    assert "owns" in str(error.value.hint)
    assert tree(staged) == {"a": b"1"}


def test_a_pointer_that_may_not_be_moved_stays(open_folder: Path, as_nobody: None) -> None:
    os.seteuid(0)
    move(open_folder, 1)
    (open_folder / f"run={run_id(2)}").mkdir()
    os.seteuid(NOBODY)
    with pytest.raises(PublishNotAllowed, match="Permission denied") as error:
        move(open_folder, 2)
    assert "owns" in str(error.value.hint)
    held = pointers.read_pointer(open_folder, CURRENT)
    assert held is not None
    assert held.run_id == run_id(1)


@pytest.mark.skipif(not ROOT, reason="only root makes things for others")
def test_what_root_makes_belongs_to_whom_the_data_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    publish_once(tmp_path, run_id(1))
    made = [folder_of(tmp_path), folder_of(tmp_path) / CURRENT, tmp_path / "manifests" / "_staging"]
    assert {path.stat().st_uid for path in made} == {NOBODY}


# ---------------------------------------------------------------------------------------------------------- pointers


def test_a_pointer_moves_forward_and_tells_what_it_held(tmp_path: Path) -> None:
    assert move(tmp_path, 1) == pointers.Move(CURRENT, None)
    done = move(tmp_path, 2)
    held = pointers.read_pointer(tmp_path, CURRENT)
    assert done.before is not None
    assert held is not None
    assert (done.before.run_id, held.run_id, held.previous) == (run_id(1), run_id(2), run_id(1))


def test_an_older_run_does_not_overtake_and_the_same_run_writes_nothing(tmp_path: Path) -> None:
    move(tmp_path, 2)
    before = (tmp_path / CURRENT).stat()
    assert "has held a newer run" in str(move(tmp_path, 1).kept)
    assert move(tmp_path, 2).again
    assert (tmp_path / CURRENT).stat().st_ino == before.st_ino


def test_by_hand_it_moves_back_unless_it_was_moved_meanwhile(tmp_path: Path) -> None:
    move(tmp_path, 1)
    move(tmp_path, 2)
    held = pointers.read_pointer(tmp_path, CURRENT)
    move(tmp_path, 3)
    with pytest.raises(PublishError, match="moved meanwhile"):
        pointers.move_by_hand(tmp_path, CURRENT, target(1), at=NOW, reason="bad", expected=held)
    held = pointers.read_pointer(tmp_path, CURRENT)
    pointers.move_by_hand(tmp_path, CURRENT, target(1), at=NOW, reason="bad", expected=held)
    now = pointers.read_pointer(tmp_path, CURRENT)
    assert now is not None
    assert (now.run_id, now.previous, now.moved_by, now.reason) == (run_id(1), run_id(3), "hand", "bad")


def foreign(path: Path, what: str) -> None:
    if what == "symlink":
        make(path.parent, other="{}")
        path.symlink_to("other")
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "large":
        path.write_bytes(b" " * (2 << 20))
    else:
        path.write_text(what)


@pytest.mark.parametrize(
    "what", ["", "{", '{"run_id": "20251219T020143Z"}', "[" * 100_000, "symlink", "folder", "pipe", "large", '"x"']
)
def test_what_is_not_ours_is_refused_and_left(tmp_path: Path, what: str) -> None:
    folder = folder_of(tmp_path)
    folder.mkdir(parents=True)
    foreign(folder / LATEST, what)
    before = (folder / LATEST).lstat()
    for act in (
        lambda: pointers.read_pointer(folder, LATEST),
        lambda: move(folder, 1, LATEST),
        lambda: publish_once(tmp_path, run_id(2)),
    ):
        with pytest.raises(PublishError, match="is not a pointer of orchctl") as error:
            act()
        assert "left as it is" in str(error.value.hint)
    after = (folder / LATEST).lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (folder / f"run={run_id(2)}").exists()


def test_a_pointer_never_points_at_nothing(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="is not there"):
        pointers.move(tmp_path, CURRENT, target(1), at=NOW, reason="x")
    with pytest.raises(PublishError, match="no pointer can hold this run"):
        pointers.move(tmp_path, CURRENT, target(1, "?"), at=NOW, reason="x")


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    make(tmp_path, **{".current_run.json.0a1b2c3d.tmp": "{", ".latest_run.json.0a1b2c3d.tmp": "{"})
    move(tmp_path, 1)
    assert [path.name for path in tmp_path.glob(".*")] == [".latest_run.json.0a1b2c3d.tmp"]


def test_who_holds_the_lock_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOCK_PATIENCE_S", 0.05)
    with publishing.locked(tmp_path), pytest.raises(PublishError, match="another process has held the lock"):
        move(tmp_path, 1)
    assert move(tmp_path, 1).kept is None


# ----------------------------------------------------------------------------------------------- staging directories


def place(*, alive: bool) -> Place:
    here = host_facts.here()
    return here if alive else Place(here.hostname, here.boot_id, here.pid, here.pid_started + 1)


def opened(tmp_path: Path, user: Place) -> Path:
    """Open a staging directory for a step that may take two hours."""
    folder, until = tmp_path / "manifests" / "a" / "run=1", NOW + timedelta(hours=2)
    return stagings.open_staging(folder, str(tmp_path), user, since=NOW, until=until)


@pytest.mark.parametrize(
    ("hours", "written", "swept"),
    [(25, 1, False), (27, 1, True), (27, 4, False), (29, 4, True), (27, None, False)],
    ids=str,
)
def test_what_another_host_left_is_swept_a_day_after_its_time_out_and_its_last_file(
    tmp_path: Path, hours: int, written: int | None, swept: bool
) -> None:
    """Whether its process lives cannot be seen here. `written`: when its newest file was, in hours; None: just now."""
    path = opened(tmp_path, replace(place(alive=False), hostname="elsewhere"))
    make(path, by_team__a="1")
    at = (NOW + timedelta(hours=hours if written is None else written)).timestamp()
    os.utime(path / "by_team/a", (at, at))
    for each in (path / "by_team", path):
        os.utime(each, (NOW.timestamp(), NOW.timestamp()))
    publish.sweep(str(tmp_path), now=NOW + timedelta(hours=hours))
    registered = list((tmp_path / "manifests" / "_staging").iterdir())
    assert (path.exists(), bool(registered)) == (not swept, not swept)


def test_what_another_host_registered_and_has_removed_is_forgotten(tmp_path: Path) -> None:
    opened(tmp_path, replace(place(alive=False), hostname="elsewhere")).rmdir()
    publish.sweep(str(tmp_path), now=NOW + timedelta(hours=27))
    assert not list((tmp_path / "manifests" / "_staging").iterdir())


@pytest.mark.parametrize(
    ("alive", "hours", "swept"), [(True, 100, False), (False, 23, False), (False, 25, True)], ids=str
)
def test_what_the_dead_left_is_swept_after_a_day(tmp_path: Path, alive: bool, hours: int, swept: bool) -> None:
    path = opened(tmp_path, place(alive=alive))
    make(path, by_team__a="1")
    publish.sweep(str(tmp_path), now=NOW + timedelta(hours=hours))
    registered = list((tmp_path / "manifests" / "_staging").iterdir())
    assert (path.exists(), bool(registered)) == (not swept, not swept)


def test_a_sweep_removes_nothing_but_staging_directories(tmp_path: Path) -> None:
    path = opened(tmp_path, place(alive=False))
    record = tmp_path / "manifests" / "_staging" / f"{path.name}.json"
    content = json.loads(record.read_text())
    outside = make(tmp_path.parent / f"{tmp_path.name}-other" / "_staging" / path.name, a="1")
    link = tmp_path / "manifests" / "link"
    link.symlink_to(outside.parent.parent)
    others = [
        str(tmp_path / "manifests"),
        str(outside),
        str(link / "_staging" / path.name),
        str(record.parent),
        "/",
        "",
    ]
    for other in others:
        record.write_text(json.dumps({**content, "path": other}))
        publish.sweep(str(tmp_path), now=NOW + timedelta(days=2))
    record.write_text("{")
    publish.sweep(str(tmp_path), now=NOW + timedelta(days=2))
    assert (tree(outside), path.exists(), record.exists()) == ({"a": b"1"}, True, True)
    publish.sweep(str(tmp_path / "nowhere"), now=NOW)


def test_staging_is_registered_while_it_is_open(tmp_path: Path) -> None:
    folder = tmp_path / "manifests" / "rates.score" / "game_date=2025-12-19" / f"run={run_id(1)}"
    path = publish.open_staging(folder, str(tmp_path), host_facts.here(), None, lasts_s=60)
    record = json.loads((tmp_path / "manifests" / "_staging" / f"{path.name}.json").read_text())
    assert path.parent == folder / "_staging"
    assert (record["path"], record["pid"]) == (str(path), os.getpid())
    make(path, a__b="1")
    publish.close_staging(path)
    publish.close_staging(path)
    assert (list(folder.iterdir()), list((tmp_path / "manifests" / "_staging").iterdir())) == ([], [])


@pytest.mark.skipif(not ROOT, reason="only root runs steps as others")
def test_staging_of_another_user_is_theirs_and_the_folder_above_is_not(tmp_path: Path) -> None:
    account = Account("nobody", NOBODY, NOBODY, (NOBODY,), "/", "/bin/sh")
    path = publish.open_staging(tmp_path / "manifests" / "a", str(tmp_path), host_facts.here(), account, lasts_s=60)
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (NOBODY, 0)


# -------------------------------------------------------------------------------------------------- a step's publish


def test_a_step_publishes_and_both_pointers_hold_it(tmp_path: Path) -> None:
    done = publish_once(tmp_path, run_id(1))
    to = folder_of(tmp_path) / f"run={run_id(1)}"
    assert (done.to, tree(to)) == (to, files_of(run_id(1)))
    assert (done.record["latest"], done.record["current"]) == ("moved", "moved")
    assert [name for name, _ in done.events] == ["promoted", "pointer_moved", "pointer_moved"]
    assert publish.still_there(done.record)
    held = pointers.read_pointer(to.parent, CURRENT)
    assert held is not None
    assert (held.run.digest, held.run.as_of, held.run.asset) == (done.record["digest"], AS_OF, "rates.score")
    assert not list(tmp_path.glob("manifests/**/_staging/*"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"policy": "manual"}, "not published: moved by hand only"),
        ({"policy": "window", "until": "lock"}, "not published: when lock is, is not known"),
    ],
)
def test_the_policy_keeps_current_and_says_why(tmp_path: Path, fields: dict[str, str], reason: str) -> None:
    done = publish_once(tmp_path, run_id(1), table=table(**fields))
    assert (done.record["latest"], done.record["current"]) == ("moved", reason)
    kept = dict(done.events)["pointer_kept"]
    assert (kept["pointer"], kept["from"], kept["to"], kept["reason"]) == (CURRENT, None, None, reason)


def test_a_late_retry_of_an_older_run_moves_nothing(tmp_path: Path) -> None:
    publish_once(tmp_path, run_id(2))
    done = publish_once(tmp_path, run_id(1))
    assert {str(done.record[name])[:10] for name in ("latest", "current")} == {"not moved:"}
    assert torn(folder_of(tmp_path), all_runs=True) == []


def test_publishing_again_tells_what_the_killed_attempt_could_not(tmp_path: Path) -> None:
    first = publish_once(tmp_path, run_id(1))
    again = publish_once(tmp_path, run_id(1))
    assert again.record == first.record
    assert dict(again.events[0][1])["again"]
    assert again.events[1:] == first.events[1:]


def test_only_a_part_of_the_staging_directory_can_be_published(tmp_path: Path) -> None:
    done = publish_once(tmp_path, run_id(1), table=table(**{"from": "by_team"}))
    assert sorted(tree(done.to)) == ["a.json", "deep/b.json"]
    assert not list(tmp_path.glob("manifests/**/_staging/*"))


@pytest.mark.parametrize("source", ["..", "/etc", "../../x", "not/there", "link", "link/below"])
def test_nothing_outside_the_staging_directory_is_published(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = make(tmp_path / "outside", below__a="1")
    write = publish_cases.write_files

    def write_and_link(staged: Path, run: str) -> None:
        write(staged, run)
        (staged / "link").symlink_to(outside)

    monkeypatch.setattr(publish_cases, "write_files", write_and_link)
    with pytest.raises(PublishError, match=r"not below|nothing to publish|no folder"):
        publish_once(tmp_path, run_id(1), table=table(**{"from": source}))
    assert tree(outside) == {"below/a": b"1"}
    assert not folder_of(tmp_path).exists()


def test_a_place_that_is_no_path_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="no absolute path"):
        publish.check_place(table(to="gold/{run_id}"), {"run_id": run_id(1)}, tmp_path)
    make(tmp_path, gold="a file")
    with pytest.raises(PublishError, match="in the way"):
        publish.check_place(table(to="{data_root}/gold/{run_id}"), {"data_root": str(tmp_path)}, tmp_path)
    with pytest.raises(PublishError, match="in the way"):
        publish.check_place(table(to="{data_root}/gold"), {"data_root": str(tmp_path)}, tmp_path)


def test_what_was_changed_or_removed_since_is_not_still_there(tmp_path: Path) -> None:
    record = publish_once(tmp_path, run_id(1)).record
    extra = make(folder_of(tmp_path) / f"run={run_id(1)}", more="1") / "more"
    assert not publish.still_there(record)
    extra.unlink()
    assert publish.still_there(record)
    shutil.rmtree(folder_of(tmp_path))
    assert not publish.still_there(record)
    assert not publish.still_there({})
