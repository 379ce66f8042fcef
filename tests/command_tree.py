"""Every command of the command line, as Typer has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from orchctl.cli.app import app


def commands() -> tuple[str, ...]:
    """Return the words of each command that does something, groups that do something by themselves among them."""
    return tuple(_below(typer.main.get_command(app), ()))


def _below(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is None or (path and command.invoke_without_command):
        yield " ".join(path)
    for name, each in (below or {}).items():
        yield from _below(each, (*path, name))
