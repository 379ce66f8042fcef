"""One operator at a time: a lock file in the state directory, held while a command changes this host or Prefect."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.core.names import format_instant
from orchctl.errors import Locked


@contextlib.contextmanager
def held(state_dir: Path, command: str, *, lock: str = "orchctl") -> Iterator[None]:
    """Hold the lock of this name for the duration. It belongs to the process and dies with it.

    Raises Locked at once where another process holds it, naming that one's pid, command and start.
    """
    path = state_dir / f"{lock}.lock"
    descriptor = files.open_lock(path)
    try:
        if not files.try_lock(descriptor, path):
            raise Locked(f"{_holder(descriptor)} is at work on this host", hint="wait until it has ended")
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
