"""How much may go on at a time: the catalog's `[limits]`, the queue of backfills, the places of a worker. Pure.

Of a global limit in Prefect orchctl owns the number of places, and that none becomes free by itself; of the queue of
backfills its limit, and that the queue `default` goes before it. Whether one is switched off or paused belongs to
people. A global limit can carry no mark of whose it is: so none is ever deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    # It takes pydantic along, which a command that only shows a plan need not wait for.
    from orchctl.core.catalog import Catalog
    from orchctl.core.remote import RemoteLimit, RemoteQueue

Because = Literal["catalog", "by hand"]
QUEUE = "backfill"
"""The queue of every work pool that backfills go through."""
DEFAULT_QUEUE = "default"
_LIVE_PLACES = 8
"""Late runs pile up while a worker is down, and each is a process of 200 MB: not all of them at once."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A global limit to make (`before` None) or to set. `because`: the catalog is new, or somebody changed it."""

    name: str
    limit: int
    before: RemoteLimit | None
    because: Because

    @property
    def body(self) -> dict[str, Any]:
        """The fields to set, under Prefect's names."""
        wanted: dict[str, Any] = {"limit": self.limit, "slot_decay_per_second": 0.0}
        have = {} if self.before is None else {"limit": self.before.limit, "slot_decay_per_second": self.before.decay}
        return {key: value for key, value in wanted.items() if have.get(key) != value}


@dataclass(frozen=True, slots=True)
class QueueChange:
    """The queue of backfills of a pool to make (`before` None) or to set. `priority` None leaves it where it is."""

    pool: str
    limit: int
    priority: int | None
    before: RemoteQueue | None
    because: Because

    @property
    def body(self) -> dict[str, Any]:
        """The fields to set, under Prefect's names."""
        wanted: dict[str, Any] = {} if self.priority is None else {"priority": self.priority}
        if self.before is None or self.before.concurrency_limit != self.limit:
            wanted["concurrency_limit"] = self.limit
        return wanted


def backfills_at_a_time(catalog: Catalog, pool: str) -> int:
    """Return how many runs of backfills may go at a time in a pool: the most that one of its jobs allows."""
    return max((job.backfill.parallel for job in catalog.jobs.values() if job.work_pool == pool), default=1)


def worker_places(catalog: Catalog) -> dict[str, int]:
    """Return how many runs at a time the worker of each pool takes.

    Backfills have places of their own, so that they leave to the slots of the pool's jobs what these always had.
    """
    jobs = dict.fromkeys(sorted({job.work_pool for job in catalog.jobs.values()}), 0)
    for job in catalog.jobs.values():
        jobs[job.work_pool] += 1
    return {pool: max(_LIVE_PLACES, 2 * count) + backfills_at_a_time(catalog, pool) for pool, count in jobs.items()}


def limit_changes(
    catalog: Catalog, actual: Iterable[RemoteLimit] | None, *, jobs: Collection[str], because: Because
) -> tuple[LimitChange, ...]:
    """Return what to do about the limits that steps of these jobs name (empty: about all), by name.

    `actual` None: not known, and left alone. `because` is for those that are there and differ.
    """
    if actual is None:
        return ()
    have = {each.name: each for each in actual}
    found = (
        LimitChange(name, limit, have.get(name), because if name in have else "catalog")
        for name, limit in sorted(catalog.limits.items())
        if not jobs or name in _named(catalog, jobs)
    )
    return tuple(each for each in found if each.before is None or each.body)


def _named(catalog: Catalog, jobs: Iterable[str]) -> frozenset[str]:
    steps = (step for name in jobs if name in catalog.jobs for step in catalog.jobs[name].steps)
    return frozenset(name for step in steps for name in step.concurrency)


def queue_changes(
    catalog: Catalog,
    actual: Mapping[str, Collection[RemoteQueue]] | None,
    *,
    pools: Iterable[str],
    because: Because,
) -> tuple[QueueChange, ...]:
    """Return what to do about the queues of backfills of these pools.

    `actual` holds the queues of each pool; none for one that is yet to be made. None: not known, and left alone.
    """
    if actual is None:
        return ()
    found = (_queue_change(catalog, pool, actual.get(pool, ()), because) for pool in pools)
    return tuple(change for change in found if change is not None)


def _queue_change(catalog: Catalog, pool: str, actual: Collection[RemoteQueue], because: Because) -> QueueChange | None:
    by_name = {each.name: each for each in actual}
    have, limit = by_name.get(QUEUE), backfills_at_a_time(catalog, pool)
    # A new pool has the queue `default`, with priority 1.
    last = max((each.priority for each in actual if each.name != QUEUE), default=1) + 1
    if have is None:
        return QueueChange(pool, limit, last, None, "catalog")
    default = by_name.get(DEFAULT_QUEUE)
    first = default is not None and have.priority <= default.priority
    change = QueueChange(pool, limit, last if first else None, have, because)
    return change if change.body else None


def notes(
    catalog: Catalog,
    limits: Iterable[RemoteLimit] | None,
    queues: Mapping[str, Collection[RemoteQueue]] | None,
    earlier: Iterable[Catalog],
) -> tuple[str, ...]:
    """Return what a person should know of limits and queues that `sync` leaves as they are.

    `earlier` are catalogs of this name that were applied before.
    """
    gone = {name for each in earlier if each.name == catalog.name for name in each.limits} - set(catalog.limits)
    found = []
    for each in limits or ():
        if each.name in catalog.limits and not each.active:
            found.append(f"limit {each.name} is switched off in Prefect; sync leaves it so")
        if each.name in gone:
            found.append(
                f"limit {each.name}: gone from the catalog and still in Prefect; orchctl deletes none "
                f"(`prefect gcl delete {each.name}` does)"
            )
    for pool, those in sorted((queues or {}).items()):
        if any(each.name == QUEUE and each.is_paused for each in those):
            found.append(f"queue {QUEUE} of work pool {pool} is paused in Prefect; sync leaves it so")
    return tuple(found)
