"""Atomic publishing for a pipeline's own code: stage, promote, point, read. docs/publish.md says what it promises.

Needs nothing but the standard library, and starts in milliseconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

from orchctl.adapters import pointers, publishing
from orchctl.adapters import staging as _staging
from orchctl.adapters.pointers import Move
from orchctl.adapters.publishing import Promotion, digest
from orchctl.core import names
from orchctl.core.publish import CURRENT, LATEST, Pointer, Target
from orchctl.errors import PublishError

__all__ = [
    "CURRENT",
    "LATEST",
    "Move",
    "Pointer",
    "Promotion",
    "PublishError",
    "digest",
    "new_run_id",
    "point",
    "promote",
    "read",
    "staging",
]


def new_run_id() -> str:
    """Return a new run id: its second part is random, and it sorts by time. In a step, use ORCHCTL_RUN_ID instead."""
    return names.run_id(datetime.now(UTC), str(uuid4()))


def staging(base: Path) -> AbstractContextManager[Path]:
    """Make an empty directory for the duration, `<base>/_staging/<uuid>/`; what is still in it at the end is removed.

    `base` must be on the file system that is published to: the folder of the runs is. Raises PublishError.
    """
    return _staging.staged(base)


def promote(source: Path, to: Path) -> Promotion:
    """Move the folder `source` to `to` in one step, when all its files are on the disk.

    `to` then never changes again. Where it is there already with the same files, that is the same promotion. Raises
    PublishError where it is there with others, or the files cannot be published; what is at `to` is then as it was.
    """
    return publishing.promote(source, to)


def point(
    promotion: Promotion,
    pointer: str = LATEST,
    *,
    run_id: str,
    as_of: datetime,
    asset: str,
    game_date: date,
    manifest: Path | None = None,
    reason: str = "policy always",
) -> Move:
    """Let a pointer beside a promoted folder hold it, unless it has held a newer run: `kept` of the answer says so.

    `as_of` is the instant up to which inputs were used. `manifest` is the path of a record of the run. Repeatable.
    Raises PublishError; the pointer then holds what it held.
    """
    now = datetime.now(UTC)
    to = promotion.to
    path = str(manifest.absolute()) if manifest is not None else None
    run = Target(run_id, as_of, now, to.name, promotion.digest, asset, game_date, path)
    return pointers.move(to.parent, pointer, run, at=now, reason=reason)


def read(folder: Path, pointer: str = CURRENT) -> Pointer | None:
    """Return what a pointer in `folder` holds, None where there is none. The files are in `folder / it.path`.

    Never waits, and never sees half a pointer. Raises PublishError on a file that is no pointer of orchctl.
    """
    return pointers.read_pointer(folder, pointer)
