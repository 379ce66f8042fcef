"""`orchctl run`: one run by hand."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

import typer

from orchctl.cli import run_views
from orchctl.errors import Interrupted
from orchctl.wiring import App


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job.", show_default=False)],
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYY-MM-DD", help="The game_date; default: by the job's rule from now."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="INSTANT", help="The run_as_of_ts, like 2025-12-19T05:00:00Z; default: now."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the log as it comes and exit with the run's own exit code.")
    ] = False,
) -> None:
    """Run a job now, by hand, through Prefect. It runs for real, whoever owns the job's slots."""
    from orchctl.services import trigger

    app: App = ctx.obj
    started = trigger.start(
        app.catalog,
        app.prefect,
        app.applied,
        app.tree,
        job,
        game_date=date,
        as_of=as_of,
        key=f"orchctl run {uuid.uuid4()}",
    )
    if not wait:
        run_views.run_started(started, app.settings)
        return
    run_views.run_waiting(started, app.settings)
    tree = app.tree(started.job.data_root)
    try:
        with run_views.follower(started, app.settings) as show:
            for item in trigger.follow(app.prefect, tree, started, sleep=time.sleep):
                if isinstance(item, trigger.Ended):
                    ended = item
                else:
                    show(item)
    except KeyboardInterrupt as interruption:
        raise Interrupted(
            f"stopped waiting; run {started.run_id} goes on",
            hint=f"see `orchctl runs show {started.run_id}`, or cancel it in {started.ui_url}",
        ) from interruption
    run_views.run_ended(started, ended, app.settings)
    raise typer.Exit(ended.exit_code)
