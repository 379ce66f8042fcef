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


PATIENT = """
[jobs.patient]
command = ["/bin/sh", "-c", "echo began >> {root}/data/began; until [ -e {root}/data/let-go ]; do sleep 0.2; done"]
"""


def free_port(scope: str) -> int:
    """Return a free port; for units of the system one that only root, and who is given the right, may have."""
    if scope == "user":
        return local_stack.free_port()
    return next(port for port in range(600, 1024) if local_stack.is_free(port))


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
        port = free_port(scope)
        install = ["host", "install", "--scope", scope, "--port", str(port), "--yes"]
        with sandbox.booted(base, [share]) as inside:
            stage = Stage(Box(inside, share), share / "one")
            jobs = stage.root / "config/jobs.toml"
            jobs.write_text(jobs.read_text() + PATIENT.format(root=stage.root))
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
            _what_runs_outlives_a_restart(stage)
            _what_they_say_is_shown(stage)
            _down_is_down_until_it_is_up_again(stage, scope)
            # A boot starts what this target wants.
            stage.box.sh("mkdir /etc/systemd/system/box.target.d")
            wanted = "[Unit]\nWants=multi-user.target\n"
            stage.box.inside.write("/etc/systemd/system/box.target.d/boot.conf", wanted)
        with sandbox.booted(base, [share]) as inside:
            stage.enter(Box(inside, share))
            eventually(lambda: _all_works(stage), within=120)
            # From here on: what ran when the box was stopped may still have written.
            ticks = len(stage.ticks())
            eventually(lambda: len(stage.ticks()) > ticks, within=120)
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


def _what_runs_outlives_a_restart(stage: Stage) -> None:
    began, let_go = stage.root / "data/began", stage.root / "data/let-go"
    stage.plain("run", "patient")
    eventually(began.exists, within=60)
    said = stage.sudo("host", "restart")
    assert "server stopped" in said.stderr
    assert "worker of pool local starts anew; what it runs goes on" in said.stderr
    eventually(lambda: _all_works(stage))
    let_go.touch()
    eventually(lambda: _ended(stage) == [("success", 1)], within=60)
    assert len(began.read_text().splitlines()) == 1


def _all_works(stage: Stage) -> bool:
    return stage.box.orchctl("--config", f"{stage.root}/config", "host", "status", user=USER).returncode == 0


def _ended(stage: Stage) -> list[tuple[str, int]]:
    found = json.loads(stage.plain("runs", "--job", "patient", "--json").stdout)["data"]["runs"]
    return [(each["status"], each["attempt"]) for each in found]


def _what_they_say_is_shown(stage: Stage) -> None:
    server, worker = (stage.plain("host", "logs", part, "-n", "200").stdout for part in ("server", "worker"))
    assert "Check out the dashboard at" in server
    assert "started!" in worker
    assert "Check out the dashboard at" not in worker


def _down_is_down_until_it_is_up_again(stage: Stage, scope: str) -> None:
    stage.sudo("host", "down")
    assert [part["ok"] for part in stage.status(check=1)["parts"]] == [False, False, False]
    # No server answers: no failure of the look for lost runs, and not unsaid either.
    stage.box.systemctl("start", "prefect-recover.service", scope=scope)
    assert (
        stage.box.systemctl("show", "--property=Result", "prefect-recover.service", scope=scope) == "Result=success\n"
    )
    if scope == "system":
        assert "cannot reach the Prefect API" in stage.box.sh("journalctl --unit prefect-recover.service")
    half = f"{STATE}/host/restore.json"
    stage.box.inside.write(half, '{"archive": "/b/one.tar.gz"}', mode="600", owner=USER)
    stage.box.systemctl("start", "prefect-server.service", "prefect-worker.service", scope=scope)
    assert "a restore was interrupted: /b/one.tar.gz" in stage.sudo("host", "up", check=5).stderr
    assert [part["ok"] for part in stage.status(check=1)["parts"]] == [False, False, False]
    stage.box.sh('rm "$1"', half)
    ticks = len(stage.ticks())
    assert "server schedules runs" in stage.sudo("host", "up").stderr
    eventually(lambda: _all_works(stage))
    eventually(lambda: len(stage.ticks()) > ticks, within=60)


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
    assert secret not in stage.sudo("host", "install", "--dry-run", "--port", "1025", check=3).stdout


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
