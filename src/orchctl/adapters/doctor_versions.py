"""The versions that an interpreter has, beside the bounds in orchctl's own metadata. Imports none of the packages."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError

from orchctl.core.doctor_facts import Requirement
from orchctl.errors import OrchctlError

_OURS = "orchctl"


def requirements(python: str | None = None, *, folders: Sequence[str] | None = None) -> tuple[Requirement, ...]:
    """Return what orchctl needs, with what is installed for an interpreter (None: this one), by name.

    `folders` are where its packages are, None: where they usually are. Raises OrchctlError where orchctl is not among
    them, or nothing can compare versions.
    """
    try:
        from packaging.requirements import Requirement as Wanted
    except ImportError as error:
        raise OrchctlError("nothing here compares versions", hint="pip install packaging") from error
    where = folders if folders is not None else None if python in {None, sys.executable} else folders_of(python or "")
    ours = _distribution(_OURS, where)
    if ours is None:
        raise OrchctlError(
            f"orchctl's own metadata is not among the packages of {python or sys.executable}",
            hint="install it there with pip, not by copying files",
        )
    found = []
    for text in ours.requires or ():
        wanted = Wanted(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = _distribution(wanted.name, where)
        version = there.version if there is not None else None
        holds = version is not None and wanted.specifier.contains(version, prereleases=True)
        found.append(Requirement(wanted.name, str(wanted.specifier), version, holds))
    return tuple(sorted(found, key=lambda each: each.name))


def within(version: str, bounds: str) -> bool:
    """Whether a version is within bounds such as `>=3.8.8,<3.9`; one that is none is not."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(bounds).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False


def _distribution(name: str, folders: Sequence[str] | None) -> Distribution | None:
    if folders is None:
        try:
            return importlib.metadata.distribution(name)
        except PackageNotFoundError:
            return None
    return next(iter(importlib.metadata.distributions(name=name, path=list(folders))), None)


def folders_of(python: str) -> list[str]:
    """Return where the packages of an interpreter are: those of its environment, which is not asked itself."""
    environment = os.path.dirname(os.path.dirname(python))
    return sorted(glob.glob(os.path.join(glob.escape(environment), "lib*", "python3*", "site-packages")))
