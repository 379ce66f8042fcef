"""The id of a state directory, by which hosts that take runs of the same jobs know that they share it.

State directories of two hosts may have the same path and not be one: then each host would let a run of a slot through.
`sync` writes the id beside the claims, and tells it Prefect; a run on a host whose claims have another one is refused.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path

from orchctl.adapters.state_folder import StateFolder
from orchctl.errors import StateBroken

_FOLDER, _NAME = "slots", "state-id.json"
"""No job's name holds a dot."""
_SHARED = ("locks", _FOLDER)
"""Together they keep a slot from running twice: a host that shares one of them shares the other."""
_ID = re.compile(r"[0-9a-f]{32}\Z")


def read(state_dir: Path) -> str | None:
    """Return the id, None where `sync` has not given one yet. Raises StateBroken where it cannot be believed."""
    devices = []
    for folder in _SHARED:
        with contextlib.suppress(OSError):
            devices.append((state_dir / folder).stat().st_dev)
    if len(set(devices)) > 1:
        raise StateBroken(
            f"{' and '.join(_SHARED)} of the state directory {state_dir} are on different file systems",
            hint="hosts share both of them, or none: see docs/scaling.md",
        )
    data = StateFolder(state_dir, _FOLDER).read_json(_NAME)
    if data is None:
        return None
    found = data.get("id") if isinstance(data, dict) else None
    if not isinstance(found, str) or not _ID.match(found):
        raise StateBroken(f"{state_dir / _FOLDER / _NAME} is not an id", hint="remove it, and run `orchctl sync`")
    return found


def make(state_dir: Path) -> str:
    """Return the id; a state directory that has none is given one. Repeatable. Raises StateBroken."""
    if read(state_dir) is None:
        StateFolder(state_dir, _FOLDER).create(_NAME, {"id": secrets.token_hex(16)})
    made = read(state_dir)
    if made is None:
        raise StateBroken(f"the id of {state_dir} came and went")
    return made


def check(state_dir: Path, told: str) -> None:
    """Raise StateBroken where the id is not the one that `sync` told Prefect: nothing may run with this directory."""
    if read(state_dir) != told:
        raise StateBroken(
            f"the state directory {state_dir} of this host is not the one that the job was synced with",
            hint="one host: `orchctl sync`; several: share it, or give each a work pool and a catalog of its own "
            "(docs/scaling.md)",
        )
