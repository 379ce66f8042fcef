"""Where the lines and events of a run go besides the disk and Prefect: to Loki, where the catalog says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from orchctl.adapters import files
from orchctl.core.loki import Kind
from orchctl.errors import OrchctlError
from orchctl.runner.output import decoded

PATIENCE_S = 5.0
"""How long the end of a run waits for Loki, with everything on disk and no lock held."""
INTERRUPTED_S = 1.0
"""The same for a run that is cancelled: Prefect kills it when it does not end."""


class Ship(Protocol):
    """`adapters.loki.Loki`."""

    def put(self, lines: Iterable[tuple[Kind, str]], about: Mapping[str, str]) -> None: ...  # noqa: D102
    def close(self, patience_s: float) -> str | None: ...  # noqa: D102


class Nowhere:
    """What a run has whose catalog names no other place."""

    def put(self, lines: Iterable[tuple[Kind, str]], about: Mapping[str, str]) -> None:
        """Take nothing."""

    def close(self, patience_s: float) -> str | None:  # noqa: ARG002
        """Lose nothing."""
        return None


def to_lines(ship: Ship, about: Mapping[str, str]) -> Callable[[Sequence[bytes]], None] | None:
    """Return what takes the lines of one attempt's output, masked as they are; None where nobody wants them."""
    if isinstance(ship, Nowhere):
        return None
    return lambda lines: ship.put([("log", decoded(line)) for line in lines], about)


def tell(ship: Ship, event: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Pass on an event."""
    ship.put([("event", json.dumps(event, ensure_ascii=False, separators=(",", ":")))], about)


def close(ship: Ship, log: Callable[[str], None], log_path: Path, *, interrupted: bool) -> None:
    """Wait for what is on its way, and say in the logs what did not arrive. Raises nothing of its own."""
    lost = ship.close(INTERRUPTED_S if interrupted else PATIENCE_S)
    if lost is not None:
        log(lost)
        with suppress(OrchctlError):
            if log_path.exists():
                files.append_line(log_path, f"[orchctl] {lost}\n".encode("utf-8", "backslashreplace"))
