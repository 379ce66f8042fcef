"""Rollbacks with an API in trouble, on a real systemd: legacy is active all the same, and the debt is paid later."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import tomli_w

import broken_api
import invariants
from box import Box
from invariants import Entry
from kills import Forks
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.owners import Owners
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.services import stack
from support import STRESS, clean_env, clock
from switching_box import NO_GATES, NOTHING_DUE

WAITING = ("Late", "Pending", "AwaitingConcurrencySlot", "AwaitingRetry")
SOME = ("closed", "hung", "503", "reset", "garbage", "slow", "unauthorised")
KINDS = broken_api.KINDS if STRESS else SOME
SLOW_S = 1.5
DRY_S = 0.8
"""How long `rollback --dry-run` may take. Where it takes longer, the machine is busy, and a rollback has longer."""
JOBS = {kind: f"job-{number}" for number, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Site:
    """A host whose jobs are all Prefect's, and a real server without a worker."""

    box: Box
    forks: Forks
    api: PrefectApi
    state: Path
    ran: Path
    environment: dict[str, str]

    def orchctl(self, *words: str, url: str | None = None) -> Any:
        """Run orchctl inside; `url` is another API than the real one."""
        environment = self.environment | ({} if url is None else {"PREFECT_API_URL": url})
        return self.box.orchctl(*words, HOME="/root", **environment)

    def problems(self) -> dict[str, list[str]]:
        """Return what `status` finds wrong with each job."""
        data = json.loads(self.orchctl("status", "--json").stdout)["data"]
        return {job["job"]: [each["code"] for each in job["problems"]] for job in data["jobs"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectApi]:
    host = LocalStack(tmp_path_factory.mktemp("server"), clean_env())
    with contextlib.ExitStack() as clients:

        def connect(url: str) -> PrefectApi:
            return clients.enter_context(PrefectApi(url=url))

        try:
            up = stack.up(host, connect, {}, port=0, external_url=None, clock=clock(), say=lambda _: None)
            yield connect(up.api_url)
        finally:
            stack.down(host, clock(), lambda _: None)


@pytest.fixture(scope="module")
def site(booted: Box, server: PrefectApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Every job is Prefect's; each has a run in each of the states in which a worker could take it."""
    root = Path(booted.share, "api-down")
    state, ran, config = root / "state", root / "ran", root / "config"
    config.mkdir(parents=True)
    ran.touch()
    jobs: dict[str, Any] = {}
    for job in JOBS.values():
        command = f"/bin/sh -c 'echo {job}. >> {ran}'"
        booted.unit(f"{job}.service", f"[Service]\nType=oneshot\nExecStart={command}\n")
        booted.unit(f"{job}.timer", "[Timer]\nOnCalendar=*-*-* 03:30\n[Install]\nWantedBy=timers.target\n")
        jobs[job] = {"schedules": ["often"], "command": ["true"], "legacy": [{"timer": f"{job}.timer"}]}
    booted.start(*(f"{job}.timer" for job in JOBS.values()))
    defaults = {"data_root": str(root / "data"), "working_directory": "/tmp", "work_pool": "nobody"}
    (config / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "defaults": defaults, "jobs": jobs}))
    often = {"cron": "30 3 * * *"}
    (config / "schedules.toml").write_text(
        tomli_w.dumps({"version": 1, "timezone": "UTC", "schedules": {"often": often}})
    )
    environment = {"ORCHCTL_CONFIG": str(config), "ORCHCTL_STATE_DIR": str(state), "PREFECT_API_URL": server.shown}
    forks = Forks(booted, environment)
    try:
        synced = forks.run("sync", "--yes")
        assert synced.code == 0, synced.output
        cut = forks.run("cutover", *JOBS.values(), "--yes", patch=(*NO_GATES, *NOTHING_DUE))
        assert cut.code == 0, cut.output
        for job in JOBS.values():
            make_waiting(server, job)
        yield Site(booted, forks, server, state, ran, environment)
    finally:
        forks.close()
        booted.clean()


def make_waiting(api: PrefectApi, job: str) -> None:
    """Make a run of the job in each state in which it has not begun, imposed as the server's own rules would."""
    found = api.deployment(job, job)
    assert found is not None
    ago = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    for name in WAITING:
        run = api.create_run(found.id, parameters={}, idempotency_key=f"{job} {name}")
        state = {"type": "PENDING" if name == "Pending" else "SCHEDULED", "name": name}
        body = {"state": {**state, "state_details": {"scheduled_time": ago}}, "force": True}
        assert api.request("POST", f"/flow_runs/{run.id}/set_state", body)["status"] == "ACCEPT"
    assert {run.state_name for run in api.waiting_runs([found.id])} == {*WAITING, "Scheduled"}


def rolled_back(site: Site, job: str, url: str) -> tuple[Any, float]:
    """Roll a job back; return how that ended, and after how many seconds the owner file was gone."""
    owners, gone = Owners(site.state), list[float]()
    begun = time.monotonic()

    def watch() -> None:
        while time.monotonic() < begun + 60 and not gone:
            if job not in owners.names():
                gone.append(time.monotonic() - begun)
            time.sleep(0.01)

    watching = threading.Thread(target=watch)
    watching.start()
    done = site.orchctl("rollback", job, "--yes", url=url)
    watching.join()
    return done, gone[0]


def starts(site: Site, job: str) -> bool:
    before = site.ran.read_text().count(f"{job}.")
    site.box.systemctl("start", f"{job}.service")
    return site.ran.read_text().count(f"{job}.") == before + 1


def is_legacy(site: Site, job: str) -> bool:
    active = site.box.systemctl("is-active", f"{job}.timer", check=False).strip() == "active"
    return active and starts(site, job)


def left_for_a_worker(site: Site, job: str) -> Sequence[Any]:
    found = site.api.deployment(job, job)
    assert found is not None
    return site.api.waiting_runs([found.id])


@contextlib.contextmanager
def trouble(kind: str, real: str) -> Iterator[str]:
    """Yield the address of an API in trouble; a slow one is the real one, whose every answer takes a while."""
    if kind != "slow":
        with broken_api.api(kind) as url:
            yield url
        return
    address = urlsplit(real)
    server = socket.create_server(("127.0.0.1", 0))
    held = [server]

    def pump(source: socket.socket, target: socket.socket, delay_s: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(delay_s)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                upstream = socket.create_connection((address.hostname, address.port))
                held.extend((client, upstream))
                for ends in ((client, upstream, 0.0), (upstream, client, SLOW_S)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api"
    finally:
        for each in held:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # whoever waits for it goes on
            each.close()


def slowness(site: Site, job: str, url: str) -> float:
    """Return how many times too slow this machine is just now: a dry run starts up, and does no more."""
    begun = time.monotonic()
    site.orchctl("rollback", job, "--dry-run", url=url)
    return max(1.0, (time.monotonic() - begun) / DRY_S)


@pytest.mark.parametrize(("pays", "kinds"), [("recover", KINDS[::2]), ("sync", KINDS[1::2])], ids=["recover", "sync"])
def test_a_rollback_makes_legacy_active_whatever_the_api_does_and_what_is_owed_is_paid(
    site: Site, pays: str, kinds: Sequence[str]
) -> None:
    for kind in kinds:
        job = JOBS[kind]
        assert not starts(site, job)  # the fence
        with trouble(kind, site.api.shown) as url:
            slow = slowness(site, job, url)
            done, took = rolled_back(site, job, url)
        print(f"\n{kind}: legacy after {took:.1f} s (machine {slow:.1f} times too slow)")
        entry = Entry(0.0, "rolled-back", state=is_legacy(site, job), took=took / slow)
        violations = invariants.check([entry])
        assert not violations, f"{violations[0]}\n{done.stderr}"
        assert done.returncode == 0, done.stderr
        assert "owed" in done.stdout + done.stderr or kind == "slow"
    jobs = {JOBS[kind] for kind in kinds}
    owed = {JOBS[kind] for kind in kinds if kind != "slow"}
    assert {job for job, codes in site.problems().items() if "debt" in codes} - {JOBS.get("slow")} == owed
    assert all(left_for_a_worker(site, job) for job in owed)
    paid = site.orchctl(pays, *(["--yes"] if pays == "sync" else []))
    assert paid.returncode == 0, paid.stdout + paid.stderr
    assert not any(left_for_a_worker(site, job) for job in jobs)
    assert all(site.api.deployment(job, job).paused for job in jobs)  # type: ignore[union-attr]
    assert {job for job, codes in site.problems().items() if codes} & jobs == set()
    assert all(is_legacy(site, job) for job in jobs)


def test_the_judge_sees_a_rollback_that_was_slow_or_left_legacy_off() -> None:
    slow = Entry(0.0, "rolled-back", state=True, took=invariants.ROLLBACK_S + 1)
    off = Entry(1.0, "rolled-back", state=False, took=0.1)
    assert [each.invariant for each in invariants.check([slow, off])] == ["I6", "I6"]
