"""Owner files: `state/owners/<job>.json` exists exactly while Prefect owns the job.

Only a handover writes here. The folder may be searched by others where a fence of another user must see that a file
exists (`adapters/fence.py`); nobody else can read one or list them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchctl.adapters.state_folder import StateFolder
from orchctl.core import sealed
from orchctl.core.names import format_exact, format_instant, is_name, is_run_id, parse_instant
from orchctl.core.slots import Owner
from orchctl.errors import StateBroken


class Owners:
    """Who owns each job."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = StateFolder(state_dir, "owners")

    def path(self, job: str) -> Path:
        """Return where the owner file of a job is, or would be."""
        return self._folder.path(f"{job}.json")

    def read(self, job: str) -> Owner | None:
        """Return Prefect's ownership of `job`, None where legacy owns it.

        Raises StateBroken on a file that cannot be believed: it never reads as "Prefect owns it".
        """
        data = self._folder.read_json(f"{job}.json")
        if data is None:
            return None
        try:
            return _owner(data)
        except ValueError as error:
            raise StateBroken(
                f"{self.path(job)} is not an owner file: {error}", hint=f"`orchctl rollback {job}` removes it"
            ) from error

    def names(self) -> tuple[str, ...]:
        """Return the jobs that have an owner file, also one that cannot be believed; sorted."""
        names = (name.removesuffix(".json") for name in self._folder.names() if name.endswith(".json"))
        return tuple(name for name in names if is_name(name))

    def create(self, job: str, owner: Owner, *, still: Callable[[], bool]) -> bool:
        """Make Prefect the owner: the commit of a cutover. False where there is an owner file already, or where it was
        not `still` to be when all but its appearance was done.
        """
        return self._folder.create(f"{job}.json", _to_json(owner), still=still)

    def replace(self, job: str, owner: Owner) -> None:
        """Write another content into the owner file, in one step."""
        self._folder.write(f"{job}.json", _to_json(owner))

    def remove(self, job: str) -> None:
        """Make legacy the owner: the commit of a rollback. Repeatable."""
        self._folder.remove(f"{job}.json")


def _to_json(owner: Owner) -> dict[str, Any]:
    said = {
        "since": format_exact(owner.since),
        "draining": owner.draining,
        "granted": None if owner.granted is None else [format_exact(slot) for slot in owner.granted],
        "handover": owner.handover,
        "confirm_by": None if owner.confirm_by is None else format_instant(owner.confirm_by),
    }
    return sealed.seal(said)


def _owner(data: Any) -> Owner:
    if not isinstance(data, dict):
        raise ValueError("it is no table")
    if not sealed.is_whole(data):
        raise ValueError("its checksum is another: it was damaged, or written by hand")
    draining, handover, confirm_by = data.get("draining", False), data.get("handover"), data.get("confirm_by")
    granted = data.get("granted", [])
    if not isinstance(draining, bool):
        raise ValueError(f"draining is {draining!r:.40}")
    if handover is not None and not is_run_id(str(handover)):
        raise ValueError(f"handover is {handover!r:.40}")
    if not isinstance(granted, list | None):
        raise ValueError(f"granted is {granted!r:.40}")
    return Owner(
        since=parse_instant(str(data.get("since"))),
        draining=draining,
        granted=None if granted is None else tuple(parse_instant(str(slot)) for slot in granted),
        handover=handover,
        confirm_by=None if confirm_by is None else parse_instant(str(confirm_by)),
    )
