"""What Prefect's API tells us, in our own shapes: only the fields orchctl reads.

All instants are timezone-aware UTC. Ids are the server's UUIDs as strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RemotePool:
    """A work pool. `type` is `process` for the pools orchctl makes; `status` is READY, NOT_READY, PAUSED or None."""

    name: str
    type: str
    is_paused: bool
    status: str | None


@dataclass(frozen=True, slots=True)
class RemoteQueue:
    """A work queue of a pool. Among the queues of a pool, workers take from that with the lowest `priority` first.

    `concurrency_limit` is how many of its runs may go at a time, None: as many as there are.
    """

    name: str
    priority: int
    concurrency_limit: int | None
    is_paused: bool


@dataclass(frozen=True, slots=True)
class RemoteLimit:
    """A global concurrency limit: `limit` places. One that is not `active` limits nothing.

    `decay` is how many places become free by themselves in a second: above 0, it is no limit of what goes on at a time.
    """

    name: str
    limit: int
    active: bool
    decay: float


@dataclass(frozen=True, slots=True)
class RemoteWorker:
    """A worker that has polled a pool. `last_heartbeat` is None if it never did; `online` is the server's opinion."""

    name: str
    online: bool
    last_heartbeat: datetime | None


@dataclass(frozen=True, slots=True)
class RemoteSchedule:
    """A schedule of a deployment. `slug` is None where a person made it in the UI.

    `schedule` is the raw JSON (`{"cron": …, "timezone": …, "day_or": …}` and the like).
    """

    id: str
    slug: str | None
    active: bool
    schedule: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteDeployment:
    """A deployment. None means that the server holds no value.

    `status` is READY where a worker has asked for its runs in the last minute, else NOT_READY.
    """

    id: str
    name: str
    flow_id: str
    paused: bool
    description: str | None
    entrypoint: str | None
    path: str | None
    pull_steps: tuple[Mapping[str, Any], ...]
    tags: tuple[str, ...]
    labels: Mapping[str, Any]
    parameters: Mapping[str, Any]
    parameter_schema: Mapping[str, Any]
    enforce_parameter_schema: bool
    work_pool: str | None
    work_queue: str | None
    concurrency_limit: int | None
    collision_strategy: str | None
    job_variables: Mapping[str, Any]
    schedules: tuple[RemoteSchedule, ...]
    status: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A flow run. `expected_start` is the instant it was scheduled for (its slot, if a schedule made it).

    `state_type` is Prefect's (SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, CRASHED, CANCELLING,
    PAUSED) or None for a run without a state; `state_name` may be finer (Late, AwaitingRetry, …). `state_since` is when
    it came into that state, None where the server did not say. `worker` is the name of the one that took it, None
    before. `flow_id` is None where the server did not say.
    """

    id: str
    name: str
    deployment_id: str | None
    state_type: str | None
    state_name: str | None
    state_message: str | None
    expected_start: datetime | None
    auto_scheduled: bool
    created_by_schedule: str | None
    run_count: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    state_since: datetime | None = None
    worker: str | None = None
    flow_id: str | None = None

    def is_as(self, seen: RemoteRun) -> bool:
        """Whether it is in the state still in which it was seen."""
        return (self.state_type, self.state_since) == (seen.state_type, seen.state_since)

    @property
    def finished(self) -> bool:
        """Whether Prefect will do nothing more with this run."""
        return self.state_type in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
