"""A user that a command can run as, and what it has of our environment: both follow systemd's User=."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchctl.errors import OrchctlError

# They lead into the home, the session or the past of the worker's user.
_THE_WORKERS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "MAIL", "OLDPWD", "PWD")
_HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


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


def account_of(user: str | None) -> Account | None:
    """Return the user to become, None where there is nothing to become. Raises OrchctlError."""
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise OrchctlError(
            f"this job runs as {user}, and this host has no such user",
            hint="put right `user` in the catalog, or add the user",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise OrchctlError(
            f"this job runs as {user}, the worker runs as {user_name(os.geteuid())}",
            hint=f"start the worker as {user} or as root, or leave `user` out of the catalog",
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def inherited(
    environment: Mapping[str, str], account: Account | None, *, hidden: Collection[str] = ()
) -> dict[str, str]:
    """Return what a command has of the worker's environment: nothing of Prefect's, nor of another user's session.

    `hidden` are variables that are no business of a command.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith("PREFECT_") and key not in hidden}
    if account is None:
        return kept
    # systemd sets these four for User=.
    own = {"HOME": account.home, "LOGNAME": account.name, "USER": account.name, "SHELL": account.shell}
    return {key: value for key, value in kept.items() if key not in (*_THE_WORKERS, *_HOMES)} | own


def user_name(uid: int) -> str:
    """Return the name of a user, `uid 1234` where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def group_name(gid: int) -> str:
    """Return the name of a group, `gid 1234` where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def uid_of(user: str) -> int | None:
    """Return the uid of a user of this host, None where there is none of that name."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def is_private_group(uid: int, gid: int) -> bool:
    """Whether a group is a user's own, as useradd makes one for each: primary, of the same name, and nobody else in it.

    The name counts: a directory service may list neither the members of a group nor the users whose primary one it is.
    """
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    own = user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return own and all(entry.pw_gid != gid or entry.pw_uid == uid for entry in pwd.getpwall())
