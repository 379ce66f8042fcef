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

from orchctl.adapters import backup_archive, files
from orchctl.core import backup, env_file
from orchctl.core.backup import Archive, Member
from orchctl.core.installation import ENCRYPTION_KEYS
from orchctl.errors import BackupBroken


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
    """Unpack an archive into a new folder, which is removed at the end. Raises BackupBroken, OrchctlError."""
    shutil.rmtree(scratch, ignore_errors=True)
    files.make_private(scratch)
    try:
        with backup_archive.opened(path, trust=trust) as archive:
            archive.read(lambda member: _place(scratch, member))
            manifest = archive.manifest
        yield Unpacked(Archive(str(path), path.stat().st_size, manifest), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _place(scratch: Path, member: Member) -> Path:
    """Return where a member goes. Its path was checked: it leads nowhere else, and all folders on the way are ours."""
    path = scratch / member.path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupBroken(f"{member.path!r:.80} cannot be a file and a folder: {error.strerror}") from error
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
