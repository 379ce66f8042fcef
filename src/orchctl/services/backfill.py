"""`orchctl backfill`: what is asked for, what there is of it, and so what is to be done. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from orchctl.core import backfill as core
from orchctl.core import partition
from orchctl.core.backfill import Asked, History, Partition, Seen, Wish
from orchctl.core.catalog import Catalog, Job
from orchctl.core.deployments import digest_of
from orchctl.core.limits import QUEUE
from orchctl.core.manifest import Run
from orchctl.core.names import nearest
from orchctl.core.plan import same_job
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.errors import GateRefused, OrchctlError, UsageError
from orchctl.services.ports import Applied, BackfillTree, Disk, Prefect
from orchctl.services.trigger import job_of, synced

_HEARD_SLACK = timedelta(minutes=2)
_GOING = frozenset({"PENDING", "RUNNING", "CANCELLING"})


@dataclass(frozen=True)
class World:
    """Everything outside that a backfill touches.

    `as_of` gives the instant of a mode for a date. `living` are the ids of the flow runs that have a process on this
    host, None where that cannot be known; `worker_name` is how this host's worker of a pool is called.
    """

    catalog: Catalog
    prefect: Prefect
    applied: Applied
    tree: Callable[[str], BackfillTree]
    disk: Disk
    as_of: Callable[[Job, str, date, Mapping[str, str]], datetime]
    living: Callable[[], frozenset[str] | None]
    worker_name: Callable[[str], str]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Words:
    """What stands on the command line. `steps` None: all of them."""

    job: str
    start: str
    end: str
    steps: str | None = None
    as_of_mode: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A backfill: all its dates, each with what is to be done.

    `job` is the job as it was synced; `limit` is how many runs of backfills go at a time in its pool, None: no limit.
    `notes` are what the operator should know.
    """

    asked: Asked
    id: str
    job: Job
    deployment_id: str
    digest: str
    partitions: tuple[Partition, ...]
    limit: int | None
    notes: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The tag of its flow runs."""
        return core.TAG + self.id

    @property
    def about(self) -> dict[str, Any]:
        """What it is of, as its summary says it."""
        asked = self.asked
        return {
            "backfill": self.id,
            "catalog": asked.catalog,
            "job": asked.job,
            "start": asked.start.isoformat(),
            "end": asked.end.isoformat(),
            "only_steps": list(asked.steps),
            "as_of_mode": asked.as_of_mode,
            "partition": dict(asked.partition),
        }


class Watch:
    """Looks at the flow runs of one job: what Prefect says, what the manifest says, and whether there is a process."""

    def __init__(self, world: World, job: Job) -> None:
        self._world, self._job, self._tree = world, job, world.tree(job.data_root)

    def seen(self, flow_run: RemoteRun, game_date: date) -> Seen:
        """Return a flow run as it is. One that waits or is completed has no manifest that would matter."""
        if flow_run.state_type in {"COMPLETED", "SCHEDULED"}:
            return Seen(flow_run)
        run_id = core.run_id_of(flow_run)
        run = self._tree.run(self._job.asset, game_date, run_id) if run_id is not None else None
        return Seen(flow_run, run, lost=self._is_lost(flow_run, run))

    def _is_lost(self, flow_run: RemoteRun, run: Run | None) -> bool:
        """Whether Prefect waits for a process that is surely gone: killed, or gone with a boot, and nobody said so."""
        since = flow_run.state_since
        if flow_run.state_type not in _GOING or since is None or self._world.now() - since < core.LOST_AFTER:
            return False
        living = self._world.living()
        if living is None or flow_run.id in living:
            return False
        if flow_run.state_type == "RUNNING" and run is not None and run.attempt == flow_run.run_count:
            # Its own manifest was told the end, or names a process of this host that is gone.
            return run.status != "running"
        # It left nothing: only where no worker of another host can have taken it.
        ours = self._world.worker_name(self._job.work_pool)
        able = [
            worker.name
            for worker in self._world.prefect.workers(self._job.work_pool)
            if worker.online or (worker.last_heartbeat is not None and worker.last_heartbeat >= since - _HEARD_SLACK)
        ]
        return all(name == ours for name in able)


@dataclass(frozen=True)
class Request:
    """A backfill that can be. `job` is the job as it was synced, `held` the catalog that its runs take it from."""

    asked: Asked
    job: Job
    held: Catalog
    deployment: RemoteDeployment


def request(world: World, words: Words) -> Request:
    """Return what the words ask for.

    Raises UsageError for what cannot be asked for, OrchctlError where the job is not in Prefect yet.
    """
    today = world.now().astimezone(ZoneInfo(world.catalog.timezone)).date()
    first, last = core.period(words.start, words.end, today=today)
    job_of(world.catalog, words.job)
    deployment, held = synced(world.catalog, world.prefect, world.applied, words.job)
    job = held.jobs.get(words.job, world.catalog.jobs[words.job])
    given = dict(words.partition)
    _check(job, words.as_of_mode, first, given)
    steps = _steps(job, words.steps)
    asked = Asked(world.catalog.name, words.job, first, last, steps, words.as_of_mode, given)
    return Request(asked, job, held, deployment)


def prepare(world: World, wanted: Request, wish: Wish) -> Prepared:
    """Return what there is of a backfill, and what is to be done about each of its dates.

    Raises OrchctlError where the queue of its pool is not in Prefect yet, GateRefused where all is to be run anew while
    runs of an earlier time still go.
    """
    asked, job = wanted.asked, wanted.job
    limit, notes = _queue(world, job)
    if not same_job(wanted.held, world.catalog, asked.job):
        notes.append(f"the catalog has changes of {asked.job} that are not synced: what was synced runs")
    generation, runs = _generation(world, job, asked, force=wish.force)
    return Prepared(
        asked=asked,
        id=asked.id(generation),
        job=job,
        deployment_id=wanted.deployment.id,
        digest=digest_of(wanted.deployment) or "",
        partitions=_partitions(world, job, asked, runs, wish),
        limit=limit,
        notes=tuple(notes),
    )


def _check(job: Job, mode: str | None, first: date, given: Mapping[str, str]) -> None:
    if mode is not None and mode not in job.as_of:
        near = nearest(mode, job.as_of)
        hint = f'did you mean "{near}"?' if near else f"it has: {', '.join(sorted(job.as_of)) or 'none'}"
        raise UsageError(f"--as-of-mode: {job.name} has no mode {mode!r:.60}", hint=hint)
    try:
        partition.keys(job, first, given)
    except ValueError as error:
        raise UsageError(str(error), hint=partition.hint(job, given)) from error


def _steps(job: Job, text: str | None) -> tuple[str, ...]:
    """Return the steps that are named, in the catalog's order."""
    if text is None:
        return ()
    if job.execution != "steps":
        hint = '`execution = "steps"` in jobs.toml makes it run its steps'
        raise UsageError(f"--steps: {job.name} runs as one command", hint=hint)
    known = [step.name for step in job.steps]
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean "{near}"?' if near else f"its steps: {', '.join(known)}"
            raise UsageError(f"--steps: {job.name} has no step {name!r:.60}", hint=hint)
    if not names:
        raise UsageError("--steps names no step", hint=f"its steps: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _queue(world: World, job: Job) -> tuple[int | None, list[str]]:
    """Return how many runs of backfills go at a time in the job's pool, and what to know of its queue and worker."""
    pool = job.work_pool
    found = {each.name: each for each in world.prefect.queues(pool)}.get(QUEUE)
    if found is None:
        # Prefect would make one itself: without a limit, and before the slots of the jobs where its number is lower.
        raise OrchctlError(f"work pool {pool} has no queue {QUEUE} yet", hint="run `orchctl sync`")
    notes = []
    if found.is_paused:
        notes.append(f"the queue {QUEUE} of work pool {pool} is paused: its runs wait until somebody resumes it")
    if found.concurrency_limit is None:
        notes.append(f"the queue {QUEUE} of work pool {pool} has no limit: `orchctl sync` sets it")
    if not any(worker.online for worker in world.prefect.workers(pool)):
        notes.append(f"no worker is online in pool {pool}: the runs wait for one (`orchctl host up`)")
    return found.concurrency_limit, notes


def _generation(world: World, job: Job, asked: Asked, *, force: bool) -> tuple[int, tuple[RemoteRun, ...]]:
    """Return which time of this backfill it is, and the flow runs that it has already.

    Without `force` the newest time that there is. With it the newest forced one, until each of its dates has ended:
    who was interrupted goes on with the same words. Then the next.
    """
    found = [world.prefect.tagged_runs(core.TAG + asked.id(0))]
    while runs := world.prefect.tagged_runs(core.TAG + asked.id(len(found))):
        found.append(runs)
    newest = len(found) - 1
    if not force:
        return newest, found[newest]
    latest = [runs[-1] for runs in core.newest_of(found[newest]).values()]
    # A date without an instant, or whose run was deleted, has no run and has ended all the same: the summary says so.
    whole = len(latest) == len(asked.dates) or world.tree(job.data_root).has_ended(asked.id(newest))
    if newest > 0 and not (whole and all(run.finished for run in latest)):
        return newest, found[newest]
    going = sum(not run.finished for run in latest)
    if going:
        raise GateRefused(
            f"{going} runs of backfill {asked.id(newest)} still wait or go: nothing was begun anew",
            hint="wait for them (the same command with --wait, without --force), or cancel them in Prefect",
        )
    return newest + 1, ()


def _partitions(world: World, job: Job, asked: Asked, runs: tuple[RemoteRun, ...], wish: Wish) -> tuple[Partition, ...]:
    tree, watch, by_date = world.tree(job.data_root), Watch(world, job), core.newest_of(runs)
    found = []
    for day in asked.dates:
        own = by_date.get(day.isoformat(), [])
        seen = watch.seen(own[-1], day) if own else None
        looks_back = (wish.only_missed or wish.failed) and (seen is None or seen.state == "failed")
        history = _history(tree, job, asked, day) if looks_back else History()
        found.append(core.decide(day, seen, len(own), history, wish))
    return tuple(found)


def _history(tree: BackfillTree, job: Job, asked: Asked, day: date) -> History:
    """Return what the manifests say of a date: for a choice of steps, each of them must have succeeded."""
    keys = partition.keys(job, day, asked.partition)

    def is_of_it(data: Mapping[str, Any]) -> bool:
        return partition.is_of(data.get("partition") or {}, job, keys)

    if asked.steps:
        each = [History.of([run for run, data in tree.runs_on(step, day) if is_of_it(data)]) for step in asked.steps]
        missing = [history for history in each if history.success is None]
        bad = [one for one in each if one.newest is not None and one.newest.status != "success"]
        return History(None if missing else each[0].success, (bad or each)[0].newest)
    every = {step.name for step in job.steps}
    whole = [
        run
        for run, data in tree.runs_on(job.asset, day)
        if is_of_it(data)
        # A run of a few of its steps is no success of the job.
        and (
            run.status != "success"
            or data.get("execution") != "steps"
            or every <= {row.get("name") for row in data.get("steps") or []}
        )
    ]
    return History.of(whole)
