"""What the services need of the outside. The adapters fulfil these by shape; tests bring fakes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from orchctl.core.catalog import Catalog
from orchctl.core.crontab import Daemon
from orchctl.core.import_units import Details
from orchctl.core.journal import Entry, Written
from orchctl.core.legacy import Manager, Service, Units
from orchctl.core.manifest import Run, Skipped
from orchctl.core.observed import Looked
from orchctl.core.remote import RemoteDeployment, RemoteLimit, RemotePool, RemoteQueue, RemoteRun, RemoteWorker
from orchctl.core.slots import Owner
from orchctl.core.unit_text import Setting


class Prefect(Protocol):
    """The Prefect API; every method may raise PrefectApiError or NotAllowed. See `adapters/prefect_api.py`."""

    @property
    def shown(self) -> str: ...  # noqa: D102
    def version(self) -> str: ...  # noqa: D102
    def pool(self, name: str) -> RemotePool | None: ...  # noqa: D102
    def create_pool(self, name: str, *, description: str | None) -> None: ...  # noqa: D102
    def queues(self, pool: str) -> tuple[RemoteQueue, ...]: ...  # noqa: D102
    def create_queue(self, pool: str, name: str, *, priority: int, limit: int) -> None: ...  # noqa: D102
    def update_queue(self, pool: str, name: str, body: Mapping[str, Any]) -> None: ...  # noqa: D102
    def limits(self) -> tuple[RemoteLimit, ...]: ...  # noqa: D102
    def create_limit(self, name: str, *, limit: int) -> None: ...  # noqa: D102
    def update_limit(self, name: str, body: Mapping[str, Any]) -> None: ...  # noqa: D102
    def workers(self, pool: str) -> tuple[RemoteWorker, ...]: ...  # noqa: D102
    def deployments(self, *, names: Collection[str], tag: str) -> tuple[RemoteDeployment, ...]: ...  # noqa: D102
    def deployment(self, flow_name: str, name: str) -> RemoteDeployment | None: ...  # noqa: D102
    def flow_names(self, ids: Collection[str]) -> dict[str, str]: ...  # noqa: D102
    def create_flow(self, name: str) -> str: ...  # noqa: D102
    def delete_flow(self, id: str) -> None: ...  # noqa: A002, D102
    def create_deployment(self, body: Mapping[str, Any]) -> str: ...  # noqa: D102
    def update_deployment(self, id: str, body: Mapping[str, Any]) -> None: ...  # noqa: A002, D102
    def delete_deployment(self, id: str) -> None: ...  # noqa: A002, D102
    def pause_deployment(self, id: str) -> None: ...  # noqa: A002, D102
    def resume_deployment(self, id: str) -> None: ...  # noqa: A002, D102
    def add_schedules(self, deployment_id: str, bodies: Sequence[Mapping[str, Any]]) -> None: ...  # noqa: D102
    def update_schedule(self, deployment_id: str, schedule_id: str, body: Mapping[str, Any]) -> None: ...  # noqa: D102
    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None: ...  # noqa: D102
    def schedule_from(self, deployment_id: str, start: datetime) -> None: ...  # noqa: D102
    def scheduled_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def waiting_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def next_runs(self, deployment_ids: Collection[str], *, now: datetime) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def flow_run(self, id: str) -> RemoteRun | None: ...  # noqa: A002, D102
    def flow_runs(self, ids: Collection[str]) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def tagged_runs(self, tag: str) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def create_run(  # noqa: D102
        self,
        deployment_id: str,
        *,
        parameters: Mapping[str, Any],
        idempotency_key: str,
        tags: Sequence[str] = (),
        name: str | None = None,
        scheduled_for: datetime | None = None,
        work_queue: str | None = None,
    ) -> RemoteRun: ...
    def set_run_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None: ...  # noqa: D102
    def delete_run(self, id: str) -> None: ...  # noqa: A002, D102
    def set_run_state(  # noqa: D102
        self,
        run_id: str,
        *,
        type: str,  # noqa: A002
        name: str | None = None,
        message: str | None = None,
        force: bool = False,
    ) -> None: ...
    def run_url(self, run_id: str) -> str: ...  # noqa: D102
    def ui_url(self) -> str: ...  # noqa: D102


class Applied(Protocol):
    """The applied catalogs. See `adapters/applied.py`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102
    def write(self, catalog: Catalog) -> Path: ...  # noqa: D102
    def state_id(self) -> str | None: ...  # noqa: D102
    def make_state_id(self) -> str: ...  # noqa: D102


class Owners(Protocol):
    """Who owns each job; `read` may raise StateBroken. See `adapters/owners.py`."""

    def read(self, job: str) -> Owner | None: ...  # noqa: D102


class ManifestTree(Protocol):
    """The manifests and events under one data root. See `adapters/manifests.py`."""

    data_root: str

    def events(self, day: date, *, skipped: list[Skipped]) -> Iterator[Run]: ...  # noqa: D102
    def handover_events(self, day: date, job: str) -> Iterator[dict[str, Any]]: ...  # noqa: D102
    def step_events(  # noqa: D102
        self, day: date, *, run_id: str | None = None, skipped: list[Skipped]
    ) -> Iterator[dict[str, Any]]: ...
    def steps_of(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]: ...  # noqa: D102
    def step_directories(self, directory: Path) -> dict[str, Path]: ...  # noqa: D102
    def current(self, run: Run, *, skipped: list[Skipped]) -> Run: ...  # noqa: D102
    def find(self, run_id: str, *, skipped: list[Skipped]) -> Run | None: ...  # noqa: D102
    def read(self, run: Run) -> dict[str, Any] | None: ...  # noqa: D102
    def all_manifests(self, *, skipped: list[Skipped]) -> Iterator[tuple[Path, dict[str, Any]]]: ...  # noqa: D102
    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102
    def logs_in(self, directory: Path) -> list[Path]: ...  # noqa: D102
    def read_log(self, path: Path, offset: int) -> Iterator[bytes]: ...  # noqa: D102
    def directory_of(self, run: Run) -> Path: ...  # noqa: D102
    def run_directory(self, asset: str, game_date: date, run_id: str) -> Path: ...  # noqa: D102


class BackfillTree(Protocol):
    """What backfills read and write under one data root. See `adapters/backfills.py`."""

    def runs_on(self, asset: str, day: date) -> Iterator[tuple[Run, dict[str, Any]]]: ...  # noqa: D102
    def manifest(self, asset: str, day: date, run_id: str) -> dict[str, Any] | None: ...  # noqa: D102
    def run(self, asset: str, day: date, run_id: str) -> Run | None: ...  # noqa: D102
    def steps_of(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]: ...  # noqa: D102
    def published(self, step: str, day: date) -> Iterator[dict[str, Any]]: ...  # noqa: D102
    def write(self, backfill: str, summary: Mapping[str, Any]) -> Path: ...  # noqa: D102
    def has_ended(self, backfill: str) -> bool: ...  # noqa: D102


class Disk(Protocol):
    """What is there, by name. See `adapters/inputs.py`."""

    def names_in(self, folder: str) -> list[str]: ...  # noqa: D102
    def is_there(self, path: str) -> bool: ...  # noqa: D102


class Claims(Protocol):
    """Which run took a slot. See `adapters/claims.py`."""

    def read(self, job: str, slot: datetime) -> tuple[str, str] | None: ...  # noqa: D102


class StackHost(Protocol):
    """Server and worker of this host. See `adapters/local_stack.py` and, where they are units, `unit_stack.py`."""

    def start_server(self, port: int) -> str: ...  # noqa: D102
    def start_worker(self, pool: str, api_url: str, *, limit: int) -> None: ...  # noqa: D102
    def worker_name(self, pool: str) -> str: ...  # noqa: D102
    def stop(self, name: str, *, patience_s: float) -> bool: ...  # noqa: D102
    def pid(self, name: str) -> int | None: ...  # noqa: D102
    def alive(self, name: str) -> bool: ...  # noqa: D102
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    def guards(self) -> int: ...  # noqa: D102
    def api_url(self) -> str | None: ...  # noqa: D102
    def log_path(self, name: str) -> Path | str: ...  # noqa: D102
    def log_tail(self, name: str) -> str: ...  # noqa: D102
    def port_is_anothers(self) -> bool: ...  # noqa: D102


class LegacyUnits(Protocol):
    """The systemds of this host. See `adapters/systemd.py`."""

    def read(self, manager: Manager, names: Collection[str] = (), *, everything: bool = False) -> Units: ...  # noqa: D102


class LegacyHost(LegacyUnits, Protocol):
    """The systemds of this host, and whose they are. See `adapters/systemd.py`."""

    def owner(self, manager: Manager) -> str | None: ...  # noqa: D102
    def lingers(self, manager: Manager) -> bool | None: ...  # noqa: D102


class LegacyDetails(Protocol):
    """What else there is to know of a unit. See `adapters/unit_details.py`."""

    @property
    def me(self) -> str: ...  # noqa: D102
    def owner(self, manager: Manager) -> str | None: ...  # noqa: D102
    def settings(self, manager: Manager, unit: str) -> tuple[Setting, ...]: ...  # noqa: D102
    def of(self, service: Service) -> Details: ...  # noqa: D102


class Crontabs(Protocol):
    """The crontabs of this host. See `adapters/cron.py`."""

    caller: str

    @property
    def me(self) -> str: ...  # noqa: D102
    @property
    def daemon(self) -> Daemon | None: ...  # noqa: D102
    def home(self, user: str) -> str | None: ...  # noqa: D102
    def users(self) -> frozenset[str]: ...  # noqa: D102
    def text_of(self, user: str) -> str: ...  # noqa: D102
    def read_file(self, path: str) -> str: ...  # noqa: D102
    def is_system(self, path: str) -> bool: ...  # noqa: D102


class PrefectRule(Protocol):
    """Prefect's own rules of when a schedule is due. See `adapters/prefect_rule.py`."""

    def asked(  # noqa: D102
        self,
        schedules: Sequence[Mapping[str, Any]],
        start: datetime,
        end: datetime | None,
        *,
        count: int | None = None,
    ) -> AbstractContextManager[Callable[[], tuple[list[int], ...]]]: ...


class JournalRead(Protocol):
    """Entries of the journal, oldest first, and whether there are others after them."""

    @property
    def entries(self) -> tuple[Entry, ...]: ...  # noqa: D102
    @property
    def more(self) -> bool: ...  # noqa: D102


class Journal(Protocol):
    """systemd's journal. See `adapters/journald.py`."""

    def entries(  # noqa: D102
        self,
        units: Mapping[Manager, Collection[str]],
        *,
        cursor: str | None = None,
        since: datetime | None = None,
    ) -> JournalRead: ...
    def first(self, manager: Manager) -> datetime | None: ...  # noqa: D102
    def output(self, written: Written, *, last: int | None = None) -> Iterator[bytes]: ...  # noqa: D102


class Looks(Protocol):
    """What the looks at the legacy history left. See `adapters/observed.py`."""

    def read(self, job: str) -> Looked | None: ...  # noqa: D102
    def write(self, job: str, looked: Looked) -> None: ...  # noqa: D102
    def alone(self, job: str, *, patience_s: float) -> AbstractContextManager[bool]: ...  # noqa: D102


class LegacyTree(Protocol):
    """Where legacy runs are recorded: a part of `adapters/manifests.py`."""

    def events(self, day: date, *, skipped: list[Skipped]) -> Iterator[Run]: ...  # noqa: D102
    def existing(self, asset: str, game_date: date, run_id: str) -> dict[str, Any] | None: ...  # noqa: D102
    def read(self, run: Run) -> dict[str, Any] | None: ...  # noqa: D102
    def write(self, manifest: Mapping[str, Any]) -> Path: ...  # noqa: D102
    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102
