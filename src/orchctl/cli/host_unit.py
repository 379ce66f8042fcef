"""`orchctl host unit`: what the installed units run beside Prefect itself; nobody types it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import render
from orchctl.errors import OrchctlError, PartialFailure, PrefectUnreachable
from orchctl.wiring import App

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchctl.services.strays import Stray

group = typer.Typer(rich_markup_mode=None, help="What the installed units run.", no_args_is_help=True)
_SERVER_S = 290.0
_WORKER_S = 120.0
_GUARDS_S = 40.0


def register(app: typer.Typer) -> None:
    """Add the hidden group."""
    app.add_typer(group, name="unit", hidden=True)


@group.command()
def ready(ctx: typer.Context) -> None:
    """Wait until the server of this unit answers: what comes after it is started then."""
    from orchctl.wiring import host

    app: App = ctx.obj
    host.wait_for_server(
        app, patience_s=_SERVER_S, still=host.main_process_lives, ours=lambda: host.main_process_answers(app)
    )


@group.command("before-worker")
def before_worker(ctx: typer.Context, pool: Annotated[str, typer.Argument(metavar="POOL")]) -> None:
    """Wait for the server, and put back the runs that the worker of a pool lost when it ended."""
    from orchctl.wiring import host

    app: App = ctx.obj
    host.wait_for_server(app, patience_s=_WORKER_S, still=lambda: True)
    _said(host.put_back(app, pool, stopped=True))


@group.command("after-worker")
def after_worker(ctx: typer.Context) -> None:
    """Wait for the guards of the runs that a worker has ended: they tell the server, which may be stopped next."""
    from orchctl.wiring import host

    if host.was_told_to_stop():
        left = host.wait_for_guards(ctx.obj, patience_s=_GUARDS_S)
        if left:
            render.note(f"{left} runs that were stopped have not ended yet")


@group.command()
def recover(ctx: typer.Context) -> None:
    """Put back the runs that workers of this host lost while they went on, as when the server was away.

    A pool that cannot be asked keeps none of the others waiting. Exit code 13 where no server answers.
    """
    from orchctl.wiring import backup, host

    app: App = ctx.obj
    backup.none_interrupted(app)
    failed = list[str]()
    pools = host.installed(app).pools
    for pool in pools:
        try:
            _said(host.put_back(app, pool, stopped=False, attempts=1))
        except PrefectUnreachable:
            raise
        except OrchctlError as error:
            failed.append(f"pool {pool}: {error.message}")
    if failed:
        raise PartialFailure("; ".join(failed)) if len(failed) < len(pools) else OrchctlError("; ".join(failed))


def _said(found: Iterable[Stray]) -> None:
    for each in found:
        render.note(f"run {each.name} of {each.job} was {each.was}, and no process carried it: now {each.type}")
