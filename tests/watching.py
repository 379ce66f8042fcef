"""A host under watch, in memory: what the watchdog's service works with, and a clock that stands still."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim

import fakes
from orchctl.adapters.claims import Claims
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core import deployments
from orchctl.core.alerts import BY_WATCHDOG, Alerts, Channel, Route, Secret, Watchdog
from orchctl.core.catalog import Catalog
from orchctl.core.deliveries import Answer, Letter
from orchctl.core.doctor_facts import Backup, Disk
from orchctl.core.names import format_instant, run_id
from orchctl.core.remote import RemoteDeployment, RemoteRun, RemoteWorker
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError, PrefectUnreachable
from orchctl.services import watchdog
from orchctl.services.alert_delivery import Round
from orchctl.services.watch_ports import Clock, InForce, World
from orchctl.services.watchdog import Look

NOW = datetime(2025, 12, 19, 12, 0, 30, tzinfo=UTC)
SCHEDULES = {"often": {"cron": "*/5 * * * *"}, "daily": {"cron": "0 8 * * *"}}
JOBS: dict[str, dict[str, Any]] = {
    "own": {"schedules": ["often"], "tags": ["night"]},
    "moved": {"schedules": ["often"], "legacy": [{"timer": "moved.timer"}]},
    "by-hand": {},
}
ALERTS = Alerts(
    {"ops": Channel("ops", "slack", Secret(env="OPS_URL"))},
    (Route("all", BY_WATCHDOG, ("ops",)),),
    Watchdog(dead_man=Secret(env="DEAD_MAN")),
)


class Server(fakes.FakePrefect):
    """A Prefect server that schedules five minutes ahead, with a worker that was heard of just now."""

    silent: str | None = None
    heard: datetime | None = NOW
    idle: frozenset[str] = frozenset()
    asked: int = 0

    def version(self) -> str:
        self.asked += 1
        if self.silent is not None:
            raise PrefectUnreachable(self.silent)
        return "3.8.8"

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        return () if self.heard is None else (RemoteWorker("w", True, self.heard),)

    def next_runs(self, deployment_ids: Any, *, now: datetime) -> tuple[RemoteRun, ...]:
        at = now + timedelta(minutes=5)
        named = {key: self.by_id[key].name for key in deployment_ids}
        return tuple(
            RemoteRun(key, "r", key, "SCHEDULED", "Scheduled", None, at, True, None, 0)
            for key, name in named.items()
            if name not in self.idle
        )


class Rule:
    """Prefect's rule, for cron lines on days when no clock changes. `asked` counts."""

    def __init__(self) -> None:
        self.asked_for = 0
        self.broken: str | None = None

    @contextmanager
    def asked(
        self, schedules: Sequence[Mapping[str, Any]], start: datetime, end: datetime | None, *, count: int | None = None
    ) -> Iterator[Callable[[], tuple[list[int], ...]]]:
        self.asked_for += 1
        assert end is not None
        stop = end

        def answer() -> tuple[list[int], ...]:
            if self.broken is not None:
                raise OrchctlError(self.broken)
            return tuple(self._instants(each, start, stop) for each in schedules)

        yield answer

    @staticmethod
    def _instants(schedule: Mapping[str, Any], start: datetime, end: datetime) -> list[int]:
        zone = ZoneInfo(schedule["timezone"])
        moments = CronSim(schedule["cron"], start.astimezone(zone) - timedelta(seconds=1))
        return [int(each.timestamp()) for each in itertools.takewhile(lambda each: each < end, moments)]


@dataclass
class Post:
    """What receivers answer, by channel; `sent` is what they were sent."""

    answers: dict[str, Answer] = field(default_factory=dict)
    sent: list[Letter] = field(default_factory=list)
    pings: int = 0

    def send_all(
        self, letters: Mapping[str, Sequence[Letter]], channels: Mapping[str, Channel], *, within_s: float
    ) -> dict[str, tuple[Answer, ...]]:
        assert set(letters) <= set(channels)
        self.sent += [letter for own in letters.values() for letter in own]
        answers = {name: self.answers.get(name, Answer(True, "200 ok", 1)) for name in letters}
        return {name: (answers[name],) * len(own) for name, own in letters.items()}

    def ping(self, url: Secret, *, within_s: float) -> Answer:
        self.pings += 1
        return Answer(True, "200 pong", 1)


@dataclass
class Host:
    """The host. Each `look` is a minute after the one before."""

    root: Path
    alerts: Alerts = ALERTS
    catalog: Catalog | None = field(default_factory=lambda: fakes.catalog(JOBS, SCHEDULES))
    problem: str | None = None
    server: Server = field(default_factory=Server)
    rule: Rule = field(default_factory=Rule)
    post: Post = field(default_factory=Post)
    free: float = 0.5
    backup: Backup | None = None
    now: datetime = NOW
    uptime: float = 1e6
    slept: float = 0.0
    beats: bool = True
    others: Round = field(default_factory=Round)

    def __post_init__(self) -> None:
        self.store = Deliveries(self.root / "state")
        self.owners, self.handovers = Owners(self.root / "state"), Handovers(self.root / "state")
        self.claims, self.tree = Claims(self.root / "state"), Manifests(str(self.root / "data"))
        self._ids = itertools.count()
        self.sync()

    def sync(self) -> None:
        """Give Prefect the deployments of the catalog."""
        assert self.catalog is not None
        for job in self.catalog.jobs.values():
            wanted = deployments.desired(self.catalog, job, digest=self.catalog.digest, state_dir="/s")
            self.server.pools.setdefault(job.work_pool, cast("Any", None))
            body = deployments.to_body(wanted.fields) | {"name": job.name, "flow_id": self.server.create_flow(job.name)}
            body["schedules"] = [deployments.schedule_body(each, active=True) for each in wanted.schedules]
            self.server.create_deployment(body)

    def deployment(self, job: str) -> RemoteDeployment:
        return next(each for each in self.server.by_id.values() if each.name == job)

    def owns(self, job: str) -> None:
        self.owners.create(job, Owner(NOW - timedelta(days=1), False), still=lambda: True)

    def world(self) -> World:
        def disk(path: str) -> Disk:
            return Disk(path, 1, int(self.free * 1000), 1000, 500, 1000)

        def sleep(seconds: float) -> None:
            self.slept += seconds

        return World(
            alerts=self.alerts,
            alerts_problem=None,
            state_place="/state",
            in_force=lambda _digest: InForce(self.catalog, self.problem),
            prefect=lambda _patience: self.server,
            api_url="http://here/api",
            owners=self.owners,
            handovers=self.handovers,
            claims=self.claims,
            tree=lambda _root: self.tree,
            rule=self.rule,
            disk=disk,
            places=lambda _catalog: {"state": "/state", "data": "/data"},
            backup=lambda: self.backup,
            post=self.post,
            others=lambda _left: self.others,
            store=self.store,
            clock=Clock(lambda: self.slept, sleep, lambda: self.now, lambda: self.uptime),
            host="box",
            mask=str,
            new_id=lambda: f"id-{next(self._ids)}",
        )

    def look(self, *, after: timedelta = timedelta(minutes=1), dry: bool = False) -> Look:
        self.now += after
        if self.beats:
            self.server.heard = self.now
        return watchdog.watchdog(self.world(), dry=dry)

    def told(self, *, after: timedelta = timedelta(minutes=1)) -> list[str]:
        """Look, and return what was sent."""
        before = len(self.post.sent)
        self.look(after=after)
        return [letter.message.event for letter in self.post.sent[before:]]

    def ran(self, job: str, slot: datetime, *, status: str = "success", claim: bool = True) -> None:
        """Leave what a run of Prefect's leaves."""
        if claim:
            name = run_id(slot, job)
            self.claims.take(job, slot, run_id=name, flow_run_id=job, at=slot)
            return
        stamp = format_instant(slot)
        self.tree.append(
            {
                "ts": stamp, "event": "run_finished", "run_id": run_id(slot, job), "job": job, "asset": job,
                "game_date": str(slot.date()), "status": status, "slot": stamp, "origin": "prefect", "attempt": 1,
                "trigger": "schedule", "mode": "live", "started_at": stamp, "finished_at": stamp,
            }
        )  # fmt: skip
