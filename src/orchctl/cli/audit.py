"""`orchctl runs audit`: whether every slot ran, and ran once."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import audit_views
from orchctl.errors import ExitCode
from orchctl.wiring import App


def register(group: typer.Typer) -> None:
    """Add the command to the group `runs`."""
    group.command()(audit)


def audit(
    ctx: typer.Context,
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYY-MM-DD", help="Slots of this day in the catalog's zone; default: today."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Slots since 2h, 2025-12-19 or an instant, instead of one day."),
    ] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only of this job.")] = None,
) -> None:
    """Hold the slots that were due against what ran, in systemd and in Prefect.

    A slot is ok, late, failed, skipped (by the job's own policy), missed, double or unknown. What is not known is
    never called ok. Before, the history of the legacy triggers is brought in. Exit code 3 where a slot was missed or
    ran twice.
    """
    from orchctl.services import audit as service
    from orchctl.services import runs as runs_service
    from orchctl.services import trigger

    app: App = ctx.obj
    if job is not None:
        trigger.job_of(app.catalog, job)
    timezone = app.catalog.timezone
    window = runs_service.window_of(date, since, timezone=timezone, now=app.now())
    world = service.World(app.catalog, app.systemd, app.eyes, app.owners, app.applied, app.prefect_rule, app.tree)
    audited = service.audit(world, window, only=job)
    audit_views.audited(audited, timezone, app.settings, one_day=since is None)
    if audited.wrong:
        raise typer.Exit(ExitCode.CHANGES)
