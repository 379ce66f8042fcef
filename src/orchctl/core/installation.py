"""What `orchctl host install` put on this host: where it is, under whom it runs, and what its files are called. Pure.

The record holds no secret: those are in the file of settings, which only its owner may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchctl.core.legacy import SYSTEM, Manager

Scope = Literal["system", "user"]
SERVER_UNIT = "prefect-server.service"
WORKER_UNIT = "prefect-worker.service"
RECOVER_UNIT = "prefect-recover.service"
RECOVER_TIMER = "prefect-recover.timer"
VERSION = 1

API_URL = "PREFECT_API_URL"
AUTH_CLIENT = "PREFECT_API_AUTH_STRING"
AUTH_SERVER = "PREFECT_SERVER_API_AUTH_STRING"
DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
ENCRYPTION_KEY = "PREFECT_SERVER_ENCRYPTION_KEY"
ENCRYPTION_KEYS = (ENCRYPTION_KEY, "ORION_ENCRYPTION_KEY")
"""The settings that hold what encrypts Prefect's blocks; the first goes first, as in Prefect."""
DATABASES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", DATABASE)
"""The settings that name the database; the first goes first, as in Prefect."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation of server and workers.

    All paths are absolute. `user` is the account that server and workers run as. `pools`: the work pools of this host's
    workers, and how many runs at a time each takes. `python` is the interpreter whose Prefect and orchctl the units
    run. `api_url` is where the server answers: on 127.0.0.1 unless the host only has workers (`server` False). `units`
    are the paths of the unit files that were added, in the order they are started. `settings` is the environment file
    of the units, mode 0600; `home` is PREFECT_HOME, where SQLite's database is.

    `folders` were made for the units, and `lingering` says that the user's manager was made to run without a login: an
    uninstall takes both back. `owed` are the units that an install, or one that was killed, still has to restart.
    `hostname` is the host whose units they are, "" where an older orchctl did not say. `only` are the pools that were
    named; empty: all of the catalog, whatever it has.
    """

    scope: Scope
    user: str
    api_url: str
    python: str
    config_dir: str
    state_dir: str
    home: str
    settings: str
    units: tuple[str, ...]
    pools: Mapping[str, int]
    server: bool = True
    folders: tuple[str, ...] = ()
    lingering: bool = False
    owed: tuple[str, ...] = ()
    hostname: str = ""
    only: tuple[str, ...] = ()

    @property
    def manager(self) -> Manager:
        """The systemd whose units they are."""
        return SYSTEM if self.scope == "system" else Manager("user", self.user)

    def journal_of(self, unit: str) -> str:
        """Return the command that shows what one of these units said."""
        return f"journalctl {'--user --user-unit' if self.scope == 'user' else '--unit'} {unit}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as it stands in `state/host/installation.json`."""
        lists = {key: list(getattr(self, key)) for key in ("units", "folders", "owed", "only")}
        return {"version": VERSION, **asdict(self), **lists, "pools": dict(self.pools)}

    @classmethod
    def from_json(cls, data: object) -> Installation:
        """Return what a record says. Raises ValueError where it is none of this version."""
        if not isinstance(data, dict) or data.get("version") != VERSION:
            raise ValueError("it is not a record of an installation that this orchctl can read")
        texts = ("scope", "user", "api_url", "python", "config_dir", "state_dir", "home", "settings")
        if not all(isinstance(data.get(key), str) for key in texts) or data["scope"] not in {"system", "user"}:
            raise ValueError("it does not say where the installation is")
        units, pools = data.get("units"), data.get("pools")
        if not isinstance(units, list) or not all(isinstance(each, str) for each in units):
            raise ValueError("it does not say which units were added")
        if not isinstance(pools, dict) or not all(type(each) is int for each in pools.values()):
            raise ValueError("it does not say which pools have workers")
        more = {key: data.get(key, []) for key in ("folders", "owed", "only")}
        if not all(isinstance(each, list) for each in more.values()):
            raise ValueError("it does not say what an uninstall takes back")
        return cls(
            **{key: data[key] for key in texts},
            units=tuple(units),
            pools=pools,
            server=bool(data["server"]),
            folders=tuple(map(str, more["folders"])),
            lingering=bool(data.get("lingering", False)),
            owed=tuple(map(str, more["owed"])),
            hostname=str(data.get("hostname", "")),
            only=tuple(map(str, more["only"])),
        )


def worker_unit(pool: str, pools: Mapping[str, int]) -> str:
    """Return the name of the unit of a pool's worker: `prefect-worker.service` where the host has one pool only."""
    return WORKER_UNIT if len(pools) == 1 else f"prefect-worker-{pool}.service"
