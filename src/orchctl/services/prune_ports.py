"""What pruning needs of the outside, and what it tells. The adapters fulfil these by shape; tests bring fakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from orchctl.core.catalog import Catalog
from orchctl.core.handover_journal import Handover
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.core.retention import Ended, Kind
from orchctl.errors import OrchctlError
from orchctl.services.ports import Owners


class HistoryServer(Protocol):
    """The part of the Prefect API that this needs. See `adapters/prefect_history.py`."""

    def deployments(self, *, names: Sequence[str], tag: str) -> tuple[RemoteDeployment, ...]: ...  # noqa: D102
    def count_ended(self, wanted: Ended) -> int: ...  # noqa: D102
    def all_ended(self, tag: str, before: datetime) -> bool: ...  # noqa: D102
    def ended_runs(self, wanted: Ended, *, offset: int, limit: int = ...) -> tuple[RemoteRun, ...]: ...  # noqa: D102
    def last_ended(self, flow_id: str) -> RemoteRun | None: ...  # noqa: D102
    def delete_ended(self, ids: Sequence[str], before: datetime) -> int: ...  # noqa: D102


class Applied(Protocol):
    """The applied catalogs. See `adapters/applied.py`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102


class RunFolder(Protocol):
    """The folder of a run of a job. See `adapters/run_folders.py`."""

    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def at(self) -> datetime: ...  # noqa: D102


class RunFolders(Protocol):
    """The folders of runs under one data root. See `adapters/run_folders.py`."""

    def newest(self, asset: str, job: str, *, after: datetime) -> str | None: ...  # noqa: D102
    def before(self, asset: str, before: datetime, *, last: date) -> Iterator[Any]: ...  # noqa: D102
    def between(self, asset: str, first: datetime | None, before: datetime) -> Iterator[Any]: ...  # noqa: D102
    def manifest(self, run: Any) -> dict[str, Any] | None: ...  # noqa: D102
    def is_going(self, manifest: Mapping[str, Any]) -> bool: ...  # noqa: D102
    def folders(self, run: Any) -> list[Path]: ...  # noqa: D102
    def published(self, run: Any) -> bool: ...  # noqa: D102
    def summary(self, backfill: str) -> Mapping[str, Any] | None: ...  # noqa: D102
    def logs(self, folder: Path, *, plain_only: bool) -> list[Path]: ...  # noqa: D102
    def compress(self, log: Path) -> bool: ...  # noqa: D102
    def size(self, path: Path) -> int: ...  # noqa: D102
    def remove(self, path: Path) -> bool: ...  # noqa: D102
    def half_removed(self, asset: str, last: date) -> list[Path]: ...  # noqa: D102


class OldClaims(Protocol):
    """Claims of a job that are old enough to go."""

    @property
    def slots(self) -> tuple[datetime, ...]: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102


class Claims(Protocol):
    """The claims on slots. See `adapters/claims.py`."""

    def jobs(self) -> tuple[str, ...]: ...  # noqa: D102
    def old(self, job: str, before: datetime) -> OldClaims: ...  # noqa: D102
    def forget(self, job: str, slots: Sequence[datetime]) -> None: ...  # noqa: D102


class Handovers(Protocol):
    """The journals of handovers. See `adapters/handovers.py`."""

    def unfinished(self) -> tuple[str, ...]: ...  # noqa: D102
    def ended(self, before: datetime) -> tuple[Handover, ...]: ...  # noqa: D102
    def last_of(self, job: str) -> Handover | None: ...  # noqa: D102
    def size(self, id: str) -> int: ...  # noqa: A002, D102
    def remove(self, id: str) -> None: ...  # noqa: A002, D102


class Marks(Protocol):
    """Up to when the logs of a job have been pruned. See `adapters/retention.py`."""

    def read(self, data_root: str, job: str, kind: str) -> datetime | None: ...  # noqa: D102
    def write(self, data_root: str, job: str, kind: str, at: datetime) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class World:
    """Everything outside that pruning touches. `prefect` connects when it is first called; `monotonic` is in seconds.

    `alone` holds the lock of this command, `exclusive` that of the host; `unfinished_restore` returns the archive whose
    restore was interrupted, None where none was. `now` (UTC) is what ages are counted back from: one instant, so that
    what was looked at is what goes. `say` tells a person how far it is.
    """

    catalog: Catalog
    prefect: Callable[[], HistoryServer]
    applied: Applied
    folders: Callable[[str], RunFolders]
    claims: Claims
    handovers: Handovers
    owners: Owners
    marks: Marks
    alone: Callable[[str], AbstractContextManager[None]]
    exclusive: Callable[[str], AbstractContextManager[None]]
    unfinished_restore: Callable[[], str | None]
    now: datetime
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Act:
    """Something of a job that is old enough to go: how much of what, and what makes it go.

    `size_bytes` None: only the server knows. `do` returns how many of `count` went; it is called as soon as this is
    told, or never.
    """

    kind: Kind
    job: str
    count: int
    size_bytes: int | None
    do: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Problem:
    """What stood in the way of a kind, of one job or (None) as a whole; the rest of it was done.

    `more` is how many more of the job failed with an error of the same code, beside the one that is told.
    """

    kind: Kind
    job: str | None
    error: OrchctlError
    more: int = 0


@dataclass(slots=True)
class Notes:
    """What was kept though it is old, by kind, job and reason; and what failed, by kind, job and code of the error."""

    kept: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)
    problems: dict[tuple[Kind, str | None, str], Problem] = field(default_factory=dict)

    def failed(self, kind: Kind, job: str | None, error: OrchctlError) -> None:
        """Note a failure; of many that are alike, the first is told."""
        known = self.problems.get((kind, job, error.code))
        made = Problem(kind, job, error) if known is None else replace(known, more=known.more + 1)
        self.problems[kind, job, error.code] = made
