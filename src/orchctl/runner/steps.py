"""A run of a job's steps: each as soon as those it needs have ended, side by side. Knows no Prefect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from orchctl.adapters import files
from orchctl.core import steps
from orchctl.core.catalog import Job
from orchctl.core.catalog_steps import StepTable
from orchctl.core.durations import human
from orchctl.core.manifest import RunError
from orchctl.core.steps import GOOD
from orchctl.errors import OrchctlError
from orchctl.runner import environment, publish
from orchctl.runner.facts import Facts, Log
from orchctl.runner.record import Record
from orchctl.runner.shapes import Outcome
from orchctl.runner.step import StepOutcome, StepRun
from orchctl.runner.tasks import Result, Stop, Tasks
from orchctl.runner.whole import whole

_LONGEST_WAIT_S = 3600.0


class Dag:
    """The steps of one run. `lock_descriptor` is the run's lock, which each command inherits."""

    def __init__(self, facts: Facts, log: Log, tasks: Tasks, lock_descriptor: int) -> None:
        self._facts, self._tasks = facts, tasks
        self._record = Record(facts, log, facts.request.attempt)
        self._progress = _Progress(log, self._record.log_path)
        self._stop = Stop()
        self._woken = threading.Event()
        self._began = time.monotonic()
        self._until = self._began + facts.job.timeout
        self._steps = steps.order(facts.selected())
        self._needs = _needs_among(facts.job, self._steps)
        self._runs = {
            step.name: StepRun(facts, step, self._stop, run_until=self._until, lock_descriptor=lock_descriptor)
            for step in self._steps
        }
        self._started: set[str] = set()
        self._told: set[str] = set()

    def run(self) -> Outcome:
        """Run them and record how it went.

        Raises OrchctlError where the start could not be recorded: then nothing ran. What interrupts it is raised again
        when all that ran has been stopped, and is on disk.
        """
        try:
            whole(lambda: self._record.begin(steps=self._rows()))
            environment.own_folder(self._record.directory, self._facts.who.account)
            publish.sweep(self._facts.job.data_root, now=self._facts.host.now())
            self._go()
            return whole(self._end)
        except BaseException as error:
            if self._record.begun is None or self._record.ended:
                raise
            self._break_off(error)
            raise

    def _break_off(self, error: BaseException) -> None:
        """Stop everything and record it. SIGTERM from Prefect or Ctrl-C: the record first, then onwards."""
        name = type(error).__name__
        interrupted = not isinstance(error, Exception)
        self._stop.interrupt(f"interrupted by {name}" if interrupted else f"the run failed: {name}: {error}")
        whole(self._give_up)
        if interrupted:
            whole(lambda: self._write("cancelled", reason=self._stop.reason))
        else:
            whole(lambda: self._write("failed", error=RunError(name, str(error))))

    def _go(self) -> None:
        while True:
            self._woken.clear()
            self._tell()
            ready = self._ready()
            for name in ready:
                self._start(name)
            if not ready and not self._going():
                return
            left = self._until - time.monotonic()
            if left <= 0:
                self._stop.finish(f"the run's time-out of {human(self._facts.job.timeout)} is over")
                self._give_up()
                return
            self._woken.wait(min(left, _LONGEST_WAIT_S))

    def _going(self) -> list[str]:
        return [name for name in self._started if self._runs[name].outcome is None]

    def _ready(self) -> list[str]:
        """Return the steps that may begin now, at most as many as there are places; those to skip need none."""
        places = self._facts.job.parallel_steps - len(self._going())
        found = []
        for step in self._steps:
            needed = [self._runs[name].outcome for name in self._needs[step.name]]
            if step.name in self._started or any(outcome is None for outcome in needed):
                continue
            if all(outcome is not None and outcome.status in GOOD for outcome in needed):
                if places <= 0:
                    continue
                places -= 1
            found.append(step.name)
        return found

    def _start(self, name: str) -> None:
        run = self._runs[name]
        why = self._why_skipped(name)
        task = run.skip(why) if why else run.task()
        # Before it is started: whatever breaks in here, it is waited for, or closed.
        self._started.add(name)
        if not why:
            self._progress.say(f"{name}: started")
        self._tasks.start(task, lambda result: self._done(run, result))

    def _done(self, run: StepRun, result: Result) -> None:
        """Note that a task has ended, whatever its orchestrator made of it."""
        run.ensure_outcome(result, self._progress.say)
        self._woken.set()

    def _why_skipped(self, name: str) -> str | None:
        """Return why a step is skipped, None where it may run: the steps that failed are named, not those between."""
        above = steps.ancestors(self._facts.job.steps, name)
        outcomes = [self._runs[each].outcome for each in above if each in self._runs]
        found = [outcome for outcome in outcomes if outcome is not None]
        if failed := sorted(outcome.name for outcome in found if outcome.status == "failed"):
            return f"upstream failed: {', '.join(failed)}"
        if skipped := sorted(outcome.name for outcome in found if outcome.status in {"skipped", "cancelled"}):
            return f"upstream skipped: {', '.join(skipped)}"
        return None

    def _give_up(self) -> None:
        """Wait for the tries that go on, and end the steps that wait, or have not begun."""
        for step in self._steps:
            if self._runs[step.name].close(self._progress.say) and step.name in self._started:
                self._tasks.close(step.name, self._stop.reason)
        self._tell()

    def _tell(self) -> None:
        for step in self._steps:
            outcome = self._runs[step.name].outcome
            if outcome is not None and step.name not in self._told:
                self._told.add(step.name)
                self._progress.say(_said(outcome))

    def _outcomes(self) -> list[StepOutcome]:
        found = (self._runs[step.name].outcome for step in self._steps)
        return [outcome for outcome in found if outcome is not None]

    def _rows(self) -> list[dict[str, Any]]:
        """Return the lines of the run's manifest: how each step ended, or that it waits."""
        waiting = {"status": "waiting", "reason": None, "attempts": 0}
        blank = {**waiting, "started_at": None, "finished_at": None, "duration_s": None}
        by_name = {outcome.name: outcome.row() for outcome in self._outcomes()}
        return [by_name.get(step.name, {"name": step.name, **blank}) for step in self._steps]

    def _end(self) -> Outcome:
        if self._stop.over:
            timed_out = f"stopped after its time-out of {human(self._facts.job.timeout)}"
            return self._write("failed", error=RunError("TimedOut", timed_out, kind="timeout"))
        failed = [outcome for outcome in self._outcomes() if outcome.status == "failed"]
        if not failed:
            return self._write("success", reason=_notes(self._outcomes()))
        first = failed[0]
        said = [f"{outcome.name} ({outcome.reason})" for outcome in failed]
        message = f"step {first.name} failed: {first.reason}"
        if len(failed) > 1:
            message = f"{len(failed)} steps failed: {', '.join(said)}"
        error = RunError("StepFailed", message, first.tail or None, first.kind)
        # A command that ended well and broke its contract has no exit code that tells of it.
        return self._write("failed", error=error, exit_code=first.exit_code or None)

    def _write(
        self,
        status: Literal["success", "failed", "cancelled"],
        *,
        error: RunError | None = None,
        reason: str | None = None,
        exit_code: int | None = None,
    ) -> Outcome:
        facts, log = self._facts, self._progress.say
        looks = facts.job.outputs and status != "cancelled"
        written = self._record.end(
            status,
            error=error,
            reason=reason,
            exit_code=exit_code,
            duration_s=time.monotonic() - self._began,
            late=(lambda: {"outputs": facts.outputs(facts.job.outputs, facts.values(), log)}) if looks else None,
            steps=self._rows(),
        )
        lost = [f"{each.name}: {each.unrecorded}" for each in self._outcomes() if each.unrecorded]
        unrecorded = "; ".join(filter(None, (written.unrecorded, *lost))) or None
        said = reason or (error.message if error else None)
        tail = (error.snippet if error else None) or ""
        return Outcome(status, facts.run_id, said, exit_code, tail, written.path, unrecorded)


class _Progress:
    """What the run itself says, beside its steps: to its orchestrator and, while the disk takes it, to its own log."""

    def __init__(self, log: Log, path: Path) -> None:
        self._log, self._path = log, path

    def say(self, line: str) -> None:
        """Log a line. Raises nothing."""
        self._log(line)
        try:
            files.append_line(self._path, f"{line}\n".encode("utf-8", "backslashreplace"))
        except OrchctlError as error:
            self._log(f"the run's own log is not whole: {error.message}")


def _needs_among(job: Job, chosen: tuple[StepTable, ...]) -> dict[str, tuple[str, ...]]:
    """Return what each step waits for among those that are run: also over steps between that are not."""
    names = {step.name for step in chosen}
    needs = {step.name: steps.needs(step) for step in job.steps}

    def waits_for(name: str) -> Iterator[str]:
        seen: set[str] = set()
        left = list(reversed(needs[name]))
        while left:
            each = left.pop()
            if each in names:
                yield each
            elif each not in seen:
                seen.add(each)
                left += reversed(needs[each])

    return {step.name: tuple(dict.fromkeys(waits_for(step.name))) for step in chosen}


def _said(outcome: StepOutcome) -> str:
    took = f" in {human(outcome.duration_s)}" if outcome.duration_s is not None and outcome.status != "kept" else ""
    shown = "failed, and is optional" if outcome.status == "warned" else outcome.status
    return f"{outcome.name}: {shown}{took}" + (f" ({outcome.reason})" if outcome.reason else "")


def _notes(outcomes: list[StepOutcome]) -> str | None:
    """Return what is worth knowing of a run that succeeded all the same."""
    warned = [f"{each.name} failed and is optional ({each.reason})" for each in outcomes if each.status == "warned"]
    skipped = [f"{each.name} was skipped ({each.reason})" for each in outcomes if each.status == "skipped"]
    return "; ".join((*warned, *skipped)) or None
