"""Operators as the model sees them: commands that take the steps of core/handover.py, killed between any two effects.

`moves` plays the loop of services/handover.py: look, do the first step whose effect is not there, write it down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from invariants import Entry
from model.effects import NoAnswer, Work, answer, effects, was_active
from model.rules import Order, Rules
from model.world import FENCED, NEW, OPEN, WRITTEN, Journal, Log, Move, Setup, Snapshot, World, put
from orchctl.core import handover as protocol
from orchctl.core.handover import OF_PREFECT, Step, todo

_NAMES = {protocol.CUTOVER: "cutover", protocol.UNDO: "undo", protocol.ROLLBACK: "rollback"}
_ORDERS = {name: order for order, name in _NAMES.items()}
_RECORDED = frozenset({Step.SCHEDULE, Step.CATCH_UP, Step.DRAIN, Step.RELEASE, Step.OWED})
"""Steps whose records are used later: a kill before them is a state of its own."""


def moves(world: World, number: int, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield what an operator may do next, and their death."""
    queue, work = world.operators[number]
    if work is None:
        if queue:
            yield _enter(world, number, rules)
        return
    found = _go(world, number, work, setup, rules)
    if found is not None:
        yield found
    if world.crashes:
        yield f"operator {number} is killed", *_over(world._replace(crashes=world.crashes - 1), number)


def _enter(world: World, number: int, rules: Rules) -> Move:  # noqa: PLR0911 - one for each answer
    queue = world.operators[number][0]
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
    queue = world.operators[number][0]
    world = world._replace(host_lock=number, operators=put(world.operators, number, (queue, work)))
    return name, world, (Entry(world.now, "begin", by=f"operator {number}"),)


def _over(world: World, number: int, journal: Journal | None = None) -> tuple[World, Log]:
    """End a command: its locks are free, whatever ended it."""
    queue = world.operators[number][0]
    world = world._replace(
        operators=put(world.operators, number, (queue, None)),
        host_lock=None if world.host_lock == number else world.host_lock,
        job_lock=None if world.job_lock == number else world.job_lock,
    )
    return world, (Entry(world.now, "finish", by=f"operator {number}"),)


def _go(  # noqa: PLR0911 - one for each turn it may take
    world: World, number: int, work: Work, setup: Setup, rules: Rules
) -> Move | None:
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
    in_order = effects(step, setup, rules)
    if work.at == len(in_order):
        work = work._replace(step=None, last=step)
        after = world if world.journal is None else world._replace(journal=work.facts)
        return f"{name} wrote {step.value} down", _with(after, number, work), ()
    effect, scope = in_order[work.at]
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
    if work.at == len(in_order):
        facts = work.facts._replace(done=work.facts.done | {step}) if step in _RECORDED else work.facts
        work = work._replace(facts=facts)
        if step not in _RECORDED:
            work = work._replace(step=None, last=step, at=0)
    return f"{name} {step.value} {effect.__name__[1:]}", _with(world, number, work), log


def _with(world: World, number: int, work: Work) -> World:
    return world._replace(operators=put(world.operators, number, (world.operators[number][0], work)))


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
        was_active(world, facts, setup, scope) for scope in range(setup.scopes)
    )


def _is_clear(world: World) -> bool:
    return world.paused and not any(flow.phase == NEW for flow in world.flows)


_HOLDS: dict[Step, Callable[[World, Work, Setup, Rules], bool]] = {
    Step.ARM: lambda world, work, setup, rules: True,
    Step.FENCE: lambda world, work, setup, rules: all(
        fence == FENCED or (fence == WRITTEN and not rules.fence_is_loaded) for fence in world.fences
    ),
    Step.SCHEDULE: lambda world, work, setup, rules: Step.SCHEDULE in work.facts.done or not answer(world).paused,
    Step.CRON_OFF: lambda world, work, setup, rules: not world.cron,
    Step.COMMIT: lambda world, work, setup, rules: world.owner is not None,
    Step.TIMERS_OFF: lambda world, work, setup, rules: (
        not any(world.active + (world.links if rules.removes_links else ()))
    ),
    Step.GRANT: lambda world, work, setup, rules: world.owner is not None and world.owner.granted is not None,
    Step.CATCH_UP: lambda world, work, setup, rules: (
        Step.CATCH_UP in work.facts.done or world.owner is None or not world.owner.granted
    ),
    Step.DRAIN: lambda world, work, setup, rules: world.owner is None or world.owner.draining,
    Step.IDLE: lambda world, work, setup, rules: world.owner is None or work.lock,
    Step.TIMERS_ON: lambda world, work, setup, rules: (
        is_back(world, work.facts, setup) or (not rules.restores_links and all(world.active))
    ),
    Step.RELEASE: lambda world, work, setup, rules: world.owner is None,
    Step.CRON_ON: lambda world, work, setup, rules: world.cron == setup.cron,
    Step.OWED: lambda world, work, setup, rules: Step.OWED in work.facts.done,
    Step.UNFENCE: lambda world, work, setup, rules: world.fences == (OPEN,) * setup.scopes,
    Step.DISARM: lambda world, work, setup, rules: True,
    Step.CLEAR: lambda world, work, setup, rules: _is_clear(answer(world)) or not rules.clears_runs,
    Step.RESTORE: lambda world, work, setup, rules: not work.facts.snapshot.paused or answer(world).paused,
}
