"""Files of secrets and of authorities: who could have written one, or put another in its place, is asked first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import receivers
from orchctl.adapters import alert_secrets
from orchctl.adapters.authorities import Authorities, NoAuthority
from orchctl.core.alerts import Secret
from orchctl.errors import NotBelieved, OrchctlError, StateBroken

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
DAEMON = 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of a secret, in a folder of its own, as it should be."""
    path = tmp_path / "own" / "hook.url"
    path.parent.mkdir()
    path.write_text("https://example.org/T0KEN\n")
    path.chmod(0o600)
    return path


def read(path: Path, *trust: int) -> str:
    return alert_secrets.read(Secret(file=str(path)), {}, trust=trust)


def refused(path: Path, *trust: int) -> str:
    with pytest.raises(NotBelieved) as caught:
        read(path, *trust)
    said = f"{caught.value.message} -> {caught.value.hint}"
    assert "T0KEN" not in said
    return said


def test_a_file_in_a_folder_that_others_may_write_is_not_believed(file: Path) -> None:
    assert read(file) == "https://example.org/T0KEN"
    file.parent.chmod(0o777)
    said = refused(file)
    assert f"somebody else could have written {file}: {file.parent} may be written by anybody" in said
    assert f"chmod go-w {file.parent}" in said


def test_a_link_is_followed_where_every_folder_on_the_way_is_ours(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "hook.url"
    link.parent.mkdir()
    link.symlink_to(file)
    assert read(link) == "https://example.org/T0KEN"
    link.parent.chmod(0o777)
    assert f"{link.parent} may be written by anybody" in refused(link)


@ROOT_ONLY
def test_a_file_a_folder_and_a_link_of_another_user(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    os.chown(link, DAEMON, DAEMON, follow_symlinks=False)
    assert "belongs to daemon" in refused(link)
    assert read(link, DAEMON) == "https://example.org/T0KEN"
    os.chown(file.parent, DAEMON, DAEMON)
    assert f"{file.parent} belongs to daemon" in refused(file)
    os.chown(file.parent, 0, 0)
    os.chown(file, DAEMON, DAEMON)
    assert f"{file} belongs to daemon, not to root" in refused(file)
    assert read(file, DAEMON) == "https://example.org/T0KEN", "whose state directory it is, or who called sudo"


def test_what_others_may_read_or_what_is_none_is_no_secret(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(StateBroken, match="may be read by others"):
        read(file)
    file.unlink()
    with pytest.raises(OrchctlError, match="is empty or not there"):
        read(file)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    return receivers.certificate(folder)


def test_authorities_that_others_could_have_written_vouch_for_nobody(certificate: Path) -> None:
    ca_file = str(certificate)
    certificate.chmod(0o644)
    authorities = Authorities()
    context = authorities.of(ca_file)
    assert any(each["subject"] for each in context.get_ca_certs())
    certificate.chmod(0o646)
    with pytest.raises(NoAuthority, match=f"somebody else could have written {ca_file}: .* may be written by anybody"):
        authorities.of(ca_file)
    certificate.chmod(0o644)
    certificate.parent.chmod(0o777)
    with pytest.raises(NoAuthority, match=f"{certificate.parent} may be written by anybody"):
        Authorities().of(ca_file)


@ROOT_ONLY
def test_authorities_of_another_user(certificate: Path) -> None:
    os.chown(certificate, DAEMON, DAEMON)
    with pytest.raises(NoAuthority, match="belongs to daemon"):
        Authorities().of(str(certificate))
    assert Authorities([DAEMON]).of(str(certificate)) is not None


def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(NoAuthority, match="not a plain file"):
        Authorities().of(str(tmp_path / "pipe"))
