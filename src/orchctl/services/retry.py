"""`orchctl runs retry`: run a run again, as the same run, so that what it has done stands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchctl.core import slots, steps
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import Run
from orchctl.core.names import format_instant, nearest
from orchctl.core.plan import same_job
from orchctl.core.remote import RemoteRun
from orchctl.core.slots import Owner
from orchctl.errors import GateRefused, OrchctlError, UsageError
from orchctl.services.ports import Applied, Claims, ManifestTree, Prefect
from orchctl.services.trigger import Started, job_of, synced

MESSAGE = "asked for by orchctl runs retry"
_GOING = frozenset({"PENDING", "RUNNING", "CANCELLING", "PAUSED"})
_SEEN_AFTER = timedelta(seconds=5)
"""How long after a run's last state its process has surely gone, where that cannot be seen: on another host."""
_PATIENCE = timedelta(seconds=60)
_POLL_S = 0.5


@dataclass(frozen=True)
class Rest:
    """Waits until the process of a flow run that has ended is gone, and its worker has taken note of it.

    Until then Prefect's worker counts the run by its id, and ends itself, with a RuntimeError of its CapacityLimiter,
    where it is given the same run once more (workers/base.py of 3.8.8 and of 3.9.1). `living` returns the flow runs
    that a process of this host carries, None: not known.
    """

    living: Callable[[], Collection[str] | None]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]

    def wait(self, run: RemoteRun) -> bool:
        """Wait as long as it takes, a minute at most; return whether we did.

        Raises GateRefused where a process still carries the run then.
        """
        deadline, waited = self.now() + _PATIENCE, False
        while (lives := self._lives(run)) or self._is_fresh(run):
            if self.now() >= deadline:
                if not lives:
                    break  # the server's clock is ahead
                said = f"run {run.name} has ended, and its process has not yet"
                raise GateRefused(said, hint="try it again in a minute")
            waited = True
            self.sleep(_POLL_S)
        if waited:
            self.sleep(_POLL_S)
        return waited

    def _lives(self, run: RemoteRun) -> bool:
        return run.id in (self.living() or ())

    def _is_fresh(self, run: RemoteRun) -> bool:
        return run.state_since is not None and self.now() - run.state_since < _SEEN_AFTER


@dataclass(frozen=True)
class World:
    """Everything outside that a retry touches. `owner_of` says who owns a job's slots, None: legacy."""

    catalog: Catalog
    prefect: Prefect
    applied: Applied
    owner_of: Callable[[str], Owner | None]
    claims: Claims
    rest: Rest


@dataclass(frozen=True, slots=True)
class Retried:
    """A run that will be run again. `kept` and `again` are its steps, empty for a command.

    `attempt` is the number that the next attempt will have. What is kept is looked at once more when it runs: whatever
    has changed since runs too.
    """

    started: Started
    attempt: int
    kept: tuple[str, ...]
    again: tuple[str, ...]


def retry(world: World, tree: ManifestTree, run: Run, *, from_step: str | None, force: bool) -> Retried:
    """Set a run that has ended to be run again: with the same id, and as the catalog that was synced last says.

    `from_step`: that step and all that need it run again even if they succeeded. `force`: also a run that succeeded.
    Raises UsageError for a run or a step that there is not, GateRefused where it may not run now.
    """
    job = job_of(world.catalog, run.job)
    deployment, held = synced(world.catalog, world.prefect, world.applied, run.job)
    applied_job = held.jobs.get(run.job, job)
    manifest = _manifest(tree, run)
    flow_run = _flow_run(world, run, manifest)
    _may(world, run, flow_run, applied_job, again_anyway=force or from_step is not None)
    kept, again = _steps(tree, manifest, applied_job, flow_run, from_step)
    digest = deployment.parameters["digest"]
    set_again(world.prefect, flow_run, world.rest, digest=digest, from_step=from_step or "", message=MESSAGE)
    notes = []
    if not same_job(held, world.catalog, run.job):
        notes.append(f"the catalog has changes of {run.job} that are not synced: what was synced runs")
    if not any(worker.online for worker in world.prefect.workers(job.work_pool)):
        notes.append(f"no worker is online in pool {job.work_pool}: the run waits for one (`orchctl host up`)")
    url, directory = world.prefect.run_url(flow_run.id), tree.directory_of(run)
    started = Started(applied_job, run.run_id, flow_run.id, url, directory, tuple(notes))
    return Retried(started, flow_run.run_count + 1, kept, again)


def set_again(prefect: Prefect, flow_run: RemoteRun, rest: Rest, *, digest: str, from_step: str, message: str) -> None:
    """Let a flow run that has ended be run again, as the catalog of `digest` says, once its process is at `rest`.

    `from_step` "": all may be kept. Raises GateRefused where that takes too long, or somebody is faster.
    """
    if rest.wait(flow_run):
        now = prefect.flow_run(flow_run.id)
        if now is None or not now.is_as(flow_run):
            raise GateRefused(f"run {flow_run.name} is {now.state_name if now else 'gone'} in Prefect by now")
    parameters = {**flow_run.parameters, "digest": digest}
    if from_step or "from_step" in parameters:
        parameters["from_step"] = from_step
    if parameters != dict(flow_run.parameters):
        prefect.set_run_parameters(flow_run.id, parameters)
    prefect.set_run_state(flow_run.id, type="SCHEDULED", name="AwaitingRetry", message=message)


def _manifest(tree: ManifestTree, run: Run) -> dict[str, Any]:
    if run.origin != "prefect":
        raise UsageError(
            f"run {run.run_id} was not run by Prefect but by {run.origin}",
            hint=f"run the job by hand: orchctl run {run.job} --date {run.game_date}",
        )
    try:
        data = tree.read(run)
    except ValueError as error:
        raise OrchctlError(f"the manifest of run {run.run_id} is torn: {error}", hint=_anew(run)) from error
    if data is None:
        raise OrchctlError(f"run {run.run_id} has left no manifest", hint=_anew(run))
    return data


def _flow_run(world: World, run: Run, manifest: dict[str, Any]) -> RemoteRun:
    flow_run_id = manifest["environment"].get("orchestrator_run_id")
    found = world.prefect.flow_run(flow_run_id) if isinstance(flow_run_id, str) else None
    if found is None:
        raise OrchctlError(f"Prefect does not know run {run.run_id} any more", hint=_anew(run))
    return found


def _may(world: World, run: Run, flow_run: RemoteRun, job: Job, *, again_anyway: bool) -> None:
    """Raise GateRefused where the run may not be run again now."""
    if flow_run.state_type in _GOING or run.status == "running":
        hint = f"cancel it first, in {world.prefect.run_url(flow_run.id)}"
        raise GateRefused(f"run {run.run_id} is not over: it is {flow_run.state_name} in Prefect", hint=hint)
    if flow_run.state_type == "SCHEDULED":
        hint = f"follow it: orchctl runs logs --follow {run.run_id}"
        raise GateRefused(f"run {run.run_id} waits already to be run ({flow_run.state_name})", hint=hint)
    if run.status in {"skipped", "observed"}:
        raise GateRefused(f"run {run.run_id} was {run.status}: {run.reason}", hint=_anew(run))
    if run.status == "success" and not again_anyway:
        hint = "--from STEP runs a step and all that need it again, --force the run as it is"
        raise GateRefused(f"run {run.run_id} has succeeded", hint=hint)
    if run.slot is None:
        return
    verdict = slots.owned(job, run.slot, world.owner_of(run.job))
    if verdict.kind != "run":
        raise GateRefused(f"the slot of run {run.run_id} is not Prefect's to run: {verdict.reason}", hint=_anew(run))
    claim = world.claims.read(run.job, run.slot)
    if claim is None or claim[1] != flow_run.id:
        whose = f"run {claim[0]}" if claim else "no run"
        raise GateRefused(f"the slot of run {run.run_id} was claimed by {whose}, not by it", hint=_anew(run))


def _steps(
    tree: ManifestTree, manifest: dict[str, Any], job: Job, flow_run: RemoteRun, from_step: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which steps will be kept and which run, as far as the manifests tell. Raises UsageError."""
    execution = flow_run.parameters.get("execution") or job.execution
    if execution != "steps":
        if from_step is not None:
            raise UsageError(f"{job.name} runs as a command, not as steps", hint="leave out --from")
        return (), ()
    asked = [name for name in str(flow_run.parameters.get("steps") or "").split(",") if name]
    chosen = [step for step in steps.order(job.steps) if not asked or step.name in asked]
    names = [step.name for step in chosen]
    if from_step is not None and from_step not in names:
        near = nearest(from_step, names)
        hint = f'did you mean "{near}"?' if near else f"its steps: {', '.join(names)}"
        run_id = manifest["partition"]["run_id"]
        raise UsageError(f"run {run_id} has no step {from_step!r:.80}", hint=hint)
    forced = steps.descendants(job.steps, from_step) | {from_step} if from_step else frozenset()
    done = {made["step"] for made in tree.steps_of(manifest) if made["status"] == "success"}
    kept = tuple(name for name in names if name in done and name not in forced)
    return kept, tuple(name for name in names if name not in kept)


def _anew(run: Run) -> str:
    as_of = f" --as-of {format_instant(run.slot)}" if run.slot else ""
    return f"for a new run: orchctl run {run.job} --date {run.game_date}{as_of}"
