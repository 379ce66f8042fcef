"""What a job should look like in Prefect: one flow and one deployment, both named like the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchctl.core import limits, schedules
from orchctl.core.catalog import Catalog, Job
from orchctl.core.remote import RemoteDeployment

TAG = "orchctl"
CATALOG_TAG = f"{TAG}:"
"""Before the name of a catalog: the tag of its own, which events of its runs carry."""
LABEL_CATALOG = "orchctl.catalog"
LABEL_JOB = "orchctl.job"
ENTRYPOINT = "orchctl.runner.flow.run_job"
STATE_DIR_VARIABLE = "ORCHCTL_STATE_DIR"
STATE_ID_VARIABLE = "ORCHCTL_STATE_ID"
# Prefect's limit of one run would decide before the slot rule does. Its CANCEL_NEW takes whichever of several late
# runs comes first and cancels the rest, the newest among them, without a record; so with `skip` there is no limit,
# and the job's lock decides, which leaves a manifest. Its ENQUEUE only lets runs wait, which is what `queue` says. Runs
# of backfills count too, and theirs are places of their own: a slot finds one whatever they are at.
_COLLISION: Mapping[str, str | None] = {"skip": None, "queue": "ENQUEUE"}

# The parameters of `runner/flow.py`, as Prefect's UI shows them. `job` and `digest` say which entry of which
# applied catalog runs; the others make a run for another date, instant, slot or partition than the schedule would, as
# command or as steps, of some steps only, again from a step on, or as part of a backfill.
PARAMETER_SCHEMA: Mapping[str, Any] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "job": {"title": "job", "type": "string", "position": 0},
        "digest": {"title": "digest", "type": "string", "position": 1},
        "game_date": {"title": "game_date", "type": "string", "position": 2, "default": ""},
        "run_as_of_ts": {"title": "run_as_of_ts", "type": "string", "position": 3, "default": ""},
        "slot": {"title": "slot", "type": "string", "position": 4, "default": ""},
        "execution": {"title": "execution", "type": "string", "position": 5, "default": ""},
        "steps": {"title": "steps", "type": "string", "position": 6, "default": ""},
        "from_step": {"title": "from_step", "type": "string", "position": 7, "default": ""},
        "backfill": {"title": "backfill", "type": "string", "position": 8, "default": ""},
        "as_of_mode": {"title": "as_of_mode", "type": "string", "position": 9, "default": ""},
        "partition": {"title": "partition", "type": "object", "position": 10, "default": {}},
    },
    "required": ["job", "digest"],
    "definitions": {},
}


@dataclass(frozen=True, slots=True)
class DesiredSchedule:
    """A schedule by its slug. `schedule` is canonical (see `schedules.canonical`)."""

    slug: str
    schedule: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Desired:
    """A deployment as the catalog wants it. The keys of `fields` are those of `MANAGED`."""

    job: Job
    digest: str
    fields: Mapping[str, Any]
    schedules: tuple[DesiredSchedule, ...]


MANAGED = (
    "entrypoint",
    "path",
    "pull_steps",
    "work_pool",
    "work_queue",
    "parameters",
    "parameter_schema",
    "enforce_parameter_schema",
    "concurrency_limit",
    "collision_strategy",
    "job_variables",
    "tags",
    "labels",
    "description",
)


def desired(catalog: Catalog, job: Job, *, digest: str, state_dir: str, state_id: str | None = None) -> Desired:
    """Return the deployment of `job`. `digest` names the applied catalog that holds the job as it is here.

    `state_id` is that of the state directory, None where it has none yet.
    """
    limit = 1 + limits.backfills_at_a_time(catalog, job.work_pool) if job.overlap == "queue" else None
    identity = {STATE_ID_VARIABLE: state_id} if state_id is not None else {}
    fields = {
        "entrypoint": ENTRYPOINT,
        "path": None,
        "pull_steps": [],
        "work_pool": job.work_pool,
        "work_queue": "default",
        "parameters": {"job": job.name, "digest": digest},
        "parameter_schema": dict(PARAMETER_SCHEMA),
        "enforce_parameter_schema": True,
        "concurrency_limit": limit,
        "collision_strategy": _COLLISION[job.overlap],
        "job_variables": {"env": {STATE_DIR_VARIABLE: state_dir, **identity}},
        "tags": sorted({TAG, catalog_tag(catalog.name), *job.tags}),
        "labels": {LABEL_CATALOG: catalog.name, LABEL_JOB: job.name},
        "description": job.description,
    }
    wanted = tuple(
        DesiredSchedule(schedule.name, schedules.canonical(schedules.to_prefect(schedule)))
        for schedule in catalog.schedules_of(job)
    )
    return Desired(job, digest, fields, wanted)


def catalog_tag(catalog_name: str) -> str:
    """Return the tag of a catalog: of its deployments, and of its automations."""
    return f"{CATALOG_TAG}{catalog_name}"


def is_untagged(field: str, value: Any, fields: Mapping[str, Any]) -> bool:
    """Whether a managed field is as an orchctl left it that did not tag with the catalog's name: nobody changed it."""
    return field == "tags" and sorted([*value, catalog_tag(fields["labels"][LABEL_CATALOG])]) == fields["tags"]


def observed(deployment: RemoteDeployment) -> dict[str, Any]:
    """Return the managed fields of a deployment as Prefect has them, in the form of `Desired.fields`."""
    ours = {LABEL_CATALOG, LABEL_JOB}
    return {
        "entrypoint": deployment.entrypoint,
        "path": deployment.path or None,
        "pull_steps": list(deployment.pull_steps),
        "work_pool": deployment.work_pool,
        "work_queue": deployment.work_queue,
        "parameters": dict(deployment.parameters),
        "parameter_schema": dict(deployment.parameter_schema),
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "concurrency_limit": deployment.concurrency_limit,
        "collision_strategy": deployment.collision_strategy,
        "job_variables": dict(deployment.job_variables),
        "tags": sorted(deployment.tags),
        # Prefect adds labels of its own (prefect.flow.id).
        "labels": {key: value for key, value in deployment.labels.items() if key in ours},
        "description": deployment.description or "",
    }


def to_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return managed fields under the names and in the shapes of Prefect's API, for POST and PATCH alike."""
    body: dict[str, Any] = {}
    for field, value in fields.items():
        if field == "work_pool":
            body["work_pool_name"] = value
        elif field == "work_queue":
            body["work_queue_name"] = value
        elif field == "parameter_schema":
            body["parameter_openapi_schema"] = value
        elif field == "collision_strategy":
            body["concurrency_options"] = {"collision_strategy": value} if value else None
        else:
            body[field] = value
    return body


def schedule_body(schedule: DesiredSchedule, *, active: bool | None) -> dict[str, Any]:
    """Return a schedule under the names of Prefect's API.

    `active` None leaves it as it is, which only a PATCH of an existing schedule does: elsewhere silence turns it on.
    """
    body = {"slug": schedule.slug, "schedule": dict(schedule.schedule), "parameters": {}}
    return body if active is None else {**body, "active": active}


def is_marked(deployment: RemoteDeployment, catalog_name: str) -> bool:
    """Whether `deployment` carries the label of this catalog: only then may it be deleted."""
    return bool(deployment.labels.get(LABEL_CATALOG) == catalog_name)


def stands_alone(deployment: RemoteDeployment, names: Mapping[str, int], catalog_name: str) -> bool:
    """Whether the deployment's own label says which flow it is of, so that nobody need look.

    `names` counts the deployments of each name: where there are two, one is of another flow.
    """
    labelled = deployment.labels.get(LABEL_JOB) == deployment.name
    return is_marked(deployment, catalog_name) and labelled and names[deployment.name] == 1


def is_ours(deployment: RemoteDeployment, catalog_name: str) -> bool:
    """Whether a deployment named like a job of this catalog is that job's.

    The label decides. Only where it is gone (a POST by hand replaces labels) does the tag count, together
    with the parameter that names the job.
    """
    if LABEL_CATALOG in deployment.labels:
        return is_marked(deployment, catalog_name)
    return TAG in deployment.tags and deployment.parameters.get("job") == deployment.name


def digest_of(deployment: RemoteDeployment) -> str | None:
    """Return the digest of the applied catalog that the deployment's runs take their job from."""
    digest = deployment.parameters.get("digest")
    return digest if isinstance(digest, str) else None
