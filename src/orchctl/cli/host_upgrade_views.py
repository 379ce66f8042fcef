"""What `host upgrade` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchctl.cli import render

if TYPE_CHECKING:
    from orchctl.services.upgrade import Plan
    from orchctl.services.upgrade_switch import Done
    from orchctl.wiring import Settings


def planned(found: Plan, settings: Settings) -> None:
    """Show what an upgrade would change."""

    def text() -> None:
        for line in _lines(found):
            render.line(line)

    render.emit("host upgrade", {"empty": found.is_empty, "plan": found}, text, settings)


def before(found: Plan) -> None:
    """Show what is about to change, before the question."""
    for line in _lines(found):
        render.note(line)


def came_of_it(found: Done | Plan, settings: Settings) -> None:
    """Show what was done, or that there was nothing to do."""
    from orchctl.services.upgrade import Plan

    planned(found, settings) if isinstance(found, Plan) else _upgraded(found, settings)


def _upgraded(done: Done, settings: Settings) -> None:
    data = {
        "empty": False,
        "before": done.before,
        "after": done.after,
        "status": done.status,
        "backup": done.archive,
        "environment_before": done.aside,
        "removed": list(done.removed),
    }

    def text() -> None:
        render.line(f"upgraded Prefect {done.before} to {done.after}")
        for part in done.status.parts:
            render.line(f"{'ok' if part.ok else 'DOWN':<5}{part.name}: {part.detail}")
        render.line(f"the environment as it was: {done.aside}")
        if done.archive is not None:
            render.line(f"the database as it was: {done.archive}")
        for path in done.removed:
            render.line(f"removed {path}")

    render.emit("host upgrade", data, text, settings)


def _lines(found: Plan) -> Iterator[str]:
    if found.is_empty:
        yield f"nothing to do: Prefect {found.before} is what is wanted"
        return
    yield f"in {found.environment}:"
    for change in found.changes:
        yield f"  {change.name} {change.before or '(new)'} -> {change.after}"
    if found.migrations is None:
        yield "whether the database's tables change is seen when it is installed beside"
    elif found.migrations:
        steps = "one step" if found.migrations == 1 else f"{found.migrations} steps"
        yield f"the database's tables change, in {steps}; there is no way back but the backup"
    else:
        yield "the database's tables do not change"
    if found.at_work:
        yield f"at work now: {', '.join(found.at_work)}"
