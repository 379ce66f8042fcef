"""A user that a command can run as, and what it has of our environment: both follow systemd's User=."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
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
            f"this job runs as {user}, the worker runs as {_me()}",
            hint=f"start the worker as {user} or as root, or leave `user` out of the catalog",
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def inherited(environment: Mapping[str, str], account: Account | None) -> dict[str, str]:
    """Return what a command has of the worker's environment: nothing of Prefect's, nor of another user's session."""
    kept = {key: value for key, value in environment.items() if not key.startswith("PREFECT_")}
    if account is None:
        return kept
    # systemd sets these four for User=.
    own = {"HOME": account.home, "LOGNAME": account.name, "USER": account.name, "SHELL": account.shell}
    return {key: value for key, value in kept.items() if key not in (*_THE_WORKERS, *_HOMES)} | own


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
