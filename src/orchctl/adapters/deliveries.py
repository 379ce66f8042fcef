"""`state/alerts/`: what the watchdog remembers, what waits for delivery, and how each channel answered last.

A full disk must not make it tell the same every minute: what cannot be written there is written to `spare`, a folder in
memory that systemd keeps for the watchdog. The newer of the two is believed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from orchctl.adapters.state_folder import StateFolder
from orchctl.core.deliveries import Answer, Delivery
from orchctl.core.names import is_name
from orchctl.core.watch_memory import Known, Memory, Written
from orchctl.errors import OrchctlError, StateBroken

_MEMORY, _SLOTS, _CONFIG = "watch.json", "slots.json", "alerts.toml"
LARGEST = 4 << 20
"""Bytes of an alerts.toml: a larger one is not kept."""
_T = TypeVar("_T")


class Deliveries:
    """The folder. `spare`: where what cannot be written goes instead, None: nowhere."""

    def __init__(self, state_dir: Path, spare: Path | None = None) -> None:
        self._state_dir = state_dir
        self._folder = StateFolder(state_dir, "alerts")
        self._spare = StateFolder(spare.parent, spare.name) if spare is not None else None

    def memory(self) -> tuple[Memory, str | None]:
        """Return what is remembered, and why something of it could not be believed; then that part is forgotten."""
        found, said = list[tuple[datetime, Memory]](), list[str]()
        for folder in (self._folder, self._spare):
            if folder is None:
                continue
            try:
                read = _parsed(folder, _MEMORY, Memory.from_json)
            except StateBroken as error:
                said.append(error.message)
                continue
            found += [read] if read is not None else []
        newest = max(found, key=lambda each: each[0], default=None)
        return (newest[1] if newest is not None else Memory()), "; ".join(said) or None

    def remember(self, memory: Memory, at: datetime) -> Written:
        """Write what is to be remembered. Never raises."""
        return self._write(_MEMORY, lambda folder: folder.write(_MEMORY, memory.to_json(at)))

    def slots(self) -> Known | None:
        """Return the instants of schedules that are known; None where none are, or they cannot be believed."""
        for folder in filter(None, (self._spare, self._folder)):
            with contextlib.suppress(StateBroken):
                known = _parsed(folder, _SLOTS, Known.from_json)
                if known is not None:
                    return known
        return None

    def keep_slots(self, known: Known) -> str | None:
        """Write the instants of schedules; return why that failed."""
        return self._write(_SLOTS, lambda folder: folder.write(_SLOTS, known.to_json())).problem

    def config(self) -> bytes | None:
        """Return the last `alerts.toml` that was valid, None where there is none that can be believed."""
        with contextlib.suppress(StateBroken):
            return self._folder.read(_CONFIG)
        return None

    def keep_config(self, content: bytes) -> None:
        """Keep an `alerts.toml` that is valid. Where it cannot be written, the one before stays."""
        if len(content) > LARGEST or self.config() == content:
            return
        with contextlib.suppress(OrchctlError):
            self._folder.write_bytes(_CONFIG, content)

    def last(self, catalog: str) -> dict[str, Delivery]:
        """Return the last delivery of each channel of a catalog, by name. Raises StateBroken where one cannot be
        believed.
        """
        found, folder = dict[str, Delivery](), self._last(catalog)
        for file in folder.names():
            name = file.removesuffix(".json")
            if is_name(name) and file.endswith(".json"):
                read = _parsed(folder, file, Delivery.from_json)
                found |= {name: read} if read is not None else {}
        return found

    def note(
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int, dropped: int | None = None
    ) -> str | None:
        """Write how a channel answered; return why that failed.

        `waiting`: how many messages still wait for it, in its box where `dropped` says how many that has given up;
        `dropped` None: of the watchdog's. What the other of the two wrote down stays.
        """
        folder, before = self._last(catalog), None
        with contextlib.suppress(StateBroken):
            before = _parsed(folder, f"{channel}.json", Delivery.from_json)
        before = before or Delivery(channel, at, answer.ok, answer.said)
        boxed = waiting if dropped is not None else before.boxed
        letters = waiting if dropped is None else before.waiting - before.boxed
        delivery = Delivery(
            channel,
            at,
            answer.ok,
            answer.said,
            ok_at=at if answer.ok else before.ok_at,
            waiting=boxed + letters,
            boxed=boxed,
            dropped=dropped if dropped is not None else before.dropped,
        )
        try:
            folder.write(f"{channel}.json", delivery.to_json())
        except (OrchctlError, OSError) as error:
            return str(error)
        return None

    def _last(self, catalog: str) -> StateFolder:
        return StateFolder(self._state_dir, f"alerts/last/{catalog}")

    def _write(self, name: str, write: Callable[[StateFolder], None]) -> Written:
        try:
            write(self._folder)
        except (OrchctlError, OSError) as error:
            kept = False
            if self._spare is not None:
                with contextlib.suppress(OrchctlError, OSError):
                    write(self._spare)
                    kept = True
            return Written(str(error), kept)
        if self._spare is not None:
            with contextlib.suppress(OrchctlError, OSError):
                self._spare.remove(name)
        return Written()


def _parsed(folder: StateFolder, name: str, parse: Callable[[Any], _T]) -> _T | None:
    data = folder.read_json(name)
    if data is None:
        return None
    try:
        return parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateBroken(
            f"{folder.path(name)} cannot be believed: {error}", hint="look at it, and remove it"
        ) from error
