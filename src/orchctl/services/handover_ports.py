"""What a handover needs of the outside. The adapters fulfil these by shape; tests bring fakes.

Every method that changes something is repeatable: where its effect is there it changes nothing. Those that look may
raise OrchctlError where they get no answer: then the handover stops, and is gone on with by `recover`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchctl.core.catalog import Catalog, Job
from orchctl.core.handover_journal import Handover, Opened, Outcome, Record
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot


class Owners(Protocol):
    """Owner files. See `adapters/owners.py`."""

    def read(self, job: str) -> Owner | None: ...  # noqa: D102
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    def create(self, job: str, owner: Owner, *, still: Callable[[], bool]) -> bool: ...  # noqa: D102
    def replace(self, job: str, owner: Owner) -> None: ...  # noqa: D102
    def remove(self, job: str) -> None: ...  # noqa: D102


class Handovers(Protocol):
    """Journals. See `adapters/handovers.py`."""

    def unfinished(self) -> tuple[str, ...]: ...  # noqa: D102
    def open_of(self, job: str) -> Handover | None: ...  # noqa: D102
    def last_of(self, job: str) -> Handover | None: ...  # noqa: D102
    def read(self, id: str) -> Handover | None: ...  # noqa: A002, D102
    def begin(self, opened: Opened) -> None: ...  # noqa: D102
    def supersede(self, opened: Opened, at: datetime) -> None: ...  # noqa: D102
    def add(self, opened: Opened, record: Record) -> None: ...  # noqa: D102
    def end(self, opened: Opened, outcome: Outcome, at: datetime) -> None: ...  # noqa: D102


class TimerSwitch(Protocol):
    """The legacy timers of a job and the fence in their services. See `adapters/timer_switch.py`, `adapters/fence.py`.

    All of them take the snapshot alone: a rollback needs no catalog.
    """

    def snapshot(self, job: Job) -> Snapshot:
        """Return the timers of a job as they are now (`cron`, `paused` are others' to fill in)."""
        ...

    def assumed(self, job: Job) -> Snapshot:
        """Return what a rollback without a snapshot puts back: every timer of the job, by its own [Install]."""
        ...

    def obstacles(self, job: Job) -> tuple[str, ...]:
        """Say why the timers or the fence could not be switched, one sentence each: no right to write, a transient,
        generated or masked unit, a user who could not see the owner file, units that wait for a daemon-reload.
        """
        ...

    def is_fenced(self, job: str, snapshot: Snapshot) -> bool:
        """Whether every service has the fence, as it should be, and systemd has loaded it."""
        ...

    def fence(self, job: str, snapshot: Snapshot) -> None: ...  # noqa: D102

    def has_fence(self, job: str, snapshot: Snapshot) -> bool:
        """Whether a trace of the fence is left: a file of ours, a folder of ours, or in what systemd has loaded."""
        ...

    def unfence(self, job: str, snapshot: Snapshot) -> None: ...  # noqa: D102

    def are_off(self, snapshot: Snapshot) -> bool:
        """Whether no timer is active, and none would be after a boot."""
        ...

    def turn_off(self, snapshot: Snapshot) -> None: ...  # noqa: D102

    def are_back(self, snapshot: Snapshot) -> bool:
        """Whether every timer is as the snapshot has it."""
        ...

    def put_back(self, snapshot: Snapshot) -> None: ...  # noqa: D102

    def last_start(self, snapshot: Snapshot) -> datetime | None:
        """Return when a service of the job last really ran, None where systemd does not know (it forgets at a boot).

        Waits (seconds at most) for a start that is on its way: one that is queued, or whose conditions are looked at.
        """
        ...

    def is_running(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Return the services that run now, as `x.service (system)`."""
        ...

    def will_run(self, snapshot: Snapshot, before: datetime) -> bool:
        """Whether a timer that is on has yet to start its service for an instant before `before` (it may be late by
        RandomizedDelaySec= and AccuracySec=).
        """
        ...

    def run_once(self, snapshot: Snapshot) -> str | None:
        """Start the service of the first timer that was active, without waiting; return its name. None where the job
        has none.
        """
        ...

    def wake(self, snapshot: Snapshot, last: datetime | None) -> tuple[str, ...]:
        """See that timers which count from the last run of their service (OnUnitActiveSec= alone) go on: they are
        asleep after a restart until it runs once. `last` is when anybody ran the job last. Returns what was done.
        """
        ...


class CronSwitch(Protocol):
    """The crontab lines of a job. See `adapters/cron_switch.py`."""

    def snapshot(self, job: Job) -> Snapshot: ...  # noqa: D102
    def obstacles(self, job: Job) -> tuple[str, ...]: ...  # noqa: D102
    def are_off(self, job: str, snapshot: Snapshot) -> bool: ...  # noqa: D102

    def turn_off(self, job: str, snapshot: Snapshot) -> None:
        """Comment the lines out, or make them look at the owner file. Waits until cron has taken up this minute."""
        ...

    def are_back(self, job: str, snapshot: Snapshot) -> bool: ...  # noqa: D102
    def put_back(self, job: str, snapshot: Snapshot) -> None: ...  # noqa: D102


class ConfirmTimer(Protocol):
    """The timer that rolls a job back unless somebody confirms. See `adapters/confirm_timer.py`."""

    def is_armed(self, job: str) -> bool: ...  # noqa: D102

    def has_trace(self, job: str) -> bool:
        """Whether anything of the timer is left: also of one that a kill kept from being armed in full."""
        ...

    def arm(self, job: str, at: datetime) -> None: ...  # noqa: D102
    def disarm(self, job: str) -> None: ...  # noqa: D102
    def obstacles(self) -> tuple[str, ...]: ...  # noqa: D102


class JobLock(Protocol):
    """The job's lock, held."""

    def release(self) -> None: ...  # noqa: D102


class JobLocks(Protocol):
    """Who runs a job. See `adapters/claims.py`."""

    def try_take(self, job: str, *, run_id: str, pid: int) -> JobLock | None: ...  # noqa: D102
    def holder(self, job: str) -> str: ...  # noqa: D102

    def stop_holders(self, job: str, *, kill_after: float) -> None:
        """End the run that holds the job's lock: SIGTERM to its flow process (the guard ends the command), after
        `kill_after` seconds SIGKILL to all that hold the lock.
        """
        ...


class PrefectSide(Protocol):
    """What Prefect does with a job. See `services/prefect_side.py`. Every method may raise PrefectApiError, NotAllowed.

    A job that Prefect does not know is paused, clear, and not scheduled.
    """

    def is_paused(self, job: str) -> bool | None: ...  # noqa: D102

    def is_scheduled(self, job: str) -> bool:
        """Whether the deployment is not paused, and has runs ahead (or no schedule that is due soon)."""
        ...

    def open_up(self, job: str) -> None:
        """Unpause the deployment, and wait until runs are scheduled ahead."""
        ...

    def pause(self, job: str) -> None: ...  # noqa: D102

    def catch_up(self, job: str, slots: Sequence[datetime]) -> tuple[str, ...]:
        """Start a run for each slot, once whoever asks; return their ids."""
        ...

    def is_clear(self, job: str) -> bool:
        """Whether the deployment is paused, and has no run that a worker could take."""
        ...

    def clear(self, job: str) -> int:
        """Pause it and cancel those runs; return how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Doubt:
    """Slots that nobody ran: those that shall be caught up with, and those that the catch-up policy drops.

    `first` is the new owner's first own slot, None where it is not known or not Prefect.
    """

    granted: tuple[datetime, ...]
    dropped: tuple[datetime, ...] = ()
    notes: tuple[str, ...] = ()
    first: datetime | None = None


class Slots(Protocol):
    """The slots in doubt. See `services/slots_in_doubt.py`."""

    def missed_by_legacy(  # noqa: D102
        self,
        catalog: Catalog,
        job: Job,
        snapshot: Snapshot,
        *,
        since: datetime,
        last: datetime | None,
        committed: datetime | None,
        cron_off: datetime | None,
    ) -> Doubt: ...
    def last_run(self, job: Job) -> datetime | None: ...  # noqa: D102
    def missed_by_prefect(  # noqa: D102
        self,
        catalog: Catalog,
        job: Job,
        *,
        since: datetime | None,
        released_at: datetime,
        granted: Collection[datetime] = (),
    ) -> Doubt: ...
