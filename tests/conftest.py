"""Shared by all tests: a skip is a failure where nothing may be left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# The same examples on every machine: a failure in CI is one that can be repeated.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parents[1]


_MARKERS = {"sandboxed": "systemd", "live": "live"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs real parts, and begins with the longest, for each process is given whole files in this order."""
    rooms = ["handover", *_MARKERS, "unit"]

    def room(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return rooms.index("handover" if folder == "sandboxed" and "handover" in item.path.name else folder)

    items.sort(key=room)
    for item in items:
        marker = _MARKERS.get(item.path.parent.name)
        if marker is not None:
            item.add_marker(marker)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("ORCHCTL_TESTS_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} would skip, and here nothing may: {report.longrepr}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the operator's own server, catalog or state."""
    for key in [
        key for key in os.environ if key.startswith(("PREFECT_", "ORCHCTL_")) and key != "ORCHCTL_TESTS_NO_SKIP"
    ]:
        monkeypatch.delenv(key)
