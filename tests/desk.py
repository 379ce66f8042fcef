"""A run of a job without Prefect: real claims, locks, manifests and commands, everything else as a test gives it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from orchctl.adapters import host_facts
from orchctl.adapters.claims import Claims, Locks
from orchctl.adapters.manifests import Manifests
from orchctl.core.catalog import Catalog, Job, TimerTrigger
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.runner.job import execute
from orchctl.runner.shapes import Host, Outcome, Request

SLOT = datetime(2025, 12, 19, 5, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
LEGACY = (TimerTrigger(timer="old.timer", scope="system"),)


@dataclass
class Clock:
    """A clock that moves only when somebody sleeps."""

    at: datetime = SLOT + timedelta(seconds=3)
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


class OneCatalog:
    def __init__(self, job: Job) -> None:
        self._catalog = Catalog(name="tests", timezone="America/New_York", schedules={}, jobs={job.name: job})

    def read(self, digest: str) -> Catalog | None:
        return self._catalog if digest == DIGEST else None


class Told:
    """An owner file as it is told."""

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner

    def read(self, job: str) -> Owner | None:
        return self._owner


class Desk:
    """What a test of a run has in front of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.data = root, root / "state", root / "data"
        self.data.mkdir()
        self.clock, self.log = Clock(), list[str]()
        self.tree = Manifests(str(self.data))
        self.owner: Owner | None = None
        self.changes: dict[str, Any] = {}

    def job(self, *command: str, **fields: Any) -> Job:
        argv = command or ("sh", "-c", "echo ran >> ran")
        given = {"name": "job", "asset": "job", "work_pool": "pool", "kill_after": "1s", "timeout": "20s", **fields}
        return Job(command=argv, data_root=str(self.data), working_directory=str(self.root), **given)

    def host(self, job: Job) -> Host:
        made = Host(
            applied=OneCatalog(job),
            owners=Told(self.owner),
            claims=Claims(self.state),
            locks=Locks(self.state),
            manifests=Manifests,
            place=host_facts.here,
            git_sha=lambda _: None,
            find_outputs=host_facts.find_outputs,
            environment={"PATH": "/usr/bin:/bin", "PREFECT_API_URL": "http://x"},
            now=self.clock.now,
            sleep=self.clock.sleep,
        )
        return replace(made, **self.changes)

    def run(self, job: Job, flow_run: str = "one", *, slot: datetime | None = SLOT, attempt: int = 1) -> Outcome:
        trigger = "schedule" if slot else "manual"
        request = Request("job", DIGEST, flow_run, slot or SLOT, attempt, slot, trigger)
        return execute(request, self.host(job), self.log.append)

    def ran(self) -> int:
        path = self.root / "ran"
        return len(path.read_text().split()) if path.exists() else 0

    def manifest(self, flow_run: str = "one") -> dict[str, Any]:
        path = self.tree.run_directory("job", date(2025, 12, 19), run_id(SLOT, flow_run)) / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def events(self) -> list[tuple[str, int, str]]:
        lines = [line for path in self.data.glob("manifests/events/*") for line in path.read_text().splitlines()]
        return [(one["event"], one["attempt"], one["status"]) for one in map(json.loads, lines)]
