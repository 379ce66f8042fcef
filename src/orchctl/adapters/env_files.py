"""Environment files on disk, in the form of systemd's EnvironmentFile=."""

from __future__ import annotations

import os
import stat

from orchctl.core import env_file

LONGEST = 1 << 20
"""Bytes: such files hold a few variables. Without a limit /dev/zero would take the host's memory."""


def read(path: str) -> dict[str, str]:
    """Return the variables of a file. Raises OSError, or ValueError where it is no such file."""
    # A pipe that nobody writes to must not hold the run up.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise ValueError("it is not a file")
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
