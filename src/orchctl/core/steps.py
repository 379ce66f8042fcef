"""The DAG of a job's steps: their order, what a failure means for the others, and what may run now. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from orchctl.core.catalog_steps import StepTable

StepStatus = Literal["success", "failed", "skipped", "cancelled", "warned", "kept"]
"""How a step ended. `warned`: it failed and is optional. `kept`: a success of an earlier attempt still stands."""
GOOD: frozenset[str] = frozenset({"success", "warned", "kept"})
"""With these, the steps after it may run."""


def needs(step: StepTable) -> tuple[str, ...]:
    """Return the steps that `step` waits for: those of `after`, and those whose files it reads; each once."""
    return tuple(dict.fromkeys((*step.after, *(each.step for each in step.inputs if each.step is not None))))


def order(steps: Iterable[StepTable]) -> tuple[StepTable, ...]:
    """Return the steps so that each comes after those it needs, else as they were written. Raises ValueError.

    The message of a cycle names it: `a -> b -> a`, where the arrow means "waits for".
    """
    by_name = {step.name: step for step in steps}
    place = {name: number for number, name in enumerate(by_name)}
    left = {name: {each for each in needs(step) if each in by_name} for name, step in by_name.items()}
    after = _followers(by_name.values())
    ready = [place[name] for name, waits in left.items() if not waits]
    written = tuple(by_name.values())
    found: list[StepTable] = []
    while ready:  # the one that was written first: what was written in order stays as it was
        step = written[heapq.heappop(ready)]
        found.append(step)
        for name in after.get(step.name, ()):
            left[name].discard(step.name)
            if not left[name]:
                heapq.heappush(ready, place[name])
    if len(found) < len(written):
        raise ValueError(" -> ".join(cycle(written) or ()))
    return tuple(found)


def cycle(steps: Iterable[StepTable]) -> tuple[str, ...] | None:
    """Return steps that wait for each other, each for the next, the first again at the end; None where there are none.

    It begins with the one of them that was written first.
    """
    by_name = {step.name: step for step in steps}
    sorter = TopologicalSorter(
        {name: [each for each in needs(step) if each in by_name] for name, step in by_name.items()}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        ring = list(reversed(error.args[1]))[1:]
        first = min(map(list(by_name).index, ring))
        start = ring.index(list(by_name)[first])
        return (*ring[start:], *ring[:start], ring[start])
    return None


def ancestors(steps: Sequence[StepTable], name: str) -> frozenset[str]:
    """Return the steps that must come before `name`, all the way up."""
    return _reach(name, {step.name: needs(step) for step in steps})


def descendants(steps: Sequence[StepTable], name: str) -> frozenset[str]:
    """Return the steps that need `name`, all the way down."""
    return _reach(name, _followers(steps))


def direct(steps: Sequence[StepTable]) -> dict[str, tuple[str, ...]]:
    """Return for each step those that it waits for and that none of the others it waits for waits for itself.

    What is left out follows from what is there: this is what a drawing needs. The steps must be without a cycle.
    """
    names = {step.name for step in steps}
    above = {step.name: ancestors(steps, step.name) for step in steps}
    return {
        step.name: tuple(
            one
            for one in needs(step)
            if one in names and not any(one in above[other] for other in needs(step) if other in names)
        )
        for step in steps
    }


def _followers(steps: Iterable[StepTable]) -> dict[str, list[str]]:
    after: dict[str, list[str]] = {}
    for step in steps:
        for each in needs(step):
            after.setdefault(each, []).append(step.name)
    return after


def _reach(name: str, edges: Mapping[str, Collection[str]]) -> frozenset[str]:
    found: set[str] = set()
    left = [name]
    while left:
        new = set(edges.get(left.pop(), ())) - found
        found |= new
        left += new
    return frozenset(found - {name})
