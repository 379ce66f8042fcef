"""A host as the model sees it: owner file, fences, timers, a crontab line, legacy services, Prefect's runs, two locks.

Time is counted in slots: at `now` == 2 the slots 1 and 2 are due. Everything that happens between two slots happens in
any order. A state is a `World`; `happenings` are what the outside may do next, `operators.moves` what people may.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from invariants import Entry, Policy, Seen
from orchctl.core import slots
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.slots import Owner

FAR = 1000
"""A `since` that owns no slot."""
IDLE, ASKED, PASSED, GOING = range(4)
"""A legacy service: nothing; its start is queued; its condition held, its process is on its way; its process runs."""
NEW, JUDGED, CLAIMED, LOCKED, LOOKED, CLEARED, RUNS = range(7)
"""A run of Prefect's: not taken up; the owner was asked; it has the slot; the lock; the owner was asked again; no
legacy service runs; its command runs."""
OPEN, WRITTEN, FENCED, TAKEN = range(4)
"""A fence: none; a file that systemd has not loaded; in force; in force, and its file is gone."""


class Setup(NamedTuple):
    """What is explored. `scopes` timers share the slots in turn; budgets are for a whole schedule.

    `bursts`: a timer that is started fires for a slot that passed since it fired last (Persistent=); "requires": its
    start starts the service, whatever is due. `delays`: a timer may fire after its slot (RandomizedDelaySec=).
    """

    commands: tuple[tuple[str, ...], ...]
    slots: int = 2
    scopes: int = 1
    linked: tuple[bool, ...] = (True, True)
    cron: bool = False
    policy: Policy = "latest"
    crashes: int = 0
    reboots: int = 0
    outages: int = 0
    by_hand: int = 0
    legacy_by_hand: int = 0
    bursts: str = ""
    delays: bool = False
    owned: bool = False
    paused: bool = False


class Mark(NamedTuple):
    """The owner file. `granted` None: a cutover has yet to find out."""

    since: int
    draining: bool
    granted: frozenset[int] | None


class Snapshot(NamedTuple):
    """What a cutover found: which timers were active, in which boot, and whether Prefect's deployment was paused."""

    active: tuple[bool, ...]
    boot: int = 0
    paused: bool = False


class Journal(NamedTuple):
    """The open journal: its steps that were recorded as done, and what they found out (None: not recorded)."""

    kind: str
    snapshot: Snapshot
    done: frozenset[str] = frozenset()
    since: int | None = None
    released: int | None = None


class Service(NamedTuple):
    """A legacy service, and the slots that its start is for."""

    phase: int = IDLE
    slots: tuple[int, ...] = ()


class Flow(NamedTuple):
    """A run of Prefect's: `key` is "s" (scheduled), "c" (a catch-up) or "h" (by hand, for no slot: 0)."""

    key: str
    slot: int
    phase: int = NEW


Operator = tuple[tuple[str, ...], Any]
"""The commands that a person has yet to give, and the `Work` of the one that is under way (None: none is)."""


class World(NamedTuple):
    """A state of the host, of Prefect, of the operators, and of the checker."""

    seen: Seen
    operators: tuple[Operator, ...]
    now: int = 0
    owner: Mark | None = None
    fences: tuple[int, ...] = (OPEN,)
    active: tuple[bool, ...] = (True,)
    links: tuple[bool, ...] = (True,)
    fired: tuple[int, ...] = (0,)
    pending: tuple[int, ...] = (0,)
    services: tuple[Service, ...] = (Service(),)
    cron: bool = False
    legacy_last: int = 0
    paused: bool = False
    api: bool = True
    flows: frozenset[Flow] = frozenset()
    scheduled: frozenset[int] = frozenset()
    created: frozenset[int] = frozenset()
    claims: frozenset[Flow] = frozenset()
    ran: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    job_lock: object = None
    host_lock: int | None = None
    journal: Journal | None = None
    snapshot: Snapshot = Snapshot((True,))
    """That of the last cutover's journal."""
    boot: int = 0
    crashes: int = 0
    reboots: int = 0
    outages: int = 0
    by_hand: int = 0
    legacy_by_hand: int = 0


Log = tuple[Entry, ...]
Move = tuple[str, World, Log]
"""What happened, the state after it, and what a log of what really ran says of it."""

_START = datetime(2026, 1, 5, tzinfo=UTC)
_EVERY = timedelta(minutes=10)


def instant(slot: int) -> datetime:
    return _START + slot * _EVERY


@cache
def _job(policy: Policy) -> Job:
    given: dict[str, Any] = {
        "command": ("true",),
        "legacy": (TimerTrigger(timer="job.timer", scope="system"),),
        "catchup_window": "1d",
    }
    return Job(
        name="job",
        asset="job",
        work_pool="pool",
        data_root="/data",
        working_directory="/",
        catchup=policy,
        **given,
    )


@cache
def owns(slot: int, mark: Mark | None) -> bool:
    """Ask the slot rule itself whether Prefect owns a slot."""
    owner = None
    if mark is not None:
        granted = None if mark.granted is None else tuple(instant(each) for each in sorted(mark.granted))
        owner = Owner(instant(mark.since), mark.draining, granted)
    return slots.owned(_job("latest"), instant(slot), owner).kind == "run"


@cache
def is_fresh(slot: int, now: int, later: int | None, policy: Policy) -> bool:
    """Ask the slot rule itself whether a slot is still worth running."""
    due = None if later is None else instant(later)
    return slots.fresh(_job(policy), instant(slot), now=instant(now), later_due=due).kind == "run"


def put(values: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]
    """Return a tuple with another value in one place."""
    return (*values[:at], value, *values[at + 1 :])


def begin(setup: Setup) -> World:
    """Return the first state: legacy owns the job, or (`owned`) a cutover has ended well."""
    n = setup.scopes
    on = tuple(not setup.owned for _ in range(n))
    return World(
        Seen(owner="live" if setup.owned else None, unfenced=frozenset() if setup.owned else frozenset(names(n))),
        operators=tuple((commands, None) for commands in setup.commands),
        owner=Mark(0, False, frozenset()) if setup.owned else None,
        fences=(FENCED if setup.owned else OPEN,) * n,
        active=on,
        snapshot=Snapshot((True,) * n),
        links=tuple(link and each for link, each in zip(setup.linked, on, strict=False)),
        fired=(0,) * n,
        pending=(0,) * n,
        services=(Service(),) * n,
        cron=setup.cron and not setup.owned,
        paused=setup.paused and not setup.owned,
        crashes=setup.crashes,
        reboots=setup.reboots,
        outages=setup.outages,
        by_hand=setup.by_hand,
        legacy_by_hand=setup.legacy_by_hand,
    )


def names(scopes: int) -> tuple[str, ...]:
    return ("system", "user")[:scopes]
