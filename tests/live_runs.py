"""Live tests of runs: a worker of one's own, processes by a mark in their environment, states as a person sets them."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import host_facts
from orchctl.adapters.local_stack import LocalStack
from orchctl.core.remote import RemoteDeployment, RemoteRun
from support import Live, Project, clean_env, eventually, sigint_as_usual

MARK = "ORCHTEST_MARK"


class OwnWorker:
    """A worker in a pool of its own, which a test may kill. Use as a context manager."""

    def __init__(self, live: Live, folder: Path, *, pool: str | None = None, limit: int = 8) -> None:
        self.pool = pool or f"own-{uuid.uuid4().hex[:8]}"
        self._limit = limit
        self._live = live
        # What a killed worker leaves in its folder for temporary files goes with the test.
        self._stack = LocalStack(folder, {**clean_env(), "TMPDIR": str(folder)})
        self._name = f"worker-{self.pool}"
        with live.api() as api:
            if api.pool(self.pool) is None:
                api.create_pool(self.pool, description=None)

    def start(self) -> OwnWorker:
        """Start it unless it runs."""
        if self.is_gone():
            self._stack.stop(self._name, patience_s=0)
            with sigint_as_usual():
                self._stack.start_worker(self.pool, self._live.api_url, limit=self._limit)
        return self

    @property
    def pid(self) -> int:
        pid = self._stack.pid(self._name)
        assert pid is not None
        return pid

    def log(self) -> str:
        return self._stack.log_path(self._name).read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def is_gone(self) -> bool:
        return self._stack.pid(self._name) is None

    def __enter__(self) -> OwnWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.stop(self._name, patience_s=10)


@dataclass(frozen=True)
class Marked:
    """The processes that carry a mark in their environment, wherever they have run off to."""

    mark: str

    def env(self) -> dict[str, str]:
        return {MARK: self.mark}

    def pids(self) -> list[int]:
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return [pid for pid in found if host_facts.started_ticks(pid) is not None]

    def end(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def marked() -> Iterator[Marked]:
    """Yield a fresh mark; whatever still carries it at the end is killed."""
    mark = Marked(uuid.uuid4().hex)
    try:
        yield mark
    finally:
        mark.end()


@contextlib.contextmanager
def project_in(folder: Path, live: Live) -> Iterator[Project]:
    """Yield a project that several tests look at; its deployments and flows are deleted at the end."""
    made = Project(folder, live.api_url, name=f"t{uuid.uuid4().hex[:8]}")
    yield made
    with live.api() as api:
        for deployment in api.deployments(names=(), tag="orchctl"):
            if deployment.labels.get("orchctl.catalog") == made.name:
                api.delete_flow(deployment.flow_id)


def deployment_of(live: Live, job: str) -> RemoteDeployment:
    with live.api() as api:
        found = api.deployment(job, job)
    assert found is not None
    return found


def patch(live: Live, *jobs: str, **fields: Any) -> None:
    """Change fields of deployments behind orchctl's back."""
    with live.api() as api:
        for job in jobs:
            api.update_deployment(deployment_of(live, job).id, fields)


def ask(live: Live, job: str, **options: Any) -> RemoteRun:
    """Make a flow run as an API client would: `parameters`, `scheduled_for`."""
    parameters = options.pop("parameters", {})
    with live.api() as api:
        return api.create_run(
            deployment_of(live, job).id, parameters=parameters, idempotency_key=uuid.uuid4().hex, **options
        )


def flow_run(live: Live, id: str) -> RemoteRun:  # noqa: A002 - the word of the domain
    with live.api() as api:
        found = api.flow_run(id)
    assert found is not None
    return found


def runs_of(live: Live, job: str) -> list[dict[str, Any]]:
    """Return Prefect's own rows of a job's flow runs, oldest slot first."""
    body = {
        "flow_runs": {"deployment_id": {"any_": [deployment_of(live, job).id]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    rows: list[dict[str, Any]] = live.request("POST", "/flow_runs/filter", body)
    return rows


def finished(live: Live, id: str, *, within: float = 60) -> RemoteRun:  # noqa: A002
    eventually(lambda: flow_run(live, id).finished, within=within)
    return flow_run(live, id)


def log_of(live: Live, id: str) -> list[str]:  # noqa: A002
    """Return what Prefect holds of a run's log, all pages."""
    lines: list[str] = []
    with live.api() as api:
        while page := api.logs(id, offset=len(lines)):
            lines += page
    return lines


def cancel(live: Live, id: str) -> None:  # noqa: A002
    """Cancel as the UI does."""
    with live.api() as api:
        api.set_run_state(id, type="CANCELLING", name="Cancelling")


def attempt_log(project: Project, run_id: str, attempt: int = 1) -> str:
    for path in project.data_root.glob(f"manifests/*/game_date=*/run={run_id}/attempt-{attempt}.log"):
        return path.read_text()
    return ""


def artifacts(live: Live, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = live.request(
        "POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "ID_DESC"}
    )
    return rows


def line_of(project: Project, run_id: str) -> dict[str, Any]:
    """Return the line of a run in `orchctl runs`."""
    lines = [run for run in project.json("runs", "--since", "1d")["runs"] if run["run_id"] == run_id]
    assert len(lines) == 1, lines
    line: dict[str, Any] = lines[0]
    return line


def now() -> datetime:
    return datetime.now(UTC)
