"""Durable files: what is believed, what is torn, what a terminal is shown."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest

from orchctl.adapters import files
from orchctl.adapters.observed import Observed
from orchctl.core.names import visible
from orchctl.core.observed import Looked
from orchctl.errors import OrchctlError, StateBroken


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a": 1}\n{"to')
    files.append_line(path, b'{"b": 2}\n')
    assert path.read_bytes() == b'{"a": 1}\n{"to\n{"b": 2}\n'


def owner_file(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text('{"since": "2025-12-19T05:00:00Z"}')
    path.chmod(0o600)
    return path


def _held(path: Path) -> int:
    """Hold a file as another host's writer would."""
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_who_appends_waits_for_another_who_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TURN_S", 600.0)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"first\n")
    other = _held(path)
    waiting = threading.Thread(target=files.append_line, args=(path, b"second\n"), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert path.read_bytes() == b"first\n"
    os.close(other)
    waiting.join(60)
    assert path.read_bytes() == b"first\nsecond\n"


def test_one_who_never_ends_keeps_nobody_from_appending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TURN_S", 0.05)
    path = tmp_path / "events.jsonl"
    path.touch()
    other = _held(path)
    files.append_line(path, b"line\n")
    os.close(other)
    assert path.read_bytes() == b"line\n"


def test_a_plain_file_of_ours_is_believed(tmp_path: Path) -> None:
    assert files.read_json(owner_file(tmp_path / "owners")) == {"since": "2025-12-19T05:00:00Z"}
    assert files.read_json(tmp_path / "owners" / "other.json") is None
    assert files.read_json(tmp_path / "nowhere" / "other.json") is None


def test_a_folder_that_is_a_symlink_is_not(tmp_path: Path) -> None:
    owner_file(tmp_path / "elsewhere")
    (tmp_path / "owners").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateBroken, match="cannot look into"):
        files.read_json(tmp_path / "owners" / "job.json")


def test_a_folder_that_others_may_write_is_not(tmp_path: Path) -> None:
    path = owner_file(tmp_path / "owners")
    path.parent.chmod(0o777)
    with pytest.raises(StateBroken, match="may be written by others"):
        files.read_json(path)


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink"])
def test_what_is_not_a_plain_file_is_not_and_holds_nobody(tmp_path: Path, kind: str) -> None:
    path = owner_file(tmp_path / "owners")
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(0o700)
    else:
        path.symlink_to(owner_file(tmp_path / "elsewhere"))
    with pytest.raises(StateBroken):
        files.read_json(path)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain \u00fcn\u00ef text", "plain \u00fcn\u00ef text"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("a\nfake line: no changes", "a\\nfake line: no changes"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(given: str, shown: str) -> None:
    assert visible(given) == shown


def test_files_written_together_are_all_as_they_were_where_one_cannot_be_written(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_text("before")
    both = [files.Content(path, b"after", 0o600, exact=True) for path in (one, tmp_path / "no-folder" / "two")]
    with pytest.raises(OrchctlError):
        files.write_together(both)
    assert one.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    files.write_together(both[:1])
    assert (one.read_text(), one.stat().st_mode & 0o777) == ("after", 0o600)


def test_what_a_look_left_is_written_also_while_somebody_removes_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Observed(tmp_path / "state")
    looks.write("job", Looked(()))
    written = files.write_atomic

    def removed_meanwhile(path: Path, content: bytes, *, mode: int) -> None:
        monkeypatch.setattr(files, "write_atomic", written)
        shutil.rmtree(tmp_path / "state")
        written(path, content, mode=mode)

    monkeypatch.setattr(files, "write_atomic", removed_meanwhile)
    looks.write("job", Looked((), "here"))
    assert looks.read("job") == Looked((), "here")
