"""`orchctl status`: where every job stands."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import render, status_views
from orchctl.errors import ExitCode, UsageError
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.services.status import Status, World

EVERY_S = 3.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    ctx: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All about this job.", show_default=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit code 3 where anything is wrong.")] = False,
) -> None:
    """Show who owns each job, what starts it, what ran last, what is next, and what is wrong. Changes nothing."""
    from orchctl.services import status as service
    from orchctl.services import trigger

    app: App = ctx.obj
    if job is not None:
        trigger.job_of(app.catalog, job)
    if watch and (check or app.settings.as_json or not sys.stdout.isatty()):
        raise UsageError("--watch is for a terminal, and goes with neither --check nor --json")
    world = service.World(
        catalog=app.catalog,
        systemd=app.systemd,
        crontabs=app.crontabs,
        prefect=app.connect(app.api_url, attempts=2),
        owners=app.owners,
        handovers=app.handovers,
        applied=app.applied,
        tree=app.tree,
        host_zone=app.host_zone,
        state_dir=str(app.settings.state_dir),
    )
    if watch:
        _watch(app, world, job)
        return
    found = service.status(world, now=app.now(), only=job)
    status_views.status(found, app.catalog.timezone, app.settings, one=job is not None)
    if check and found.wrong:
        raise typer.Exit(ExitCode.CHANGES)


def _watch(app: App, world: World, job: str | None) -> None:
    """Show it again and again. Ctrl-C is how one leaves it, and so no interruption."""
    from orchctl.services import status as service

    found: Status | None = None
    try:
        with render.screen() as paint:
            while True:
                found = service.status(world, now=app.now(), only=job)
                paint(status_views.screen(found, app.catalog.timezone, app.settings, one=job is not None))
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        pass
    if found is not None:
        status_views.status(found, app.catalog.timezone, app.settings, one=job is not None)
