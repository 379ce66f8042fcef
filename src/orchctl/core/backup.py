"""An archive of a host: what its manifest says, which files belong in it, which archives may go, what fits. Pure.

The archive is a gzipped tar. Its first member is the manifest, which names every other member with size and digest,
in order; what follows the tar is the digest of all bytes before (`adapters/backup_archive.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

from orchctl.core.database_url import Kind
from orchctl.core.names import format_instant, parse_instant

Part = Literal["database", "state", "catalog"]
PARTS: tuple[Part, ...] = get_args(Part)
FORMAT = "orchctl-backup"
VERSION = 1
MANIFEST = "manifest.json"
DUMPS: Mapping[Kind, str] = {"sqlite": "database/prefect.db", "postgresql": "database/prefect.dump"}
SETTINGS = "host/settings.env"
INSTALLATION = "host/installation.json"
UNITS = "host/units/"
RESTORING = "restore.json"
"""In `host` of the state directory; there while a restore is going, or was interrupted."""

CATALOG_FILES = ("jobs.toml", "schedules.toml", "contracts.toml", "alerts.toml")
"""What of the folder of the catalog belongs in an archive: the folder may be a project's, with files of others."""

COUNTED: Mapping[str, str] = {
    "flows": "flow",
    "flow_runs": "flow_run",
    "deployments": "deployment",
    "work_pools": "work_pool",
    "automations": "automation",
    "blocks": "block_document",
}
"""What is counted, and the table that it is in. Blocks without those that have no name, as the API counts them."""

# What is of this instant, of this boot or made anew: pids and logs of processes, locks, names for completion; what is
# as large as an archive; and Prefect's own folder, whose database has a part for itself.
_NOT_STATE = frozenset({"host", "locks", "prefect", "backups", "completion"})
_ASIDE = re.compile(r"\.before-\d{8}T\d{6}Z(\.\d+)?\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"orchctl-(?P<host>[A-Za-z0-9._-]+)-(?P<at>\d{8}T\d{6}Z)(?:-\d+)?\.tar\.gz\Z")
_LONGEST_PATH = 1000
TRIAL = "ORCHCTL_UPGRADE_TRIES"
"""The environment's variable that says that an archive is tried with what an upgrade would install."""
_OVER = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive. `sha256` is that of its content, in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Database:
    """Prefect's database in the archive. `revision` is that of its tables (alembic's word), None where it has none."""

    kind: Kind
    revision: str | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Held:
    """A database as it was at one instant, while it is held: what is in it, and what copies it to a new file."""

    database: Database
    write: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was copied for an archive besides the database: `paths` are those of its members, and `left_out` says what
    was not copied, and why.
    """

    paths: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """What was put in place, and where that is which was there; `aside` None: nothing was."""

    path: str
    aside: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself. `state_dir` and `config_dir` are where its files were, on `hostname`."""

    created_at: datetime
    hostname: str
    state_dir: str
    config_dir: str
    orchctl: str
    prefect: str
    database: Database
    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the archive. It holds no secret."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "created_at": format_instant(self.created_at),
            "hostname": self.hostname,
            "state_dir": self.state_dir,
            "config_dir": self.config_dir,
            "orchctl": self.orchctl,
            "prefect": self.prefect,
            "database": asdict(self.database),
            "members": [asdict(member) for member in self.members],
        }

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Return what a manifest says. Raises ValueError where it is none of this version, or names no fit members."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("it is not an archive of orchctl")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!r:.20}, and this orchctl reads {VERSION}")
        texts = {key: _text(data, key) for key in ("hostname", "state_dir", "config_dir", "orchctl", "prefect")}
        members = tuple(_member(each) for each in _rows(data))
        if len({member.path for member in members}) != len(members):
            raise ValueError("it names a member twice")
        database = _database(data.get("database"))
        if DUMPS[database.kind] not in {member.path for member in members}:
            raise ValueError("it holds no database")
        return cls(created_at=parse_instant(_text(data, "created_at")), database=database, members=members, **texts)

    def part(self, part: Part) -> tuple[Member, ...]:
        """Return the members of a part."""
        return tuple(member for member in self.members if member.path.startswith(f"{part}/"))

    @property
    def size_bytes(self) -> int:
        """Bytes of all members, unpacked."""
        return sum(member.size_bytes for member in self.members)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive on disk. `path` is absolute."""

    path: str
    size_bytes: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A flow run that has not ended, as a database says. `type` is Prefect's (SCHEDULED, RUNNING, …); `scheduled_for`
    None: it has no such instant. `by_schedule`: the scheduler made it, not a person or a backfill.
    """

    id: str
    name: str
    type: str
    scheduled_for: datetime | None
    by_schedule: bool


def archive_name(hostname: str, at: datetime, number: int = 0) -> str:
    """Return the name of an archive; `number` from 1 on where one of the same second is there."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", hostname) or "host"
    return f"orchctl-{host}-{stamp(at)}{f'-{number}' if number else ''}.tar.gz"


def is_archive_name(name: str) -> bool:
    """Return whether a file is called as archives are."""
    return _NAME.match(name) is not None


def stamp(at: datetime) -> str:
    """Return an instant (UTC) as it stands in names, to the second."""
    return f"{at:%Y%m%dT%H%M%SZ}"


def belongs(relative: str) -> bool:
    """Return whether a file of the state directory, by its path in there, belongs in an archive."""
    names = relative.split("/")
    if names[0] in _NOT_STATE or names[-1].endswith(".lock") or is_archive_name(names[-1]):
        return False
    return not any(name.startswith(".") or _ASIDE.search(name) for name in names)


def surplus(archives: Iterable[Archive], mine: Manifest, keep: int) -> tuple[Archive, ...]:
    """Return the archives that are too many where `keep` are kept, oldest first: of this host and state directory only.

    `keep` is at least 1, and the archive that `mine` describes counts as one.
    """
    ours = [
        archive
        for archive in archives
        if (archive.manifest.hostname, archive.manifest.state_dir) == (mine.hostname, mine.state_dir)
        and archive.manifest.created_at <= mine.created_at
    ]
    # Of one second, by their number: "-2" is older than "-10", and what has none is the oldest.
    ours.sort(key=lambda archive: (archive.manifest.created_at, len(archive.path), archive.path))
    return tuple(ours[: max(0, len(ours) - max(1, keep))])


def differences(wanted: Mapping[str, int], found: Mapping[str, int]) -> tuple[str, ...]:
    """Return what of `wanted` is not so in `found`, in words."""
    return tuple(
        f"{name.replace('_', ' ')}: {found.get(name, 'none')} instead of {count}"
        for name, count in wanted.items()
        if found.get(name) != count
    )


def over(run: OpenRun, *, claimed: Collection[str], claims_known: bool, now: datetime) -> str | None:
    """Return why a run of a restored database must not be run as it stands there, None where it may.

    The database is older than what has happened since. A run that was going is not any more. One that was waiting may
    have run: where its flow run holds the claim on a slot it has; where nobody knows the claims it may have; and what
    a person asked for then is not wanted at any later time. A slot of the past that nobody claimed is left to the
    catch-up policy, and what lies ahead to the scheduler.
    """
    if run.type in _OVER:
        return None
    if run.type != "SCHEDULED":
        return "it was going when the backup was made"
    if run.id in claimed:
        return "its slot was taken after the backup was made"
    if run.scheduled_for is not None and run.scheduled_for > now:
        return None
    if not run.by_schedule:
        return "it was asked for before the backup was made"
    return None if claims_known else "whether its slot ran after the backup was made is not known"


def newer_prefect(archive: str, here: str) -> bool:
    """Return whether an archive's Prefect is newer than that of this host: it could not open its tables."""
    return _numbers(archive) > _numbers(here)


def chosen_parts(text: str | None) -> tuple[Part, ...]:
    """Read `database,state`; None means all. Raises ValueError."""
    if text is None:
        return PARTS
    named = [word.strip() for word in text.split(",") if word.strip()]
    if not named or not set(named) <= set(PARTS):
        raise ValueError(f"{text!r} names no parts; they are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in named)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"it does not say its {key}")
    return value


def _rows(data: Mapping[str, Any]) -> list[Any]:
    rows = data.get("members")
    if not isinstance(rows, list):
        raise ValueError("it names no members")
    return rows


def _member(data: Any) -> Member:
    if not isinstance(data, dict):
        raise ValueError("a member is no table")
    path, size, digest = data.get("path"), data.get("size_bytes"), data.get("sha256")
    if not isinstance(path, str) or not fit(path):
        raise ValueError(f"{path!r:.80} is no place for a member")
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _SHA256.match(digest):
        raise ValueError(f"it does not say what {path} holds")
    return Member(path, size, digest)


def fit(path: str) -> bool:
    """Return whether a member may have this path: below one of the known folders, and never out of it."""
    names = path.split("/")
    return (
        len(names) > 1
        and names[0] in {*PARTS, "host"}
        and len(path) <= _LONGEST_PATH
        and "\0" not in path
        and not any(name in {"", ".", ".."} for name in names)
    )


def _database(data: Any) -> Database:
    if not isinstance(data, dict) or data.get("kind") not in DUMPS:
        raise ValueError("it does not say which database it holds")
    counts, revision = data.get("counts"), data.get("revision")
    if not isinstance(counts, dict) or not all(type(count) is int for count in counts.values()):
        raise ValueError("it does not say how much its database holds")
    return Database(cast("Kind", data["kind"]), revision if isinstance(revision, str) else None, counts)
