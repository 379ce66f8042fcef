"""The runbook and the migration guide name what there is: commands, options, findings, pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchctl.cli.app import app, hoist

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("operations.md", "migration.md")
_GLOBAL = {"--json", "--state-dir", "--config", "--yes"}


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """Return each `orchctl …` of a page, in blocks and in sentences."""
    blocks = re.findall(r"```console\n(.*?)```", text(page), re.DOTALL)
    typed = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    sentences = re.findall(r"`((?:sudo )?orchctl [^`]+)`", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL))
    found = [part for line in [*typed, *sentences] for part in re.findall(r"\borchctl ([^#;|&$>)]+)", line)]
    return [each.replace("\n", " ").strip() for each in found]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_with_its_options(page: str) -> None:
    found = commands(page)
    assert len(found) > 30
    root: Any = typer.main.get_command(app)
    for command in found:
        words = [word for word in hoist(command.split()) if word not in _GLOBAL]
        node = root
        while words and words[0] in getattr(node, "commands", {}):
            node = node.commands[words.pop(0)]
        assert node.name != "orchctl", command
        options = {name for parameter in node.params for name in parameter.opts} | _GLOBAL
        assert [word for word in words if word.startswith("-") and word.partition("=")[0] not in options] == [], command


def test_every_finding_of_status_is_in_the_runbook() -> None:
    listed = re.search(r"has a `code`: (.*?)\. Its `fix`", text("formats.md"), re.DOTALL)
    assert listed is not None
    codes = set(re.findall(r"`([a-z-]+)`", listed[1]))
    assert len(codes) > 15
    assert codes - set(re.findall(r"`([a-z-]+)`", text("operations.md"))) == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_page_and_heading_that_it_names_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        name, _, anchor = target.partition("#")
        path = DOCS / name if name else DOCS / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}, target
