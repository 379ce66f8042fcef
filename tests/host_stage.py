"""A user's project in a sandbox, on a disk that outlives a boot: what tests of an installed host begin with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from box import USER, Box
from orchctl.adapters import sandbox

STATE = f"/home/{USER}/.local/state/orchctl"
DEFAULTS = """
version = 1
name = "box"
[defaults]
data_root = "{root}/data"
working_directory = "{root}"
work_pool = "local"
"""
JOBS = (
    DEFAULTS
    + """
[jobs.tick]
command = ["/bin/sh", "-c", 'echo "$ORCHCTL_SLOT" >> {root}/data/ticks']
schedules = ["often"]
catchup = "all"
[jobs.hello]
command = ["/bin/echo", "hello"]
"""
)
SCHEDULES = """
version = 1
timezone = "UTC"
[schedules.often]
every = "10s"
anchor = 2025-01-01T00:00:00Z
"""


class Stage:
    """A user's project in a box, and the command line as root under sudo or as that user."""

    def __init__(self, box: Box, root: Path) -> None:
        self.box, self.root = box, root
        (root / "config").mkdir(parents=True, exist_ok=True)
        (root / "data").mkdir(exist_ok=True)
        (root / "config/jobs.toml").write_text(JOBS.format(root=root))
        (root / "config/schedules.toml").write_text(SCHEDULES)
        self.enter(box)

    def enter(self, box: Box) -> None:
        self.box = box
        for folder in Path(sys.executable).resolve().parents:
            box.sh('chmod a+x "$1"', folder)
        box.inside.add_user(USER, groups=["systemd-journal"])
        box.sh(f"chown -R {USER}: {self.root}")

    def sudo(self, *words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
        return self._run(words, check, None, SUDO_USER=USER, HOME="/root")

    def plain(self, *words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
        return self._run(words, check, USER)

    def _run(
        self, words: tuple[str, ...], check: int, user: str | None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = self.box.orchctl("--config", f"{self.root}/config", *words, user=user, **environment)
        assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def status(self, check: int = 0) -> Any:
        return json.loads(self.plain("host", "status", "--json", check=check).stdout)["data"]

    def ticks(self) -> list[str]:
        file = self.root / "data/ticks"
        return file.read_text().split() if file.exists() else []


@contextmanager
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a folder for a box whose changes outlive it, and one that is shared with it."""
    if (reason := sandbox.why_not()) is not None:
        pytest.skip(reason)
    base, share = tmp_path / "box", tmp_path / "share"
    (base / "store").mkdir(parents=True)
    share.mkdir()
    for folder in list(share.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(base / "store")], check=True)
    try:
        yield base, share
    finally:
        subprocess.run(["umount", str(base / "store")], check=True)
