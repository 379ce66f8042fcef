"""Who a run is, where what it leaves goes, and what its commands get: the same for a run and for each of its steps."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import orchctl
from orchctl.adapters import accounts
from orchctl.core import manifest as manifests_format
from orchctl.core import partition, slots, templates
from orchctl.core.catalog import Catalog, Job
from orchctl.core.catalog_steps import StepTable
from orchctl.core.durations import human
from orchctl.core.manifest import Identity, Place, RunError
from orchctl.core.mask import Masker
from orchctl.core.names import format_instant, run_id
from orchctl.runner import environment, shipping
from orchctl.runner.environment import Who
from orchctl.runner.process import Command, Ended
from orchctl.runner.shapes import Host, ManifestsPort, Request
from orchctl.runner.shipping import Nowhere, Ship

Log = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """One run: what was asked for, of which job, on which host.

    `keys` are those of its partition beside the date; `refused` is why it may not run at all, None where it may.
    """

    request: Request
    host: Host
    catalog: Catalog
    job: Job
    manifests: ManifestsPort
    place: Place
    who: Who
    run_id: str
    game_date: date
    as_of: datetime
    execution: Literal["command", "steps"]
    keys: Mapping[str, str]
    refused: str | None
    environment: Mapping[str, Any]
    ship: Ship

    @classmethod
    def of(cls, request: Request, host: Host, catalog: Catalog, job: Job) -> Facts:
        """Return the facts of a run. Raises nothing."""
        instant = request.slot or request.expected_start
        game_date = request.game_date or slots.game_date(job, instant, catalog.timezone)
        execution = request.execution or job.execution
        keys, refused = _keys(job, game_date, request.partition)
        return cls(
            request=request,
            host=host,
            catalog=catalog,
            job=job,
            manifests=host.manifests(job.data_root),
            place=host.place(),
            who=environment.who(job.user),
            run_id=run_id(request.expected_start, request.flow_run_id),
            game_date=game_date,
            as_of=request.as_of or instant.replace(microsecond=0),
            execution=execution,
            keys=keys,
            refused=refused or _unfit(job, execution, request),
            environment={
                "git_sha": host.git_sha(job.working_directory),
                "code_version": f"orchctl {orchctl.__version__}",
                "python": sys.version.split()[0],
                "orchestrator_run_id": request.flow_run_id,
                "catalog_digest": request.digest,
            },
            ship=_ship(host, catalog, job),
        )

    @property
    def lock(self) -> str:
        """The name of the lock it takes. A backfill takes that of its partition, and so never blocks a live run."""
        if not self.request.backfill:
            return self.job.name
        keys = "".join(f",{key}={value}" for key, value in sorted(self.keys.items()))
        return f"{self.job.name}@{self.game_date.isoformat()}{keys}"

    def directory(self, step: str | None = None) -> Path:
        """Return the folder of the run, or of one of its steps: its manifest and its logs are there."""
        return self.manifests.run_directory(step or self.job.asset, self.game_date, self.run_id)

    def values(self, step: str | None = None) -> dict[str, str]:
        """Return the words of templates."""
        return {
            "game_date": self.game_date.isoformat(),
            "run_id": self.run_id,
            "run_as_of_ts": format_instant(self.as_of),
            "data_root": self.job.data_root,
            "run_dir": str(environment.folder(self.directory(step), self.who.account)),
            "slot": format_instant(self.request.slot) if self.request.slot else "",
            "job": self.job.name,
            "step": step or "",
            **self.keys,
        }

    def manifest(self, attempt: int, at: datetime, *, mode: str = "live", step: str | None = None) -> dict[str, Any]:
        """Return the manifest of an attempt at the run, or at a step, that starts `at`."""
        who = Identity(
            job=self.job.name,
            asset=step or self.job.asset,
            run_id=self.run_id,
            game_date=self.game_date,
            as_of=self.as_of,
            slot=self.request.slot,
            trigger="backfill" if self.request.backfill else self.request.trigger,
            mode="observe" if mode == "observe" else "live",
            attempt=attempt,
            step=step,
            execution=self.execution,
            keys=self.keys,
        )
        asked = {"backfill": self.request.backfill, "as_of_mode": self.request.as_of_mode}
        made = manifests_format.started(who, self.place, self.environment, at=at)
        return {**made, **{key: value for key, value in asked.items() if value is not None}}

    def command(
        self,
        argv: tuple[str, ...],
        values: Mapping[str, str],
        *,
        log: Log,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        inherit_fds: tuple[int, ...] = (),
    ) -> Command:
        """Return a command of the job with its templates filled in. `env` goes over the job's own. Raises nothing."""
        read = environment.variables(self.job.env_files, self.who.account)
        for note in read.notes:
            log(note)
        return Command(
            argv=tuple(templates.render(text, values) for text in argv),
            cwd=self.job.working_directory,
            env=self._environment(values, {**self.job.env, **(env or {})}, read.values),
            timeout_s=timeout_s,
            kill_after_s=self.job.kill_after,
            nice=self.job.nice,
            inherit_fds=inherit_fds,
            token=uuid.uuid4().hex,
            account=self.who.account,
            unfit=self.who.unfit or read.unfit,
        )

    def _environment(
        self, values: Mapping[str, str], env: Mapping[str, str], read: Mapping[str, str]
    ) -> dict[str, str]:
        """Return a command's environment: the worker's, less what is Prefect's and what alerts and logs are sent with,
        with the catalog's and ours on top.

        `read` are the variables of the job's files.
        """
        inherited = accounts.inherited(self.host.environment, self.who.account, hidden=self._hidden)
        own = {key: templates.render(text, values) for key, text in env.items()}
        return {**inherited, **own, **read, **{_variable(word): value for word, value in values.items()}}

    @property
    def _hidden(self) -> frozenset[str]:
        """The variables with which alerts and logs are sent: no business of a command."""
        loki = self.catalog.logs.loki
        return self.host.hidden | ({loki.url_env} if loki is not None and loki.url_env is not None else set())

    def outputs(self, declared: tuple[str, ...], values: Mapping[str, str], log: Log) -> list[dict[str, Any]]:
        """Return what declared outputs are now. Raises nothing: where they cannot be looked at, that is logged."""
        unseen: list[OSError] = []
        try:
            return self.host.find_outputs(declared, values, self.job.data_root, unreadable=unseen.append)
        except (OSError, ValueError) as error:
            log(f"the outputs could not be looked at: {error}")
            return []
        finally:
            if unseen:
                more = f", and {len(unseen) - 1} more" if len(unseen) > 1 else ""
                log(f"of the outputs this could not be looked at: {unseen[0]}{more}")

    def about(self, attempt: int, step: str | None = None) -> dict[str, str]:
        """Return what a line of an attempt is of, for who reads it among those of other runs."""
        known = {"run_id": self.run_id, "game_date": self.game_date.isoformat(), "attempt": str(attempt)}
        return known if step is None else {**known, "step": step}

    def append(self, event: Mapping[str, Any]) -> None:
        """Append an event to those on disk, and pass it on. Raises OrchctlError."""
        self.manifests.append(event)
        shipping.tell(self.ship, event, self.about(event["attempt"], event.get("step")))

    def masker(self, command: Command) -> Masker:
        """Return what keeps the secrets of a command out of everything it leaves."""
        return Masker.of(self.host.environment, command.env, hidden=self._hidden)

    def tell_of(self, command: Command, pid: int) -> None:
        """Tell the guard of a command that has begun."""
        ends_by = time.monotonic() + command.timeout_s
        self.host.tell(command=pid, token=command.token, kill_after=command.kill_after_s, ends_by=ends_by)

    def selected(self) -> tuple[StepTable, ...]:
        """Return the steps that were asked for, as the catalog has them."""
        asked = self.request.steps
        return tuple(step for step in self.job.steps if not asked or step.name in asked)


def _ship(host: Host, catalog: Catalog, job: Job) -> Ship:
    if catalog.logs.loki is None:
        return Nowhere()
    return host.ship(catalog.logs.loki, {"app": "orchctl", "host": host.place().hostname, "job": job.name})


def _variable(word: str) -> str:
    """Return the environment variable of a word: `inputs.box-scores` is ORCHCTL_INPUT_BOX_SCORES."""
    name = word.replace(templates.INPUTS, "input_", 1) if word.startswith(templates.INPUTS) else word
    return f"ORCHCTL_{name.upper().replace('-', '_')}"


def _keys(job: Job, game_date: date, given: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    try:
        return partition.keys(job, game_date, given), None
    except ValueError as error:
        return {}, str(error)


def _unfit(job: Job, execution: str, request: Request) -> str | None:
    """Return why a run cannot be what was asked for."""
    if execution == "command":
        if request.steps or request.from_step:
            return f"{job.name} runs as a command, and some of its steps were asked for"
        return None if job.command else f"{job.name} has no command: it is nothing but its steps"
    if not job.steps:
        return f"{job.name} has no steps in the catalog"
    names = {step.name for step in job.steps}
    unknown = [name for name in (*request.steps, request.from_step) if name and name not in names]
    return f"{job.name} has no step {unknown[0]}" if unknown else None


def problem_of(ended: Ended, timeout_s: float, tail: str) -> RunError | None:
    """Return what was wrong with the end of a command, None where nothing was. `tail` is the end of its output."""
    if ended.timed_out:
        return RunError("TimedOut", f"stopped after its time-out of {human(timeout_s)}", tail)
    if ended.signal is not None:
        return RunError("Killed", f"killed by {ended.signal}", tail)
    if ended.exit_code is None:
        return RunError("Lost", "how the command ended is not known", tail)
    return RunError("NonZeroExit", f"exit code {ended.exit_code}", tail) if ended.exit_code else None
