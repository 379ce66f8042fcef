"""What the looks at the legacy history left, one file a job: `state/observed/<job>.json`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from orchctl.adapters import files
from orchctl.core import observed
from orchctl.core.observed import Looked
from orchctl.errors import OrchctlError, StateBroken

_POLL_S = 0.1
_T = TypeVar("_T")


class Observed:
    """Where each job's last look ended."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "observed"

    def read(self, job: str) -> Looked | None:
        """Return what the last look left; None where there is nothing, or nothing that can be believed.

        Then the next look reads the whole journal and writes it anew: the manifests say what was brought in.
        """
        try:
            data = files.read_json(self._directory / f"{job}.json")
            return None if data is None else observed.from_json(data)
        except (StateBroken, ValueError):
            return None

    def write(self, job: str, looked: Looked) -> None:
        """Write down where a look ended."""
        content = files.dump(observed.to_json(looked))
        _once_more(lambda: self._write(job, content))

    def _write(self, job: str, content: bytes) -> None:
        files.make_private(self._directory)
        owner = files.heir(self._directory)
        files.write_together([files.Content(self._directory / f"{job}.json", content, 0o600, owner=owner)])

    @contextlib.contextmanager
    def alone(self, job: str, *, patience_s: float) -> Iterator[bool]:
        """Keep other observers of this job out; gives False where one was still at it after `patience_s` seconds."""
        path = self._directory / f"{job}.lock"
        descriptor = _once_more(lambda: files.open_lock(path))
        try:
            until = time.monotonic() + patience_s
            while not (taken := files.try_lock(descriptor, path)) and time.monotonic() < until:
                time.sleep(_POLL_S)
            yield taken
        finally:
            os.close(descriptor)


def _once_more(do: Callable[[], _T]) -> _T:
    """Do it, and once more where it failed: somebody may have removed the state directory at this very moment."""
    try:
        return do()
    except OrchctlError:
        return do()
