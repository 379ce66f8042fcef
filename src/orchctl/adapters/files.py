"""Durable files: whole or not at all, and never through a symlink."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchctl.adapters import belief
from orchctl.errors import NotAllowed, OrchctlError, StateBroken

_TURN_S = 1.0


def dump(data: object) -> bytes:
    """Return `data` as JSON that people can read, with a final newline."""
    # A name that is not UTF-8 stays readable JSON: its surrogates become escapes.
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make `path` and its parents; `mode` (less the umask) for those that are new. Repeatable."""
    with _mapped(path):
        if not path.is_dir():
            if path.parent != path:
                make_directory(path.parent, mode=mode)
            try:
                path.mkdir(mode=mode)
            except FileExistsError:
                pass
            except FileNotFoundError:  # a prune has just removed the folder above, which was empty
                make_directory(path.parent, mode=mode)
                path.mkdir(mode=mode, exist_ok=True)
            if not path.is_dir():
                raise NotADirectoryError(20, "is in the way and is not a directory", str(path))


def make_private(path: Path) -> None:
    """Make a folder of the state directory, for its owner alone. When this returns no power cut takes it away again."""
    if path.is_dir():
        return
    if path.parent != path and not path.parent.is_dir():
        make_private(path.parent)
    with _mapped(path):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            if (owner := heir(path.parent)) is not None:
                os.chown(path, *owner, follow_symlinks=False)
        sync_directory(path.parent)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `content`: a reader sees the old file or the new one, also after a power cut.

    Temporary file in the same directory, fsync, rename, fsync of the directory. Raises NotAllowed or
    OrchctlError (a full disk) and leaves the old file as it was. Repeatable.
    """
    write_together([Content(path, content, mode)])


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to hold. `mode` is less the umask, as for every new file, unless it is `exact`: that of a file
    which this one replaces. `owner` is uid and gid, None for the writer's.
    """

    path: Path
    content: bytes
    mode: int = 0o644
    exact: bool = False
    owner: tuple[int, int] | None = None


def write_together(contents: Sequence[Content]) -> None:
    """Replace several files, in this order. All are written in full, beside their places, before the first is replaced:
    a full disk leaves every one as it was. Raises NotAllowed or OrchctlError.
    """
    temporaries = [temporary_of(one.path) for one in contents]
    try:
        for one, temporary in zip(contents, temporaries, strict=True):
            with _mapped(one.path):
                _write_whole(temporary, one)
        for one, temporary in zip(contents, temporaries, strict=True):
            with _mapped(one.path):
                temporary.replace(one.path)
                sync_directory(one.path.parent)
    except BaseException:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def torn(path: Path) -> list[Path]:
    """Return what writers of `path` left beside it that were killed, or that are at work, in order of their names."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def temporary_of(path: Path) -> Path:
    """Return another name, unlikely to be taken, under which what `path` is to hold is written first. See `torn`."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _write_whole(temporary: Path, one: Content) -> None:
    # Private until it is another's: it may hold secrets.
    _write_new(
        temporary,
        one.content,
        0o600 if one.exact else one.mode,
        owner=one.owner,
        exact=one.mode if one.exact else None,
    )


def create_exclusive(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    still: Callable[[], bool] = lambda: True,
) -> bool:
    """Create `path` with `content` unless it exists; return whether we did. It is never seen half-written.

    `still` is asked when all has been written that takes time: False, and the file does not appear.

    The file is written under another name and then linked: `link` fails where the name is taken, as O_EXCL
    does, but the name appears together with its content.
    """
    temporary = temporary_of(path)
    with _mapped(path):
        try:
            _write_new(temporary, content, mode, owner=owner)
            if not still():
                return False
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    return True


def open_lock(path: Path) -> int:
    """Open a lock file, made with its folder where it is missing, for this user alone.

    Raises NotAllowed, and StateBroken where somebody else may write its folder: who puts another file in its place
    gives the lock to two.
    """
    make_private(path.parent)
    try:
        owner = heir(path.parent)
        found = belief.doubts_below(path.parent, (), trust=() if owner is None else owner[:1])
        if found:
            said, hint = belief.told(found)
            raise StateBroken(f"the lock {path} cannot be believed: {said}", hint=hint)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StateBroken(f"{path} is not a plain file", hint="look at it, and remove it")
        if owner is not None:
            os.fchown(descriptor, *owner)
        return descriptor
    except OSError as error:
        raise NotAllowed(
            f"cannot open {path}: {error.strerror}", hint="see who owns it, and whether the file system is read-only"
        ) from error


def try_lock(descriptor: int, path: Path) -> bool:
    """Take the lock of an open lock file; False where another process holds it. Never waits. Raises NotAllowed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NotAllowed(f"cannot lock {path}: {error.strerror}") from error
    return True


def append_line(path: Path, line: bytes, *, durable: bool = False) -> None:
    """Append one line (newline included) with a single write, so that lines of several writers never mix.

    A line that a full disk or a power cut left torn is ended first, or it would swallow this one. `durable`: it is on
    the disk when this returns.
    """
    with _mapped(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _in_turn(descriptor)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, "wrote only a part of a line", str(path))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _in_turn(descriptor: int) -> None:
    """Wait for others who append: on a network file system two hosts that do at once overwrite each other's lines.

    Nobody is waited for longer than a second: a writer may have been frozen. The lock goes when the file is closed.
    """
    deadline = time.monotonic() + _TURN_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return  # a file system without locks
        else:
            return


def read_json(path: Path, *, trust: int | None = None) -> Any | None:
    """Read a JSON file of the state directory as `read_believed` does; StateBroken also where it is not JSON."""
    content = read_believed(path, trust=trust)
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StateBroken(f"{path} is not JSON: {error}") from error


def read_believed(path: Path, *, trust: int | None = None) -> bytes | None:
    """Read a file of the state directory; None where it does not exist. `trust` is a user whose files count as ours.

    Raises StateBroken where it cannot be believed: a symlink, or one for its folder; what is not a plain file;
    a file or folder of another user (root's are believed), or that others may write.
    """
    try:
        folder = _open_folder(path.parent)
    except FileNotFoundError:
        return None
    try:
        _believe(os.fstat(folder), path.parent, trust)
        # O_NONBLOCK: a FIFO in the file's place would hold us for ever.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateBroken(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(folder)
    try:
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StateBroken(f"{path} is not a plain file", hint="look at it, and remove it")
            _believe(status, path, trust)
            return file.read()
    except OSError as error:
        raise StateBroken(f"cannot read {path}: {error.strerror}") from error


def believe_folder(path: Path, *, trust: int | None = None) -> None:
    """Raise StateBroken where a folder of the state directory is none whose files `read_believed` would believe."""
    folder = _open_folder(path)
    try:
        _believe(os.fstat(folder), path, trust)
    finally:
        os.close(folder)


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateBroken(f"cannot look into {path}: {error.strerror}") from error


def _believe(status: os.stat_result, path: Path, trust: int | None) -> None:
    """Raise StateBroken where somebody else could have written what is at `path`."""
    if status.st_uid not in {os.geteuid(), 0, trust}:
        raise StateBroken(f"{path} belongs to uid {status.st_uid}, not to this user", hint="look at who wrote it")
    if status.st_mode & 0o022:
        raise StateBroken(f"{path} may be written by others", hint=f"look at it, then chmod go-w {path}")


def _write_new(
    path: Path, content: bytes, mode: int, *, owner: tuple[int, int] | None = None, exact: int | None = None
) -> None:
    """Write a new file. Owner and exact mode are given to what was opened: whoever owns the folder may put a symlink in
    the place of its name, and root would give away what that leads to.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        if exact is not None:
            os.fchmod(descriptor, exact)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a file; when this returns, no power cut brings it back. Repeatable. Raises NotAllowed or OrchctlError."""
    with _mapped(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)


def heir(folder: Path) -> tuple[int, int] | None:
    """Return whose what root makes in `folder` is to be (uid, gid): its owner's; None where it is ours anyway.

    A worker must be able to read what root wrote into its state directory.
    """
    if os.geteuid() != 0:
        return None
    status = folder.stat()
    return (status.st_uid, status.st_gid) if status.st_uid != 0 else None


def sync_directory(path: Path) -> None:
    """See that what was made, replaced or removed in a folder outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except PermissionError as error:
        raise NotAllowed(f"cannot write {path}: {error.strerror}", hint="see who owns the folder") from error
    except OSError as error:
        raise OrchctlError(f"cannot write {path}: {error.strerror}") from error
