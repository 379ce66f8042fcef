"""One operator at a time: `state/orchctl.lock`, held while a command changes this host or Prefect."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.core.names import format_instant
from orchctl.errors import Locked, NotAllowed


@contextlib.contextmanager
def held(state_dir: Path, command: str) -> Iterator[None]:
    """Hold the lock for the duration. It belongs to the process and dies with it.

    Raises Locked at once where another process holds it, naming that one's pid, command and start.
    """
    files.make_directory(state_dir, mode=0o700)
    path = state_dir / "orchctl.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NotAllowed(
            f"cannot open {path}: {error.strerror}", hint="see who owns it, and whether the file system is read-only"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(f"{_holder(descriptor)} is at work on this host", hint="wait until it has ended") from error
        record = {"pid": os.getpid(), "command": command, "started_at": format_instant(datetime.now(UTC))}
        # A full disk must not keep anybody from stopping what runs: then the holder is only not named.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        data = json.loads(os.pread(descriptor, 4096, 0))
        return f"orchctl {data['command']} (pid {data['pid']}, since {data['started_at']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another orchctl"
