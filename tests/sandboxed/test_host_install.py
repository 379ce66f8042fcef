"""`host install` for real: units of a real systemd, a real server and worker, a reboot, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from box import USER, Box
from host_stage import STATE, Stage, disk
from orchctl.adapters import local_stack, sandbox
from support import eventually

UNITS = {"system": "/etc/systemd/system", "user": f"/home/{USER}/.config/systemd/user"}


def tree(box: Box) -> set[str]:
    """Return what an installation could have left: files and links of units, of the state directory, of lingering."""
    folders = " ".join([*UNITS.values(), f"{STATE}/host", "/var/lib/systemd/linger"])
    return set(box.sh(f"find {folders} -mindepth 1 2> /dev/null || true").split())


@pytest.mark.parametrize(
    "scope",
    [
        "system",
        pytest.param(
            "user",
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_installed_it_works_outlives_a_reboot_and_leaves_nothing(tmp_path: Path, scope: str) -> None:
    with disk(tmp_path) as (base, share):
        port = local_stack.free_port()
        install = ["host", "install", "--scope", scope, "--port", str(port), "--yes"]
        with sandbox.booted(base, [share]) as inside:
            stage = Stage(Box(inside, share), share / "one")
            before = tree(stage.box)
            stage.sudo(*install)
            assert stage.status()["ok"]
            again = json.loads(stage.sudo(*install, "--json").stdout)["data"]
            assert again["empty"]
            units = [f"{UNITS[scope]}/{name}" for name in ("prefect-server.service", "prefect-worker.service")]
            complaints = stage.box.sh(f"systemd-analyze --{scope} verify {' '.join(units)} 2>&1 || true")
            assert [line for line in complaints.splitlines() if "prefect-" in line] == []
            _secrets_are_kept(stage, scope)
            stage.plain("sync")
            assert stage.plain("run", "hello", "--wait").stdout == "hello\n"
            eventually(stage.ticks)
            # A boot starts what this target wants.
            stage.box.sh("mkdir /etc/systemd/system/box.target.d")
            wanted = "[Unit]\nWants=multi-user.target\n"
            stage.box.inside.write("/etc/systemd/system/box.target.d/boot.conf", wanted)
        ticks = len(stage.ticks())
        with sandbox.booted(base, [share]) as inside:
            stage.box = Box(inside, share)
            eventually(lambda: len(stage.ticks()) > ticks, within=120)
            stage.enter(stage.box)
            assert stage.status()["ok"]
            slots = stage.ticks()
            assert len(slots) == len(set(slots))
            if scope == "system":
                # Root finds the installation by its units, whoever's it is.
                assert stage.box.orchctl("host", "status", HOME="/root").returncode == 0
            said = stage.sudo("host", "uninstall", "--yes")
            assert f"the database stays: {STATE}/prefect/prefect.db" in said.stdout
            stage.box.sh("rm -r /etc/systemd/system/box.target.d")
            assert {path for path in tree(stage.box) - before if not path.endswith("systemd/user")} == set()
            assert stage.box.sh("pgrep -u daniel -f prefect || true") == ""
            assert "nothing was installed" in stage.sudo("host", "uninstall", "--yes").stdout


def _secrets_are_kept(stage: Stage, scope: str) -> None:
    """The key of the API is in one file, which its owner alone may read, and nowhere else."""
    settings = stage.box.sh(f"cat {STATE}/host/settings.env")
    (secret,) = {
        line.partition("=")[2].strip('"').partition(":")[2] for line in settings.splitlines() if "AUTH_STRING" in line
    }
    assert stage.box.sh(f"stat -c '%a %U' {STATE}/host/settings.env").strip() == f"600 {USER}"
    assert secret not in stage.box.sh(f"cat {UNITS[scope]}/prefect-*; cat {STATE}/host/installation.json")
    assert secret not in stage.box.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert secret not in stage.sudo("host", "logs", "-n", "1000").stdout
    assert secret not in stage.sudo("host", "install", "--dry-run", "--port", "1", check=3).stdout


def test_what_is_in_the_way_is_refused_and_left(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    box.inside.add_user(USER)
    stage = Stage(box, box.share / "refusals")
    denied = stage.plain("host", "install", "--scope", "system", "--yes", check=12)
    assert "sudo" in denied.stderr
    assert f"--state-dir {STATE}" in denied.stderr
    box.unit("prefect-server.service", "[Service]\nExecStart=/bin/sleep 9\n")
    box.reload()
    before = tree(box)
    foreign = stage.sudo("host", "install", "--yes", check=5)
    assert "there is a prefect-server.service that is not of this installation" in foreign.stderr
    assert tree(box) == before
    argued = stage.sudo("host", "install", "--database", "postgresql://u:hush@h/db", check=2)
    assert "hush" not in argued.stderr + argued.stdout
