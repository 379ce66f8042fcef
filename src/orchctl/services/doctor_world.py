"""What `doctor` looks at, and each look made once, however many checks need it. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from orchctl.core.alerts import Alerts
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.crontab import CronEntry
from orchctl.core.deliveries import Delivery
from orchctl.core.doctor import Finding, unknown
from orchctl.core.doctor_alerts import InPrefect, Watched
from orchctl.core.doctor_facts import Backup, Disk, FileFacts, Listener, Requirement, Sampled, Who
from orchctl.core.doctor_hosts import Mount
from orchctl.core.doctor_server import port_of
from orchctl.core.installation import Installation
from orchctl.core.legacy import Manager, Units
from orchctl.core.legacy_report import Report
from orchctl.core.plan import Plan
from orchctl.errors import OrchctlError, PrefectUnauthorized, StateBroken
from orchctl.services import legacy, stack, status, sync
from orchctl.services.alerts import AlertsInPrefect
from orchctl.services.ownership import Journals, OwnerFiles
from orchctl.services.ports import Applied, ManifestTree, Prefect, StackHost

_T = TypeVar("_T")


class Server(Prefect, AlertsInPrefect, Protocol):
    """Prefect with its alerts. `clock_offset_s`: how far its clock was ahead in its last answer, None: not said."""

    @property
    def clock_offset_s(self) -> float | None: ...  # noqa: D102


class Systemds(Protocol):
    """The systemds of this host, and whose they are. See `adapters/systemd.py`."""

    def read(  # noqa: D102
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units: ...
    def owner(self, manager: Manager) -> str | None: ...  # noqa: D102
    def lingers(self, manager: Manager) -> bool | None: ...  # noqa: D102
    def synchronised(self) -> bool | None: ...  # noqa: D102


class Crontabs(Protocol):
    """The crontabs of this host. See `adapters/cron.py`."""

    def entries(self) -> tuple[tuple[CronEntry, ...], tuple[str, ...]]: ...  # noqa: D102
    def find(self, trigger: CronTrigger) -> int | None: ...  # noqa: D102


@dataclass(frozen=True)
class Facts:
    """Facts of this host. See `adapters/doctor_facts.py`, `doctor_sockets.py` and `doctor_versions.py`.

    `variables` gives the names that an environment file sets, none where it cannot be read. `zone` is the host's.
    `mount` is the file system of a folder, None where that cannot be known.
    """

    file: Callable[[str], FileFacts | None]
    sample: Callable[[str], Sampled]
    disk: Callable[[str], Disk]
    who: Callable[[str | int | None], Who]
    is_zone: Callable[[str], bool]
    zone: Callable[[], str]
    listeners: Callable[[int], tuple[Listener, ...]]
    requirements: Callable[[str], tuple[Requirement, ...]]
    within: Callable[[str, str], bool]
    variables: Callable[[str], Collection[str]]
    mount: Callable[[str], Mount | None]


@dataclass(frozen=True)
class World:
    """What there is to look at. Each callable may raise OrchctlError: then what needs it is not known.

    `python` is the interpreter that runs doctor. `settings` are those of an installation's units, secrets among them.
    `connect` gives a client with our credentials, `bare` one without; `ours`: whether we have any. `background` are the
    processes of `host up`, `stack` the units of an installation, `changed_units` those whose files are not what this
    orchctl would install. `unfinished_restore`: the archive whose restore was interrupted; `unfinished_upgrade`: what
    is unfinished, in words. `alerts` None: there is no alerts.toml; `alerts_in_prefect`: whether Prefect and this host
    have what it says; `deliveries`: how each channel answered last. The last three are asked with the catalog, `alerts`
    and `deliveries` with None where it cannot be read. `watchdog_files` are those that its unit reads variables from.
    """

    config_dir: str
    state_dir: str
    python: str
    catalog: Callable[[], Catalog]
    installation: Callable[[], Installation | None]
    settings: Callable[[Installation], Mapping[str, str]]
    api_url: Callable[[], str]
    connect: Callable[[], Server]
    bare: Callable[[], Prefect]
    ours: Callable[[], bool]
    background: StackHost
    stack: Callable[[Installation], StackHost]
    changed_units: Callable[[Installation], Collection[str]]
    unfinished_restore: Callable[[], str | None]
    unfinished_upgrade: Callable[[], str | None]
    systemd: Systemds
    crontabs: Crontabs
    owners: OwnerFiles
    handovers: Journals
    applied: Applied
    tree: Callable[[str], ManifestTree]
    alerts: Callable[[Catalog | None], Alerts | None]
    alerts_in_prefect: Callable[[Alerts, Catalog, Server], InPrefect]
    deliveries: Callable[[Catalog | None], Sequence[Delivery]]
    watched: Callable[[], Watched]
    watchdog_files: Callable[[], Sequence[str]]
    last_backup: Callable[[], Backup | None]
    facts: Facts
    now: Callable[[], datetime]


class Once(Generic[_T]):
    """A look that is made when it is first asked for, and once: its answer stays, also where that is an error."""

    def __init__(self, look: Callable[[], _T]) -> None:
        self._look = look
        self._found: list[_T] = []
        self._error: OrchctlError | None = None

    def __call__(self) -> _T:
        """Return what was seen. Raises the OrchctlError that came instead."""
        if self._error is not None:
            raise self._error
        if not self._found:
            try:
                self._found.append(self._look())
            except OrchctlError as error:
                self._error = error
                raise
        return self._found[0]

    def or_error(self) -> _T | OrchctlError:
        """Return what was seen, or the error that came instead."""
        try:
            return self()
        except OrchctlError as error:
            return error

    def or_none(self) -> _T | None:
        """Return what was seen, None where an error came instead."""
        try:
            return self()
        except OrchctlError:
            return None


class Seen:
    """What was seen so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now()
        self.read_catalog = Once(world.catalog)
        self.installation = Once(world.installation)
        self.api_url = Once(world.api_url)
        self.client = Once(lambda: cast(Server, _Remembered(world.connect())))
        self.version = Once(lambda: self.client().version())
        self.bare = Once(self._bare)
        self.listeners = Once(self._listeners)
        self.status = Once(self._status)
        self.plan = Once(self._plan)
        self.survey = Once(self._survey)
        self.alerts = Once(lambda: world.alerts(self.read_catalog.or_none()))
        self.worker = Once(self._worker)
        self._sampled: dict[str, Once[Sampled]] = {}

    def catalog(self) -> Catalog:
        """Return the catalog, for what is no check of it. Raises OrchctlError."""
        found = self.read_catalog.or_error()
        if isinstance(found, OrchctlError):
            raise OrchctlError("there is no catalog to go by", hint="see `catalog`") from found
        return found

    def installed(self) -> Installation | None:
        """Return what was installed, for what is no check of that. Raises OrchctlError."""
        found = self.installation.or_error()
        if isinstance(found, OrchctlError):
            raise OrchctlError("whether something was installed here is not known", hint="see `units`") from found
        return found

    def alerting(self) -> Alerts | None:
        """Return what alerts.toml says, for what is no check of it. Raises OrchctlError."""
        found = self.alerts.or_error()
        if isinstance(found, OrchctlError):
            raise OrchctlError("there is no alerts.toml to go by", hint="see `alerts`") from found
        return found

    def prefect(self) -> Server:
        """Return a Prefect that answers. Raises OrchctlError."""
        found = self.version.or_error()
        if isinstance(found, OrchctlError):
            raise OrchctlError("Prefect's API does not answer us", hint="see `api` and `auth`") from found
        return self.client()

    def home(self) -> str:
        """Return where a server of this host keeps what is its own, whether there is one or not."""
        installed = self.installation.or_none()
        return installed.home if installed is not None else f"{self.world.state_dir}/prefect"

    def data_roots(self) -> list[str]:
        """Return the data roots of the catalog. Raises OrchctlError."""
        return sorted({job.data_root for job in self.catalog().jobs.values()})

    def legacy_jobs(self) -> list[str]:
        """Return the jobs that their legacy triggers start: a file that cannot be believed counts as Prefect's.

        Raises OrchctlError.
        """
        return [name for name, job in self.catalog().jobs.items() if job.has_legacy and not self._owned(name)]

    def sampled(self, root: str) -> Sampled:
        """Return a part of what lies under a folder. Raises OrchctlError."""
        return self._sampled.setdefault(root, Once(partial(self.world.facts.sample, root)))()

    def dead(self) -> list[str]:
        """Return the processes of `host up` that are recorded and do not live. Raises StateBroken."""
        background = self.world.background
        return [name for name in background.names() if stack.is_gone(background, name)]

    def _owned(self, job: str) -> bool:
        try:
            return self.world.owners.read(job) is not None
        except StateBroken:
            return True

    def _bare(self) -> str:
        """Return what the API answers to somebody without credentials; one that answers nobody is waited for once."""
        found = self.version.or_error()
        if isinstance(found, OrchctlError) and not isinstance(found, PrefectUnauthorized):
            raise found
        return self.world.bare().version()

    def _listeners(self) -> tuple[Listener, ...]:
        port = port_of(self.api_url())
        return self.world.facts.listeners(port) if port is not None else ()

    def _worker(self) -> Who:
        """Return who runs the worker: the user of the installation, or whose the state directory is."""
        world, installed = self.world, self.installation.or_none()
        if installed is not None:
            return world.facts.who(installed.user)
        folder = world.facts.file(world.state_dir)
        return world.facts.who(None if folder is None else folder.uid)

    def _status(self) -> status.Status:
        world, client = self.world, self.client.or_error()
        prefect = cast(Prefect, _NotAsked(client)) if isinstance(client, OrchctlError) else client
        asked = status.World(
            catalog=self.catalog(),
            systemd=world.systemd,
            crontabs=world.crontabs,
            prefect=prefect,
            owners=world.owners,
            handovers=world.handovers,
            applied=world.applied,
            tree=world.tree,
            host_zone=world.facts.zone(),
            state_dir=world.state_dir,
        )
        return status.status(asked, now=self.now)

    def _plan(self) -> Plan:
        return sync.propose(
            self.catalog(), self.prefect(), self.world.applied, state_dir=self.world.state_dir, now=self.now
        )

    def _survey(self) -> Report:
        jobs = {name: job for name, job in self.catalog().jobs.items() if job.has_legacy}
        zone = self.world.facts.zone()
        return legacy.survey(self.world.systemd, self.world.crontabs, jobs, whole=False, host_zone=zone, now=self.now)


class _Remembered:
    """A Prefect that is asked everything once: several checks want to know the same, and each listing takes time."""

    def __init__(self, prefect: Prefect) -> None:
        self._prefect = prefect
        self._answers: dict[str, Once[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        there = getattr(self._prefect, name)
        if not callable(there):
            return there

        def ask(*words: object, **named: object) -> Any:
            question = f"{name} {words!r} {sorted(named.items())!r}"
            return self._answers.setdefault(question, Once(partial(there, *words, **named)))()

        return ask


class _NotAsked:
    """A Prefect that cannot be asked, for the parts of `status` that need none."""

    shown = "-"

    def __init__(self, error: OrchctlError) -> None:
        self._error = error

    def deployments(self, **_words: object) -> NoReturn:
        """Say why."""
        raise OrchctlError(self._error.message) from self._error


def unseen(check: str, *looks: Callable[[], object]) -> Iterator[Finding]:
    """Yield what kept a check from seeing everything: what it saw without is not the whole."""
    for look in looks:
        try:
            look()
        except OrchctlError as error:
            yield unknown(check, error.message, error.hint)
