"""The catalog's two files on disk."""

from __future__ import annotations

from pathlib import Path

from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.errors import CatalogInvalid, NotAllowed

JOBS = "jobs.toml"
SCHEDULES = "schedules.toml"


def load(directory: Path) -> Catalog:
    """Read and resolve the catalog in `directory`.

    Raises CatalogInvalid with every problem (also a missing file), NotAllowed where a file may not be read.
    """
    contents = {name: _read(directory / name) for name in (JOBS, SCHEDULES)}
    try:
        return build(*((str(directory / name), content) for name, content in contents.items()))
    except CatalogInvalid as error:
        if None not in contents.values():
            raise
        hint = "name its folder with --config DIR or ORCHCTL_CONFIG"
        raise CatalogInvalid(f"there is no catalog in {directory}", problems=error.problems, hint=hint) from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotAllowed(f"cannot read {path}: {error.strerror}", hint="see who owns it") from error
