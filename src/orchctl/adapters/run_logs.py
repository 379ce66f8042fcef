"""The logs in a run's folder: `attempt-<n>.log`, or, once `host prune` has compressed it, `attempt-<n>.log.gz`.

A log is a file that a run made there: a link or a pipe in its place is neither followed nor waited for.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchctl.adapters import files
from orchctl.errors import NotAllowed, OrchctlError

PACKED = ".gz"
CHUNK = 1 << 20
_NAME = re.compile(r"attempt-([0-9]+)\.log(\.gz)?\Z")
_HALF = re.compile(r"\.attempt-[0-9]+\.log\.gz\.[0-9a-f]{8}\.tmp\Z")


def logs_in(directory: Path) -> list[Path]:
    """Return the logs in a run's folder, one for each attempt, oldest first.

    Where both forms are there, a kill has left the compressed one beside the other: that one is surely whole.
    """
    found: dict[int, Path] = {}
    for path in sorted(_all_in(directory), reverse=True):
        found[_number(path)] = path
    return [found[number] for number in sorted(found)]


def read(path: Path, offset: int) -> Iterator[bytes]:
    """Return what there is of a log from `offset` on, uncompressed, in parts of up to 1 MiB; nothing where none is.

    It is opened at once. Raises NotAllowed or OrchctlError, also later, where it cannot be read.
    """
    try:
        return _parts(*_open(path), offset)
    except FileNotFoundError:
        return iter(())
    except OSError as error:
        raise unreadable(path, error) from error


def end(path: Path, most: int) -> bytes | None:
    """Return the last bytes of a log, uncompressed, `most` of them at most; None where it is not there."""
    try:
        # Not through a link: the end of what it leads to would stand in a manifest or a message.
        file, opened = _open(path)
        if opened.suffix != PACKED:
            with file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
                return file.read(most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    last = b""
    for part in _parts(file, opened, 0):
        last = (last + part)[-most:]
    return last


def unpacked_in(directory: Path) -> list[Path]:
    """Return the logs in a folder that are not compressed, and what a killed compression left beside them."""
    names = _names_in(directory)
    return [directory / name for name in names if (name.endswith(".log") and _NAME.match(name)) or _HALF.match(name)]


def everything_in(directory: Path) -> list[Path]:
    """Return the logs in a folder in both forms, and what a killed compression left of one."""
    return [*_all_in(directory), *(directory / name for name in _names_in(directory) if _HALF.match(name))]


def compress(path: Path) -> bool:
    """Put a compressed log, with the same mode and time, in the place of one that nobody writes to any more.

    Return whether we did.
    The new file is whole and on the disk before the old one goes: a kill leaves either, or both. One that was written
    to meanwhile is left as it is. Of a killed compression, what it left is removed. Raises NotAllowed, OrchctlError.
    """
    if _HALF.match(path.name):
        files.remove(path)
        return True
    target = path.with_name(path.name + PACKED)
    temporary = files.temporary_of(target)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
            before = os.fstat(source.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise OrchctlError(f"{path} is not a plain file", hint="look at it, and remove it")
            _pack(source, temporary, before, path.name)
            after = os.fstat(source.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            return False
        temporary.replace(target)
        files.sync_directory(path.parent)
        path.unlink()
    except FileNotFoundError:
        return False  # somebody else has just done it
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def unreadable(path: Path, error: OSError) -> OrchctlError:
    """Return the error for a file of the manifest tree that could not be read."""
    said = f"{path} cannot be read: {error.strerror}"
    if isinstance(error, PermissionError):
        return NotAllowed(said, hint="see who owns it, and its mode")
    return OrchctlError(said, hint="see the file system and the kernel's log")


def _pack(source: BinaryIO, temporary: Path, like: os.stat_result, name: str) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        if os.geteuid() == 0:
            os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        with gzip.GzipFile(name, "wb", compresslevel=6, fileobj=raw, mtime=int(like.st_mtime)) as packed:
            shutil.copyfileobj(source, packed, CHUNK)
        raw.flush()
        os.utime(descriptor, ns=(like.st_atime_ns, like.st_mtime_ns))
        os.fsync(descriptor)


def _open(path: Path) -> tuple[BinaryIO, Path]:
    """Open a log, or what compressing it has made of it since it was listed; return which. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return open(os.open(path, flags), "rb"), path
    except FileNotFoundError:
        if path.suffix == PACKED:
            raise
        packed = path.with_name(path.name + PACKED)
        return open(os.open(packed, flags), "rb"), packed


def _parts(file: BinaryIO, path: Path, offset: int) -> Iterator[bytes]:
    with file:
        try:
            if path.suffix != PACKED:
                file.seek(offset)
                while part := file.read(CHUNK):
                    yield part
                return
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                unpacked.seek(offset)
                while part := unpacked.read(CHUNK):
                    yield part
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OrchctlError(f"{path} cannot be read: what was compressed is torn") from error
        except OSError as error:
            raise unreadable(path, error) from error


def _all_in(directory: Path) -> list[Path]:
    return [directory / name for name in _names_in(directory) if _NAME.match(name)]


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(directory, error) from error


def _number(path: Path) -> int:
    match = _NAME.match(path.name)
    assert match is not None
    return int(match[1])


def _unwritable(path: Path, error: OSError) -> OrchctlError:
    said = f"cannot compress {path}: {error.strerror}"
    if isinstance(error, PermissionError):
        return NotAllowed(said, hint="see who owns the folder")
    return OrchctlError(said, hint="what was there is as it was")
