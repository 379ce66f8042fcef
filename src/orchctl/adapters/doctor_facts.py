"""Facts of files, file systems and accounts, for `doctor`: looked at in bounded time, never changed."""

from __future__ import annotations

import heapq
import os
import pwd
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchctl.adapters import accounts
from orchctl.core.doctor_facts import Disk, FileFacts, Sampled, Who
from orchctl.core.doctor_hosts import Mount, mount_of
from orchctl.errors import NotAllowed, OrchctlError

MOST_FILES = 4_000
"""So many files and folders of one tree are looked at, at most."""
MOST_A_FOLDER = 64
"""So many of one folder: those whose names are last, which under the manifests are the newest dates and runs."""
MOST_SECONDS = 0.3
"""So long for one tree, at most: a network file system may take its time."""


def file(path: str) -> FileFacts | None:
    """Return what is at `path`, None where nothing is. Raises NotAllowed, OrchctlError where that cannot be known."""
    try:
        return _facts(path, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NotAllowed(f"{path} may not be looked at: {error.strerror}", hint="use sudo") from error
    except OSError as error:
        raise OrchctlError(f"{path} cannot be looked at: {error.strerror}") from error


def sample(root: str, *, clock: Callable[[], float] = time.monotonic) -> Sampled:
    """Return a part of what lies under a folder that is there, folders that are nearer first. Follows no symlink.

    Raises NotAllowed, OrchctlError where the folder itself may not be looked at.
    """
    first = file(root)
    if first is None:
        return Sampled(root, (), True)
    found, left, unread, whole = [first], deque([root]), None, True
    deadline = clock() + MOST_SECONDS
    while left:
        if len(found) >= MOST_FILES or clock() > deadline:
            return Sampled(root, tuple(found), False, unread)
        folder = left.popleft()
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went while we looked
        except OSError:
            unread = unread or folder
            continue
        whole = whole and len(names) <= MOST_A_FOLDER
        for name in heapq.nlargest(MOST_A_FOLDER, names):
            path = os.path.join(folder, name)
            try:
                facts = _facts(path, os.lstat(path))
            except OSError:
                continue
            found.append(facts)
            if facts.is_folder:
                left.append(path)
    return Sampled(root, tuple(found), whole, unread)


def mount(path: str) -> Mount | None:
    """Return the file system that holds `path`, or would; None where the kernel does not say."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return mount_of(file.read(), os.path.realpath(path))
    except OSError:
        return None


def disk(path: str) -> Disk:
    """Return the file system that holds `path`, or would: that of the nearest folder above that is there.

    Raises OrchctlError.
    """
    there = path
    while not os.path.exists(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    try:
        found, device = os.statvfs(there), os.stat(there).st_dev
    except OSError as error:
        raise OrchctlError(f"the file system of {path} cannot be looked at: {error.strerror}") from error
    # What only root may use is of no use to a worker.
    return Disk(
        path, device, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files
    )


def who(user: str | int | None) -> Who:
    """Return an account by name or uid, None: that of this process. Raises OrchctlError where there is no such name."""
    uid = os.geteuid() if user is None else user
    try:
        entry = pwd.getpwnam(uid) if isinstance(uid, str) else pwd.getpwuid(uid)
    except KeyError as error:
        if isinstance(uid, int):
            return Who(accounts.user_name(uid), uid, frozenset())
        raise OrchctlError(f"there is no user {user} on this host", hint="add the user, or name another") from error
    return Who(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def is_zone(name: str) -> bool:
    """Whether the time zone database has a zone of this name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _facts(path: str, status: os.stat_result) -> FileFacts:
    changed = datetime.fromtimestamp(max(0.0, min(status.st_mtime, 2**35)), UTC)  # `touch` can set any time
    return FileFacts(path, status.st_mode, status.st_uid, status.st_gid, _owner(status.st_uid), status.st_size, changed)


@cache
def _owner(uid: int) -> str:
    """Return the name of a user: a directory service is asked once."""
    return accounts.user_name(uid)
