"""A host on which much has run, for tests of `host prune`: real folders and state, a history server in memory."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from catalogs import catalog
from fakes import blank_deployment
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.claims import Claims
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.adapters.retention import Marks
from orchctl.adapters.run_folders import RunFolders
from orchctl.core import manifest as form
from orchctl.core.deployments import LABEL_CATALOG
from orchctl.core.manifest import Identity, Place
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.core.retention import Ended, Kind
from orchctl.services import prune
from orchctl.services.prune_ports import World

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = 86_400
GONE = Place("elsewhere", "boot", 1, 1)
_JOBS = """
version = 1
name = "mine"

[defaults]
data_root = "{root}"
working_directory = "/"
work_pool = "pool"
command = ["true"]

[jobs.job]
catchup_window = "1d"

[jobs.other]
"""


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def deployment(name: str, owner: str = "mine") -> RemoteDeployment:
    found = blank_deployment(f"of-{name}", name, f"flow-of-{name}")
    return replace(found, tags=("orchctl",), labels={LABEL_CATALOG: owner})


@dataclass
class History:
    """Prefect's history in memory. `deleted` are the ids of each request; `before_deleting` is called first."""

    deployments_: list[RemoteDeployment] = field(default_factory=list)
    runs: dict[str, RemoteRun] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    deleted: list[list[str]] = field(default_factory=list)
    before_deleting: Any = None

    def add(
        self, of: str | None, ended: datetime, *, state: str = "COMPLETED", queue: str = "default", **parameters: str
    ) -> str:
        id = str(uuid.uuid4())  # noqa: A001
        self.runs[id] = RemoteRun(
            id=id,
            name=id[:8],
            deployment_id=None if of is None else f"of-{of}",
            state_type=state,
            state_name=state,
            state_message=None,
            expected_start=ended,
            auto_scheduled=True,
            created_by_schedule=None,
            run_count=1,
            parameters={"job": of or "gone", **parameters},
            state_since=ended,
            flow_id=f"flow-of-{of or parameters.get('job', 'gone')}",
        )
        self.queues[id] = queue
        return id

    def deployments(self, *, names: Sequence[str], tag: str) -> tuple[RemoteDeployment, ...]:
        assert (names, tag) == ((), "orchctl")
        return tuple(self.deployments_)

    def _ended(self, wanted: Ended) -> list[RemoteRun]:
        found = [
            run
            for run in self.runs.values()
            if self._flow(run) == wanted.flow_id
            and run.finished
            and run.state_since is not None
            and run.state_since <= wanted.before
            and wanted.queue in {None, self.queues[run.id]}
        ]
        return sorted(found, key=lambda run: run.id, reverse=True)

    def count_ended(self, wanted: Ended) -> int:
        return len(self._ended(wanted))

    def all_ended(self, tag: str, before: datetime) -> bool:
        of = [run for run in self.runs.values() if run.parameters.get("backfill") == tag.partition(":")[2]]
        return all(run.finished and run.state_since is not None and run.state_since <= before for run in of)

    def ended_runs(self, wanted: Ended, *, offset: int, limit: int = 200) -> tuple[RemoteRun, ...]:
        return tuple(self._ended(wanted)[offset : offset + limit])

    @staticmethod
    def _flow(run: RemoteRun) -> str | None:
        return None if run.deployment_id is None else f"flow-{run.deployment_id}"

    def last_ended(self, flow_id: str) -> RemoteRun | None:
        of = [run for run in self.runs.values() if run.flow_id == flow_id and run.finished]
        return max(of, key=lambda run: run.state_since or NOW, default=None)

    def delete_ended(self, ids: Sequence[str], before: datetime) -> int:
        assert len(ids) <= 50
        if self.before_deleting is not None:
            self.before_deleting()
        self.deleted.append(list(ids))
        there = [id for id in ids if id in self.runs and self.runs[id].finished]  # noqa: A001
        for each in there:
            del self.runs[each]
        return len(there)


class Host:
    """The host, and what was said. `slept` are the pauses, in seconds."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.data = root, root / "state", root / "data"
        self.data.mkdir()
        self.catalog = catalog(_JOBS.format(root=self.data), "version = 1")
        self.tree, self.history = Manifests(str(self.data)), History()
        self.claims, self.handovers, self.owners = Claims(self.state), Handovers(self.state), Owners(self.state)
        self.applied = AppliedCatalogs(self.state)
        self.folders = RunFolders(str(self.data), trust=())
        self.said: list[str] = []
        self.slept: list[float] = []
        self.now, self.elapsed = NOW, 0.0

    def world(self, **changes: Any) -> World:
        made = World(
            catalog=self.catalog,
            prefect=lambda: self.history,
            applied=self.applied,
            folders=lambda root: RunFolders(root, trust=()),
            claims=self.claims,
            handovers=self.handovers,
            owners=self.owners,
            marks=Marks(self.state),
            alone=lambda _: contextlib.nullcontext(),
            exclusive=lambda _: contextlib.nullcontext(),
            unfinished_restore=lambda: None,
            now=self.now,
            monotonic=lambda: self.elapsed,
            sleep=self.slept.append,
            say=self.said.append,
        )
        return replace(made, **changes)

    def look(self, **ages: float) -> dict[tuple[str, str], int]:
        return counts(prune.look(self.world(), seconds(ages)))

    def prune(self, **ages: float) -> dict[tuple[str, str], int]:
        found = prune.prune(self.world(), seconds(ages))
        assert found.problems == ()
        return counts(found)

    def ran(
        self,
        at: datetime,
        *,
        job: str = "job",
        asset: str | None = None,
        flow: str = "one",
        status: form.Status = "success",
        log: str | None = "a line\n",
        took: float = 60,
        day: date | None = None,
        step: str | None = None,
        **fields: Any,
    ) -> Path:
        """Record a run, or one of its steps; return its folder. `took` is seconds, `log` None: it has none."""
        who = Identity(
            job=job,
            asset=step or asset or job,
            run_id=run_id(at, flow),
            game_date=day or at.date(),
            as_of=at,
            slot=at,
            trigger=fields.pop("trigger", "schedule"),
            mode="live",
            attempt=1,
            step=step,
        )
        manifest = form.started(who, fields.pop("place", GONE), {"catalog_digest": "sha256:x"}, at=at)
        if status != "running":
            end = at + timedelta(seconds=took)
            manifest = form.finished(manifest, status, at=end, duration_s=took, exit_code=0)
        manifest |= fields
        folder = self.tree.write(manifest).parent
        if step is None:
            self.tree.append(form.event(form.final_event_name(status), manifest, at=at))
        if log is not None:
            (folder / "attempt-1.log").write_text(log)
            (folder / "attempt-1.log").chmod(0o600)
        return folder

    def runs(self, job: str = "job") -> list[str]:
        return sorted(path.name for path in self.data.glob(f"manifests/{job}/game_date=*/run=*"))

    def logs(self) -> list[str]:
        return sorted(path.name for path in self.data.glob("manifests/*/game_date=*/run=*/attempt*"))


def seconds(ages: Mapping[str, float]) -> dict[Kind, int]:
    return {kind: int(days * DAY) for kind, days in ages.items()}  # type: ignore[misc]


def counts(found: prune.Pruned) -> dict[tuple[str, str], int]:
    return {(row.kind, row.job): row.count for row in found.rows}


def kept(found: prune.Pruned) -> dict[str, int]:
    return {each.reason: each.count for each in found.kept}


def spied(real: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    """Return a function that does what `real` does and notes its first argument."""

    def call(first: Any, *words: Any, **more: Any) -> Any:
        seen.append(first)
        return real(first, *words, **more)

    return call


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file with its content: what a look may not change."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
