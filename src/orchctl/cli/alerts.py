"""`orchctl alerts`: who is told what, and how."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import alerts_views, render
from orchctl.wiring import App

group = typer.Typer(
    rich_markup_mode=None, help="Tell people what goes wrong: channels and routes.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="alerts")


@group.command("list")
def list_(ctx: typer.Context) -> None:
    """List channels and routes of alerts.toml: how each channel answered last, and whether Prefect has the routes."""
    from orchctl.errors import NotAllowed, PrefectApiError
    from orchctl.services import alerts as service
    from orchctl.wiring import alerts as wired

    app: App = ctx.obj
    found, host = wired.alerts(app), wired.boxes(app)
    problem = None
    try:
        proposed = service.propose(found, app.catalog.name, app.pools, app.prefect, host)
    except (PrefectApiError, NotAllowed) as error:
        proposed, problem = None, error
    channels = service.channels(found, app.catalog.name, wired.last(app), host)
    routes = service.routes(found, app.catalog.name, proposed)
    alerts_views.listed(channels, routes, problem, app.zone, app.settings)


@group.command()
def apply(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; exit code 3 if anything.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
) -> None:
    """Make Prefect's blocks and automations what alerts.toml says. A second one changes nothing."""
    app: App = ctx.obj
    if dry_run:
        _dry_run(app)
        return
    with app.exclusive("alerts apply"):
        _apply(app, yes=yes)


def _dry_run(app: App) -> None:
    from orchctl.errors import ExitCode
    from orchctl.services import alerts as service
    from orchctl.wiring import alerts as wired

    proposed = service.propose(wired.alerts(app), app.catalog.name, app.pools, app.prefect, wired.boxes(app))
    alerts_views.planned(proposed, app.settings)
    if not proposed.empty:
        raise typer.Exit(ExitCode.CHANGES)


def _apply(app: App, *, yes: bool) -> None:
    from orchctl.services import alerts as service
    from orchctl.wiring import alerts as wired

    host = wired.boxes(app)
    proposed = service.propose(wired.alerts(app), app.catalog.name, app.pools, app.prefect, host)
    doomed = [change.name for change in proposed.plan.changes if change.action == "delete"]
    if doomed:
        render.confirm(f"delete {', '.join(doomed)} in Prefect?", yes=yes)
    with render.counter(len(proposed.plan.changes), "applied", app.settings) as advance:
        done = service.apply(proposed, app.pools, app.prefect, host, progress=lambda _: advance())
    alerts_views.applied(proposed, done, app.settings)
