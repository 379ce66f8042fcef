"""`orchctl check` and `orchctl jobs`: what the catalog says. Offline."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import catalog_views
from orchctl.wiring import App


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command()(jobs)


def check(ctx: typer.Context) -> None:
    """Validate the catalog, offline: every problem at once, with file, line, table and key."""
    from orchctl.wiring import alerts as wired

    app: App = ctx.obj
    catalog, alerts = wired.checked(app)
    catalog_views.checked(catalog, app.settings, alerts)


def jobs(
    ctx: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job, whole.", show_default=False)] = None,
) -> None:
    """Show what the catalog says: all jobs, or one whole, its steps drawn in the order in which they run."""
    from orchctl.services import trigger

    app: App = ctx.obj
    if job is None:
        catalog_views.jobs(app.catalog, app.settings)
    else:
        catalog_views.job(app.catalog, trigger.job_of(app.catalog, job), app.settings)
