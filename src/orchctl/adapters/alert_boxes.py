"""`state/alerts/`: what `alerts apply` put in force, and the box of each channel, which a server's threads share.

Two catalogs may each have a channel of the same name: a box is of one channel of one catalog. It is changed under a
lock that is held for the blink of a change; who sends holds another one, so that no message is sent twice at a time.
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
_UNBELIEVABLE = (StateBroken, KeyError, TypeError, ValueError, AttributeError)


class AlertBoxes:
    """The folder."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._alerts = StateFolder(state_dir, "alerts")
        self._applied = StateFolder(state_dir, "alerts/applied")

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


def _check(name: str, what: str) -> None:
    if not is_name(name):
        raise StateBroken(f"there can be no {what} {name!r:.80}")
