"""`orchctl publish`: what is published, and moving production by hand."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from orchctl.cli import publish_views, render
from orchctl.wiring import App

group = typer.Typer(
    rich_markup_mode=None, help="Show what is published; move production to another run.", no_args_is_help=True
)
AssetName = Annotated[str, typer.Argument(metavar="ASSET", help="A step that publishes.", show_default=False)]
Day = Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The game_date.", show_default=False)]
RunRef = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="To this run: its id, or a part that is unique.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="publish")


@group.command()
def show(ctx: typer.Context, asset: AssetName, date: Day) -> None:
    """Show the published runs of an asset and a date, and which of them the pointers hold."""
    from orchctl.services import publish
    from orchctl.wiring.published import published

    app: App = ctx.obj
    publish_views.shown(publish.show(app.catalog, published(), asset, date), app.zone, app.settings)


@group.command()
def promote(
    ctx: typer.Context,
    asset: AssetName,
    date: Day,
    run: RunRef = None,
    reason: Reason = None,
    yes: Yes = False,
) -> None:
    """Move current_run.json to the newest good run. A run whose files were changed since is refused."""
    _move(ctx.obj, "promote", asset, date, run=run, reason=reason or "promoted by hand", yes=yes)


@group.command()
def rollback(
    ctx: typer.Context,
    asset: AssetName,
    date: Day,
    run: RunRef = None,
    reason: Reason = None,
    yes: Yes = False,
) -> None:
    """Move current_run.json back to the run it held before; again, and it is where it was."""
    _move(ctx.obj, "rollback", asset, date, run=run, reason=reason or "rolled back by hand", yes=yes)


def _move(
    app: App,
    command: Literal["promote", "rollback"],
    asset: str,
    date: str,
    *,
    run: str | None,
    reason: str,
    yes: bool,
) -> None:
    from orchctl.services import publish
    from orchctl.wiring.published import published

    places = published(app.trusted)
    shown = publish.show(app.catalog, places, asset, date)
    propose = publish.promotion if command == "promote" else publish.rollback
    proposal = propose(shown, places, run)
    if not proposal.nothing_to_do:
        render.confirm(publish_views.question(proposal), yes=yes)
        publish.carry_out(proposal, places, app.tree, now=app.now(), reason=reason)
    publish_views.moved(proposal, reason, app.settings, command=f"publish {command}")
