"""One operator at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchctl.adapters import host_lock
from orchctl.errors import ExitCode, Locked, NotAllowed

HOLD = """
import sys, time
from pathlib import Path
from orchctl.adapters import host_lock
with host_lock.held(Path(sys.argv[1]), "sync"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_refused_one_is_told_the_others_pid_command_and_start(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    try:
        with (
            pytest.raises(Locked, match=rf"orchctl sync \(pid {holder.pid}, since 20"),
            host_lock.held(tmp_path, "sync"),
        ):
            pass
        done = subprocess.run(
            [sys.executable, "-m", "orchctl", "host", "down", "--state-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ExitCode.LOCKED
        assert f"pid {holder.pid}" in done.stderr
    finally:
        end(holder)


def test_the_lock_dies_with_its_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    end(holder)
    with host_lock.held(tmp_path, "sync"):
        assert str(os.getpid()) in (tmp_path / "orchctl.lock").read_text()


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "orchctl.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAllowed), host_lock.held(tmp_path, "sync"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_of_another_name_is_another_lock(tmp_path: Path) -> None:
    with host_lock.held(tmp_path, "sync"), host_lock.held(tmp_path, "backfill job", lock="backfills/job-1"):
        with (
            pytest.raises(Locked, match=r"orchctl backfill job \(pid"),
            host_lock.held(tmp_path, "backfill job", lock="backfills/job-1"),
        ):
            pass
        with host_lock.held(tmp_path, "backfill job", lock="backfills/job-2"):
            pass
