"""What a command of a job gets besides its argv: the variables of its `env_files`, and who it runs as (`user`).

Both follow systemd (EnvironmentFile=, User=). A file is read by the worker's user, at the start of each attempt;
its variables win over `env`, and over HOME and the like of another user.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import env_files
from orchctl.runner.account import Account
from orchctl.runner.process import CommandNotStarted

OWN_FOLDER = "files"
"""In the folder of a run: what belongs to the command's user where that is not the worker's."""
# They lead into the home, the session or the past of the worker's user.
_THE_WORKERS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "MAIL", "OLDPWD", "PWD")
_HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
_CANNOT_START = 126


@dataclass(frozen=True, slots=True)
class Who:
    """Who a command runs as: `account` None is the worker's user. `unfit` is why it cannot be started."""

    account: Account | None = None
    unfit: CommandNotStarted | None = None


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of environment files; `unfit` is why the command cannot be started.

    `notes` name optional files that were passed over though they exist.
    """

    values: Mapping[str, str]
    notes: tuple[str, ...] = ()
    unfit: CommandNotStarted | None = None


def who(user: str | None) -> Who:
    """Return who a command runs as. Raises nothing."""
    try:
        return Who(account_of(user))
    except CommandNotStarted as error:
        return Who(unfit=error)


def variables(files: Sequence[str]) -> Variables:
    """Return the variables of environment files. Raises nothing."""
    notes: list[str] = []
    try:
        values = read(files, notes)
    except CommandNotStarted as error:
        return Variables({}, tuple(notes), error)
    return Variables(values, tuple(notes))


def account_of(user: str | None) -> Account | None:
    """Return the user to become, None where there is nothing to become. Raises CommandNotStarted."""
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CommandNotStarted(
            f"this job runs as {user}, and this host has no such user",
            shell_code=_CANNOT_START,
            hint="put right `user` in the catalog, or add the user",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise CommandNotStarted(
            f"this job runs as {user}, the worker runs as {_me()}",
            shell_code=_CANNOT_START,
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


def read(files: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Return the variables of environment files, a later file over an earlier one.

    With a leading `-` a file may be missing, and whatever else is wrong with it is noted only, as in systemd. Raises
    CommandNotStarted.
    """
    found: dict[str, str] = {}
    for name in files:
        path, optional = name.removeprefix("-"), name.startswith("-")
        try:
            found |= env_files.read(path)
        except (OSError, ValueError) as error:
            missing = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENOTDIR}
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if not optional:
                hint = "a leading - in env_files means that it may be missing" if missing else None
                message = f"the environment file {path} cannot be read: {reason}"
                raise CommandNotStarted(message, shell_code=_CANNOT_START, hint=hint) from error
            if not missing:
                notes.append(f"the environment file {path} is passed over: {reason}")
    return found


def folder(directory: Path, account: Account | None) -> Path:
    """Return what `{run_dir}` is for a command: the folder of its run, or for another user's the one made for it."""
    return directory if account is None else directory / OWN_FOLDER


def own_folder(directory: Path, account: Account | None) -> None:
    """Make the folder that a command of another user may write to. Raises CommandNotStarted. Repeatable.

    It is one folder inside that of the run: whoever may write to that of the run could put something else in the
    place of the manifest and the logs, which the worker, as root, then writes through.
    """
    if account is None:
        return
    path = folder(directory, account)
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o755)
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid:
            raise PermissionError(errno.EPERM, f"it is there and no folder of {account.name}")
    except OSError as error:
        message = f"the folder {path} cannot be given to {account.name}: {error.strerror}"
        raise CommandNotStarted(message, shell_code=_CANNOT_START) from error


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
