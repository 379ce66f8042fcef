"""Fixtures of the tests that need a real systemd: one sandbox for the session, a clean slate for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from box import Box
from orchctl.adapters import sandbox

CONFIG = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    reason = sandbox.why_not()
    if reason is not None:
        pytest.skip(f"a systemd of its own cannot be booted: {reason}")
    share = tmp_path_factory.mktemp("share")
    share.chmod(0o755)
    for parent in list(share.parents)[: len(share.parents) - 2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with sandbox.booted(tmp_path_factory.mktemp("sandbox"), [share, CONFIG]) as inside:
        yield Box(inside, share)


@pytest.fixture
def box(booted: Box) -> Iterator[Box]:
    """The sandbox, with no units, users' timers or crontabs of an earlier test."""
    yield booted
    booted.clean()
