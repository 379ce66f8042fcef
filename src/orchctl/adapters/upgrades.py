"""The journal of an upgrade that is not finished: `<state_dir>/host/upgrade.json`."""

from __future__ import annotations

from pathlib import Path

from orchctl.adapters.state_folder import StateFolder
from orchctl.core.upgrade import JOURNAL, Journal
from orchctl.errors import StateBroken


class Upgrades:
    """Reads and writes the journal."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = StateFolder(state_dir, "host")

    def read(self) -> Journal | None:
        """Return the journal, None where no upgrade is unfinished. Raises StateBroken where it cannot be believed."""
        data = self._folder.read_json(JOURNAL)
        if data is None:
            return None
        try:
            return Journal.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            path = self._folder.path(JOURNAL)
            raise StateBroken(f"{path} cannot be believed: {error}", hint="see docs/host.md, Upgrades") from error

    def write(self, journal: Journal) -> None:
        """Replace the journal; it is on the disk when this returns."""
        self._folder.write(JOURNAL, journal.to_json())

    def remove(self) -> None:
        """Remove the journal. Repeatable."""
        self._folder.remove(JOURNAL)
