"""A host that is well, for `doctor` to look at: real files, everything else made up, and easily spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fakes
from fakes import NOON, FakeApplied, FakePrefect
from legacy_fakes import FakeSystemd
from orchctl.adapters import doctor_facts, env_files
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core import doctor as core
from orchctl.core.alerts import Alerts, Channel, Route
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.deliveries import Delivery
from orchctl.core.doctor import Finding
from orchctl.core.doctor_alerts import InPrefect, Watched
from orchctl.core.doctor_facts import Backup, Disk, Listener, Requirement, Who
from orchctl.core.doctor_hosts import Mount
from orchctl.core.installation import AUTH_SERVER, Installation
from orchctl.core.legacy import Manager
from orchctl.core.remote import RemotePool, RemoteWorker
from orchctl.errors import PrefectUnauthorized
from orchctl.services import doctor, sync
from orchctl.services.doctor_world import Facts, World

URL = "http://127.0.0.1:4200/api"
HOURLY = {"hourly": {"cron": "0 * * * *"}}
ALERTS = Alerts({"ops": Channel("ops", "webhook")}, (Route("all", ("failed",), ("ops",)),))
REQUIREMENTS = (
    Requirement("fastapi", ">=0.139,<0.151", "0.150.0", True),
    Requirement("prefect", ">=3.8.8,<3.9", "3.8.8", True),
    Requirement("sqlalchemy", ">=2.0,<2.1", "2.0.58", True),
)
SERVER = Listener("127.0.0.1", 4200, "root", 7, "python", True)


class Server(FakePrefect):
    """A server with a worker, which asks for credentials where `open_to_all` does not say otherwise."""

    clock_offset_s: float | None = 0.0
    online = True
    fails: Exception | None = None

    def version(self) -> str:
        if self.fails is not None:
            raise self.fails
        return "3.8.8"

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        return (RemoteWorker(f"here-{pool}", self.online, NOON),)

    def deployments(self, **words: Any) -> Any:
        if self.fails is not None:
            raise self.fails
        return super().deployments(**words)


class Stranger(FakePrefect):
    """The same server for somebody without credentials."""

    def version(self) -> str:
        raise PrefectUnauthorized("the Prefect API refuses this user (HTTP 401)")


class Systemds(FakeSystemd):
    """Systemds whose users have linger, on a host whose clock is kept."""

    linger: bool | None = True
    ntp: bool | None = True

    def owner(self, manager: Manager) -> str | None:
        return None if manager.scope == "system" else manager.user or "root"

    def lingers(self, manager: Manager) -> bool | None:
        return None if manager.scope == "system" else self.linger

    def synchronised(self) -> bool | None:
        return self.ntp


@dataclass
class Stack:
    """The processes of `host up`: by name their pid, None for one that has died."""

    processes: dict[str, int | None] = field(default_factory=lambda: {"server": 7, "worker-nobody": 8})
    url: str | None = URL

    def names(self) -> tuple[str, ...]:
        return tuple(self.processes)

    def pid(self, name: str) -> int | None:
        return self.processes.get(name)

    def alive(self, name: str) -> bool:
        return self.pid(name) is not None

    def worker_name(self, pool: str) -> str:
        return f"here-{pool}"

    def api_url(self) -> str | None:
        return self.url

    def log_path(self, name: str) -> Path:
        return Path("/log") / name

    def port_is_anothers(self) -> bool:
        return False


@dataclass
class Lines:
    """Crontabs, in which each line stands once."""

    count: int | None = 1

    def find(self, trigger: CronTrigger) -> int | None:
        return self.count

    def entries(self) -> tuple[tuple[()], tuple[()]]:
        return (), ()


@dataclass
class Host:
    """The host. Spoil it, and `findings()` says what doctor makes of that."""

    root: Path
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"job": {"schedules": ["hourly"]}})
    prefect: Server = field(default_factory=Server)
    systemd: Systemds = field(default_factory=Systemds)
    stack: Stack = field(default_factory=Stack)
    crontabs: Lines = field(default_factory=Lines)
    applied: FakeApplied = field(default_factory=FakeApplied)
    installed: Installation | None = None
    alerts: Alerts | None = ALERTS
    deliveries: tuple[Delivery, ...] = (Delivery("ops", NOON, True, "200", NOON),)
    requirements: tuple[Requirement, ...] = REQUIREMENTS
    listeners: tuple[Listener, ...] = (SERVER,)
    disk: Disk = field(default_factory=lambda: Disk("/", 1, 50 * 2**30, 100 * 2**30, 900, 1000))
    backup: Backup | None = None
    zone: str = "UTC"
    me: int | None = None
    """Who runs the worker, by uid; None: this process."""
    url: str = URL
    settings: dict[str, str] = field(default_factory=lambda: {AUTH_SERVER: "me:secret"})
    changed: tuple[str, ...] = ()
    in_prefect: InPrefect = field(default_factory=lambda: InPrefect(True))
    watched: datetime | None = NOON - timedelta(minutes=1)
    blind: Mapping[str, datetime] = field(default_factory=dict)
    watchdog_files: tuple[str, ...] = ()
    mount: Mount | None = field(default_factory=lambda: Mount("ext4", frozenset({"rw"})))
    also: dict[str, Any] = field(default_factory=dict)
    """Parts of the world that are looked at otherwise."""

    def __post_init__(self) -> None:
        self.state.mkdir(mode=0o700)
        self.data.mkdir(mode=0o755)
        (self.state / "prefect").mkdir(mode=0o700)
        self.database.touch(0o600)
        archive = self.root / "backup.tar.gz"
        archive.touch()
        self.backup = Backup(NOON - timedelta(hours=3), str(archive), NOON - timedelta(days=2))
        self.sync()

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database(self) -> Path:
        return self.state / "prefect" / "prefect.db"

    @property
    def owners(self) -> Owners:
        return Owners(self.state)

    @property
    def handovers(self) -> Handovers:
        return Handovers(self.state)

    @property
    def catalog(self) -> Catalog:
        jobs = {name: {"data_root": str(self.data), **job} for name, job in self.jobs.items()}
        return fakes.catalog(jobs, HOURLY)

    def sync(self) -> None:
        """Let Prefect have what the catalog says, and its scheduler and a worker be at work."""
        state = str(self.state)
        proposed = sync.propose(self.catalog, self.prefect, self.applied, state_dir=state, now=NOON)
        sync.apply(proposed, self.catalog, self.prefect, self.applied, now=lambda: NOON)
        self.prefect.pools = {name: RemotePool(name, "process", False, "READY") for name in self.prefect.pools}
        for key, each in self.prefect.by_id.items():
            self.prefect.by_id[key] = replace(each, status="READY")
            self.prefect.schedule_from(key, NOON)

    @property
    def world(self) -> World:
        found = World(
            config_dir="/etc/orchctl",
            state_dir=str(self.state),
            python="/venv/bin/python",
            catalog=lambda: self.catalog,
            installation=lambda: self.installed,
            settings=lambda _installed: self.settings,
            api_url=lambda: self.url,
            connect=lambda: self.prefect,  # type: ignore[arg-type,return-value] # what doctor asks of it
            bare=Stranger,
            ours=lambda: True,
            background=self.stack,  # type: ignore[arg-type] # what doctor asks of it
            stack=lambda _installed: Stack(),  # type: ignore[arg-type,return-value]
            changed_units=lambda _installed: self.changed,
            unfinished_restore=lambda: None,
            unfinished_upgrade=lambda: None,
            systemd=self.systemd,
            crontabs=self.crontabs,
            owners=self.owners,
            handovers=self.handovers,
            applied=self.applied,
            tree=Manifests,
            alerts=lambda _catalog: self.alerts,
            alerts_in_prefect=lambda _alerts, _catalog, _prefect: self.in_prefect,
            deliveries=lambda _catalog: self.deliveries,
            watched=lambda: Watched(self.watched, self.blind),
            watchdog_files=lambda: self.watchdog_files,
            last_backup=lambda: self.backup,
            facts=self.facts,
            now=lambda: NOON,
        )
        return replace(found, **self.also)

    @property
    def facts(self) -> Facts:
        return Facts(
            file=doctor_facts.file,
            sample=doctor_facts.sample,
            disk=lambda path: replace(self.disk, path=path),
            who=self.who,
            is_zone=doctor_facts.is_zone,
            zone=lambda: self.zone,
            listeners=lambda _port: self.listeners,
            requirements=lambda _python: self.requirements,
            within=lambda version, _bounds: version.startswith("3.8."),
            variables=env_files.variables_or_none,
            mount=lambda _path: self.mount,
        )

    def who(self, user: str | int | None) -> Who:
        return doctor_facts.who(self.me if self.me is not None else None if isinstance(user, str) else user)

    def findings(self, *words: str) -> list[Finding]:
        """Return what is not ok."""
        found = doctor.examine(self.world, core.chosen(words))
        return [each for each in found.findings if each.level != "ok"]


def installation(root: Path, **more: Any) -> Installation:
    """Return an installation whose settings file is there and private."""
    settings = root / "settings.env"
    settings.touch(0o600)
    told: dict[str, Any] = {
        "scope": "system",
        "user": "root",
        "api_url": URL,
        "python": "/venv/bin/python",
        "config_dir": "/etc/orchctl",
        "state_dir": str(root / "state"),
        "home": str(root / "state" / "prefect"),
        "settings": str(settings),
        "units": tuple(
            f"/etc/systemd/system/prefect-{name}"
            for name in ("server.service", "worker.service", "recover.service", "recover.timer")
        ),
        "pools": {"nobody": 10},
    }
    return Installation(**{**told, **more})
