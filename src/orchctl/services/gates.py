"""The gates of a cutover, looked at on a real host. Changes nothing; what cannot be asked does not hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchctl.core import cadence, legacy_runs, manifest
from orchctl.core import gates as core
from orchctl.core import handover as protocol
from orchctl.core.cadence import Source
from orchctl.core.catalog import Catalog, CronTrigger, Job
from orchctl.core.deployments import digest_of
from orchctl.core.gates import Gate
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Handover
from orchctl.core.manifest import Run
from orchctl.core.remote import RemoteDeployment
from orchctl.core.status import Triggers
from orchctl.errors import OrchctlError, UsageError
from orchctl.services import compare, sync, timers
from orchctl.services.handover_ports import ConfirmTimer, CronSwitch, Handovers, Owners, TimerSwitch
from orchctl.services.ports import Applied, ManifestTree, Prefect, PrefectRule
from orchctl.services.timers import TimerReader
from orchctl.services.trigger import job_of

COMPARED_DAYS = 400
"""How far ahead cadences are compared: over a year, and so over every change of clocks."""
COMPARED_INSTANTS, LEAST_DAYS = 600_000, 30
"""How many instants of the legacy triggers are compared at most, in whole days, but for this many days at least."""
POLL_S = 1.0


class CronLines(Protocol):
    """The crontabs of this host. See `adapters/cron.py`."""

    def find(self, trigger: CronTrigger) -> int | None: ...  # noqa: D102


@dataclass(frozen=True)
class World:
    """What the gates look at.

    `prefect_offset` says how far the clock of Prefect's server was ahead of this host's in its last answer, seconds;
    `synchronised` whether this host's clock is. Both None: not known.
    """

    catalog: Catalog
    systemd: TimerReader
    crontabs: CronLines
    prefect: Prefect
    rule: PrefectRule
    owners: Owners
    handovers: Handovers
    applied: Applied
    tree: Callable[[str], ManifestTree]
    timers: TimerSwitch
    cron: CronSwitch
    confirm: ConfirmTimer
    prefect_offset: Callable[[], float | None]
    synchronised: Callable[[], bool | None]
    host_zone: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class Table:
    """The gates of one job, and the steps of its cutover. `digest` is the catalog that was applied, None: not known.

    `waived` holds the reasons of those that were waived.
    """

    job: str
    gates: tuple[Gate, ...]
    digest: str | None
    steps: tuple[Step, ...]

    @property
    def passes(self) -> bool:
        """Whether every gate holds."""
        return all(gate.holds for gate in self.gates)

    @property
    def refusals(self) -> tuple[Gate, ...]:
        """The gates that do not hold."""
        return tuple(gate for gate in self.gates if not gate.holds)

    @property
    def waived(self) -> dict[str, str]:
        """The reasons of those that were waived."""
        return {gate.id: gate.reason for gate in self.gates if gate.reason is not None}

    @property
    def waits_only(self) -> bool:
        """Whether nothing but a legacy run that is going is in the way."""
        return [gate.id for gate in self.refusals] == ["idle"]


def job_with_triggers(catalog: Catalog, name: str) -> Job:
    """Return a job that can be cut over. Raises UsageError for one that is not there, or that nothing else starts."""
    job = job_of(catalog, name)
    if not job.has_legacy:
        raise UsageError(
            f"nothing else starts {name}: there is nothing to cut over",
            hint="`legacy = [...]` in jobs.toml names what starts a job today",
        )
    return job


def table(world: World, name: str, *, now: datetime, confirm: bool, waive: Mapping[str, str]) -> Table:
    """Look at every gate of a job. `confirm`: a rollback that comes by itself is asked for.

    Raises UsageError for a job that the catalog does not have, or that nothing else starts.
    """
    job = job_with_triggers(world.catalog, name)
    look = _Look(world, job, now)
    found = core.waived(look.gates(confirm=confirm, waived=waive), waive)
    steps = tuple(step for step in protocol.CUTOVER if _has(step, job, confirm=confirm))
    return Table(name, found, look.digest, steps)


def wait_until_idle(world: World, name: str, *, sleep: Callable[[float], None], say: Callable[[str], None]) -> None:
    """Return when no legacy run of the job is going. Raises OrchctlError where that cannot be known."""
    snapshot, said = world.timers.snapshot(job_of(world.catalog, name)), ""
    while running := " and ".join(world.timers.is_running(snapshot)):
        if running != said:
            say(f"waiting for {running} to end")
            said = running
        sleep(POLL_S)


def _has(step: Step, job: Job, *, confirm: bool) -> bool:
    if step is Step.ARM:
        return confirm
    if step is Step.CRON_OFF:
        return any(isinstance(each, CronTrigger) for each in job.legacy)
    return step not in {Step.FENCE, Step.TIMERS_OFF} or any(not isinstance(each, CronTrigger) for each in job.legacy)


class _Look:
    """One look at the gates of one job."""

    def __init__(self, world: World, job: Job, now: datetime) -> None:
        self._world, self._job, self._now = world, job, now
        self.digest: str | None = None
        self._runs: tuple[Run, ...] = ()
        self._sources: tuple[Source, ...] = ()

    def gates(self, *, confirm: bool, waived: Collection[str]) -> Iterator[Gate]:
        # First: a run that begins while we look is no sign of a clock that was set back.
        runs = _known("runs", self._past_runs)
        # Minutes, where a job is due every few seconds.
        uncompared = core.unknown("cadence", OrchctlError("not compared")) if "cadence" in waived else None
        looks: dict[str, Callable[[], Gate]] = {
            "triggers": self._triggers,
            "fence": self._fence,
            "cadence": lambda: uncompared or self._cadence(),
            "runs": lambda: runs,
            "handover": self._handover,
            "clock": self._clock,
            "idle": self._idle,
        }
        if confirm:
            looks["confirm"] = lambda: core.confirm(self._world.confirm.obstacles())
        yield core.ok("catalog", "valid")
        yield from self._of_prefect()
        for gate, look in looks.items():
            yield _known(gate, look)

    def _of_prefect(self) -> Iterator[Gate]:
        world, name = self._world, self._job.name
        try:
            proposed = sync.propose(
                world.catalog, world.prefect, world.applied, state_dir=world.state_dir, now=self._now, only=(name,)
            )
            deployment = world.prefect.deployment(name, name)
            runs = world.prefect.next_runs([deployment.id], now=self._now) if deployment is not None else ()
        except OrchctlError as error:
            yield from (core.unknown(gate, error) for gate in ("applied", "worker", "ahead"))
            return
        yield core.applied(name, proposed)
        if deployment is None:
            fix = f"`orchctl sync {name}`"
            yield from (core.refused(gate, "Prefect does not have the job", fix) for gate in ("worker", "ahead"))
            return
        self.digest = digest_of(deployment)
        yield core.worker(deployment, runs, self._now)
        yield _known(
            "ahead",
            lambda: core.ahead(self._job, deployment, runs, self._now, paused_by_us=self._paused_by_us(deployment)),
        )

    def _paused_by_us(self, deployment: RemoteDeployment) -> bool:
        """Whether a rollback left it paused, also where a later cutover was taken back to that."""
        last = self._world.handovers.last_of(self._job.name) if deployment.paused else None
        if last is None:
            return False
        undone = last.opened.kind == "cutover" and last.outcome == "undone" and last.opened.snapshot.paused is True
        return (last.opened.kind == "rollback" and last.outcome == "done") or undone

    def _triggers(self) -> Gate:
        world, job = self._world, self._job
        read = timers.read(world.systemd, {job.name: job}, host_zone=world.host_zone, now=self._now)
        sources = self._sources = read.sources(job)
        lines = {each: world.crontabs.find(each) for each in job.legacy if isinstance(each, CronTrigger)}
        gone = [
            source.service
            for source in sources
            if source.timer is not None
            and source.service is not None
            and (service := legacy_runs.service_in(read.units, source.timer.manager, source.service)) is not None
            and service.load not in {"loaded", "merged"}
        ]
        return core.triggers(Triggers(sources, read.units, read.absent, lines).states(self._now), gone)

    def _fence(self) -> Gate:
        return core.fence((*self._world.timers.obstacles(self._job), *self._world.cron.obstacles(self._job)))

    def _cadence(self) -> Gate:
        world, name = self._world, self._job.name
        days = self._days()
        found = compare.run(
            world.catalog, world.systemd, world.rule, name, days=days, now=self._now, host_zone=world.host_zone
        )
        both = f"{found.legacy_cadence} today, {found.schedule_cadence} in Prefect"
        if found.verdict == "equal":
            over = "" if days == COMPARED_DAYS else f" (compared over {days} days)"
            return core.ok("cadence", f"equal: {found.schedule_cadence}{over}")
        if found.accepted is not None:
            return core.ok("cadence", f"{both}; accepted: {found.accepted}")
        see = f"`orchctl schedule compare {name}`"
        if found.verdict == "incomplete":
            first = found.unknown[0]
            return core.refused("cadence", f"{first.label}: {first.problem}", f"{see}, or accept_cadence in jobs.toml")
        return core.refused("cadence", both, f"{see}; make them equal, or say why not: accept_cadence in jobs.toml")

    def _days(self) -> int:
        """Return how many days to compare: of a job that is due every few seconds a year has millions of instants."""
        until, often = self._now + timedelta(days=1), 0
        for source in self._sources:
            with contextlib.suppress(ValueError):
                often += len(cadence.instants(source, self._now, until))
        return max(LEAST_DAYS, min(COMPARED_DAYS, COMPARED_INSTANTS // max(1, often)))

    def _past_runs(self) -> Gate:
        since = self._now - timedelta(seconds=self._job.gates.within)
        tree, day = self._world.tree(self._job.data_root), since.date()
        told: list[Run] = []
        while day <= self._now.date() + timedelta(days=1):
            told += (run for run in tree.events(day, skipped=[]) if run.job == self._job.name)
            day += timedelta(days=1)
        newest = manifest.fold(told).values()
        self._runs = tuple(tree.current(run, skipped=[]) if run.status == "running" else run for run in newest)
        return core.runs(self._job, self._runs, self._now)

    def _handover(self) -> Gate:
        name = self._job.name
        owned = self._world.owners.read(name) is not None
        return core.handover(self._world.handovers.open_of(name), owned=owned, job=name)

    def _clock(self) -> Gate:
        last: Handover | None = self._world.handovers.last_of(self._job.name)
        return core.clock(
            now=self._now,
            offset_s=self._world.prefect_offset(),
            synchronised=self._world.synchronised(),
            latest={
                "the last run": max((run.started_at for run in self._runs), default=None),
                "the last handover": last.ended_at if last is not None else None,
            },
        )

    def _idle(self) -> Gate:
        running = self._world.timers.is_running(self._world.timers.snapshot(self._job))
        return core.idle(running, has_cron=any(isinstance(each, CronTrigger) for each in self._job.legacy))


def _known(gate: str, look: Callable[[], Gate]) -> Gate:
    """Return what a look says, `unknown` where it cannot be made."""
    try:
        return look()
    except OrchctlError as error:
        return core.unknown(gate, error)
