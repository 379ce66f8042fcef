"""Prefect's part of a handover: a deployment that is opened up, caught up with, paused, and cleared of waiting runs.

Nothing here decides who owns a job: a run that Prefect starts all the same only observes (the slot rule). All of it is
repeatable, and killed halfway it can be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchctl.core import status
from orchctl.core.deployments import LABEL_JOB, is_ours
from orchctl.core.names import format_exact, format_instant
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.errors import PrefectApiError, PrefectRejected
from orchctl.services.ports import Prefect

TAG = "orchctl-catchup"
AHEAD_S = 30.0
"""How long `open_up` waits for runs ahead, in seconds."""
POLL_S = 0.5
# A scheduler that read the deployment before the pause inserts its runs a moment after it.
SETTLE_S = 0.3
ROUNDS = 10


@dataclass(frozen=True)
class PrefectSide:
    """Prefect, as handovers use it. `catalog` is the name of the catalog whose deployments are ours, None: any.

    `elapsed` is a clock in seconds that nobody sets.
    """

    prefect: Prefect
    catalog: str | None
    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    sleep: Callable[[float], None]

    def is_paused(self, job: str) -> bool | None:
        """Whether the deployment is paused; one that is not there is."""
        found = self._find(job)
        return found is None or found.paused

    def is_scheduled(self, job: str) -> bool:
        """Whether the deployment is not paused, and each of its active schedules that is due soon has a run ahead."""
        found = self._find(job)
        return found is not None and not found.paused and not self._without_run(found)

    def open_up(self, job: str) -> None:
        """Unpause the deployment, let its runs be made from now on, and wait until they are there.

        What somebody paused by hand, single schedules, stays paused.
        """
        found, begun = self._existing(job), self.now()
        if found.paused:
            self.prefect.resume_deployment(found.id)
        # To resume makes no runs: the scheduler's next round does, and a slot until then would be lost.
        self.prefect.schedule_from(found.id, begun)
        deadline = self.elapsed() + AHEAD_S
        while missing := self._without_run(found):
            if self.elapsed() >= deadline:
                raise PrefectApiError(
                    f"Prefect has scheduled no run of {job} ahead for {', '.join(missing)} in {AHEAD_S:.0f} s",
                    hint="see the server's log, and `orchctl host status`",
                )
            self.sleep(POLL_S)

    def pause(self, job: str) -> None:
        """Pause the deployment; Prefect drops the runs that it scheduled and that nobody has taken."""
        found = self._find(job)
        if found is not None:
            self._pause(found)

    def catch_up(self, job: str, slots: Sequence[datetime]) -> tuple[str, ...]:
        """Start a run for each slot, once whoever asks; return their ids, by slot."""
        if not slots:
            return ()
        found = self._existing(job)
        return tuple(self._start(found, job, slot).id for slot in sorted(slots))

    def is_clear(self, job: str) -> bool:
        """Whether the deployment is paused, and has no run that a worker could take."""
        found = self._find(job)
        return found is None or (found.paused and not self.prefect.waiting_runs([found.id]))

    def clear(self, job: str) -> int:
        """Pause it, and cancel what a worker could still take; return how many runs that were.

        Runs that are going are left alone. Raises PrefectApiError where new ones keep coming.
        """
        found = self._find(job)
        if found is None:
            return 0
        gone = {run.id for run in self.prefect.waiting_runs([found.id])}
        for _ in range(ROUNDS):
            # Again each time: it deletes in one transaction what the scheduler, or a worker that stops, put back.
            self._pause(found)
            self.sleep(SETTLE_S)
            waiting = self.prefect.waiting_runs([found.id])
            if not waiting:
                return len(gone)
            for run in waiting:
                gone.add(run.id)
                self._cancel(run)
        raise PrefectApiError(f"{job} is paused in Prefect, and still gets new runs", hint="the UI says who makes them")

    def _find(self, job: str) -> RemoteDeployment | None:
        """Return the job's deployment, None where there is none, or one that is not ours to touch."""
        found = self.prefect.deployment(job, job)
        if found is None:
            return None
        if self.catalog is not None:
            return found if is_ours(found, self.catalog) else None
        return found if job in {found.labels.get(LABEL_JOB), found.parameters.get("job")} else None

    def _existing(self, job: str) -> RemoteDeployment:
        found = self._find(job)
        if found is None:
            raise PrefectApiError(f"{job} is not in Prefect", hint=f"run `orchctl sync {job}`")
        return found

    def _without_run(self, deployment: RemoteDeployment) -> list[str]:
        """Return the active schedules that are due soon and have no run ahead, by slug."""
        now = self.now()
        wanted = [each for each in deployment.schedules if each.active and status.due_soon(each.schedule, now)]
        if not wanted:
            return []
        runs = self.prefect.scheduled_runs([deployment.id])
        served = {run.created_by_schedule for run in runs if run.expected_start and run.expected_start > now}
        return [each.slug or each.id for each in wanted if each.id not in served]

    def _pause(self, deployment: RemoteDeployment) -> None:
        try:
            self.prefect.pause_deployment(deployment.id)
        except PrefectRejected as error:
            if error.status != 404:  # else it went away meanwhile, and its runs with it
                raise

    def _cancel(self, run: RemoteRun) -> None:
        """Cancel a run that has not begun. One that is ahead of its slot is deleted too.

        Prefect makes no second run for a slot that has one, in whatever state: after a cutover before that slot nobody
        would run it.
        """
        try:
            self.prefect.set_run_state(run.id, type="CANCELLED", message="rolled back: legacy runs the job", force=True)
            if run.auto_scheduled and run.expected_start is not None and run.expected_start > self.now():
                self.prefect.delete_run(run.id)
        except PrefectRejected:
            # It is gone, or has ended. Whatever it is, the next look tells whether a worker could take it.
            return

    def _start(self, deployment: RemoteDeployment, job: str, slot: datetime) -> RemoteRun:
        """Make the run of a slot. One that a rollback cancelled before it began does not count: there is another."""
        key = f"orchctl catch-up {job} {format_exact(slot)}"
        parameters = {"slot": format_exact(slot) if slot.microsecond else format_instant(slot)}
        while True:
            run = self.prefect.create_run(deployment.id, parameters=parameters, idempotency_key=key, tags=(TAG,))
            if run.state_type != "CANCELLED" or run.run_count:
                return run
            key = f"orchctl catch-up {job} {format_exact(slot)} after {run.id}"
