"""What a step's run does to publish: looks at the place before, gives a staging directory, promotes, moves pointers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.adapters import pointers, publishing
from orchctl.adapters import staging as stagings
from orchctl.core import templates
from orchctl.core.names import format_instant, is_name
from orchctl.core.publish import CURRENT, LATEST, Decision, Target, decide
from orchctl.errors import PublishError, PublishNotAllowed

if TYPE_CHECKING:
    from orchctl.adapters.accounts import Account
    from orchctl.core.catalog_steps import PublishTable
    from orchctl.core.manifest import Place

Event = tuple[str, Mapping[str, Any]]
"""The name of an event, and the fields it has beside those of every step's event."""
MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Published:
    """What was published. `record` is the `publish` of the step's manifest; `to` is where the files are."""

    record: Mapping[str, Any]
    events: tuple[Event, ...]
    to: Path


def check_place(publish: PublishTable, values: Mapping[str, str], folder: Path) -> None:
    """Look, before the step begins, whether its files can be published. Changes nothing. Raises PublishError.

    `folder` is the folder of the step's run, which need not be there yet. A folder that is at `to` already is no error
    here: an earlier attempt of this run may have been killed when it had promoted just the files that are made again.
    """
    to = _to(publish, values)
    with publishing.mapped(f"{to} cannot be published"):
        if os.path.lexists(to) and not stat.S_ISDIR(to.lstat().st_mode):
            raise PublishError(f"{to} is in the way: it is no folder", hint="see what it is, and move it away")
        above, staged = _nearest(to.parent), _nearest(folder)
        for each in (above, staged):
            if not os.access(each, os.W_OK | os.X_OK, effective_ids=True):
                hint = "see who owns it, its mode, and whether the file system is read-only"
                raise PublishNotAllowed(f"{to} cannot be published: nothing can be made in {each}", hint=hint)
        if above.stat().st_dev != staged.stat().st_dev:
            raise OSError(errno.EXDEV, f"{above} and {staged} are on two file systems")
    for name in (LATEST, CURRENT):
        pointers.read_pointer(to.parent, name)


def open_staging(folder: Path, data_root: str, place: Place, account: Account | None, *, lasts_s: float) -> Path:
    """Make an empty directory for a step's files, in the folder of its run. Raises PublishError.

    It belongs to `account`, None: the worker's user. Where the process at `place` dies, `sweep` removes it a day later;
    `lasts_s` seconds are left until the step's time-out.
    """
    owner = (account.uid, account.gid) if account is not None else None
    now = datetime.now(UTC)
    until = now + timedelta(seconds=lasts_s)
    return stagings.open_staging(folder, data_root, place, since=now, until=until, owner=owner)


close_staging = stagings.close_staging
sweep = stagings.sweep


def publish(  # noqa: PLR0913 (keyword-only: the facts of a run)
    publish: PublishTable,
    *,
    values: Mapping[str, str],
    staging: Path | None,
    asset: str,
    game_date: date,
    run_id: str,
    as_of: datetime,
    manifest_path: Path,
    now: Callable[[], datetime],
    until: Callable[[], datetime | None],
    announce: Callable[[Mapping[str, str]], None] = lambda _told: None,
) -> Published:
    """Promote what a step has staged, and move the pointers. Repeatable: after a kill, the same again finishes it.

    `announce` is told `to` and `digest` before anything moves. `staging` None: what is at `to` was promoted by an
    attempt that did not come to its end, and is taken as it is (see `is_announced`).
    `until` gives the end of the window, None where that is not known; asked only for policy window. Raises
    PublishError: nothing half was left, and no pointer was moved to what is not whole.
    """
    to = _to(publish, values)
    # Both are read before anything is changed: what is not ours is refused while nothing is promoted yet.
    held = [pointers.read_pointer(to.parent, name) for name in (LATEST, CURRENT)]
    if staging is None:
        promotion = publishing.adopt(to)
    else:
        source = _source(publish, values, staging)
        promotion = publishing.promote(source, to, announce=lambda digest: announce({"to": str(to), "digest": digest}))
    before = [one.run.promoted_at for one in held if one is not None and one.run_id == run_id]
    promoted_at = min(before) if promotion.again and before else now()
    run = Target(run_id, as_of, promoted_at, to.name, promotion.digest, asset, game_date, str(manifest_path))
    latest = _move(to.parent, LATEST, run, Decision(True, "the newest run"), now())
    instant = until() if publish.policy == "window" else None
    at = now()
    decision = decide(publish.policy, now=at, until=instant, name=_name(publish.until))
    current = _move(to.parent, CURRENT, run, decision, at)
    told = {"to": str(to), "digest": promotion.digest, "files": promotion.files, "size_bytes": promotion.size}
    record = {
        **told,
        "promoted_at": format_instant(promoted_at),
        "latest": _said(latest),
        "current": _said(current),
    }
    return Published(record, (("promoted", {**told, "again": promotion.again}), latest, current), to)


def still_there(record: Mapping[str, Any]) -> bool:
    """Return whether what a manifest's `publish` tells of is there, with just the files it had.

    Raises PublishError where that cannot be known.
    """
    try:
        to, digest = Path(str(record["to"])), str(record["digest"])
    except KeyError:
        return False
    return publishing.has_just(to, digest)


def is_announced(publish: PublishTable, values: Mapping[str, str], announced: object) -> bool:
    """Return whether what is at the step's place is what an attempt announced, and then did not come to its end.

    Its contracts held, or it would not have been announced; its command need not make the same bytes again. Raises
    PublishError where that cannot be known.
    """
    if not isinstance(announced, Mapping) or announced.get("to") != str(_to(publish, values)):
        return False
    return still_there(announced)


def _to(publish: PublishTable, values: Mapping[str, str]) -> Path:
    to = Path(os.path.normpath(templates.render(publish.to, values)))
    if not to.is_absolute():
        raise PublishError(f"publish.to is {to}, which is no absolute path", hint="begin it with {data_root}")
    return to


def _source(publish: PublishTable, values: Mapping[str, str], folder: Path) -> Path:
    source = Path(os.path.normpath(folder / templates.render(publish.source, values)))
    # A symlink on the way would lead what is moved out of there; the folder itself is looked at when it is promoted.
    if not source.is_relative_to(folder) or (source != folder and not _is_below(source.parent, folder)):
        raise PublishError(f"publish.from is {source}, which is not below {folder}", hint="name a folder below it")
    return source


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve() == folder.resolve() / path.relative_to(folder)


def _name(until: str | None) -> str:
    """Return the name of a mode, "" for a template."""
    return until if until is not None and is_name(until) else ""


def _nearest(path: Path) -> Path:
    """Return the folder, or the nearest above it that is there. Raises OSError where something else is in the way."""
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is in the way and is no folder", str(path))
    return path


def _move(folder: Path, name: str, run: Target, decision: Decision, at: datetime) -> Event:
    """Move a pointer, or leave it; return the event. One that held the run already is told of as moved again.

    What moved it before may have been killed before it could tell.
    """
    if decision.moves:
        done = pointers.move(folder, name, run, at=at, reason=decision.reason)
        before, kept = done.before, done.kept
        if done.again and before is not None:
            return _event("pointer_moved", name, before.previous, run.run_id, before.moved_by, before.reason)
    else:
        before, kept = pointers.read_pointer(folder, name), decision.reason
        if before is not None and before.run_id == run.run_id:
            # By hand, or before its window ended, by an attempt that was killed.
            return _event("pointer_moved", name, before.previous, run.run_id, before.moved_by, before.reason)
    came_from = before.run_id if before is not None else None
    if kept is None:
        return _event("pointer_moved", name, came_from, run.run_id, "run", decision.reason)
    return _event("pointer_kept", name, came_from, came_from, "run", kept)


def _said(event: Event) -> str:
    return MOVED if event[0] == "pointer_moved" else str(event[1]["reason"])


def _event(event: str, name: str, came_from: str | None, to: str | None, by: str, reason: str) -> Event:
    return event, {"pointer": name, "from": came_from, "to": to, "by": by, "reason": reason}
