"""A folder of the state directory: files 0600 in a folder 0700, each whole or not at all, believed only where ours.

The state directory is looked at too: who may write it could take a folder away, and with it what was claimed.

What root makes in another user's state directory belongs to that user, whose worker reads it; and root believes what
that user wrote there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchctl.adapters import belief, files
from orchctl.adapters.files import Content
from orchctl.errors import StateBroken


class StateFolder:
    """`<state_dir>/<name>`; made when something is written into it."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / name

    def path(self, name: str) -> Path:
        """Return where a file is, or would be."""
        return self._folder / name

    def read_json(self, name: str) -> Any | None:
        """Return what a JSON file says, None where there is none. Raises StateBroken."""
        self._look()
        return files.read_json(self.path(name), trust=self._trusted())

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None where there is none. Raises StateBroken."""
        self._look()
        return files.read_believed(self.path(name), trust=self._trusted())

    def names(self) -> tuple[str, ...]:
        """Return the names in the folder, sorted; of files that are being written, none. Raises StateBroken."""
        try:
            return tuple(sorted(name for name in os.listdir(self._folder) if not name.startswith(".")))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StateBroken(f"cannot look into {self._folder}: {error.strerror}") from error

    def write(self, name: str, data: object) -> None:
        """Replace a JSON file in one step."""
        self.write_bytes(name, files.dump(data))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Replace a file in one step. Raises StateBroken where the folder is not ours to believe."""
        self._prepare()
        files.write_together([Content(self.path(name), content, 0o600, True, files.heir(self._folder))])

    def create(self, name: str, data: object, *, still: Callable[[], bool] = lambda: True) -> bool:
        """Create a JSON file unless it is there, or it is not `still` to be; return whether we did."""
        return self.create_bytes(name, files.dump(data), still=still)

    def create_bytes(self, name: str, content: bytes, *, still: Callable[[], bool] = lambda: True) -> bool:
        """Create a file unless it is there, or it is not `still` to be; return whether we did.

        Raises StateBroken where the folder is not ours to believe: what is made there, nobody would find again.
        """
        self._prepare()
        return files.create_exclusive(self.path(name), content, owner=files.heir(self._folder), still=still)

    def append(self, name: str, line: bytes) -> None:
        """Append a line to a file; it is on the disk when this returns."""
        files.append_line(self.path(name), line, durable=True)

    def remove(self, name: str) -> None:
        """Remove a file. Repeatable."""
        files.remove(self.path(name))

    def _prepare(self) -> None:
        files.make_private(self._folder)
        self._look()
        files.believe_folder(self._folder, trust=self._trusted())

    def _look(self) -> None:
        """Raise StateBroken where somebody else may write the state directory itself."""
        trusted = self._trusted()
        try:
            found = belief.doubts_below(self._state_dir, (), trust=() if trusted is None else (trusted,))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateBroken(f"cannot look at {self._state_dir}: {error.strerror}") from error
        if found:
            said, hint = belief.told(found)
            raise StateBroken(f"the state directory cannot be believed: {said}", hint=hint)

    def _trusted(self) -> int | None:
        """Return the owner of the state directory where root acts on another's, else None."""
        return belief.owner(self._state_dir)
