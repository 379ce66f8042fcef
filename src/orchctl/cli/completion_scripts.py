"""Which shells there is a completion script for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchctl.cli import completion_bash, completion_fish, completion_zsh
from orchctl.cli.completion_tree import Command

SCRIPTS: Mapping[str, Callable[[Command], str]] = {
    "bash": completion_bash.script,
    "zsh": completion_zsh.script,
    "fish": completion_fish.script,
}
