"""plan and sync: gather, plan purely, apply, read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchctl.core import deployments as wanted
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import TAG, Desired, digest_of
from orchctl.core.limits import QUEUE, LimitChange, QueueChange
from orchctl.core.names import is_name, nearest
from orchctl.core.plan import Change, Gathered, Plan, plan
from orchctl.core.plan_apply import patch_fields, split_runs
from orchctl.core.remote import RemoteDeployment
from orchctl.errors import (
    GateRefused,
    Interrupted,
    OrchctlError,
    PartialFailure,
    PrefectApiError,
    PrefectRejected,
    UsageError,
)
from orchctl.services.ports import Applied, Prefect

_LOOK = "see `orchctl plan`; somebody else may be changing the same"
_AGAIN = "run `orchctl sync` again: it goes on from what is there"
# Prefect's PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME, if nobody has changed it.
_SCHEDULED_AHEAD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did: the changes it applied, in order, and the work pools it made."""

    plan: Plan
    applied: tuple[Change, ...]


def propose(
    catalog: Catalog,
    prefect: Prefect,
    applied: Applied,
    *,
    state_dir: str,
    now: datetime,
    only: Collection[str] = (),
    prune: bool = False,
    owns: Callable[[str], bool] = lambda _job: False,
) -> Plan:
    """Return what `sync` would do. Makes no mutating call and writes nothing.

    `owns` says whether Prefect owns a job.

    Raises UsageError for a name in `only` that neither the catalog nor (with `prune`) Prefect knows.
    """
    gathered = _gather(catalog, prefect, applied, state_dir=state_dir)
    gone = {item.name for item in gathered.deployments if item.name not in catalog.jobs}
    gathered = replace(gathered, owned=frozenset(name for name in gone if is_name(name) and owns(name)))
    _check_names(catalog, gathered.deployments, only)
    found = plan(catalog, gathered, only=only, prune=prune)
    return _with_runs(found, prefect, now)


def _gather(catalog: Catalog, prefect: Prefect, applied: Applied, *, state_dir: str) -> Gathered:
    found = prefect.deployments(names=tuple(catalog.jobs), tag=TAG)
    found_names = Counter(item.name for item in found)
    flows = {item.flow_id for item in found if not wanted.stands_alone(item, found_names, catalog.name)}
    digests = {digest for item in found if (digest := digest_of(item))} | {catalog.digest}
    before = {digest: _applied(applied, digest) for digest in sorted(digests)}
    pools = {name: prefect.pool(name) for name in sorted({job.work_pool for job in catalog.jobs.values()})}
    limited = catalog.limits or any(each is not None and each.limits for each in before.values())
    return Gathered(
        deployments=found,
        flow_names=prefect.flow_names(tuple(sorted(flows))) if flows else {},
        pools=pools,
        applied=before,
        state_dir=state_dir,
        queues={name: prefect.queues(name) for name, pool in pools.items() if pool is not None},
        limits=prefect.limits() if limited else (),
        state_id=applied.state_id(),
    )


def _applied(applied: Applied, digest: str) -> Catalog | None:
    """Read an applied catalog; one that cannot be believed counts as missing, so that `sync` writes it anew."""
    try:
        return applied.read(digest)
    except OrchctlError:
        return None


def _check_names(catalog: Catalog, found: Iterable[RemoteDeployment], only: Collection[str]) -> None:
    known = set(catalog.jobs) | {item.name for item in found if wanted.is_marked(item, catalog.name)}
    for name in only:
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"there is no job {name!r}", hint=f'did you mean "{near}"?' if near else "see `orchctl jobs`"
            )


def _with_runs(found: Plan, prefect: Prefect, now: datetime) -> Plan:
    """Add to each change of an existing deployment which of its scheduled runs go and which stay."""
    ids = [change.deployment_id for change in found.changes if change.deployment_id and _reaches_prefect(change)]
    runs = prefect.scheduled_runs(ids) if ids else ()
    changes = []
    for change in found.changes:
        own = [run for run in runs if run.deployment_id == change.deployment_id]
        deleted, kept = split_runs(own, change, now=now)
        changes.append(replace(change, runs_deleted=deleted, runs_kept=kept) if own else change)
    return replace(found, changes=tuple(changes))


def _reaches_prefect(change: Change) -> bool:
    return bool(change.fields or change.schedules) or change.action == "delete"


def apply(
    proposed: Plan,
    catalog: Catalog,
    prefect: Prefect,
    applied: Applied,
    *,
    now: Callable[[], datetime],
    progress: Callable[[Change], None] = lambda _change: None,
) -> Synced:
    """Carry out a plan, then read everything back. Repeatable: what a failure left undone, the next one does.

    Raises GateRefused before the first write where something is in the way, PartialFailure (saying what was
    done) or the error itself where nothing was done, and PrefectApiError where Prefect kept something else
    than it was given.
    """
    if proposed.conflicts:
        first = proposed.conflicts[0]
        raise GateRefused(f"nothing was changed: {first.subject} {first.message}", hint=first.hint)
    if proposed.writes_catalog:
        # First: from here on a run of any deployment that names this digest finds its job.
        applied.write(catalog)
    for pool in proposed.pools:
        _create_pool(prefect, pool)
    # Before the deployments: a run may need them as soon as its deployment is there.
    for queue in proposed.queues:
        _set_queue(prefect, queue)
    for limit in proposed.limits:
        _set_limit(prefect, limit)
    done: list[Change] = []
    for change in proposed.changes:
        try:
            _apply_one(change, proposed.desired.get(change.job), prefect, now)
        except OrchctlError as error:
            raise _stopped(error, change, done, proposed) from error
        except KeyboardInterrupt as interruption:
            message = f"interrupted; {_so_far(change, done, proposed)}"
            raise Interrupted(message, hint=_AGAIN) from interruption
        done.append(change)
        progress(change)
    _verify(proposed, catalog, prefect, applied)
    return Synced(proposed, tuple(done))


def _create_pool(prefect: Prefect, pool: str) -> None:
    """Make a work pool; a worker that has just begun may have made it itself since the plan."""
    try:
        prefect.create_pool(pool, description="Jobs of this host, kept by orchctl")
    except PrefectRejected as error:
        if error.status != 409:
            raise


def _set_queue(prefect: Prefect, change: QueueChange) -> None:
    if change.before is not None:
        prefect.update_queue(change.pool, QUEUE, change.body)
    elif change.priority is not None:
        prefect.create_queue(change.pool, QUEUE, priority=change.priority, limit=change.limit)


def _set_limit(prefect: Prefect, change: LimitChange) -> None:
    if change.before is not None:
        prefect.update_limit(change.name, change.body)
    else:
        prefect.create_limit(change.name, limit=change.limit)


def _stopped(error: OrchctlError, change: Change, done: list[Change], proposed: Plan) -> OrchctlError:
    stopped = PartialFailure(f"{change.job}: {error.message}; {_so_far(change, done, proposed)}", hint=_AGAIN)
    if not done:
        # Nothing succeeded: the cause's own exit code tells more (no server, no permission).
        stopped.exit_code, stopped.code = error.exit_code, error.code
    return stopped


def _so_far(change: Change, done: list[Change], proposed: Plan) -> str:
    left = len(proposed.changes) - len(done) - 1
    said = f"{len(done)} of {len(proposed.changes)} jobs were synced"
    names = f" ({', '.join(item.job for item in done)})" if 0 < len(done) <= 10 else ""
    return f"{said}{names}, {change.job} may be half done, {left} were not begun"


def _apply_one(change: Change, target: Desired | None, prefect: Prefect, now: Callable[[], datetime]) -> None:
    if change.action == "delete":
        prefect.delete_deployment(_id(change))
    elif target is not None:
        if change.action == "update":
            _update(change, target, prefect, now())
        else:
            _create(change, target, prefect, now())


def _id(change: Change) -> str:
    if change.deployment_id is None:
        raise OrchctlError(f"{change.job}: the plan has no deployment to change")
    return change.deployment_id


def _create(change: Change, target: Desired, prefect: Prefect, begun: datetime) -> None:
    """Make a deployment, or make it anew with its labels: schedules that people paused or made stay as they are."""
    name = target.job.name
    flow = prefect.create_flow(name)
    # Looked at now, not when the plan was made: somebody may have paused one since.
    there = prefect.deployment(name, name) if change.action == "recreate" else None
    gone = {item.slug for item in change.schedules if item.action == "delete"}
    own = {item.slug for item in target.schedules}
    held = [item for item in (there.schedules if there is not None else ()) if item.slug not in gone]
    paused = {item.slug for item in held if not item.active}
    schedules = [wanted.schedule_body(item, active=item.slug not in paused) for item in target.schedules]
    schedules += [
        {
            "slug": item.slug,
            "schedule": dict(item.schedule),
            "active": item.active,
            "parameters": dict(item.parameters),
        }
        for item in held
        if item.slug not in own
    ]
    prefect.create_deployment(
        {"name": target.job.name, "flow_id": flow, **wanted.to_body(target.fields), "schedules": schedules}
    )
    if change.action == "recreate":
        # A slot that falls between `begun` and the POST gets a second run here, under the schedule's new id; the
        # slot rule lets one of them work. Starting later would lose the slots until then.
        _schedule_from(change, prefect, begun)


def _update(change: Change, target: Desired, prefect: Prefect, begun: datetime) -> None:
    """Change a deployment in place: schedules first, fields last.

    The fields hold the digest, from which the next plan knows which schedules were ours: until the last
    schedule is as it should be, it must name the old catalog.
    """
    deployment = _id(change)
    doomed = [item.id for item in change.schedules if item.action == "delete" and item.id is not None]
    for schedule in doomed:
        prefect.delete_schedule(deployment, schedule)
    for start in _late_starts(change, set(doomed), begun):
        # Before any schedule changes: a new cadence has no slots in the past.
        _schedule_from(change, prefect, start)
    for item in change.schedules:
        if item.action == "update" and item.id is not None and item.after is not None:
            prefect.update_schedule(deployment, item.id, wanted.schedule_body(item.after, active=None))
    new = [
        wanted.schedule_body(item.after, active=True)
        for item in change.schedules
        if item.action == "create" and item.after is not None
    ]
    if new:
        prefect.add_schedules(deployment, new)
    fields = patch_fields(change, target)
    if fields:
        prefect.update_deployment(deployment, wanted.to_body(fields))
    _schedule_from(change, prefect, begun)


def _late_starts(change: Change, doomed: Collection[str], begun: datetime) -> list[datetime]:
    """Return from when to schedule again to get back the late runs that the end of another schedule took along.

    Prefect schedules about an hour from each start on.
    """
    starts: list[datetime] = []
    for run in change.runs_deleted:
        slot = run.expected_start
        if slot is None or slot >= begun or run.created_by_schedule in doomed:
            continue
        if not starts or slot - starts[-1] > _SCHEDULED_AHEAD:
            starts.append(slot)
    return starts


def _schedule_from(change: Change, prefect: Prefect, start: datetime) -> None:
    """Let the deployment's runs be made from `start` on, unless it is paused.

    Every change drops the runs ahead, and Prefect's scheduler makes new ones from its next round on: a slot
    between the two would be lost. Runs that are there already are not made twice. Prefect would do it for a
    paused deployment too, and workers would take those runs.
    """
    actual = prefect.deployment(change.job, change.job)
    if actual is not None and not actual.paused:
        prefect.schedule_from(actual.id, start)


def _verify(proposed: Plan, catalog: Catalog, prefect: Prefect, applied: Applied) -> None:
    if not (proposed.changes or proposed.queues or proposed.limits):
        return
    touched = {change.job for change in proposed.changes}
    only = () if proposed.desired.keys() == catalog.jobs.keys() else (*proposed.desired, *touched)
    left = plan(catalog, _gather(catalog, prefect, applied, state_dir=proposed.state_dir), only=only)
    queues, limits = {each.pool for each in proposed.queues}, {each.name for each in proposed.limits}
    kept = [f"the queue {QUEUE} of work pool {each.pool}" for each in left.queues if each.pool in queues]
    kept += [f"limit {each.name}" for each in left.limits if each.name in limits]
    if kept:
        raise PrefectApiError(f"Prefect kept something else than it was given in {', '.join(kept)}", hint=_LOOK)
    for change in left.changes:
        if change.job not in touched:
            continue
        names = [item.field for item in change.fields] + [f"schedule {item.slug}" for item in change.schedules]
        raise PrefectApiError(
            f"{change.job}: Prefect kept something else than it was given in {', '.join(names)}",
            hint=_LOOK,
        )
