"""Environment files on disk, in the form of systemd's EnvironmentFile=."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from orchctl.adapters import belief
from orchctl.core import env_file
from orchctl.errors import NotBelieved

LONGEST = 1 << 20
"""Bytes: such files hold a few variables. Without a limit /dev/zero would take the host's memory."""


def read(path: str, *, trust: Collection[int] | None = None) -> dict[str, str]:
    """Return the variables of a file. Raises OSError, or ValueError where it is no such file.

    `trust` are users (uids) whose files count as ours; then NotBelieved is raised for a file that anybody else could
    have written: who sets LD_PRELOAD for a command says what it does. None: only to know what is in it.
    """
    # A pipe that nobody writes to must not hold the run up.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            raise ValueError("it is not a file")
        # What a device (/dev/null) says is nobody's to write.
        believe = trust is not None and stat.S_ISREG(status.st_mode)
        if found := belief.doubts(Path(path), status, trust=trust or ()) if believe else ():
            said, hint = belief.told(found)
            raise NotBelieved(f"somebody else could have written it: {said}", hint=hint)
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"it is larger than {LONGEST >> 20} MiB")
    return env_file.parse(content)


def variables_or_none(path: str) -> dict[str, str]:
    """Return the variables of a file, none where it cannot be read."""
    try:
        return read(path)
    except (OSError, ValueError):
        return {}
