"""One run of one job, from the slot rule to the manifest. Knows no Prefect: what it needs of it is given."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orchctl
from orchctl.core import manifest as manifests_format
from orchctl.core import slots, templates
from orchctl.core.catalog import Catalog, Job
from orchctl.core.durations import human
from orchctl.core.manifest import Identity, RunError
from orchctl.core.mask import Masker
from orchctl.core.names import format_instant, run_id
from orchctl.core.slots import Verdict
from orchctl.errors import OrchctlError, StateBroken
from orchctl.runner import environment, observe
from orchctl.runner.gate import Gate
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, CommandNotStarted, Ended, run_command
from orchctl.runner.shapes import Host, Outcome, Request
from orchctl.runner.whole import whole

Log = Callable[[str], None]


def execute(request: Request, host: Host, log: Log, found: tuple[Catalog, Job] | None = None) -> Outcome:
    """Serve a request: look the job up, apply the slot rule, run the command, leave a manifest.

    `found` is what `look_up` returned, where the caller has asked already. Raises StateBroken where the job is not
    in the applied catalog (nothing is run and no manifest can be written), OrchctlError where the run could not be
    recorded before it began. A failing command is no exception: it is an Outcome. Whatever interrupts the run
    (SIGTERM) is raised again after the end is on disk.
    """
    catalog, job = found or look_up(request, host)
    return _Run(request, host, log, catalog, job).serve()


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
    def __init__(self, request: Request, host: Host, log: Log, catalog: Catalog, job: Job) -> None:
        self.request, self.host, self.log, self.job = request, host, log, job
        self.manifests = host.manifests(job.data_root)
        self.place = host.place()
        self.run_id = run_id(request.expected_start, request.flow_run_id)
        self.zone = catalog.timezone
        self.who = environment.who(job.user)
        instant = request.slot or request.expected_start
        self.game_date = request.game_date or slots.game_date(job, instant, catalog.timezone)
        self.as_of = request.as_of or instant.replace(microsecond=0)
        self.begun: dict[str, Any] | None = None
        self.recorded = False

    def serve(self) -> Outcome:
        gate = Gate(self.request, self.host, self.job, self.place.pid)
        try:
            passed = gate.pass_(self.run_id)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            # A cancel while it waits for its slot or for the lock: a slot it has claimed must not vanish.
            reason = f"interrupted by {type(error).__name__} before the command began"
            whole(lambda: self._without_command("cancelled", reason))
            raise
        self.run_id = passed.run_id
        if passed.lock is None:
            return self._not_run(passed.verdict)
        try:
            return self._execute(passed.lock.descriptor)
        finally:
            passed.lock.release()

    def _not_run(self, verdict: Verdict) -> Outcome:
        """Record that nothing ran. A retry that may not run leaves the failure that it was to mend."""
        if self.request.attempt > 1 and _earlier_attempts(self._directory(), self.request.attempt):
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

    def _manifest(self, mode: str, at: datetime) -> dict[str, Any]:
        who = Identity(
            job=self.job.name,
            asset=self.job.asset,
            run_id=self.run_id,
            game_date=self.game_date,
            as_of=self.as_of,
            slot=self.request.slot,
            trigger=self.request.trigger,
            mode="observe" if mode == "observe" else "live",
            attempt=self.request.attempt,
        )
        facts = {
            "git_sha": self.host.git_sha(self.job.working_directory),
            "code_version": f"orchctl {orchctl.__version__}",
            "python": sys.version.split()[0],
            "orchestrator_run_id": self.request.flow_run_id,
            "catalog_digest": self.request.digest,
        }
        manifest = manifests_format.started(who, self.place, facts, at=at)
        manifest["attempts"] = _earlier_attempts(self._directory(), self.request.attempt)
        return manifest

    def _directory(self) -> Path:
        return self.manifests.run_directory(self.job.asset, self.game_date, self.run_id)

    def _observed(self, reason: str | None) -> Outcome:
        command = self._command(self.job.command, self._values())
        masker = Masker.of({**self.host.environment, **command.env})
        would = f"would have run {masker.mask(' '.join(command.argv))} in {command.cwd}"
        self.log(f"observing ({reason}): {would}")
        if command.unfit is not None:
            self.log(f"it could not be started: {command.unfit.message}")
        try:
            dry_run = self._dry_run(masker)
            said = "; ".join(filter(None, (reason, self._seen(), dry_run)))
        except BaseException as error:
            if not isinstance(error, Exception):
                interrupted = f"interrupted by {type(error).__name__} while it observed"
                whole(lambda: self._without_command("cancelled", interrupted))
            raise
        return replace(whole(lambda: self._without_command("observed", said)), tail=would)

    def _dry_run(self, masker: Masker) -> str | None:
        if self.job.dry_run_command is None:
            return None
        with observe.scratch(self.who.account) as folder:
            command = self._command(self.job.dry_run_command, {**self._values(), "run_dir": folder})
            log_path = self._directory() / f"attempt-{self.request.attempt}.log"
            return observe.dry_run(command, log_path, masker, self.log, lambda pid: self._tell_of(command, pid))

    def _seen(self) -> str | None:
        if self.host.eyes is None or self.request.slot is None:
            return None
        return observe.seen(self.job, self.request.slot, self.zone, self.host.eyes, self.host.sleep)

    def _without_command(self, status: manifests_format.Status, reason: str | None) -> Outcome:
        now = self.host.now()
        mode = "observe" if status == "observed" else "live"
        manifest = manifests_format.finished(self._manifest(mode, now), status, at=now, duration_s=0.0, reason=reason)
        path = self.manifests.write(manifest)
        self.manifests.append(manifests_format.event(manifests_format.final_event_name(status), manifest, at=now))
        return Outcome(status, self.run_id, reason, manifest_path=str(path))

    def _values(self) -> dict[str, str]:
        return {
            "game_date": self.game_date.isoformat(),
            "run_id": self.run_id,
            "run_as_of_ts": format_instant(self.as_of),
            "data_root": self.job.data_root,
            "run_dir": str(environment.folder(self._directory(), self.who.account)),
            "slot": format_instant(self.request.slot) if self.request.slot else "",
            "job": self.job.name,
            "step": "",
        }

    def _environment(self, values: Mapping[str, str], read: Mapping[str, str]) -> dict[str, str]:
        """Return the command's environment: the worker's, less what is Prefect's, with the job's and ours on top.

        `read` are the variables of the job's files.
        """
        inherited = environment.inherited(self.host.environment, self.who.account)
        own = {key: templates.render(text, values) for key, text in self.job.env.items()}
        return {**inherited, **own, **read, **{f"ORCHCTL_{key.upper()}": value for key, value in values.items()}}

    def _command(
        self, argv: tuple[str, ...], values: Mapping[str, str], *, inherit_fds: tuple[int, ...] = ()
    ) -> Command:
        read = environment.variables(self.job.env_files)
        for note in read.notes:
            self.log(note)
        return Command(
            argv=tuple(templates.render(text, values) for text in argv),
            cwd=self.job.working_directory,
            env=self._environment(values, read.values),
            timeout_s=self.job.timeout,
            kill_after_s=self.job.kill_after,
            nice=self.job.nice,
            inherit_fds=inherit_fds,
            token=uuid.uuid4().hex,
            account=self.who.account,
            unfit=self.who.unfit or read.unfit,
        )

    def _execute(self, lock_descriptor: int) -> Outcome:
        values = self._values()
        command = self._command(self.job.command, values, inherit_fds=(lock_descriptor,))
        masker = Masker.of({**self.host.environment, **command.env})
        log_path = self._directory() / f"attempt-{self.request.attempt}.log"
        pump = OutputPump(log_path=log_path, masker=masker, emit=self.log)
        ended: list[Ended] = []
        try:
            whole(self._begin)
            environment.own_folder(self._directory(), self.who.account)
            run_command(command, pump, on_started=lambda pid: self._tell_of(command, pid), on_ended=ended.append)
            return whole(lambda: self._judged(ended[0], pump))
        except CommandNotStarted as error:
            if error.hint is not None:
                self.log(f"hint: {masker.mask(error.hint)}")
            problem = RunError("NotStarted", masker.mask(error.message))
            shell_code = error.shell_code
            return whole(lambda: self._end("failed", None, pump, problem, exit_code=shell_code))
        except BaseException as error:
            self._broken_off(error, ended[0] if ended else None, pump, masker)
            raise

    def _broken_off(self, error: BaseException, ended: Ended | None, pump: OutputPump, masker: Masker) -> None:
        """Record what ended the run, unless its start could not be recorded, or its end has been."""
        if self.begun is None or self.recorded:
            return
        if isinstance(error, Exception):
            problem = RunError(type(error).__name__, masker.mask(str(error)), pump.tail())
            whole(lambda: self._end("failed", ended, pump, problem))
            return
        # SIGTERM from Prefect (a cancel, or a worker that stops) or Ctrl-C: the record first, then onwards.
        reason = f"interrupted by {type(error).__name__}"
        whole(lambda: self._end("cancelled", ended, pump, None, reason=reason))

    def _tell_of(self, command: Command, pid: int) -> None:
        self.host.tell(
            command=pid,
            token=command.token,
            kill_after=command.kill_after_s,
            ends_by=time.monotonic() + command.timeout_s,
        )

    def _begin(self) -> None:
        """Record the start: the event first, so that no run is ever invisible, then the manifest."""
        now = self.host.now()
        manifest = self._manifest("live", now)
        self.manifests.append(manifests_format.event("run_started", manifest, at=now))
        self.manifests.write(manifest)
        self.begun = manifest
        where = {"asset": self.job.asset, "game_date": self.game_date.isoformat(), "run_id": self.run_id}
        self.host.tell(run={"data_root": self.job.data_root, **where})

    def _judged(self, ended: Ended, pump: OutputPump) -> Outcome:
        tail, error = pump.tail(), None
        if ended.left_alive:
            self.log(f"{ended.left_alive} processes of the command could not be killed and may still run")
        if ended.timed_out:
            error = RunError("TimedOut", f"stopped after its time-out of {human(self.job.timeout)}", tail)
        elif ended.signal is not None:
            error = RunError("Killed", f"killed by {ended.signal}", tail)
        elif ended.exit_code is None:
            error = RunError("Lost", "how the command ended is not known", tail)
        elif ended.exit_code != 0:
            error = RunError("NonZeroExit", f"exit code {ended.exit_code}", tail)
        return self._end("failed" if error else "success", ended, pump, error)

    def _end(
        self,
        status: manifests_format.Status,
        ended: Ended | None,
        pump: OutputPump,
        error: RunError | None,
        *,
        reason: str | None = None,
        exit_code: int | None = None,
    ) -> Outcome:
        """Record the end: the manifest first, it is the truth, then the event. A full disk hides no outcome."""
        assert self.begun is not None
        now = self.host.now()
        exit_code = ended.exit_code if ended is not None else exit_code
        manifest = manifests_format.finished(
            self.begun,
            status,
            at=now,
            duration_s=ended.duration_s if ended is not None else 0.0,
            reason=reason,
            exit_code=exit_code,
            signal=ended.signal if ended is not None else None,
            error=error,
        )
        path, unrecorded = None, None
        try:
            path = str(self.manifests.write(manifest))
            self.recorded = True
            # Looking at the outputs may take long: the end is on disk before. Who interrupted the run waits for it.
            if self.job.outputs and status != "cancelled":
                manifest = {**manifest, "outputs": self._outputs()}
                self.manifests.write(manifest)
            self.manifests.append(manifests_format.event(manifests_format.final_event_name(status), manifest, at=now))
        except OrchctlError as problem:
            unrecorded = problem.message
            self.log(f"the run ended ({status}), and that could not be recorded: {unrecorded}")
        if pump.log_error is not None:
            self.log(f"the log is not whole: {pump.log_error}")
        said = reason or (error.message if error else None)
        return Outcome(status, self.run_id, said, exit_code, pump.tail(), path, unrecorded)

    def _outputs(self) -> list[dict[str, Any]]:
        try:
            return self.host.find_outputs(self.job.outputs, self._values(), self.job.data_root)
        except (OSError, ValueError) as error:
            self.log(f"the outputs could not be looked at: {error}")
            return []


def _earlier_attempts(directory: Path, attempt: int) -> list[Any]:
    """Return what the manifest there says of this run's earlier attempts; none where it cannot be read."""
    try:
        attempts = json.loads((directory / "manifest.json").read_bytes())["attempts"]
        return [one for one in attempts if one["attempt"] < attempt]
    except (OSError, ValueError, KeyError, TypeError):
        return []
