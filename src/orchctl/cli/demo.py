"""`orchctl demo`: the whole story in a temporary folder."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.cli import render, run_views


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it all running, and say where it is.")] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="The story of a job of steps: contracts, retries, publishing, backfill.")
    ] = False,
) -> None:
    """Show everything on real parts: a small catalog, a server, a worker, runs. Takes a minute or two.

    All of it happens in a temporary folder and is cleaned up; the exit code is not 0 if anything was wrong.
    """
    from orchctl.wiring import demo as stories

    begin = stories.stepping if steps else stories.moving
    stage, story = begin(render.heading, run_views.demo_step)
    try:
        story.play()
        if not keep:
            story.curtain()
    except BaseException:
        keep = False
        raise
    finally:
        if keep:
            run_views.demo_kept(str(stage.root), stage.ui_url, stage.command(), stage.ending())
        else:
            stage.stop()
            stage.remove()
    if not keep:
        render.heading("All as it should be; everything is stopped and removed.")
