"""Flow runs that a worker of this host took and lost: put back, or told to the server as they ended."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchctl.core import strays
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteRun, RemoteWorker
from orchctl.core.strays import Place
from orchctl.errors import OrchctlError, PrefectRejected
from orchctl.services.ports import Applied, ManifestTree

LOOK_BACK = timedelta(days=30)
"""Runs that were to start before are left as they are: nobody waits for them."""


class Runs(Protocol):
    """The part of the Prefect API that this needs. See `adapters/prefect_api.py`."""

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]: ...  # noqa: D102
    def taken_runs(self, pool: str, states: Collection[str], *, since: datetime) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def flow_run(self, id: str) -> RemoteRun | None: ...  # noqa: A002, D102
    def set_run_state(  # noqa: D102
        self,
        run_id: str,
        *,
        type: str,  # noqa: A002
        name: str | None = None,
        message: str | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class World:
    """What is looked at. `living` returns the flow runs that a process of this host carries, None: not known."""

    prefect: Runs
    applied: Applied
    tree: Callable[[str], ManifestTree]
    living: Callable[[], Collection[str] | None]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Stray:
    """A run that was lost, and the state it was given; `name` is Prefect's name of the run."""

    flow_run_id: str
    name: str
    job: str
    was: str
    type: str


def put_back(world: World, pool: str, worker: str, *, stopped: bool) -> tuple[Stray, ...]:
    """Look for strays of this host's worker of a pool, and set each to what it is. Repeatable.

    `stopped`: the worker certainly does not run, so that nothing it took is about to begin. Raises OrchctlError where
    server or processes cannot be asked.
    """
    now = world.now()
    runs = (
        *world.prefect.taken_runs(pool, strays.TAKEN, since=now - LOOK_BACK),
        *world.prefect.taken_runs(pool, strays.CRASHED, since=now - strays.LONGEST_WINDOW),
    )
    # Asked after the runs: a process that was there then is seen, or has ended in between and told the server.
    living = world.living()
    if living is None:
        raise OrchctlError("which runs are at work cannot be known: processes of another user may carry some")
    others = any(each.online and each.name != worker for each in world.prefect.workers(pool))
    place = Place(worker, stopped=stopped, alone=not others, living=living)
    found = []
    for seen in runs:
        if not strays.may_be_stray(seen, place, now=now):
            continue
        stray = _set_right(world, seen)
        if stray is not None:
            found.append(stray)
    return tuple(found)


def _set_right(world: World, seen: RemoteRun) -> Stray | None:
    ended, window = _known(world, seen)
    age = world.now() - seen.expected_start if seen.expected_start is not None else timedelta(0)
    verdict = strays.judged(seen, ended, age=age, window=window)
    run = world.prefect.flow_run(seen.id) if verdict is not None else None
    if verdict is None or run is None or not run.is_as(seen):
        return None
    try:
        world.prefect.set_run_state(run.id, type=verdict.type, name=verdict.name, message=verdict.message)
    except PrefectRejected:
        return None  # the server knows better: it was told of an end, or gives the run another try
    return Stray(run.id, run.name, str(run.parameters["job"]), run.state_name or "", verdict.type)


def _known(world: World, run: RemoteRun) -> tuple[str | None, timedelta]:
    """Return the status in the manifest of this attempt, and the catch-up window of the run's job.

    The status is None where the attempt has left no manifest, so has not begun; what cannot be known counts as begun.
    """
    unknown = "nothing that can be read"
    if run.expected_start is None:
        return unknown, timedelta(0)
    try:
        catalog = world.applied.read(str(run.parameters["digest"]))
        job = catalog.jobs.get(str(run.parameters["job"])) if catalog is not None else None
        if job is None:
            return unknown, timedelta(0)
        window = timedelta(seconds=job.catchup_window)
        tree = world.tree(job.data_root)
        found = tree.find(run_id(run.expected_start, run.id), skipped=[])
        manifest = tree.read(found) if found is not None else None
    except (OrchctlError, ValueError):
        return unknown, timedelta(0)
    if found is None or (manifest is not None and manifest["attempt"] < run.run_count):
        return None, window
    return str(manifest["status"]) if manifest is not None else unknown, window
