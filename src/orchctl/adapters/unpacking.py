"""An archive unpacked into a scratch folder, to be looked at or put in place."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import backup_archive, doctor_facts, files
from orchctl.core import backup, env_file
from orchctl.core.backup import Archive, Member
from orchctl.core.installation import ENCRYPTION_KEYS
from orchctl.errors import BackupBroken, GateRefused, OrchctlError


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Where the files of an archive are. Every digest of them was right."""

    archive: Archive
    root: Path

    @property
    def dump(self) -> Path:
        """The file of the database."""
        return self.root / backup.DUMPS[self.archive.manifest.database.kind]

    @property
    def encryption_key(self) -> str | None:
        """What opens the blocks, where the settings of the server held it; None: the database holds it."""
        path = self.root / backup.SETTINGS
        if not path.is_file():
            return None
        try:
            return key_in(env_file.parse(path.read_bytes()))
        except ValueError:
            return None

    def claimed(self) -> Collection[str]:
        """Return the flow runs that hold the claim on a slot."""
        return claims_below(self.root / "state" / "slots")


@contextmanager
def unpacked(path: Path, scratch: Path, *, trust: Collection[int] = ()) -> Iterator[Unpacked]:
    """Unpack an archive into a new folder, which is removed at the end.

    Raises BackupBroken, OrchctlError; GateRefused where there is no room for it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    files.make_private(scratch)
    try:
        with backup_archive.opened(path, trust=trust) as archive:
            room_for(scratch, archive.manifest.size_bytes)
            archive.read(lambda member: _place(scratch, member))
            manifest = archive.manifest
        yield Unpacked(Archive(str(path), path.stat().st_size, manifest), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def room_for(path: Path, size_bytes: int) -> None:
    """Raise GateRefused where less than this is free where `path` is, or would be. Raises OrchctlError.

    To write half of it, and leave no room at all, is worse for all who write there.
    """
    free = doctor_facts.disk(str(path)).free
    if free < size_bytes:
        raise GateRefused(
            f"{size_bytes / 1e6:.1f} MB are needed where {path} is, and {free / 1e6:.1f} MB are free", hint="make room"
        )


def _place(scratch: Path, member: Member) -> Path:
    """Return where a member goes. Its path was checked: it leads nowhere else, and all folders on the way are ours."""
    path = scratch / member.path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BackupBroken(f"{member.path!r:.80} cannot be a file and a folder: {error.strerror}") from error
    except OSError as error:
        raise OrchctlError(f"cannot make {path.parent}: {error.strerror or error}") from error
    return path


def key_in(found: Mapping[str, str]) -> str | None:
    """Return the key of Prefect's blocks that settings hold, None where they hold none: then the database does."""
    return next((found[key] for key in ENCRYPTION_KEYS if found.get(key)), None)


def claims_below(folder: Path) -> frozenset[str]:
    """Return the flow runs whose claims on slots are in a folder; a claim that cannot be read is passed over."""
    found = set()
    for inner, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
                flow_run = json.loads((Path(inner) / name).read_bytes()).get("flow_run_id")
                if isinstance(flow_run, str):
                    found.add(flow_run)
    return frozenset(found)
