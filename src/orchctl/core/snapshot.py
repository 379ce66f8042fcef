"""What a job's legacy triggers were before a cutover: enough to put them back exactly. Pure.

It is the first record of a handover's journal, so it must be readable by every later version: keys are only added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchctl.core.catalog import CronTrigger
from orchctl.core.legacy import Manager


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link that enables a timer: `path`, and what it points to, as it is written in it."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class TimerState:
    """A timer as it was. `manager` names its user, whoever runs orchctl; `service` is what it starts.

    `active`: it was started. `enabled` is systemd's word (UnitFileState). `links` are the symbolic links of *.wants,
    *.requires and *.upholds folders that start it: what "enabled" consists of. `boot_id`: a timer that was started
    by hand is not active after another boot, whoever owns the job. `persistent` is Persistent=.
    """

    manager: Manager
    timer: str
    service: str
    active: bool
    enabled: str
    links: tuple[Link, ...]
    boot_id: str
    persistent: bool

    @property
    def starts_at_boot(self) -> bool:
        """Whether it would be active after a boot."""
        return bool(self.links)


@dataclass(frozen=True, slots=True)
class CronState:
    """A crontab line as it was. `fence`: it was not commented out, but made to look at the owner file."""

    trigger: CronTrigger
    fence: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job's legacy triggers before a cutover, and whether Prefect's deployment was paused (None: not known).

    `folders` are those that did not exist and that a drop-in needs: they go with it. `assumed`: nobody looked in
    time; this is what the catalog and the units themselves let one expect.
    """

    timers: tuple[TimerState, ...] = ()
    cron: tuple[CronState, ...] = ()
    paused: bool | None = None
    folders: tuple[str, ...] = ()
    assumed: bool = False

    @property
    def services(self) -> dict[Manager, list[str]]:
        """The services that the timers start, by the systemd that holds them, none twice."""
        found: dict[Manager, list[str]] = {}
        for manager, service in dict.fromkeys((each.manager, each.service) for each in self.timers):
            found.setdefault(manager, []).append(service)
        return found


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON's own types."""
    return {
        "timers": [
            {
                "scope": each.manager.scope,
                "user": each.manager.user,
                "timer": each.timer,
                "service": each.service,
                "active": each.active,
                "enabled": each.enabled,
                "links": [{"path": link.path, "target": link.target} for link in each.links],
                "boot_id": each.boot_id,
                "persistent": each.persistent,
            }
            for each in snapshot.timers
        ],
        "cron": [
            {
                "cron": each.trigger.cron,
                "user": each.trigger.user,
                "file": each.trigger.file,
                "timezone": each.trigger.timezone,
                "fence": each.fence,
            }
            for each in snapshot.cron
        ],
        "paused": snapshot.paused,
        "folders": list(snapshot.folders),
        "assumed": snapshot.assumed,
    }


def from_json(data: Any) -> Snapshot:
    """Return a snapshot from JSON. Raises ValueError where it is none: every value is checked, for root acts on it."""
    return Snapshot(
        timers=tuple(_timer(each) for each in _list(data, "timers")),
        cron=tuple(_cron(each) for each in _list(data, "cron")),
        paused=_value(data, "paused", bool, optional=True),
        folders=tuple(_path(each) for each in _list(data, "folders")),
        assumed=_value(data, "assumed", bool),
    )


def _timer(data: Any) -> TimerState:
    scope = _value(data, "scope", str)
    if scope not in {"system", "user"}:
        raise ValueError(f"scope {scope!r}")
    timer, service = _value(data, "timer", str), _value(data, "service", str)
    if not timer.endswith(".timer") or "/" in timer + service or timer.startswith("-") or service.startswith("-"):
        raise ValueError(f"{timer!r} and {service!r} are no names of a timer and a unit")
    return TimerState(
        manager=Manager("system" if scope == "system" else "user", _value(data, "user", str, optional=True)),
        timer=timer,
        service=service,
        active=_value(data, "active", bool),
        enabled=_value(data, "enabled", str),
        links=tuple(_link(each, timer) for each in _list(data, "links")),
        boot_id=_value(data, "boot_id", str),
        persistent=_value(data, "persistent", bool),
    )


def _link(data: Any, timer: str) -> Link:
    link = Link(_path(_value(data, "path", str)), _value(data, "target", str))
    folder, _, name = link.path.rpartition("/")
    if name != timer or not folder.endswith((".wants", ".requires", ".upholds")) or "\0" in link.target:
        raise ValueError(f"{link.path!r} is no link that starts {timer}")
    return link


def _cron(data: Any) -> CronState:
    fields = {key: _value(data, key, str, optional=True) for key in ("cron", "user", "file", "timezone")}
    given: Mapping[str, Any] = {key: value for key, value in fields.items() if value is not None}
    return CronState(CronTrigger(**given), _value(data, "fence", bool))


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise ValueError(f"{value!r} is no path")
    return value


def _list(data: Any, key: str) -> list[Any]:
    found: list[Any] = _value(data, key, list)
    return found


def _value(data: Any, key: str, kind: type, *, optional: bool = False) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{data!r:.60} is no table")
    value = data.get(key)
    if (value is None and optional) or isinstance(value, kind):
        return value
    raise ValueError(f"{key} is {value!r:.60}")
