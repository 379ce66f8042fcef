"""What a run is asked with, what it gives back, and what it touches."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from orchctl.core.catalog import Catalog, Job
from orchctl.core.catalog_logs import LokiTable
from orchctl.core.manifest import Place
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError
from orchctl.runner.shipping import Nowhere, Ship
from orchctl.services.observe import Eyes


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. Instants are UTC.

    `expected_start` is when the flow run was to start; `slot` is None for a run by hand. `game_date` and
    `as_of` are None where the job's own rule decides. `attempt` counts from 1.

    `execution` None: as the catalog says. `steps`: only these; empty: all. `from_step`: it and what needs it run again
    even where an earlier attempt succeeded. `backfill` is the id of the backfill that asked, `as_of_mode` the name of
    the mode that `as_of` comes from, for the record. `partition` are keys of the partition that were given.
    """

    job: str
    digest: str
    flow_run_id: str
    expected_start: datetime
    attempt: int
    slot: datetime | None
    trigger: str
    game_date: date | None = None
    as_of: datetime | None = None
    execution: Literal["command", "steps"] | None = None
    steps: tuple[str, ...] = ()
    from_step: str | None = None
    backfill: str | None = None
    as_of_mode: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `status` is a final one of the manifest; `unrecorded` is why no manifest says so.

    `tail` is the end of the output, or what a run that only observed would have run; secrets are masked.
    """

    status: str
    run_id: str
    reason: str | None = None
    exit_code: int | None = None
    tail: str = ""
    manifest_path: str | None = None
    unrecorded: str | None = None


class AppliedPort(Protocol):
    """`adapters.applied.AppliedCatalogs`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102


class OwnersPort(Protocol):
    """`adapters.owners.Owners`."""

    def read(self, job: str) -> Owner | None: ...  # noqa: D102


class ManifestsPort(Protocol):
    """`adapters.manifests.Manifests`."""

    def run_directory(self, asset: str, game_date: date, run_id: str) -> Path: ...  # noqa: D102
    def write(self, manifest: Mapping[str, Any]) -> Path: ...  # noqa: D102
    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102
    def existing(self, asset: str, game_date: date, run_id: str) -> dict[str, Any] | None: ...  # noqa: D102
    def published(self, step: str, game_date: date) -> Iterator[dict[str, Any]]: ...  # noqa: D102


class FindOutputs(Protocol):
    """`adapters.host_facts.find_outputs`."""

    def __call__(  # noqa: D102
        self,
        declared: tuple[str, ...],
        values: Mapping[str, str],
        data_root: str,
        *,
        unreadable: Callable[[OSError], None],
    ) -> list[dict[str, Any]]: ...


def _no_as_of(job: Job, mode: str, _date: date, _keys: Mapping[str, str]) -> datetime:
    raise OrchctlError(f"nothing here gives the instant of {mode} for {job.name}")


@dataclass(frozen=True)
class Host:
    """Everything outside that a run touches, given by `wiring`.

    `later_due` answers which later slot of the run's deployment is due too, None where none is; it is only
    asked where the answer matters. `environment` is what the command inherits, but for the variables of `hidden`: they
    hold secrets of alerts. `tell` keeps the guard
    informed (`runner.guard`). `legacy_running` answers which legacy services of a job run now; it raises OrchctlError
    where that cannot be known. `eyes` look at what systemd did; None: nothing does. `as_of` gives the instant of an
    as-of mode for a date; it raises OrchctlError. `chance` is a random share from 0 to 1. `ship` is where lines and
    events go besides, by the catalog's table and the labels of the run.
    """

    applied: AppliedPort
    owners: OwnersPort
    claims: Any
    locks: Any
    manifests: Callable[[str], ManifestsPort]
    place: Callable[[], Place]
    git_sha: Callable[[str], str | None]
    find_outputs: FindOutputs
    environment: Mapping[str, str]
    hidden: frozenset[str] = frozenset()
    later_due: Callable[[datetime], datetime | None] = lambda _slot: None
    tell: Callable[..., None] = lambda **_facts: None
    legacy_running: Callable[[Job], tuple[str, ...]] = lambda _job: ()
    eyes: Eyes | None = None
    as_of: Callable[[Job, str, date, Mapping[str, str]], datetime] = _no_as_of
    chance: Callable[[], float] = random.random
    ship: Callable[[LokiTable, Mapping[str, str]], Ship] = lambda _table, _labels: Nowhere()
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    sleep: Callable[[float], None] = time.sleep
