"""What a timer's links and state are, and what they are to be: between a snapshot and the host."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from orchctl.adapters import host_facts, unit_links
from orchctl.adapters.unit_links import NOWHERE, Folders, acting_as
from orchctl.core.legacy import Manager, Timer, Units
from orchctl.core.snapshot import Snapshot, TimerState

Changes = list[tuple[Path, str | None]]
"""Links, and where each is to lead; None: nowhere, no link."""


def states_of(timer: Timer, name: str, where: Folders) -> Iterator[TimerState]:
    """Yield the timer as it is: by its name, and by each other one that a link starts it by."""
    with acting_as(where.account):
        links = {each: where.links(each) for each in dict.fromkeys((name, timer.name, *timer.aliases))}
    for each, its in links.items():
        if its or each == name:
            yield TimerState(
                manager=where.manager,
                timer=each,
                service=timer.unit,
                active=timer.active == "active",
                enabled=timer.enabled,
                links=its,
                boot_id=host_facts.boot_id(),
                persistent=timer.persistent,
            )


def folders_of_masks(where: Folders, states: Collection[TimerState]) -> Iterator[str]:
    """Yield the folders that are not there and that the masks of these timers' links need."""
    for state in states:
        for link in state.links:
            if where.kind(Path(link.path)) == "vendor":
                yield from map(str, unit_links.missing(where.mask_of(Path(link.path))))


def by_manager(snapshot: Snapshot) -> dict[Manager, list[TimerState]]:
    """Return the timers by the systemd that holds them."""
    found: dict[Manager, list[TimerState]] = {}
    for state in snapshot.timers:
        found.setdefault(state.manager, []).append(state)
    return found


def names_of(units: Units, states: Collection[TimerState]) -> list[str]:
    """Return all names of these timers."""
    known = [name for timer in units.timers.values() for name in (timer.name, *timer.aliases)]
    return list(dict.fromkeys([*(state.timer for state in states), *known]))


def off(where: Folders, names: Collection[str]) -> Changes:
    """Return what keeps every link from starting these timers: its removal, or where a package owns it a mask."""
    own, masks = Changes(), Changes()
    for link in (Path(link.path) for name in names for link in where.links(name)):
        if where.kind(link) == "vendor":
            masks.append((where.mask_of(link), NOWHERE))
        else:
            own.append((link, None))
    return own + masks


def back(where: Folders, states: Collection[TimerState]) -> Changes:
    """Return where each link is to lead: those that were there, and no other."""
    wanted: dict[Path, str | None] = {}
    for name in dict.fromkeys(state.timer for state in states):
        for link in where.links(name):
            if where.kind(Path(link.path)) != "vendor":
                wanted[Path(link.path)] = None
    for state in states:
        for path, target in ((Path(link.path), link.target) for link in state.links):
            if where.is_gone(path):
                continue
            if where.kind(path) != "vendor":
                wanted[path] = target
            elif unit_links.target_of(where.mask_of(path)) == NOWHERE:
                wanted.setdefault(where.mask_of(path), None)
    return list(wanted.items())


def expected_of(states: Collection[TimerState], units: Units) -> list[tuple[Timer, bool]]:
    """Return each timer and whether it is to be active. One without links does not outlive a boot."""
    found: dict[str, tuple[Timer, bool]] = {}
    for state in states:
        timer = units.timers.get(state.timer)
        if timer is not None:
            active = state.active and (state.starts_at_boot or state.boot_id == host_facts.boot_id())
            found[timer.name] = (timer, active or (timer.name in found and found[timer.name][1]))
    return list(found.values())
