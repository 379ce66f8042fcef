"""Which slots a legacy service's runs were for: nothing notes it, so their starts must tell. Pure.

Slots are sorted whole epoch seconds, starts and ends epoch seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

FAILED = frozenset({"failed", "crashed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as the audit sees it. `ended` None: it goes on, or nobody knows when it ended.

    `feed` names whose it is: a service and its scope, `cron`, or `Prefect`. `executed` is False where the run only
    says something: it observed, or was skipped. `by_hand`: somebody asked for it, for no slot.
    """

    run_id: str
    side: Literal["legacy", "prefect"]
    feed: str
    status: str
    slot: int | None
    started: float
    ended: float | None
    executed: bool = True
    by_hand: bool = False
    reason: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended other than well."""
        return self.status in FAILED


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the slots. `hard`: started for them. `soft`: they fell due, closer together than the trigger
    tells apart, while this run went on. `during`: they fell due while it went on. `extra` are runs for no slot.
    """

    hard: dict[int, list[Ran]]
    soft: dict[int, Ran]
    during: dict[int, Ran]
    extra: tuple[Ran, ...]


def serve(
    instants: Sequence[int], reach: float, runs: Sequence[Ran], *, taken: Collection[int] = (), catches_up: bool = True
) -> Served:
    """Match the runs of one service, by start, with its slots.

    A start within `reach` seconds of slots serves all of those that no earlier one has: systemd starts a service once
    for all instants that fall into its tolerance. With `catches_up` (Persistent=) one that comes later serves the
    latest slot, if nothing has, and is late; of `taken` it is told that something has. A start within
    reach of a slot that is served already is a second one for it.
    """
    served = Served({}, {}, {}, ())
    extra = []
    for run in runs:
        mine = _slots_of(run, instants, reach, served.hard, taken if catches_up else None)
        if not mine:
            extra.append(run)
        for at in mine:
            served.hard.setdefault(at, []).append(run)
        _meanwhile(run, instants, reach, served)
    return Served(served.hard, served.soft, served.during, tuple(extra))


def _slots_of(
    run: Ran, instants: Sequence[int], reach: float, hard: dict[int, list[Ran]], taken: Collection[int] | None
) -> list[int]:
    first, past = bisect_left(instants, run.started - reach), bisect_right(instants, run.started)
    named = [run.slot] if run.slot is not None and _holds(instants, run.slot) else []
    window = [at for at in instants[first:past] if at not in hard]
    if named or window:
        return sorted({*named, *window})
    if past == 0:
        return []
    latest = instants[past - 1]
    second = run.started - latest <= reach
    free = taken is not None and latest not in hard and latest not in taken
    return [latest] if second or free else []


def _holds(instants: Sequence[int], at: int) -> bool:
    index = bisect_left(instants, at)
    return index < len(instants) and instants[index] == at


def _meanwhile(run: Ran, instants: Sequence[int], reach: float, served: Served) -> None:
    """Note what fell due while the run went on: systemd starts nothing then."""
    ended = run.ended if run.ended is not None else run.started
    first, past = bisect_right(instants, run.started), bisect_right(instants, ended)
    for index in range(first, past):
        at = instants[index]
        dense = index > 0 and at - instants[index - 1] <= reach
        (served.soft if dense else served.during).setdefault(at, run)
