"""The corpus of calendar expressions: what is valid, and when systemd really elapses (tests/data/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from orchctl.core import calendar, clocks

DATA = Path(__file__).parent / "data"
THE_END = int(datetime(2200, 1, 2, tzinfo=UTC).timestamp())
Runs = list[list[int]]


@dataclass(frozen=True)
class Case:
    """An expression. `next20`: the elapses after a base (epoch seconds), by zone and base; empty if it is not valid.

    `stuck`: systemd takes it, but its calculation fails in a zone: there is nothing to compare with.
    """

    text: str
    origin: str
    valid: bool
    stuck: bool
    subsecond: bool
    next20: Mapping[str, Mapping[int, list[int]]]


@dataclass(frozen=True)
class Window:
    """All elapses of an expression, read in the zone `local`, from `start` up to, and without, `end`.

    In it clocks change in `zone`.
    """

    text: str
    local: str
    zone: str
    start: int
    end: int
    elapses: list[int]


@cache
def cases() -> tuple[Case, ...]:
    """Return all expressions."""
    return tuple(_case(row) for row in _rows("calendar_cases.jsonl"))


@cache
def valid() -> tuple[Case, ...]:
    """Return those that systemd takes."""
    return tuple(case for case in cases() if case.valid)


def windows() -> Iterator[Window]:
    """Yield the windows around the changes of clocks in 2026."""
    for row in _rows("calendar_dst_windows.jsonl"):
        for local, zone, start, end, runs in row["windows"]:
            yield Window(row["expr"], local, zone, start, end, unpacked(runs))


def packed(instants: Sequence[int]) -> Runs:
    """Write sorted instants as runs: first instant, distance, how many."""
    runs: Runs = []
    for instant in instants:
        if runs and runs[-1][2] == 1:
            runs[-1][1:] = [instant - runs[-1][0], 2]
        elif runs and runs[-1][0] + runs[-1][1] * runs[-1][2] == instant:
            runs[-1][2] += 1
        else:
            runs.append([instant, 0, 1])
    return runs


def unpacked(runs: Iterable[Sequence[int]]) -> list[int]:
    """Read what `packed` wrote."""
    return [first + step * number for first, step, count in runs for number in range(count)]


def _case(row: dict[str, Any]) -> Case:
    next20 = {
        zone: {int(base): unpacked(runs) for base, runs in bases.items()}
        for zone, bases in row.get("next20", {}).items()
    }
    return Case(row["expr"], row["class"], row["valid"], row.get("stuck", False), row.get("subsecond", False), next20)


def _rows(name: str) -> Iterator[dict[str, Any]]:
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


@cache
def converted(text: str, zone: str) -> calendar.Conversion | None:
    """Return what an expression becomes in Prefect, None where it is refused."""
    try:
        return calendar.convert(text, zone)
    except ValueError:
        return None


def asked(zone: str) -> Iterator[tuple[Case, int, list[int], int]]:
    """Yield the expressions with a base, the elapses after it in `zone`, and where the last one ends."""
    for case in valid():
        for base, elapses in case.next20.get(zone, {}).items():
            yield case, base, elapses, elapses[-1] + 1 if len(elapses) == 20 else THE_END


def check(conversion: calendar.Conversion, systemd: list[int], prefect: list[int]) -> None:
    """Each instant of one side alone must be one of which a note says so; without a note there is none."""
    said = f"{conversion.expression} in {conversion.timezone}"
    # Where Prefect has more, its twenty end before those of systemd.
    systemd = [at for at in systemd if not prefect or len(systemd) < 20 or at <= prefect[-1]]
    alone = set(systemd) ^ set(prefect)
    assert not set(systemd) - set(prefect), f"{said}: Prefect leaves something out"
    unsaid = {at for at in alone if not _explained(conversion, at)}
    assert not unsaid, f"{said}: no note explains {min(unsaid)}"


def _explained(conversion: calendar.Conversion, at: int) -> bool:
    notes = " ".join(conversion.notes)
    changes = _forward(conversion.schedule["timezone"])
    if "when clocks go forward" in notes and any(early <= at < change for early, change in changes):
        return True
    start, end = (datetime.fromtimestamp(each, UTC) for each in (at, at + 1))
    return (
        "systemd loses" in notes and at in calendar.defects(conversion.expression, conversion.timezone, start, end)[0]
    )


@cache
def _forward(zone: str) -> list[tuple[int, int]]:
    """Return the spans before clocks go forward, as long as what is left out: where Prefect puts what is due in it."""
    start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2026, 2060))
    changes = (change for change in clocks.changes(zone, start, end) if change.forward)
    return [(change.at - change.after_s + change.before_s, change.at) for change in changes]
