"""What `orchctl host prune` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orchctl.cli import render

if TYPE_CHECKING:
    from orchctl.services.prune import Pruned, Row
    from orchctl.wiring import Settings


def nothing_named(settings: Settings) -> None:
    """Say that nothing says what is too old."""

    def text() -> None:
        render.line("nothing is removed: no policy says when something is too old")
        render.note('hint: [retention] in jobs.toml, such as history = "90d" (docs/retention.md); or --older-than 90d')

    render.emit("host prune", _json(None, dry_run=False), text, settings)


def would(found: Pruned, settings: Settings) -> None:
    """Show what would go."""
    data = _json(found, dry_run=True)
    render.emit("host prune", data, lambda: _text(found, render.line, done=False), settings, errors=_errors(found))


def before(found: Pruned) -> None:
    """Show what is about to go, to who is asked."""
    _text(found, render.note, done=False, problem="left out, since not all of it could be seen")


def pruned(done: Pruned, settings: Settings) -> None:
    """Show what went."""
    data = _json(done, dry_run=False)
    render.emit("host prune", data, lambda: _text(done, render.line, done=True), settings, errors=_errors(done))


def _text(found: Pruned, say: Callable[[str], None], *, done: bool, problem: str = "not done") -> None:
    from orchctl.core.retention import told

    unseen = {one.kind for one in found.problems if one.job is None}
    for kind, cutoff in found.cutoffs.items():
        rows = [row for row in found.rows if row.kind == kind]
        if not rows and kind in unseen:
            continue  # how many there are nobody knows
        total = sum(row.count for row in rows)
        say(f"{told(kind, total, done=done)}{_bytes(rows)}, of before {render.jsonable(cutoff.replace(microsecond=0))}")
        for row in rows:
            say(f"  {row.job}: {row.count}{_bytes([row])}")
        for each in found.kept:
            if each.kind == kind:
                say(f"  {each.job}: {each.count} kept: {each.reason}")
    for one in found.problems:
        all_of_it = told(one.kind, None, done=False)
        where = all_of_it if one.job is None else f"{all_of_it}, {one.job}"
        render.note(f"{problem}: {where}: {one.error.message}{f'; and {one.more} more like it' if one.more else ''}")
        if one.error.hint:
            render.note(f"hint: {one.error.hint}")


def _bytes(rows: Sequence[Row]) -> str:
    sizes = [row.size_bytes for row in rows if row.size_bytes is not None]
    return f" ({render.size(sum(sizes))})" if sizes else ""


def _json(found: Pruned | None, *, dry_run: bool) -> dict[str, Any]:
    """Return it as JSON; None: nothing was named."""
    return {
        "dry_run": dry_run,
        "cutoffs": {} if found is None else dict(found.cutoffs),
        "rows": () if found is None else found.rows,
        "kept": () if found is None else found.kept,
    }


def _errors(found: Pruned) -> list[dict[str, Any]]:
    return [
        {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "kind": each.kind,
            "job": each.job,
            "more": each.more,
        }
        for each in found.problems
        for error in (each.error,)
    ]
