"""When an installed part counts as running, or as one that does not come up; and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from orchctl.adapters.host_units import ABSENT, HostUnits, UnitState
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_stack import UnitStack
from orchctl.core.installation import Installation
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

ITS = Installation("system", "ann", "http://127.0.0.1:1/api", "/p", "/c", "/s", "/s/p", "/s/e", (), {"a": 1, "b": 1})


class Units(HostUnits):
    """Units whose states a test sets."""

    def __init__(self) -> None:
        super().__init__(Systemd({}), SYSTEM)
        self.now = ABSENT

    def state(self, name: str) -> UnitState:
        return self.now


class Said(Systemd):
    """A systemd that prints what a test says."""

    printed = ""

    def call(self, program: str, manager: Manager, *words: str, check: bool = True) -> str:
        return self.printed


@pytest.fixture
def units() -> Units:
    return Units()


def stack(units: HostUnits, environment: Mapping[str, str] = {}) -> UnitStack:
    return UnitStack(units, ITS, environment)


def test_the_parts_have_units() -> None:
    found = stack(Units())
    assert found.names() == ("server", "worker-a", "worker-b", "recover")
    assert [found.unit(name) for name in found.names()] == [
        "prefect-server.service",
        "prefect-worker-a.service",
        "prefect-worker-b.service",
        "prefect-recover.timer",
    ]
    assert found.log_path("worker-a") == "journalctl --unit prefect-worker-a.service"


def test_what_has_started_anew_over_the_months_is_alive_and_what_does_so_now_is_not(units: Units) -> None:
    units.now = replace(ABSENT, active="active", restarts=40)
    found = stack(units)
    assert found.alive("server")
    units.now = replace(units.now, restarts=42, active="activating")
    assert found.alive("server")
    units.now = replace(units.now, restarts=43)
    assert not found.alive("server")


def test_what_is_between_stop_and_start_is_alive_and_what_is_stopped_is_not(units: Units) -> None:
    said = Said({})
    read = HostUnits(said, SYSTEM)
    said.printed = "ActiveState=deactivating\nSubState=stop-post\nMainPID=0\nNRestarts=0\n"
    units.now = read.state("x")
    assert stack(units).alive("worker-a")
    said.printed = "ActiveState=inactive\nMainPID=0\nJob=77\n"
    units.now = read.state("x")
    assert stack(units).alive("worker-a")
    said.printed = "ActiveState=inactive\nMainPID=0\nNRestarts=0\n"
    units.now = read.state("x")
    assert not stack(units).alive("worker-a")


def test_how_the_last_look_for_lost_runs_ended_is_told(units: Units) -> None:
    for result, failure in (("success", None), ("", None), ("exit-code", "exit-code"), ("timeout", "timeout")):
        units.now = replace(ABSENT, result=result)
        assert stack(units).failure() == failure


def test_a_timer_that_is_started_forgets_how_its_service_ended() -> None:
    class Called(Said):
        words: list[str]

        def call(self, program: str, manager: Manager, *words: str, check: bool = True) -> str:
            self.words.append(f"{words[0]} {words[-1]}")
            return ""

    systemd = Called({})
    systemd.words = []
    HostUnits(systemd, SYSTEM).start("x.timer")
    assert systemd.words == ["reset-failed x.timer", "reset-failed x.service", "start x.timer"]


# --- what was said

HIDDEN = "Hint: You are currently not seeing messages from other users and the system."
CLOSED = "No journal files were opened due to insufficient permissions."


def logs(tmp_path: Path, script: str, *, follow: bool = False) -> list[bytes]:
    """Return what `host logs` shows where `journalctl` is this shell script."""
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = stack(Units(), {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    return list(found.logs(["server"], last=5, follow=follow))


QUIET = 'case "$*" in *--quiet*) exit 0;; esac'


def test_what_was_said_is_shown_also_where_some_of_it_may_not_be_seen(tmp_path: Path) -> None:
    assert logs(tmp_path, f"echo one; echo two; echo '{HIDDEN}' >&2") == [b"one\n", b"two\n"]


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("script", [f"{QUIET}; echo '{HIDDEN}' >&2", f"echo '{CLOSED}' >&2; exit 1"])
def test_a_journal_that_may_not_be_read_is_said_to_be_that(tmp_path: Path, script: str, follow: bool) -> None:
    with pytest.raises(NotAllowed, match="may not read the journal") as caught:
        logs(tmp_path, script, follow=follow)
    assert "usermod -aG systemd-journal" in str(caught.value.hint)


def test_where_nothing_was_said_yet_nothing_is_shown(tmp_path: Path) -> None:
    assert logs(tmp_path, "exit 0") == []


def test_a_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(OrchctlError, match="`journalctl` failed: it is broken"):
        logs(tmp_path, 'case "$*" in *--lines=5*) echo it is broken >&2; exit 1;; esac')


def test_a_host_without_journalctl_is_told_and_keeps_no_other_error_from_being_told(tmp_path: Path) -> None:
    found = stack(Units(), {"PATH": str(tmp_path)})
    with pytest.raises(SystemdUnavailable, match="journalctl is not installed"):
        list(found.logs(["server"], last=5, follow=False))
    assert found.log_tail("server") == ""
