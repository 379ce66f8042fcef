"""Two hosts with workers on one server: what runs where, what they share, and what one does when the other is gone."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import postgres
from box import USER, Box
from host_stage import STATE, Stage, disk
from orchctl.adapters import local_stack, sandbox
from orchctl.core import env_file
from support import eventually

SHARED = ("applied", "locks", "slots")
"""The folders of the state directory that docs/scaling.md says are to be one for both."""
JOBS = """
version = 1
name = "two"
[defaults]
data_root = "{root}/data"
working_directory = "{root}"
catchup = "all"
schedules = ["often"]
command = ["/bin/sh", "{root}/job.sh"]
[jobs.on-first]
work_pool = "first"
[jobs.on-second]
work_pool = "second"
[jobs.on-both]
work_pool = "both"
overlap = "queue"
[jobs.long]
work_pool = "second"
schedules = []
command = ["/bin/sh", "-c", 'echo "long - begun $(hostname)" >> {root}/data/log; exec sleep 900']
[jobs.hello]
work_pool = "second"
schedules = []
command = ["/bin/echo", "hello"]
"""
SCHEDULES = """
version = 1
timezone = "UTC"
[schedules.often]
every = "40s"
anchor = 2025-01-01T00:00:00Z
"""
# A slot is claimed a second time, or two of a job go at once: each line says what, and nothing is asked of orchctl.
JOB = """
echo "$ORCHCTL_JOB $ORCHCTL_SLOT begun $(hostname)" >> data/log
sleep 3
echo "$ORCHCTL_JOB $ORCHCTL_SLOT ended $(hostname)" >> data/log
"""

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(bool(postgres.missing()) or os.geteuid() != 0, reason="needs root and PostgreSQL's programs"),
]


@dataclass(frozen=True)
class Line:
    """What a command wrote: its job, its slot, `begun` or `ended`, and the host it ran on."""

    job: str
    slot: str
    what: str
    host: str


class Host(Stage):
    """A host by its name, with the shared folders in its own state directory, and the server's credentials by hand."""

    def __init__(self, box: Box, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.enter(box)

    def enter(self, box: Box) -> None:
        self.rename(box, self.name)
        super().enter(box)
        for folder in SHARED:
            box.inside.run("runuser", "-u", USER, "--", "mkdir", "-p", "-m", "700", f"{STATE}/{folder}")
            box.inside.run("mount", "--bind", f"{self.root}/state/{folder}", f"{STATE}/{folder}")

    def rename(self, box: Box, name: str) -> None:
        """Give it a name, for good: units that are loaded already know the one before."""
        self.name = name
        box.inside.write("/etc/hostname", f"{name}\n")
        box.inside.run("hostname", name)
        box.systemctl("daemon-reload")

    def log(self) -> list[Line]:
        file = self.root / "data/log"
        return [Line(*line.split()) for line in file.read_text().splitlines()] if file.exists() else []

    def hosts_of(self, job: str) -> set[str]:
        return {line.host for line in self.log() if (line.job, line.what) == (job, "ended")}

    def with_key(self, key: str, *words: str, check: int = 0) -> str:
        """Run it as root under sudo, with the key of a server elsewhere in the environment. Returns all it said."""
        environment = {"SUDO_USER": USER, "HOME": "/root", "PREFECT_API_AUTH_STRING": key}
        done = self.box.orchctl("--config", f"{self.root}/config", *words, **environment)
        assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *words: str, check: int = 0) -> Any:
        return json.loads(self.plain(*words, "--json", check=check).stdout)["data"]

    def settings(self) -> dict[str, str]:
        return env_file.parse(self.box.sh(f"cat {STATE}/host/settings.env").encode())

    def left(self) -> set[str]:
        """Return what an installation could have left."""
        places = f"/etc/systemd/system {STATE}/host /var/lib/systemd/linger"
        return set(self.box.sh(f"find {places} -mindepth 1 2> /dev/null || true").split())


def write(root: Path) -> None:
    for folder in ("config", "data", *(f"state/{each}" for each in SHARED)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in SHARED:
        (root / "state" / folder).chmod(0o700)
    (root / "job.sh").write_text(JOB)
    (root / "config/jobs.toml").write_text(JOBS.format(root=root))
    (root / "config/schedules.toml").write_text(SCHEDULES)


def state_of(key: str, url: str, flow_run: str) -> tuple[str, str]:
    """Return the type of a flow run's state, and its message."""
    user, _, password = key.partition(":")
    answer = httpx.get(f"{url}/flow_runs/{flow_run}", auth=(user, password), timeout=90)
    assert answer.is_success, answer.text
    state = answer.json()["state"]
    return str(state["type"]), str(state["message"])


def judged(lines: list[Line], *, cut: tuple[str, ...] = ()) -> None:
    """Fail where a slot was begun twice, or where a job was begun while it went. `cut`: hosts that were killed."""
    begun = [(line.job, line.slot) for line in lines if line.what == "begun" and line.slot != "-"]
    assert len(begun) == len(set(begun)), sorted(begun)
    going: dict[str, Line] = {}
    for line in lines:
        if line.slot == "-":
            continue
        if line.what == "begun":
            before = going.get(line.job)
            assert before is None or before.host in cut, (before, line)
            going[line.job] = line
        else:
            going.pop(line.job, None)


@contextlib.contextmanager
def two(tmp_path: Path) -> Iterator[tuple[Host, Host, Path]]:
    """Yield two hosts, and the folder in which the second one's disk is."""
    with disk(tmp_path) as (base, share):
        first = tmp_path / "first"
        first.mkdir()
        write(share / "ops")
        with sandbox.booted(first, [share]) as inside, sandbox.booted(base, [share]) as beside:
            alpha = Host(Box(inside, share), share / "ops", "alpha")
            # As a machine that was cloned, until it gets a name of its own.
            beta = Host(Box(beside, share), share / "ops", "alpha")
            yield alpha, beta, base


def test_two_hosts_share_a_pool_and_one_of_them_dies(tmp_path: Path) -> None:
    with postgres.cluster() as cluster, two(tmp_path) as (alpha, beta, base):
        url = f"http://127.0.0.1:{_server(alpha, cluster)}/api"
        key = alpha.settings()["PREFECT_API_AUTH_STRING"]
        before = beta.left()
        worker = ["--api-url", url, "host", "install", "--no-server", "--pool", "second", "--pool", "both", "--yes"]
        # Two hosts of one name would take each other's runs for lost ones.
        said = beta.with_key(key, *worker, check=5)
        assert "another host has a worker alpha-both" in said
        beta.rename(beta.box, "beta")
        beta.with_key(key, *worker)
        assert not any("DATABASE" in name or "SERVER" in name for name in beta.settings())
        alpha.plain("sync")
        assert "no changes" in beta.plain("plan").stdout
        eventually(lambda: alpha.hosts_of("on-both") == {"alpha", "beta"}, within=200)
        assert (alpha.hosts_of("on-first"), alpha.hosts_of("on-second")) == ({"alpha"}, {"beta"})
        judged(alpha.log())
        _looks_right(beta)
        id = _dies_at_work(alpha, beta, key, url)  # noqa: A001 - the word of the domain
        judged(alpha.log(), cut=("beta",))
        with sandbox.booted(base, [beta.box.share]) as again:
            beta.enter(Box(again, beta.box.share))
            # What its worker took is put right before it starts again.
            beta.sudo("host", "up")
            assert eventually(lambda: state_of(key, url, id)[0] == "CRASHED")
            _is_refused_with_a_state_of_its_own(alpha, beta, key, url)
            beta.sudo("host", "uninstall", "--yes")
            assert {path for path in beta.left() - before if not path.endswith("systemd/user")} == set()
            assert beta.box.sh(f"pgrep -u {USER} -f prefect || true") == ""
        assert alpha.status()["ok"]
        judged(alpha.log(), cut=("beta",))


def _server(alpha: Host, cluster: postgres.Cluster) -> int:
    """Install server and workers on the first host, its database being PostgreSQL's. Returns the server's port."""
    port = local_stack.free_port()
    secret = alpha.root / "database"
    secret.touch(0o600)
    secret.write_text(cluster.make("prefect").url)
    pools = ["--pool", "first", "--pool", "both"]
    alpha.sudo("host", "install", "--port", str(port), "--database-file", str(secret), *pools, "--yes")
    return port


def _looks_right(beta: Host) -> None:
    """What is asked on the second host, which has no server, is answered with what both know."""
    status = beta.status()
    assert status["ok"]
    assert {part["name"] for part in status["parts"]} == {"server", "worker-second", "worker-both", "recover"}
    jobs = {each["job"]: each for each in beta.json("status")["jobs"]}
    assert [each["problems"] for each in jobs.values()] == [[]] * len(jobs)
    ran = {each["job"] for each in beta.json("runs")["runs"]}
    assert {"on-first", "on-second", "on-both"} <= ran
    # On a busy machine the server may not answer within doctor's few seconds.
    found = eventually(lambda: _all_seen(beta), within=120)
    assert {each["check"] for each in found if each["level"] == "warning"} == {"hosts"}
    (hosts,) = (each["seen"] for each in found if each["check"] == "hosts")
    assert "alpha-both polls both too; if that is another host, it does not see the locks in" in hosts


_CHECKS = ("state", "units", "permissions", "secrets", "api", "auth", "database", "hosts", "handover", "triggers")


def _all_seen(beta: Host) -> list[dict[str, Any]]:
    """Return what doctor finds on a host, nothing where something failed or could not be looked at."""
    done = beta.box.orchctl("--config", f"{beta.root}/config", "doctor", *_CHECKS, "--json", user=USER)
    found: list[dict[str, Any]] = json.loads(done.stdout)["data"]["findings"]
    return [] if any(each["level"] in {"failure", "unknown"} for each in found) else found


def _dies_at_work(alpha: Host, beta: Host, key: str, url: str) -> str:
    """Kill the second host while it runs something. Returns the id of that flow run."""
    id = str(alpha.json("run", "long")["flow_run_id"])  # noqa: A001 - the word of the domain
    eventually(lambda: any(line.job == "long" for line in alpha.log()), within=90)
    beta.box.inside.stop()
    died = datetime.now(UTC)
    # The first host's looks at lost runs, and its next slots in the pool of both, come and go.
    for _ in range(2):
        alpha.box.orchctl("--state-dir", STATE, "host", "unit", "recover", user=USER)
    after = f"{died:%Y-%m-%dT%H:%M:%SZ}"
    eventually(lambda: sum(line.slot > after and line.job == "on-both" for line in alpha.log()) >= 2, within=200)
    assert state_of(key, url, id)[0] == "RUNNING"
    # Nobody serves the second pool.
    assert not [line for line in alpha.log() if line.job == "on-second" and line.slot > after]
    return id


def _is_refused_with_a_state_of_its_own(alpha: Host, beta: Host, key: str, url: str) -> None:
    """Without the shared folders nothing runs on the second host: a slot could be claimed on each."""
    assert beta.plain("run", "hello", "--wait").stdout == "hello\n"
    for folder in SHARED:
        beta.box.inside.run("umount", "--lazy", f"{STATE}/{folder}")
    beta.plain("plan", check=3)
    id = alpha.json("run", "hello")["flow_run_id"]  # noqa: A001 - the word of the domain
    kind, message = eventually(lambda: found if (found := state_of(key, url, id))[0] == "FAILED" else None)
    assert "is not the one that the job was synced with" in message, (kind, message)
