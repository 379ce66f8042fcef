"""Owner files: `state/owners/<job>.json` exists exactly while Prefect owns the job."""

from __future__ import annotations

from pathlib import Path

from orchctl.adapters import files
from orchctl.core.names import parse_instant
from orchctl.core.slots import Owner
from orchctl.errors import StateBroken


class Owners:
    """Who owns each job."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "owners"

    def read(self, job: str) -> Owner | None:
        """Return Prefect's ownership of `job`, None where legacy owns it.

        Raises StateBroken on a file that cannot be believed: it never reads as "Prefect owns it".
        """
        path = self._directory / f"{job}.json"
        data = files.read_json(path)
        if data is None:
            return None
        if not isinstance(data, dict) or not isinstance(data.get("draining", False), bool):
            raise StateBroken(f"{path} is not an owner file")
        try:
            return Owner(since=parse_instant(str(data.get("since"))), draining=data.get("draining", False))
        except ValueError as error:
            raise StateBroken(f"{path} is not an owner file: {error}") from error
