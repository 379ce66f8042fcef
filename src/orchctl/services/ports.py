"""What the services need of the outside. The adapters fulfil these by shape; tests bring fakes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from orchctl.core.catalog import Catalog
from orchctl.core.manifest import Run, Skipped
from orchctl.core.remote import RemoteDeployment, RemotePool, RemoteRun, RemoteWorker


class Prefect(Protocol):
    """The Prefect API; every method may raise PrefectApiError or NotAllowed. See `adapters/prefect_api.py`."""

    @property
    def shown(self) -> str: ...  # noqa: D102
    def version(self) -> str: ...  # noqa: D102
    def pool(self, name: str) -> RemotePool | None: ...  # noqa: D102
    def create_pool(self, name: str, *, description: str | None) -> None: ...  # noqa: D102
    def workers(self, pool: str) -> tuple[RemoteWorker, ...]: ...  # noqa: D102
    def deployments(self, *, names: Collection[str], tag: str) -> tuple[RemoteDeployment, ...]: ...  # noqa: D102
    def deployment(self, flow_name: str, name: str) -> RemoteDeployment | None: ...  # noqa: D102
    def flow_names(self, ids: Collection[str]) -> dict[str, str]: ...  # noqa: D102
    def create_flow(self, name: str) -> str: ...  # noqa: D102
    def delete_flow(self, id: str) -> None: ...  # noqa: A002, D102
    def create_deployment(self, body: Mapping[str, Any]) -> str: ...  # noqa: D102
    def update_deployment(self, id: str, body: Mapping[str, Any]) -> None: ...  # noqa: A002, D102
    def delete_deployment(self, id: str) -> None: ...  # noqa: A002, D102
    def add_schedules(self, deployment_id: str, bodies: Sequence[Mapping[str, Any]]) -> None: ...  # noqa: D102
    def update_schedule(self, deployment_id: str, schedule_id: str, body: Mapping[str, Any]) -> None: ...  # noqa: D102
    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None: ...  # noqa: D102
    def schedule_from(self, deployment_id: str, start: datetime) -> None: ...  # noqa: D102
    def scheduled_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def flow_run(self, id: str) -> RemoteRun | None: ...  # noqa: A002, D102
    def create_run(  # noqa: D102
        self,
        deployment_id: str,
        *,
        parameters: Mapping[str, Any],
        idempotency_key: str,
        tags: Sequence[str] = (),
        name: str | None = None,
        scheduled_for: datetime | None = None,
    ) -> RemoteRun: ...
    def run_url(self, run_id: str) -> str: ...  # noqa: D102
    def ui_url(self) -> str: ...  # noqa: D102


class Applied(Protocol):
    """The applied catalogs. See `adapters/applied.py`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102
    def write(self, catalog: Catalog) -> Path: ...  # noqa: D102


class ManifestTree(Protocol):
    """The manifests and events under one data root. See `adapters/manifests.py`."""

    data_root: str

    def events(self, day: date, *, skipped: list[Skipped]) -> Iterator[Run]: ...  # noqa: D102
    def current(self, run: Run, *, skipped: list[Skipped]) -> Run: ...  # noqa: D102
    def find(self, run_id: str, *, skipped: list[Skipped]) -> Run | None: ...  # noqa: D102
    def read(self, run: Run) -> dict[str, Any] | None: ...  # noqa: D102
    def all_manifests(self, *, skipped: list[Skipped]) -> Iterator[tuple[Path, dict[str, Any]]]: ...  # noqa: D102
    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102
    def logs_in(self, directory: Path) -> list[Path]: ...  # noqa: D102
    def read_log(self, path: Path, offset: int) -> bytes: ...  # noqa: D102
    def directory_of(self, run: Run) -> Path: ...  # noqa: D102
    def run_directory(self, asset: str, game_date: date, run_id: str) -> Path: ...  # noqa: D102


class StackHost(Protocol):
    """Server and worker as processes of this host. See `adapters/local_stack.py`."""

    def start_server(self, port: int) -> str: ...  # noqa: D102
    def start_worker(self, pool: str, api_url: str, *, limit: int) -> None: ...  # noqa: D102
    def worker_name(self, pool: str) -> str: ...  # noqa: D102
    def stop(self, name: str, *, patience_s: float) -> bool: ...  # noqa: D102
    def pid(self, name: str) -> int | None: ...  # noqa: D102
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    def guards(self) -> int: ...  # noqa: D102
    def api_url(self) -> str | None: ...  # noqa: D102
    def log_path(self, name: str) -> Path: ...  # noqa: D102
    def log_tail(self, name: str) -> str: ...  # noqa: D102
