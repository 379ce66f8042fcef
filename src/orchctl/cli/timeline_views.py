"""The steps of a run on a terminal: a line of time for each, then contracts and what was published."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core import timeline as core
from orchctl.core.durations import human

if TYPE_CHECKING:
    from orchctl.core.timeline import Axis, Row, Timeline
    from orchctl.wiring import Settings

PIPED_WIDTH = 100
"""Columns where data goes to no terminal."""
_LEAST_BAR, _LEAST_TEXT = 16, 40
_LONGEST_NAME = 26
_FILLS = {"success": "█", "kept": "█", "running": "▶", "warned": "▒", "cancelled": "-"}
_FAILED, _WAIT = "x", "·"
_PLAIN = str.maketrans({"█": "#", "▶": ">", "▒": "!", "·": ".", "…": "~"})
"""For an output whose encoding has no blocks."""


def to_json(timeline: Timeline | None) -> dict[str, Any] | None:
    """Return a timeline as data, None for a run without steps."""
    if timeline is None:
        return None
    return {"start": timeline.start, "end": timeline.end, "steps": [_row_json(row) for row in timeline.rows]}


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "step": row.step,
        "status": row.status,
        "reason": row.reason,
        "busy_s": row.busy_s,
        "attempts": list(row.bars),
        "contracts": list(row.contracts),
        "promoted_to": row.promoted_to,
        "digest": row.digest,
        "pointers": list(row.pointers),
    }


def text(timeline: Timeline, settings: Settings, *, data_root: str, now: datetime) -> None:
    """Print a timeline: bars that fill the terminal's width, why a step is not a success, contracts, promotions."""
    columns = render.width()
    axis = core.axis(timeline, now=now)
    rows = [_cells(row) for row in timeline.rows]
    names = max(len("STEP"), *(len(cells[1]) for cells in rows))
    if columns is not None:
        names = min(names, max(_LONGEST_NAME, columns // 3))
    fixed = [max(len("STATUS"), *(len(cells[0]) for cells in rows)), names]
    fixed += [max(len(heading), *(len(cells[place]) for cells in rows)) for place, heading in ((2, "TOOK"), (3, "TRY"))]
    # Five columns, each with a blank after it; a terminal wraps a line that fills its last column.
    width = max(_LEAST_BAR, (columns or PIPED_WIDTH) - 1 - sum(fixed) - len(fixed) - 1)
    plain = not _has_blocks()
    lines = [_bars(row, axis, width, now) for row in timeline.rows]
    table = [
        (cells[0], _cut(cells[1], names), line.translate(_PLAIN) if plain else line, cells[2], cells[3])
        for cells, line in zip(rows, lines, strict=True)
    ]
    heading = _ends("0s", human(axis.shown_s), width)
    render.table(("STATUS", "STEP", heading, "TOOK", "TRY"), table, settings, right=("TOOK", "TRY"))
    for begin, end in axis.cuts:
        render.line(
            f"idle for {human((end - begin).total_seconds())} after {begin:%Y-%m-%d %H:%M:%S}Z: cut short above"
        )
    for line in (*_why(timeline), *_contracts(timeline), *_published(timeline, data_root)):
        _said(line, columns)


def _said(line: str, columns: int | None) -> None:
    """Print a line; on a terminal what does not fit goes on below, further in."""
    lead = " " * (len(line) - len(line.lstrip()))
    room = max(_LEAST_TEXT, (columns or 10_000) - 1)
    wrapped = textwrap.wrap(
        line.lstrip(), room, initial_indent=lead, subsequent_indent=f"{lead}    ", break_on_hyphens=False
    )
    for part in wrapped:
        render.line(part)


def _cells(row: Row) -> tuple[str, str, str, str]:
    tries = str(len(row.bars)) if row.bars else "-"
    return row.status or "waiting", row.step, human(row.busy_s), tries


def _bars(row: Row, axis: Axis, width: int, now: datetime) -> str:
    """Return the line of a step: its attempts on the line of time, or why there is none."""
    if not row.bars:
        return _cut(row.reason or "", width)
    cells = [" "] * width
    free = 0
    for number, bar in enumerate(row.bars):
        first = min(max(int(axis.place(bar.started_at) * width), free), width - 1)
        last = max(first + 1, min(width, round(axis.place(bar.until(now)) * width)))
        if number:
            cells[free:first] = _WAIT * (first - free)
        cells[first:last] = _FILLS.get(bar.status, _FAILED) * (last - first)
        free = min(last, width - 1)
    return "".join(cells[:width])


def _why(timeline: Timeline) -> Iterator[str]:
    """Say why a step is not what one wants, and why it was tried again."""
    for row in timeline.rows:
        for bar in row.bars[:-1]:
            if bar.status != "success" and bar.reason:
                wait = f"; tried again after {human(bar.delay_s)}" if bar.delay_s is not None else ""
                kind = f" ({bar.error_class})" if bar.error_class else ""
                yield f"{row.step}: try {bar.attempt}: {bar.reason}{kind}{wait}"
        if row.status not in {"success", "kept", None} and row.bars and row.reason:
            yield f"{row.step}: {row.status}: {row.reason}"


def _contracts(timeline: Timeline) -> Iterator[str]:
    every = [(row, one) for row in timeline.rows for one in row.contracts]
    if not every:
        return
    broken = [(row, one) for row, one in every if not one.holds]
    held = len(every) - len(broken)
    yield f"contracts: {held} held" + (f", {len(broken)} broken" if broken else "")
    for row, one in broken:
        yield f"  {row.step}: {one.contract} on {one.file}:"
        for finding in one.findings or (f"{one.count} findings; see the step's manifest",):
            yield f"    {finding}"


def _published(timeline: Timeline, data_root: str) -> Iterator[str]:
    rows = [row for row in timeline.rows if row.promoted_to is not None]
    if rows:
        yield "published"
    for row in rows:
        moved = " and ".join(one.pointer.removesuffix("_run.json") for one in row.pointers if one.moved)
        yield f"  {row.step}: {(row.promoted_to or '').removeprefix(data_root + '/')}" + (
            f" ({moved})" if moved else ""
        )
        for one in row.pointers:
            if not one.moved:
                stays = f"at {one.was}" if one.was else "as it was"
                yield f"    {one.pointer} stays {stays}: {one.reason or 'nobody said why'}"


def _ends(left: str, right: str, width: int) -> str:
    return left + right.rjust(width - len(left))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _has_blocks() -> bool:
    try:
        "█▶▒·".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
