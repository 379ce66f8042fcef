"""The flow that the Prefect worker starts: from Prefect's words to `job.execute`, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterWorkQueueName,
)
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Completed

from orchctl.core.names import parse_date, parse_instant
from orchctl.core.names import run_id as run_id_of
from orchctl.errors import OrchctlError
from orchctl.runner import guard
from orchctl.runner.flow_tasks import PrefectTasks
from orchctl.runner.job import execute, look_up
from orchctl.runner.shapes import Host, Outcome, Request
from orchctl.wiring import runs


class RunFailed(OrchctlError):
    """The command failed; Prefect turns this into a Failed state, or into a retry."""


@flow(name="orchctl-job", log_prints=False, validate_parameters=False)
def run_job(  # noqa: PLR0913, PLR0917 (the parameters of a flow run, by name)
    job: str,
    digest: str,
    game_date: str = "",
    run_as_of_ts: str = "",
    slot: str = "",
    execution: str = "",
    steps: str = "",
    from_step: str = "",
    backfill: str = "",
    as_of_mode: str = "",
    partition: dict[str, str] | None = None,
) -> State[Any]:
    """Run one job of an applied catalog. Empty strings: the job's own rule decides."""
    run = _this_run()
    with get_client(sync_client=True) as client:
        request = _request(
            run,
            job=job,
            digest=digest,
            game_date=game_date,
            run_as_of_ts=run_as_of_ts,
            slot=slot,
            execution=execution,
            steps=steps,
            from_step=from_step,
            backfill=backfill,
            as_of_mode=as_of_mode,
            partition=partition or {},
        )
        host = runs.host(Host, later_due=lambda due: _later_due(client, run, due))
        host = replace(host, environment=_without_workspace(host.environment))
        found = look_up(request, host)
        _, asked = found
        # Prefect has no field for retries on a deployment: each run is told how often it may be tried again. Steps are
        # tried again by themselves, or never: where a contract is broken, trying the run again would not help either.
        # A backfill is tried again by who asked for it: a run that waits for its retry holds a place of the worker and
        # none of the queue, so that failing backfills would take the places of live runs.
        as_steps = (request.execution or asked.execution) == "steps"
        retries = 0 if as_steps or request.backfill else asked.retries
        policy = FlowRunPolicy(retries=retries, retry_delay=asked.retry_delay)
        name = run_id_of(request.expected_start, request.flow_run_id)
        client.update_flow_run(run.id, empirical_policy=policy, name=name)
    logger = get_run_logger()
    with guard.watching(request.flow_run_id) as tell:
        tasks = PrefectTasks()
        outcome = execute(request, replace(host, tell=tell), lambda line: logger.info("%s", line), found, tasks)
    return _state(job, outcome)


def _this_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise OrchctlError("this flow runs under a Prefect worker only", hint="use `orchctl run JOB`")
    return context.flow_run


def _without_workspace(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as the worker has it: Prefect adds the folder it starts us in to PYTHONPATH."""
    cleaned = {key: value for key, value in environment.items() if key not in {"PWD", "OLDPWD", "PYTHONPATH"}}
    entries = environment.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if entry and entry != os.getcwd()]
    return cleaned | ({"PYTHONPATH": os.pathsep.join(kept)} if kept else {})


def _request(run: FlowRun, **asked: Any) -> Request:
    expected = _plain(run.expected_start_time) if run.expected_start_time else datetime.now(UTC)
    due = expected if run.auto_scheduled else None
    trigger = "schedule" if run.auto_scheduled else "manual"
    if asked["slot"]:
        due, trigger = parse_instant(asked["slot"]), "catchup"
    if asked["backfill"]:
        # It claims no slot, whatever else is said: it never takes one from a live run.
        due, trigger = None, "backfill"
    execution = asked["execution"] or None
    if execution not in {None, "command", "steps"}:
        raise OrchctlError(f"execution is {execution!r:.40}, not command or steps")
    return Request(
        job=asked["job"],
        digest=asked["digest"],
        flow_run_id=str(run.id),
        expected_start=expected,
        attempt=max(1, run.run_count),
        slot=due,
        trigger=trigger,
        game_date=parse_date(asked["game_date"]) if asked["game_date"] else None,
        as_of=parse_instant(asked["run_as_of_ts"]) if asked["run_as_of_ts"] else None,
        execution=execution,
        steps=tuple(name for name in asked["steps"].split(",") if name),
        from_step=asked["from_step"] or None,
        backfill=asked["backfill"] or None,
        as_of_mode=asked["as_of_mode"] or None,
        partition={str(key): str(value) for key, value in asked["partition"].items()},
    )


def _plain(instant: datetime) -> datetime:
    """Return one of Prefect's instants as Python's own: pendulum's, plus a timedelta, has no zone any more."""
    return datetime.fromisoformat(instant.isoformat()).astimezone(UTC)


def _later_due(client: SyncPrefectClient, run: FlowRun, slot: datetime) -> datetime | None:
    """Return the newest later slot of this deployment that is due and was run, or has a run to come.

    Late runs reach us in any order: a later slot that has run already makes this one stale as well. One that
    Prefect cancelled, or that we skipped, does not.
    """
    served = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.COMPLETED, StateType.FAILED]
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id]))
        if run.deployment_id
        else None,
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=served)),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=slot, before_=datetime.now(UTC)),
            # A backfill can have more runs in that time than are looked at here.
            work_queue_name=FlowRunFilterWorkQueueName(any_=[run.work_queue_name]) if run.work_queue_name else None,
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=50,
    )
    later = [
        _plain(other.expected_start_time)
        for other in found
        if other.auto_scheduled and other.expected_start_time and other.id != run.id and other.state_name != "Skipped"
    ]
    return next((due for due in later if due > slot), None)


def _state(job: str, outcome: Outcome) -> State[Any]:
    note = f"; not recorded: {outcome.unrecorded}" if outcome.unrecorded else ""
    if outcome.status == "failed":
        try:
            _artifact(job, outcome)
        except Exception as error:  # noqa: BLE001 - the failure to be told of is the job's
            get_run_logger().warning("no artifact could be made: %s", type(error).__name__)
        raise RunFailed(f"{job} failed: {outcome.reason} (run {outcome.run_id}){note}")
    name = {"skipped": "Skipped", "observed": "Observed"}.get(outcome.status, "Completed")
    message = outcome.reason or f"run {outcome.run_id}"
    if outcome.status == "observed":
        message = f"{outcome.reason}; {outcome.tail}"
    return Completed(name=name, message=message + note)


def _artifact(job: str, outcome: Outcome) -> None:
    fence = "~" * (3 + max((len(line) for line in outcome.tail.splitlines() if set(line) == {"~"}), default=0))
    create_markdown_artifact(
        key=f"{job.replace('_', '-')}-failure",
        description=f"{job}: {outcome.reason}, run {outcome.run_id}",
        markdown=f"**{outcome.reason}**\n\nManifest: `{outcome.manifest_path}`\n\n"
        f"{fence}text\n{outcome.tail}\n{fence}\n",
    )
