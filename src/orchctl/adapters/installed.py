"""The record of what `orchctl host install` put on this host, and the settings of its server and workers."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

from orchctl.adapters import env_files, files
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.backup import stamp
from orchctl.core.installation import Installation
from orchctl.errors import NotAllowed, StateBroken

_RECORD = "installation.json"
_SETTINGS = "settings.env"


class Installed:
    """Reads and writes `<state_dir>/host/installation.json`."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = StateFolder(state_dir, "host")

    def read(self) -> Installation | None:
        """Return the installation, None where there is none. Raises StateBroken where its record cannot be believed."""
        data = self._folder.read_json(_RECORD)
        if data is None:
            return None
        try:
            return Installation.from_json(data)
        except (ValueError, KeyError) as error:
            path = self._folder.path(_RECORD)
            raise StateBroken(f"{path} cannot be believed: {error}") from error

    def write(self, installation: Installation) -> None:
        """Replace the record."""
        self._folder.write(_RECORD, installation.to_json())

    def remove(self) -> None:
        """Remove the record. Repeatable."""
        self._folder.remove(_RECORD)

    @property
    def settings_path(self) -> str:
        """Where the settings of server and workers are, or would be."""
        return str(self._folder.path(_SETTINGS))

    def settings_text(self) -> str | None:
        """Return the file of settings, secrets among them; None where there is none. Raises StateBroken."""
        content = self._folder.read(_SETTINGS)
        return None if content is None else content.decode("utf-8", "replace")

    def write_settings(self, text: str) -> None:
        """Replace the file of settings, for its owner alone."""
        self._folder.write_bytes(_SETTINGS, text.encode())

    def remove_settings(self) -> None:
        """Remove the file of settings. Repeatable."""
        self._folder.remove(_SETTINGS)

    def keep_settings(self, at: datetime) -> str:
        """Copy the file of settings beside it, for its owner alone, and return the copy's path. Repeatable.

        `at` (UTC) is in its name; what is kept already is not kept again. Raises StateBroken where there is none.
        """
        content = self._folder.read(_SETTINGS)
        if content is None:
            raise StateBroken(f"there is no {self.settings_path}")
        same = (name for name in self._kept() if self._folder.read(name) == content)
        name, number = f"{_SETTINGS}.before-{stamp(at)}", 0
        found = next(same, None)
        while found is None:
            taken = f"{name}.{number}" if number else name
            found = taken if self._folder.create_bytes(taken, content) else None
            number += 1
        return str(self._folder.path(found))

    def kept_settings(self) -> str | None:
        """Return where the newest settings are that were kept, None where none were."""
        names = self._kept()
        return str(self._folder.path(names[-1])) if names else None

    def _kept(self) -> list[str]:
        return [name for name in self._folder.names() if name.startswith(f"{_SETTINGS}.before-")]

    @staticmethod
    def make_home(path: str) -> None:
        """Make the folder of the server's database, for its owner alone. Repeatable."""
        files.make_private(Path(path))

    @staticmethod
    def settings(installation: Installation) -> dict[str, str]:
        """Return the settings of server and workers, secrets among them: never print one.

        Raises NotAllowed where they may not be read, StateBroken where others could have read or written them.
        """
        path = installation.settings
        try:
            status = os.stat(path, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise StateBroken(f"{path} may be read by others", hint=f"look at it, then: chmod 600 {path}")
            return env_files.read(path)
        except PermissionError as error:
            raise NotAllowed(f"cannot read {path}: {error.strerror}", hint="use sudo") from error
        except (OSError, ValueError) as error:
            raise StateBroken(f"cannot read {path}: {error}") from error
