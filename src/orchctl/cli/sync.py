"""`orchctl plan` and `orchctl sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import render, views
from orchctl.errors import ExitCode
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.core.plan import Plan

Jobs = Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Only these jobs.", show_default=False)]
Prune = Annotated[bool, typer.Option("--prune", help="Delete deployments of this catalog whose job is gone from it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plan)
    app.command()(sync)


def plan(ctx: typer.Context, jobs: Jobs = None, prune: Prune = False) -> None:
    """Show what `sync` would change, field by field. Writes nothing; exit code 3 where something would change."""
    app: App = ctx.obj
    proposed = _propose(app, jobs, prune)
    views.plan(proposed, app.settings, command="plan")
    if not proposed.empty:
        raise typer.Exit(ExitCode.CHANGES)


def sync(
    ctx: typer.Context,
    jobs: Jobs = None,
    prune: Prune = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as `plan`.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
) -> None:
    """Make Prefect's deployments what the catalog says. A second sync changes nothing."""
    app: App = ctx.obj
    if dry_run:
        plan(ctx, jobs, prune)
        return
    with app.exclusive("sync"):
        _sync(app, jobs, prune, yes=yes)


def _sync(app: App, jobs: list[str] | None, prune: bool, *, yes: bool) -> None:
    from orchctl.services import sync as service

    if app.catalog.jobs:
        # Before the plan, which tells Prefect; after the catalog was read, which may be invalid.
        app.applied.make_state_id()
    proposed = _propose(app, jobs, prune)
    doomed = [change.job for change in proposed.changes if change.action == "delete"]
    if doomed and not proposed.conflicts:
        render.confirm(f"delete the deployments of {', '.join(doomed)} and their scheduled runs?", yes=yes)
    with render.counter(len(proposed.changes), "synced", app.settings) as advance:
        done = service.apply(proposed, app.catalog, app.prefect, app.applied, now=app.now, progress=lambda _: advance())
    _pay(app)
    views.synced(done, app.settings)


def _pay(app: App) -> None:
    """Do what handovers owe to Prefect: it was not reached when they ended. What fails is still owed, and said."""
    from orchctl.services import recovery

    if not app.unfinished:
        return
    for paid in recovery.pay(app.hands(), say=lambda text: render.note(f"  {text}")):
        if not paid.is_in_order:
            render.note(f"{paid.job}: still owed: {paid.why_not}")
        if paid.error is not None and paid.error.exit_code == ExitCode.INTERRUPTED:
            raise paid.error


def _propose(app: App, jobs: list[str] | None, prune: bool) -> Plan:
    from orchctl.services import sync as service

    return service.propose(
        app.catalog,
        app.prefect,
        app.applied,
        state_dir=str(app.settings.state_dir),
        now=app.now(),
        only=tuple(jobs or ()),
        prune=prune,
        owns=app.owns,
    )
