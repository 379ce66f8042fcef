"""The composition root: it builds adapters from the command line and the environment, and hands them out.

Law of this layer: the only reader of `os.environ`; it decides nothing else. Everything is built when it is
first asked for, so that `--help` needs no catalog and `check` no HTTP library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orchctl.adapters.applied import AppliedCatalogs
    from orchctl.adapters.claims import Claims
    from orchctl.adapters.confirm_timer import ConfirmTimer
    from orchctl.adapters.cron import Crontabs
    from orchctl.adapters.cron_switch import CronSwitch
    from orchctl.adapters.handovers import Handovers
    from orchctl.adapters.local_stack import LocalStack
    from orchctl.adapters.manifests import Manifests
    from orchctl.adapters.owners import Owners
    from orchctl.adapters.prefect_api import PrefectApi
    from orchctl.adapters.prefect_rule import PrefectRule
    from orchctl.adapters.systemd import Systemd
    from orchctl.adapters.timer_switch import TimerSwitch
    from orchctl.adapters.unit_details import UnitDetails
    from orchctl.core.catalog import Catalog, Job
    from orchctl.core.catalog_edit import Texts
    from orchctl.core.installation import Installation
    from orchctl.services.backfill import World
    from orchctl.services.handover_steps import Hands
    from orchctl.services.observe import Eyes

DEFAULT_API_URL = "http://127.0.0.1:4200/api"


@dataclass(frozen=True)
class Settings:
    """Where things are. Paths are absolute; `api_url` is None where nothing names a server.

    `named` are those of `config_dir` and `state_dir` that the command line or the environment names.
    """

    config_dir: Path
    state_dir: Path
    api_url: str | None
    as_json: bool = False
    color: bool = True
    verbose: bool = False
    named: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        *,
        config: Path | None = None,
        state_dir: Path | None = None,
        api_url: str | None = None,
        as_json: bool = False,
        no_color: bool = False,
        verbose: bool = False,
    ) -> Settings:
        """Return the settings: what the command line says goes before the environment, that before defaults.

        The catalog is in ./config where that holds one, else in $XDG_CONFIG_HOME/orchctl.
        """
        home = Path(environment.get("HOME") or "/")
        here = Path("config")
        config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "orchctl"
        found = here if (here / "jobs.toml").exists() else config_home if config_home.exists() else here
        given = {"config_dir": config or environment.get("ORCHCTL_CONFIG")}
        given["state_dir"] = state_dir or environment.get("ORCHCTL_STATE_DIR")
        return cls(
            config_dir=(config or Path(environment.get("ORCHCTL_CONFIG") or found)).absolute(),
            state_dir=(state_dir or state_dir_of(environment)).absolute(),
            api_url=api_url or environment.get("PREFECT_API_URL") or None,
            as_json=as_json,
            color=not (no_color or environment.get("NO_COLOR")),
            verbose=verbose,
            named=frozenset(name for name, value in given.items() if value),
        )


def state_dir_of(environment: Mapping[str, str]) -> Path:
    """Return the state directory that the environment means."""
    home = environment.get("HOME") or "/"
    base = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return Path(environment.get("ORCHCTL_STATE_DIR") or os.path.join(base, "orchctl"))


class App:
    """What a command works with. Every part is built when it is first used."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self.settings = settings
        self._environment = environment

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog; loading it refreshes what shell completion answers from. Raises CatalogInvalid."""
        from orchctl.adapters import completion_cache, toml_files

        catalog = toml_files.load(self.settings.config_dir, trust=self.trusted)
        completion_cache.write(self.settings.state_dir, catalog)
        return catalog

    @property
    def catalog_or_none(self) -> Catalog | None:
        """The catalog, None where there is none at all. Raises CatalogInvalid for one that is there and invalid."""
        from orchctl.adapters import toml_files

        there = any((self.settings.config_dir / name).exists() for name in (toml_files.JOBS, toml_files.SCHEDULES))
        return self.catalog if there else None

    @cached_property
    def catalog_if_valid(self) -> Catalog | None:
        """The catalog; None where there is none, or one that is invalid: a rollback works without."""
        from orchctl.errors import CatalogInvalid

        try:
            return self.catalog_or_none
        except CatalogInvalid:
            return None

    @property
    def zone(self) -> str:
        """The zone that instants are shown in: the catalog's, else this host's."""
        catalog = self.catalog_if_valid
        return catalog.timezone if catalog is not None else self.host_zone

    @cached_property
    def trusted(self) -> frozenset[int]:
        """Users besides itself and root whose files this process believes: see `adapters/belief.py`."""
        from orchctl.adapters import belief

        return belief.trusted(self.settings.state_dir, self._environment.get("SUDO_USER") or None)

    @cached_property
    def applied(self) -> AppliedCatalogs:
        """The applied catalogs of this host."""
        from orchctl.adapters import belief
        from orchctl.adapters.applied import AppliedCatalogs

        return AppliedCatalogs(self.settings.state_dir, trust=belief.owner(self.settings.state_dir))

    @cached_property
    def owners(self) -> Owners:
        """Who owns each job of this host."""
        from orchctl.adapters.owners import Owners

        return Owners(self.settings.state_dir)

    @cached_property
    def claims(self) -> Claims:
        """Which runs took the slots of this host."""
        from orchctl.adapters.claims import Claims

        return Claims(self.settings.state_dir)

    @cached_property
    def instant_of(self) -> Callable[[Job, str, date, Mapping[str, str]], datetime]:
        """What gives the instant of a job's as-of mode for a date."""
        from orchctl.adapters.as_of import AsOf

        return AsOf(self._environment).instant

    @cached_property
    def handovers(self) -> Handovers:
        """The journals of this host's handovers."""
        from orchctl.adapters.handovers import Handovers

        return Handovers(self.settings.state_dir)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The jobs with an unfinished handover: one look into one folder, for every command. Raises StateBroken."""
        from orchctl.adapters.state_folder import StateFolder
        from orchctl.core.names import is_name

        return tuple(name for name in StateFolder(self.settings.state_dir, "handovers/open").names() if is_name(name))

    def owns(self, job: str) -> bool:
        """Return whether Prefect owns a job on this host; a file that cannot be believed counts as yes here."""
        from orchctl.adapters.owners import Owners
        from orchctl.errors import StateBroken

        try:
            return Owners(self.settings.state_dir).read(job) is not None
        except StateBroken:
            return True

    def exclusive(self, command: str) -> AbstractContextManager[None]:
        """Return what holds this host's lock while `command` changes something. Raises Locked on entry."""
        from orchctl.adapters import host_lock

        return host_lock.held(self.settings.state_dir, command)

    @cached_property
    def systemd(self) -> Systemd:
        """The systemds of this host. Under sudo, "the user's" is that of who called sudo."""
        from orchctl.adapters.systemd import Systemd

        return Systemd(self._environment, self._environment.get("SUDO_USER") or None)

    @cached_property
    def unit_details(self) -> UnitDetails:
        """What else there is to know of a unit, for `import`."""
        from orchctl.adapters.unit_details import UnitDetails

        return UnitDetails(self.systemd, self._environment.get("SUDO_USER") or None)

    @property
    def catalog_texts(self) -> Texts:
        """The catalog's files as they are now, also where they are missing or wrong."""
        from orchctl.adapters import toml_files
        from orchctl.core.catalog_edit import Texts

        found = toml_files.texts(self.settings.config_dir, trust=self.trusted)
        return Texts(found[toml_files.JOBS], found[toml_files.SCHEDULES], found[toml_files.CONTRACTS])

    def write_catalog(self, contents: Mapping[str, str]) -> None:
        """Write files of the catalog, in the order given. Raises NotAllowed, OrchctlError."""
        from orchctl.adapters import toml_files

        toml_files.write(self.settings.config_dir, contents)

    @property
    def default_data_root(self) -> Path:
        """Where the data of a new catalog goes that names no other place."""
        home = Path(self._environment.get("HOME") or "/")
        return Path(self._environment.get("XDG_DATA_HOME") or home / ".local" / "share") / "orchctl"

    @cached_property
    def prefect_rule(self) -> PrefectRule:
        """Prefect's own rules of when a schedule is due."""
        from orchctl.adapters.prefect_rule import PrefectRule

        return PrefectRule(self._environment)

    @cached_property
    def eyes(self) -> Eyes:
        """What looks at the legacy history of this host."""
        from orchctl.wiring.eyes import eyes

        return eyes(self._environment, self.settings.state_dir, self._environment.get("SUDO_USER") or None)

    def hands(self, *, patience: float | None = None) -> Hands:
        """What a handover works with. `patience`: seconds that may be waited for Prefect in all, None: no bound."""
        from orchctl.wiring import handover

        return handover.hands(self, patience=patience)

    @cached_property
    def timer_switch(self) -> TimerSwitch:
        """What switches timers of this host off and on, and fences their services."""
        from orchctl.adapters.timer_switch import TimerSwitch

        return TimerSwitch(self.systemd, self.owners.path)

    @cached_property
    def cron_switch(self) -> CronSwitch:
        """What switches crontab lines of this host off and on."""
        import time

        from orchctl.adapters.cron_switch import CronSwitch

        return CronSwitch(self.crontabs, self.owners, now=self.now, sleep=time.sleep)

    @cached_property
    def confirm_timer(self) -> ConfirmTimer:
        """The timers that roll jobs back unless somebody confirms."""
        from orchctl.wiring import handover

        return handover.confirm_timer(self, self._environment)

    @cached_property
    def crontabs(self) -> Crontabs:
        """The crontabs of this host. Under sudo, "the user's" is that of who called sudo."""
        from orchctl.adapters.cron import Crontabs

        return Crontabs(self._environment, self._environment.get("SUDO_USER") or None)

    @cached_property
    def host_zone(self) -> str:
        """The time zone of this host, which is that of its timers and crontabs."""
        from orchctl.adapters import host_facts

        return host_facts.timezone()

    @cached_property
    def stack(self) -> LocalStack:
        """Server and worker of this host."""
        from orchctl.adapters.local_stack import LocalStack

        return LocalStack(self.settings.state_dir, self._environment)

    @cached_property
    def installation(self) -> Installation | None:
        """What `host install` put on this host, None where nothing. Raises StateBroken."""
        from orchctl.adapters.installed import Installed

        return Installed(self.settings.state_dir).read()

    @property
    def installation_if_believed(self) -> Installation | None:
        """The same, None also where its record cannot be believed: a rollback works without, and `doctor` tells."""
        from orchctl.errors import StateBroken

        try:
            return self.installation
        except StateBroken:
            return None

    @cached_property
    def api_url(self) -> str:
        """The API: named by option or environment, else that of `host install` or `host up`, else Prefect's default."""
        named = self.settings.api_url
        installed = self.installation_if_believed if named is None else None
        return named or (installed and installed.api_url) or self.stack.api_url() or DEFAULT_API_URL

    @cached_property
    def prefect(self) -> PrefectApi:
        """The Prefect API at `api_url`."""
        return self.connect(self.api_url)

    def connect(self, url: str, *, attempts: int = 5, patience: float | None = None) -> PrefectApi:
        """Return a client for `url`, with the credentials of the environment; `attempts` a request at most.

        `patience`: seconds that may be spent on waiting in all, None: no bound. See `PrefectHttp`.
        """
        from orchctl.wiring import connect

        installed = self.installation_if_believed
        return connect.client(self._environment, installed, url, attempts=attempts, patience=patience)

    def tree(self, data_root: str) -> Manifests:
        """Return the manifests under a data root."""
        from orchctl.adapters.manifests import Manifests

        return Manifests(data_root)

    @cached_property
    def trees(self) -> list[Manifests]:
        """The manifests of every data root of the catalog."""
        return [self.tree(root) for root in sorted({job.data_root for job in self.catalog.jobs.values()})]

    def backfill_world(self) -> World:
        """Return what a backfill works with."""
        from orchctl.wiring import backfill

        return backfill.world(self)

    @property
    def worker_places(self) -> dict[str, int]:
        """The work pools of the catalog, and how many runs at a time the worker of each takes."""
        from orchctl.core import limits

        return limits.worker_places(self.catalog)

    @property
    def pools(self) -> tuple[str, ...]:
        """The work pools of the catalog."""
        return tuple(sorted({job.work_pool for job in self.catalog.jobs.values()}))

    @staticmethod
    def now() -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)


def environment() -> dict[str, str]:
    """Return this process's environment."""
    return dict(os.environ)
