"""The catalog's files on disk: two that there must be, and contracts.toml, which may be missing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from orchctl.adapters import files
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.errors import CatalogInvalid, NotAllowed

JOBS = "jobs.toml"
SCHEDULES = "schedules.toml"
CONTRACTS = "contracts.toml"


def load(directory: Path) -> Catalog:
    """Read and resolve the catalog in `directory`.

    Raises CatalogInvalid with every problem (also a missing file), NotAllowed where a file may not be read.
    """
    jobs, schedules, contracts = (
        (str(directory / name), _read(directory / name)) for name in (JOBS, SCHEDULES, CONTRACTS)
    )
    try:
        return build(jobs, schedules, contracts)
    except CatalogInvalid as error:
        if None not in (jobs[1], schedules[1]):
            raise
        hint = "name its folder with --config DIR or ORCHCTL_CONFIG"
        raise CatalogInvalid(f"there is no catalog in {directory}", problems=error.problems, hint=hint) from error


def texts(directory: Path) -> dict[str, str | None]:
    """Return the text of each file as it is, None where it does not exist.

    Raises CatalogInvalid where one is not UTF-8, NotAllowed where one may not be read.
    """
    found: dict[str, str | None] = {}
    for name in (JOBS, SCHEDULES, CONTRACTS):
        content = _read(directory / name)
        try:
            found[name] = None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CatalogInvalid(f"{directory / name} is not UTF-8 (byte {error.start})") from error
    return found


def write(directory: Path, contents: Mapping[str, str]) -> None:
    """Write files of the catalog, in the order given: all or none, but for a kill between two. Makes `directory`.

    A file keeps its mode and, where root writes, its owner; a symlink stays one. Raises NotAllowed, OrchctlError.
    """
    files.make_directory(directory)
    made = []
    for name, text in contents.items():
        path = (directory / name).resolve()
        before = path.stat() if path.exists() else None
        mode = stat.S_IMODE(before.st_mode) if before is not None else 0o644
        like = before or directory.stat()
        owner = (like.st_uid, like.st_gid) if os.geteuid() == 0 else None
        made.append(files.Content(path, text.encode(), mode, exact=before is not None, owner=owner))
    files.write_together(made)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotAllowed(f"cannot read {path}: {error.strerror}", hint="see who owns it") from error
