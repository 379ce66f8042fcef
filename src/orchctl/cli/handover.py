"""`orchctl cutover`, `confirm`, `rollback` and `recover`: who owns a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Annotated

import typer

from orchctl.cli import handover_views as views
from orchctl.cli import render
from orchctl.core import durations
from orchctl.errors import ExitCode, OrchctlError, UsageError
from orchctl.wiring import App

PATIENCE_S = 10.0
"""How long a rollback waits for Prefect in all. Legacy is active before it is asked."""

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="The job.", show_default=False)]


# They say so themselves, or must not say anything.
_QUIET = frozenset({"", "recover", "status", "completions", "demo", "watchdog"})


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (cutover, confirm, rollback, recover):
        app.command()(command)


def unfinished_note(app: App, command: str) -> None:
    """Say on stderr that a handover is unfinished, if one is: whatever the operator came for, that comes first."""
    if command in _QUIET:
        return
    try:
        jobs = app.unfinished
    except OrchctlError as error:
        render.note(f"warning: {error.message}")
        return
    if jobs:
        which = f"handover of {jobs[0]} is" if len(jobs) == 1 else f"handovers of {', '.join(jobs)} are"
        render.note(f"warning: the {which} unfinished (or at work just now); `orchctl recover` goes on")


def cutover(
    ctx: typer.Context,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="The jobs.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show gates and steps; change nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a legacy run that is going.")] = False,
    yes: Yes = False,
    waive: Annotated[
        list[str] | None,
        typer.Option("--waive", metavar="GATE=WHY", help="Do it although this gate does not hold; WHY is recorded."),
    ] = None,
    confirm_within: Annotated[
        str | None,
        typer.Option("--confirm-within", metavar="24h", help="Roll it back by itself unless `confirm` comes before."),
    ] = None,
) -> None:
    """Make Prefect the owner of jobs: first the gates, then a question, then each job on its own.

    Exit code 5 where a gate does not hold, 4 where some of several jobs were not cut over.
    """
    from orchctl.core import gates
    from orchctl.services import switching
    from orchctl.services.gates import job_with_triggers
    from orchctl.wiring import gates as wired

    app: App = ctx.obj
    reasons, within = gates.waivers(waive or ()), _within(confirm_within)
    world, names = wired.world(app), tuple(dict.fromkeys(jobs))
    for name in names:
        job_with_triggers(world.catalog, name)
    shown = views.Cutover(world.catalog.timezone, app.settings, dry_run=dry_run)
    wish = switching.Wish(
        wait=wait,
        waive=reasons,
        within=within,
        command=_command("cutover", *names),
        ask=lambda table: render.confirm(f"make Prefect the owner of {table.job}?", yes=yes),
        show=shown.table,
        say=_say(app),
        now=app.now,
        sleep=time.sleep,
    )
    if dry_run:
        found = switching.each(names, lambda name: switching.look(world, name, wish), shown.ended)
    else:
        with app.exclusive(wish.command):
            hands = app.hands()
            found = switching.each(names, lambda name: switching.cutover(world, hands, name, wish), shown.ended)
    shown.all(found, ui=app.prefect.ui_url)
    _exit(switching.exit_code(found))


def confirm(ctx: typer.Context, job: Job) -> None:
    """Keep a cutover: nothing rolls it back by itself any more."""
    from orchctl.services import handover as service

    app: App = ctx.obj
    with app.exclusive(_command("confirm", job)):
        hands = app.hands(patience=PATIENCE_S)
        _check(app, [job])
        views.confirmed(job, service.confirm(hands, job), app.settings)


def rollback(
    ctx: typer.Context,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="The jobs; none: all that are Prefect's.", show_default=False),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Stop a run that is going, and do not wait for it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the steps; change nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Make legacy the owner of jobs again. Needs neither Prefect nor a valid catalog; asks where no job is named."""
    from orchctl.services import switching

    app: App = ctx.obj
    hands = app.hands(patience=PATIENCE_S)
    _check(app, jobs or ())
    names = tuple(dict.fromkeys(jobs)) if jobs else switching.live(hands)
    if dry_run or not names:
        views.would_roll_back([switching.rollback_of(hands, name) for name in names], app.zone, app.settings)
        return
    command = _command("rollback", *(jobs or ()))
    with app.exclusive(command):
        if not jobs:
            render.confirm(f"make legacy the owner of {', '.join(names)}?", yes=yes)
        shown = views.Rollback(app.zone, app.settings)
        found = switching.rollback(hands, names, now=now, command=command, say=_say(app), ended=shown.ended)
    shown.all(found)
    _exit(switching.exit_code(found))


def recover(ctx: typer.Context) -> None:
    """Bring every job of this host to a legal state: go on with what was interrupted, put right what has drifted.

    It looks, and does not ask; where all is in order it changes nothing.
    """
    from orchctl.services import recovery

    app: App = ctx.obj
    with app.exclusive("recover"):
        catalog = app.catalog_if_valid
        known = [name for name, job in catalog.jobs.items() if job.has_legacy] if catalog is not None else []
        found = recovery.recover(app.hands(patience=PATIENCE_S), known, say=_say(app))
    views.recovered(found, app.zone, app.settings)
    _exit(recovery.exit_code(found))


def _within(text: str | None) -> timedelta | None:
    try:
        return None if text is None else timedelta(seconds=durations.parse(text))
    except ValueError as error:
        raise UsageError(f"--confirm-within: {error}") from error


def _command(*words: str) -> str:
    return " ".join(words)


def _say(app: App) -> Callable[[str], None]:
    return (lambda _text: None) if app.settings.as_json else (lambda text: render.note(f"  {text}"))


def _check(app: App, names: Iterable[str]) -> None:
    from orchctl.services import switching

    catalog = app.catalog_if_valid
    switching.check(app.owners, app.handovers, tuple(names), tuple(catalog.jobs) if catalog is not None else ())


def _exit(code: ExitCode) -> None:
    if code is not ExitCode.DONE:
        raise typer.Exit(code)
