"""Operators as the model sees them: commands that take the steps of core/handover.py, killed between any two effects.

`moves` plays the loop of services/handover.py: look, do the first step whose effect is not there, write it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from invariants import Entry
from model.rules import Order, Rules
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
    Move,
    Setup,
    Snapshot,
    World,
    ask,
    put,
    set_fence,
    start_timer,
)
from orchctl.core import handover as protocol
from orchctl.core.handover import OF_PREFECT, Step, todo


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

_NAMES = {protocol.CUTOVER: "cutover", protocol.UNDO: "undo", protocol.ROLLBACK: "rollback"}
_ORDERS = {name: order for order, name in _NAMES.items()}
_RECORDED = frozenset({Step.SCHEDULE, Step.CATCH_UP, Step.DRAIN, Step.RELEASE, Step.OWED})
"""Steps whose records are used later: a kill before them is a state of its own."""


def moves(world: World, number: int, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield what an operator may do next, and their death."""
    queue, work = world.operators[number]  # type: ignore[misc]
    if work is None:
        if queue:
            yield _enter(world, number, rules)
        return
    found = _go(world, number, work, setup, rules)
    if found is not None:
        yield found
    if world.crashes:
        yield f"operator {number} is killed", *_over(world._replace(crashes=world.crashes - 1), number)


def _enter(world: World, number: int, rules: Rules) -> Move:
    queue = world.operators[number][0]  # type: ignore[index]
    command, left = queue[0], queue[1:]
    name = f"operator {number} {command}"
    idle = world._replace(operators=put(world.operators, number, (left, None)))
    if rules.host_lock and world.host_lock is not None:
        return f"{name}: another is at work", idle, ()
    journal = world.journal
    if command == "cutover":
        unfinished = journal is not None and rules.lets_handover_be_finished
        if unfinished or world.owner is not None or not world.api:
            return f"{name}: refused", idle, ()
        snapshot = Snapshot(world.active, world.boot, world.paused)
        return _begin(idle._replace(snapshot=snapshot), number, name, Journal("cutover", snapshot), rules)
    if command == "rollback":
        if journal is not None and (journal.kind == "rollback" or world.owner is None):
            return _resume(idle, number, name, journal, rules)
        if world.owner is None:
            return f"{name}: nothing to do", idle, ()
        return _begin(idle, number, name, Journal("rollback", world.snapshot), rules)
    if journal is None:
        return f"{name}: nothing to do", idle, ()
    return _resume(idle, number, name, journal, rules)


def _begin(world: World, number: int, name: str, journal: Journal, rules: Rules) -> Move:
    order = rules.order(journal.kind, owned=world.owner is not None, resumed=False)
    opened = journal if rules.takes_over_journal or world.journal is None else None
    return _work(world._replace(journal=opened), number, name, Work(_NAMES[order], journal))


def _resume(world: World, number: int, name: str, journal: Journal, rules: Rules) -> Move:
    order = rules.order(journal.kind, owned=world.owner is not None, resumed=True)
    return _work(world, number, f"{name} goes on", Work(_NAMES[order], journal))


def _work(world: World, number: int, name: str, work: Work) -> Move:
    queue = world.operators[number][0]  # type: ignore[index]
    world = world._replace(host_lock=number, operators=put(world.operators, number, (queue, work)))
    return name, world, (Entry(world.now, "begin", by=f"operator {number}"),)


def _over(world: World, number: int, journal: Journal | None = None) -> tuple[World, Log]:
    """End a command: its locks are free, whatever ended it."""
    queue = world.operators[number][0]  # type: ignore[index]
    world = world._replace(
        operators=put(world.operators, number, (queue, None)),
        host_lock=None if world.host_lock == number else world.host_lock,
        job_lock=None if world.job_lock == number else world.job_lock,
    )
    return world, (Entry(world.now, "finish", by=f"operator {number}"),)


def _go(world: World, number: int, work: Work, setup: Setup, rules: Rules) -> Move | None:
    """Do the next effect; None where it has to wait."""
    name = f"operator {number}"
    if work.step is None:
        try:
            step, work = _next(world, work, setup, rules)
        except NoAnswer:
            return _failed(world, number, work, setup)
        if step is None:
            return _end(world, number, work, setup)
        if step is work.last:  # it was done, and does not show
            return f"{name} gives up at {step.value}", *_over(world, number)
        work = work._replace(step=step, at=0)
    step = work.step
    assert step is not None
    effects = _effects(step, setup, rules)
    if work.at == len(effects):
        work = work._replace(step=None, last=step)
        after = world if world.journal is None else world._replace(journal=work.facts)
        return f"{name} wrote {step.value} down", _with(after, number, work), ()
    effect, scope = effects[work.at]
    try:
        found = effect(world, work, number, scope, setup, rules)
    except NoAnswer:
        if step not in OF_PREFECT or not rules.owes:
            return _failed(world, number, work, setup)
        work = work._replace(step=None, put_off=work.put_off | {step})
        return f"{name} owes {step.value}", _with(world, number, work), ()
    if found is None:
        return None
    world, work, log = found
    work = work._replace(at=work.at + 1)
    if work.at == len(effects):
        facts = work.facts._replace(done=work.facts.done | {step}) if step in _RECORDED else work.facts
        work = work._replace(facts=facts)
        if step not in _RECORDED:
            work = work._replace(step=None, last=step, at=0)
    return f"{name} {step.value} {effect.__name__[1:]}", _with(world, number, work), log


def _with(world: World, number: int, work: Work) -> World:
    return world._replace(operators=put(world.operators, number, (world.operators[number][0], work)))  # type: ignore[index]


def _next(world: World, work: Work, setup: Setup, rules: Rules) -> tuple[Step | None, Work]:
    owed: set[Step] = set()

    def holds(step: Step) -> bool:
        try:
            return _HOLDS[step](world, work, setup, rules)
        except NoAnswer:
            if step not in OF_PREFECT or not rules.owes:
                raise
            owed.add(step)
            return True

    order: Order = rules.change(_ORDERS[work.steps])
    step = todo(order, holds, put_off=work.put_off)
    return step, work._replace(put_off=work.put_off | owed) if owed else work


def _failed(world: World, number: int, work: Work, setup: Setup) -> Move:
    if work.steps == "cutover" and world.owner is None:
        work = work._replace(steps="undo", step=None, at=0, last=None)
        return f"operator {number} takes it back", _with(world, number, work), ()
    after, log = _over(world, number)
    return f"operator {number} stops", after, (*log, *_rolled_back(world, work, setup))


def _end(world: World, number: int, work: Work, setup: Setup) -> Move:
    owes = bool(work.put_off & OF_PREFECT)
    if not owes:
        world = world._replace(journal=None)
    world, log = _over(world, number)
    log += _rolled_back(world, work, setup)
    if work.steps == "rollback" and not owes and not _is_clear(world):  # a worker could still take a run
        log += (Entry(world.now, "recovered", state="unfinished"),)
    return f"operator {number} ends {work.steps}", world, log


def _rolled_back(world: World, work: Work, setup: Setup) -> Log:
    if work.steps != "rollback":
        return ()
    back = world.owner is None and is_back(world, work.facts, setup) and world.fences == (OPEN,) * setup.scopes
    return (Entry(world.now, "rolled-back", state=back),)


def is_back(world: World, facts: Journal, setup: Setup) -> bool:
    """Whether the timers are as they were; one that was started by hand is not, after another boot."""
    return world.links == setup.linked[: setup.scopes] and world.active == tuple(
        _was_active(world, facts, setup, scope) for scope in range(setup.scopes)
    )


def _was_active(world: World, facts: Journal, setup: Setup, scope: int) -> bool:
    return facts.snapshot.active[scope] and (setup.linked[scope] or world.boot == facts.snapshot.boot)


def _answer(world: World) -> World:
    if not world.api:
        raise NoAnswer
    return world


def _is_clear(world: World) -> bool:
    return world.paused and not any(flow.phase == NEW for flow in world.flows)


_HOLDS = {
    Step.ARM: lambda world, work, setup, rules: True,
    Step.FENCE: lambda world, work, setup, rules: (
        all(fence == FENCED or (fence == WRITTEN and not rules.fence_is_loaded) for fence in world.fences)
    ),
    Step.SCHEDULE: lambda world, work, setup, rules: Step.SCHEDULE in work.facts.done or not _answer(world).paused,
    Step.CRON_OFF: lambda world, work, setup, rules: not world.cron,
    Step.COMMIT: lambda world, work, setup, rules: world.owner is not None,
    Step.TIMERS_OFF: lambda world, work, setup, rules: not any(world.active + (world.links if rules.removes_links else ())),
    Step.GRANT: lambda world, work, setup, rules: world.owner is not None and world.owner.granted is not None,
    Step.CATCH_UP: lambda world, work, setup, rules: (
        Step.CATCH_UP in work.facts.done or world.owner is None or not world.owner.granted
    ),
    Step.DRAIN: lambda world, work, setup, rules: world.owner is None or world.owner.draining,
    Step.IDLE: lambda world, work, setup, rules: world.owner is None or work.lock,
    Step.TIMERS_ON: lambda world, work, setup, rules: is_back(world, work.facts, setup) or (
        not rules.restores_links and all(world.active)
    ),
    Step.RELEASE: lambda world, work, setup, rules: world.owner is None,
    Step.CRON_ON: lambda world, work, setup, rules: world.cron == setup.cron,
    Step.OWED: lambda world, work, setup, rules: Step.OWED in work.facts.done,
    Step.UNFENCE: lambda world, work, setup, rules: world.fences == (OPEN,) * setup.scopes,
    Step.DISARM: lambda world, work, setup, rules: True,
    Step.CLEAR: lambda world, work, setup, rules: _is_clear(_answer(world)) or not rules.clears_runs,
    Step.RESTORE: lambda world, work, setup, rules: not work.facts.snapshot.paused or _answer(world).paused,
}


def _effects(step: Step, setup: Setup, rules: Rules) -> tuple:  # type: ignore[type-arg]
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


# ruff: noqa: ARG001 - all effects are called alike
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
    return _answer(world)._replace(paused=False), work, ()


def _comment_out(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world._replace(cron=False), work, ()


def _read_clock(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    return world, work._replace(slot=world.now + 1), ()


def _create(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    if world.owner is not None:
        return world, work, ()
    world, log = _owner(world, number, Mark(FAR if rules.since_after_appearance else work.slot, False, None))
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
    since = world.now + 1 if rules.since_after_appearance else mark.since
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
    new = granted - _answer(world).created
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
    if not _was_active(world, work.facts, setup, scope):
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
    return _answer(world)._replace(paused=True), work, ()


def _cancel(world: World, work: Work, number: int, scope: int, setup: Setup, rules: Rules) -> Effect:
    kept = frozenset(flow for flow in _answer(world).flows if flow.phase != NEW)
    cancelled = frozenset(flow.slot for flow in world.flows - kept)
    return world._replace(flows=kept, scheduled=world.scheduled - cancelled), work, ()
