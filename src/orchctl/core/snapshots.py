"""Which snapshot of an input is read: the newest at or before an instant, by its name. Pure: no file's age is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchctl.core import partition
from orchctl.core.catalog import Job
from orchctl.core.names import format_instant, is_run_id, parse_instant, run_instant

MARK = "\0"
"""Stands in a path for the part that is the instant of a snapshot: no path holds it."""
_COMPACT = re.compile(r"([0-9]{8})T([0-9]{6})(?:\.([0-9]{1,6}))?Z\Z")
_DASHED = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2})-([0-9]{2})-([0-9]{2})((?:\.[0-9]{1,6})?Z)\Z")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot by the part of its name that says when it was taken (`text`), and that instant (UTC)."""

    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Pattern:
    """A path with a `MARK` in one of its parts.

    `folder` is what to list; the names in it that begin with `prefix` and end with `suffix` are snapshots, and `rest`
    is what follows below one ("" where the snapshot is the file). `rest` may hold the mark again.
    """

    folder: str
    prefix: str
    suffix: str
    rest: str

    def path(self, snapshot: Snapshot) -> str:
        """Return the whole path of a snapshot."""
        name = f"{self.prefix}{snapshot.text}{self.suffix}"
        below = self.rest.replace(MARK, snapshot.text)
        return f"{self.folder.rstrip('/')}/{name}" + (f"/{below}" if below else "")


def pattern(path: str) -> Pattern | None:
    """Take an absolute path apart; None where no part of it is the instant of a snapshot."""
    before, found, after = path.partition(MARK)
    if not found:
        return None
    folder, _, prefix = before.rpartition("/")
    suffix, _, rest = after.partition("/")
    return Pattern(folder or "/", prefix, suffix, rest)


def instant_of(text: str) -> datetime | None:
    """Read the instant in a snapshot's name; None where there is none.

    `20251219T020143Z`, `2025-12-19T02:01:43Z` (or an offset, or dashes for the colons), or a run id.
    """
    try:
        if is_run_id(text):
            return run_instant(text)
        if match := _COMPACT.match(text):
            day, time, fraction = match.groups()
            moment = datetime.strptime(day + time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            return moment.replace(microsecond=int((fraction or "0").ljust(6, "0")))
        if match := _DASHED.match(text):
            day, *clock, end = match.groups()
            return parse_instant(f"{day}T{':'.join(clock)}{end}")
        return parse_instant(text)
    except ValueError:
        return None


def candidates(names: Iterable[str], wanted: Pattern, *, as_of: datetime) -> tuple[Snapshot, ...]:
    """Return the snapshots among `names` that were taken at or before `as_of`, newest first.

    Two of one instant are ordered by name, so that the choice is the same on every host.
    """
    found = []
    for name in names:
        end = len(name) - len(wanted.suffix)
        if end <= len(wanted.prefix) or not (name.startswith(wanted.prefix) and name.endswith(wanted.suffix)):
            continue
        text = name[len(wanted.prefix) : end]
        at = instant_of(text)
        if at is not None and at <= as_of:
            found.append(Snapshot(text, at))
    return tuple(sorted(found, key=lambda one: (one.at, one.text), reverse=True))


@dataclass(frozen=True, slots=True)
class Choice:
    """What is read of a path. `gap` is why nothing is, None where something is; `at` None: the path has no instant.

    `folder` is where snapshots of it, and so their pointers, are.
    """

    path: str
    folder: str
    at: datetime | None = None
    gap: str | None = None


def choose(
    path: str, *, as_of: datetime, names_in: Callable[[str], Iterable[str]], is_there: Callable[[str], bool]
) -> Choice:
    """Choose what is read of a path, in which `MARK` stands for the instant. Raises what the two questions raise."""
    wanted = pattern(path)
    if wanted is None:
        gap = None if is_there(path) else f"there is no {path}"
        return Choice(path, path.rpartition("/")[0] or "/", gap=gap)
    for snapshot in candidates(names_in(wanted.folder), wanted, as_of=as_of):
        # One without the file that is asked for is not whole: it is being written, or failed.
        if is_there(found := wanted.path(snapshot)):
            return Choice(found, wanted.folder, snapshot.at)
    shown = wanted.path(Snapshot("*", as_of))
    return Choice(shown, wanted.folder, gap=f"no snapshot at or before {format_instant(as_of)} at {shown}")


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run of a step has published: its manifest, its `run_as_of_ts` and its id."""

    as_of: datetime
    run_id: str
    manifest: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where it was published."""
        return str(self.manifest["publish"]["to"])


def earlier(
    manifests: Iterable[Mapping[str, Any]], *, job: Job, keys: Mapping[str, str], as_of: datetime
) -> tuple[Earlier, ...]:
    """Return the job's own among manifests of published steps, as of an instant or before, newest first.

    `keys` are those of the partition beside its date: of another partition nothing is taken.
    """
    found = []
    for made in manifests:
        told = made.get("partition")
        if made.get("job") != job.name or not isinstance(told, Mapping) or not partition.is_of(told, job, keys):
            continue
        try:
            each = Earlier(parse_instant(told["run_as_of_ts"]), told["run_id"], made)
        except (KeyError, TypeError, ValueError):
            continue
        if each.as_of <= as_of:
            found.append(each)
    return tuple(sorted(found, key=lambda each: (each.as_of, each.run_id), reverse=True))
