"""What a command of a job gets besides its argv: the variables of its `env_files`, and who it runs as (`user`).

Both follow systemd (EnvironmentFile=, User=). A file is read by the worker's user, at the start of each attempt;
its variables win over `env`, and over HOME and the like of another user.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import accounts, env_files
from orchctl.adapters.accounts import Account
from orchctl.errors import NotBelieved, OrchctlError
from orchctl.runner.process import CommandNotStarted

OWN_FOLDER = "files"
"""In the folder of a run: what belongs to the command's user where that is not the worker's."""
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
        return Who(accounts.account_of(user))
    except OrchctlError as error:
        return Who(unfit=CommandNotStarted(error.message, shell_code=_CANNOT_START, hint=error.hint))


def variables(files: Sequence[str], account: Account | None = None) -> Variables:
    """Return the variables of environment files for a command of `account`, None: of the worker's user. Raises nothing.

    They are believed where nobody but these two and root could have written them.
    """
    notes: list[str] = []
    try:
        values = read(files, notes, trust=() if account is None else (account.uid,))
    except CommandNotStarted as error:
        return Variables({}, tuple(notes), error)
    return Variables(values, tuple(notes))


def read(files: Sequence[str], notes: list[str], *, trust: Collection[int] = ()) -> dict[str, str]:
    """Return the variables of environment files, a later file over an earlier one.

    With a leading `-` a file may be missing, and whatever else is wrong with it is noted only, as in systemd; but one
    that somebody else could have written is never passed over in silence. Raises CommandNotStarted.
    """
    found: dict[str, str] = {}
    for name in files:
        path, optional = name.removeprefix("-"), name.startswith("-")
        try:
            found |= env_files.read(path, trust=trust)
        except NotBelieved as error:
            message = f"the environment file {path} is not read: {error.message}"
            raise CommandNotStarted(message, shell_code=_CANNOT_START, hint=error.hint) from error
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
