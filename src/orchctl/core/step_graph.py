"""Draws the DAG of steps as lanes, a step a line, in the order in which they run. Pure.

A lane is what leads to one step: every step before it joins that step's lane. What an edge says that others say already
(`a -> c` beside `a -> b -> c`) is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchctl.core import steps
from orchctl.core.catalog_steps import StepTable

_NODE, _OPTIONAL = "●", "○"
# Which ways a line goes from a place: up, down, left, right.
_LINES = {
    (True, True, False, False): "│",
    (True, True, False, True): "├",
    (True, True, True, False): "┤",
    (True, True, True, True): "┼",
    (True, False, False, True): "╰",
    (True, False, True, False): "╯",
    (True, False, True, True): "┴",
    (False, True, False, True): "╭",
    (False, True, True, False): "╮",
    (False, True, True, True): "┬",
    (False, False, True, True): "─",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the drawing: its lanes, and the step that is on it; None for a line that only joins lanes.

    `below` are the lanes as they go on under a step, for the lines that say more about it.
    """

    lanes: str
    step: StepTable | None = None
    below: str = ""


def draw(tables: Sequence[StepTable]) -> tuple[Row, ...]:
    """Return the drawing of steps without a cycle. `●` is a step, `○` one that is optional."""
    needs = steps.direct(tables)
    ordered = steps.order(tables)
    after = {step.name: [each.name for each in ordered if step.name in needs[each.name]] for step in ordered}
    columns: list[str | None] = []
    rows: list[Row] = []
    for step in ordered:
        here = columns.index(step.name) if step.name in columns else _free(columns)
        _put(columns, here, step.name)
        node = _OPTIONAL if step.optional else _NODE
        lanes = [node if index == here else "│" if each else " " for index, each in enumerate(columns)]
        going_on = [bool(each) if index != here else bool(after[step.name]) for index, each in enumerate(columns)]
        rows.append(Row(_line(lanes), step, _line(["│" if each else " " for each in going_on])))
        joins = _advance(columns, here, after[step.name])
        if joins is not None:
            rows.append(Row(joins))
    return tuple(rows)


def _free(columns: Sequence[str | None]) -> int:
    """Return the first column that leads nowhere."""
    return next((index for index, each in enumerate(columns) if each is None), len(columns))


def _put(columns: list[str | None], at: int, name: str) -> None:
    if at == len(columns):
        columns.append(None)
    columns[at] = name


def _advance(columns: list[str | None], here: int, targets: Sequence[str]) -> str | None:
    """Lead the lane of a step that is done on to the steps after it; return the line that joins, None for no line."""
    columns[here] = None
    before = list(columns)
    reached = []
    for target in targets:
        at = columns.index(target) if target in columns else here if columns[here] is None else _free(columns)
        _put(columns, at, target)
        reached.append(at)
    line = _joined(before, columns, here, set(reached)) if set(reached) - {here} else None
    while columns and columns[-1] is None:
        columns.pop()
    return line


def _joined(before: Sequence[str | None], columns: Sequence[str | None], here: int, reached: set[int]) -> str:
    first, last = min({here, *reached}), max({here, *reached})
    cells, gaps = [], []
    for index in range(len(columns)):
        up = index == here or (index < len(before) and before[index] is not None)
        down = index in reached or (index != here and up)
        left = first < index <= last and (index == here or index in reached)
        right = first <= index < last and (index == here or index in reached)
        if first < index < last and index not in reached and index != here:
            left = right = not up  # a line passes behind a lane that it has nothing to do with
        cells.append(_LINES.get((up, down, left, right), " "))
        gaps.append("─" if first <= index < last else " ")
    return "".join(f"{cell}{gap}" for cell, gap in zip(cells, gaps, strict=True)).rstrip()


def _line(cells: Sequence[str]) -> str:
    return " ".join(cells).rstrip()
