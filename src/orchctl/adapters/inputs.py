"""What is on disk where a step's inputs are: the names of snapshots, and the facts of one that was chosen."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import host_facts, parquet
from orchctl.core.names import format_instant


@dataclass(frozen=True, slots=True)
class Found:
    """The files at a path. `mtime` is that of the newest, `rows` those of all Parquet among them; None: unknown."""

    file_count: int
    size_bytes: int
    mtime: str | None
    rows: int | None


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, none where there is no such folder. Raises OSError where it may not be read."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_there(path: str) -> bool:
    """Whether there is a file or folder. Raises OSError where that may not be known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def look(path: str) -> Found:
    """Return the facts of the file at `path`, or of all files below it. Raises OSError where one may not be known."""
    os.stat(path)  # what was there when it was chosen
    states = list(host_facts.files_at(path, unreadable=_raised))
    newest = max((state.st_mtime for _, state in states), default=None)
    return Found(
        len(states),
        sum(state.st_size for _, state in states),
        format_instant(datetime.fromtimestamp(newest, UTC)) if newest is not None else None,
        parquet.rows_of(name for name, _ in states),
    )


def sha256(path: Path) -> str | None:
    """Return the digest of a small file such as a pointer, None where there is none."""
    with suppress(OSError):
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def _raised(error: OSError) -> None:
    raise error
