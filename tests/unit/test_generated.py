"""Generated files are what their functions return: `make docs` writes them."""

from __future__ import annotations

import pytest

from generated import GENERATED, ROOT


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_the_file_on_disk_is_the_generated_text(path: str) -> None:
    file = ROOT / path
    assert file.exists(), f"{path} is missing: run `make docs`"
    assert file.read_text(encoding="utf-8") == GENERATED[path](), f"{path} is out of date: run `make docs`"


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_generating_twice_gives_the_same_text(path: str) -> None:
    assert GENERATED[path]() == GENERATED[path]()
