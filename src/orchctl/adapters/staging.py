"""Staging directories: where files lie until they are promoted. What the dead leave is swept after a day.

Each of a run is registered under `<data root>/manifests/_staging/`, one small file for each that is open: a sweep looks
there and at nothing else, however long the history is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchctl.adapters import files, host_facts
from orchctl.adapters.publishing import make_folders, mapped
from orchctl.core.manifest import Place
from orchctl.core.names import format_instant, parse_instant

FOLDER = "_staging"
KEPT_FOR = timedelta(days=1)
"""How long what the dead left is kept."""


def open_staging(
    folder: Path,
    data_root: str,
    place: Place,
    *,
    since: datetime,
    until: datetime,
    owner: tuple[int, int] | None = None,
) -> Path:
    """Make and register an empty `<folder>/_staging/<uuid>/`. Raises PublishError.

    `place` is the process that uses it, `since` the time, `until` when its time-out is over. It belongs to `owner`
    (uid, gid), None: who makes it; the folders above it never do, so that nobody else puts something in its place.
    """
    name = str(uuid.uuid4())
    path = folder / FOLDER / name
    record = {
        "path": str(path),
        "hostname": place.hostname,
        "boot_id": place.boot_id,
        "pid": place.pid,
        "pid_started": place.pid_started,
        "since": format_instant(since),
        "until": format_instant(until),
    }
    with mapped(f"the staging directory {path} cannot be made"):
        registry = _registry(data_root)
        make_folders(registry)
        files.create_exclusive(registry / f"{name}.json", files.dump(record), mode=0o644, owner=files.heir(registry))
        make_folders(path.parent)
        path.mkdir()
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
    return path


def close_staging(path: Path) -> None:
    """Remove what is left of a staging directory, and its registration. Raises nothing. Repeatable.

    What cannot be removed stays registered: `sweep` tries again.
    """
    for folder in path.parents:
        record = folder / FOLDER / f"{path.name}.json"
        if record.is_file():
            _remove(path, record)
            return
    _remove(path, None)


def sweep(data_root: str, *, now: datetime) -> None:
    """Remove the staging directories that dead processes left more than a day ago. Raises nothing.

    Whether a process of another host lives cannot be seen here: what it uses is old enough a day after its time-out,
    and where nothing in it has been written for a day (the time-out may have found nobody who could end it).
    """
    with contextlib.suppress(OSError):
        for record in list(_registry(data_root).iterdir()):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                if record.suffix != ".json":
                    _remove_old(record, now)
                    continue
                data = json.loads(record.read_bytes())
                path = _path(data, record, data_root)
                if _is_left(data, path, now):
                    _remove(path, record)


@contextlib.contextmanager
def staged(base: Path) -> Iterator[Path]:
    """Make an empty `<base>/_staging/<uuid>/` for the duration; what is left in it is removed. Raises PublishError.

    It is registered nowhere: the lock of the directory itself tells that its process lives. What the dead left beside
    it more than a day ago is removed.
    """
    parent = base / FOLDER
    path = parent / str(uuid.uuid4())
    with mapped(f"the staging directory {path} cannot be made"):
        make_folders(parent)
        _sweep_beside(parent, datetime.now(UTC))
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        _remove(path, None)
        os.close(descriptor)


def _sweep_beside(parent: Path, now: datetime) -> None:
    for path in parent.iterdir():
        with contextlib.suppress(OSError):
            if datetime.fromtimestamp(path.lstat().st_mtime, UTC) + KEPT_FOR > now:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _is_left(data: dict[str, Any], path: Path, now: datetime) -> bool:
    place, before = _place(data), now - KEPT_FOR
    if host_facts.is_elsewhere(place):
        return parse_instant(data["until"]) <= before and newest(path) <= before
    return parse_instant(data["since"]) <= before and host_facts.is_gone(place)


def newest(path: Path) -> datetime:
    """Return when something in a folder was last written, or it was made; long ago where there is none."""
    if not os.path.lexists(path):
        return datetime.min.replace(tzinfo=UTC)
    found = [path.lstat().st_mtime]
    for folder, folders, names in os.walk(path):
        found += [os.lstat(os.path.join(folder, name)).st_mtime for name in (*folders, *names)]
    return datetime.fromtimestamp(max(found), UTC)


def _remove_old(path: Path, now: datetime) -> None:
    """Remove what a writer of the registry left that was killed."""
    if datetime.fromtimestamp(path.lstat().st_mtime, UTC) + KEPT_FOR <= now:
        path.unlink()


def _registry(data_root: str) -> Path:
    return Path(data_root) / "manifests" / FOLDER


def _place(data: dict[str, Any]) -> Place:
    return Place(str(data["hostname"]), str(data["boot_id"]), int(data["pid"]), int(data["pid_started"]))


def _path(data: dict[str, Any], record: Path, data_root: str) -> Path:
    """Return the directory of a registration. Raises ValueError on one that is none of ours, for it will be removed."""
    path = Path(str(data["path"]))
    manifests = (Path(data_root) / "manifests").resolve()
    uuid.UUID(record.stem)
    ours = path.name == record.stem and path.parent.name == FOLDER and path.resolve().is_relative_to(manifests)
    if not ours or path.parent.resolve() == _registry(data_root).resolve():
        raise ValueError(f"{path} is not a staging directory")
    return path


def _remove(path: Path, record: Path | None) -> None:
    with contextlib.suppress(OSError, RecursionError):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # unless another attempt's is in there
        if record is not None:
            record.unlink(missing_ok=True)
