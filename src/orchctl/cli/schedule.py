"""`orchctl schedule`: when a job is due, and how that differs from what starts it today."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import render, schedule_views
from orchctl.errors import ExitCode
from orchctl.wiring import App

group = typer.Typer(
    rich_markup_mode=None,
    help="When a job is due, and how that differs from what starts it today.",
    no_args_is_help=True,
)
Job = Annotated[str, typer.Argument(metavar="JOB", help="The job.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="schedule")


@group.command("next")
def upcoming(
    ctx: typer.Context,
    job: Job,
    count: Annotated[
        int, typer.Option("--count", min=1, max=1000, metavar="N", help="How many of each schedule.")
    ] = 10,
) -> None:
    """Show when a job is next due: local time, UTC, changes of clocks, and what starts it today."""
    from orchctl.services import upcoming as service

    app: App = ctx.obj
    found = service.run(
        app.catalog, app.systemd, app.prefect_rule, job, count=count, now=app.now(), host_zone=app.host_zone
    )
    schedule_views.upcoming(found, app.settings)


@group.command()
def compare(
    ctx: typer.Context,
    job: Job,
    days: Annotated[int, typer.Option("--days", min=1, max=1100, metavar="N", help="How far ahead, from now.")] = 400,
) -> None:
    """Compare what starts a job today with its schedules, instant by instant.

    Exit code 3 where they differ and the catalog does not accept it (`accept_cadence`), 4 where a trigger cannot be
    read and the others do not differ.
    """
    from orchctl.services import compare as service

    app: App = ctx.obj
    catalog = app.catalog
    with render.status_line(app.settings) as show:
        show(f"comparing {days} days, instant by instant …", b"")
        found = service.run(
            catalog, app.systemd, app.prefect_rule, job, days=days, now=app.now(), host_zone=app.host_zone
        )
    schedule_views.compared(found, app.settings)
    if found.differs and found.accepted is None:
        raise typer.Exit(ExitCode.CHANGES)
    if found.unknown:
        raise typer.Exit(ExitCode.PARTIAL)
