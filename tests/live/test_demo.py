"""`orchctl demo` played to its end: with a systemd of its own, and without any."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchctl.adapters import sandbox
from support import clean_env

THE_END = "All as it should be; everything is stopped and removed."


def played(folder: Path, **environment: str) -> str:
    """Play it with its temporary folder in `folder`, see that it ends well and leaves nothing, return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "orchctl", "demo"],
        env={**clean_env(), "TMPDIR": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr}"
    assert done.stdout.rstrip().endswith(THE_END)
    assert not list(folder.glob("orchctl-demo-*"))
    return done.stdout


@pytest.mark.campaign
@pytest.mark.stress  # It wants the machine to itself, as who looks at it has it.
def test_it_shows_the_legacy_side_and_the_handover_in_a_systemd_of_its_own(tmp_path: Path) -> None:
    if (reason := sandbox.why_not()) is not None:
        pytest.skip(f"a systemd of its own cannot be booted: {reason}")
    text = played(tmp_path)
    assert "Its systemd is a systemd of the demo's own, in namespaces: the host's is not touched." in text
    assert "Left out" not in text
    for command in ("legacy", "import systemd", "schedule compare", "runs audit", "cutover", "rollback", "recover"):
        assert f"$ orchctl {command}" in text
    assert re.search(r"What systemd did, told by Prefect's run of the same slot: .*systemd ran it", text)


@pytest.mark.campaign
@pytest.mark.stress
def test_where_there_is_no_systemd_it_says_what_it_leaves_out(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if program.name not in {"unshare", "nsenter"} and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    text = played(tmp_path, PATH=str(programs), XDG_RUNTIME_DIR="")
    assert "Left out, the legacy side: no systemd answers this user, and none can be booted: " in text
    assert "$ orchctl legacy" not in text
    assert "$ orchctl cutover" not in text
