"""Who could have written what is read: a file that decides what runs is believed only where nobody else could have.

That is so where the file, and each folder in which a name was looked up on the way to it, also through symlinks,
belongs to this user or to root, and nobody else may write it. A sticky folder (/tmp) may stand further up: there nobody
can take away a folder of another user. Files and links in it may not: a missing one would be anybody's to make.

One case looks worse than it is. Where every user has a group of its own (Debian's, Fedora's and Ubuntu's way), the
umask is 002 and files are writable by their group, in which nobody else is. These are believed; with an access control
list they are not, for then the mode of the group tells of others too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from orchctl.adapters import accounts

_MOST_LINKS = 40
_ACL = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why what is at `path` cannot be believed, and what mends that."""

    path: str
    why: str
    mend: str


def owner(state_dir: Path) -> int | None:
    """Return whose the state directory is, for root; None for anybody else, and where there is none."""
    if os.geteuid() != 0:
        return None
    try:
        return state_dir.stat().st_uid
    except OSError:
        return None


def trusted(state_dir: Path, caller: str | None) -> frozenset[int]:
    """Return the users that root believes besides itself; none for anybody else.

    Who called sudo (`caller`, None: nobody) has what root does in hand; the worker of whom the state directory belongs
    to runs what stands there.
    """
    if os.geteuid() != 0:
        return frozenset()
    found = {uid for uid in (owner(state_dir),) if uid is not None}
    if caller is not None and (uid := accounts.uid_of(caller)) is not None:
        found.add(uid)
    return frozenset(found)


def doubts(path: Path, status: os.stat_result, *, trust: Collection[int] = ()) -> tuple[Doubt, ...]:
    """Return why a file may not be believed, nothing where it may. `status` is that of the file as it was opened.

    The way to it is looked at after it was opened, and that is enough: whoever could have led us elsewhere may write
    the folder where the ways part, and that folder is on this way too. Raises OSError.
    """
    believed = frozenset({os.geteuid(), 0, *trust})
    found = [*_way(path, believed), _of_entry(str(path), status, believed)]
    return tuple({doubt.path: doubt for doubt in found if doubt is not None}.values())


def doubts_below(folder: Path, names: Collection[str], *, trust: Collection[int] = ()) -> tuple[Doubt, ...]:
    """Return why a folder and what is at `names` below it, each in the one before, may not be believed.

    Nothing above the folder is looked at, which may be a link of ours to another place; below it there are no links.
    Raises OSError.
    """
    believed = frozenset({os.geteuid(), 0, *trust})
    found = []
    if stat.S_ISLNK((link := os.lstat(folder)).st_mode):
        found.append(_of_owner(str(folder), link, believed))
    found.append(_of_entry(str(folder), os.stat(folder), believed))
    path = folder
    for name in names:
        path /= name
        found.append(_of_entry(str(path), os.lstat(path), believed))
    return tuple(doubt for doubt in found if doubt is not None)


def told(doubts: Collection[Doubt]) -> tuple[str, str]:
    """Return what is wrong, for a message, and what mends it, for its hint."""
    said = "; ".join(f"{doubt.path} {doubt.why}" for doubt in doubts)
    return said, f"look at what it says, then: {' && '.join(dict.fromkeys(doubt.mend for doubt in doubts))}"


def _way(path: Path, believed: Collection[int]) -> Iterator[Doubt | None]:
    """Yield what is wrong with each folder in which a name was looked up, and each link that was followed."""
    at, links = "/", 0
    left = list(reversed(str(path.absolute()).split("/")))
    while left:
        name = left.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, name)
        entry = os.lstat(here)
        yield _of_entry(at, os.stat(at), believed, sticky_will_do=stat.S_ISDIR(entry.st_mode))
        if not stat.S_ISLNK(entry.st_mode):
            at = here
            continue
        yield _of_owner(here, entry, believed)
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = os.readlink(here)
        at = "/" if target.startswith("/") else at
        left += reversed(target.split("/"))


def _of_entry(
    path: str, status: os.stat_result, believed: Collection[int], *, sticky_will_do: bool = False
) -> Doubt | None:
    """Return what is wrong with a file or a folder; a link among them is one that should not be there."""
    if stat.S_ISLNK(status.st_mode):
        return Doubt(path, "is a symlink", f"ls -l {quote(path)}")
    if (doubt := _of_owner(path, status, believed)) is not None:
        return doubt
    if sticky_will_do and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        who = "anybody"
    elif status.st_mode & stat.S_IWGRP and not _is_private(path, status):
        who = f"the group {accounts.group_name(status.st_gid)}"
    else:
        return None
    if status.st_mode & stat.S_ISVTX:
        return Doubt(path, f"may be written by {who}", f"move what is in {path} into a folder of your own")
    return Doubt(path, f"may be written by {who}", f"chmod go-w {quote(path)}")


def _of_owner(path: str, status: os.stat_result, believed: Collection[int]) -> Doubt | None:
    if status.st_uid in believed:
        return None
    whose, ours = accounts.user_name(status.st_uid), accounts.user_name(os.geteuid())
    return Doubt(path, f"belongs to {whose}, not to {ours}", f"chown -h {ours} {quote(path)}")


def _is_private(path: str, status: os.stat_result) -> bool:
    """Whether nobody but the owner is in the group of a file, and its mode tells of nobody else either."""
    if not accounts.is_private_group(status.st_uid, status.st_gid):
        return False
    try:
        return not os.getxattr(path, _ACL)
    except OSError as error:
        return error.errno in {errno.ENODATA, errno.ENOTSUP}
