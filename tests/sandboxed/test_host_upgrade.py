"""`host upgrade` for real: the oldest Prefect to the newest under a real systemd, and back where that does not work."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import postgres
from box import USER, Box
from conftest import ROOT
from host_stage import STATE, Stage, disk
from orchctl.adapters import local_stack, sandbox
from support import eventually

pytestmark = pytest.mark.campaign
OLD = "3.8.8"
BREAKER = """
import sys
words = sys.orig_argv
# It works where it is tried, and not where it is to run.
if "prefect" in words and "start" in words and "server" in words and ".before-" not in sys.prefix:
    raise SystemExit("broken on purpose")
"""


class Venv(Box):
    """A box whose orchctl is in an environment of its own."""

    interpreter: str = sys.executable

    def orchctl(self, *words: str, user: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        assigned = [f"{key}={value}" for key, value in {"NO_COLOR": "1", **environment}.items()]
        command = ["env", *assigned, self.interpreter, "-P", "-m", "orchctl", *words]
        argv = self.inside.argv_as(user, *command) if user else self.inside.argv(*command)
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this orchctl and the oldest Prefect that it works with."""
    folder = tmp_path_factory.mktemp("template") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(ROOT), f"prefect=={OLD}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Old(Stage):
    """A host with the old Prefect, whose database is SQLite's, or in a cluster."""

    cluster: postgres.Cluster | None = None


@contextmanager
def databases(kind: str) -> Iterator[postgres.Cluster | None]:
    """Yield a cluster where one is wanted."""
    if kind == "sqlite":
        yield None
    elif missing := postgres.missing():
        pytest.skip(f"without {', '.join(missing)}")
    else:
        with postgres.cluster() as cluster:
            yield cluster


@contextmanager
def installed(tmp_path: Path, template: Path, scope: str, kind: str = "sqlite") -> Iterator[Old]:
    """Yield a host where the old Prefect is installed, and has history."""
    with databases(kind) as cluster, disk(tmp_path) as (base, share):
        root = share / "one"
        root.mkdir()
        subprocess.run(["cp", "-a", str(template), str(root / "venv")], check=True)
        with sandbox.booted(base, [share]) as inside:
            box = Venv(inside, share)
            box.interpreter = str(root / "venv/bin/python")
            stage = Old(box, root)
            stage.cluster = cluster
            calendar = root / "config/schedules.toml"
            # A run each ten seconds is more than a busy machine with two installations beside it can do.
            calendar.write_text(calendar.read_text().replace("10s", "1m"))
            words = ["--scope", scope, "--port", str(local_stack.free_port())]
            if cluster is not None:
                secret = root / "database-url"
                secret.touch(0o600)
                secret.write_text(cluster.make("prefect").url)
                words += ["--database-file", str(secret)]
            stage.sudo("host", "install", *words, "--yes")
            stage.plain("sync")
            says_hello(stage)
            eventually(stage.ticks, within=180)
            yield stage


def says_hello(stage: Old) -> None:
    """Run a job by hand; on a busy machine Prefect's SQLite refuses one now and then."""
    words = ["--config", f"{stage.root}/config", "run", "hello", "--wait"]
    eventually(lambda: stage.box.orchctl(*words, user=USER).stdout == "hello\n", within=180)


def upgrade(stage: Old, scope: str, *words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
    run = stage.sudo if scope == "system" else stage.plain
    return run("host", "upgrade", *words, check=check)


def runs(stage: Old) -> set[str]:
    """Return the ids of all runs that Prefect's database knows to have ended."""
    query = "SELECT id FROM flow_run WHERE state_type = 'COMPLETED'"
    if stage.cluster is not None:
        return set(stage.cluster.psql(query, database="prefect").split())
    python = f'import sqlite3, sys; print(*[r[0] for r in sqlite3.connect(sys.argv[1]).execute("{query}")])'
    return set(stage.box.sh('"$1" -c "$2" "$3"', sys.executable, python, f"{STATE}/prefect/prefect.db").split())


def version(stage: Old) -> Any:
    (server,) = [part for part in stage.status()["parts"] if part["name"] == "server"]
    return server["detail"].split()[1]


def asides(stage: Old) -> list[Path]:
    return sorted(stage.root.glob("venv.*"))


def still_works(stage: Old, before: set[str]) -> None:
    """History is kept, runs by hand and by schedule work, no slot ran twice, and nothing is unfinished."""
    assert before
    assert before <= runs(stage)
    says_hello(stage)
    count = len(stage.ticks())
    eventually(lambda: len(stage.ticks()) > count, within=180)
    slots = stage.ticks()
    assert len(slots) == len(set(slots))
    assert stage.box.sh(f"ls {STATE}/host/upgrade.json 2> /dev/null || true") == ""
    # Prefect's own rules, asked by code of ours that runs in what is installed now.
    assert json.loads(stage.plain("schedule", "next", "tick", "--json").stdout)["data"]
    found = json.loads(stage.plain("doctor", "units", "state", "versions", "--json").stdout)["data"]
    assert not [each for each in found["findings"] if each["level"] == "failure"]


@pytest.mark.parametrize(
    ("scope", "kind"),
    [("system", "sqlite"), ("system", "postgresql"), pytest.param("user", "sqlite", marks=pytest.mark.stress)],
)
def test_the_oldest_is_upgraded_to_the_newest_and_nothing_is_lost(
    tmp_path: Path, template: Path, scope: str, kind: str
) -> None:
    with installed(tmp_path, template, scope, kind) as stage:
        before = runs(stage)
        shown = upgrade(stage, scope, "--dry-run", check=3)
        assert f"prefect {OLD} -> 3." in shown.stdout
        assert "the database's tables change" in shown.stdout
        assert asides(stage) == []
        done = upgrade(stage, scope, "--yes", "--json")
        data = json.loads(done.stdout)["data"]
        assert data["before"] == OLD
        assert version(stage) == data["after"] != OLD
        still_works(stage, before)
        assert [str(path) for path in asides(stage)] == [data["environment_before"]]
        assert f"{OLD}\n" in stage.box.sh('"$1" -m prefect version', f"{data['environment_before']}/bin/python")
        # What pip made in the copy names the place that the copy has now.
        assert data["after"] in stage.box.inside.run_as(USER, f"{stage.root}/venv/bin/prefect", "--version")
        assert "nothing to do" in upgrade(stage, scope, "--yes").stdout


def broken_wheel(stage: Old) -> Path:
    """Return a package with which a server in its place does not start."""
    path = stage.root / "breaker-1.0-py3-none-any.whl"
    info = "breaker-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("breaker.py", BREAKER)
        wheel.writestr("breaker.pth", "import breaker\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: breaker\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "breaker.py,,\nbreaker.pth,,\n")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_does_not_work_is_put_back(tmp_path: Path, template: Path, kind: str) -> None:
    with installed(tmp_path, template, "system", kind) as stage:
        before = runs(stage)
        failed = upgrade(stage, "system", "--yes", "--requirement", str(broken_wheel(stage)), check=1)
        assert "failed; all is put back as it was" in failed.stderr
        assert "broken on purpose" in failed.stderr
        assert version(stage) == OLD
        still_works(stage, before)
        assert asides(stage) == []


@pytest.mark.stress
@pytest.mark.parametrize("at", ["stopping", "switching"])
def test_one_that_is_killed_is_finished_or_put_back(tmp_path: Path, template: Path, at: str) -> None:
    with installed(tmp_path, template, "system") as stage:
        before = runs(stage)
        words = ["--config", f"{stage.root}/config", "host", "upgrade", "--yes"]
        command = ["env", f"SUDO_USER={USER}", f"{stage.root}/venv/bin/python", "-P", "-m", "orchctl", *words]
        with subprocess.Popen(stage.box.inside.argv(*command), stderr=subprocess.DEVNULL) as process:
            journal = f"{STATE}/host/upgrade.json"
            eventually(lambda: f'"step": "{at}"' in stage.box.sh(f"cat {journal} 2> /dev/null || true"), within=300)
            holder = json.loads(stage.box.sh(f"cat {STATE}/orchctl.lock"))
            assert holder["command"] == "host upgrade"
            stage.box.sh('kill -KILL "$1"', holder["pid"])
            process.wait(timeout=60)
        assert "is unfinished" in stage.box.orchctl("host", "status", user=USER).stderr
        switched = any(list(path.glob("lib/python3*/site-packages/prefect-3.8.8.dist-info")) for path in asides(stage))
        done = upgrade(stage, "system", check=0 if switched else 1)
        assert ("upgraded Prefect" in done.stdout) == switched
        assert (version(stage) == OLD) == (not switched)
        still_works(stage, before)
