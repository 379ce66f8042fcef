"""One step of one run: its tries, one after the other, and how it ended. Knows no Prefect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchctl.core import step_events
from orchctl.core.catalog_steps import StepTable
from orchctl.core.manifest import RunError
from orchctl.core.names import format_instant
from orchctl.core.steps import StepStatus
from orchctl.errors import OrchctlError
from orchctl.runner import resume
from orchctl.runner.facts import Facts, Log
from orchctl.runner.record import Record
from orchctl.runner.step_work import Broken, Skipped, Try, Work, as_broken, kind_of
from orchctl.runner.tasks import Result, Stop, Task

_NEVER_BEGUN = 0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended. `reason` is None for a plain success; instants are as its manifest has them.

    `exit_code` and `tail` are those of the last try, for the run's own record.
    """

    name: str
    status: StepStatus
    reason: str | None = None
    attempts: int = _NEVER_BEGUN
    started_at: str | None = None
    finished_at: str | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    tail: str = ""
    kind: str | None = None
    unrecorded: str | None = None

    def row(self) -> dict[str, Any]:
        """Return its line in the run's manifest."""
        keys = ("name", "status", "reason", "attempts", "started_at", "finished_at", "duration_s")
        return {key: getattr(self, key) for key in keys}


class StepRun:
    """A step of a run. `outcome` is there once it has ended; `run_until` (monotonic) is when the run's time is over.

    `upstream` names the steps because of which it is skipped; `since` says how those ended.
    """

    def __init__(self, facts: Facts, step: StepTable, stop: Stop, *, run_until: float, lock_descriptor: int) -> None:
        self.step = step
        self.outcome: StepOutcome | None = None
        self._facts, self._stop, self._run_until, self._lock = facts, stop, run_until, lock_descriptor
        self._guard = threading.Condition()
        self._active = self._closed = False
        self._tried = 0
        self._why: str | None = None
        self._last: StepOutcome | None = None
        self._task: Task | None = None

    def task(self) -> Task:
        """Return it as a task."""
        rule = self.step.retry_delay
        chance = self._facts.host.chance
        waits = (min(float(rule.most), rule.first * rule.factor**tried) for tried in range(self.step.retries))
        delays = tuple(round(wait * (1 + rule.jitter * chance()), 3) for wait in waits)
        self._task = Task(
            self.step.name,
            self.attempt,
            self._stop,
            settled=self._settled,
            retries=self.step.retries,
            delays=delays,
            limits=self.step.concurrency,
        )
        return self._task

    def skip(self, why: str) -> Task:
        """Return a task that only shows that the step is skipped, and records it."""

        self._why = why

        def skipped(log: Log) -> Result:
            with self._guard:
                if not self._closed:
                    self._end_without_a_try("skipped", why, log)
            return Result("skipped", why)

        return Task(self.step.name, skipped, self._stop, settled=skipped)

    def attempt(self, log: Log) -> Result:
        """Do one try. Raises nothing."""
        with self._guard:
            if self._closed or self._stop.over:
                return self._given_up(log)
            self._active = True
        with self._working():
            try:
                return self._once(log)
            except Exception as error:  # noqa: BLE001 - a step that raised would never be seen to end
                return self._failed_itself(error, log)

    def _failed_itself(self, error: Exception, log: Log) -> Result:
        """End with an error of our own making, as well as it can be recorded."""
        told = error.message if isinstance(error, OrchctlError) else f"{type(error).__name__}: {error}"
        said = told.encode("utf-8", "backslashreplace").decode()
        log(f"{self.step.name} could not be carried out: {said}")
        with self._guard:
            self._end_without_a_try("failed", said, log, error=error)
        return Result("failed", said)

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._guard:
                self._active = False
                self._guard.notify_all()

    def close(self, log: Log) -> bool:
        """End a step that waits, for a place or for its next try; where a try goes on, wait for that first.

        Returns whether it was this that ended it.
        """
        with self._guard:
            self._guard.wait_for(lambda: not self._active)
            if self._closed or self.outcome is not None:
                return False
            self._given_up(log)
            return True

    def ensure_outcome(self, result: Result, log: Log) -> None:
        """Note how its task ended, should that not have come from here: its orchestrator could not run it."""
        with self._guard:
            if self.outcome is None and self._last is not None:
                self.outcome = self._last
            if self.outcome is None:
                status: Literal["skipped", "failed"] = "skipped" if self._why is not None else "failed"
                self._end_without_a_try(status, self._why or result.message, log)

    def _given_up(self, log: Log) -> Result:
        """End without another try. With the guard held."""
        self._closed = True
        if self.outcome is None and self._last is not None:
            self.outcome = replace(self._last, reason=f"{self._last.reason}; not tried again: {self._stop.reason}")
        if self.outcome is None:
            self._end_without_a_try("cancelled", self._stop.reason, log)
        assert self.outcome is not None
        return Result("cancelled", self.outcome.reason or "")

    def _settled(self, log: Log) -> Result | None:
        """Return the result of a step that need not be tried: a success that still stands."""
        with self._guard:
            if self._closed or self._stop.over or self.step.name in resume.forced(self._facts):
                return None
            self._active = True
        with self._working():
            return self._kept(log)

    def _kept(self, log: Log) -> Result | None:
        try:
            made = resume.standing(self._facts, self.step, log)
        except (OSError, OrchctlError) as error:
            said = f"whether it has been done cannot be known: {error}"
            with self._guard:
                self._end_without_a_try("failed", said, log, error=error)
            return Result("failed", said)
        except Exception as error:  # noqa: BLE001 - a manifest can hold anything
            log(f"whether {self.step.name} has been done cannot be known, it runs again: {error}")
            return None
        if made is None:
            return None
        reason = f"the success of attempt {made['attempt']} still stands"
        self.outcome = StepOutcome(self.step.name, "kept", reason, made["attempt"], **made["timing"])
        self._record(log, made["attempt"]).tell(step_events.KEPT, reason)
        return Result("kept", reason)

    def _record(self, log: Log, attempt: int) -> Record:
        return Record(self._facts, log, attempt, step=self.step.name)

    def _next_attempt(self) -> int:
        """Return the number of the next try, counted over all attempts at the run."""
        made = self._facts.manifests.existing(self.step.name, self._facts.game_date, self._facts.run_id)
        if made is None:
            return 1
        # One that never began has left no log, and its number is free.
        begun = made["status"] not in {"skipped", "cancelled"} or made["timing"]["duration_s"] != 0.0
        return int(made["attempt"]) + (1 if begun else 0)

    def _end_without_a_try(
        self,
        status: Literal["skipped", "cancelled", "failed"],
        reason: str,
        log: Log,
        *,
        error: Exception | None = None,
    ) -> None:
        """End it, and record that. `error` is what went wrong with it, where it failed on our side."""
        unrecorded = None
        try:
            made = resume.worth_keeping(self._facts, self.step)
            if made is not None and (error is None or made["status"] == "success"):
                # The success of an earlier attempt, which this one did not come to look at: it may still stand.
                self._record(log, made["attempt"]).tell(step_events.FINISHED, reason, status=status)
            else:
                # What the try that went wrong has promoted, the next one can take as it is.
                carried = {} if made is None else {"promoting": made["promoting"]}
                record = self._record(log, self._next_attempt())
                unrecorded = record.end(status, reason=reason, **carried).unrecorded
        except OrchctlError as problem:
            # Nothing is written over what cannot be read: it may be a success.
            unrecorded = problem.message
        shown: StepStatus = "warned" if status == "failed" and self.step.optional else status
        kind = kind_of(error) if error is not None else None
        self.outcome = StepOutcome(self.step.name, shown, reason, kind=kind, unrecorded=unrecorded)

    def _once(self, log: Log) -> Result:
        now = time.monotonic()
        limit = self.step.timeout or self._facts.job.timeout
        this = Try(self._record(log, self._next_attempt()), log, now, min(now + limit, self._run_until))
        self._tried += 1
        try:
            try:
                Work(self._facts, self.step, self._stop, self._lock, this).do()
            except BaseException as error:
                raise as_broken(error, this) from error
        except Skipped as skip:
            return self._end(this, "skipped", reason=str(skip))
        except Broken as broken:
            if self._stop.is_set():
                return self._end(this, "cancelled", reason=self._stop.reason)
            return self._failed(this, broken)
        return self._end(this, "success")

    def _failed(self, this: Try, broken: Broken) -> Result:
        assert self._task is not None
        again = broken.failure.may_retry and self._tried <= self._task.retries and not self._stop.over
        result = self._end(this, "failed", error=broken.error, again=again)
        if again:
            delay = self._task.delay(self._tried)
            why = ": ".join(filter(None, (broken.error.message, _last_line(this.tail))))
            this.log(f"tried again in {delay:g} s ({broken.failure.kind}: {why})")
            about = {"error_class": broken.failure.kind, "delay_s": delay}
            this.record.tell(step_events.RETRY, why, **about)
        return result

    def _end(
        self,
        this: Try,
        status: Literal["success", "failed", "skipped", "cancelled"],
        *,
        reason: str | None = None,
        error: RunError | None = None,
        again: bool = False,
    ) -> Result:
        """Record how a try ended. A failure that will be tried again is not yet the step's outcome."""
        looks = self.step.outputs and status in {"success", "failed"}
        facts, ended = self._facts, this.ended
        duration = round(time.monotonic() - this.began, 3)
        values = facts.values(self.step.name)
        try:
            written = this.record.end(
                status,
                ended=ended,
                error=error,
                reason=reason,
                duration_s=duration,
                late=(lambda: {"outputs": facts.outputs(self.step.outputs, values, this.log)}) if looks else None,
                **this.found,
            )
            unrecorded = written.unrecorded
        except OrchctlError as problem:
            unrecorded = problem.message
        if this.pump is not None and this.pump.log_error is not None:
            this.log(f"the log is not whole: {this.pump.log_error}")
        said = reason or (error.message if error else None)
        began = (this.record.begun or {}).get("timing", {}).get("started_at")
        shown: StepStatus = "warned" if status == "failed" and self.step.optional else status
        outcome = StepOutcome(
            name=self.step.name,
            status=shown,
            reason=said,
            attempts=this.record.attempt,
            started_at=began,
            finished_at=format_instant(facts.host.now()),
            duration_s=duration,
            exit_code=ended.exit_code if ended is not None else None,
            tail=this.tail,
            kind=error.kind if error else None,
            unrecorded=unrecorded,
        )
        self._last = outcome
        if not again:
            self.outcome = outcome
        return Result(status, said or "", again)


def _last_line(tail: str) -> str:
    """Return the last line that a command wrote: most often it says why it gave up."""
    return next((line.strip()[:200] for line in reversed(tail.splitlines()) if line.strip()), "")
