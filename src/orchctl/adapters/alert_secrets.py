"""The secrets of channels: each in a variable of the environment, or alone in a file that only its owner can read.

Such a file is believed as the catalog is (`adapters/belief.py`): who could put another in its place would be told.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from orchctl.adapters import belief
from orchctl.core.alerts import Secret
from orchctl.errors import NotAllowed, NotBelieved, OrchctlError, StateBroken

LONGEST = 1 << 16
"""Bytes: a secret is a line. Without a limit /dev/zero would take the host's memory."""

_SHORTEST_PART = 6


def read(secret: Secret, environment: Mapping[str, str], *, trust: Collection[int] = ()) -> str:
    """Return a secret: never print it. `trust` are users (uids) whose files count as ours.

    Raises OrchctlError where it is not there, NotAllowed where it may not be read, StateBroken where others could have
    read it, NotBelieved where they could have written it.
    """
    if secret.env is not None:
        value, place = environment.get(secret.env, ""), f"the variable {secret.env}"
    else:
        value, place = _from_file(str(secret.file), trust), str(secret.file)
    value = value.strip()
    if not value:
        raise OrchctlError(f"{place}, which should hold a secret, is empty or not there", hint="see config/alerts.toml")
    if not value.isprintable():
        raise OrchctlError(f"{place} holds more than one line, or what no secret holds", hint="one line, and no more")
    return value


def parts(address: str) -> list[str]:
    """Return what of an address is secret: all after the host, whole and in parts, and user information."""
    split = urlsplit(address)
    path = address.partition("://")[2].partition("/")[2]
    words = [word for word in re.split("[/?&=]", path) if len(word) >= _SHORTEST_PART]
    return [address, f"/{path}", path, split.path, *words, split.password or "", split.username or ""]


def _from_file(path: str, trust: Collection[int]) -> str:
    try:
        # A pipe that nobody writes to must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except PermissionError as error:
        raise NotAllowed(f"cannot read {path}: {error.strerror}", hint="see who owns it") from error
    except OSError as error:
        raise OrchctlError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise StateBroken(f"{path} is not a plain file")
        if status.st_mode & 0o077:
            raise StateBroken(f"{path} may be read by others", hint=f"look at who did, then: chmod 600 {path}")
        _believe(path, status, trust)
        content = file.read(LONGEST + 1)
    try:
        return content.decode() if len(content) <= LONGEST else "\n"
    except UnicodeDecodeError:
        return "\n"


def _believe(path: str, status: os.stat_result, trust: Collection[int]) -> None:
    try:
        doubts = belief.doubts(Path(path), status, trust=trust)
    except OSError as error:
        raise OrchctlError(f"the way to {path} cannot be looked at: {error.strerror}") from error
    if doubts:
        said, mend = belief.told(doubts)
        raise NotBelieved(f"somebody else could have written {path}: {said}", hint=mend)
