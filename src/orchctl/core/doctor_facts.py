"""What `doctor` is told of a host: files, disks, sockets, packages, as they are. Pure shapes, no judgement."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Who:
    """An account. `groups` are the ids of all of its groups, its own one included."""

    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file or folder, not followed where it is a symlink.

    `mode` is st_mode, `owner` the name of its user, `size` bytes, `changed` its mtime (UTC).
    """

    path: str
    mode: int
    uid: int
    gid: int
    owner: str
    size: int
    changed: datetime

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def bits(self) -> str:
        """Its permissions as `chmod` takes them: `0644`."""
        return f"{stat.S_IMODE(self.mode):04o}"

    @property
    def open_to_all(self) -> bool:
        """Whether everybody may write it; not so a sticky folder like /tmp, where nobody removes what is another's."""
        return bool(self.mode & stat.S_IWOTH) and not (self.is_folder and self.mode & stat.S_ISVTX)

    def lets_write(self, who: Who) -> bool:
        """Whether its mode lets an account write it (into it, where it is a folder). ACLs are not known."""
        wanted = 0o3 if self.is_folder else 0o2
        if who.uid == 0:
            return True
        shift = 6 if who.uid == self.uid else 3 if self.gid in who.groups else 0
        return (self.mode >> shift) & wanted == wanted


@dataclass(frozen=True, slots=True)
class Sampled:
    """A part of what lies under a folder: the folder itself first, the newest by name of each folder before older ones.

    `whole` is whether nothing was left out; `unread` names a folder that could not be looked into, None where none.
    """

    root: str
    files: tuple[FileFacts, ...]
    whole: bool
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds `path`; `device` tells file systems apart. Bytes; one without inodes has 0 of 0."""

    path: str
    device: int
    free: int
    total: int
    free_inodes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits for TCP connections. `address` is that it is bound to, `owner` the user who made it.

    `pid` and `program` are None where that process may not be looked at; `is_prefect`: whether it is a Prefect server,
    None where that is not known either.
    """

    address: str
    port: int
    owner: str
    pid: int | None
    program: str | None
    is_prefect: bool | None

    @property
    def is_loopback(self) -> bool:
        """Whether only this host's programs reach it."""
        return self.address.startswith("127.") or self.address == "::1"

    @property
    def label(self) -> str:
        """Its program in a sentence."""
        return f"{self.program} (pid {self.pid})" if self.program else f"a program of {self.owner}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that orchctl needs: `bounds` as its own metadata has them, `installed` None where it is not there."""

    name: str
    bounds: str
    installed: str | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Backup:
    """The last backup: when it was made, where it is, and when it was last verified, None where it never was.

    `problem` is what its last verification found wrong, None where nothing. `size` is its bytes when it was made, None:
    not known.
    """

    at: datetime
    path: str
    verified: datetime | None
    problem: str | None = None
    size: int | None = None
