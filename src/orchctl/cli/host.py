"""`orchctl host`: a local Prefect server and worker in the background."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import render, run_views
from orchctl.errors import ExitCode, Interrupted
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.services.stack import Clock

group = typer.Typer(
    rich_markup_mode=None, help="A local Prefect server and worker in the background.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    app.add_typer(group, name="host")


@group.command()
def up(
    ctx: typer.Context,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port of the server on 127.0.0.1; 0 takes a free one."),
    ] = 4200,
) -> None:
    """Start server and worker where they are not running, and wait until runs are really scheduled.

    Where --api-url or PREFECT_API_URL names a server, only the worker is started, for that one.
    """
    from orchctl.services import stack

    app: App = ctx.obj
    named = app.settings.api_url
    external = named if named is not None and named != app.stack.api_url() else None
    clock = _clock(app)
    try:
        with app.exclusive("host up"):
            status = stack.up(
                app.stack,
                app.connect,
                app.worker_places,
                port=port,
                external_url=external,
                clock=clock,
                say=render.note,
            )
    except KeyboardInterrupt as interruption:
        hint = "`orchctl host up` goes on with it, `orchctl host status` shows it, `orchctl host down` stops it"
        raise Interrupted("interrupted; what was started is left running", hint=hint) from interruption
    run_views.stack(status, app.settings, command="host up")


@group.command()
def down(ctx: typer.Context) -> None:
    """Stop worker and server, by pid. What they run is stopped with them."""
    from orchctl.services import stack

    app: App = ctx.obj
    with app.exclusive("host down"):
        stopped = stack.down(app.stack, _clock(app), render.note)
    run_views.stack_down(stopped, app.settings)


@group.command()
def status(ctx: typer.Context) -> None:
    """Show whether server and worker run and answer. Exit code 1 where they do not."""
    from orchctl.services import stack

    app: App = ctx.obj
    found = stack.status(app.stack, lambda url: app.connect(url, attempts=1), app.api_url, app.pools)
    run_views.stack(found, app.settings, command="host status")
    if not found.ok:
        raise typer.Exit(ExitCode.FAILED)


def _clock(app: App) -> Clock:
    from orchctl.services import stack

    return stack.Clock(time.monotonic, time.sleep, app.now)
