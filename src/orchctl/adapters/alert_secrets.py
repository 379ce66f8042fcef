"""The secrets of channels: each in a variable of the environment, or alone in a file that only its owner can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from urllib.parse import urlsplit

from orchctl.core.alerts import Secret
from orchctl.errors import NotAllowed, OrchctlError, StateBroken

LONGEST = 1 << 16
"""Bytes: a secret is a line. Without a limit /dev/zero would take the host's memory."""

_SHORTEST_PART = 6


def read(secret: Secret, environment: Mapping[str, str]) -> str:
    """Return a secret: never print it.

    Raises OrchctlError where it is not there, NotAllowed where it may not be read, StateBroken where others could have
    read or written it.
    """
    if secret.env is not None:
        value, place = environment.get(secret.env, ""), f"the variable {secret.env}"
    else:
        value, place = _from_file(str(secret.file)), str(secret.file)
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


def _from_file(path: str) -> str:
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
        content = file.read(LONGEST + 1)
    try:
        return content.decode() if len(content) <= LONGEST else "\n"
    except UnicodeDecodeError:
        return "\n"
