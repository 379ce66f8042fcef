"""Timers and services as systemd would show them, made of the few properties that a test is about."""

from __future__ import annotations

from orchctl.core.legacy import SYSTEM, Manager, Service, Timer, Units
from orchctl.core.systemd_show import units_of

_LOADED = {"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "Result": "success"}
_TIMER = {"ActiveState": "active", "UnitFileState": "enabled", "AccuracyUSec": "1min", "Persistent": "no"}
_SERVICE = {"Type": "oneshot", "TimeoutStartUSec": "infinity", "TimeoutStopUSec": "1min 30s", "UnitFileState": "static"}


def calendars(*lines: str) -> str:
    return "\nTimersCalendar=".join(f"{{ OnCalendar={line} ; next_elapse=n/a }}" for line in reversed(lines))


def monotonic(*pairs: tuple[str, str]) -> str:
    return "\nTimersMonotonic=".join(f"{{ {base}={span} ; next_elapse=0 }}" for base, span in reversed(pairs))


def shown(name: str, **properties: str) -> str:
    fixed = _TIMER if name.endswith(".timer") else _SERVICE
    values = {"Id": name, **_LOADED, **fixed, **properties}
    return "".join(f"{key}={value}\n" for key, value in values.items())


def units(*blocks: str, manager: Manager = SYSTEM) -> Units:
    return units_of("\n".join(blocks), manager)


def timer(name: str = "job.timer", *, manager: Manager = SYSTEM, **properties: str) -> Timer:
    return units(shown(name, **properties), manager=manager).timers[name]


def service(name: str = "job.service", *, manager: Manager = SYSTEM, **properties: str) -> Service:
    return units(shown(name, **properties), manager=manager).services[name]
