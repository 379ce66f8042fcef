"""An archive as a file: a gzipped tar of plain files, and behind it the digest of every byte before.

The digest stands in the comment of an empty member of the gzip stream, so that `tar -xzf` reads the file as any other,
and not one byte of it can be another without being seen: what is before the comment by the digest, the rest because it
has one form only.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from orchctl.adapters import belief, files
from orchctl.core.backup import MANIFEST, Manifest, Member
from orchctl.errors import BackupBroken, GateRefused, NotAllowed, OrchctlError

_CHUNK = 1 << 20
_LONGEST_MANIFEST = 256 << 20
# An eighth larger than by default, in half the time (Prefect's database of 12 MB: 1.9 MB in 85 ms).
_LEVEL = 3
_COMMENT = b"orchctl sha256 "
# Magic, deflate, "a comment follows", no time, no hints, no system; an empty deflate stream, its CRC and its length.
_HEAD, _TAIL = b"\x1f\x8b\x08\x10\0\0\0\0\0\xff", b"\0\x03\0" + struct.pack("<II", 0, 0)
_SEAL = len(_HEAD) + len(_COMMENT) + 64 + len(_TAIL)
_HINT = "nothing of it was used; take another archive"


def seal_of(digest: str) -> bytes:
    """Return what stands behind a stream with this SHA-256 (64 hexadecimal digits)."""
    return _HEAD + _COMMENT + digest.encode() + _TAIL


class _Hashing:
    """A file that is written to, and the digest of what was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def digest_of(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file. Raises OSError."""
    sha256, size = hashlib.sha256(), 0
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest()


def write(path: Path, manifest: Manifest, root: Path) -> None:
    """Write a new archive of the files below `root` that the manifest names; it is on the disk when this returns.

    Raises NotAllowed or OrchctlError, where the file does not stay.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            hashing = _Hashing(file)
            with (
                gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=hashing, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                content = files.dump(manifest.to_json())
                _add(tar, manifest, Member(MANIFEST, len(content), ""), _bytes(content))
                for member in manifest.members:
                    with open(root / member.path, "rb") as source:
                        _add(tar, manifest, member, source)
            file.write(seal_of(hashing.sha256.hexdigest()))
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refused(f"cannot write {path}", error) from error
        raise


def _bytes(content: bytes) -> IO[bytes]:
    import io

    return io.BytesIO(content)


def _add(tar: tarfile.TarFile, manifest: Manifest, member: Member, source: IO[bytes]) -> None:
    info = tarfile.TarInfo(member.path)
    info.size, info.mode, info.mtime = member.size_bytes, 0o600, int(manifest.created_at.timestamp())
    tar.addfile(info, source)


def check(path: Path, *, trust: Collection[int] = ()) -> Manifest:
    """Read an archive from end to end, every digest in it too, and return its manifest. `trust` is as for `opened`.

    Raises BackupBroken, and what `opened` raises.
    """
    with opened(path, trust=trust) as archive:
        archive.read(lambda _member: None)
        return archive.manifest


@contextmanager
def opened(path: Path, *, trust: Collection[int] = ()) -> Iterator[Opened]:
    """Open an archive whose every byte is as it was written.

    Raises BackupBroken where it is not, or is none of ours; GateRefused where others could have written it: who can
    write an archive can write its digests too. `trust` are users (uids) whose files are believed besides ours.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BackupBroken(f"there is no archive {path}", hint="`orchctl host backup` makes one") from error
    except OSError as error:
        raise _refused(f"cannot read {path}", error) from error
    with os.fdopen(descriptor, "rb") as file:
        _believe(os.fstat(descriptor), path, trust)
        try:
            _check_seal(file, path)
            file.seek(0)
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
                yield Opened(path, tar)
        except OSError as error:
            raise _refused(f"cannot read {path}", error) from error


def _believe(status: os.stat_result, path: Path, trust: Collection[int]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BackupBroken(f"{path} is not a plain file")
    if doubts := belief.doubts(path, status, trust=trust):
        said, mend = belief.told(doubts)
        raise GateRefused(f"the archive {path} cannot be believed: {said}", hint=mend)


def _check_seal(file: IO[bytes], path: Path) -> None:
    size = os.fstat(file.fileno()).st_size
    if size <= _SEAL:
        raise BackupBroken(f"{path} is torn, or no archive of orchctl", hint=_HINT)
    sha256, left = hashlib.sha256(), size - _SEAL
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise BackupBroken(f"{path} became shorter while it was read", hint=_HINT)
        sha256.update(chunk)
        left -= len(chunk)
    if file.read(_SEAL + 1) != seal_of(sha256.hexdigest()):
        raise BackupBroken(f"{path} is torn or was altered: its digest is another", hint=_HINT)


class Opened:
    """An archive that is being read, once, from its beginning on."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path, self._tar = path, tar
        self.manifest = self._manifest()

    def read(self, into: Callable[[Member], Path | None]) -> None:
        """Check every member, and write those to which `into` gives a path: new files, 0600, in folders that are there.

        What was written may still be in memory only: an `os.sync` for all costs less than an fsync for each.
        Raises BackupBroken where what is there is not what the manifest names: then files written so far are whole, but
        the archive is not to be believed. Raises OrchctlError where a file cannot be written.
        """
        for member in self.manifest.members:
            info = self._next()
            if info is None or not info.isreg() or (info.name, info.size) != (member.path, member.size_bytes):
                found = "nothing" if info is None else f"{info.name!r:.80}"
                raise self._broken(f"it holds {found} where {member.path} should be")
            if self._copy(info, into(member)) != member.sha256:
                raise self._broken(f"{member.path} in it has another digest")
        if self._next() is not None:
            raise self._broken("it holds more than it says")

    def _manifest(self) -> Manifest:
        info = self._next()
        if info is None or info.name != MANIFEST or not info.isreg() or info.size > _LONGEST_MANIFEST:
            raise self._broken("it is not an archive of orchctl")
        try:
            return Manifest.from_json(json.loads(self._content(info).read()))
        except (ValueError, RecursionError) as error:
            raise self._broken(str(error)) from error

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self._tar.next()
        except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
            raise self._broken("it cannot be unpacked") from error

    def _content(self, info: tarfile.TarInfo) -> IO[bytes]:
        content = self._tar.extractfile(info)
        if content is None:
            raise self._broken(f"{info.name!r:.80} in it holds nothing")
        return content

    def _copy(self, info: tarfile.TarInfo, target: Path | None) -> str:
        sha256, content = hashlib.sha256(), self._content(info)
        with _new_file(target) as file:
            while chunk := self._chunk(content):
                sha256.update(chunk)
                if file is not None:
                    _written(file, chunk, target)
        return sha256.hexdigest()

    def _chunk(self, content: IO[bytes]) -> bytes:
        try:
            return content.read(_CHUNK)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise self._broken("it cannot be unpacked") from error

    def _broken(self, why: str) -> BackupBroken:
        return BackupBroken(f"{self._path} cannot be believed: {why}", hint=_HINT)


@contextmanager
def _new_file(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused(f"cannot write {path}", error) from error
    with os.fdopen(descriptor, "wb") as file:
        yield file
        try:
            file.flush()
        except OSError as error:
            raise _refused(f"cannot write {path}", error) from error


def _written(file: IO[bytes], chunk: bytes, path: Path | None) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise _refused(f"cannot write {path}", error) from error


def manifest_of(path: Path) -> Manifest | None:
    """Return what an archive says of itself, None where it is none that can be read. Its digests are not looked at."""
    try:
        with (
            open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
            gzip.GzipFile(fileobj=file, mode="rb") as unpacked,
            tarfile.open(fileobj=unpacked, mode="r|") as tar,
        ):
            return Opened(path, tar).manifest
    except (OSError, OrchctlError, tarfile.TarError, EOFError, zlib.error):
        return None


def members_of(root: Path, paths: Sequence[str]) -> tuple[Member, ...]:
    """Return what the files below `root` hold, in this order. Raises OrchctlError."""
    found = []
    for path in paths:
        try:
            size, digest = digest_of(root / path)
        except OSError as error:
            raise _refused(f"cannot read {root / path}", error) from error
        found.append(Member(path, size, digest))
    return tuple(found)


def _refused(what: str, error: OSError) -> OrchctlError:
    kind: Any = NotAllowed if isinstance(error, PermissionError) else OrchctlError
    made: OrchctlError = kind(f"{what}: {error.strerror or error}")
    return made
