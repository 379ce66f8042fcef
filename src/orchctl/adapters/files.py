"""Durable files: whole or not at all, and never through a symlink."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchctl.errors import NotAllowed, OrchctlError, StateBroken


def dump(data: object) -> bytes:
    """Return `data` as JSON that people can read, with a final newline."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make `path` and its parents; `mode` (less the umask) for those that are new. Repeatable."""
    with _mapped(path):
        if not path.is_dir():
            if path.parent != path:
                make_directory(path.parent, mode=mode)
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=mode)
            if not path.is_dir():
                raise NotADirectoryError(20, "is in the way and is not a directory", str(path))


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `content`: a reader sees the old file or the new one, also after a power cut.

    Temporary file in the same directory, fsync, rename, fsync of the directory. Raises NotAllowed or
    OrchctlError (a full disk) and leaves the old file as it was. Repeatable.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with _mapped(path):
        try:
            _write_new(temporary, content, mode)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def create_exclusive(path: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Create `path` with `content` unless it exists; return whether we did. It is never seen half-written.

    The file is written under another name and then linked: `link` fails where the name is taken, as O_EXCL
    does, but the name appears together with its content.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with _mapped(path):
        try:
            _write_new(temporary, content, mode)
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    return True


def append_line(path: Path, line: bytes) -> None:
    """Append one line (newline included) with a single write, so that lines of several writers never mix."""
    with _mapped(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(28, "wrote only a part of a line", str(path))
        finally:
            os.close(descriptor)


def read_json(path: Path) -> Any | None:
    """Read a JSON file; None where it does not exist. Raises StateBroken where it cannot be believed.

    Not believed: a symlink, a file of another user (root's are believed), one that others may write, one
    that is not JSON.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateBroken(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in {os.geteuid(), 0}:
            raise StateBroken(f"{path} belongs to uid {status.st_uid}, not to this user", hint="look at who wrote it")
        if status.st_mode & 0o022:
            raise StateBroken(f"{path} may be written by others", hint=f"look at it, then chmod go-w {path}")
        try:
            return json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise StateBroken(f"{path} is not JSON: {error}") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
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
