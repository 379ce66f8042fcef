"""`orchctl status`: where every job stands, from as few questions as it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchctl.core import deployments as wanted
from orchctl.core import manifest
from orchctl.core import status as core
from orchctl.core.catalog import Catalog, CronTrigger, Job
from orchctl.core.manifest import Run, Skipped
from orchctl.core.ownership import Finding, Known
from orchctl.core.plan import Gathered, plan
from orchctl.core.remote import RemoteDeployment, RemotePool
from orchctl.core.status import JobStatus, Prefects
from orchctl.errors import NotAllowed, OrchctlError, PrefectApiError, StateBroken
from orchctl.services import ownership, timers
from orchctl.services.ownership import Journals, OwnerFiles
from orchctl.services.ports import Applied, ManifestTree, Prefect
from orchctl.services.timers import Read, TimerReader

DAYS_BACK = 2
"""How many days before today, by the date in UTC, the last run of a job is looked for."""


class CronLines(Protocol):
    """The crontabs of this host. See `adapters/cron.py`."""

    def find(self, trigger: CronTrigger) -> int | None: ...  # noqa: D102


@dataclass(frozen=True)
class World:
    """What a status works with. `tree` gives the manifests of a data root."""

    catalog: Catalog
    systemd: TimerReader
    crontabs: CronLines
    prefect: Prefect
    owners: OwnerFiles
    handovers: Journals
    applied: Applied
    tree: Callable[[str], ManifestTree]
    host_zone: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class Status:
    """All jobs, by name, as they were at `at` (UTC). `findings` are those that belong to no one job.

    `unreachable` is why Prefect was not asked, None where it was. `skipped` are records passed over.
    """

    at: datetime
    api_url: str
    unreachable: str | None
    jobs: tuple[JobStatus, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.findings) or any(job.findings for job in self.jobs)


def status(world: World, *, now: datetime, only: str | None = None) -> Status:
    """Return where the jobs stand: one systemctl call a manager, two requests to Prefect, the events of three days,
    and of handovers only what their marks name.

    What cannot be asked is told, and the rest all the same. Writes nothing.
    """
    jobs = {name: job for name, job in world.catalog.jobs.items() if only in {None, name}}
    read = timers.read(world.systemd, jobs, host_zone=world.host_zone, now=now)
    findings: list[Finding] = []
    prefects: Mapping[str, Prefects] = {}
    unreachable = None
    try:
        prefects = _ask_prefect(world, jobs, findings, now=now, everything=only is None)
    except (PrefectApiError, NotAllowed) as error:
        unreachable = error.message
        findings.append(Finding("prefect-unreachable", "; ".join(filter(None, (error.message, error.hint)))))
    if only is None:
        findings += _gone(world)
    skipped: list[Skipped] = []
    last = _last_runs(world, jobs, now, skipped)
    found = tuple(
        _one(world, job, read, prefects.get(job.name, Prefects(known=False)), last.get(job.name), now)
        for job in jobs.values()
    )
    return Status(now, world.prefect.shown, unreachable, found, tuple(findings), tuple(skipped))


def _one(world: World, job: Job, read: Read, prefect: Prefects, last: Run | None, now: datetime) -> JobStatus:
    known = ownership.known(world.owners, world.handovers, job.name) if job.has_legacy else Known()
    lines = {each: world.crontabs.find(each) for each in job.legacy if isinstance(each, CronTrigger)}
    legacy = core.Triggers(read.sources(job), read.units, read.absent, lines)
    return core.status(job, known=known, legacy=legacy, prefect=prefect, last=last, now=now)


def _gone(world: World) -> Iterator[Finding]:
    """Say what is Prefect's, or halfway, of jobs that the catalog does not know (any more)."""
    try:
        owned, unfinished = world.owners.names(), world.handovers.unfinished()
    except StateBroken as error:
        yield Finding("owner-unknown", error.message)
        return
    for name in sorted({*owned, *unfinished} - set(world.catalog.jobs)):
        if name in unfinished:
            said = f"a handover of {name}, which is not in the catalog, is unfinished"
            yield Finding("unfinished-handover", said, "`orchctl recover` goes on with it")
        else:
            said = f"Prefect owns {name}, which is not in the catalog"
            yield Finding("owned-and-gone", said, f"`orchctl rollback {name}` makes legacy its owner")


def _ask_prefect(
    world: World, jobs: Mapping[str, Job], findings: list[Finding], *, now: datetime, everything: bool
) -> dict[str, Prefects]:
    """Return what Prefect says of each job: what it has, what is scheduled, and how that differs from the catalog."""
    catalog = world.catalog
    found = world.prefect.deployments(names=tuple(jobs), tag=wanted.TAG)
    gathered = _gathered(world, found)
    proposed = plan(catalog, gathered, only=() if everything else jobs)
    changes = {change.job: change for change in proposed.changes}
    conflicts = {conflict.subject.partition("/")[0]: conflict for conflict in proposed.conflicts}
    own = dict(_own(gathered, catalog))
    runs = world.prefect.next_runs([own[name].id for name in jobs if name in own], now=now)
    if everything:
        gone = sorted(name for name in own if name not in catalog.jobs)
        findings += [
            Finding("gone-from-catalog", f"{name} is in Prefect and no longer in the catalog") for name in gone
        ]
    return {
        name: Prefects(
            known=True,
            deployment=own.get(name),
            runs=tuple(run for run in runs if name in own and run.deployment_id == own[name].id),
            change=changes.get(name),
            conflict=conflicts.get(name),
            desired=proposed.desired.get(name),
        )
        for name in jobs
    }


def _gathered(world: World, found: tuple[RemoteDeployment, ...]) -> Gathered:
    """Return what `plan` needs. Work pools are not asked for: whether a worker is there the deployments say."""
    catalog = world.catalog
    names = Counter(each.name for each in found)
    doubtful = {each.flow_id for each in found if not wanted.stands_alone(each, names, catalog.name)}
    digests = {digest for each in found if (digest := wanted.digest_of(each))} | {catalog.digest}
    return Gathered(
        deployments=found,
        flow_names=world.prefect.flow_names(tuple(sorted(doubtful))) if doubtful else {},
        pools={job.work_pool: RemotePool(job.work_pool, "process", False, None) for job in catalog.jobs.values()},
        applied={digest: _believed(world.applied, digest) for digest in sorted(digests)},
        state_dir=world.state_dir,
        state_id=_state_id(world.applied),
    )


def _believed(applied: Applied, digest: str) -> Catalog | None:
    try:
        return applied.read(digest)
    except OrchctlError:
        return None


def _state_id(applied: Applied) -> str | None:
    """Return the id of the state directory; of one that cannot be believed, none: then every deployment differs."""
    try:
        return applied.state_id()
    except OrchctlError:
        return None


def _own(gathered: Gathered, catalog: Catalog) -> Iterator[tuple[str, RemoteDeployment]]:
    for each in gathered.deployments:
        flow = gathered.flow_names.get(each.flow_id, each.labels.get(wanted.LABEL_JOB))
        if flow == each.name and wanted.is_ours(each, catalog.name):
            yield each.name, each


def _last_runs(world: World, jobs: Mapping[str, Job], now: datetime, skipped: list[Skipped]) -> dict[str, Run]:
    """Return each job's last run: from the events of today, and of earlier days only as far as they are needed."""
    found: dict[str, Run] = {}
    for root in sorted({job.data_root for job in jobs.values()}):
        tree = world.tree(root)
        names = {job.name for job in jobs.values() if job.data_root == root}
        for back in range(DAYS_BACK + 1):
            left = {name for name in names if name not in found or not core.is_execution(found[name])}
            if not left:
                break
            day = (now - timedelta(days=back)).date()
            newest = manifest.fold(run for run in tree.events(day, skipped=skipped) if run.job in left)
            for name, run in core.newest([*newest.values(), *(found[name] for name in left if name in found)]).items():
                found[name] = tree.current(run, skipped=skipped) if run.status == "running" else run
    return found
