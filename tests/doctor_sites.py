"""A pytest plugin: which findings of `doctor` the tests of a session really made. It writes them to $DOCTOR_SITES."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import orchctl
from orchctl.core import doctor
from orchctl.core.doctor import Report

FILES = {
    str(path) for layer in ("core", "services") for path in (Path(orchctl.__file__).parent / layer).glob("doctor_*.py")
}
_lines: set[tuple[str, int]] = set()
_levels: set[tuple[str, str]] = set()


def sites() -> list[tuple[str, int, int]]:
    """Return where a failure or a warning is made: the file, the first line and the last."""
    return [
        (file, node.lineno, node.end_lineno or node.lineno)
        for file in sorted(FILES)
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"failure", "warning"}
    ]


def _trace(frame: FrameType, event: str, _what: object) -> Any:
    if frame.f_code.co_filename not in FILES:
        return None
    if event == "line":
        _lines.add((frame.f_code.co_filename, frame.f_lineno))
    return _trace


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Watch the test."""
    before = sys.gettrace()
    sys.settrace(_trace)
    yield
    sys.settrace(before)


def pytest_sessionstart() -> None:
    """Remember of every report what was found."""
    made = doctor.report

    def report(*words: Any) -> Report:
        found = made(*words)
        _levels.update((each.check, each.level) for each in found.findings)
        return found

    doctor.report = report  # type: ignore[assignment] # it takes the same


def pytest_sessionfinish() -> None:
    """Write it down."""
    found: dict[str, Sequence[Any]] = {"lines": sorted(_lines), "levels": sorted(_levels)}
    Path(os.environ["DOCTOR_SITES"]).write_text(json.dumps(found))
