"""One run of one job, from the slot rule to the manifest. Knows no Prefect: what it needs of it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchctl.adapters import files, host_facts
from orchctl.core import legacy_report, partition, steps
from orchctl.core import manifest as manifests_format
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import RunError
from orchctl.core.mask import Masker
from orchctl.core.names import is_run_id
from orchctl.core.slots import Verdict
from orchctl.errors import StateBroken
from orchctl.runner import environment, observe, shipping
from orchctl.runner.facts import Facts, Log, problem_of
from orchctl.runner.gate import Gate
from orchctl.runner.output import OutputPump
from orchctl.runner.process import CommandNotStarted, Ended, run_command
from orchctl.runner.record import Record, earlier_attempts
from orchctl.runner.shapes import Host, Outcome, Request
from orchctl.runner.steps import Dag
from orchctl.runner.tasks import Tasks, Threads
from orchctl.runner.whole import whole


def execute(
    request: Request,
    host: Host,
    log: Log,
    found: tuple[Catalog, Job] | None = None,
    tasks: Tasks | None = None,
) -> Outcome:
    """Serve a request: look the job up, apply the slot rule, run the command or the steps, leave a manifest.

    `found` is what `look_up` returned, where the caller has asked already. `tasks` runs the steps; None: plain threads.
    Raises StateBroken where the job is not in the applied catalog (nothing is run and no manifest can be written),
    OrchctlError where the run could not be recorded before it began. A failing command or step is no exception: it is
    an Outcome. Whatever interrupts the run (SIGTERM) is raised again after the end is on disk.
    """
    catalog, job = found or look_up(request, host)
    run = _Run(Facts.of(request, host, catalog, job), log, tasks or Threads(log))
    ended = False
    try:
        outcome = run.serve()
        ended = True
        return outcome
    finally:
        run.close(interrupted=not ended)


def look_up(request: Request, host: Host) -> tuple[Catalog, Job]:
    """Return the job by name and digest. The request can name a job; it can never say what one is."""
    catalog = host.applied.read(request.digest)
    if catalog is None:
        raise StateBroken(
            f"no catalog with digest {request.digest[:19]}… was applied on this host",
            hint="run `orchctl sync`",
        )
    job = catalog.jobs.get(request.job)
    if job is None:
        raise StateBroken(
            f"the applied catalog {request.digest[:19]}… has no job {request.job!r}",
            hint="run `orchctl sync`",
        )
    return catalog, job


class _Run:
    def __init__(self, facts: Facts, log: Log, tasks: Tasks) -> None:
        self.facts, self.log, self.tasks = facts, log, tasks
        self.beside: str | None = None
        self.request, self.host, self.job = facts.request, facts.host, facts.job

    def serve(self) -> Outcome:
        gate = Gate(self.request, self.host, self.job, self.facts.place.pid, self._beside)
        try:
            passed = gate.pass_(self.facts.run_id, self.facts.lock)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            # A cancel while it waits for its slot or for the lock: a slot it has claimed must not vanish.
            reason = f"interrupted by {type(error).__name__} before the command began"
            whole(lambda: self._without_command("cancelled", reason))
            raise
        self.facts = replace(self.facts, run_id=passed.run_id)
        if passed.lock is None:
            return self._not_run(passed.verdict)
        try:
            if self.facts.refused is not None:
                return self._not_run(Verdict("fail", self.facts.refused))
            if self.facts.execution == "steps":
                return Dag(self.facts, self.log, self.tasks, passed.lock.descriptor).run()
            return self._execute(passed.lock.descriptor)
        finally:
            passed.lock.release()

    def close(self, *, interrupted: bool) -> None:
        """Wait for what is on its way elsewhere: all is on disk by now, and the lock is free."""
        shipping.close(self.facts.ship, self.log, self._record().log_path, interrupted=interrupted)

    def _beside(self) -> str | None:
        """Return the run that holds the job's own lock and makes this very partition, None where none does."""
        recorded = self.host.locks.recorded(self.job.name)
        if recorded is None or not is_run_id(recorded[0]):
            return None
        made = self.facts.manifests.existing(self.job.asset, self.facts.game_date, recorded[0])
        if made is None or made.get("status") != "running":
            return None
        place = manifests_format.place_of(made["environment"])
        same = partition.is_of(made["partition"], self.job, self.facts.keys)
        if not same or place is None or host_facts.is_gone(place):
            return None
        if self.beside != recorded[0]:
            self.beside = recorded[0]
            self.log(f"waiting for run {self.beside}, which makes the same partition")
        return self.beside

    def _not_run(self, verdict: Verdict) -> Outcome:
        """Record that nothing ran. A retry that may not run leaves the failure that it was to mend."""
        if self.request.attempt > 1 and earlier_attempts(self.facts.directory(), self.request.attempt):
            reason = f"not tried again: {verdict.reason}"
            self.log(reason)
            return self._without_command("failed", reason)
        if verdict.kind == "observe":
            return self._observed(verdict.reason)
        if verdict.kind == "fail":
            self.log(f"not run: {verdict.reason}")
            return self._without_command("failed", verdict.reason)
        self.log(f"skipped: {verdict.reason}")
        return self._without_command("skipped", verdict.reason)

    def _observed(self, reason: str | None) -> Outcome:
        would, masker = self._would()
        self.log(f"observing ({reason}): {would}")
        if self.facts.refused is not None:
            self.log(f"it could not be run: {self.facts.refused}")
        try:
            dry_run = self._dry_run(masker)
            said = "; ".join(filter(None, (reason, self._seen(), dry_run)))
        except BaseException as error:
            if not isinstance(error, Exception):
                interrupted = f"interrupted by {type(error).__name__} while it observed"
                whole(lambda: self._without_command("cancelled", interrupted))
            raise
        return replace(whole(lambda: self._without_command("observed", said)), tail=would)

    def _would(self) -> tuple[str, Masker]:
        """Return what would have run, and what masks its secrets."""
        values = self.facts.values()
        command = self.facts.command(self.job.command, values, log=self.log, timeout_s=self.job.timeout)
        masker = self.facts.masker(command)
        if command.unfit is not None:
            self.log(f"it could not be started: {command.unfit.message}")
        if self.facts.execution == "steps":
            chosen = steps.order(self.facts.selected())
            plural = "s" if len(chosen) != 1 else ""
            names = ", ".join(step.name for step in chosen)
            return f"would have run {len(chosen)} step{plural} ({names}) in {command.cwd}", masker
        argv = legacy_report.masked(masker.mask(" ".join(command.argv)), {})
        return f"would have run {argv} in {command.cwd}", masker

    def _dry_run(self, masker: Masker) -> str | None:
        argv = self.job.dry_run_command
        if argv is None:
            return None
        with observe.scratch(self.facts.who.account) as folder:
            values = {**self.facts.values(), "run_dir": folder}
            command = self.facts.command(argv, values, log=self.log, timeout_s=self.job.timeout)
            log_path = self._record().log_path
            files.make_directory(log_path.parent, mode=0o755)
            also = shipping.to_lines(self.facts.ship, self.facts.about(self.request.attempt))
            pump = OutputPump(log_path=log_path, masker=masker, emit=self.log, also=also)
            return observe.dry_run(command, pump, masker, lambda pid: self.facts.tell_of(command, pid))

    def _seen(self) -> str | None:
        if self.host.eyes is None or self.request.slot is None:
            return None
        return observe.seen(self.job, self.request.slot, self.facts.catalog.timezone, self.host.eyes, self.host.sleep)

    def _without_command(self, status: manifests_format.Status, reason: str | None) -> Outcome:
        written = self._record().end(status, reason=reason)
        return Outcome(status, self.facts.run_id, reason, manifest_path=written.path)

    def _record(self) -> Record:
        return Record(self.facts, self.log, self.request.attempt)

    def _execute(self, lock_descriptor: int) -> Outcome:
        facts, record = self.facts, self._record()
        command = facts.command(
            self.job.command,
            facts.values(),
            log=self.log,
            timeout_s=self.job.timeout,
            inherit_fds=(lock_descriptor,),
        )
        masker = facts.masker(command)
        also = shipping.to_lines(facts.ship, facts.about(record.attempt))
        pump = OutputPump(log_path=record.log_path, masker=masker, emit=self.log, also=also)
        end = _End(facts, record, pump, self.log)
        ended: list[Ended] = []
        try:
            whole(record.begin)
            environment.own_folder(record.directory, facts.who.account)
            run_command(command, pump, on_started=lambda pid: facts.tell_of(command, pid), on_ended=ended.append)
            return whole(lambda: end.judged(ended[0]))
        except CommandNotStarted as error:
            if error.hint is not None:
                self.log(f"hint: {masker.mask(error.hint)}")
            problem = RunError("NotStarted", masker.mask(error.message))
            shell_code = error.shell_code
            return whole(lambda: end.write("failed", None, problem, exit_code=shell_code))
        except BaseException as error:
            end.broken_off(error, ended[0] if ended else None, masker)
            raise


class _End:
    """How the run of a job's one command ends, on disk and for the caller."""

    def __init__(self, facts: Facts, record: Record, pump: OutputPump, log: Log) -> None:
        self._facts, self._record, self._pump, self._log = facts, record, pump, log

    def judged(self, ended: Ended) -> Outcome:
        if ended.left_alive:
            self._log(f"{ended.left_alive} processes of the command could not be killed and may still run")
        error = problem_of(ended, self._facts.job.timeout, self._pump.tail())
        return self.write("failed" if error else "success", ended, error)

    def broken_off(self, error: BaseException, ended: Ended | None, masker: Masker) -> None:
        """Record what ended the run, unless its start could not be recorded, or its end has been."""
        if self._record.begun is None or self._record.ended:
            return
        if isinstance(error, Exception):
            problem = RunError(type(error).__name__, masker.mask(str(error)), self._pump.tail())
            whole(lambda: self.write("failed", ended, problem))
            return
        # SIGTERM from Prefect (a cancel, or a worker that stops) or Ctrl-C: the record first, then onwards.
        reason = f"interrupted by {type(error).__name__}"
        whole(lambda: self.write("cancelled", ended, None, reason=reason))

    def write(
        self,
        status: manifests_format.Status,
        ended: Ended | None,
        error: RunError | None,
        *,
        reason: str | None = None,
        exit_code: int | None = None,
    ) -> Outcome:
        # Looking at the outputs may take long. Who interrupted the run waits for it.
        looks = self._facts.job.outputs and status != "cancelled"
        written = self._record.end(
            status,
            ended=ended,
            error=error,
            reason=reason,
            exit_code=exit_code,
            late=self._outputs if looks else None,
        )
        if self._pump.log_error is not None:
            self._log(f"the log is not whole: {self._pump.log_error}")
        said = reason or (error.message if error else None)
        code = ended.exit_code if ended is not None else exit_code
        run_id, tail = self._facts.run_id, self._pump.tail()
        return Outcome(status, run_id, said, code, tail, written.path, written.unrecorded)

    def _outputs(self) -> dict[str, Any]:
        facts = self._facts
        return {"outputs": facts.outputs(facts.job.outputs, facts.values(), self._log)}
