"""`state/alerts/`: what `alerts apply` put in force, and the box of each channel, which a server's threads share.

The box is changed under a lock that is held for the blink of a change; who sends holds another one, so that no message
is sent twice at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from orchctl.adapters import files
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.alert_box import Box
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.names import is_name, parse_instant
from orchctl.errors import StateBroken

_T = TypeVar("_T")


class AlertBoxes:
    """The folder."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._alerts = StateFolder(state_dir, "alerts")
        self._applied = StateFolder(state_dir, "alerts/applied")
        self._boxes = StateFolder(state_dir, "alerts/boxes")

    def applied(self, catalog: str) -> AppliedAlerts | None:
        """Return what is in force for a catalog, None where nothing is. Raises StateBroken."""
        if not is_name(catalog):  # Prefect's API says which one
            raise StateBroken(f"there can be no catalog {catalog!r:.80}")
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

    def box(self, channel: str) -> Box:
        """Return the box of a channel. One that cannot be believed is begun anew: better too many alerts than none."""
        with contextlib.suppress(StateBroken, KeyError, TypeError, ValueError, AttributeError):
            data = self._boxes.read_json(f"{channel}.json")
            if data is not None:
                return Box.from_json(data)
        return Box()

    def change(self, channel: str, change: Callable[[Box], tuple[Box, _T]]) -> _T:
        """Change the box of a channel; nobody else does meanwhile. Returns what `change` returns beside the box."""
        with self._locked(f"{channel}.change"):
            before = self.box(channel)
            box, found = change(before)
            if box != before:
                self._boxes.write(f"{channel}.json", box.to_json())
            return found

    @contextlib.contextmanager
    def sending(self, channel: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to send through a channel. `wait`: until whoever has it is done; else False where one has."""
        path = self._lock_path(f"{channel}.send")
        descriptor = files.open_lock(path)
        try:
            if wait:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield True
            else:
                yield files.try_lock(descriptor, path)
        finally:
            os.close(descriptor)

    def watchdog_looked(self) -> datetime | None:
        """Return when the watchdog looked last, None where it never did or left nothing that can be believed."""
        with contextlib.suppress(StateBroken, KeyError, TypeError, ValueError):
            data = self._alerts.read_json("watch.json")
            if data is not None:
                return parse_instant(data["at"])
        return None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        descriptor = files.open_lock(self._lock_path(name))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _lock_path(self, name: str) -> Path:
        if not is_name(name.partition(".")[0]):
            raise StateBroken(f"there can be no channel {name!r:.80}")
        files.make_private(self._boxes.path("x").parent)
        return self._boxes.path(f".{name}.lock")
