"""The slot rule at a run's start: slot, owner, catch-up, claim, lock, legacy. docs/slot-rule.md has it in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchctl.core import slots
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.slots import Verdict
from orchctl.errors import OrchctlError
from orchctl.runner.shapes import Host, Request

LOCK_POLL_S = 0.5
LEGACY_POLL_S = 2.0
# A worker starts a run up to its prefetch (10 s) before it is due. A timer never fires early, so neither do we;
# a run that is further ahead was started by a person who did not want to wait.
EARLY_S = 60.0


@dataclass(frozen=True, slots=True)
class Passed:
    """What the gate said. With the verdict `run` the lock is held, else it is None; `run_id` is that of the claim."""

    verdict: Verdict
    run_id: str
    lock: Any | None


class Gate:
    """The gate of one run of `job`; `pid` is who will hold the lock.

    `beside` names a run, with the job's own lock, that makes the same partition now; it is asked for a backfill.
    """

    def __init__(self, request: Request, host: Host, job: Job, pid: int, beside: Callable[[], str | None]) -> None:
        self.request, self.host, self.job, self._pid, self._beside = request, host, job, pid, beside

    def pass_(self, run_id: str, lock_name: str) -> Passed:
        """Wait for the slot and apply the rule, with the lock of this name.

        Raises OrchctlError where a slot is asked for that is yet to come.
        """
        slot, verdict = self.request.slot, slots.RUN
        if slot is not None:
            self._wait_for(slot)
            verdict, run_id = self._judge(slot, run_id)
            if verdict.kind != "run":
                return Passed(verdict, run_id, None)
        deadline = time.monotonic() + self._patience_s()
        lock = self._lock(lock_name, run_id, deadline)
        if lock is None:
            # A rollback takes the lock too: then the slot is not this run's any more, and nobody has skipped it.
            verdict = self._owned(slot) if slot is not None else slots.RUN
            if verdict.kind != "run":
                return Passed(verdict, run_id, None)
            holder = self.host.locks.holder(lock_name)
            return Passed(Verdict("skip", f"the {_what(lock_name)} is locked by {holder}"), run_id, None)
        try:
            # A backfill is of its own partition, whatever legacy makes of today's meanwhile.
            verdict = self._alone(deadline) if self.request.backfill else self._under_the_lock(slot, deadline)
        except BaseException:
            lock.release()
            raise
        if verdict.kind != "run":
            lock.release()
            return Passed(verdict, run_id, None)
        return Passed(slots.RUN, run_id, lock)

    def _under_the_lock(self, slot: datetime | None, deadline: float) -> Verdict:
        """Look once more, now that nothing of Prefect's runs: at the owner, and for a legacy service that runs.

        Whoever held the lock may have been the last run before a handover. A legacy run that is going was begun by
        systemd before the handover, or beside us by hand. It is waited for as another run of ours would be, with the
        lock in our hands: systemd knows no lock, and while Prefect owns the job the fence in the legacy service keeps
        it from beginning anew, so what we wait for ends and nothing takes its place. Giving the lock away meanwhile
        would only let a later run overtake this one.
        """
        verdict = self._owned(slot) if slot is not None else slots.RUN
        while verdict.kind == "run":
            try:
                running = self.host.legacy_running(self.job) if self._has_timers() else ()
            except OrchctlError as error:
                return Verdict("fail", f"whether a legacy service of the job runs cannot be known: {error.message}")
            if not running:
                return verdict
            if time.monotonic() >= deadline:
                return Verdict("skip", f"legacy {' and '.join(running)} {'is' if len(running) == 1 else 'are'} running")
            self.host.sleep(LEGACY_POLL_S)
            verdict = self._owned(slot) if slot is not None else slots.RUN
        return verdict

    def _alone(self, deadline: float) -> Verdict:
        """Wait while a live run makes the same partition. The other way round nobody waits: no slot for a backfill."""
        while True:
            try:
                run_id = self._beside()
            except OrchctlError as error:
                return Verdict("fail", f"whether a live run of the partition goes cannot be known: {error.message}")
            if run_id is None:
                return slots.RUN
            if time.monotonic() >= deadline:
                return Verdict("skip", f"run {run_id} makes the same partition")
            self.host.sleep(LEGACY_POLL_S)

    def _has_timers(self) -> bool:
        return any(isinstance(trigger, TimerTrigger) for trigger in self.job.legacy)

    def _wait_for(self, slot: datetime) -> None:
        ahead = (slot - self.host.now()).total_seconds()
        if ahead > EARLY_S and self.request.trigger != "schedule":
            raise OrchctlError(f"the slot {slot:%Y-%m-%dT%H:%M:%SZ} is yet to come", hint="give a slot that is due")
        # Again and again: the clock may be set back while we sleep.
        while 0 < (ahead := (slot - self.host.now()).total_seconds()) <= EARLY_S:
            self.host.sleep(ahead)

    def _owned(self, slot: datetime) -> Verdict:
        return slots.owned(self.job, slot, self.host.owners.read(self.job.name))

    def _judge(self, slot: datetime, run_id: str) -> tuple[Verdict, str]:
        """Apply steps 1 to 3 of the slot rule; return the verdict and the run id that the claim holds.

        A claim that this flow run already holds comes before the catch-up window: a retry is as late as its
        delay makes it, and that is not being stale.
        """
        verdict = self._owned(slot)
        if verdict.kind != "run":
            return verdict, run_id
        if self.host.claims.read(self.job.name, slot) is None:
            now = self.host.now()
            later = self.host.later_due(slot) if slots.needs_later(self.job, slot, now=now) else None
            verdict = slots.fresh(self.job, slot, now=now, later_due=later)
            if verdict.kind != "run":
                return verdict, run_id
        claim = self.host.claims.take(
            self.job.name, slot, run_id=run_id, flow_run_id=self.request.flow_run_id, at=self.host.now()
        )
        if not claim.ours:
            return Verdict("skip", f"the slot was claimed by run {claim.run_id}"), run_id
        return slots.RUN, claim.run_id

    def _lock(self, name: str, run_id: str, deadline: float) -> Any | None:
        """Take the lock, or None where it is still taken at `deadline`."""
        while True:
            lock = self.host.locks.try_take(name, run_id=run_id, pid=self._pid)
            if lock is not None or time.monotonic() >= deadline:
                return lock
            self.host.sleep(LOCK_POLL_S)

    def _patience_s(self) -> float:
        """Return how long to wait for the lock, and for a legacy run, in seconds.

        A queued run, a retry and a backfill, which holds a place of its own queue alone, wait as long as a run may
        last; a late slot, which overlaps nothing at its own
        time, as long as it may still run. A slot that is on time and finds the job going is skipped.
        """
        if self.job.overlap == "queue" or self.request.attempt > 1 or self.request.backfill:
            return float(self.job.timeout)
        if self.request.slot is None:
            return 0.0
        late = self.host.now() - self.request.slot
        return max(0.0, self.job.catchup_window - late.total_seconds()) if late > slots.ON_TIME else 0.0


def _what(lock_name: str) -> str:
    return "partition" if "@" in lock_name else "job"
