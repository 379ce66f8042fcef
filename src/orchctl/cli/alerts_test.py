"""`orchctl alerts test`: a message that is really sent, and what the receiver says."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import render, watchdog_views
from orchctl.errors import ExitCode, UsageError
from orchctl.wiring import App


def register(group: typer.Typer) -> None:
    """Add the command to the group `alerts`."""
    group.command("test")(send_test)


def send_test(
    ctx: typer.Context,
    channel: Annotated[
        str | None,
        typer.Argument(metavar="[CHANNEL]", help="The channel; none: all of alerts.toml.", show_default=False),
    ] = None,
) -> None:
    """Send a test message through a channel, or through each, and show what the receiver answered.

    Exit code 4 where some of several were not delivered, 1 where none was.
    """
    from orchctl import wiring
    from orchctl.services import watchdog
    from orchctl.wiring import watchdog as wired

    app: App = ctx.obj
    world = wired.sending(app, wiring.environment())
    names = tuple(world.alerts.channels)
    if not names:
        place = app.settings.config_dir / "alerts.toml"
        raise UsageError("there are no channels", hint=f"write {place}: docs/alerts.md shows how")
    if channel is not None:
        render.check_choice("CHANNEL", channel, names)
    found = watchdog.send_test(world, (channel,) if channel is not None else names, at=app.now())
    watchdog_views.tested(found, app.settings)
    failed = sum(not each.answer.ok for each in found)
    if failed:
        raise typer.Exit(ExitCode.FAILED if failed == len(found) else ExitCode.PARTIAL)
