"""One run of one job, from the slot rule to the manifest. Knows no Prefect: what it needs of it is given."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol

import orchctl
from orchctl.core import manifest as manifests_format
from orchctl.core import slots, templates
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import Identity, Place, RunError
from orchctl.core.mask import Masker
from orchctl.core.names import format_instant, run_id
from orchctl.core.slots import Owner, Verdict
from orchctl.errors import OrchctlError, StateBroken
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, CommandNotStarted, Ended, run_command

Log = Callable[[str], None]
QUEUE_POLL_S = 0.5
# A worker starts a run up to its prefetch (10 s) before it is due. A timer never fires early, so neither do we;
# a run that is further ahead was started by a person who did not want to wait.
EARLY_S = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. Instants are UTC.

    `expected_start` is when the flow run was to start; `slot` is None for a run by hand. `game_date` and
    `as_of` are None where the job's own rule decides. `attempt` counts from 1.
    """

    job: str
    digest: str
    flow_run_id: str
    expected_start: datetime
    attempt: int
    slot: datetime | None
    trigger: str
    game_date: date | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `status` is a final one of the manifest; `unrecorded` is why no manifest says so."""

    status: str
    run_id: str
    reason: str | None = None
    exit_code: int | None = None
    tail: str = ""
    manifest_path: str | None = None
    unrecorded: str | None = None


class AppliedPort(Protocol):
    """`adapters.applied.AppliedCatalogs`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102


class OwnersPort(Protocol):
    """`adapters.owners.Owners`."""

    def read(self, job: str) -> Owner | None: ...  # noqa: D102


class ManifestsPort(Protocol):
    """`adapters.manifests.Manifests`."""

    def run_directory(self, asset: str, game_date: date, run_id: str) -> Path: ...  # noqa: D102
    def write(self, manifest: Mapping[str, Any]) -> Path: ...  # noqa: D102
    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Host:
    """Everything outside that a run touches, given by `wiring`.

    `later_due` answers which later slot of the run's deployment is due too, None where none is; it is only
    asked where the answer matters. `environment` is what the command inherits.
    """

    applied: AppliedPort
    owners: OwnersPort
    claims: Any
    locks: Any
    manifests: Callable[[str], ManifestsPort]
    place: Callable[[], Place]
    git_sha: Callable[[str], str | None]
    find_outputs: Callable[[tuple[str, ...], Mapping[str, str], str], list[dict[str, Any]]]
    environment: Mapping[str, str]
    later_due: Callable[[datetime], datetime | None] = lambda _slot: None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    sleep: Callable[[float], None] = time.sleep


def execute(request: Request, host: Host, log: Log) -> Outcome:
    """Serve a request: look the job up, apply the slot rule, run the command, leave a manifest.

    Raises StateBroken where the job is not in the applied catalog (nothing is run and no manifest can be
    written), OrchctlError where the run could not be recorded before it began. A failing command is no
    exception: it is an Outcome. Whatever interrupts the run (SIGTERM) is raised again after the end is on disk.
    """
    catalog, job = look_up(request, host)
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
        instant = request.slot or request.expected_start
        self.game_date = request.game_date or slots.game_date(job, instant, catalog.timezone)
        self.as_of = request.as_of or instant

    def serve(self) -> Outcome:
        verdict, slot = slots.RUN, self.request.slot
        if slot is not None:
            ahead = (slot - self.host.now()).total_seconds()
            if 0 < ahead <= EARLY_S:
                self.host.sleep(ahead)
            verdict = self._judge(slot)
        if verdict.kind == "observe":
            return self._observed(verdict.reason)
        if verdict.kind == "skip":
            return self._skipped(verdict.reason)
        lock = self._lock()
        if lock is None:
            return self._skipped(f"the job is locked by {self.host.locks.holder(self.job.name)}")
        try:
            return self._execute(lock.descriptor)
        finally:
            lock.release()

    def _judge(self, slot: datetime) -> Verdict:
        """Apply steps 1 to 3 of the slot rule.

        A claim that this flow run already holds comes before the catch-up window: a retry is as late as its
        delay makes it, and that is not being stale.
        """
        verdict = slots.owned(self.job, slot, self.host.owners.read(self.job.name))
        if verdict.kind != "run":
            return verdict
        held = self.host.claims.read(self.job.name, slot)
        if held is None:
            now = self.host.now()
            later = self.host.later_due(slot) if slots.needs_later(self.job, slot, now=now) else None
            verdict = slots.fresh(self.job, slot, now=now, later_due=later)
            if verdict.kind != "run":
                return verdict
        claim = self.host.claims.take(
            self.job.name, slot, run_id=self.run_id, flow_run_id=self.request.flow_run_id, at=self.host.now()
        )
        if not claim.ours:
            return Verdict("skip", f"the slot was claimed by run {claim.run_id}")
        self.run_id = claim.run_id
        return slots.RUN

    def _lock(self) -> Any | None:
        """Take the job's lock; with `overlap = "queue"` wait for it, at most as long as a run may last."""
        deadline = time.monotonic() + (self.job.timeout if self.job.overlap == "queue" else 0)
        while True:
            lock = self.host.locks.try_take(self.job.name, run_id=self.run_id, pid=self.place.pid)
            if lock is not None or time.monotonic() >= deadline:
                return lock
            self.host.sleep(QUEUE_POLL_S)

    def _manifest(self, mode: str) -> dict[str, Any]:
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
        environment = {
            "git_sha": self.host.git_sha(self.job.working_directory),
            "code_version": f"orchctl {orchctl.__version__}",
            "python": sys.version.split()[0],
            "orchestrator_run_id": self.request.flow_run_id,
            "catalog_digest": self.request.digest,
        }
        return manifests_format.started(who, self.place, environment, at=self.host.now())

    def _observed(self, reason: str | None) -> Outcome:
        argv = " ".join(self._rendered(self.job.command))
        self.log(f"observing ({reason}): would have run {argv} in {self.job.working_directory}")
        return self._without_command("observed", reason)

    def _skipped(self, reason: str | None) -> Outcome:
        self.log(f"skipped: {reason}")
        return self._without_command("skipped", reason)

    def _without_command(self, status: manifests_format.Status, reason: str | None) -> Outcome:
        now = self.host.now()
        mode = "observe" if status == "observed" else "live"
        manifest = manifests_format.finished(self._manifest(mode), status, at=now, duration_s=0.0, reason=reason)
        path = self.manifests.write(manifest)
        self.manifests.append(manifests_format.event(manifests_format.final_event_name(status), manifest, at=now))
        return Outcome(status, self.run_id, reason, manifest_path=str(path))

    def _values(self) -> dict[str, str]:
        directory = self.manifests.run_directory(self.job.asset, self.game_date, self.run_id)
        return {
            "game_date": self.game_date.isoformat(),
            "run_id": self.run_id,
            "run_as_of_ts": format_instant(self.as_of),
            "data_root": self.job.data_root,
            "run_dir": str(directory),
            "slot": format_instant(self.request.slot) if self.request.slot else "",
            "job": self.job.name,
            "step": "",
        }

    def _rendered(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        values = self._values()
        return tuple(templates.render(text, values) for text in argv)

    def _environment(self) -> dict[str, str]:
        """Return the command's environment: the worker's, less what is Prefect's, with the job's and ours on top."""
        values = self._values()
        inherited = {key: value for key, value in self.host.environment.items() if not key.startswith("PREFECT_")}
        own = {key: templates.render(text, values) for key, text in self.job.env.items()}
        return {**inherited, **own, **{f"ORCHCTL_{key.upper()}": value for key, value in values.items()}}

    def _execute(self, lock_descriptor: int) -> Outcome:
        values, environment = self._values(), self._environment()
        masker = Masker.of({**self.host.environment, **environment})
        begun = self._begin()
        log_path = Path(values["run_dir"], f"attempt-{self.request.attempt}.log")
        pump = OutputPump(log_path=log_path, masker=masker, emit=self.log)
        ended: list[Ended] = []
        command = Command(
            argv=self._rendered(self.job.command),
            cwd=self.job.working_directory,
            env=environment,
            timeout_s=self.job.timeout,
            kill_after_s=self.job.kill_after,
            nice=self.job.nice,
            inherit_fds=(lock_descriptor,),
        )
        try:
            run_command(command, pump, on_ended=ended.append)
        except CommandNotStarted as error:
            problem = RunError("NotStarted", masker.mask(error.message))
            return self._end(begun, "failed", None, pump.tail(), problem, exit_code=error.shell_code)
        except Exception as error:
            problem = RunError(type(error).__name__, masker.mask(str(error)), pump.tail())
            self._end(begun, "failed", ended[0] if ended else None, pump.tail(), problem)
            raise
        except BaseException as interruption:
            # SIGTERM from Prefect (a cancel, or a worker that stops) or Ctrl-C: the record first, then onwards.
            reason = f"interrupted by {type(interruption).__name__}"
            self._end(begun, "cancelled", ended[0] if ended else None, pump.tail(), None, reason=reason)
            raise
        return self._judged(begun, ended[0], pump)

    def _begin(self) -> dict[str, Any]:
        """Record the start: the event first, so that no run is ever invisible, then the manifest."""
        manifest = self._manifest("live")
        directory = self.manifests.run_directory(self.job.asset, self.game_date, self.run_id)
        manifest["attempts"] = _earlier_attempts(directory)
        self.manifests.append(manifests_format.event("run_started", manifest, at=self.host.now()))
        self.manifests.write(manifest)
        return manifest

    def _judged(self, begun: dict[str, Any], ended: Ended, pump: OutputPump) -> Outcome:
        tail = pump.tail()
        if ended.timed_out:
            message = f"stopped after its time-out of {self.job.timeout} s"
            return self._end(begun, "failed", ended, tail, RunError("TimedOut", message, tail))
        if ended.signal is not None:
            return self._end(begun, "failed", ended, tail, RunError("Killed", f"killed by {ended.signal}", tail))
        if ended.exit_code != 0:
            return self._end(
                begun, "failed", ended, tail, RunError("NonZeroExit", f"exit code {ended.exit_code}", tail)
            )
        return self._end(begun, "success", ended, tail, None)

    def _end(
        self,
        begun: dict[str, Any],
        status: manifests_format.Status,
        ended: Ended | None,
        tail: str,
        error: RunError | None,
        *,
        reason: str | None = None,
        exit_code: int | None = None,
    ) -> Outcome:
        """Record the end: the manifest first, it is the truth, then the event. A full disk hides no outcome."""
        outputs = self.host.find_outputs(self.job.outputs, self._values(), self.job.data_root)
        exit_code = ended.exit_code if ended is not None else exit_code
        manifest = manifests_format.finished(
            begun,
            status,
            at=self.host.now(),
            duration_s=ended.duration_s if ended is not None else 0.0,
            reason=reason,
            exit_code=exit_code,
            signal=ended.signal if ended is not None else None,
            outputs=outputs,
            error=error,
        )
        path, unrecorded = None, None
        try:
            path = str(self.manifests.write(manifest))
            name = manifests_format.final_event_name(status)
            self.manifests.append(manifests_format.event(name, manifest, at=self.host.now()))
        except OrchctlError as problem:
            unrecorded = problem.message
            self.log(f"the run ended ({status}), and that could not be recorded: {unrecorded}")
        said = reason or (error.message if error else None)
        return Outcome(status, self.run_id, said, exit_code, tail, path, unrecorded)


def _earlier_attempts(directory: Path) -> list[Any]:
    """Return what the manifest there says of this run's earlier attempts; none where it cannot be read."""
    try:
        return list(json.loads((directory / "manifest.json").read_bytes())["attempts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
