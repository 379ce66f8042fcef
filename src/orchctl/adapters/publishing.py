"""Promotion of files: from a staging directory to their immutable place by one rename that replaces nothing.

At each instant, and after a kill at any instant, the place is not there, or there whole and on the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchctl.adapters import files
from orchctl.core.publish import File, digest_of
from orchctl.errors import OrchctlError, PublishError, PublishNotAllowed

DEEPEST = 64
"""How many folders deep a run's files may lie."""
LOCK_PATIENCE_S = 30.0
_POLL_S = 0.01
_CHUNK = 1 << 20
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_WITHOUT_FLAGS = {errno.ENOSYS, errno.EINVAL}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_DISK = "free space, then run it again"
_HINTS = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EIO: "the disk reports an error: see the kernel's log, and make the files anew",
    errno.EACCES: "see who owns it, and its mode",
    errno.EPERM: "see who owns it, and its mode",
    errno.EROFS: "the file system is read-only: see the kernel's log",
    errno.ENOTDIR: "see what it is, and move it away",
    **dict.fromkeys(
        (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP), "this file system cannot lock folders: use a local one"
    ),
    errno.EXDEV: "staging and publishing must be on one file system: put both below the same data root",
}


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion. `again`: the same files were there already, from an earlier one that was killed on its way."""

    to: Path
    digest: str
    files: int
    size: int
    again: bool


def promote(source: Path, to: Path, *, announce: Callable[[str], None] = lambda _digest: None) -> Promotion:
    """Move the folder `source` to `to` in one step, when all its files are on the disk.

    Folders above `to` are made. Where `to` is there with the same files, that is the same promotion: `source` is
    removed. `announce` is told the digest before anything moves: who writes it down can `adopt` what a kill leaves.
    Raises PublishError: `to` is there with other files; what is staged cannot be published (symlinks, devices,
    files that others still write or own, nothing at all); another file system, a full disk. What is at `to` is then as
    it was.
    """
    with mapped(f"{source} cannot be published"):
        found = inventory(source, sync=True) if os.path.lexists(source) else []
        if not found:
            raise PublishError(f"there is nothing to publish in {source}", hint="files have to be written there")
    digest = digest_of(found)
    with mapped(f"{source} cannot be published as {to}"):
        make_folders(to.parent)
        one_file_system(source, to)
        if os.path.lexists(to):
            _same(to, digest)  # what is refused is not announced
    announce(digest)
    with mapped(f"{source} cannot be published as {to}"):
        again = not _moved_into_place(source, to)
        if again:
            _same(to, digest)
            shutil.rmtree(source)
        # What was made and moved outlives a power cut, also where a kill came between.
        files.sync_directory(to.parent)
        files.sync_directory(source.parent)
    return Promotion(to, digest, len(found), sum(file.size for file in found), again)


def adopt(to: Path) -> Promotion:
    """Return the promotion that put the files there, when all of them are on the disk. Raises PublishError."""
    with mapped(f"{to} cannot be read"):
        found = inventory(to, sync=True)
        files.sync_directory(to.parent)
    return Promotion(to, digest_of(found), len(found), sum(file.size for file in found), again=True)


def digest(folder: Path) -> str:
    """Return the digest of the files in a folder as they are now. Raises PublishError where it cannot be told."""
    with mapped(f"{folder} cannot be read"):
        return digest_of(inventory(folder))


def has_just(folder: Path, expected: str) -> bool:
    """Return whether a folder is there with just the files of a digest.

    Raises PublishError where that cannot be known: what may not be read, or a disk that fails.
    """
    with mapped(f"{folder} cannot be read"):
        try:
            return digest_of(inventory(folder)) == expected
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PublishNotAllowed:
            raise
        except PublishError:
            return False  # what no promotion would have put there


def one_file_system(source: Path, to: Path) -> None:
    """Raise OSError (EXDEV) where `source` and the folder above `to` are on two file systems: no rename joins them."""
    if source.stat().st_dev != to.parent.stat().st_dev:
        raise OSError(errno.EXDEV, "they are on two file systems")


def _moved_into_place(source: Path, to: Path) -> bool:
    """Rename `source` to `to`; False where that is there already. Raises OSError, PublishError."""
    before = source.lstat()
    try:
        _rename_to_nothing(source, to)
    except FileExistsError:
        return False
    after = to.lstat()
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
        raise PublishError(f"{source} was replaced while it was published", hint=f"look at {to}, and move it away")
    return True


def _rename_to_nothing(source: Path, to: Path) -> None:
    """Rename; FileExistsError where `to` is there, whatever it is. rename(2) alone would replace an empty folder."""
    call = _renameat2()
    if call is not None:
        if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(to), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _WITHOUT_FLAGS:
            raise OSError(number, os.strerror(number), str(to))
    with locked(to.parent):
        if os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(to))
        os.rename(source, to)


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, use_errno=True
    )
    try:
        return kind(("renameat2", ctypes.CDLL(None)))
    except AttributeError:
        return None  # a C library that has no such call


def _same(to: Path, expected: str) -> None:
    """See that `to` is a folder of just these files, and that they are on the disk. Raises PublishError, OSError."""
    hint = "nothing was changed; a run never publishes twice: start a new run, or see what is there and move it away"
    if not stat.S_ISDIR(to.lstat().st_mode):
        raise PublishError(f"{to} is in the way: it is no folder", hint=hint)
    there = digest_of(inventory(to, sync=True))
    if there != expected:
        raise PublishError(f"{to} is there with other files ({there[:19]}…, these are {expected[:19]}…)", hint=hint)


def inventory(folder: Path, *, sync: bool = False) -> list[File]:
    """Return every file in a folder, with the digest of its content. `sync`: all of it is on the disk then.

    Follows no symlink. Raises OSError, and PublishError on what is no plain file or folder of this folder's owner.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise PublishError(f"{folder} is no folder", hint="only a folder itself is published") from error
        raise
    try:
        return _Walk(folder, os.fstat(descriptor), sync).folder(descriptor, "", DEEPEST)
    finally:
        os.close(descriptor)


class _Walk:
    def __init__(self, root: Path, status: os.stat_result, sync: bool) -> None:
        self.root, self.owner, self.device, self.sync = root, status.st_uid, status.st_dev, sync

    def folder(self, descriptor: int, below: str, depth: int) -> list[File]:
        found = []
        for name in sorted(os.listdir(descriptor)):
            path = f"{below}{name}"
            if not name.isprintable():
                raise self._refused(path, "its name cannot be written on a line", "give it another name")
            with self._named(path):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                self._check(path, status)
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                child = os.open(name, flags, dir_fd=descriptor)
                try:
                    if stat.S_ISDIR(status.st_mode):
                        if not depth:
                            raise self._refused(path, f"it lies more than {DEEPEST} folders deep", "make it flatter")
                        found += self.folder(child, f"{path}/", depth - 1)
                    else:
                        found.append(self._file(child, path))
                finally:
                    os.close(child)
        if self.sync:
            os.fsync(descriptor)
        return found

    def _check(self, path: str, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise self._refused(path, "it is a symlink", "put the file itself there")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise self._refused(path, "it is no plain file", "remove sockets, pipes and devices")
        if status.st_dev != self.device:
            raise self._refused(path, "it is on another file system", "unmount it, and copy the files")
        if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
            raise self._refused(path, "it has another name (a hard link), and could be changed there", "copy it")
        needed = 0o500 if stat.S_ISDIR(status.st_mode) else 0o400
        if status.st_mode & needed != needed:
            said = f"its mode is {stat.S_IMODE(status.st_mode):04o}: not even its owner may read it"
            raise self._refused(path, said, f"chmod u+rX {self.root}", allowed=False)
        if status.st_uid != self.owner:
            said = f"it belongs to uid {status.st_uid}, the folder to uid {self.owner}"
            raise self._refused(path, said, "let one user write all files of a step", allowed=False)

    def _file(self, descriptor: int, path: str) -> File:
        before = os.fstat(descriptor)
        self._check(path, before)
        content = hashlib.sha256()
        while chunk := os.read(descriptor, _CHUNK):
            content.update(chunk)
        if self.sync:
            os.fsync(descriptor)
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise self._refused(path, "it is still being written", "end what writes it before the step ends")
        return File(path, after.st_size, content.hexdigest())

    @contextlib.contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Name the file of an OSError that knows none."""
        try:
            yield
        except OSError as error:
            if error.filename in {None, path.rpartition("/")[2]}:
                error.filename = str(self.root / path)
            raise

    def _refused(self, path: str, why: str, hint: str, *, allowed: bool = True) -> PublishError:
        message = f"{self.root / path} cannot be published: {why}"
        return PublishError(message, hint=hint) if allowed else PublishNotAllowed(message, hint=hint)


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, for whom the folder above them belongs to. Raises OSError.

    When this returns no power cut takes them away again.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folders(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        if (owner := files.heir(path.parent)) is not None:
            os.chown(path, *owner, follow_symlinks=False)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is in the way and is no folder", str(path))
    files.sync_directory(path.parent)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: of the folder itself, so that no file of ours stands among its data.

    Raises OSError, and PublishError where another process holds it for longer than anybody needs it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PublishError(
                        f"another process has held the lock of {folder} for {LOCK_PATIENCE_S:.0f} s",
                        hint=f"see who it is: fuser {folder}",
                    ) from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn every OSError, and what `files` makes of one, into a PublishError that says `what`, why, and what to do."""
    try:
        yield
    except PublishError:
        raise
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise _error(f"{what}: {error.strerror or error}{place}", error) from error
    except OrchctlError as error:
        raise _error(f"{what}: {error.message}", error.__cause__) from error


def _error(message: str, cause: BaseException | None) -> PublishError:
    number = cause.errno if isinstance(cause, OSError) and cause.errno else 0
    kind = PublishNotAllowed if number in _NOT_ALLOWED else PublishError
    return kind(message, hint=_HINTS.get(number))
