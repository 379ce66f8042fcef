"""`orchctl backfill`: one run for each date of a period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import backfill_views, params
from orchctl.errors import Interrupted, UsageError
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.services.backfill import Prepared, World
    from orchctl.services.backfill_run import Ended, Submitted


Job = Annotated[str, typer.Argument(metavar="JOB", help="The job.", show_default=False)]
Start = Annotated[str, typer.Option("--start", metavar="YYYY-MM-DD", help="The first game_date.", show_default=False)]
End = Annotated[
    str, typer.Option("--end", metavar="YYYY-MM-DD", help="The last game_date, included.", show_default=False)
]
Steps = Annotated[str | None, typer.Option("--steps", metavar="STEP,STEP", help="Only these steps of the job.")]
Mode = Annotated[
    str | None,
    typer.Option("--as-of-mode", metavar="MODE", help="Where each date's run_as_of_ts comes from; default: now."),
]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="KEY=VALUE", help="A key of the partition, the same for every date; repeatable."),
]
Parallel = Annotated[
    int | None,
    typer.Option("--max-parallel", metavar="N", min=1, help="With --wait: at most N at a time; default: the job's."),
]
OnlyMissed = Annotated[
    bool, typer.Option("--only-missed", help="Only dates for which no run has succeeded yet, whoever ran it.")
]
Failed = Annotated[bool, typer.Option("--failed", help="Only dates whose newest run failed.")]
Force = Annotated[bool, typer.Option("--force", help="Every date anew, also those that succeeded in this backfill.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the dates and what would be read; change nothing.")]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Give a date that failed a new run, of all its steps.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show how it goes, and sum up at the end.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backfill)


def backfill(
    ctx: typer.Context,
    job: Job,
    *,
    start: Start,
    end: End,
    steps: Steps = None,
    as_of_mode: Mode = None,
    param: Param = None,
    max_parallel: Parallel = None,
    only_missed: OnlyMissed = False,
    failed: Failed = False,
    force: Force = False,
    dry_run: DryRun = False,
    no_resume: NoResume = False,
    wait: Wait = False,
) -> None:
    """Run a job for each date of a period, through Prefect, without getting in the way of its slots.

    The same command again goes on with the same backfill: what succeeded is kept, what failed is run again, and what
    waits or runs is left alone.
    """
    from orchctl.core.backfill import Wish
    from orchctl.services import backfill as service
    from orchctl.services import backfill_preview
    from orchctl.wiring import backfill as hands

    app: App = ctx.obj
    if max_parallel is not None and not wait:
        hint = "without it all runs are submitted at once, and the limit of the queue says how many go at a time"
        raise UsageError("--max-parallel needs --wait", hint=hint)
    wish = Wish(only_missed=only_missed, failed=failed, no_resume=no_resume, force=force)
    wish.check()
    words = service.Words(job, start, end, steps, as_of_mode, params.read(param or []))
    world = app.backfill_world()
    wanted = service.request(world, words)
    if dry_run:
        prepared = service.prepare(world, wanted, wish)
        backfill_views.previewed(prepared, list(backfill_preview.preview(world, prepared)), app.settings)
        return
    with hands.alone(app, wanted.asked):
        prepared = service.prepare(world, wanted, wish)
        at_a_time = (max_parallel or prepared.job.backfill.parallel) if wait else None
        done = _carry_out(app, world, prepared, at_a_time)
    raise typer.Exit(done.exit_code)


def _carry_out(app: App, world: World, prepared: Prepared, at_a_time: int | None) -> Ended | Submitted:
    from orchctl.services.backfill_run import Progress, carry_out

    backfill_views.begun(prepared, at_a_time, app.settings)
    last: Progress | None = None
    try:
        with backfill_views.follower(prepared, app.settings) as show:
            for item in carry_out(world, prepared, at_a_time=at_a_time):
                if not isinstance(item, Progress):
                    done = item
                    continue
                last = item
                show(item)
    except KeyboardInterrupt as interruption:
        raise Interrupted(
            f"stopped submitting; {backfill_views.so_far(last)}",
            hint="the same command goes on from there; nothing is started twice",
        ) from interruption
    backfill_views.ended(prepared, done, app.settings)
    return done
