"""The catalog's two files on disk."""

from __future__ import annotations

from pathlib import Path

from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.core.problems import Problem
from orchctl.errors import CatalogInvalid, NotAllowed

JOBS = "jobs.toml"
SCHEDULES = "schedules.toml"


def load(directory: Path) -> Catalog:
    """Read and resolve the catalog in `directory`.

    Raises CatalogInvalid with every problem (also a missing file), NotAllowed where a file may not be read.
    """
    missing = [
        Problem(str(directory / name), None, "", None, "the file does not exist")
        for name in (JOBS, SCHEDULES)
        if not (directory / name).exists()
    ]
    if missing:
        raise CatalogInvalid(
            f"there is no catalog in {directory}",
            problems=tuple(missing),
            hint="name its folder with --config DIR or ORCHCTL_CONFIG",
        )
    return build(*((str(directory / name), _read(directory / name)) for name in (JOBS, SCHEDULES)))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        problem = Problem(str(path), line, "", None, f"not UTF-8 (byte {error.start})")
        raise CatalogInvalid("the catalog has 1 problem", problems=(problem,)) from error
    except OSError as error:
        raise NotAllowed(f"cannot read {path}: {error.strerror}") from error
