"""The folders of runs under one data root, for who makes room: which are there, what holds them, and their end.

A folder goes by one rename to a name that begins with a dot, which nobody reads, and is emptied then: a reader sees a
run whole or not at all. What a kill leaves under such a name goes at the next look at its date.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import run_logs
from orchctl.adapters.backfills import FOLDER, SUMMARY
from orchctl.adapters.manifests import Manifests
from orchctl.core.manifest import run_of_manifest
from orchctl.core.names import is_dotted_name, is_run_id, parse_date, run_instant
from orchctl.errors import NotAllowed, OrchctlError

_GOING = ".removed-"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run of a job. `at` is the instant in its id (UTC), `date` its partition."""

    asset: str
    date: date
    run_id: str
    path: Path
    at: datetime


class RunFolders:
    """The folders under one data root. `trust` is as in `Manifests`: what others could have written decides nothing."""

    def __init__(self, data_root: str, *, trust: Collection[int] | None) -> None:
        self.data_root = data_root
        self._root = Path(data_root) / "manifests"
        self._tree = Manifests(data_root, trust=trust)

    def newest(self, asset: str, job: str, *, after: datetime) -> str | None:
        """Return the id of a job's newest run of an asset, or one that began after an instant; None where none is.

        What a manifest says counts: several jobs may make one asset. One that cannot be read is passed over. Looks at
        the newest dates first, and no further than the first such run. Raises OrchctlError.
        """
        newest = ""
        for day, folder in reversed(self._dates(asset)):
            later = (name for name in reversed(_runs_in(folder)) if name > newest)
            newest = next((name for name in later if self._is_of(job, asset, day, name)), newest)
            if newest and run_instant(newest) > after:
                break
        return newest or None

    def _is_of(self, job: str, asset: str, day: date, run_id: str) -> bool:
        with contextlib.suppress(OrchctlError):
            return (self._tree.existing(asset, day, run_id) or {}).get("job") == job
        return False

    def before(self, asset: str, before: datetime, *, last: date) -> Iterator[RunFolder]:
        """Yield the runs of an asset that began before an instant, of the dates up to `last`, oldest date first."""
        for day, folder in self._dates(asset):
            if day > last:
                return
            yield from _between(asset, day, folder, None, before)

    def between(self, asset: str, first: datetime | None, before: datetime) -> Iterator[RunFolder]:
        """Yield the runs of an asset that began from `first` on (None: ever) and before an instant.

        A date to whose folder nothing was added since `first` is not looked into.
        """
        for day, folder in self._dates(asset):
            with contextlib.suppress(FileNotFoundError):
                if first is None or folder.stat().st_mtime >= first.timestamp():
                    yield from _between(asset, day, folder, first, before)

    def manifest(self, run: RunFolder) -> dict[str, Any] | None:
        """Return the manifest of a run; None where none is, or a torn or foreign one. Raises OrchctlError."""
        data = self._tree.existing(run.asset, run.date, run.run_id)
        try:
            return data if data is not None and run_of_manifest(data, data_root=self.data_root) else None
        except ValueError:
            return None

    def is_going(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a run's manifest says running, and its process is not surely gone."""
        run = run_of_manifest(manifest, data_root=self.data_root)
        return run.status == "running" and self._tree.current(run, skipped=[]).status == "running"

    def folders(self, run: RunFolder) -> list[Path]:
        """Return the folders of a run that are there: those of its steps first, its own last.

        Also what a killed removal left of a step: once the run's own folder is gone, nothing leads there any more.
        """
        steps = [each for path in self._tree.step_directories(run.path).values() for each in (_doomed(path), path)]
        try:
            return [path for path in (*steps, run.path) if path.is_dir() and not path.is_symlink()]
        except OSError as error:
            raise run_logs.unreadable(run.path, error) from error

    def published(self, run: RunFolder) -> bool:
        """Whether something that a step of the run published is still there, or may be."""
        for folder in self._tree.step_directories(run.path).values():
            data = self._tree.existing(folder.parents[1].name, run.date, run.run_id) or {}
            for key in ("publish", "promoting"):
                record = data.get(key)
                if isinstance(record, Mapping) and _may_be_there(record.get("to")):
                    return True
        return False

    def summary(self, backfill: str) -> Mapping[str, Any] | None:
        """Return the summary of a backfill, None where there is none that can be read."""
        if not is_dotted_name(backfill):
            return None
        try:
            data = json.loads((self._root / FOLDER / backfill / SUMMARY).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return data if isinstance(data, dict) else None

    @staticmethod
    def logs(folder: Path, *, plain_only: bool) -> list[Path]:
        """Return the logs in a folder, `plain_only`: without those that are compressed. See `run_logs`."""
        return run_logs.unpacked_in(folder) if plain_only else run_logs.everything_in(folder)

    @staticmethod
    def compress(log: Path) -> bool:
        """Compress a log that nobody writes to any more; return whether we did. See `run_logs`."""
        return run_logs.compress(log)

    @staticmethod
    def size(path: Path) -> int:
        """Return the bytes of a file, or of all files in a folder; what is gone has none."""
        inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        return sum(_size(each) for each in inside) if path.is_dir() else _size(path)

    @staticmethod
    def remove(path: Path) -> bool:
        """Remove a log, or the folder of a run with all that is in it, and return whether it was there. Repeatable.

        Folders that a command made read-only go too. Raises NotAllowed, OrchctlError.
        """
        try:
            if not path.is_dir() or path.is_symlink():
                path.unlink()
                return True
            doomed = _doomed(path)
            if path != doomed:
                if doomed.is_dir():
                    _empty(doomed)
                path.rename(doomed)
            _empty(doomed)
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # the date, where that was its last run
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise NotAllowed(f"cannot remove {path}: {error.strerror}", hint="see who owns the folder") from error
        except OSError as error:
            raise OrchctlError(f"cannot remove {path}: {error.strerror}") from error
        return True

    def half_removed(self, asset: str, last: date) -> list[Path]:
        """Return what removals left that were killed or failed, of an asset's runs of the dates up to `last`."""
        dates = (folder for day, folder in self._dates(asset) if day <= last)
        return [folder / name for folder in dates for name in _folders_in(folder) if name.startswith(_GOING)]

    def _dates(self, asset: str) -> list[tuple[date, Path]]:
        """Return the folders of dates of an asset, oldest first; links are passed over."""
        found = []
        for name in _folders_in(self._root / asset):
            with contextlib.suppress(ValueError):
                found.append((parse_date(name.removeprefix("game_date=")), self._root / asset / name))
        return sorted(found)


def _doomed(path: Path) -> Path:
    """Return where a folder is while it is emptied."""
    return path if path.name.startswith(_GOING) else path.with_name(f"{_GOING}{path.name}")


def _empty(folder: Path) -> None:
    """Remove a folder with all that is in it. What is in the way and ours is made writable first. Raises OSError."""
    try:
        shutil.rmtree(folder)
    except PermissionError:
        _make_writable(folder)
        for below, names, _ in os.walk(folder):
            for name in names:
                _make_writable(Path(below, name))
        shutil.rmtree(folder)


def _make_writable(folder: Path) -> None:
    """Let us into a folder of ours; a link is left alone."""
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _between(asset: str, day: date, folder: Path, first: datetime | None, before: datetime) -> Iterator[RunFolder]:
    for name in _runs_in(folder):
        at = run_instant(name)
        if at < before and (first is None or at >= first):
            yield RunFolder(asset, day, name, folder / f"run={name}", at)


def _runs_in(folder: Path) -> list[str]:
    """Return the ids of the runs in the folder of a date, sorted; links are passed over."""
    ids = (name.removeprefix("run=") for name in _folders_in(folder) if name.startswith("run="))
    return sorted(id for id in ids if is_run_id(id) and _has_instant(id))  # noqa: A001 - the word of the domain


def _folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, none where it is gone; links are passed over."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise run_logs.unreadable(folder, error) from error


def _has_instant(name: str) -> bool:
    try:
        run_instant(name)
    except ValueError:
        return False
    return True


def _may_be_there(to: object) -> bool:
    try:
        return isinstance(to, str) and os.lstat(to) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
