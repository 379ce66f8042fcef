"""Shared by all tests: a skip is a failure where nothing may be left out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

import support

# The same examples on every machine: a failure in CI is one that can be repeated.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parents[1]


_MARKERS = {"sandboxed": "systemd", "live": "live"}
# Each has one systemd or one server of its own, and mostly waits: one process for each, and files for the others.
# The longest first, so that none of them begins when the others are done.
_ROOMS = ("boots", "switches", "live", "runs", "hosts", "sandboxed", "thorough", "unit")
_FILES = {
    "boots": ("test_host_kills", "test_host_upgrade", "test_installed_handover", "test_two_hosts"),
    "hosts": ("test_alerts_", "test_backup_", "test_host_install", "test_watchdog"),
    "runs": ("test_backfill_", "test_example_", "test_killing", "test_runs_", "test_steps_"),
    "switches": ("test_handover_", "test_timer_switch"),
}


def _room(path: str) -> str:
    folder, name = path.split("/")[-2:]
    if folder not in _MARKERS:
        return folder
    return next((room for room, names in _FILES.items() if name.startswith(names)), folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _ROOMS.index(_room(str(item.path))))
    for item in items:
        marker = _MARKERS.get(item.path.parent.name)
        if marker is not None:
            item.add_marker(marker)


class Rooms(LoadScopeScheduling):  # type: ignore[misc] # (untyped)
    """Gives each process whole files to run, and all files of a room with real parts to one process.

    xdist's own `--dist loadgroup` cannot: with pytest 9 the name of a group does not reach it.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.split("/")[-2] not in _MARKERS else _room(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Rooms:
    return Rooms(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what has real parts, and so real time, go before what only computes, and be waited for longer."""
    real = item.path.parent.name in _MARKERS
    support.patience = 3 if real else 1
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0 if real else 10)


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
