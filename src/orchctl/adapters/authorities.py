"""Who is trusted to vouch for a receiver: the authorities of the system, and those of a file.

Such a file is believed as the catalog is (`adapters/belief.py`): who could write it could stand in for a receiver. To
read those of the system takes a tenth of a second and more: they are read once, and anew where a file has changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl.adapters import belief

if TYPE_CHECKING:
    import ssl


class NoAuthority(ValueError):
    """The file of a channel's authorities cannot be read, or not be believed."""


class Authorities:
    """One context for each file, for one protocol: a client may write into the context what it speaks (ALPN).

    `trust` are users (uids) whose files count as ours.
    """

    def __init__(self, trust: Collection[int] = ()) -> None:
        self._trust = trust
        self._read: dict[str | None, tuple[object, ssl.SSLContext]] = {}

    def of(self, ca_file: str | None) -> ssl.SSLContext:
        """Return what verifies a server; `ca_file` None: by the system's authorities alone. Raises NoAuthority."""
        import ssl

        state = (_state(ssl.get_default_verify_paths().cafile), _state(ca_file))
        known = self._read.get(ca_file)
        if known is not None and known[0] == state:
            return known[1]
        context = _trusting(ca_file, self._trust)
        self._read[ca_file] = (state, context)
        return context


def _trusting(ca_file: str | None, trust: Collection[int]) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    if ca_file is None:
        return context
    try:
        # A pipe that nobody writes to must not hold us up.
        descriptor = os.open(ca_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NoAuthority(f"the certificates in {ca_file} cannot be read: it is not a plain file")
            if doubts := belief.doubts(Path(ca_file), status, trust=trust):
                said, _ = belief.told(doubts)
                raise NoAuthority(f"somebody else could have written {ca_file}: {said}")
            # What was looked at is what is read, whoever changes the name meanwhile.
            context.load_verify_locations(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NoAuthority(f"the certificates in {ca_file} cannot be read: {error.strerror or 'not PEM'}") from error
    return context


def _state(path: str | None) -> tuple[int, ...] | None:
    """Return what of a file changes with its content, mode and owner; None where it cannot be looked at."""
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(path)
            return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
    return None
