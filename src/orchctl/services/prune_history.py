"""Prefect's own history: flow runs of this catalog that have ended. Which may go, and how they do, a batch at a time.

A server on SQLite has one writer, which its scheduler needs too: after each batch nothing is asked for as long as the
batch took.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from orchctl.core import backfill, retention
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import LABEL_CATALOG, TAG
from orchctl.core.limits import QUEUE
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.core.retention import Ended
from orchctl.errors import OrchctlError
from orchctl.services.prune_ports import Act, HistoryServer, Notes, World

BATCH, PAGE = 50, 200
PAUSE_S = 0.2
"""The least pause after a batch."""
GONE = "(jobs without deployment)"
_NEWEST = "the newest of its job"


@dataclass
class History:
    """The flow runs that ended before `cutoff`: of the catalog's deployments, and of those that it once had."""

    world: World
    cutoff: datetime
    notes: Notes

    def __post_init__(self) -> None:
        self._prefect: HistoryServer = self.world.prefect()
        self._gone = 0
        self._over: dict[str, bool] = {}
        self._applied: dict[str, Catalog | None] = {}
        self._newest: dict[str, str | None] = {}

    def would(self) -> Iterator[Act]:
        """Yield, by job, how many would go. The server counts; only runs of backfills are looked at one by one."""
        for deployment, newest in self._deployments():
            count = self._prefect.count_ended(Ended(self.cutoff, deployment.flow_id))
            kept = {newest.id} if newest is not None and _is_old(newest, self.cutoff) else set()
            self._note(_NEWEST, deployment.name, len(kept))
            for run in self._all(Ended(self.cutoff, deployment.flow_id, queue=QUEUE)):
                if run.id not in kept and self._kept(run, deployment.name, ()):
                    kept.add(run.id)
            yield self._act(deployment.name, max(0, count - len(kept)), ())
        yield self._act(GONE, sum(not self._kept(run, GONE, ()) for run in self._all(self._orphans)), ())

    def batches(self) -> Iterator[Act]:
        """Yield flow runs that may go, 50 at most, to be deleted before the next are asked for."""
        for deployment, newest in self._deployments():
            held = (newest.id,) if newest is not None else ()
            yield from self._batches(Ended(self.cutoff, deployment.flow_id), deployment.name, held)
        yield from self._batches(self._orphans, GONE, ())

    def _batches(self, wanted: Ended, job: str, held: Collection[str]) -> Iterator[Act]:
        passed = 0
        while page := self._prefect.ended_runs(wanted, offset=passed, limit=BATCH):
            ids = tuple(run.id for run in page if not self._kept(run, job, held))
            began, self._gone = self.world.monotonic(), 0
            if ids:
                yield self._act(job, len(ids), ids)
                self.world.sleep(max(PAUSE_S, self.world.monotonic() - began))
            # What went is no longer in the listing; what stayed is passed over.
            passed += len(page) - self._gone

    def _act(self, job: str, count: int, ids: Sequence[str]) -> Act:
        return Act("history", job, count, None, partial(self._delete, ids))

    def _delete(self, ids: Sequence[str]) -> int:
        self._gone = self._prefect.delete_ended(ids, self.cutoff)
        return self._gone

    def _deployments(self) -> Iterator[tuple[RemoteDeployment, RemoteRun | None]]:
        """Yield the deployments of this catalog, each with the run that ended last: not those in a handover."""
        unfinished = frozenset(self.world.handovers.unfinished())
        for deployment in self._prefect.deployments(names=(), tag=TAG):
            if deployment.labels.get(LABEL_CATALOG) != self.world.catalog.name:
                continue
            if deployment.name in unfinished:
                self._note("a handover is unfinished", deployment.name, 1)
                continue
            yield deployment, self._prefect.last_ended(deployment.flow_id)

    @property
    def _orphans(self) -> Ended:
        return Ended(self.cutoff, None)

    def _all(self, wanted: Ended) -> Iterator[RemoteRun]:
        passed = 0
        while page := self._prefect.ended_runs(wanted, offset=passed, limit=PAGE):
            yield from page
            passed += len(page)

    def _kept(self, run: RemoteRun, job: str, held: Collection[str]) -> bool:
        if run.id in held:
            self._note(_NEWEST, job, 1)
            return True
        if job == GONE and not self._is_ours(run):
            return True
        if job == GONE and run.id == self._newest_of(run.flow_id):
            self._note(_NEWEST, job, 1)
            return True
        asked_by = run.parameters.get("backfill")
        if asked_by and not self._is_over(str(asked_by), run):
            self._note("its backfill is not over, or not all of it is old enough", job, 1)
            return True
        return False

    def _applied_for(self, run: RemoteRun) -> Catalog | None:
        """Return the catalog that a run was of, None where it was not applied on this host."""
        digest = str(run.parameters.get("digest"))
        if digest not in self._applied:
            try:
                self._applied[digest] = self.world.applied.read(digest)
            except OrchctlError:
                self._applied[digest] = None
        return self._applied[digest]

    def _is_ours(self, run: RemoteRun) -> bool:
        """Whether a run of a job that is gone was one of this catalog: it was applied on this host under that name."""
        applied = self._applied_for(run)
        return applied is not None and applied.name == self.world.catalog.name

    def _newest_of(self, flow_id: str | None) -> str | None:
        """Return the run of a flow without deployment that ended last, None where that is not known."""
        if flow_id is None:
            return None
        if flow_id not in self._newest:
            newest = self._prefect.last_ended(flow_id)
            self._newest[flow_id] = newest.id if newest is not None else None
        return self._newest[flow_id]

    def _is_over(self, id: str, run: RemoteRun) -> bool:  # noqa: A002 - the word of the domain
        """Whether all runs of a backfill may go: who asks for it again would else find some, and run the rest anew."""
        if id not in self._over:
            summaries = (self.world.folders(root).summary(id) for root in dict.fromkeys(self._roots(run)))
            summed_up = any(retention.is_over(each, self.cutoff) for each in summaries)
            self._over[id] = summed_up and self._prefect.all_ended(backfill.TAG + id, self.cutoff)
        return self._over[id]

    def _roots(self, run: RemoteRun) -> Iterator[str]:
        """Yield the data roots of a run's job: that of now, and that of the catalog which the run was of."""
        for catalog in (self.world.catalog, self._applied_for(run)):
            job = catalog.jobs.get(str(run.parameters.get("job"))) if catalog is not None else None
            if job is not None:
                yield job.data_root

    def _note(self, why: str, job: str, count: int) -> None:
        if count:
            self.notes.kept["history", job, why] += count


def _is_old(run: RemoteRun, cutoff: datetime) -> bool:
    return run.state_since is not None and run.state_since <= cutoff
