"""A pytest plugin: which findings of `doctor` the tests of a session really made. It writes them to $DOCTOR_SITES.

A finding comes from a place in the text that makes one, or from a code of `status` that `core/doctor_jobs.py` sorts
into a check.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import orchctl
from orchctl.core import doctor, doctor_jobs
from orchctl.core.doctor import Finding, Report
from orchctl.core.doctor_jobs import CODES

FILES = {
    str(path) for layer in ("core", "services") for path in (Path(orchctl.__file__).parent / layer).glob("doctor_*.py")
}
_lines: set[tuple[str, int]] = set()
_levels: set[tuple[str, str]] = set()
_codes: set[str] = set()


def sites() -> list[tuple[str, int, int]]:
    """Return where a failure or a warning is made: the file, the first line and the last."""
    return [
        (file, node.lineno, node.end_lineno or node.lineno)
        for file in sorted(FILES)
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.Call) and _makes_one(node)
    ]


def _makes_one(call: ast.Call) -> bool:
    """Whether a call makes a failure or a warning: `failure(...)`, `(failure if x else warning)(...)`, or a `Finding`
    of a level that is one of the two, or is chosen there.
    """
    names = {node.id for node in ast.walk(call.func) if isinstance(node, ast.Name)}
    if names == {"Finding"}:
        level = call.args[1] if len(call.args) > 1 else None
        return not (isinstance(level, ast.Constant) and level.value in {"ok", "unknown"})
    return isinstance(call.func, (ast.Name, ast.IfExp)) and bool(names & {"failure", "warning"})


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
    """Remember of every report what was found, and of what `status` found what came into one."""
    made, sorted_in = doctor.report, doctor_jobs.of_status

    def report(*words: Any) -> Report:
        found = made(*words)
        _levels.update((each.check, each.level) for each in found.findings)
        return found

    def of_status(check: str, found: Iterable[Any], **more: Any) -> Iterator[Finding]:
        found, codes = list(found), more.get("codes", CODES)
        _codes.update(each.code for _, each in found if each.code in codes and CODES[each.code][0] == check)
        return sorted_in(check, found, **more)

    doctor.report = report  # type: ignore[assignment] # it takes the same
    doctor_jobs.of_status = of_status


def pytest_sessionfinish() -> None:
    """Write it down."""
    found: dict[str, Sequence[Any]] = {"lines": sorted(_lines), "levels": sorted(_levels), "codes": sorted(_codes)}
    Path(os.environ["DOCTOR_SITES"]).write_text(json.dumps(found))
