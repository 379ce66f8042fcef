"""`orchctl run`: ask Prefect for a run by hand, and wait for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

from orchctl.core import partition, slots
from orchctl.core.catalog import Catalog, Job
from orchctl.core.deployments import digest_of, is_ours
from orchctl.core.manifest import Run
from orchctl.core.names import format_instant, nearest, parse_date, parse_instant, run_id
from orchctl.core.plan import same_job
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.errors import OrchctlError, UsageError
from orchctl.services.ports import Applied, ManifestTree, Prefect
from orchctl.services.run_logs import Logs

POLL_S = 1.0
TAG = "orchctl-manual"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was asked for. `notes` are what the operator should know while it waits for its worker."""

    job: Job
    run_id: str
    flow_run_id: str
    ui_url: str
    directory: Path
    notes: tuple[str, ...]


InstantOf = Callable[[Job, str, date, Mapping[str, str]], datetime]
"""The instant (UTC) that a job's as-of mode gives for a date, with the partition keys that were given."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What stands on the command line; None where nothing does. `partition` are keys that were given."""

    game_date: str | None = None
    as_of: str | None = None
    as_of_mode: str | None = None
    execution: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UsageError where it cannot be right for any job."""
        _read("--date", parse_date, self.game_date)
        _read("--as-of", parse_instant, self.as_of)
        if self.as_of is not None and self.as_of_mode is not None:
            raise UsageError("--as-of and --as-of-mode exclude each other")
        if self.execution not in {None, "command", "steps"}:
            raise UsageError(f"--execution: {self.execution!r:.60} is not command or steps")

    def parameters(self, job: Job, timezone: str, instant_of: InstantOf, now: datetime) -> dict[str, Any]:
        """Return the parameters of the flow run. Raises UsageError where the job is not made for it."""
        given = _read("--date", parse_date, self.game_date)
        day = given or slots.game_date(job, now, timezone)
        execution = self.execution or job.execution
        if not (job.steps if execution == "steps" else job.command):
            hint = "see `execution` in jobs.toml; what was synced counts"
            raise UsageError(f"{job.name} has no {'steps' if execution == 'steps' else 'command'} to run", hint=hint)
        try:
            partition.keys(job, day, self.partition)
        except ValueError as error:
            raise UsageError(str(error), hint=partition.hint(job, self.partition)) from error
        instant = _read("--as-of", parse_instant, self.as_of)
        if self.as_of_mode is not None:
            # The run must be for the very date that the instant is for, also where midnight comes between.
            given, instant = day, instant_of(job, self.as_of_mode, day, self.partition)
        found = {
            "game_date": given.isoformat() if given else None,
            "run_as_of_ts": format_instant(instant) if instant else None,
            "as_of_mode": self.as_of_mode,
            "execution": self.execution,
            "partition": dict(self.partition),
        }
        return {key: value for key, value in found.items() if value}


def _read(option: str, parse: Callable[[str], _T], text: str | None) -> _T | None:
    try:
        return parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def job_of(catalog: Catalog, name: str) -> Job:
    """Return the job, or raise UsageError with the nearest name."""
    if name not in catalog.jobs:
        near = nearest(name, catalog.jobs)
        shown = name.encode("unicode_escape").decode()[:80]
        raise UsageError(f"there is no job {shown!r}", hint=f'did you mean "{near}"?' if near else "see `orchctl jobs`")
    return catalog.jobs[name]


def synced(catalog: Catalog, prefect: Prefect, applied: Applied, name: str) -> tuple[RemoteDeployment, Catalog]:
    """Return the deployment of a job, and the catalog that its runs take the job from.

    Raises OrchctlError where it is not in Prefect yet, or that catalog is not on this host.
    """
    deployment = prefect.deployment(name, name)
    if deployment is None or not is_ours(deployment, catalog.name):
        raise OrchctlError(f"{name} is not in Prefect yet", hint=f"run `orchctl sync {name}`")
    digest = digest_of(deployment)
    held = applied.read(digest) if digest is not None else None
    if held is None:
        raise OrchctlError(f"the catalog that {name} was synced with is not on this host", hint="run `orchctl sync`")
    return deployment, held


@dataclass(frozen=True)
class World:
    """Everything outside that asking for a run touches. `instant_of` gives the instant of an as-of mode."""

    catalog: Catalog
    prefect: Prefect
    applied: Applied
    tree_of: Callable[[str], ManifestTree]
    instant_of: InstantOf
    now: Callable[[], datetime]


def start(world: World, name: str, wish: Wish, *, key: str) -> Started:
    """Make a flow run of the job. `key` is an idempotency key: the same one makes no second run.

    Raises UsageError for a bad name, date, instant, key or mode,
    OrchctlError where the job is not in Prefect yet or a mode gives no instant.
    """
    catalog, prefect = world.catalog, world.prefect
    job = job_of(catalog, name)
    wish.check()
    deployment, held = synced(catalog, prefect, world.applied, name)
    parameters = wish.parameters(held.jobs.get(name, job), held.timezone, world.instant_of, world.now())
    run = prefect.create_run(deployment.id, parameters=parameters, idempotency_key=key, tags=(TAG,))
    if run.expected_start is None:
        raise OrchctlError(f"Prefect made flow run {run.id} without a start", hint="look at it in the UI")
    notes = (
        []
        if same_job(held, catalog, name)
        else [f"the catalog has changes of {name} that are not synced: what was synced runs"]
    )
    if not any(worker.online for worker in prefect.workers(job.work_pool)):
        notes.append(f"no worker is online in pool {job.work_pool}: the run waits for one (`orchctl host up`)")
    own = run_id(run.expected_start, run.id)
    applied_job = held.jobs.get(name, job)
    asked = parameters.get("game_date")
    day = parse_date(asked) if asked else slots.game_date(applied_job, run.expected_start, held.timezone)
    directory = world.tree_of(applied_job.data_root).run_directory(applied_job.asset, day, own)
    return Started(applied_job, own, run.id, prefect.run_url(run.id), directory, tuple(notes))


@dataclass(frozen=True, slots=True)
class Progress:
    """What happened since the last look: new bytes of the log, and the state in words."""

    output: bytes
    state: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `run` is None where it left no manifest; then Prefect's own state is all there is."""

    flow_run: RemoteRun
    run: Run | None

    @property
    def exit_code(self) -> int:
        """The exit code of the run: the command's own, 128 + n for signal n, 0 for success, else 1."""
        if self.run is None:
            return 0 if self.flow_run.state_type == "COMPLETED" else 1
        if self.run.status == "success":
            return 0
        if self.run.signal is not None:
            return 128 + _signal_number(self.run.signal)
        return self.run.exit_code or 1


def _signal_number(name: str) -> int:
    """Return the number of a signal as `runner.process` names it: `SIGTERM`, or `SIGRTMIN+6`."""
    base, _, offset = name.partition("+")
    return signal.Signals[base].value + int(offset or 0)


def follow(
    prefect: Prefect,
    tree: ManifestTree,
    started: Started,
    *,
    sleep: Callable[[float], None],
    logs: Logs | None = None,
) -> Iterator[Progress | Ended]:
    """Yield what happens to a run until it has ended; the last item is an `Ended`. `logs` None: from the beginning."""
    logs = logs or Logs(tree, started.directory)
    while True:
        flow_run = prefect.flow_run(started.flow_run_id)
        if flow_run is None:
            raise OrchctlError(f"flow run {started.flow_run_id} is gone from Prefect")
        output = b"".join(logs.new(last=flow_run.finished))
        if flow_run.finished:
            run = tree.find(started.run_id, skipped=[])
            run = tree.current(run, skipped=[]) if run is not None and run.status == "running" else run
            yield Progress(output, flow_run.state_name or "")
            yield Ended(flow_run, run)
            return
        yield Progress(output, flow_run.state_name or "")
        sleep(POLL_S)
