"""`orchctl watchdog`: one look from outside Prefect, and the timer that takes it every minute."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from orchctl.cli import watchdog_views as views
from orchctl.errors import ExitCode
from orchctl.wiring import App

group = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Look at server, workers, slots and disks from outside Prefect, and tell what is wrong.",
    no_args_is_help=False,
)
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option("--env-file", metavar="FILE", help="A file of KEY=value lines with secrets of channels, mode 0600."),
]


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    app.add_typer(group, name="watchdog")


@group.callback()
def watchdog(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is wrong and what would be told; send and remember nothing.")
    ] = False,
) -> None:
    """Look once at all that a Prefect server which is gone cannot tell of, and tell it as config/alerts.toml says.

    Each trouble is told once, again after `repeat_after`, and once when it is over. What cannot be delivered is tried
    again with the next looks. Exit code 3 where something is wrong or could not be looked at, 4 where something was
    not delivered now, 11 where another watchdog looks just now.
    """
    if ctx.invoked_subcommand is not None:
        return
    from orchctl import wiring
    from orchctl.services import watchdog as service
    from orchctl.wiring import watchdog as wired

    app: App = ctx.obj
    world = wired.world(app, wiring.environment(), dry=dry_run)
    with contextlib.nullcontext() if dry_run else wired.alone(app):
        look = service.watchdog(world, dry=dry_run)
    views.look(look, world.alerts, app.settings)
    if look.undelivered:
        raise typer.Exit(ExitCode.PARTIAL)
    if look.problems:
        raise typer.Exit(ExitCode.CHANGES)


@group.command()
def install(
    ctx: typer.Context,
    env_file: EnvFiles = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the units; change nothing.")] = False,
) -> None:
    """Write and start a timer that looks every minute: root's in the system's systemd, else in the user's own.

    Repeatable: what is there is replaced.
    """
    from orchctl.wiring import watchdog as wired

    app: App = ctx.obj
    files = [str(path.absolute()) for path in env_file or ()]
    timer = wired.timer(app)
    watch = wired.watch(app, timer, files)
    if dry_run:
        views.units(timer.contents(watch), app.settings)
        return
    with app.exclusive("watchdog install"):
        paths = timer.install(watch)
    views.installed(paths, (*timer.obstacles(), *wired.unset_secrets(app, files)), app.settings)


@group.command()
def uninstall(ctx: typer.Context) -> None:
    """Stop the timer and remove what `watchdog install` wrote. Repeatable."""
    from orchctl.wiring import watchdog as wired

    app: App = ctx.obj
    with app.exclusive("watchdog uninstall"):
        paths = wired.timer(app).uninstall()
    views.uninstalled(paths, app.settings)


@group.command()
def status(ctx: typer.Context) -> None:
    """Show whether the timer looks, what is open, and how each channel answered last. Exit code 1 where none looks."""
    from orchctl.wiring import watchdog as wired

    app: App = ctx.obj
    found = wired.status(app)
    views.status(found, app.settings)
    if not found.timer.active:
        raise typer.Exit(ExitCode.FAILED)
