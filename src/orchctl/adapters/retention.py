"""Up to when the logs of a job have been pruned: `state/retention/`. May be lost: then all history is looked at."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from orchctl.adapters.state_folder import StateFolder
from orchctl.core.names import format_instant, parse_instant
from orchctl.errors import StateBroken

_NAME = "marks.json"


class Marks:
    """Instants by data root, job and kind."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = StateFolder(state_dir, "retention")

    def read(self, data_root: str, job: str, kind: str) -> datetime | None:
        """Return up to when all was done, None where that is not known."""
        try:
            return parse_instant(str(self._all()[data_root][job][kind]))
        except (KeyError, TypeError, ValueError):
            return None

    def write(self, data_root: str, job: str, kind: str, at: datetime) -> None:
        """Write down up to when all is done."""
        data = self._all()
        data.setdefault(data_root, {}).setdefault(job, {})[kind] = format_instant(at)
        self._folder.write(_NAME, data)

    def _all(self) -> dict[str, Any]:
        try:
            data = self._folder.read_json(_NAME)
        except StateBroken:
            return {}
        return data if isinstance(data, dict) else {}
