"""The work of one try of a step, in order: inputs, contracts, command, contracts, publishing. Knows no Prefect."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from orchctl.core import failures, step_events, templates
from orchctl.core.catalog_steps import ContractUse, StepTable
from orchctl.core.failures import ErrorClass, Failure
from orchctl.core.manifest import RunError
from orchctl.core.mask import Masker
from orchctl.core.names import parse_instant
from orchctl.errors import NotAllowed, OrchctlError, PublishError, PublishNotAllowed
from orchctl.runner import contracts, environment, inputs, publish, resume, shipping
from orchctl.runner.contracts import Boundary
from orchctl.runner.facts import Facts, Log, problem_of
from orchctl.runner.inputs import Input
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, CommandNotStarted, Ended, run_command
from orchctl.runner.record import Record
from orchctl.runner.tasks import Stop


class Broken(Exception):
    """A try of the step failed, with what is to be recorded of it. Stays inside the runner."""

    def __init__(self, error: RunError, failure: Failure) -> None:
        super().__init__(error.message)
        self.error, self.failure = replace(error, kind=failure.kind), failure


class Skipped(Exception):
    """An input that is missing skips the step."""


@dataclass
class Try:
    """What one try has come to so far."""

    record: Record
    log: Log
    began: float
    deadline: float
    inputs: tuple[Input, ...] = ()
    ended: Ended | None = None
    pump: OutputPump | None = None
    masker: Masker = field(default_factory=lambda: Masker(()))
    found: dict[str, Any] = field(default_factory=dict)
    """Fields of the manifest: inputs, checks, publish."""

    @property
    def left_s(self) -> float:
        """Seconds that are left for it."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def tail(self) -> str:
        """The end of the command's output so far, secrets masked."""
        return self.pump.tail() if self.pump is not None else ""


def kind_of(error: BaseException) -> ErrorClass:
    """Return the class of an error of our own: of the disk, of publishing, or any other."""
    if isinstance(error, (NotAllowed, PublishNotAllowed, PermissionError)):
        return "permission"
    return "publish" if isinstance(error, PublishError) else "other"


def as_broken(error: BaseException, this: Try) -> BaseException:
    """Return what a try ended with as `Broken`, whatever it was; a step that is skipped stays that."""
    if isinstance(error, (Broken, Skipped)):
        return error
    mask, name = this.masker.mask, type(error).__name__
    if isinstance(error, CommandNotStarted):
        if error.hint is not None:
            this.log(f"hint: {mask(error.hint)}")
        return Broken(RunError("NotStarted", mask(error.message)), failures.judge(error.shell_code, error.message))
    kind = failures.of(kind_of(error))
    if isinstance(error, OrchctlError):
        kind = replace(kind, may_retry=False)
        if error.hint is not None:
            this.log(f"hint: {mask(error.hint)}")
        return Broken(RunError(name, mask(error.message), this.tail or None), kind)
    return Broken(RunError(name, mask(str(error)), this.tail or None), kind)


class Work:
    """The work of one try, in order. What it finds goes into the try; what goes wrong is raised."""

    def __init__(self, facts: Facts, step: StepTable, stop: Stop, lock_descriptor: int, this: Try) -> None:
        self._facts, self._step, self._stop, self._lock, self._this = facts, step, stop, lock_descriptor, this

    def do(self) -> None:
        """Do it all. Raises `Broken`, `Skipped`, or whatever `as_broken` makes `Broken` of."""
        this = self._this
        problem: OSError | OrchctlError | None = None
        # Before the start of this try replaces the record of the last.
        try:
            before = resume.announced(self._facts, self._step)
        except PublishError:
            this.found |= resume.announcement(self._facts, self._step)  # so that the next try can look once more
            raise
        if before is not None:
            self._adopt(before)
            return
        promise = resume.promise(self._facts, self._step)
        try:
            this.inputs = inputs.resolve(self._facts, self._step)
            this.found["inputs"] = [each.to_json() for each in this.inputs]
        except (OSError, OrchctlError) as error:
            problem = error
        this.record.begin(**this.found, **promise)
        if problem is not None:
            kind = failures.of("permission" if isinstance(problem, (PermissionError, NotAllowed)) else "input")
            raise Broken(RunError("InputUnreadable", f"an input cannot be looked at: {problem}"), kind)
        self._mind_the_gaps()
        environment.own_folder(this.record.directory, self._facts.who.account)
        staging = self._open_staging()
        try:
            self._run(staging)
        finally:
            if staging is not None:
                publish.close_staging(staging)

    def _adopt(self, before: Mapping[str, Any]) -> None:
        """Take what an attempt that was killed has promoted as it is; `before` is that attempt's manifest."""
        this = self._this
        this.found |= {"inputs": before.get("inputs") or [], "checks": before.get("checks") or []}
        this.record.begin(**this.found, promoting=before["promoting"])
        this.log(f"{before['promoting']['to']} was published by an attempt that was killed: it is taken as it is")
        self._publish(None)

    def _mind_the_gaps(self) -> None:
        for each in self._this.inputs:
            if each.gap is None:
                continue
            said = f"missing input {each.table.name}: {each.gap}"
            if each.table.missing == "fail":
                raise Broken(RunError("InputMissing", said), failures.of("input"))
            if each.table.missing == "skip":
                raise Skipped(said)
            self._this.log(f"{said}; it runs without")

    def _open_staging(self) -> Path | None:
        """Return a directory for what the step makes; None where it neither publishes nor asks for one."""
        facts, step = self._facts, self._step
        texts = (*step.command, *step.env.values(), *facts.job.env.values())
        asked = any(templates.STAGING in templates.words_in(text) for text in texts)
        if step.publish is None and not asked and all(use.input for use in step.contracts):
            return None
        directory = self._this.record.directory
        if step.publish is not None:
            publish.check_place(step.publish, self._words(None), directory)
        left_s = self._this.left_s
        return publish.open_staging(directory, facts.job.data_root, facts.place, facts.who.account, lasts_s=left_s)

    def _words(self, staging: Path | None) -> dict[str, str]:
        own = {templates.STAGING: str(staging)} if staging is not None else {}
        return {**self._facts.values(self._step.name), **own, **inputs.words(self._this.inputs)}

    def _run(self, staging: Path | None) -> None:
        facts, step, this = self._facts, self._step, self._this
        command = facts.command(
            step.command,
            self._words(staging),
            log=this.log,
            timeout_s=this.left_s,
            env=step.env,
            inherit_fds=(self._lock,),
        )
        this.masker = facts.masker(command)
        also = shipping.to_lines(facts.ship, facts.about(this.record.attempt, step.name))
        this.pump = OutputPump(log_path=this.record.log_path, masker=this.masker, emit=this.log, also=also)
        self._check(self._of_inputs(), command)
        command = replace(command, timeout_s=this.left_s)
        try:
            run_command(
                command,
                this.pump,
                stop=self._stop,
                on_started=lambda pid: facts.tell_of(command, pid),
                on_ended=self._ended,
                main_thread_waits=True,
            )
        finally:
            facts.host.tell(ended=command.token)
        self._judge(command)
        if staging is not None:
            self._check(self._of_outputs(staging), command)
        if step.publish is not None and staging is not None:
            self._publish(staging)

    def _ended(self, ended: Ended) -> None:
        self._this.ended = ended

    def _judge(self, command: Command) -> None:
        ended, this = self._this.ended, self._this
        assert ended is not None
        if ended.left_alive:
            this.log(f"{ended.left_alive} processes of the command could not be killed and may still run")
        limit = self._step.timeout or self._facts.job.timeout
        error = problem_of(ended, limit if command.timeout_s > limit - 1 else command.timeout_s, this.tail)
        if error is None and self._stop.is_set():
            error = RunError("Stopped", self._stop.reason, this.tail)
        if error is not None:
            permanent = self._step.permanent
            judged = failures.judge(ended.exit_code, this.tail, timed_out=ended.timed_out, permanent=permanent)
            raise Broken(error, judged)

    def _of_inputs(self) -> list[Boundary]:
        by_name = {each.table.name: each for each in self._this.inputs}
        uses = [(use, by_name[use.input]) for use in self._step.contracts if use.input is not None]
        return [self._boundary(use, Path(read.path), read.snapshot) for use, read in uses if read.gap is None]

    def _of_outputs(self, staging: Path) -> list[Boundary]:
        return [self._boundary(use, staging, None) for use in self._step.contracts if use.input is None]

    def _boundary(self, use: ContractUse, root: Path, snapshot: datetime | None) -> Boundary:
        table = self._facts.catalog.contracts[use.contract]
        glob = templates.render(use.file, self._facts.values(self._step.name))
        return Boundary(use.contract, table, root, glob, self._facts.as_of, snapshot)

    def _check(self, boundaries: Sequence[Boundary], command: Command) -> None:
        """Check contracts. Raises Broken where one does not hold."""
        if not boundaries:
            return
        facts, this = self._facts, self._this
        found = contracts.check(
            boundaries,
            cwd=facts.job.working_directory,
            env=command.env,
            timeout_s=this.left_s,
            stop=self._stop,
            account=facts.who.account,
        )
        # Findings show values of the data.
        found = tuple(each.masked(this.masker.mask) for each in found)
        this.found["checks"] = [*this.found.get("checks", ()), *(each.to_json() for each in found)]
        for each in found:
            status = "ok" if each.holds else "broken"
            about = {"contract": each.contract, "file": each.file, "status": status, "findings": len(each.findings)}
            this.record.tell(step_events.CHECKED, None if each.holds else each.message, **about)
            this.log(each.message)
        broken = "; ".join(each.message for each in found if not each.holds)
        if broken:
            raise Broken(RunError("ContractBroken", broken), failures.of("contract"))

    def _publish(self, staging: Path | None) -> None:
        facts, this = self._facts, self._this
        assert self._step.publish is not None
        done = publish.publish(
            self._step.publish,
            values=facts.values(self._step.name),
            staging=staging,
            asset=self._step.name,
            game_date=facts.game_date,
            run_id=facts.run_id,
            as_of=facts.as_of,
            manifest_path=this.record.directory / "manifest.json",
            now=facts.host.now,
            until=self._until,
            announce=lambda told: this.record.note(checks=this.found.get("checks", []), promoting=told),
        )
        this.found["publish"] = dict(done.record)
        this.log(f"published to {done.to}; current: {done.record['current']}")
        for name, about in done.events:
            this.record.tell(name, about.get("reason"), **{key: about[key] for key in about if key != "reason"})

    def _until(self) -> datetime | None:
        """Return the end of the window of publishing; None where it cannot be known, which is logged."""
        facts, rule = self._facts, self._step.publish
        assert rule is not None
        try:
            until = rule.until or ""
            if until in facts.job.as_of:
                return facts.host.as_of(facts.job, until, facts.game_date, facts.keys)
            return parse_instant(templates.render(until, facts.values(self._step.name)))
        except (OrchctlError, ValueError) as error:
            said = self._this.masker.mask(str(error))
            self._this.log(f"the end of the window of {self._step.name} is not known: {said}")
            return None
