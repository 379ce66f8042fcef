"""The corpus of calendar expressions: what is valid, and when systemd really elapses (tests/data/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchctl.core import calendar

DATA = Path(__file__).parent / "data"
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
