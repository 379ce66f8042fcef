"""Who is trusted to vouch for a receiver: the authorities of the system, and those of a file.

To read those of the system takes a tenth of a second and more: they are read once, and anew where a file has changed.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


class NoAuthority(ValueError):
    """The file of a channel's authorities cannot be read."""


class Authorities:
    """One context for each file, for one protocol: a client may write into the context what it speaks (ALPN)."""

    def __init__(self) -> None:
        self._read: dict[str | None, tuple[object, ssl.SSLContext]] = {}

    def of(self, ca_file: str | None) -> ssl.SSLContext:
        """Return what verifies a server; `ca_file` None: by the system's authorities alone. Raises NoAuthority."""
        import ssl

        state = (_state(ssl.get_default_verify_paths().cafile), _state(ca_file))
        known = self._read.get(ca_file)
        if known is not None and known[0] == state:
            return known[1]
        context = _trusting(ca_file)
        self._read[ca_file] = (state, context)
        return context


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except OSError as error:
        raise NoAuthority(f"the certificates in {ca_file} cannot be read: {error.strerror or 'not PEM'}") from error
    return context


def _state(path: str | None) -> tuple[int, ...] | None:
    """Return what of a file changes with its content; None where it cannot be looked at."""
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(path)
            return found.st_ino, found.st_mtime_ns, found.st_size
    return None
