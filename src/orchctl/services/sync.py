"""plan and sync: gather, plan purely, apply, read back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from orchctl.core import deployments as wanted
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import TAG, Desired, digest_of
from orchctl.core.names import nearest
from orchctl.core.plan import Change, Gathered, Plan, patch_fields, plan, split_runs
from orchctl.core.remote import RemoteDeployment
from orchctl.errors import GateRefused, OrchctlError, PartialFailure, PrefectApiError, UsageError
from orchctl.services.ports import Applied, Prefect


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
) -> Plan:
    """Return what `sync` would do. Makes no mutating call and writes nothing.

    Raises UsageError for a name in `only` that neither the catalog nor (with `prune`) Prefect knows.
    """
    gathered = _gather(catalog, prefect, applied, state_dir=state_dir)
    _check_names(catalog, gathered.deployments, only)
    found = plan(catalog, gathered, only=only, prune=prune)
    return _with_runs(found, prefect, now)


def _gather(catalog: Catalog, prefect: Prefect, applied: Applied, *, state_dir: str) -> Gathered:
    found = prefect.deployments(names=tuple(catalog.jobs), tag=TAG)
    unmarked = {item.flow_id for item in found if not wanted.is_ours(item, catalog.name)}
    digests = {digest for item in found if (digest := digest_of(item))} | {catalog.digest}
    return Gathered(
        deployments=found,
        flow_names=prefect.flow_names(tuple(sorted(unmarked))) if unmarked else {},
        pools={name: prefect.pool(name) for name in sorted({job.work_pool for job in catalog.jobs.values()})},
        applied={digest: _applied(applied, digest) for digest in sorted(digests)},
        state_dir=state_dir,
    )


def _applied(applied: Applied, digest: str) -> Catalog | None:
    """Read an applied catalog; one that cannot be believed counts as missing, so that `sync` writes it anew."""
    try:
        return applied.read(digest)
    except OrchctlError:
        return None


def _check_names(catalog: Catalog, found: Iterable[RemoteDeployment], only: Collection[str]) -> None:
    known = set(catalog.jobs) | {item.name for item in found if wanted.is_ours(item, catalog.name)}
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
        prefect.create_pool(pool, description="Jobs of this host, kept by orchctl")
    done: list[Change] = []
    for change in proposed.changes:
        try:
            _apply_one(change, proposed.desired.get(change.job), prefect, now)
        except OrchctlError as error:
            raise _stopped(error, change, done, proposed) from error
        done.append(change)
        progress(change)
    _verify(proposed, catalog, prefect, applied)
    return Synced(proposed, tuple(done))


def _stopped(error: OrchctlError, change: Change, done: list[Change], proposed: Plan) -> OrchctlError:
    left = len(proposed.changes) - len(done) - 1
    said = f"{len(done)} of {len(proposed.changes)} jobs were synced"
    names = f" ({', '.join(item.job for item in done)})" if 0 < len(done) <= 10 else ""
    message = f"{change.job}: {error.message}; {said}{names}, {change.job} may be half done, {left} were not begun"
    stopped = PartialFailure(message, hint="run `orchctl sync` again: it goes on from what is there")
    if not done:
        # Nothing succeeded: the cause's own exit code tells more (no server, no permission).
        stopped.exit_code, stopped.code = error.exit_code, error.code
    return stopped


def _apply_one(change: Change, target: Desired | None, prefect: Prefect, now: Callable[[], datetime]) -> None:
    if change.action == "delete":
        prefect.delete_deployment(_id(change))
    elif target is not None:
        if change.action == "update":
            _update(change, target, prefect, now())
        else:
            _create(change, target, prefect)


def _id(change: Change) -> str:
    if change.deployment_id is None:
        raise OrchctlError(f"{change.job}: the plan has no deployment to change")
    return change.deployment_id


def _create(change: Change, target: Desired, prefect: Prefect) -> None:
    """Make a deployment, or make it anew with its labels: schedules that people paused or made stay as they are."""
    flow = prefect.create_flow(target.job.name)
    paused = {item.slug for item in change.held if not item.active}
    schedules = [wanted.schedule_body(item, active=item.slug not in paused) for item in target.schedules]
    own = {item.slug for item in target.schedules}
    schedules += [
        {
            "slug": item.slug,
            "schedule": dict(item.schedule),
            "active": item.active,
            "parameters": dict(item.parameters),
        }
        for item in change.held
        if item.slug not in own
    ]
    prefect.create_deployment(
        {"name": target.job.name, "flow_id": flow, **wanted.to_body(target.fields), "schedules": schedules}
    )


def _update(change: Change, target: Desired, prefect: Prefect, begun: datetime) -> None:
    deployment = _id(change)
    fields = patch_fields(change, target)
    if fields:
        prefect.update_deployment(deployment, wanted.to_body(fields))
    for item in change.schedules:
        if item.action == "delete" and item.id is not None:
            prefect.delete_schedule(deployment, item.id)
        elif item.action == "update" and item.id is not None and item.after is not None:
            prefect.update_schedule(deployment, item.id, wanted.schedule_body(item.after, active=item.active))
    new = [
        wanted.schedule_body(item.after)
        for item in change.schedules
        if item.action == "create" and item.after is not None
    ]
    if new:
        prefect.add_schedules(deployment, new)
    if fields or change.schedules:
        # Each of these calls dropped the runs ahead, and Prefect's scheduler makes new ones from "now" on: a
        # slot between the two would be lost. Scheduling from when we began (from the oldest late run, where a
        # deleted schedule took those too) closes that gap; runs that are there already are not made twice.
        dropped = [run.expected_start for run in change.runs_deleted if run.expected_start is not None]
        prefect.schedule_from(deployment, min([begun, *dropped]))


def _verify(proposed: Plan, catalog: Catalog, prefect: Prefect, applied: Applied) -> None:
    if not (proposed.changes or proposed.pools or proposed.writes_catalog):
        return
    touched = {change.job for change in proposed.changes}
    left = plan(catalog, _gather(catalog, prefect, applied, state_dir=proposed.state_dir), only=touched)
    for change in left.changes:
        names = [item.field for item in change.fields] + [f"schedule {item.slug}" for item in change.schedules]
        raise PrefectApiError(
            f"{change.job}: Prefect kept something else than it was given in {', '.join(names)}",
            hint="see `orchctl plan`; somebody else may be changing the same deployment",
        )
