"""Pointers to published runs: what one holds, when one may move, and the digest of a run's files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from orchctl.core.names import (
    format_instant,
    is_dotted_name,
    is_run_id,
    parse_date,
    parse_instant,
)

LATEST, CURRENT = "latest_run.json", "current_run.json"
"""The pointers beside the runs of an asset: the newest run, and the one that production reads."""
By = Literal["run", "hand"]
Policy = Literal["always", "manual", "window"]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_NOT_IN_A_NAME = re.compile(r"[/\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Target:
    """A promoted run, as a pointer holds it. Instants are UTC.

    `path` is the name of the run's folder, which is beside the pointer. `manifest` is the absolute path of the manifest
    of what made it, None where there is none.
    """

    run_id: str
    as_of: datetime
    promoted_at: datetime
    path: str
    digest: str
    asset: str
    game_date: date
    manifest: str | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a pointer file says: which run, and how it came to hold it.

    `previous` is the run it held before, None for the first. `newest` is the newest run it has ever held: only a run
    that is newer still moves it by itself. `moved_by` says who moved it last.
    """

    run: Target
    previous: str | None
    newest: str
    moved_at: datetime
    moved_by: By
    reason: str

    @property
    def run_id(self) -> str:
        """The run it holds."""
        return self.run.run_id

    @property
    def path(self) -> str:
        """The name of that run's folder, beside the pointer."""
        return self.run.path

    def to_json(self) -> dict[str, Any]:
        """Return what `pointer_of` reads."""
        run = self.run
        return {
            "run_id": run.run_id,
            "run_as_of_ts": format_instant(run.as_of),
            "promoted_at": format_instant(run.promoted_at),
            "path": run.path,
            "manifest": run.manifest,
            "digest": run.digest,
            "asset": run.asset,
            "game_date": run.game_date.isoformat(),
            "previous": self.previous,
            "newest": self.newest,
            "moved_at": format_instant(self.moved_at),
            "moved_by": self.moved_by,
            "reason": self.reason,
        }


def pointer_of(data: object) -> Pointer:
    """Read a pointer. Unknown keys are ignored. Raises ValueError on whatever orchctl would not have written."""
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    by = _text(data, "moved_by")
    if by not in ("run", "hand"):
        raise ValueError(f"moved_by is {by!r:.40}, not run or hand")
    run = Target(
        run_id=_run_id(data, "run_id"),
        as_of=_instant(data, "run_as_of_ts"),
        promoted_at=_instant(data, "promoted_at"),
        path=_text(data, "path"),
        digest=_text(data, "digest"),
        asset=_text(data, "asset"),
        game_date=_date(data, "game_date"),
        manifest=_text(data, "manifest") if data.get("manifest") is not None else None,
    )
    check(run)
    pointer = Pointer(
        run=run,
        previous=_run_id(data, "previous") if data.get("previous") is not None else None,
        newest=_run_id(data, "newest"),
        moved_at=_instant(data, "moved_at"),
        moved_by="run" if by == "run" else "hand",
        reason=_text(data, "reason"),
    )
    if pointer.newest < pointer.run_id:
        raise ValueError(f"newest is {pointer.newest}, which is older than run_id")
    return pointer


def check(run: Target) -> None:
    """Raise ValueError where a run's facts could not stand in a pointer."""
    if not is_run_id(run.run_id):
        raise ValueError(f"run_id is {run.run_id!r:.60}, not one like 20251219T020143Z-3f9a1c")
    if run.path in {"", ".", ".."} or _NOT_IN_A_NAME.search(run.path):
        raise ValueError(f"path is {run.path!r:.60}, not the name of a folder beside the pointer")
    if not is_digest(run.digest):
        raise ValueError(f"digest is {run.digest!r:.40}, not sha256: and 64 digits")
    if not is_dotted_name(run.asset):
        raise ValueError(f"asset is {run.asset!r:.60}, not a name")
    if run.manifest is not None and not run.manifest.startswith("/"):
        raise ValueError(f"manifest is {run.manifest!r:.60}, not an absolute path")


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"it has no {key}" if value is None else f"{key} is {value!r:.40}, not a text")
    return value


def _run_id(data: Mapping[str, Any], key: str) -> str:
    value = _text(data, key)
    if not is_run_id(value):
        raise ValueError(f"{key} is {value!r:.60}, not one like 20251219T020143Z-3f9a1c")
    return value


def _instant(data: Mapping[str, Any], key: str) -> datetime:
    try:
        return parse_instant(_text(data, key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _date(data: Mapping[str, Any], key: str) -> date:
    try:
        return parse_date(_text(data, key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a pointer moves, and why (not)."""

    moves: bool
    reason: str


def decide(policy: Policy, *, now: datetime, until: datetime | None, name: str = "") -> Decision:
    """Return whether `current_run.json` may move to a run by itself.

    `until` is the end of the window, None where it is not known: then nothing moves. `name` is what the window is up
    to, such as `lock`.
    """
    if policy == "always":
        return Decision(True, "policy always")
    if policy == "manual":
        return Decision(False, "not published: moved by hand only")
    if until is None:
        return Decision(False, f"not published: when {name or 'its window'} is, is not known")
    instant = format_instant(until)
    shown = f"{name} ({instant})" if name else instant
    return Decision(True, f"before {shown}") if now < until else Decision(False, f"not published: after {shown}")


def overtaken(held: Pointer | None, run_id: str) -> str | None:
    """Return why a pointer does not move to `run_id` by itself, None where it may: it only ever moves to newer runs.

    Run ids sort by time. A run that was moved away from by hand does not come back by itself either.
    """
    if held is None or run_id > held.newest or run_id == held.run_id:
        return None
    if run_id == held.newest:
        return f"not moved: moved from this run to {held.run_id} by hand"
    newer = held.newest if held.newest == held.run_id else f"{held.newest} (now at {held.run_id}, by hand)"
    return f"not moved: it has held a newer run, {newer}"


def holds(held: Pointer | None, run: Target) -> bool:
    """Return whether a pointer holds just this: the same run with the same files in the same place."""
    if held is None:
        return False
    return (held.run_id, held.run.digest, held.path) == (run.run_id, run.digest, run.path)


def moved(held: Pointer | None, run: Target, *, at: datetime, by: By, reason: str) -> Pointer:
    """Return the pointer that replaces `held`."""
    if held is None:
        return Pointer(run, None, run.run_id, at, by, reason)
    previous = held.previous if held.run_id == run.run_id else held.run_id
    return Pointer(run, previous, max(held.newest, run.run_id), at, by, reason)


def is_digest(text: object) -> bool:
    """Return whether `text` is the digest of a run's files."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


@dataclass(frozen=True, slots=True)
class File:
    """A file of a run: its path below the run's folder, with `/` between; its bytes; the SHA-256 of its content."""

    path: str
    size: int
    sha256: str


def digest_of(files: Iterable[File]) -> str:
    """Return the digest of a run's files: the SHA-256 over a line `<sha256> <size> <path>` for each, sorted by path.

    The paths hold no newline. Paths are sorted by their UTF-8 bytes; empty folders do not count.
    """
    lines = sorted((file.path.encode(), file) for file in files)
    text = "".join(f"{file.sha256} {file.size} {file.path}\n" for _, file in lines)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
