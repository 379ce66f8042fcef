"""`orchctl run`: one run by hand."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchctl.cli import params, run_views
from orchctl.errors import Interrupted
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.services.run_logs import Logs
    from orchctl.services.trigger import Started


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
    as_of_mode: Annotated[
        str | None,
        typer.Option("--as-of-mode", metavar="MODE", help="Take the run_as_of_ts from this mode of the job."),
    ] = None,
    execution: Annotated[
        str | None,
        typer.Option("--execution", metavar="command|steps", help="For once, run it so; default: as synced."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="KEY=VALUE", help="A key of the partition; repeatable.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the log as it comes and exit with the run's own exit code.")
    ] = False,
) -> None:
    """Run a job now, by hand, through Prefect. It runs for real, whoever owns the job's slots."""
    from orchctl.services import trigger

    app: App = ctx.obj
    world = trigger.World(app.catalog, app.prefect, app.applied, app.tree, app.instant_of, app.now)
    wish = trigger.Wish(date, as_of, as_of_mode, execution, params.read(param or []))
    started = trigger.start(world, job, wish, key=f"orchctl run {uuid.uuid4()}")
    if not wait:
        run_views.run_started(started, app.settings)
        return
    run_views.run_waiting(started, app.settings)
    follow(app, started, command="run")


def follow(app: App, started: Started, *, command: str, logs: Logs | None = None) -> NoReturn:
    """Show the log of a run as it comes, and exit with the run's own exit code. `logs` None: from the beginning."""
    from orchctl.services import trigger

    tree = app.tree(started.job.data_root)
    try:
        with run_views.follower(started, app.settings) as show:
            for item in trigger.follow(app.prefect, tree, started, sleep=time.sleep, logs=logs):
                if isinstance(item, trigger.Ended):
                    ended = item
                else:
                    show(item)
    except KeyboardInterrupt as interruption:
        raise Interrupted(
            f"stopped waiting; run {started.run_id} goes on",
            hint=f"see `orchctl runs show {started.run_id}`, or cancel it in {started.ui_url}",
        ) from interruption
    run_views.run_ended(started, ended, app.settings, command=command)
    raise typer.Exit(ended.exit_code)
