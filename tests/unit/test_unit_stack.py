"""When an installed part counts as running, or as one that does not come up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchctl.adapters.host_units import ABSENT, HostUnits, UnitState
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_stack import UnitStack
from orchctl.core.installation import Installation
from orchctl.core.legacy import SYSTEM, Manager

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
