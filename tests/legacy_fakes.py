"""Timers and services as a systemd would answer them, for tests that need none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchctl.core.legacy import SYSTEM, Manager, Service, Timer, Units
from orchctl.errors import OrchctlError

_UNIT: dict[str, Any] = {
    "load": "loaded",
    "load_error": None,
    "sub": "waiting",
    "result": "success",
    "fragment": None,
    "source": None,
    "drop_ins": (),
    "needs_reload": False,
    "transient": False,
    "requires": (),
    "wanted_by": (),
    "on_failure": (),
    "triggered_by": (),
    "invocation_id": None,
}


def timer(
    name: str,
    *calendars: str,
    manager: Manager = SYSTEM,
    active: bool = True,
    enabled: str = "enabled",
    next_fire: datetime | None = None,
    accuracy_s: float = 60.0,
    **more: Any,
) -> Timer:
    fields: dict[str, Any] = {
        **_UNIT,
        "unit": f"{name.removesuffix('.timer')}.service",
        "monotonic": (),
        "last_fire": None,
        "persistent": False,
        "random_delay_s": 0.0,
        "fixed_random_delay": False,
        "wake_system": False,
        **more,
    }
    return Timer(
        name=name,
        manager=manager,
        active="active" if active else "inactive",
        enabled=enabled,
        calendars=calendars,
        next_fire=next_fire,
        accuracy_s=accuracy_s,
        **fields,
    )


def service(name: str, *, manager: Manager = SYSTEM, started_at: datetime | None = None, **more: Any) -> Service:
    fields: dict[str, Any] = {
        **_UNIT,
        "active": "inactive",
        "enabled": "static",
        "type": "oneshot",
        "exec_start": (),
        "user": None,
        "group": None,
        "working_directory": None,
        "environment": {},
        "environment_files": (),
        "nice": 0,
        "timeout_start_s": None,
        "timeout_stop_s": None,
        "runtime_max_s": None,
        "remains": False,
        "success_statuses": "",
        "ended_at": None,
        "main_code": 1,
        "main_status": 0,
        **more,
    }
    return Service(name=name, manager=manager, started_at=started_at, **fields)


@dataclass
class FakeSystemd:
    """The managers of a host; one of `broken` raises. `calls` are what was asked."""

    units: list[Timer | Service] = field(default_factory=list)
    broken: dict[Manager, OrchctlError] = field(default_factory=dict)
    calls: list[tuple[Manager, tuple[str, ...]]] = field(default_factory=list)

    def read(
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units:
        self.calls.append((manager, tuple(names)))
        if manager in self.broken:
            raise self.broken[manager]
        mine = [unit for unit in self.units if unit.manager == manager]
        timers = {unit.name: unit for unit in mine if isinstance(unit, Timer)}
        return Units(manager, timers, {unit.name: unit for unit in mine if isinstance(unit, Service)})
