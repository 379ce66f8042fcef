"""A host as the model sees it: owner file, fences, timers, a crontab line, legacy services, Prefect's runs, two locks.

Time is counted in slots: at `now` == 2 the slots 1 and 2 are due. Everything that happens between two slots happens in
any order. A state is a `World`; `happenings` are what the outside may do next, `operators.moves` what people may.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from invariants import Entry, Policy, Seen
from model.rules import Rules
from orchctl.core import slots
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.slots import Owner

FAR = 1000
"""A `since` that owns no slot."""
IDLE, ASKED, PASSED, GOING = range(4)
"""A legacy service: nothing; its start is queued; its condition held, its process is on its way; its process runs."""
NEW, JUDGED, CLAIMED, LOCKED, LOOKED, CLEARED, RUNS = range(7)
"""A run of Prefect's: not taken up; the owner was asked; it has the slot, the lock; the owner was asked again; no legacy
service runs; its command runs."""
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


class World(NamedTuple):
    """A state of the host, of Prefect, of the operators, and of the checker."""

    seen: Seen
    operators: tuple[object, ...]
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
    legacy = (TimerTrigger(timer="job.timer", scope="system"),)
    return Job(
        name="job",
        asset="job",
        work_pool="pool",
        command=("true",),
        data_root="/data",
        working_directory="/",
        legacy=legacy,
        catchup=policy,
        catchup_window="1d",
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


def happenings(world: World, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield everything that may happen next without an operator."""
    if world.now < setup.slots:
        yield _tick(world, setup, rules)
    for scope in range(setup.scopes):
        yield from _legacy(world, scope)
    for flow in world.flows:
        yield from _flow(world, flow, setup, rules)
    if world.outages and world.api:
        yield "Prefect's API goes down", world._replace(api=False, outages=world.outages - 1), ()
    if not world.api:
        yield "Prefect's API comes back", world._replace(api=True), ()
    if world.by_hand:
        flows = world.flows | {Flow("h", 0, CLAIMED)}
        yield "orchctl run", world._replace(by_hand=world.by_hand - 1, flows=flows), ()
    if world.legacy_by_hand:
        after = world._replace(legacy_by_hand=world.legacy_by_hand - 1)
        yield "systemctl start", *ask(after, 0, ())
    if world.reboots:
        yield reboot(world, setup, rules)


def _tick(world: World, setup: Setup, rules: Rules) -> Move:
    """Let the next slot fall due: its timer fires, now or later; cron starts it; Prefect has a run of it."""
    now = world.now + 1
    scope = now % max(setup.scopes, 1)
    # A timer that nobody started after a reboot has no slots, whoever owns the job.
    gone = world.boot > 0 and scope < setup.scopes and not setup.linked[scope]
    log: Log = () if gone else (Entry(now, "due", slots=(now,)),)
    world = world._replace(now=now)
    if setup.cron:
        if world.cron:  # no lock and no unit tells of its runs: they are taken to be short
            log += (Entry(now, "start", by="legacy", run="cron", slots=(now,)), Entry(now, "end", run="cron"))
            world = world._replace(legacy_last=now if rules.cron_is_known else 0)
    elif world.active[scope]:
        if setup.delays:
            world = world._replace(pending=put(world.pending, scope, now))
        else:
            world, more = fire(world, scope, now)
            log += more
    if not world.paused:
        world = world._replace(flows=world.flows | {Flow("s", now)}, scheduled=world.scheduled | {now})
    return f"slot {now} falls due", world, log


def fire(world: World, scope: int, slot: int) -> tuple[World, Log]:
    """Let a timer start its service for a slot."""
    return ask(world._replace(fired=put(world.fired, scope, max(slot, world.fired[scope]))), scope, (slot,))


def ask(world: World, scope: int, asked: tuple[int, ...]) -> tuple[World, Log]:
    """Queue the start of a service. Where it runs, that is all: its timer's slot is dropped, as systemd has it."""
    service = world.services[scope]
    if service.phase in {IDLE, ASKED}:
        merged = Service(ASKED, tuple(sorted({*service.slots, *asked})))
        return world._replace(services=put(world.services, scope, merged)), ()
    return world, (Entry(world.now, "dropped", slots=asked),) if asked else ()


def start_timer(world: World, scope: int, setup: Setup) -> tuple[World, Log]:
    """Start a timer that was stopped."""
    if world.active[scope]:
        return world, ()
    world = world._replace(active=put(world.active, scope, True))
    due = newest(world.now, scope, setup)
    if setup.bursts and due and (setup.bursts == "requires" or due > world.fired[scope]):
        return fire(world, scope, due)
    return world, ()


def newest(now: int, scope: int, setup: Setup) -> int:
    """Return the newest slot of a timer that is due, 0 where there is none."""
    return max((slot for slot in range(1, now + 1) if slot % setup.scopes == scope), default=0)


def closed(world: World, scope: int) -> bool:
    """Whether a legacy service that starts now is held back."""
    return world.owner is not None and world.fences[scope] in {FENCED, TAKEN}


def _legacy(world: World, scope: int) -> Iterator[Move]:
    service, name = world.services[scope], names(2)[scope]
    if world.pending[scope]:
        after, log = fire(world._replace(pending=put(world.pending, scope, 0)), scope, world.pending[scope])
        yield f"{name} timer fires, late", after, log
    if service.phase == ASKED:
        phase = Service() if closed(world, scope) else Service(PASSED, service.slots)
        held = "held back" if closed(world, scope) else "not held back"
        yield f"{name} service is {held}", world._replace(services=put(world.services, scope, phase)), ()
    elif service.phase == PASSED:
        after = world._replace(
            services=put(world.services, scope, Service(GOING, service.slots)), legacy_last=world.now
        )
        start = Entry(world.now, "start", by="legacy", run=f"legacy {name}", slots=service.slots)
        yield f"{name} service runs {service.slots}", after, (start,)
    elif service.phase == GOING:
        after = world._replace(services=put(world.services, scope, Service()))
        yield f"{name} service ends", after, (Entry(world.now, "end", run=f"legacy {name}"),)


def _flow(world: World, flow: Flow, setup: Setup, rules: Rules) -> Iterator[Move]:  # noqa: PLR0911
    """Let a run of Prefect's go one step on, in the order of runner/gate.py."""
    slot, name = flow.slot, f"prefect {flow.key}{flow.slot}"

    def to(phase: int, world: World = world) -> World:
        return world._replace(flows=world.flows - {flow} | {Flow(flow.key, slot, phase)})

    def over(world: World = world) -> World:
        lock = None if world.job_lock == flow[:2] else world.job_lock
        return world._replace(flows=world.flows - {flow}, job_lock=lock)

    def drop(world: World) -> Move:
        scheduled = world.scheduled - ({slot} if flow.key == "s" else set())
        gone = over(world)._replace(scheduled=scheduled, skipped=world.skipped | {slot})
        return f"{name} is skipped", gone, (Entry(world.now, "dropped", slots=(slot,)),)

    may = flow.key == "h" or owns(slot, world.owner)
    late = world.now > slot
    match flow.phase:
        case 0:
            yield (f"{name} may run", to(JUDGED), ()) if may else (f"{name} observes", over(), ())
        case 1:
            mine = Flow(flow.key, slot)
            held = [claim for claim in world.claims if claim.slot == slot and claim.key != flow.key]
            later = max((other for other in world.scheduled if slot < other <= world.now), default=None)
            if not held and not is_fresh(slot, world.now, later, setup.policy):
                yield drop(world)
            elif held and rules.claims_are_exclusive:
                yield f"{name} finds the slot claimed", over(), ()
            else:
                yield f"{name} claims", to(CLAIMED, world._replace(claims=world.claims | {mine})), ()
        case 2:
            if world.job_lock is None:
                yield f"{name} locks", to(LOCKED, world._replace(job_lock=flow[:2])), ()
            elif flow.key == "h":
                yield f"{name} finds the job locked", over(), ()
            elif not late:
                by_run = isinstance(world.job_lock, tuple)
                if not may and rules.looks_when_locked:
                    yield f"{name} observes", over(), ()
                elif by_run:
                    yield drop(world)
                else:
                    yield f"{name} is skipped for the handover", drop(world)[1], ()
        case 3:
            if may or not rules.second_look:
                yield f"{name} may still run", to(LOOKED), ()
            else:
                yield f"{name} observes after all", over(), ()
        case 4:
            busy = rules.looks_at_legacy and any(each.phase >= PASSED for each in world.services)
            if not busy:
                yield f"{name} sees no legacy run", to(CLEARED), ()
            elif flow.key == "h" or not late:
                yield drop(world) if flow.key != "h" else (f"{name} finds legacy running", over(), ())
            elif not may and rules.second_look:
                yield f"{name} observes after all", over(), ()
        case 5:
            runs = to(RUNS, world._replace(ran=world.ran | {slot}) if slot else world)
            by = "hand" if flow.key == "h" else "prefect"
            yield f"{name} runs", runs, (Entry(world.now, "start", by=by, run=name, slots=(slot,) if slot else ()),)
        case _:
            yield f"{name} ends", over(), (Entry(world.now, "end", run=name),)


def reboot(world: World, setup: Setup, rules: Rules) -> Move:
    """Let the machine go down and come up: processes and locks are gone, timers come back by their links."""
    log: Log = tuple(
        Entry(world.now, "end", run=f"legacy {names(2)[scope]}")
        for scope, service in enumerate(world.services)
        if service.phase == GOING
    )
    log += tuple(Entry(world.now, "end", run=f"prefect {f.key}{f.slot}") for f in world.flows if f.phase == RUNS)
    # What was about to run is lost: systemd and Prefect have it so, handover or not.
    lost = {slot for service in world.services if service.phase in {ASKED, PASSED} for slot in service.slots}
    lost |= {flow.slot for flow in world.flows if NEW < flow.phase < RUNS}
    log += (Entry(world.now, "dropped", slots=tuple(sorted(lost))),)
    fences = tuple({WRITTEN: FENCED, TAKEN: OPEN}.get(fence, fence) for fence in world.fences)
    log += _fence_log(world, fences)
    operators = []
    for number, (queue, work) in enumerate(world.operators):  # type: ignore[misc]
        operators.append((queue, None))
        log += (Entry(world.now, "finish", by=f"operator {number}"),) if work is not None else ()
    world = world._replace(
        boot=world.boot + 1,
        reboots=world.reboots - 1,
        operators=tuple(operators),
        job_lock=None,
        host_lock=None,
        fences=fences,
        active=(False,) * setup.scopes,
        pending=(0,) * setup.scopes,
        services=(Service(),) * setup.scopes,
        legacy_last=world.legacy_last if rules.remembers_over_boots else 0,
        flows=frozenset(flow for flow in world.flows if flow.phase == NEW),
    )
    for scope, link in enumerate(world.links):
        if link:
            world, more = start_timer(world, scope, setup)
            log += more
    return "reboot", world, log


def _fence_log(world: World, fences: tuple[int, ...]) -> Log:
    return tuple(
        Entry(world.now, "fence", scope=names(2)[scope], state=new in {FENCED, TAKEN})
        for scope, (old, new) in enumerate(zip(world.fences, fences, strict=True))
        if (old in {FENCED, TAKEN}) != (new in {FENCED, TAKEN})
    )


def set_fence(world: World, scope: int, fence: int) -> tuple[World, Log]:
    fences = put(world.fences, scope, fence)
    return world._replace(fences=fences), _fence_log(world, fences)
