"""`orchctl run`: ask Prefect for a run by hand, and wait for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchctl.core import slots
from orchctl.core.catalog import Catalog, Job
from orchctl.core.deployments import digest_of, is_ours
from orchctl.core.manifest import Run
from orchctl.core.names import format_instant, nearest, parse_date, parse_instant, run_id
from orchctl.core.plan import same_job
from orchctl.core.remote import RemoteRun
from orchctl.errors import OrchctlError, UsageError
from orchctl.services.ports import Applied, ManifestTree, Prefect
from orchctl.services.runs import new_output

POLL_S = 1.0
TAG = "orchctl-manual"


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was asked for. `notes` are what the operator should know while it waits for its worker."""

    job: Job
    run_id: str
    flow_run_id: str
    ui_url: str
    directory: Path
    notes: tuple[str, ...]


def job_of(catalog: Catalog, name: str) -> Job:
    """Return the job, or raise UsageError with the nearest name."""
    if name not in catalog.jobs:
        near = nearest(name, catalog.jobs)
        shown = name.encode("unicode_escape").decode()[:80]
        raise UsageError(f"there is no job {shown!r}", hint=f'did you mean "{near}"?' if near else "see `orchctl jobs`")
    return catalog.jobs[name]


def start(
    catalog: Catalog,
    prefect: Prefect,
    applied: Applied,
    tree_of: Callable[[str], ManifestTree],
    name: str,
    *,
    game_date: str | None,
    as_of: str | None,
    key: str,
) -> Started:
    """Make a flow run of the job. `key` is an idempotency key: the same one makes no second run.

    Raises UsageError for a bad name, date or instant, OrchctlError where the job is not in Prefect yet.
    """
    job = job_of(catalog, name)
    parameters = _parameters(game_date, as_of)
    deployment = prefect.deployment(name, name)
    if deployment is None or not is_ours(deployment, catalog.name):
        raise OrchctlError(f"{name} is not in Prefect yet", hint=f"run `orchctl sync {name}`")
    digest = digest_of(deployment)
    held = applied.read(digest) if digest is not None else None
    if held is None:
        raise OrchctlError(f"the catalog that {name} was synced with is not on this host", hint="run `orchctl sync`")
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
    day = parse_date(game_date) if game_date else slots.game_date(applied_job, run.expected_start, held.timezone)
    directory = tree_of(applied_job.data_root).run_directory(applied_job.asset, day, own)
    return Started(applied_job, own, run.id, prefect.run_url(run.id), directory, tuple(notes))


def _parameters(game_date: str | None, as_of: str | None) -> dict[str, Any]:
    parameters = {}
    try:
        if game_date is not None:
            parameters["game_date"] = parse_date(game_date).isoformat()
    except ValueError as error:
        raise UsageError(f"--date: {error}") from error
    try:
        if as_of is not None:
            parameters["run_as_of_ts"] = format_instant(parse_instant(as_of))
    except ValueError as error:
        raise UsageError(f"--as-of: {error}") from error
    return parameters


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
) -> Iterator[Progress | Ended]:
    """Yield what happens to a run until it has ended; the last item is an `Ended`."""
    offsets: dict[Path, int] = {}
    while True:
        flow_run = prefect.flow_run(started.flow_run_id)
        if flow_run is None:
            raise OrchctlError(f"flow run {started.flow_run_id} is gone from Prefect")
        output = b"".join(new_output(tree, started.directory, offsets))
        if flow_run.finished:
            run = tree.find(started.run_id, skipped=[])
            run = tree.current(run, skipped=[]) if run is not None and run.status == "running" else run
            yield Progress(output, flow_run.state_name or "")
            yield Ended(flow_run, run)
            return
        yield Progress(output, flow_run.state_name or "")
        sleep(POLL_S)
