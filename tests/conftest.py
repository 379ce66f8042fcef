"""Shared by all tests: a skip is a failure where nothing may be left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# The same examples on every machine: a failure in CI is one that can be repeated.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parents[1]


# Each has one systemd, or one server, for the session, and waits rather than works: one process runs both, those with
# a systemd first, for a busy host makes Prefect late; another has the rest by then.
_MARKERS = {"sandboxed": "systemd", "live": "live"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = [*_MARKERS, "unit"]
    items.sort(key=lambda item: order.index(item.path.parent.name))
    for item in items:
        marker = _MARKERS.get(item.path.parent.name)
        if marker is not None:
            item.add_marker(marker)


class TwoRooms(LoadScopeScheduling):  # type: ignore[misc] # (untyped)
    """Gives each process whole files to run, and all that need a server or a systemd to the first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "real parts" if path.split("/")[-2] in _MARKERS else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> TwoRooms:
    return TwoRooms(config, log)


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
