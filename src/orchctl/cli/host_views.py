"""What `host install` and `host uninstall` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchctl.cli import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchctl.services.host_install_plan import Plan
    from orchctl.services.host_uninstall import Uninstalled
    from orchctl.services.stack import Status
    from orchctl.wiring import Settings


def _lines(planned: Plan) -> list[str]:
    lines = [line for change in planned.files for line in change.diff().splitlines()]
    lines += [f"remove {path}" for path in planned.stale]
    lines += [f"let {planned.after.user}'s units run without a login"] if planned.linger else []
    for verb, names in (("enable", planned.enable), ("start", planned.start), ("restart", planned.restart)):
        lines += [f"{verb} {name}" for name in names]
    return lines


def _json(planned: Plan) -> dict[str, Any]:
    its = planned.after
    return {
        "empty": planned.is_empty,
        "scope": its.scope,
        "user": its.user,
        "api_url": its.api_url,
        "state_dir": its.state_dir,
        "settings": its.settings,
        "pools": dict(its.pools),
        "files": [
            {
                "path": change.path,
                "change": "none" if change.is_empty else "create" if change.before is None else "edit",
                "diff": change.diff(),
            }
            for change in planned.files
        ],
        "remove": list(planned.stale),
        "enable": list(planned.enable),
        "start": list(planned.start),
        "restart": list(planned.restart),
        "linger": planned.linger,
        "notes": list(planned.notes),
    }


def planned(found: Plan, settings: Settings) -> None:
    """Show what an install would change."""

    def text() -> None:
        _print(found, render.line)
        if found.is_empty:
            render.line("nothing to do: everything is installed and runs")

    render.emit("host install", {**_json(found), "status": None}, text, settings)


def before(found: Plan) -> None:
    """Show what is about to change, before the question."""
    _print(found, render.note)


def _print(found: Plan, say: Callable[[str], None]) -> None:
    for line in _lines(found):
        say(line)
    for note in found.notes:
        say(f"note: {note}")


def installed(found: Plan, status: Status, settings: Settings) -> None:
    """Show what an install made."""

    def text() -> None:
        render.line(f"installed in scope {found.after.scope}, as {found.after.user}")
        for part in status.parts:
            render.line(f"{'ok' if part.ok else 'DOWN':<5}{part.name}: {part.detail}")
        render.line(f"ui   {status.ui_url}; it asks for what {found.after.settings} says")

    render.emit("host install", {**_json(found), "status": status}, text, settings)


def uninstalled(done: Uninstalled, settings: Settings) -> None:
    """Show what was taken back, and where the history stays."""

    def text() -> None:
        render.line(f"removed {len(done.removed)} files" if done.removed else "nothing was installed")
        if done.database is not None:
            render.line(f"the database stays: {done.database}")
        if done.kept is not None:
            render.line(f"settings that only their file held stay: {done.kept}")

    data = {"removed": list(done.removed), "database": done.database, "kept": done.kept}
    render.emit("host uninstall", data, text, settings)
