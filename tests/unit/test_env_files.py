"""Environment files on disk: what is no such file is refused, whatever it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchctl.adapters import env_files


def test_a_file_is_read_as_systemd_reads_it(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text('A=1\n# no\nB="two words"\n')
    assert env_files.read(str(tmp_path / "x.env")) == {"A": "1", "B": "two words"}


def test_a_file_without_an_end_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        env_files.read("/dev/zero")
    assert env_files.variables_or_none("/dev/zero") == {}


def test_what_is_no_file_is_refused_and_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = time.monotonic()
    with pytest.raises(ValueError, match="not a file"):
        env_files.read(str(tmp_path / "pipe"))
    assert time.monotonic() - before < 10
    assert env_files.variables_or_none(str(tmp_path)) == {}
    assert env_files.variables_or_none(str(tmp_path / "missing")) == {}
