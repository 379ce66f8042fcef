"""The registry of generated files: `python -m tests.generated` checks them, with `--write` it writes them.

To add one: append a line to GENERATED. The function takes nothing and returns the whole text of the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from orchctl.cli import completions
from orchctl.cli.app import app
from orchctl.core import schema
from orchctl.errors import MEANINGS

ROOT = Path(__file__).resolve().parents[1]


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _commands() -> str:
    """Return the command reference, as Typer's own `utils docs` writes it."""
    from typer.cli import get_docs_for_click

    command = typer.main.get_command(app)
    context = typer.Context(command, **command.context_settings)
    text = get_docs_for_click(obj=command, ctx=context, name="orchctl").replace("\b\n", "")
    return f"{text.strip()}\n"


def _exit_codes() -> str:
    rows = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in sorted(MEANINGS.items()))
    return (
        "# Exit codes\n\n| code | meaning |\n| --- | --- |\n"
        f"{rows}\nAn unknown code means failure. `orchctl run --wait` and `orchctl runs retry --wait` end with the\n"
        "exit code of the run itself: 0 for success, the command's own, 128 + n where signal n killed it, else 1.\n"
    )


GENERATED: dict[str, Callable[[], str]] = {
    "docs/schema/jobs.schema.json": lambda: _json(schema.jobs()),
    "docs/schema/schedules.schema.json": lambda: _json(schema.schedules()),
    "docs/schema/contracts.schema.json": lambda: _json(schema.contracts()),
    "docs/schema/alerts.schema.json": lambda: _json(schema.alerts()),
    "docs/commands.md": _commands,
    "docs/exit-codes.md": _exit_codes,
    "completions/orchctl.bash": lambda: completions.script("bash", typer.main.get_command(app)),
    "completions/_orchctl": lambda: completions.script("zsh", typer.main.get_command(app)),
    "completions/orchctl.fish": lambda: completions.script("fish", typer.main.get_command(app)),
}


def is_current(path: str) -> bool:
    """Whether the file on disk is what its function returns."""
    file = ROOT / path
    return file.exists() and file.read_text(encoding="utf-8") == GENERATED[path]()


def main(arguments: list[str]) -> int:
    """Print the files that differ, one a line; 1 where there are any and they are not to be written."""
    write = arguments == ["--write"]
    differing = [path for path in GENERATED if not is_current(path)]
    for path in differing:
        print(path)
        if write:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(GENERATED[path](), encoding="utf-8")
    return 1 if differing and not write else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
