"""`orchctl completions`: the scripts that complete orchctl's command line in a shell."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchctl.cli import render
from orchctl.errors import UsageError
from orchctl.wiring import App


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(completions)


def completions(
    ctx: typer.Context,
    shell: Annotated[str | None, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)] = None,
) -> None:
    """Print the completion script of a shell. Job names complete from a file, without starting Python.

    \b
    bash: orchctl completions bash > ~/.local/share/bash-completion/completions/orchctl
    zsh:  orchctl completions zsh > ~/.zfunc/_orchctl
          with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
    fish: orchctl completions fish > ~/.config/fish/completions/orchctl.fish

    It takes effect in the next shell. The names are those of the catalog that was last read.
    """
    from orchctl.cli.completion_tree import SHELLS

    app: App = ctx.obj
    if shell is None:
        raise UsageError("completions needs the name of a shell", hint=f"one of: {', '.join(SHELLS)}")
    render.check_choice("SHELL", shell, SHELLS)
    text = script(shell, ctx.find_root().command)
    render.emit("completions", {"shell": shell, "script": text}, lambda: render.raw([text.encode()]), app.settings)


def script(shell: str, root: Any) -> str:
    """Return the completion script of `shell` for the app's root command."""
    from orchctl.cli import completion_scripts, completion_tree
    from orchctl.cli.app import hoist

    tree = completion_tree.read(root, anywhere=lambda name: hoist(["command", name])[0] == name)
    return completion_scripts.SCRIPTS[shell](tree)
