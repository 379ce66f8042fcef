"""The effects of a handover's steps on the model's host, in their order. A kill may come between any two."""

from __future__ import annotations

from typing import NamedTuple

from invariants import Entry
from model.happenings import ask, set_fence, start_timer
from model.rules import Rules
from model.world import (
    ASKED,
    FAR,
    FENCED,
    NEW,
    OPEN,
    PASSED,
    TAKEN,
    WRITTEN,
    Flow,
    Journal,
    Log,
    Mark,
    Setup,
    World,
    put,
)
from orchctl.core.handover import Step


class Work(NamedTuple):
    """A handover at work. `steps` names its order; `at` is the next effect of `step`; `slot` is what OWED found."""

    steps: str
    facts: Journal
    step: Step | None = None
    at: int = 0
    last: Step | None = None
    put_off: frozenset[Step] = frozenset()
    lock: bool = False
    slot: int = 0


class NoAnswer(Exception):
    """Prefect's API is down."""


Effect = tuple[World, Work, Log]


def answer(world: World) -> World:
    if not world.api:
        raise NoAnswer
    return world


def was_active(world: World, facts: Journal, setup: Setup, scope: int) -> bool:
    return facts.snapshot.active[scope] and (setup.linked[scope] or world.boot == facts.snapshot.boot)


def effects(step: Step, setup: Setup, rules: Rules) -> tuple:  # type: ignore[type-arg]
    """Return the effects of a step in their order, each with its scope. A kill may come between any two."""
    each = range(setup.scopes)
    commit = (_create,) if rules.since_after_appearance else (_read_clock, _create, _since)
    return {
        Step.FENCE: (*((_write, n) for n in each), *((_load, n) for n in each if rules.fence_is_loaded)),
        Step.SCHEDULE: ((_unpause, 0),),
        Step.CRON_OFF: ((_comment_out, 0),),
        Step.COMMIT: tuple((effect, 0) for effect in commit),
        Step.TIMERS_OFF: (*((_stop, n) for n in each), *((_unlink, n) for n in each if rules.removes_links)),
        Step.GRANT: ((_grant, 0),),
        Step.CATCH_UP: ((_catch_up, 0),),
        Step.DRAIN: ((_drain, 0),),
        Step.IDLE: ((_lock, 0),),
        Step.TIMERS_ON: (*((_link, n) for n in each if rules.restores_links), *((_start, n) for n in each)),
        Step.RELEASE: ((_wait, 0), (_remove, 0), (_unlock, 0)),
        Step.CRON_ON: ((_comment_in, 0),),
        Step.OWED: ((_look, 0), (_run_once, 0), *(((_see_it_begin, 0),) if rules.owed_is_seen else ())),
        Step.UNFENCE: (*((_take, n) for n in each), *((_load, n) for n in each)),
        Step.CLEAR: ((_pause, 0), *(((_cancel, 0),) if rules.clears_runs else ())),
        Step.RESTORE: ((_pause, 0),),
    }[step]


def _owner(world: World, number: int, mark: Mark | None) -> tuple[World, Log]:
    state = None if mark is None else "draining" if mark.draining else "live"
    was = None if world.owner is None else "draining" if world.owner.draining else "live"
    log = (Entry(world.now, "owner", by=f"operator {number}", state=state),) if state != was else ()
    return world._replace(owner=mark), log


def _on_its_way(world: World) -> bool:
    return any(service.phase in {ASKED, PASSED} for service in world.services)


def _write(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    world, log = set_fence(world, scope, {OPEN: WRITTEN, TAKEN: FENCED}.get(world.fences[scope], world.fences[scope]))
    return world, work, log


def _load(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    world, log = set_fence(world, scope, {WRITTEN: FENCED, TAKEN: OPEN}.get(world.fences[scope], world.fences[scope]))
    return world, work, log


def _take(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    world, log = set_fence(world, scope, {FENCED: TAKEN, WRITTEN: OPEN}.get(world.fences[scope], world.fences[scope]))
    return world, work, log


def _unpause(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return answer(world)._replace(paused=False), work, ()


def _comment_out(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(cron=False), work, ()


def _read_clock(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world, work._replace(slot=world.now + 1), ()


def _create(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    if world.owner is not None:
        return world, work, ()
    since = work.slot if not rules.since_after_appearance else FAR if setup.cron else world.now + 1
    world, log = _owner(world, number, Mark(since, False, None))
    return world, work, log


def _since(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    mark = world.owner
    if mark is not None and mark.since <= world.now:
        return world._replace(owner=mark._replace(since=world.now + 1)), work, ()
    return world, work, ()


def _stop(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    pending, active = put(world.pending, scope, 0), put(world.active, scope, False)
    return world._replace(pending=pending, active=active), work, ()


def _unlink(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(links=put(world.links, scope, False)), work, ()


def _grant(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect | None:
    mark = world.owner
    if mark is None:
        return world, work, ()
    if rules.grant_waits and _on_its_way(world):
        return None
    since = world.now + 1 if mark.since == FAR else mark.since
    if since > world.now + 1:
        return None
    claimed = {claim.slot for claim in world.claims}
    missed = [slot for slot in range(world.legacy_last + 1, since) if slot not in claimed]
    granted = missed if setup.policy == "all" else missed[-1:]
    dropped = tuple(slot for slot in missed if slot not in granted)
    mark = Mark(since, mark.draining, frozenset(granted if rules.grants else ()))
    return world._replace(owner=mark), work, (Entry(world.now, "dropped", slots=dropped),) if dropped else ()


def _catch_up(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    granted = world.owner.granted if world.owner is not None and world.owner.granted else frozenset()
    new = granted - answer(world).created
    flows = world.flows | {Flow("c", slot) for slot in new}
    return world._replace(flows=flows, created=world.created | new), work, ()


def _drain(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    mark = world.owner
    if mark is None:
        return world, work, ()
    since: int | None = mark.since
    if rules.owed_from_grants:
        since = None if mark.granted is None else min(mark.since, *mark.granted, FAR)
    world, log = _owner(world, number, mark._replace(draining=True))
    return world, work._replace(facts=work.facts._replace(since=since)), log


def _lock(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect | None:
    if world.job_lock is not None and rules.waits_for_end:
        return None
    if world.job_lock is None and rules.job_lock_is_held:
        world = world._replace(job_lock=number)
    return world, work._replace(lock=True), ()


def _link(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(links=put(world.links, scope, setup.linked[scope])), work, ()


def _start(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    if not was_active(world, work.facts, setup, scope):
        return world, work, ()
    world, log = start_timer(world, scope, setup)
    return world, work, log


def _wait(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect | None:
    return None if rules.release_waits and _on_its_way(world) else (world, work, ())


def _remove(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    world, log = _owner(world, number, None)
    return world, work._replace(facts=work.facts._replace(released=world.now)), log


def _unlock(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(job_lock=None if world.job_lock == number else world.job_lock), work, ()


def _comment_in(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(cron=setup.cron), work, ()


def _look(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect | None:
    if rules.owed_waits and _on_its_way(world):
        return None
    facts = work.facts
    released = facts.released if facts.released is not None else world.now
    found = range(max(facts.since or 0, 1), released + 1)
    missed = [slot for slot in found if slot not in world.ran | world.skipped]
    slot = max(missed, default=0)
    later = world.ran if rules.skipped_is_not_run else world.ran | world.skipped
    if setup.policy != "all" and any(other > slot for other in later):
        slot = 0
    dropped = tuple(other for other in missed if other != slot)
    log = (Entry(world.now, "dropped", slots=dropped),) if dropped and slot else ()
    served = rules.owed_looks and world.legacy_last >= slot
    return world, work._replace(slot=0 if served or any(world.pending) else slot), log


def _run_once(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    if not work.slot:
        return world, work, ()
    if setup.cron:  # cron cannot be told to: the operator is
        return world, work._replace(slot=0), (Entry(world.now, "dropped", slots=(work.slot,)),)
    world, log = ask(world, 0, (work.slot,))
    return world, work._replace(slot=0), log


def _see_it_begin(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect | None:
    return None if _on_its_way(world) else (world, work, ())


def _pause(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return answer(world)._replace(paused=True), work, ()


def _cancel(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    kept = frozenset(flow for flow in answer(world).flows if flow.phase != NEW)
    cancelled = frozenset(flow.slot for flow in world.flows - kept)
    return world._replace(flows=kept, scheduled=world.scheduled - cancelled), work, ()
