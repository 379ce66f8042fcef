"""Why timers of a manager could not be switched off and put back as they were."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from orchctl.adapters import unit_links
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders, acting_as
from orchctl.core import systemd_show
from orchctl.core.legacy import Manager, Timer, Units
from orchctl.core.words import several

# ExecCondition= is of 243, the prefix `:` of 244.
OLDEST = 244
_NAMED = 3


def of(systemd: Systemd, where: Folders, units: Units, names: Collection[str]) -> Iterator[str]:
    """Yield the obstacles in the way of these timers, one sentence each. Raises as `Systemd.call`."""
    timers = [(name, units.timers.get(name)) for name in names]
    ours = {name for name, _ in timers}
    for name, timer in timers:
        label = f"{name} ({where.manager})"
        if timer is None or timer.load != "loaded":
            yield f"{label} is {timer.load if timer is not None else 'not-found'}: there is nothing to switch off"
            continue
        ours |= {timer.name, *timer.aliases, timer.unit}
        yield from _of_timer(label, timer, where)
        yield from _of_service(timer, units)
    version = systemd.call("systemctl", where.manager, "show", "--property=Version", "--value")
    if (found := re.match(r"\d+", version)) is not None and int(found[0]) < OLDEST:
        yield f"systemd {found[0]} is too old for the fence: it needs {OLDEST}"
    waiting = [name for name in _waiting(systemd, where.manager) if name not in ours]
    if waiting:
        some = several(waiting, shown=_NAMED)
        yield f"{some} ({where.manager}) changed on disk, and a reload would apply that: run `daemon-reload` yourself"


def _of_timer(label: str, timer: Timer, where: Folders) -> Iterator[str]:
    if timer.transient:
        yield f"{label} is transient: it would be gone for ever once it is stopped"
    if timer.generated:
        yield f"{label} is generated: it comes back with each reload; switch off what it is generated from"
    if timer.needs_reload:
        yield f"{label} changed on disk since systemd loaded it: look at it, and run `systemctl daemon-reload`"
    linked = set[str]()
    for name in (timer.name, *timer.aliases):
        with acting_as(where.account):
            links = [Path(link.path) for link in where.links(name)]
            refused = [
                path
                for path in links
                if not unit_links.may_write(where.mask_of(path) if where.kind(path) == "vendor" else path)
            ]
        linked |= {path.parent.stem for path in links}
        yield from (f"{path}, which starts {label}, may not be removed: use sudo" for path in refused)
        yield from (
            f"{path}, which starts {label}, is made anew at each reload" for path in links if _is_made(where, path)
        )
    for unit in timer.wanted_by:
        if unit not in linked:
            yield f"{label} is started by {unit} too, in whose own text that stands: take it out there"


def _of_service(timer: Timer, units: Units) -> Iterator[str]:
    label = f"{timer.unit} ({timer.manager})"
    service = units.services.get(timer.unit)
    if not timer.unit.endswith(".service"):
        yield f"{label}, which {timer.name} starts, is no service: nothing can keep it from being started"
    elif service is None or service.load != "loaded":
        yield f"{label}, which {timer.name} starts, is {service.load if service is not None else 'not-found'}"
    elif service.transient:
        yield f"{label} is transient: its drop-in could not be put back"
    elif service.needs_reload:
        yield f"{label} changed on disk since systemd loaded it: look at it, and run `systemctl daemon-reload`"


def _is_made(where: Folders, path: Path) -> bool:
    return where.kind(path) == "made"


def _waiting(systemd: Systemd, manager: Manager) -> list[str]:
    """Return the loaded units whose files are not as systemd read them."""
    printed = systemd.call("systemctl", manager, "show", "--all", "--no-pager", "--property=Id,NeedDaemonReload", "*")
    return sorted(
        block["Id"][-1]
        for block in systemd_show.blocks(printed)
        if block.get("NeedDaemonReload") == ["yes"] and block.get("Id")
    )
