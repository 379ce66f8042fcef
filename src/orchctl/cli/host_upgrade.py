"""`orchctl host upgrade`: another Prefect under the installed server and workers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import host_upgrade_views as views
from orchctl.cli import render
from orchctl.core import durations
from orchctl.errors import ExitCode, Interrupted, UsageError
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.services.upgrade import Plan


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(upgrade)


def upgrade(  # noqa: PLR0917 (options, by name)
    ctx: typer.Context,
    prefect: Annotated[
        str | None,
        typer.Option("--prefect", metavar="VERSION", help="Default: the newest that this orchctl works with."),
    ] = None,
    requirement: Annotated[
        list[str] | None,
        typer.Option("--requirement", metavar="REQ", help="More to install, as pip has it; may be repeated."),
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option("--constraints", metavar="FILE", help="A file of pip's constraints.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where backups go; default: backups in the state directory."),
    ] = None,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="How long runs that are at work are waited for.")
    ] = "15m",
    now: Annotated[bool, typer.Option("--now", help="End the runs that are at work, do not wait.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show; exit 3 if something would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Upgrade Prefect under the installed server and workers, and put all back where that does not work.

    Installs into a copy of the environment and tries it on a copy of the database while all runs; then stops, backs up,
    exchanges the environments, migrates, starts, and waits until runs are really scheduled. Killed halfway, run it
    again: it finishes that upgrade, or puts it back.
    """
    from orchctl.services import upgrade as service
    from orchctl.services.upgrade_ports import Asked
    from orchctl.wiring import upgrade as wiring

    app: App = ctx.obj
    try:
        wait = None if now else float(durations.parse(patience))
    except ValueError as error:
        raise UsageError(f"--patience: {error}") from error
    world = wiring.world(app, _say)
    where = str(constraints.resolve()) if constraints is not None else None
    more = tuple(map(placed, requirement or ()))
    asked = Asked(prefect, more, where, to.absolute() if to is not None else None, wait)
    if dry_run:
        wiring.none_unfinished(app)
        planned = service.propose(world, asked)
        views.planned(planned, app.settings)
        raise typer.Exit(ExitCode.DONE if planned.is_empty else ExitCode.CHANGES)
    with wiring.ended_as_by_ctrl_c():
        try:
            found = service.upgrade(world, asked, lambda planned: _ask(planned, yes=yes))
        except KeyboardInterrupt as interruption:
            hint = "`orchctl host upgrade` says whether anything is unfinished, and goes on with it"
            raise Interrupted("interrupted", hint=hint) from interruption
    views.came_of_it(found, app.settings)


def placed(word: str) -> str:
    """Return a requirement that is a file or a folder with its whole path: pip is run elsewhere."""
    path, bracket, extras = word.partition("[")
    # As pip has it: a word without a slash is the name of a package, also where a folder is called so.
    there = Path(path).is_file() or ("/" in path and Path(path).exists())
    return f"{Path(path).absolute()}{bracket}{extras}" if there else word


def _ask(planned: Plan, *, yes: bool) -> None:
    views.before(planned)
    render.confirm("Do this?", yes=yes)


def _say(text: str) -> None:
    # A terminal that is lost must not keep us from starting again what was stopped.
    with contextlib.suppress(OSError):
        for line in text.splitlines():
            render.note(line)
