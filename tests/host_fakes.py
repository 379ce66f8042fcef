"""A host in memory for `host install`: units and their files, what systemd does with them, the record, the server."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fakes import FakePrefect
from orchctl.core.backup import stamp
from orchctl.core.doctor_facts import Requirement
from orchctl.core.host_settings import api_url
from orchctl.core.installation import DATABASE, RECOVER_TIMER, SERVER_UNIT, Installation
from orchctl.core.remote import RemotePool, RemoteRun, RemoteWorker
from orchctl.services.host_install_ports import Asked, Host
from orchctl.services.stack import Clock

STATE = "/home/daniel/.local/state/orchctl"
FOLDER = "/etc/systemd/system"
SETTINGS = f"{STATE}/host/settings.env"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class State:
    """A unit as systemd has it."""

    load: str = "not-found"
    enabled: str = ""
    fragment: str = ""
    runs: bool = False


@dataclass
class Computer:
    """What there is on a host. `dies_at`: the number of the change before which the process is killed."""

    files: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    states: dict[str, State] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    lingering: bool | None = None
    taken: set[int] = field(default_factory=set)
    background: list[str] = field(default_factory=list)
    readable: bool = True
    writable: bool = True
    ours_to_keep: bool = True
    done: list[str] = field(default_factory=list)
    dies_at: int | None = None
    time: float = 0.0
    heard: dict[str, datetime] = field(default_factory=dict)
    pools: set[str] = field(default_factory=set)
    hostname: str = "host"
    namesake: timedelta | None = None
    """How often the server hears of a worker of our name on another host; None: there is none."""
    needs: tuple[Requirement, ...] = (Requirement("fastapi", ">=1,<2", "1.5", True),)
    unreachable: str | None = None
    """Why no database elsewhere can be reached."""
    tried: list[str] = field(default_factory=list)
    failure: str | None = None
    """How the last look for lost runs failed."""
    foreign: bool = False
    """Another program has the server's port, and answers."""

    def change(self, what: str) -> None:
        if self.dies_at is not None and len(self.done) >= self.dies_at:
            raise Killed
        self.done.append(what)

    def state(self, name: str) -> State:
        return self.states.setdefault(name, State())

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time)

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def begin(self, name: str) -> None:
        self.state(name).runs = True
        if "worker" in name:
            self.heard[name] = self.now()

    def no_way_to_database(self, settings: Mapping[str, str], python: str, user: str) -> str | None:
        self.tried.append(settings[DATABASE])
        return self.unreachable

    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep, self.now)

    def host(self, prefect: Callable[[Installation], FakePrefect] | None = None) -> Host:
        auths = iter(f"orchctl:secret-number-{number}" for number in range(99))
        return Host(
            units=Units(self),
            records=Records(self),
            stack=lambda its: Stack(self, its),
            connect=prefect or (lambda its: Server(self, its)),
            background=lambda: self.background,
            port_is_free=lambda port: port not in self.taken,
            free_port=lambda: 45678,
            may_run=lambda _program, _user: self.readable,
            may_keep=lambda _folder, _user: self.ours_to_keep,
            needs=lambda _python: self.needs,
            no_way_to_database=self.no_way_to_database,
            new_auth=functools.cache(lambda: next(auths)),
            hostname=self.hostname,
        )


@dataclass
class Units:
    """`adapters/host_units.py`."""

    computer: Computer

    def version(self) -> int:
        return 252

    def path(self, name: str) -> str:
        return f"{FOLDER}/{name}"

    def state(self, name: str) -> State:
        return self.computer.state(name)

    def read(self, path: str) -> str | None:
        return self.computer.files.get(path)

    def new_folders(self, path: str) -> tuple[str, ...]:
        return tuple({FOLDER, f"{FOLDER}/timers.target.wants"} - self.computer.folders)

    def write(self, path: str, text: str) -> None:
        self.computer.change(f"write {path}")
        self.computer.folders |= {FOLDER, f"{FOLDER}/timers.target.wants"}
        self.computer.files[path] = text

    def remove(self, path: str) -> None:
        self.computer.change(f"remove {path}")
        self.computer.files.pop(path, None)

    def remove_folders(self, folders: tuple[str, ...]) -> None:
        self.computer.change("remove folders")
        self.computer.folders -= set(folders)

    def may_write(self) -> bool:
        return self.computer.writable

    def reload(self) -> None:
        self.computer.change("reload")
        for name, state in self.computer.states.items():
            there = self.path(name) in self.computer.files
            state.load, state.fragment = ("loaded", self.path(name)) if there else ("not-found", "")

    def enable(self, name: str) -> None:
        self.computer.change(f"enable {name}")
        self.state(name).enabled = "enabled"

    def disable(self, name: str) -> None:
        self.computer.change(f"disable {name}")
        self.state(name).enabled = ""

    def start(self, name: str) -> None:
        self.computer.change(f"start {name}")
        self.computer.begin(name)

    def restart(self, name: str) -> None:
        self.computer.change(f"restart {name}")
        self.computer.begin(name)

    def stop(self, name: str, *, patience_s: float) -> bool:
        ran = self.state(name).runs
        if ran:
            self.computer.change(f"stop {name}")
            self.state(name).runs = False
        return ran

    def forget(self, name: str) -> None:
        return None

    def lingers(self) -> bool | None:
        return self.computer.lingering

    def linger(self, on: bool) -> None:
        self.computer.change(f"linger {on}")
        self.computer.lingering = on


@dataclass
class Records:
    """`adapters/installed.py`."""

    computer: Computer

    @property
    def settings_path(self) -> str:
        return SETTINGS

    def read(self) -> Installation | None:
        return None if self.computer.record is None else Installation.from_json(self.computer.record)

    def write(self, installation: Installation) -> None:
        self.computer.change("record")
        self.computer.record = installation.to_json()

    def remove(self) -> None:
        self.computer.change("remove record")
        self.computer.record = None

    def settings_text(self) -> str | None:
        return self.computer.files.get(SETTINGS)

    def write_settings(self, text: str) -> None:
        self.computer.change("write settings")
        self.computer.files[SETTINGS] = text

    def remove_settings(self) -> None:
        self.computer.change("remove settings")
        self.computer.files.pop(SETTINGS, None)

    def keep_settings(self, at: datetime) -> str:
        path = f"{SETTINGS}.before-{stamp(at)}"
        self.computer.change("keep settings")
        self.computer.files[path] = self.computer.files[SETTINGS]
        return path

    def kept_settings(self) -> str | None:
        return max((path for path in self.computer.files if path.startswith(f"{SETTINGS}.before-")), default=None)

    def make_home(self, path: str) -> None:
        return None


@dataclass
class Stack:
    """`adapters/unit_stack.py`."""

    computer: Computer
    its: Installation

    def _unit(self, name: str) -> str:
        return {"server": SERVER_UNIT, "recover": RECOVER_TIMER}.get(name, self._worker(name))

    def _worker(self, name: str) -> str:
        from orchctl.core.host_units import worker_units

        return worker_units(self.its).get(name.removeprefix("worker-"), "")

    def start_server(self, port: int) -> str:
        self.computer.change(f"start {SERVER_UNIT}")
        self.computer.begin(SERVER_UNIT)
        return self.its.api_url

    def start_worker(self, pool: str, api_url: str, *, limit: int) -> None:
        self.computer.change(f"start {self._worker(pool)}")
        self.computer.begin(self._worker(pool))

    def worker_name(self, pool: str) -> str:
        return f"host-{pool}"

    def stop(self, name: str, *, patience_s: float) -> bool:
        return Units(self.computer).stop(self._unit(name), patience_s=patience_s)

    def pid(self, name: str) -> int | None:
        return 1 if self.alive(name) else None

    def alive(self, name: str) -> bool:
        return self.computer.state(self._unit(name)).runs

    def names(self) -> tuple[str, ...]:
        return (*(["server"] if self.its.server else []), *(f"worker-{pool}" for pool in self.its.pools), "recover")

    def guards(self) -> int:
        return 0

    def api_url(self) -> str | None:
        return self.its.api_url if self.its.server else None

    def log_path(self, name: str) -> str:
        return f"journalctl {name}"

    def log_tail(self, name: str) -> str:
        return ""

    def port_is_anothers(self) -> bool:
        return self.computer.foreign

    def failure(self) -> str | None:
        return self.computer.failure


class Server(FakePrefect):
    """The server of an installation, which schedules, and hears of the workers that were started."""

    def __init__(self, computer: Computer, its: Installation) -> None:
        super().__init__()
        self.computer, self.its = computer, its

    def pool(self, name: str) -> RemotePool | None:
        return RemotePool(name, "process", False, "READY") if name in self.computer.pools else None

    def create_pool(self, name: str, *, description: str | None) -> None:
        self.computer.change(f"pool {name}")
        self.computer.pools.add(name)

    def create_flow(self, name: str) -> str:
        return "probe"

    def create_deployment(self, body: Any) -> str:
        return "probe"

    def delete_flow(self, id: str) -> None:  # noqa: A002 - as the port has it
        return None

    def scheduled_runs(self, deployment_ids: Any) -> tuple[RemoteRun, ...]:
        return (RemoteRun("r", "r", "probe", "SCHEDULED", "Scheduled", None, START, True, None, 0),)

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        unit, every = Stack(self.computer, self.its)._worker(pool), self.computer.namesake
        heard = self.computer.heard.get(unit)
        if heard is None and every is not None:
            heard = START + every * ((self.computer.now() - START) // every)
        return (RemoteWorker(f"host-{pool}", True, heard),) if heard is not None else ()


def asked(**changed: Any) -> Asked:
    """Return what an installation with defaults is asked to be."""
    fields: dict[str, Any] = {
        "scope": "system",
        "user": "daniel",
        "python": "/opt/orchctl/bin/python",
        "config_dir": "/srv/config",
        "state_dir": STATE,
        "pools": {"local": 10},
        "port": None,
        "database": None,
        "server": None,
        "api_url": None,
        "auth": None,
        "by_hand": "sudo orchctl host install",
    }
    return Asked(**(fields | changed))


def url(port: int) -> str:
    return api_url(port)
