"""`orchctl runs`: what ran."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from orchctl.cli import render, run_views
from orchctl.wiring import App

group = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List what ran; show one run, or its log.",
    no_args_is_help=False,
)
BEGIN_PATIENCE_S = 300.0
RunRef = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, or a part that is unique today.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    app.add_typer(group, name="runs")


@group.callback()
def runs(
    ctx: typer.Context,
    date: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="YYYY-MM-DD",
            help="Runs that started on this day in the catalog's zone; default: today.",
        ),
    ] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only of this job.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only running, success, failed, skipped, crashed, cancelled or observed.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Runs since 2h, 2025-12-19 or an instant, instead of one day."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="Only the newest N.")] = None,
) -> None:
    """List what ran, newest last."""
    if ctx.invoked_subcommand is not None:
        return
    from orchctl.core.manifest import STATUSES
    from orchctl.services import runs as service
    from orchctl.services import trigger

    app: App = ctx.obj
    render.check_choice("--status", status, STATUSES)
    if job is not None:
        trigger.job_of(app.catalog, job)
    timezone = app.catalog.timezone
    window = service.window_of(date, since, timezone=timezone, now=app.now())
    listing = service.listing(app.trees, window, job=job, status=status, limit=limit)
    run_views.runs(listing, timezone, app.settings, one_day=since is None)


@group.command()
def show(
    ctx: typer.Context,
    run: RunRef,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Also draw the steps of the run, as SVG, to a file.")
    ] = None,
) -> None:
    """Show everything about a run, its steps in time, and where its log, manifest and page in Prefect's UI are."""
    from orchctl.services import runs as service

    app: App = ctx.obj
    now = app.now()
    tree, found = service.find(app.trees, run, timezone=app.catalog.timezone, now=now)
    shown = service.show(tree, found, app.prefect.run_url, now=now)
    if svg is not None:
        run_views.run_picture(shown, svg)
    run_views.run(shown, app.catalog.timezone, app.settings)


@group.command()
def logs(
    ctx: typer.Context,
    run: RunRef,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    step: Annotated[
        str | None, typer.Option("--step", metavar="STEP", help="Only of this step; default: all, each named.")
    ] = None,
) -> None:
    """Print the log of a run: all it wrote, every attempt, secrets masked; that of a legacy run is in the journal."""
    from orchctl.services import observe, run_logs
    from orchctl.services import runs as service

    app: App = ctx.obj
    tree, found = service.wait_for(
        lambda: service.find(app.trees, run, timezone=app.catalog.timezone, now=app.now()),
        run,
        sleep=time.sleep,
        say=render.note,
        patience_s=BEGIN_PATIENCE_S if follow else 0.0,
    )
    if found.origin == "systemd":
        # It has ended: there is nothing to follow.
        render.raw(observe.log_of(tree, found, app.catalog.jobs.get(found.job), app.eyes))
        return
    render.raw(run_logs.chunks(tree, found, step=step, follow=follow, sleep=time.sleep))
    if (said := run_logs.note(tree, found)) is not None:
        render.note(said)


@group.command()
def retry(
    ctx: typer.Context,
    run: RunRef,
    from_step: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Run this step again, and all that need it, whatever they did."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also a run that has succeeded.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the log as it comes and exit with the run's own exit code.")
    ] = False,
) -> None:
    """Run a run again that has ended, as the same run: steps that succeeded, and whose files are there, are kept."""
    from orchctl.cli.run import follow
    from orchctl.services import retry as service
    from orchctl.services import runs as of_runs
    from orchctl.services.run_logs import Logs
    from orchctl.wiring import retry as wiring

    app: App = ctx.obj
    tree, found = of_runs.find(app.trees, run, timezone=app.catalog.timezone, now=app.now())
    logs = Logs(tree, tree.directory_of(found))
    if wait:
        logs.pass_over()  # before anything new can come
    done = service.retry(wiring.world(app), tree, found, from_step=from_step, force=force)
    if not wait:
        run_views.retried(done, app.settings)
        return
    run_views.retried_waiting(done, app.settings)
    follow(app, done.started, command="runs retry", logs=logs)


@group.command()
def reindex(ctx: typer.Context) -> None:
    """Add to the events what the manifests know and the events do not. Reads the whole tree."""
    from orchctl.services import runs as service

    app: App = ctx.obj
    run_views.reindexed(service.reindex(app.trees), app.settings)
