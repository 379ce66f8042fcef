"""`state/alerts/`: what `alerts apply` put in force, and the box of each channel, which a server's threads share.

Two catalogs may each have a channel of the same name: a box is of one channel of one catalog. It is changed under a
lock that is held for the blink of a change; who sends holds another one, so that no message is sent twice at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from orchctl.adapters import files
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.alert_box import Box, Told
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.names import is_name, parse_instant
from orchctl.errors import StateBroken

_T = TypeVar("_T")
_UNBELIEVABLE = (StateBroken, KeyError, TypeError, ValueError, AttributeError)


class AlertBoxes:
    """The folder."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._alerts = StateFolder(state_dir, "alerts")
        self._applied = StateFolder(state_dir, "alerts/applied")

    def catalogs(self) -> tuple[str, ...]:
        """Return the names of the catalogs whose alerts are in force, sorted. Raises StateBroken."""
        names = (file.removesuffix(".json") for file in self._applied.names() if file.endswith(".json"))
        return tuple(name for name in names if is_name(name))

    def variables(self) -> frozenset[str]:
        """Return the variables of the environment that hold secrets of alerts: of all that is in force, and of the
        `alerts.toml` that the watchdog read last. What cannot be believed says nothing. Raises nothing.
        """
        found = set[str]()
        with contextlib.suppress(StateBroken):
            for catalog in self.catalogs():
                with contextlib.suppress(StateBroken):
                    force = self.applied(catalog)
                    found |= force.alerts.variables if force is not None else set()
        with contextlib.suppress(*_UNBELIEVABLE):
            tables = tomllib.loads((self._alerts.read("alerts.toml") or b"").decode())
            for table in [*tables.get("channels", {}).values(), tables.get("watchdog", {})]:
                found |= {str(value) for key, value in table.items() if key.endswith("_env")}
        return frozenset(found)

    def applied(self, catalog: str) -> AppliedAlerts | None:
        """Return what is in force for a catalog, None where nothing is. Raises StateBroken."""
        _check(catalog, "catalog")  # Prefect's API says which one
        data = self._applied.read_json(f"{catalog}.json")
        if data is None:
            return None
        try:
            return AppliedAlerts.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = self._applied.path(f"{catalog}.json")
            raise StateBroken(f"{path} cannot be believed: {error}", hint="run `orchctl alerts apply`") from error

    def apply(self, applied: AppliedAlerts) -> None:
        """Put alerts in force. Repeatable."""
        self._applied.write(f"{applied.catalog}.json", applied.to_json())

    def box(self, catalog: str, channel: str) -> Box:
        """Return the box of a channel. One that cannot be believed is begun anew: better too many alerts than none.

        Raises StateBroken for a name that is none.
        """
        folder = self._folder(catalog, channel)
        with contextlib.suppress(*_UNBELIEVABLE):
            data = folder.read_json(f"{channel}.json")
            if data is not None:
                return Box.from_json(data)
        return Box()

    def change(self, catalog: str, channel: str, change: Callable[[Box], tuple[Box, _T]]) -> _T:
        """Change the box of a channel; nobody else does meanwhile. Returns what `change` returns beside the box."""
        folder = self._folder(catalog, channel)
        with self._locked(folder, f"{channel}.change", wait=True):
            before = self.box(catalog, channel)
            box, found = change(before)
            if box != before:
                folder.write(f"{channel}.json", box.to_json())
            return found

    def sending(self, catalog: str, channel: str, *, wait: bool) -> contextlib.AbstractContextManager[bool]:
        """Hold the right to send through a channel. `wait`: until whoever has it is done; else False where one has."""
        return self._locked(self._folder(catalog, channel), f"{channel}.send", wait=wait)

    def watchdog_looked(self) -> datetime | None:
        """Return when the watchdog looked last, None where it never did or left nothing that can be believed."""
        with contextlib.suppress(StateBroken, KeyError, TypeError, ValueError):
            data = self._alerts.read_json("watch.json")
            if data is not None:
                return parse_instant(data["at"])
        return None

    def _folder(self, catalog: str, channel: str) -> StateFolder:
        _check(catalog, "catalog")
        _check(channel, "channel")
        return StateFolder(self._state_dir, f"alerts/boxes/{catalog}")

    @staticmethod
    @contextlib.contextmanager
    def _locked(folder: StateFolder, name: str, *, wait: bool) -> Iterator[bool]:
        path = folder.path(f".{name}.lock")
        files.make_private(path.parent)
        descriptor = files.open_lock(path)
        try:
            if wait:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield wait or files.try_lock(descriptor, path)
        finally:
            os.close(descriptor)


class UnwrittenBoxes:
    """Boxes in the memory of this process, for what cannot be written to `disk`: what is told is none the less told
    once, and without a storm. What waits in them is gone with the process.
    """

    def __init__(self, disk: AlertBoxes) -> None:
        self._disk = disk
        self._guard = threading.RLock()
        self._boxes: dict[tuple[str, str], Box] = {}
        self._newer: set[tuple[str, str]] = set()
        self._senders = defaultdict[tuple[str, str], threading.Lock](threading.Lock)

    def catalogs(self) -> tuple[str, ...]:
        """Return what is in force; see `AlertBoxes`."""
        return self._disk.catalogs()

    def applied(self, catalog: str) -> AppliedAlerts | None:
        """Return what is in force; see `AlertBoxes`."""
        return self._disk.applied(catalog)

    def watchdog_looked(self) -> datetime | None:
        """Return when the watchdog looked last; see `AlertBoxes`."""
        return self._disk.watchdog_looked()

    def newer(self, catalog: str, channel: str) -> Mapping[str, Mapping[str, Told]] | None:
        """Return the troubles of a channel where they are newer than those on the disk, else None."""
        with self._guard:
            return self._boxes[catalog, channel].troubles if (catalog, channel) in self._newer else None

    def settled(self, catalog: str, channel: str) -> None:
        """Take note that the troubles of a channel are on the disk."""
        with self._guard:
            self._newer.discard((catalog, channel))

    def box(self, catalog: str, channel: str) -> Box:
        """Return the box of a channel: its own messages, with the troubles that are known on the disk or here."""
        with self._guard:
            box = self._boxes.get((catalog, channel), Box())
            if (catalog, channel) in self._newer:
                return box
            return replace(box, troubles=self._disk.box(catalog, channel).troubles)

    def change(self, catalog: str, channel: str, change: Callable[[Box], tuple[Box, _T]]) -> _T:
        """Change the box of a channel; see `AlertBoxes`."""
        with self._guard:
            before = self.box(catalog, channel)
            box, found = change(before)
            self._boxes[catalog, channel] = box
            if box.troubles != before.troubles:
                self._newer.add((catalog, channel))
            return found

    @contextlib.contextmanager
    def sending(self, catalog: str, channel: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to send through a channel; see `AlertBoxes`."""
        with self._guard:
            lock = self._senders[catalog, channel]
        mine = lock.acquire(blocking=wait)
        try:
            yield mine
        finally:
            if mine:
                lock.release()


def _check(name: str, what: str) -> None:
    if not is_name(name):
        raise StateBroken(f"there can be no {what} {name!r:.80}")
