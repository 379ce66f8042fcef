"""`orchctl host prune`: what runs left goes when it is old enough."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import prune_views as views
from orchctl.cli import render
from orchctl.errors import ExitCode, UsageError
from orchctl.wiring import App


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(prune)


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Such as 90d, instead of the policy's: of Prefect's history, or of --only.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="KINDS", help="Some of history,compress_logs,logs,manifests,state."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go; exit code 3 where something would.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove, or compress, what runs left and is older than `[retention]` of jobs.toml says.

    Flow runs of this catalog in Prefect, logs, manifests, claims: never what goes on, nor the newest of a job. Without
    a policy and without --older-than nothing is removed. Stopped at any time, the next one goes on.
    """
    from orchctl.core import retention
    from orchctl.services import prune as service
    from orchctl.wiring import prune as parts

    app: App = ctx.obj
    try:
        ages = retention.ages(app.catalog.retention, only, older_than)
    except ValueError as error:
        raise UsageError(f"--only or --older-than: {error}") from error
    if not ages:
        views.nothing_named(app.settings)
        return
    world = parts.world(app, (lambda _text: None) if app.settings.as_json else render.note)
    if dry_run:
        found = service.look(world, ages)
        views.would(found, app.settings)
        code = ExitCode.PARTIAL if found.problems else ExitCode.DONE if found.is_empty else ExitCode.CHANGES
        raise typer.Exit(code)
    if yes:
        done = service.prune(world, ages)
    else:
        done = service.propose(world, ages)
        views.before(done)
        if not done.is_empty:
            render.confirm("Do this?", yes=False)
            done = service.prune(world, ages, done)
    views.pruned(done, app.settings)
    if done.problems:
        raise typer.Exit(ExitCode.PARTIAL)
