"""`orchctl legacy`: what starts jobs on this host now."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import legacy_views
from orchctl.wiring import App


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(legacy)


def legacy(
    ctx: typer.Context,
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="One job: everything about its triggers.", show_default=False),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also list each timer that is off or came with the distribution.")
    ] = False,
) -> None:
    """Show what starts each job on this host now: timers of both scopes, cron lines, and what is odd about them.

    Works without a catalog too: then no job names any of it.
    """
    from orchctl.services import legacy as service
    from orchctl.services import trigger

    app: App = ctx.obj
    catalog = app.catalog_or_none if job is None else app.catalog
    jobs = catalog.jobs if catalog else {}
    chosen = jobs if job is None or catalog is None else {job: trigger.job_of(catalog, job)}
    report = service.survey(
        app.systemd, app.crontabs, chosen, whole=job is None, host_zone=app.host_zone, now=app.now()
    )
    legacy_views.shown(report, app.settings, job=job, every=every, no_catalog=catalog is None)
