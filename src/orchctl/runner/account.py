"""A user that a command can run as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host. `groups` are the ids of all of its groups, its own one included."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def identity(self) -> dict[str, Any]:
        """What makes `subprocess.Popen` start a program as this user; only root can."""
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups}
