"""State and catalog put back from an archive: what was there stays beside, and a kill at any instant loses nothing.

`state/host/restore.json` is there from before the first change until after the last. Restoring again after a kill takes
the same names for what is moved aside, so that what belongs together stays together.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from orchctl.adapters import backup_archive, files, toml_files
from orchctl.adapters.state_folder import StateFolder
from orchctl.adapters.unpacking import claims_below, room_for
from orchctl.core import backup
from orchctl.core.backup import RESTORING, Archive, Manifest, Moved, Part
from orchctl.core.names import format_instant
from orchctl.errors import BackupBroken, NotAllowed, OrchctlError

_SLOTS = "slots"
_LEASES = "concurrency_leases"
_STAGED = ".orchctl-restore"


class Place:
    """The state directory and the folder of the catalog of this host, and PREFECT_HOME of its server."""

    def __init__(self, state_dir: Path, config_dir: Path, home: Path) -> None:
        self._state_dir, self._config_dir, self._home = state_dir, config_dir, home
        self._journal = StateFolder(state_dir, "host")

    def begin(self, archive: Archive, parts: Sequence[Part], at: datetime) -> str:
        """Write down what is going to be restored; return the end of the names of what is moved aside.

        Where a restore was interrupted, that is its own. Raises GateRefused, before anything is written, where there is
        no room for the state.
        """
        if "state" in parts:
            room_for(self._state_dir, sum(member.size_bytes for member in archive.manifest.part("state")))
        found = self._journal.read_json(RESTORING)
        before = found.get("before") if isinstance(found, dict) else None
        if not isinstance(before, str) or not before.startswith("before-") or "/" in before:
            before = f"before-{backup.stamp(at)}"
        said = {"archive": archive.path, "parts": list(parts), "before": before, "started_at": format_instant(at)}
        self._journal.write(RESTORING, said)
        return before

    def end(self) -> None:
        """Remove the journal: all is in place. Repeatable."""
        self._journal.remove(RESTORING)

    def claimed(self) -> Collection[str] | None:
        """Return the flow runs that hold claims on slots of this host; None where there are no claims at all."""
        folders = self._claims()
        return frozenset().union(*(claims_below(folder) for folder in folders)) if folders else None

    def put(self, unpacked: Path, manifest: Manifest, part: Part, before: str) -> tuple[Moved, ...]:
        """Put a part in place. Repeatable after a kill. Raises OrchctlError."""
        with _mapped(self._state_dir if part == "state" else self._config_dir):
            if part == "state":
                return self._put_state(unpacked / "state", before)
            return self._put_catalog(unpacked / "catalog", manifest, before)

    def leases_aside(self, before: str) -> tuple[Moved, ...]:
        """Move away who holds places of concurrency limits, of which the restored database knows nothing. Repeatable.

        Each that runs out would free a place that somebody else has taken by then.
        """
        with _mapped(self._home):
            leases = self._home / _LEASES
            if not leases.is_dir():
                return ()
            aside = _free(leases, before)
            leases.rename(aside)
            return (Moved(str(leases), str(aside)),)

    def check(self, manifest: Manifest, part: Part) -> None:
        """Raise BackupBroken where what is in place is not what the archive holds."""
        root = self._state_dir if part == "state" else self._config_dir
        for member in manifest.part(part):
            path = (root / member.path.partition("/")[2]).resolve()
            try:
                found = backup_archive.digest_of(path)
            except OSError as error:
                raise BackupBroken(f"{path} is not there after all: {error.strerror}") from error
            if found != (member.size_bytes, member.sha256):
                raise BackupBroken(f"{path} is not what the archive holds: somebody else writes to it")

    def _put_state(self, source: Path, before: str) -> tuple[Moved, ...]:
        files.make_private(self._state_dir)
        staged = self._state_dir / _STAGED
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(source, staged) if source.is_dir() else staged.mkdir(mode=0o700)
        self._keep_claims(staged / _SLOTS)
        _give(staged, files.heir(self._state_dir))
        # One for all: thousands of small files, each with an fsync of its own, take minutes on a spinning disk.
        os.sync()
        moved = []
        names = {path.name for path in staged.iterdir()}
        there = {path.name for path in self._state_dir.iterdir() if backup.belongs(path.name)}
        for name in sorted(names | there):
            target, aside = self._state_dir / name, None
            if os.path.lexists(target):
                aside = _free(target, before)
                target.rename(aside)
            if name in names:
                (staged / name).rename(target)
            moved.append(Moved(str(target), None if aside is None else str(aside)))
        files.sync_directory(self._state_dir)
        shutil.rmtree(staged, ignore_errors=True)
        return tuple(moved)

    def _keep_claims(self, target: Path) -> None:
        """Add the claims that were made since: a slot that ran must never run again."""
        for folder in self._claims():
            for inner, _folders, names in os.walk(folder):
                relative = Path(inner).relative_to(folder)
                for name in names:
                    claim, copy = Path(inner) / name, target / relative / name
                    if not copy.exists() and not name.startswith(".") and not claim.is_symlink():
                        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                        shutil.copy2(claim, copy)

    def _claims(self) -> list[Path]:
        """Return the folders of claims: the one in place, and those that restores moved aside, which only add."""
        found = [path for path in self._state_dir.glob(f"{_SLOTS}.before-*") if path.is_dir()]
        return [*(path for path in (self._state_dir / _SLOTS,) if path.is_dir()), *sorted(found)]

    def _put_catalog(self, source: Path, manifest: Manifest, before: str) -> tuple[Moved, ...]:
        held = {member.path.partition("/")[2] for member in manifest.part("catalog")}
        moved = []
        for name in backup.CATALOG_FILES:
            target = self._config_dir / name
            wanted = (source / name).read_bytes() if name in held else None
            found = target.read_bytes() if target.exists() else None
            if found == wanted:
                continue
            aside = None
            if found is not None:
                aside = _free(target, before)
                files.create_exclusive(aside, found, owner=files.heir(self._config_dir))
            if wanted is None:
                files.remove(target)
            else:
                toml_files.write(self._config_dir, {name: _text(wanted, name)})
            moved.append(Moved(str(target), None if aside is None else str(aside)))
        return tuple(moved)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BackupBroken(f"{name} in the archive is not UTF-8") from error


def _give(folder: Path, owner: tuple[int, int] | None) -> None:
    """Make all of a folder private to its owner, and give it to `owner` (uid, gid) where root restores for another."""
    for inner, folders, names in os.walk(folder):
        os.chmod(inner, 0o700)
        for name in names:
            os.chmod(Path(inner) / name, 0o600)
        if owner is not None:
            for name in [".", *folders, *names]:
                os.chown(Path(inner) / name, *owner, follow_symlinks=False)


def _free(target: Path, before: str) -> Path:
    number, path = 0, target.with_name(f"{target.name}.{before}")
    while os.path.lexists(path):
        number += 1
        path = target.with_name(f"{target.name}.{before}.{number}")
    return path


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowed(f"cannot restore into {path}: {error.strerror}", hint="see who owns it") from error
    except OSError as error:
        raise OrchctlError(f"cannot restore into {path}: {error.strerror or error}") from error
