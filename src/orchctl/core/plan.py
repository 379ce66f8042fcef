"""The difference between the catalog and Prefect, and what it would take to close it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchctl.core import limits
from orchctl.core.catalog import Catalog, Job
from orchctl.core.deployments import (
    LABEL_CATALOG,
    LABEL_JOB,
    MANAGED,
    STATE_DIR_VARIABLE,
    STATE_ID_VARIABLE,
    Desired,
    DesiredSchedule,
    desired,
    digest_of,
    is_marked,
    is_ours,
    is_untagged,
    observed,
)
from orchctl.core.limits import Because, LimitChange, QueueChange
from orchctl.core.remote import RemoteDeployment, RemoteLimit, RemotePool, RemoteQueue, RemoteRun, RemoteSchedule
from orchctl.core.schedules import canonical

_POINTS = "a sync from here points its runs to this one"
# Prefect lets labels be set only when a deployment is made.
NEEDS_RECREATE = frozenset({"labels"})


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field. `because`: the catalog says something new, or somebody changed it by hand in Prefect (drift)."""

    field: str
    before: Any
    after: Any
    because: Because


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """One schedule of a deployment, matched by slug. `before` or `after` is None where there is none.

    `id` is the server's, None for one to create. Whether it is active is no part of it: pausing belongs to people.
    """

    slug: str
    action: Literal["create", "update", "delete"]
    before: Mapping[str, Any] | None
    after: DesiredSchedule | None
    because: Because
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What `sync` would do to one job's deployment.

    `recreate` replaces the deployment's labels, which Prefect can only do by posting it again: its schedules
    get new ids. `runs_deleted` are the scheduled runs that Prefect drops at the change and `sync` puts back
    as the new schedules have them (late ones as the schedules that stay had them); `runs_kept` stay as they
    are (late, waiting, made by hand).
    """

    job: str
    action: Literal["create", "update", "recreate", "delete"]
    fields: tuple[FieldChange, ...] = ()
    schedules: tuple[ScheduleChange, ...] = ()
    deployment_id: str | None = None
    runs_deleted: tuple[RemoteRun, ...] = ()
    runs_kept: tuple[RemoteRun, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether somebody changed something by hand."""
        reasons = {item.because for item in self.fields} | {item.because for item in self.schedules}
        return "by hand" in reasons


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something in the way that is not ours: nothing is written until a person has looked at it."""

    subject: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes, sorted by job; what a person should know besides; what forbids to apply.

    `digest` is that of the catalog; `desired` and `actual` are what the changes were made from.
    """

    digest: str
    state_dir: str
    changes: tuple[Change, ...]
    pools: tuple[str, ...] = ()
    queues: tuple[QueueChange, ...] = ()
    limits: tuple[LimitChange, ...] = ()
    notes: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    desired: Mapping[str, Desired] = field(default_factory=dict)
    writes_catalog: bool = False

    @property
    def empty(self) -> bool:
        """Whether Prefect and the state directory are as the catalog has them."""
        beside = self.pools or self.queues or self.limits or self.writes_catalog
        return not (self.changes or beside or self.conflicts)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What `plan` needs to know of the world.

    `deployments` are those with our tag or one of our names; `flow_names` holds the names of their flows by id,
    where their own label does not say it beyond doubt. `applied` holds this catalog and those that deployments
    refer to, None for one that is not on this host. `owned` names the jobs gone from the catalog that Prefect owns.
    `queues` are those of each pool that there is, by pool; they and `limits` None: not looked at. `state_id` is that of
    the state directory, None where `sync` has not given it one yet.
    """

    deployments: tuple[RemoteDeployment, ...]
    flow_names: Mapping[str, str]
    pools: Mapping[str, RemotePool | None]
    applied: Mapping[str, Catalog | None]
    state_dir: str
    owned: frozenset[str] = frozenset()
    queues: Mapping[str, tuple[RemoteQueue, ...]] | None = None
    limits: tuple[RemoteLimit, ...] | None = None
    state_id: str | None = None


def plan(catalog: Catalog, gathered: Gathered, *, only: Iterable[str] = (), prune: bool = False) -> Plan:
    """Return the changes that turn Prefect into what `catalog` says; applying them and planning again is empty.

    `only` limits it to these jobs. With `prune`, deployments of this catalog whose job is gone are deleted.
    """
    wanted = set(only)
    digest = catalog.digest
    ours, strangers = _sort_out(catalog, gathered)
    changes: list[Change] = []
    notes: list[str] = []
    conflicts: list[Conflict] = []
    targets: dict[str, Desired] = {}
    for job in catalog.jobs.values():
        if wanted and job.name not in wanted:
            continue
        if job.name in strangers and job.name not in ours:
            conflicts.append(_stranger(strangers[job.name], catalog.name))
            continue
        actual = ours.get(job.name)
        previous = _previous(actual, gathered)
        target = targets[job.name] = _target(catalog, job, actual, gathered, digest)
        change = _compare(catalog, target, actual, previous, _as_applied(target, actual, previous, gathered, digest))
        if change is not None:
            changes.append(change)
        if actual is not None:
            notes.extend(_notes(target, actual, previous))
    for name, deployment in sorted(ours.items()):
        if name not in catalog.jobs and (not wanted or name in wanted):
            if prune and name in gathered.owned:
                conflicts.append(_owned(name))
            elif prune:
                changes.append(Change(name, "delete", deployment_id=deployment.id))
            else:
                notes.append(f"{name}: gone from the catalog and still in Prefect; --prune deletes its deployment")
    pools, pool_conflicts = _pools(gathered, targets)
    before = [each for each in gathered.applied.values() if each is not None]
    because: Because = "by hand" if gathered.applied.get(digest) is not None else "catalog"
    return Plan(
        digest=digest,
        state_dir=gathered.state_dir,
        changes=tuple(sorted(changes, key=lambda change: change.job)),
        pools=pools,
        queues=limits.queue_changes(catalog, gathered.queues, pools=_pool_names(targets), because=because),
        limits=limits.limit_changes(catalog, gathered.limits, jobs=wanted, because=because),
        notes=(*notes, *(() if wanted else limits.notes(catalog, gathered.limits, gathered.queues, before))),
        conflicts=(*conflicts, *pool_conflicts),
        desired=targets,
        writes_catalog=_must_write(targets, gathered, digest, whole=not wanted),
    )


def _sort_out(catalog: Catalog, gathered: Gathered) -> tuple[dict[str, RemoteDeployment], dict[str, RemoteDeployment]]:
    """Return, by name, the deployments of this catalog, and those of others that stand where one of ours would.

    Only a deployment of the flow of its own name can be either: one of another flow is in nobody's way.
    """
    ours, strangers = {}, {}
    for deployment in gathered.deployments:
        name = deployment.name
        if gathered.flow_names.get(deployment.flow_id, deployment.labels.get(LABEL_JOB)) != name:
            continue
        if is_marked(deployment, catalog.name) or (
            name in catalog.jobs and _lost_its_label(deployment, catalog, gathered)
        ):
            ours[name] = deployment
        else:
            strangers[name] = deployment
    return ours, strangers


def _lost_its_label(deployment: RemoteDeployment, catalog: Catalog, gathered: Gathered) -> bool:
    """Whether a deployment is ours without its label: its digest must lead to what this catalog applied here."""
    previous = _previous(deployment, gathered)
    return is_ours(deployment, catalog.name) and previous is not None and previous.name == catalog.name


def _must_write(targets: Mapping[str, Desired], gathered: Gathered, digest: str, *, whole: bool) -> bool:
    """Whether this catalog will be in force while its file is not there yet.

    It is after a plan of the `whole` catalog, also where no deployment names it (a job was taken out, and nothing else
    changed); after one of some jobs where a deployment names it.
    """
    named = whole or any(target.digest == digest for target in targets.values())
    return named and gathered.applied.get(digest) is None


def _previous(deployment: RemoteDeployment | None, gathered: Gathered) -> Catalog | None:
    digest = digest_of(deployment) if deployment is not None else None
    return gathered.applied.get(digest) if digest is not None else None


def _target(catalog: Catalog, job: Job, actual: RemoteDeployment | None, gathered: Gathered, digest: str) -> Desired:
    """Keep the digest that the deployment has while the job means the same there: an edit of one job touches one."""
    previous = _previous(actual, gathered)
    held = digest_of(actual) if actual is not None else None
    if held is not None and previous is not None and same_job(previous, catalog, job.name):
        return desired(catalog, job, digest=held, state_dir=gathered.state_dir, state_id=gathered.state_id)
    return desired(catalog, job, digest=digest, state_dir=gathered.state_dir, state_id=gathered.state_id)


def same_job(one: Catalog, other: Catalog, name: str) -> bool:
    """Whether the job `name` means the same in both catalogs: with its schedules, the zone of `game_date`, and the
    contracts and limits that its steps name.
    """
    first, second = one.jobs.get(name), other.jobs.get(name)
    if first is None or second is None or first != second or one.timezone != other.timezone:
        return False
    same = one.parts_of(first) == other.parts_of(second)
    return same and one.schedules_of(first) == other.schedules_of(second)


def _compare(
    catalog: Catalog,
    target: Desired,
    actual: RemoteDeployment | None,
    previous: Catalog | None,
    before: Desired | None,
) -> Change | None:
    name = target.job.name
    if actual is None:
        created = tuple(ScheduleChange(item.slug, "create", None, item, "catalog") for item in target.schedules)
        fields = tuple(FieldChange(key, None, target.fields[key], "catalog") for key in MANAGED)
        return Change(name, "create", fields, created)
    fields = (*_fields(target, actual, before), *_job_fields(catalog, target.job, previous))
    schedules = _schedules(target, actual, before)
    if not fields and not schedules:
        return None
    if any(item.field in NEEDS_RECREATE for item in fields):
        return Change(name, "recreate", fields, schedules, actual.id)
    return Change(name, "update", fields, schedules, actual.id)


def _as_applied(
    target: Desired, actual: RemoteDeployment | None, previous: Catalog | None, gathered: Gathered, digest: str
) -> Desired | None:
    """Return the deployment as the last `sync` left it; None where that is not known.

    A deployment whose digest leads nowhere (its parameters were changed) was left as `target` has it, if this
    very catalog has been applied here.
    """
    name, held = target.job.name, digest_of(actual) if actual is not None else None
    if previous is not None and held is not None and name in previous.jobs:
        job, place = previous.jobs[name], gathered.state_dir
        return desired(previous, job, digest=held, state_dir=place, state_id=gathered.state_id)
    return target if gathered.applied.get(digest) is not None else None


def _fields(target: Desired, actual: RemoteDeployment, before: Desired | None) -> tuple[FieldChange, ...]:
    have = observed(actual)
    changes = []
    for key in MANAGED:
        if have[key] != target.fields[key]:
            as_left = before is None or have[key] == before.fields[key] or is_untagged(key, have[key], before.fields)
            changes.append(FieldChange(key, have[key], target.fields[key], "catalog" if as_left else "by hand"))
    return tuple(changes)


def _job_fields(catalog: Catalog, job: Job, previous: Catalog | None) -> tuple[FieldChange, ...]:
    """Name what changed in the job itself and reaches Prefect only through the digest (command, a step, …)."""
    old = previous.jobs.get(job.name) if previous is not None else None
    if previous is None or old is None:
        return ()
    before, after = previous.parts_of(old), catalog.parts_of(job)
    shown_elsewhere = {"description", "tags", "work_pool", "schedules"}
    return tuple(
        FieldChange(f"job.{key}", before.get(key), after.get(key), "catalog")
        for key in {**after, **before}
        if before.get(key) != after.get(key) and key not in shown_elsewhere
    )


def _schedules(target: Desired, actual: RemoteDeployment, before: Desired | None) -> tuple[ScheduleChange, ...]:
    have = {item.slug: item for item in actual.schedules if item.slug is not None}
    was = {item.slug: item for item in before.schedules} if before is not None else {}
    want = {item.slug: item for item in target.schedules}
    changes: list[ScheduleChange] = []
    for slug, item in want.items():
        found = have.get(slug)
        if found is None:
            because: Because = "by hand" if slug in was else "catalog"
            changes.append(ScheduleChange(slug, "create", None, item, because))
        elif canonical(found.schedule) != item.schedule or found.parameters:
            changes.append(_changed(item, found, was.get(slug)))
    changes.extend(
        ScheduleChange(slug, "delete", canonical(have[slug].schedule), None, "catalog", have[slug].id)
        for slug in was
        if slug in have and slug not in want
    )
    return tuple(changes)


def _changed(item: DesiredSchedule, found: RemoteSchedule, was: DesiredSchedule | None) -> ScheduleChange:
    now = canonical(found.schedule)
    by_hand = bool(found.parameters) or (was is not None and now != was.schedule)
    before = {**now, "parameters": dict(found.parameters)} if found.parameters else now
    return ScheduleChange(item.slug, "update", before, item, "by hand" if by_hand else "catalog", found.id)


def _notes(target: Desired, actual: RemoteDeployment, previous: Catalog | None) -> Iterable[str]:
    name = target.job.name
    there, here = actual.job_variables.get("env") or {}, target.fields["job_variables"]["env"]
    path, identity = there.get(STATE_DIR_VARIABLE), there.get(STATE_ID_VARIABLE)
    if path not in {None, here[STATE_DIR_VARIABLE]}:
        yield f"{name}: was synced with the state directory {path}; {_POINTS}"
    elif identity not in {None, here.get(STATE_ID_VARIABLE)}:
        yield f"{name}: was synced with another state directory of this path, as another host has; {_POINTS}"
    if actual.paused:
        yield f"{name}: the deployment is paused in Prefect; sync leaves it so"
    known = {item.slug for item in target.schedules}
    if previous is not None and name in previous.jobs:
        known |= {schedule.name for schedule in previous.schedules_of(previous.jobs[name])}
    for schedule in actual.schedules:
        label = schedule.slug or schedule.id
        if schedule.slug not in known:
            by = "was added by hand"
            if previous is None:
                by = "is not in the catalog (and what was applied last is not known on this host)"
            yield f"{name}: schedule {label} {by}; sync leaves it"
        elif not schedule.active:
            yield f"{name}: schedule {label} is paused in Prefect; sync leaves it so"


def _owned(name: str) -> Conflict:
    return Conflict(
        f"{name}/{name}",
        "is of a job that Prefect owns: without its deployment nobody would run it",
        f"hand the job back to its timers first, or remove owners/{name}.json from the state directory if it has none",
    )


def _stranger(deployment: RemoteDeployment, catalog_name: str) -> Conflict:
    owner = deployment.labels.get(LABEL_CATALOG)
    what = f"belongs to the catalog {owner!r}" if owner else "was not made by orchctl"
    return Conflict(
        f"{deployment.name}/{deployment.name}",
        f"a deployment of this name is in Prefect already and {what}",
        f"rename the job, or delete that deployment if nobody needs it (this catalog is {catalog_name!r})",
    )


def _pool_names(targets: Mapping[str, Desired]) -> list[str]:
    return sorted({target.job.work_pool for target in targets.values()})


def _pools(gathered: Gathered, targets: Mapping[str, Desired]) -> tuple[tuple[str, ...], tuple[Conflict, ...]]:
    names = _pool_names(targets)
    missing = tuple(name for name in names if gathered.pools.get(name) is None)
    wrong = tuple(
        Conflict(
            f"work pool {name}",
            f"is of type {pool.type}, and jobs run in a pool of type process",
            "name another work_pool",
        )
        for name in names
        if (pool := gathered.pools.get(name)) is not None and pool.type != "process"
    )
    return missing, wrong
