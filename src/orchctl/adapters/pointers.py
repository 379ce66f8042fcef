"""Pointers: small JSON files beside the runs of an asset, each replaced in one step, under the lock of their folder."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchctl.adapters import files
from orchctl.adapters.publishing import locked, mapped
from orchctl.core.publish import By, Pointer, Target, check, holds, moved, overtaken, pointer_of
from orchctl.errors import PublishError

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Move:
    """What came of moving a pointer. `before` is what it held; `kept` is why it was not moved, None where it holds the
    run now. `again`: it held just this run before, from an earlier move.
    """

    name: str
    before: Pointer | None
    kept: str | None = None
    again: bool = False


def read_pointer(folder: Path, name: str) -> Pointer | None:
    """Return what a pointer holds, None where there is none. Raises PublishError on what is not a pointer of ours."""
    path = folder / name
    with mapped(f"the pointer {path} cannot be read"):
        content = _read(path)
    if content is None:
        return None
    try:
        return pointer_of(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise PublishError(
            f"{path} is not a pointer of orchctl: {str(error).splitlines()[0][:120]}",
            hint="it was left as it is: see who wrote it, and move it away if nobody needs it",
        ) from error


def move(folder: Path, name: str, run: Target, *, at: datetime, reason: str) -> Move:
    """Let a pointer hold `run`, unless it has held a newer one: it never moves back by itself. Repeatable.

    Raises PublishError; the pointer then holds what it held, or holds the run already.
    """
    return _move(folder, name, run, at=at, by="run", reason=reason)


def move_by_hand(folder: Path, name: str, run: Target, *, at: datetime, reason: str, expected: Pointer | None) -> Move:
    """Let a pointer hold `run`, older or newer. Raises PublishError, also where it holds no more what is `expected`."""
    return _move(folder, name, run, at=at, by="hand", reason=reason, expected=expected)


def _move(
    folder: Path,
    name: str,
    run: Target,
    *,
    at: datetime,
    by: By,
    reason: str,
    expected: Pointer | None = None,
) -> Move:
    try:
        check(run)
    except ValueError as error:
        raise PublishError(f"no pointer can hold this run: {error}") from error
    path = folder / name
    with mapped(f"the pointer {path} cannot be moved"), locked(folder):
        held = read_pointer(folder, name)
        if by == "hand" and held != expected:
            raise PublishError(f"{path} was moved meanwhile", hint="see `orchctl publish show`, and ask again")
        if by == "run" and holds(held, run):
            # It may be there and not on the disk yet: what moved it was killed.
            files.sync_directory(folder)
            return Move(name, held, again=True)
        if by == "run" and (why := overtaken(held, run.run_id)) is not None:
            return Move(name, held, kept=why)
        if not (folder / run.path).is_dir():
            raise PublishError(f"{folder / run.path} is not there", hint="a pointer never points at nothing")
        # With the lock held no writer of this pointer is at work.
        for left in files.torn(path):
            left.unlink(missing_ok=True)
        content = files.dump(moved(held, run, at=at, by=by, reason=reason).to_json())
        files.write_together([files.Content(path, content, owner=files.heir(folder))])
    return Move(name, held)


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _foreign(path, "it is a symlink") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise _foreign(path, "it is no plain small file")
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def _foreign(path: Path, why: str) -> PublishError:
    hint = "it was left as it is: see who made it, and move it away if nobody needs it"
    return PublishError(f"{path} is not a pointer of orchctl: {why}", hint=hint)
