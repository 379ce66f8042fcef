"""Strays: flow runs that a worker took and no process carries any more, so that Prefect waits for them for ever. Pure.

A worker that is stopped between taking a run (Pending) and the run's own process, or a process that died before its
guard was there, leaves nobody to tell the server. Nothing of such a run has begun: it is put back, and the claim of its
slot sees to it that it runs once. A run that has begun is never put back: the server is told how it ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchctl.core.remote import RemoteRun

TAKEN = ("PENDING", "RUNNING", "CANCELLING")
"""The states of a run that a worker has taken."""
CRASHED = ("CRASHED",)
"""The state of a run whose process ended before it could say anything, as when the server was away."""
SUBMITTING = timedelta(seconds=120)
"""How long a worker that lives may take from Pending to the run's process: it tries each request for a minute."""
REPORTING = timedelta(seconds=60)
"""How long worker and guard may take to report the end of a process."""
OTHERS = timedelta(seconds=60)
"""How long the worker of another host may take to write on a run that it took it."""
TRIED_FOR = timedelta(minutes=10)
"""A run that crashes before it begins is put back while it is no older, or no older than its job's catch-up window: a
broken installation would make it crash for ever."""
LONGEST_WINDOW = timedelta(days=1)
"""How old a run may be that crashed before it began, whatever its job's window."""

_BY_MANIFEST = {
    "success": ("COMPLETED", None),
    "skipped": ("COMPLETED", "Skipped"),
    "observed": ("COMPLETED", "Observed"),
    "failed": ("FAILED", None),
    "cancelled": ("CANCELLED", None),
}


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a pool's workers: ours by `name`, whether it certainly does not run, whether it is the only one.

    `living` are the flow runs that a process of this host carries.
    """

    name: str
    stopped: bool
    alone: bool
    living: Collection[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a stray is to be set to; `type` is one of Prefect's, SCHEDULED puts it back. `name` None: the type's own."""

    type: str
    message: str
    name: str | None = None


def may_be_stray(run: RemoteRun, place: Place, *, now: datetime) -> bool:
    """Whether a run looks as if nobody carried it: only then what it left on the disk is worth a look."""
    if run.id in place.living or not {"job", "digest"} <= run.parameters.keys():
        return False
    since = now - run.state_since if run.state_since is not None else timedelta(0)
    if run.worker not in {None, place.name}:
        return False
    if run.state_type == "CRASHED":
        # While it is fresh; and who asked for a run by hand has been told that it crashed, and decides.
        return run.auto_scheduled and since <= TRIED_FOR
    if run.worker is None:
        # Taken, and the worker had no time to write its name on it: nothing has begun.
        patience = SUBMITTING if not place.stopped else timedelta(0) if place.alone else OTHERS
        return run.state_type == "PENDING" and (since > patience or not patience)
    return place.stopped or since > (SUBMITTING if run.state_type == "PENDING" else REPORTING)


def judged(run: RemoteRun, ended: str | None, *, age: timedelta, window: timedelta) -> Verdict | None:
    """Return what to do with a stray, None: nothing.

    `ended` is the status in the manifest of this attempt at the run, None where the attempt has not begun. `age` is how
    long ago the run was to start, `window` its job's catch-up window.
    """
    if run.state_type == "CRASHED" and (ended is not None or age > max(TRIED_FOR, window)):
        return None
    if run.state_type == "CANCELLING":
        return Verdict("CANCELLED", "the process that was to be cancelled is gone")
    if run.state_type == "PENDING" or ended is None:
        return Verdict("SCHEDULED", "its worker or its process was gone before the command began")
    type_, name = _BY_MANIFEST.get(ended, ("CRASHED", None))
    return Verdict(type_, f"its process is gone, and its manifest says {ended}", name)
