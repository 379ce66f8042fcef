"""The catalog's files on disk: two that there must be, and contracts.toml and alerts.toml, which may be missing.

Who may write one says what runs here. So all of them are read only where nobody else could have written any
(`adapters/belief.py`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from orchctl.adapters import belief, files
from orchctl.adapters.belief import Doubt
from orchctl.core import catalog_alerts
from orchctl.core.alerts import Alerts
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.errors import CatalogInvalid, CatalogNotBelieved, NotAllowed

JOBS = "jobs.toml"
SCHEDULES = "schedules.toml"
CONTRACTS = "contracts.toml"
ALERTS = "alerts.toml"


def load(directory: Path, *, trust: Collection[int] = ()) -> Catalog:
    """Read and resolve the catalog in `directory`. `trust` are users (uids) whose files count as ours.

    Raises CatalogInvalid with every problem (also a missing file), CatalogNotBelieved where somebody else could have
    written one, NotAllowed where a file may not be read.
    """
    contents = read(directory, (JOBS, SCHEDULES, CONTRACTS), trust=trust)
    jobs, schedules, contracts = ((str(directory / name), content) for name, content in contents.items())
    try:
        return build(jobs, schedules, contracts)
    except CatalogInvalid as error:
        if None not in (jobs[1], schedules[1]):
            raise
        hint = "name its folder with --config DIR or ORCHCTL_CONFIG"
        raise CatalogInvalid(f"there is no catalog in {directory}", problems=error.problems, hint=hint) from error


def alerts(directory: Path, catalog: Catalog | None, *, trust: Collection[int] = ()) -> Alerts | None:
    """Read `alerts.toml` beside a catalog, None where there is none. `catalog` None: it could not be read.

    Raises CatalogInvalid with every problem, CatalogNotBelieved, NotAllowed.
    """
    content = read(directory, (ALERTS,), trust=trust)[ALERTS]
    if content is None:
        return None
    jobs = {name: job.tags for name, job in catalog.jobs.items()} if catalog is not None else None
    return catalog_alerts.build((str(directory / ALERTS), content), jobs)


def texts(directory: Path, *, trust: Collection[int] = ()) -> dict[str, str | None]:
    """Return the text of each file as it is, None where it does not exist.

    Raises CatalogInvalid where one is not UTF-8, CatalogNotBelieved, NotAllowed where one may not be read.
    """
    found: dict[str, str | None] = {}
    for name, content in read(directory, (JOBS, SCHEDULES, CONTRACTS), trust=trust).items():
        try:
            found[name] = None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CatalogInvalid(f"{directory / name} is not UTF-8 (byte {error.start})") from error
    return found


def write(directory: Path, contents: Mapping[str, str]) -> None:
    """Write files of the catalog, in the order given: all or none, but for a kill between two. Makes `directory`.

    A file keeps its mode and, where root writes, its owner; a symlink stays one. Raises NotAllowed, OrchctlError.
    """
    files.make_directory(directory, mode=0o755)
    made = []
    for name, text in contents.items():
        path = (directory / name).resolve()
        before = path.stat() if path.exists() else None
        mode = stat.S_IMODE(before.st_mode) if before is not None else 0o644
        like = before or directory.stat()
        owner = (like.st_uid, like.st_gid) if os.geteuid() == 0 else None
        made.append(files.Content(path, text.encode(), mode, exact=before is not None, owner=owner))
    files.write_together(made)


def read(directory: Path, names: Collection[str], *, trust: Collection[int] = ()) -> dict[str, bytes | None]:
    """Return what files of the catalog hold, None where one does not exist.

    Raises CatalogNotBelieved, which tells of all of them at once, and NotAllowed where one may not be read.
    """
    doubts: dict[str, Doubt] = {}
    found = {}
    for name in names:
        found[name], doubted = _read(directory / name, trust)
        doubts |= {doubt.path: doubt for doubt in doubted}
    if doubts:
        said, hint = belief.told(doubts.values())
        message = f"the catalog in {directory} could have been written by somebody else: {said}"
        raise CatalogNotBelieved(message, hint=hint)
    return found


def _read(path: Path, trust: Collection[int]) -> tuple[bytes | None, tuple[Doubt, ...]]:
    try:
        # O_NONBLOCK: a FIFO in the file's place would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotAllowed(f"{path} is not a plain file", hint="look at it, and remove it")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(), belief.doubts(path, status, trust=trust)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None, ()
    except OSError as error:
        raise NotAllowed(f"cannot read {path}: {error.strerror}", hint="see who owns it") from error
