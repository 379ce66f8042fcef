"""An archive as a file: no byte of it can be another, none can be missing, and nothing in it leads out of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backup_cases import MANIFEST
from orchctl.adapters import backup_archive, files
from orchctl.core.backup import Manifest, Member
from orchctl.errors import BackupBroken, GateRefused, OrchctlError
from support import STRESS

CONTENT = {
    "database/prefect.db": random.Random(1).randbytes(20_000),
    "state/owners/live-score.json": b"{}\n",
    "state/slots/live-score/empty": b"",
    "host/settings.env": b"PREFECT_API_AUTH_STRING=x\n",
}


def manifest_of(content: dict[str, bytes]) -> Manifest:
    members = tuple(Member(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in content.items())
    return Manifest(**{**{name: getattr(MANIFEST, name) for name in MANIFEST.__slots__}, "members": members})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for path, data in CONTENT.items():
        (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / path).write_bytes(data)
    backup_archive.write(tmp_path / "a.tar.gz", manifest_of(CONTENT), tmp_path / "root")
    return tmp_path / "a.tar.gz"


def unpack(path: Path, target: Path) -> Manifest:
    def place(member: Member) -> Path:
        (target / member.path).parent.mkdir(parents=True, exist_ok=True)
        return target / member.path

    with backup_archive.opened(path) as opened:
        opened.read(place)
        return opened.manifest


def test_what_was_written_is_read(archive: Path, tmp_path: Path) -> None:
    assert unpack(archive, tmp_path / "out") == manifest_of(CONTENT)
    assert {path: (tmp_path / "out" / path).read_bytes() for path in CONTENT} == CONTENT
    assert archive.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out" / "host/settings.env").stat().st_mode & 0o777 == 0o600


def test_tar_reads_it_too(archive: Path) -> None:
    done = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["manifest.json", *CONTENT]
    assert done.stderr == ""


def test_any_byte_that_is_another_is_seen(archive: Path, tmp_path: Path) -> None:
    whole, chance = archive.read_bytes(), random.Random(20251219)
    places = range(len(whole)) if STRESS else [*range(40), *range(len(whole) - 120, len(whole))]
    for place in [*places, *(chance.randrange(len(whole)) for _ in range(200))]:
        altered = bytearray(whole)
        altered[place] ^= 1 << chance.randrange(8)
        archive.write_bytes(altered)
        with pytest.raises(BackupBroken):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_any_cut_is_seen_and_so_is_what_is_added(archive: Path, tmp_path: Path) -> None:
    whole, chance = archive.read_bytes(), random.Random(20251219)
    for length in [0, 1, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(200))]:
        archive.write_bytes(whole[:length])
        with pytest.raises(BackupBroken):
            unpack(archive, tmp_path / "out")
    archive.write_bytes(whole + b"\0")
    with pytest.raises(BackupBroken):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def forged(path: Path, add: Callable[[tarfile.TarFile], None], manifest: Manifest | None = None) -> None:
    """Write what somebody makes by hand, who knows how the digest is made."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        content = files.dump((manifest or manifest_of(CONTENT)).to_json())
        info = tarfile.TarInfo("manifest.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        add(tar)
    body = stream.getvalue()
    path.write_bytes(body + backup_archive.seal_of(hashlib.sha256(body).hexdigest()))
    path.chmod(0o600)


def put(tar: tarfile.TarFile, name: str, data: bytes = b"", **kind: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in kind.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def everything(tar: tarfile.TarFile, **more: bytes) -> None:
    for path, data in {**CONTENT, **more}.items():
        put(tar, path, data)


def second(tar: tarfile.TarFile, name: str, data: bytes, **kind: object) -> None:
    put(tar, "database/prefect.db", CONTENT["database/prefect.db"])
    put(tar, name, data, **kind)


OWNER = "state/owners/live-score.json"


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda tar: second(tar, "../../etc/cron.d/x", b"{}\n"), "where state/owners/live-score.json should be"),
        (lambda tar: second(tar, "/etc/cron.d/x", b"{}\n"), "where state/owners/live-score.json should be"),
        (lambda tar: second(tar, OWNER, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "should be"),
        (lambda tar: second(tar, OWNER, b"", type=tarfile.LNKTYPE, linkname="database/prefect.db"), "should be"),
        (lambda tar: second(tar, OWNER, b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "should be"),
        (lambda tar: second(tar, OWNER, b"", type=tarfile.FIFOTYPE), "should be"),
        (lambda tar: second(tar, OWNER, b"", type=tarfile.DIRTYPE), "should be"),
        (lambda tar: second(tar, OWNER, b"[]\n"), "has another digest"),
        (lambda tar: second(tar, OWNER, b"{}\n\n"), "should be"),
        (lambda tar: put(tar, "database/prefect.db", CONTENT["database/prefect.db"]), "it holds nothing where"),
        (lambda tar: everything(tar, more=b"x"), "it holds more than it says"),
    ],
)
def test_what_the_manifest_does_not_name_is_refused(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None], said: str
) -> None:
    forged(tmp_path / "a.tar.gz", add)
    with pytest.raises(BackupBroken, match=said):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    forged(tmp_path / "b.tar.gz", everything)
    unpack(tmp_path / "b.tar.gz", tmp_path / "well")


def test_a_manifest_that_leads_out_is_refused(tmp_path: Path) -> None:
    out = manifest_of(CONTENT | {"state/../../x": b"x"})
    forged(tmp_path / "a.tar.gz", everything, out)
    with pytest.raises(BackupBroken, match="no place for a member"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "x").exists()


def test_another_tar_is_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        put(tar, "hello", b"x")
    with pytest.raises(BackupBroken, match=r"torn or was altered|torn, or no archive"):
        backup_archive.check(tmp_path / "a.tar.gz")
    assert backup_archive.manifest_of(tmp_path / "a.tar.gz") is None


def test_what_others_may_write_is_not_believed(archive: Path, tmp_path: Path) -> None:
    archive.chmod(0o602)
    with pytest.raises(GateRefused, match="may be written by anybody"):
        backup_archive.check(archive)
    archive.chmod(0o600)
    (tmp_path / "link").symlink_to(archive)
    with pytest.raises(OrchctlError, match="cannot read"):
        backup_archive.check(tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BackupBroken, match="not a plain file"):
        backup_archive.check(tmp_path / "fifo")
    with pytest.raises(BackupBroken, match="there is no archive"):
        backup_archive.check(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_what_belongs_to_another_user_is_not_believed(archive: Path) -> None:
    os.chown(archive, 12345, 12345)
    with pytest.raises(GateRefused, match="belongs to "):
        backup_archive.check(archive)
    assert backup_archive.check(archive, trust=[12345]) == manifest_of(CONTENT)


def test_a_file_that_cannot_be_written_does_not_stay(tmp_path: Path, archive: Path) -> None:
    shutil.rmtree(tmp_path / "root" / "state")
    with pytest.raises(OrchctlError, match="cannot write"):
        backup_archive.write(tmp_path / "b.tar.gz", manifest_of(CONTENT), tmp_path / "root")
    assert not (tmp_path / "b.tar.gz").exists()


def test_an_archive_is_never_written_over(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(OrchctlError):
        backup_archive.write(archive, manifest_of(CONTENT), tmp_path / "root")
    assert archive.read_bytes() == before
