"""Every schedule of a setup: a depth-first search over states that counts the paths through them.

Two schedules that lead to the same state go on in the same ways, so each state is looked at once, and the number of
schedules is a sum over its followers. The checker's memory is part of the state: nothing that it needs is forgotten.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field

from invariants import Entry, Violation, check, look
from model.happenings import closed, happenings
from model.operators import moves
from model.rules import Rules
from model.world import FENCED, OPEN, Log, Move, Setup, World, begin, owns


@dataclass
class Explored:
    """What was seen. `violations` are those of the first schedule that has any, `schedule` is what happened in it."""

    states: int = 0
    schedules: int = 0
    violations: list[Violation] = field(default_factory=list)
    schedule: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.schedules:,} schedules through {self.states:,} states"
        return "\n".join([head, *self.schedule, *map(str, self.violations)])


class Broken(Exception):
    """An invariant does not hold: what happened, and its log."""


@dataclass(slots=True)
class _Point:
    """A state on the way, what is still to be tried from it, and the schedules that were counted."""

    world: World
    rest: Iterator[Move]
    schedules: int = 0


_OPEN = -1
"""The count of a state that is on the way itself: to come to it again would be a cycle."""


def followers(world: World, setup: Setup, rules: Rules) -> Iterator[Move]:
    """Yield all that may happen next."""
    yield from happenings(world, setup, rules)
    for number in range(len(world.operators)):
        yield from moves(world, number, setup, rules)


def explore(setup: Setup, rules: Rules | None = None) -> Explored:
    """Go through every schedule, or up to the first that breaks an invariant. Raises AssertionError on a cycle."""
    rules = rules or Rules()
    explored, first = Explored(), begin(setup)
    counts: dict[World, int] = {first: _OPEN}
    path: list[tuple[str, Log]] = []
    stack = [_Point(first, followers(first, setup, rules))]
    gc.disable()  # it would look through all states again and again, and they hold no cycles
    try:
        while stack:
            point = stack[-1]
            move = next(point.rest, None)
            if move is None:
                if not point.schedules:
                    _settle(point.world, setup, rules, path)
                    point.schedules = 1
                counts[point.world] = point.schedules
                stack.pop()
                if stack:
                    stack[-1].schedules += point.schedules
                    path.pop()
                continue
            label, after, log = move
            after = _seen(after, log, setup, [*path, (label, log)] if log else path)
            known = counts.get(after)
            assert known != _OPEN, f"a cycle: {[each for each, _ in path]} {label}"
            if known is not None:
                point.schedules += known
                continue
            counts[after] = _OPEN
            path.append((label, log))
            stack.append(_Point(after, followers(after, setup, rules)))
    except Broken as broken:
        explored.schedule, whole = broken.args
        explored.violations = check(whole, policy=setup.policy)
    finally:
        gc.enable()
    explored.states = len(counts)
    explored.schedules = max(counts[first], 0)
    return explored


def _seen(world: World, log: Log, setup: Setup, path: list[tuple[str, Log]]) -> World:
    """Let the checker look at what happened."""
    if not log:
        return world
    seen = world.seen
    for entry in log:
        seen, found = look(seen, entry, policy=setup.policy)
        if found:
            _break(setup, path)
    return world._replace(seen=seen)


def _break(setup: Setup, path: list[tuple[str, Log]]) -> None:
    whole = [*_beginning(setup), *(entry for _, log in path for entry in log)]
    raise Broken([label for label, _ in path], whole)


def _beginning(setup: Setup) -> Log:
    """Return a log that brings a checker to where `begin` begins."""
    seen = begin(setup).seen
    log: Log = tuple(Entry(0, "fence", scope=scope, state=False) for scope in sorted(seen.unfenced))
    if setup.owned:
        log += (
            Entry(0, "begin", by="before"),
            Entry(0, "owner", by="before", state="live"),
            Entry(0, "finish", by="before"),
        )
    return log


def _settle(world: World, setup: Setup, rules: Rules, path: list[tuple[str, Log]]) -> None:
    """Let everything come to rest, recover twice, and check what is left: nothing more can happen by itself."""
    steps: list[tuple[str, Log]] = list(path)
    if any(work is not None for _, work in world.operators):
        steps.append(("an operator waits for ever", (Entry(world.now, "recovered", state="unfinished"),)))
        _break(setup, steps)
    world = _recover(world, setup, rules, steps)
    again = _recover(world, setup, rules, steps)
    state = "finished" if _legal(world, setup) else "unfinished"
    if _host(world) != _host(again):
        state = "changed"
    log: Log = (Entry(world.now, "recovered", state=state),)
    if again.owner is None:
        log += (
            Entry(0, "units", by="before", state="as before"),
            Entry(world.now, "units", by="after", state="as before" if _as_before(again, setup) else "other"),
        )
    log += (Entry(world.now, "settled", state=_able(again, setup)),)
    steps.append(("at rest", log))
    _seen(again, log, setup, steps)


def _recover(world: World, setup: Setup, rules: Rules, steps: list[tuple[str, Log]]) -> World:
    """Run `recover` to its end, with whatever happens meanwhile."""
    world = world._replace(operators=((("recover",), None),), api=True, crashes=0, reboots=0, outages=0)
    for _ in range(200):
        move = next(followers(world, setup, rules), None)
        if move is None:
            return world
        steps.append(move[::2])
        world = _seen(move[1], move[2], setup, steps)
    raise AssertionError(f"recover does not end: {[label for label, _ in steps]}")


def _host(world: World) -> World:
    return world._replace(seen=begin(Setup(())).seen, operators=())


def _legal(world: World, setup: Setup) -> bool:
    """Whether a state is one of the two that a handover may leave."""
    if world.journal is not None:
        return False
    if world.owner is None:
        return world.fences == (OPEN,) * setup.scopes and world.cron == setup.cron
    off = not any(world.active + world.links) and not world.cron
    mark = world.owner
    return off and not mark.draining and mark.granted is not None and world.fences == (FENCED,) * setup.scopes


def _as_before(world: World, setup: Setup) -> bool:
    """Whether the timers are as they were; one without a link is not active after a boot, handover or not."""
    linked = setup.linked[: setup.scopes]
    return world.links == linked and world.active == tuple(link or not world.boot for link in linked)


def _able(world: World, setup: Setup) -> tuple[str, ...]:
    """Return the sides that would run the next slot, whatever asks them."""
    timers = any(world.active[scope] and not closed(world, scope) for scope in range(setup.scopes))
    prefect = not world.paused and owns(world.now + 1, world.owner)
    return (("legacy",) if timers or world.cron else ()) + (("prefect",) if prefect else ())
