"""Who owned a job when."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from orchctl.core import eras
from orchctl.core.eras import Owed
from orchctl.core.names import format_instant
from orchctl.core.slots import Owner

DAY = datetime(2026, 1, 5, tzinfo=UTC).timestamp()


def at(minute: int) -> str:
    return format_instant(datetime.fromtimestamp(DAY + 60 * minute, UTC))


def committed(kind: str, minute: int, **more: Any) -> dict[str, Any]:
    return {"ts": at(minute), "event": "handover_committed", "kind": kind, **more}


def test_without_handovers_the_owner_file_says_since_when() -> None:
    assert eras.of(None, [], start=DAY) == eras.NEVER
    owner = Owner(datetime.fromtimestamp(DAY + 60, UTC), draining=False)
    assert eras.of(owner, [], start=DAY).prefect == ((DAY + 60, math.inf),)


def test_each_cutover_begins_an_era_and_each_rollback_ends_one_whatever_the_order_of_the_lines() -> None:
    events = [committed("rollback", 20), committed("cutover", 10, since=at(11)), committed("cutover", 30)]
    owner = Owner(datetime.fromtimestamp(DAY + 31 * 60, UTC), draining=False)
    found = eras.of(owner, events, start=DAY)
    assert found.prefect == ((DAY + 660, DAY + 1200), (DAY + 1860, math.inf))
    owned = [minute for minute in range(40) if found.is_prefects(DAY + 60 * minute)]
    assert owned == [*range(11, 20), *range(31, 40)]
    assert all(found.is_legacys(DAY + 60 * minute) != (minute in owned) for minute in range(40))


def test_before_a_rollback_whose_cutover_is_not_told_the_job_was_prefects() -> None:
    found = eras.of(None, [committed("rollback", 20)], start=DAY)
    assert found.is_prefects(DAY)
    assert found.is_legacys(DAY + 1200)


def test_granted_slots_are_prefects_and_owed_ones_neither_sides_own() -> None:
    finished = {"event": "handover_finished", "ts": at(31)}
    events: list[dict[str, Any]] = [
        {**finished, "granted": [at(9), "rubbish"]},
        {**finished, "owed": {"slot": at(30), "at": at(31)}},
        {**finished, "owed": 7, "granted": None},
        {"event": "handover_committed", "kind": "cutover", "ts": "rubbish"},
    ]
    found = eras.of(None, events, start=DAY)
    assert found.is_prefects(DAY + 540)
    assert found.owed == (Owed(DAY + 1800, DAY + 1860),)
    assert not found.is_prefects(DAY + 1800)
    assert not found.is_legacys(DAY + 1800)
