"""What may happen to a host by itself: slots fall due, timers fire, services and Prefect's runs go on, a reboot."""

from __future__ import annotations

from collections.abc import Iterator

from invariants import Entry
from model import flows
from model.rules import Rules
from model.world import (
    ASKED,
    CLAIMED,
    FENCED,
    GOING,
    IDLE,
    NEW,
    OPEN,
    PASSED,
    RUNS,
    TAKEN,
    WRITTEN,
    Flow,
    Log,
    Move,
    Service,
    Setup,
    World,
    names,
    put,
)


def happenings(world: World, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield everything that may happen next without an operator."""
    if world.now < setup.slots:
        yield _tick(world, setup, rules)
    for scope in range(setup.scopes):
        yield from _legacy(world, scope)
    for flow in world.flows:
        yield from flows.goes_on(world, flow, setup, rules)
    if world.outages and world.api:
        yield "Prefect's API goes down", world._replace(api=False, outages=world.outages - 1), ()
    if not world.api:
        yield "Prefect's API comes back", world._replace(api=True), ()
    if world.by_hand:
        by_hand = Flow("h", 0, CLAIMED)
        yield "orchctl run", world._replace(by_hand=world.by_hand - 1, flows=world.flows | {by_hand}), ()
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
            if world.pending[scope]:  # it fires once for both
                log += (Entry(now, "dropped", slots=(world.pending[scope],)),)
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
    for number, (queue, work) in enumerate(world.operators):
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
