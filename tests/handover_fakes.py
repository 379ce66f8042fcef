"""A host for handovers, in memory but for the state directory: what the ports of services/handover_ports.py reach.

Every change goes through `Host.change`, which can kill the process before or after it, as SIGKILL would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchctl.adapters.claims import Locks
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.owners import Owners
from orchctl.core.catalog import Catalog, CronTrigger, Job
from orchctl.core.legacy import Manager
from orchctl.core.names import run_id
from orchctl.core.snapshot import CronState, Link, Snapshot, TimerState
from orchctl.errors import PrefectUnreachable
from orchctl.services.handover_ports import Doubt
from orchctl.services.handover_steps import NOT_YET, Hands
from orchctl.services.prefect_side import PrefectSide

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Killed(BaseException):
    """SIGKILL, as far as a test can: nothing catches it."""


@dataclass
class Host:
    """The host of one job. `kill_at` counts changes: the process dies at that one, before or after it took effect."""

    state_dir: Path
    catalog: Catalog
    job: str
    timers_on: bool = True
    fence: bool = False
    cron_on: bool = True
    armed: datetime | None = None
    paused: bool = True
    takeable: int = 0
    reachable: bool = True
    now: datetime = NOON
    last_start: datetime | None = None
    missed_legacy: tuple[datetime, ...] = ()
    missed_prefect: tuple[datetime, ...] = ()
    caught_up: set[datetime] = field(default_factory=set)
    owed_runs: int = 0
    log: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    kill_at: int = -1
    kill_after: bool = False
    fails: dict[str, BaseException] = field(default_factory=dict)
    count: int = 0

    def change(self, name: str, do: Callable[[], Any]) -> Any:
        """Make a change, unless the process is to die before it."""
        self.count += 1
        if 0 < self.kill_at < self.count + (not self.kill_after):
            raise Killed(name)  # and nothing that it has in its `except` is done any more
        if name in self.fails:
            raise self.fails[name]
        self.log.append(name)
        found = do()
        if self.count == self.kill_at:
            raise Killed(name)
        return found

    def put(self, name: str, **values: Any) -> None:
        """Change fields of the host as one effect."""
        self.change(name, lambda: self.__dict__.update(values))

    def ask(self) -> None:
        """Raise what a server that is down makes the client raise."""
        if not self.reachable:
            raise PrefectUnreachable("the Prefect API cannot be reached")

    @property
    def owners(self) -> Owners:
        return Owners(self.state_dir)

    @property
    def handovers(self) -> Handovers:
        return Handovers(self.state_dir)

    def hands(self) -> Hands:
        """Return what a new process works with."""
        ids = itertools.count(self.count)
        return Hands(
            owners=_Owners(self),
            handovers=_Handovers(self),
            timers=_Timers(self),
            cron=_Cron(self),
            confirm=_Confirm(self),
            locks=Locks(self.state_dir),
            prefect=_Prefect(self),
            slots=_Slots(self),
            catalog=lambda name, _digest: self.catalog if name in self.catalog.jobs else None,
            event=lambda name, _job, _data: self.events.append(name),
            new_id=lambda: run_id(self.now, str(next(ids))),
            now=self._tick,
            sleep=self._sleep,
            pid=1,
            boot_id="boot",
        )

    def _tick(self) -> datetime:
        self.now += timedelta(milliseconds=3)
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def legal(self) -> str | None:
        """Return "legacy" or "prefect" where the job is wholly that side's, None where it is between the two."""
        owned = self.owners.read(self.job)
        if owned is None and self.timers_on and self.cron_on and not self.fence and self.armed is None:
            return "legacy"
        if owned is not None and not owned.draining and owned.granted is not None:
            wholly = not self.timers_on and not self.cron_on and self.fence and not self.paused
            return "prefect" if wholly and set(owned.granted) <= self.caught_up else None
        return None

    def may_run(self) -> set[str]:
        """Return the sides that could begin a run now: never both, and not neither for good."""
        owned = self.job in self.owners.names()
        sides = set()
        if not owned and (self.timers_on or self.cron_on):
            sides.add("legacy")
        if owned and self.timers_on and not self.fence:
            sides.add("legacy")
        if owned and self.cron_on:
            sides.add("legacy")
        found = self.owners.read(self.job)
        if found is not None and not found.draining and found.since != NOT_YET and not self.paused:
            sides.add("prefect")
        return sides


class _Owners(Owners):
    def __init__(self, host: Host) -> None:
        super().__init__(host.state_dir)
        self._host = host

    def create(self, job: str, owner: Any, *, still: Callable[[], bool]) -> bool:
        found: bool = self._host.change("create owner", lambda: super(_Owners, self).create(job, owner, still=still))
        return found

    def replace(self, job: str, owner: Any) -> None:
        self._host.change("replace owner", lambda: super(_Owners, self).replace(job, owner))

    def remove(self, job: str) -> None:
        self._host.change("remove owner", lambda: super(_Owners, self).remove(job))


class _Handovers(Handovers):
    def __init__(self, host: Host) -> None:
        super().__init__(host.state_dir)
        self._host = host

    def begin(self, opened: Any) -> None:
        self._host.change("begin", lambda: super(_Handovers, self).begin(opened))

    def add(self, opened: Any, record: Any) -> None:
        self._host.change("record", lambda: super(_Handovers, self).add(opened, record))

    def end(self, opened: Any, outcome: Any, at: datetime) -> None:
        self._host.change("end", lambda: super(_Handovers, self).end(opened, outcome, at))


@dataclass
class _Timers:
    host: Host

    def snapshot(self, job: Job) -> Snapshot:
        timer = TimerState(
            Manager("system"), "x.timer", "x.service", self.host.timers_on, "enabled", (Link("/a.wants/x.timer", "b"),),
            "boot", persistent=True,
        )  # fmt: skip
        return Snapshot(timers=(timer,))

    def assumed(self, job: Job) -> Snapshot:
        return replace(self.snapshot(job), assumed=True)

    def obstacles(self, job: Job) -> tuple[str, ...]:
        return ()

    def is_fenced(self, job: str, snapshot: Snapshot) -> bool:
        return self.host.fence

    def fence(self, job: str, snapshot: Snapshot) -> None:
        self.host.put("fence", fence=True)

    def has_fence(self, job: str, snapshot: Snapshot) -> bool:
        return self.host.fence

    def unfence(self, job: str, snapshot: Snapshot) -> None:
        self.host.put("unfence", fence=False)

    def are_off(self, snapshot: Snapshot) -> bool:
        return not self.host.timers_on

    def turn_off(self, snapshot: Snapshot) -> None:
        self.host.put("timers off", timers_on=False)

    def are_back(self, snapshot: Snapshot) -> bool:
        return self.host.timers_on

    def put_back(self, snapshot: Snapshot) -> None:
        self.host.put("timers on", timers_on=True)

    def last_start(self, snapshot: Snapshot) -> datetime | None:
        return self.host.last_start

    def is_running(self, snapshot: Snapshot) -> tuple[str, ...]:
        return ()

    def will_run(self, snapshot: Snapshot, before: datetime) -> bool:
        return False

    def run_once(self, snapshot: Snapshot) -> str | None:
        host = self.host
        host.change("run once", lambda: host.__dict__.update(owed_runs=host.owed_runs + 1, last_start=host.now))
        return "x.service"

    def wake(self, snapshot: Snapshot, last: datetime | None) -> tuple[str, ...]:
        return ()


@dataclass
class _Cron:
    host: Host

    def snapshot(self, job: Job) -> Snapshot:
        return Snapshot(cron=tuple(CronState(each) for each in job.legacy if isinstance(each, CronTrigger)))

    def obstacles(self, job: Job) -> tuple[str, ...]:
        return ()

    def are_off(self, job: str, snapshot: Snapshot) -> bool:
        return not self.host.cron_on

    def turn_off(self, job: str, snapshot: Snapshot) -> None:
        self.host.put("cron off", cron_on=False)

    def are_back(self, job: str, snapshot: Snapshot) -> bool:
        return self.host.cron_on

    def put_back(self, job: str, snapshot: Snapshot) -> None:
        self.host.put("cron on", cron_on=True)


@dataclass
class _Confirm:
    host: Host

    def is_armed(self, job: str) -> bool:
        return self.host.armed is not None

    def has_trace(self, job: str) -> bool:
        return self.host.armed is not None

    def arm(self, job: str, at: datetime) -> None:
        self.host.put("arm", armed=at)

    def disarm(self, job: str) -> None:
        self.host.put("disarm", armed=None)

    def obstacles(self) -> tuple[str, ...]:
        return ()


@dataclass
class _Prefect:
    host: Host

    def is_paused(self, job: str) -> bool | None:
        self.host.ask()
        return self.host.paused

    def is_scheduled(self, job: str) -> bool:
        self.host.ask()
        return not self.host.paused

    def open_up(self, job: str) -> None:
        self.host.ask()
        self.host.put("open up", paused=False, takeable=3)

    def pause(self, job: str) -> None:
        self.host.ask()
        self.host.put("pause", paused=True, takeable=0)

    def catch_up(self, job: str, slots: Sequence[datetime]) -> tuple[str, ...]:
        self.host.ask()
        self.host.change("catch up", lambda: self.host.caught_up.update(slots))
        return tuple(map(str, slots))

    def is_clear(self, job: str) -> bool:
        self.host.ask()
        return self.host.paused and not self.host.takeable

    def clear(self, job: str) -> int:
        self.host.ask()
        found = self.host.takeable
        self.host.put("clear", paused=True, takeable=0)
        return found


@dataclass
class _Slots:
    host: Host

    def missed_by_legacy(self, *_: Any, **__: Any) -> Doubt:
        return Doubt(self.host.missed_legacy)

    def last_run(self, *_: Any) -> datetime | None:
        return None

    def missed_by_prefect(self, *_: Any, **__: Any) -> Doubt:
        return Doubt(self.host.missed_prefect)


def next_slot(side: PrefectSide, job: str) -> datetime | None:
    """Return the next instant for which Prefect has scheduled a run, None where there is none."""
    found, now = side.prefect.deployment(job, job), side.now()
    runs = side.prefect.next_runs([found.id], now=now) if found is not None else ()
    return min((slot for run in runs if (slot := run.expected_start) and slot > now), default=None)
