"""`orchctl doctor`: every check of this host, and what to do about what it finds."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import doctor_views
from orchctl.errors import ExitCode, UsageError
from orchctl.wiring import App


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    ctx: typer.Context,
    checks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECK]...", help="Only these checks, or groups of checks.", show_default=False),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what each check asks, and check nothing.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 for warnings, and for what is not known, too.")
    ] = False,
) -> None:
    """Check this host: catalog, packages, server, worker, schedules, triggers, files, clock, backups, alerts.

    Says of each check what was seen, and where it is not ok what to do. Changes nothing. Exit code 3 where a check
    fails.
    """
    from orchctl.core import doctor as core

    app: App = ctx.obj
    chosen = core.chosen(checks or ())
    if listed:
        if strict:
            raise UsageError("--list checks nothing, and --strict has nothing to judge")
        doctor_views.listed(chosen, app.settings)
        return
    from orchctl import wiring
    from orchctl.services import doctor as service
    from orchctl.wiring import doctor as parts

    found = service.examine(parts.world(app, wiring.environment()), chosen)
    doctor_views.report(found, app.settings, strict=strict)
    if found.wrong(strict=strict):
        raise typer.Exit(ExitCode.CHANGES)
