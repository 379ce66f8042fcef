"""Who owned a job when, from the events of its handovers and its owner file. Pure. Instants are epoch seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchctl.core.names import parse_instant
from orchctl.core.slots import Owner


@dataclass(frozen=True, slots=True)
class Owed:
    """A slot that fell due while a rollback drained the job, and that it ran through the legacy service at `at`."""

    slot: float
    at: float


@dataclass(frozen=True, slots=True)
class Eras:
    """When Prefect owned a job: from the first instant of each pair up to, and without, the second.

    `granted` are slots before them that it caught up with, `owed` those after which legacy did.
    """

    prefect: tuple[tuple[float, float], ...]
    granted: frozenset[float] = frozenset()
    owed: tuple[Owed, ...] = ()

    @property
    def all_prefect(self) -> bool:
        """Whether the job was never legacy's."""
        return self.prefect == ALWAYS.prefect

    def is_prefects(self, at: float) -> bool:
        """Whether a slot was Prefect's to run."""
        return at in self.granted or any(start <= at < end for start, end in self.prefect)

    def is_legacys(self, at: float) -> bool:
        """Whether a slot was legacy's to run by its own triggers."""
        return not self.is_prefects(at) and all(each.slot != at for each in self.owed)


ALWAYS = Eras(((-math.inf, math.inf),))
NEVER = Eras(())


def of(owner: Owner | None, events: Iterable[Mapping[str, Any]], *, start: float) -> Eras:
    """Return the eras of a job from `start` on. `events` are those of its handovers since then, in any order.

    What was before the first event follows from it: before a rollback the job was Prefect's. Events that do not say
    what they should are passed over.
    """
    eras: list[tuple[float, float]] = []
    granted: set[float] = {slot.timestamp() for slot in (owner.granted or ())} if owner is not None else set()
    owed: list[Owed] = []
    begun = -math.inf
    told = sorted(events, key=lambda event: str(event.get("ts")))
    for event in told:
        at = _instant(event, "ts")
        if event.get("event") == "handover_committed" and at is not None:
            if event.get("kind") == "cutover":
                begun = _instant(event, "since") or at
            else:
                eras.append((begun, at))
        elif event.get("event") == "handover_finished" and at is not None:
            granted |= set(filter(None, map(_read, event.get("granted") or ())))
            owed += _owed(event.get("owed"))
    if owner is not None:
        eras.append((owner.since.timestamp(), math.inf))
    return Eras(tuple((since, until) for since, until in eras if until > start), frozenset(granted), tuple(owed))


def _owed(data: Any) -> list[Owed]:
    if not isinstance(data, dict):
        return []
    slot, at = _read(data.get("slot")), _read(data.get("at"))
    return [Owed(slot, at)] if slot is not None and at is not None else []


def _instant(event: Mapping[str, Any], key: str) -> float | None:
    return _read(event.get(key))


def _read(value: object) -> float | None:
    try:
        return parse_instant(str(value)).timestamp()
    except ValueError:
        return None
