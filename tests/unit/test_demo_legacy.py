"""Which systemd the demo takes, and that it takes none where it could not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchctl.adapters import demo_legacy, sandbox


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which no systemd can be booted, and an ordinary user."""
    monkeypatch.setattr(sandbox, "why_not", lambda: "it needs root")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def path_with(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> dict[str, str]:
    """Return an environment in which `systemctl` ends with a status."""
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return {"PATH": f"{folder}:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder)}


@pytest.mark.usefixtures("unable")
def test_without_any_systemd_it_says_why_and_what_is_missing(tmp_path: Path) -> None:
    side = demo_legacy.choose(tmp_path, {})
    assert (side.scope, side.hands_over) == (None, False)
    assert side.why == "no systemd answers this user, and none can be booted: it needs root"


@pytest.mark.usefixtures("unable")
@pytest.mark.parametrize(("status", "scope"), [(0, "user"), (1, None)])
def test_ones_own_manager_is_taken_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, scope: str | None
) -> None:
    side = demo_legacy.choose(tmp_path, path_with(tmp_path, monkeypatch, status))
    assert (side.scope, side.hands_over) == (scope, False)


def test_root_takes_no_manager_but_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: "unshare is missing")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    side = demo_legacy.choose(tmp_path, path_with(tmp_path, monkeypatch, 0))
    assert side.why == "no systemd answers this user, and none can be booted: unshare is missing"
