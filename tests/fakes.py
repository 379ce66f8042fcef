"""A Prefect server in memory, with the traits of the real one that orchctl must live with.

It is what `services.ports.Prefect` asks for as far as plan and sync go; tests/live/test_prefect_contract.py
holds it and the real server to the same answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim
from dateutil.rrule import rrulestr

from orchctl.core.catalog import Catalog
from orchctl.core.remote import (
    RemoteDeployment,
    RemoteLimit,
    RemotePool,
    RemoteQueue,
    RemoteRun,
    RemoteSchedule,
    RemoteWorker,
)
from orchctl.errors import PrefectRejected, PrefectUnreachable

NOON = datetime(2025, 12, 19, 17, 0, 30, tzinfo=UTC)
_AHEAD = timedelta(hours=1)
_NAMES = {
    "work_pool_name": "work_pool",
    "work_queue_name": "work_queue",
    "parameter_openapi_schema": "parameter_schema",
}
_PLAIN = frozenset(
    {"description", "entrypoint", "path", "parameters", "enforce_parameter_schema", "concurrency_limit", "paused"}
    | {"job_variables"}
)


def _never(_call: int) -> None:
    return None


@dataclass
class FakePrefect:
    """The server. `clock` is its time; `before` and `after` are called with the number of each writing call.

    An error they raise is what the client sees: from `before` the call was not carried out, from `after` it
    was and the answer is lost. `writes` names the writing calls that arrived.
    """

    shown = "http://fake/api"
    clock: Callable[[], datetime] = lambda: NOON
    before: Callable[[int], None] = _never
    after: Callable[[int], None] = _never
    writes: list[str] = field(default_factory=list)
    pools: dict[str, RemotePool] = field(default_factory=dict)
    by_pool: dict[str, dict[str, RemoteQueue]] = field(default_factory=dict)
    by_name: dict[str, RemoteLimit] = field(default_factory=dict)
    flows: dict[str, str] = field(default_factory=dict)
    by_id: dict[str, RemoteDeployment] = field(default_factory=dict)
    runs: dict[str, RemoteRun] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    queue_of: dict[str, str] = field(default_factory=dict)
    _keys: dict[tuple[str, ...], str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def version(self) -> str:
        return "3.8.8"

    def pool(self, name: str) -> RemotePool | None:
        return self.pools.get(name)

    def create_pool(self, name: str, *, description: str | None) -> None:
        with _Write(self, "create_pool"):
            if name in self.pools:
                raise PrefectRejected(f"pool {name} exists", status=409)
            self.pools[name] = RemotePool(name, "process", False, "NOT_READY")

    def queues(self, pool: str) -> tuple[RemoteQueue, ...]:
        return tuple(sorted(self._queues(pool).values(), key=lambda queue: queue.priority))

    def create_queue(self, pool: str, name: str, *, priority: int, limit: int) -> None:
        with _Write(self, "create_queue"):
            if name in self._queues(pool):
                raise PrefectRejected("a queue of this name exists", status=409)
            self._queues(pool)[name] = RemoteQueue(name, priority, limit, False)

    def update_queue(self, pool: str, name: str, body: Mapping[str, Any]) -> None:
        with _Write(self, "update_queue"):
            if name not in self._queues(pool):
                raise PrefectRejected("no such queue", status=404)
            self._queues(pool)[name] = replace(self._queues(pool)[name], **body)

    def limits(self) -> tuple[RemoteLimit, ...]:
        return tuple(sorted(self.by_name.values(), key=lambda limit: limit.name))

    def create_limit(self, name: str, *, limit: int) -> None:
        with _Write(self, "create_limit"):
            if name in self.by_name:
                raise PrefectRejected("a limit of this name exists", status=409)
            self.by_name[name] = RemoteLimit(name, limit, True, 0.0)

    def update_limit(self, name: str, body: Mapping[str, Any]) -> None:
        with _Write(self, "update_limit"):
            if name not in self.by_name:
                raise PrefectRejected("no such limit", status=404)
            names = {"slot_decay_per_second": "decay"}
            fields = {names.get(key, key): value for key, value in body.items()}
            self.by_name[name] = replace(self.by_name[name], **fields)

    def _queues(self, pool: str) -> dict[str, RemoteQueue]:
        if pool not in self.pools:
            raise PrefectRejected("no such pool", status=404)
        return self.by_pool.setdefault(pool, {"default": RemoteQueue("default", 1, None, False)})

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        return ()

    def deployments(self, *, names: Collection[str], tag: str) -> tuple[RemoteDeployment, ...]:
        found = [each for each in self.by_id.values() if each.name in names or tag in each.tags]
        return tuple(sorted(found, key=lambda each: (each.name, each.id)))

    def deployment(self, flow_name: str, name: str) -> RemoteDeployment | None:
        flow = self.flows.get(flow_name)
        return next((each for each in self.by_id.values() if each.flow_id == flow and each.name == name), None)

    def flow_names(self, ids: Collection[str]) -> dict[str, str]:
        return {key: name for name, key in self.flows.items() if key in ids}

    def create_flow(self, name: str) -> str:
        with _Write(self, "create_flow"):
            return self.flows.setdefault(name, self._new_id("flow"))

    def delete_flow(self, id: str) -> None:  # noqa: A002 - as the port has it
        with _Write(self, "delete_flow"):
            self.flows = {name: key for name, key in self.flows.items() if key != id}
            self.by_id = {key: each for key, each in self.by_id.items() if each.flow_id != id}

    def create_deployment(self, body: Mapping[str, Any]) -> str:
        """POST: an upsert that gives all schedules new ids, drops the runs ahead and keeps `paused`."""
        with _Write(self, "create_deployment"):
            self._check_pool(body)
            old = next((e for e in self.by_id.values() if (e.flow_id, e.name) == (body["flow_id"], body["name"])), None)
            made = old or blank_deployment(self._new_id("deployment"), body["name"], body["flow_id"])
            labels = {"prefect.flow.id": body["flow_id"], **body.get("labels", {})}
            schedules = tuple(self._schedule(each) for each in body.get("schedules", ()))
            self.by_id[made.id] = replace(_changed(made, body), labels=labels, schedules=schedules)
            self._drop_runs(made.id)
            return made.id

    def update_deployment(self, id: str, body: Mapping[str, Any]) -> None:  # noqa: A002 - as the port has it
        """PATCH: drops the runs ahead; labels cannot be set."""
        with _Write(self, "update_deployment"):
            self._check_pool(body)
            self.by_id[id] = _changed(self._get(id), body)
            self._drop_runs(id)

    def delete_deployment(self, id: str) -> None:  # noqa: A002 - as the port has it
        with _Write(self, "delete_deployment"):
            self._get(id)
            self._drop_runs(id, late_too=True, made_by_hand_too=True)
            del self.by_id[id]

    def pause_deployment(self, id: str) -> None:  # noqa: A002 - as the port has it
        """Drops late runs as well, and leaves what waits for a slot or a retry, and what is pending."""
        with _Write(self, "pause_deployment"):
            self.by_id[id] = replace(self._get(id), paused=True)
            self._drop_runs(id, late_too=True)

    def resume_deployment(self, id: str) -> None:  # noqa: A002 - as the port has it
        with _Write(self, "resume_deployment"):
            self.by_id[id] = replace(self._get(id), paused=False)

    def add_schedules(self, deployment_id: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        with _Write(self, "add_schedules"):
            new = tuple(self._schedule(each) for each in bodies)
            self._set_schedules(deployment_id, (*self._get(deployment_id).schedules, *new))

    def update_schedule(self, deployment_id: str, schedule_id: str, body: Mapping[str, Any]) -> None:
        with _Write(self, "update_schedule"):
            kept = {each.id: each.active for each in self._get(deployment_id).schedules}
            new = self._schedule({"active": kept.get(schedule_id, True), **body}, schedule_id)
            found = [new if each.id == schedule_id else each for each in self._get(deployment_id).schedules]
            if new not in found:
                raise PrefectRejected("no such schedule", status=404)
            self._set_schedules(deployment_id, tuple(found))
            self._drop_runs(deployment_id)

    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """DELETE: takes late runs along, also those of the deployment's other schedules."""
        with _Write(self, "delete_schedule"):
            left = tuple(each for each in self._get(deployment_id).schedules if each.id != schedule_id)
            if len(left) == len(self._get(deployment_id).schedules):
                raise PrefectRejected("no such schedule", status=404)
            self._set_schedules(deployment_id, left)
            self._drop_runs(deployment_id, late_too=True)

    def schedule_from(self, deployment_id: str, start: datetime) -> None:
        """Make at least three runs and an hour of runs of each active schedule; paused deployments too."""
        with _Write(self, "schedule_from"):
            for schedule in self._get(deployment_id).schedules:
                if schedule.active:
                    for slot in _ahead(schedule.schedule, start):
                        self._add_run(deployment_id, slot, (schedule.id, slot.isoformat()), schedule.id)

    def scheduled_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]:
        found = [r for r in self.runs.values() if r.deployment_id in deployment_ids and r.state_type == "SCHEDULED"]
        return tuple(sorted(found, key=lambda run: (run.expected_start or NOON, run.id)))

    def waiting_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]:
        pending = [r for r in self.runs.values() if r.deployment_id in deployment_ids and r.state_type == "PENDING"]
        return (*self.scheduled_runs(deployment_ids), *pending)

    def next_runs(self, deployment_ids: Collection[str], *, now: datetime) -> tuple[RemoteRun, ...]:
        return self.scheduled_runs(deployment_ids)

    def flow_run(self, id: str) -> RemoteRun | None:  # noqa: A002 - as the port has it
        return self.runs.get(id)

    def flow_runs(self, ids: Collection[str]) -> tuple[RemoteRun, ...]:
        return tuple(self.runs[key] for key in dict.fromkeys(ids) if key in self.runs)

    def tagged_runs(self, tag: str) -> tuple[RemoteRun, ...]:
        return tuple(run for run in self.runs.values() if tag in self.tags.get(run.id, ()))

    def create_run(
        self,
        deployment_id: str,
        *,
        parameters: Mapping[str, Any],
        idempotency_key: str,
        tags: Sequence[str] = (),
        name: str | None = None,
        scheduled_for: datetime | None = None,
        work_queue: str | None = None,
    ) -> RemoteRun:
        with _Write(self, "create_run"):
            deployment = self._get(deployment_id)
            key = (deployment.flow_id, idempotency_key)
            made = self._add_run(deployment_id, scheduled_for or self.clock(), key, None)
            if made.id not in self.tags:
                self.tags[made.id] = tuple(tags)
                self.queue_of[made.id] = work_queue or deployment.work_queue or "default"
                self.set_run(made.id, parameters={**deployment.parameters, **parameters})
            return self.runs[made.id]

    def set_run_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        with _Write(self, "set_run_parameters"):
            if run_id not in self.runs:
                raise PrefectRejected("no such run", status=404)
            self.set_run(run_id, parameters=dict(parameters))

    def delete_run(self, id: str) -> None:  # noqa: A002 - as the port has it
        with _Write(self, "delete_run"):
            if self.runs.pop(id, None) is None:
                raise PrefectRejected("no such run", status=404)

    def set_run_state(
        self,
        run_id: str,
        *,
        type: str,  # noqa: A002 - as the port has it
        name: str | None = None,
        message: str | None = None,
        force: bool = False,
    ) -> None:
        with _Write(self, "set_run_state"):
            if run_id not in self.runs:
                raise PrefectRejected("no such run", status=404)
            self.set_run(run_id, state_type=type, state_name=name or type.title(), state_message=message)

    def run_url(self, run_id: str) -> str:
        return f"http://fake/runs/flow-run/{run_id}"

    def ui_url(self) -> str:
        return "http://fake"

    # What people do by hand.

    def set_by_hand(self, id: str, **fields: Any) -> None:  # noqa: A002 - as the port has it
        self.by_id[id] = replace(self.by_id[id], **fields)

    def set_run(self, id: str, **fields: Any) -> None:  # noqa: A002 - as the port has it
        self.runs[id] = replace(self.runs[id], **fields)

    def _new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers):05d}"

    def _get(self, id: str) -> RemoteDeployment:  # noqa: A002 - as the port has it
        if id not in self.by_id:
            raise PrefectRejected("no such deployment", status=404)
        return self.by_id[id]

    def _check_pool(self, body: Mapping[str, Any]) -> None:
        if "work_pool_name" in body and body["work_pool_name"] not in self.pools:
            raise PrefectRejected(f"no such pool {body['work_pool_name']}", status=404)

    def _schedule(self, body: Mapping[str, Any], id: str | None = None) -> RemoteSchedule:  # noqa: A002
        parameters = dict(body.get("parameters", {}))
        active = body.get("active", True)
        return RemoteSchedule(
            id or self._new_id("schedule"), body.get("slug"), active, dict(body["schedule"]), parameters
        )

    def _set_schedules(self, id: str, schedules: tuple[RemoteSchedule, ...]) -> None:  # noqa: A002
        slugs = [each.slug for each in schedules if each.slug is not None]
        if len(slugs) != len(set(slugs)):
            raise PrefectRejected("slugs must be unique", status=409)
        self.by_id[id] = replace(self._get(id), schedules=schedules)

    def _add_run(self, deployment: str, slot: datetime, key: tuple[str, ...], schedule: str | None) -> RemoteRun:
        if key in self._keys and self._keys[key] in self.runs:
            return self.runs[self._keys[key]]
        made = RemoteRun(
            id=self._new_id("run"),
            name="a-run",
            deployment_id=deployment,
            state_type="SCHEDULED",
            state_name="Scheduled",
            state_message=None,
            expected_start=slot,
            auto_scheduled=schedule is not None,
            created_by_schedule=schedule,
            run_count=0,
        )
        self.runs[made.id] = made
        self._keys[key] = made.id
        return made

    def _drop_runs(self, deployment: str, *, late_too: bool = False, made_by_hand_too: bool = False) -> None:
        for run in self.scheduled_runs([deployment]):
            waits = run.run_count == 0 and run.state_name != "AwaitingConcurrencySlot"
            ahead = run.expected_start is not None and run.expected_start > self.clock()
            if waits and (run.auto_scheduled or made_by_hand_too) and (ahead or late_too):
                del self.runs[run.id]


class _Write:
    """One writing call: `before` at its start, `after` once it has been carried out."""

    def __init__(self, server: FakePrefect, name: str) -> None:
        self.server, self.name = server, name

    def __enter__(self) -> None:
        self.server.before(len(self.server.writes))
        self.server.writes.append(self.name)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.server.after(len(self.server.writes) - 1)


@dataclass
class FakeApplied:
    """The applied catalogs, in memory."""

    catalogs: dict[str, Catalog] = field(default_factory=dict)
    identity: str | None = None

    def read(self, digest: str) -> Catalog | None:
        return self.catalogs.get(digest)

    def write(self, catalog: Catalog) -> Path:
        self.catalogs[catalog.digest] = catalog
        return Path("applied") / catalog.digest

    def state_id(self) -> str | None:
        return self.identity

    def make_state_id(self) -> str:
        self.identity = self.identity or "0123456789abcdef" * 2
        return self.identity


def failing_at(number: int) -> Callable[[int], None]:
    """Return a `before` or `after` that raises at the writing call of this number, counted from 0."""

    def fail(call: int) -> None:
        if call == number:
            raise PrefectUnreachable("cannot reach the Prefect API: the connection was cut")

    return fail


def catalog(
    jobs: Mapping[str, Mapping[str, Any]],
    schedules: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    name: str = "tests",
    pool: str = "nobody",
) -> Catalog:
    """Return a catalog. A job says only what is not the default; a schedule is a table, in UTC if it says no zone."""
    base = {"command": ["true"], "data_root": "/tmp/data", "working_directory": "/tmp", "work_pool": pool}
    tables = schedules or {}
    return Catalog.from_json(
        {
            "name": name,
            "timezone": "UTC",
            "schedules": {key: [{"name": key, "timezone": "UTC", **tables[key]}] for key in sorted(tables)},
            "jobs": {key: {**base, "name": key, "asset": key, **jobs[key]} for key in sorted(jobs)},
        }
    )


def blank_deployment(id: str, name: str, flow_id: str) -> RemoteDeployment:  # noqa: A002 - as the port has it
    """Return a deployment with nothing set."""
    return RemoteDeployment(
        id=id,
        name=name,
        flow_id=flow_id,
        paused=False,
        description=None,
        entrypoint=None,
        path=None,
        pull_steps=(),
        tags=(),
        labels={},
        parameters={},
        parameter_schema={},
        enforce_parameter_schema=True,
        work_pool=None,
        work_queue=None,
        concurrency_limit=None,
        collision_strategy=None,
        job_variables={},
        schedules=(),
    )


def _changed(deployment: RemoteDeployment, body: Mapping[str, Any]) -> RemoteDeployment:
    fields = {_NAMES.get(key, key): value for key, value in body.items() if key in _NAMES or key in _PLAIN}
    if "tags" in body:
        fields["tags"] = tuple(body["tags"])
    if "pull_steps" in body:
        fields["pull_steps"] = tuple(body["pull_steps"] or ())
    if "concurrency_options" in body:
        fields["collision_strategy"] = (body["concurrency_options"] or {}).get("collision_strategy")
    return replace(deployment, **fields)


def _ahead(schedule: Mapping[str, Any], start: datetime) -> list[datetime]:
    """Return the slots that Prefect makes at once: from `start` on, three at least, an hour at least, 100 at most."""
    slots: list[datetime] = []
    for slot in itertools.islice(_slots(schedule, start), 100):
        slots.append(slot)
        if len(slots) >= 3 and slot >= start + _AHEAD:
            break
    return slots


def _slots(schedule: Mapping[str, Any], start: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(schedule.get("timezone") or "UTC")
    if "cron" in schedule:
        # CronSim looks after its start, Prefect from it on.
        cron = CronSim(schedule["cron"], start.astimezone(zone) - timedelta(microseconds=1))
        yield from (slot.astimezone(UTC) for slot in cron)
    elif "interval" in schedule:
        step = timedelta(seconds=schedule["interval"])
        anchor = datetime.fromisoformat(schedule["anchor_date"])
        first = anchor + step * -((anchor - start) // step)
        yield from (first + step * number for number in itertools.count())
    else:
        rule = rrulestr(schedule["rrule"])
        local = start.astimezone(zone).replace(tzinfo=None)
        yield from (slot.replace(tzinfo=zone).astimezone(UTC) for slot in rule.xafter(local, inc=True))
