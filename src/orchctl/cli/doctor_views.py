"""What `doctor` shows: the findings by group, then how many there are and what to do first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.doctor import CHECKS, GROUPS, LEVELS
from orchctl.core.words import counted

if TYPE_CHECKING:
    from orchctl.core.doctor import Check, Finding, Report
    from orchctl.wiring import Settings

_NARROWEST = 24
"""Columns that a text has at least, however narrow the terminal is."""
_FIX = "-> "


def report(found: Report, settings: Settings, *, strict: bool) -> None:
    """Show what was found."""
    render.emit("doctor", _data(found, strict=strict), lambda: _text(found, settings), settings)


def listed(checks: Sequence[Check], settings: Settings) -> None:
    """Show what each check asks."""
    data = {"checks": [{"check": each.name, "group": each.group, "asks": each.asks} for each in checks]}
    rows = [(each.name, each.group, each.asks) for each in checks]
    headings = ("CHECK", "GROUP", "ASKS")
    render.emit("doctor", data, lambda: render.table(headings, rows, settings, flexible="ASKS"), settings)


def _data(found: Report, *, strict: bool) -> dict[str, Any]:
    first = found.first
    return {
        "at": found.at,
        "ok": not found.wrong(strict=strict),
        "strict": strict,
        "checks": found.checks,
        "counts": {level: found.count(level) for level in LEVELS},
        "first": _finding(first) if first is not None else None,
        "findings": [_finding(each) for each in found.findings],
    }


def _finding(each: Finding) -> dict[str, Any]:
    return {"check": each.check, "group": each.group, "level": each.level, "seen": each.seen, "fix": each.fix}


def _text(found: Report, settings: Settings) -> None:
    columns = render.width()
    taken = max(map(len, LEVELS)) + max(len(check.name) for check in CHECKS) + 2
    room = None if columns is None else max(_NARROWEST, columns - taken - 1)
    rows: list[tuple[str, str, str]] = []
    for group in GROUPS:
        of_group = [each for each in found.findings if each.group == group]
        if of_group:
            rows.append(("", group.upper(), ""))
            rows += [row for each in of_group for row in _rows(each, room)]
    render.table(("", "CHECK", "SEEN"), rows, settings)
    render.line()
    for text in _ending(found, columns):
        render.line(text)


def _rows(each: Finding, room: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield the lines of a finding: what was seen, and below it what to do."""
    lines = _wrapped(each.seen, room, "")
    if each.fix is not None:
        lines += _wrapped(f"{_FIX}{each.fix}", room, " " * len(_FIX))
    yield each.level, each.check, lines[0]
    for text in lines[1:]:
        yield "", "", text


def _wrapped(text: str, room: int | None, indent: str) -> list[str]:
    if room is None:
        return [text]
    return textwrap.wrap(text, room, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _ending(found: Report, columns: int | None) -> Iterator[str]:
    counts = [
        f"{found.count('ok')} ok",
        counted(found.count("warning"), "warning"),
        counted(found.count("failure"), "failure"),
        f"{found.count('unknown')} not known",
    ]
    yield from _wrapped(f"{counted(found.checks, 'check')}: {', '.join(counts)}", columns, "")
    first = found.first
    if first is not None:
        todo = first.fix or first.seen
        yield from _wrapped(f"first: {first.check}: {todo}", columns, "       ")
