"""A run of Prefect's in the model: the steps of runner/gate.py in their order, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from invariants import Entry
from model.rules import Rules
from model.world import (
    CLAIMED,
    CLEARED,
    JUDGED,
    LOCKED,
    LOOKED,
    NEW,
    PASSED,
    RUNS,
    Flow,
    Log,
    Move,
    Setup,
    World,
    is_fresh,
    owns,
)

Step = tuple[str, World, Log]


def goes_on(world: World, flow: Flow, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield what a run does next; nothing where it waits."""
    step = _PHASES[flow.phase](world, flow, setup, rules)
    if step is not None:
        words, after, log = step
        yield f"prefect {flow.key}{flow.slot} {words}", after, log


def _to(world: World, flow: Flow, phase: int) -> World:
    return world._replace(flows=world.flows - {flow} | {flow._replace(phase=phase)})


def _over(world: World, flow: Flow) -> World:
    lock = None if world.job_lock == flow[:2] else world.job_lock
    return world._replace(flows=world.flows - {flow}, job_lock=lock)


def _skipped(world: World, flow: Flow) -> World:
    scheduled = world.scheduled - ({flow.slot} if flow.key == "s" else set())
    return _over(world, flow)._replace(scheduled=scheduled, skipped=world.skipped | {flow.slot})


def _drop(world: World, flow: Flow) -> Step:
    """End a run that is rightly not run: it is too late, or the job is going."""
    return "is skipped", _skipped(world, flow), (Entry(world.now, "dropped", slots=(flow.slot,)),)


def _may(world: World, flow: Flow) -> bool:
    return flow.key == "h" or owns(flow.slot, world.owner)


def _new(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step:
    if _may(world, flow):
        return "may run", _to(world, flow, JUDGED), ()
    return "observes", _over(world, flow), ()


def _judged(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step:
    slot = flow.slot
    held = any(claim.slot == slot and claim.key != flow.key for claim in world.claims)
    later = max((other for other in world.scheduled if slot < other <= world.now), default=None)
    if not held and not is_fresh(slot, world.now, later, setup.policy):
        return _drop(world, flow)
    if held and rules.claims_are_exclusive:
        return "finds the slot claimed", _over(world, flow), ()
    claims = world.claims | {flow._replace(phase=NEW)}
    return "claims", _to(world._replace(claims=claims), flow, CLAIMED), ()


def _claimed(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step | None:
    if world.job_lock is None:
        return "locks", _to(world._replace(job_lock=flow[:2]), flow, LOCKED), ()
    if flow.key == "h":
        return "finds the job locked", _over(world, flow), ()
    if world.now > flow.slot:
        return None
    if not _may(world, flow) and rules.looks_when_locked:
        return "observes", _over(world, flow), ()
    if isinstance(world.job_lock, tuple):
        return _drop(world, flow)
    return "is skipped for a handover", _skipped(world, flow), ()


def _locked(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step:
    if _may(world, flow) or not rules.second_look:
        return "may still run", _to(world, flow, LOOKED), ()
    return "observes after all", _over(world, flow), ()


def _looked(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step | None:
    if not rules.looks_at_legacy or all(service.phase < PASSED for service in world.services):
        return "sees no legacy run", _to(world, flow, CLEARED), ()
    if flow.key == "h":
        return "finds legacy running", _over(world, flow), ()
    if world.now == flow.slot:
        return _drop(world, flow)
    if not _may(world, flow) and rules.second_look:
        return "observes after all", _over(world, flow), ()
    return None


def _cleared(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step:
    by = "hand" if flow.key == "h" else "prefect"
    served = (flow.slot,) if flow.slot else ()
    start = Entry(world.now, "start", by=by, run=f"prefect {flow.key}{flow.slot}", slots=served)
    return "runs", _to(world._replace(ran=world.ran | set(served)), flow, RUNS), (start,)


def _runs(world: World, flow: Flow, setup: Setup, rules: Rules) -> Step:
    return "ends", _over(world, flow), (Entry(world.now, "end", run=f"prefect {flow.key}{flow.slot}"),)


_PHASES: tuple[Callable[[World, Flow, Setup, Rules], Step | None], ...] = (
    _new,
    _judged,
    _claimed,
    _locked,
    _looked,
    _cleared,
    _runs,
)
