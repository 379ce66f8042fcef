"""What `doctor` looks at: real files, real sockets, real metadata of packages."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl.adapters import doctor_facts, doctor_sockets, doctor_versions
from orchctl.core import doctor_net
from orchctl.core.doctor_facts import Who
from orchctl.errors import NotAllowed, OrchctlError

DAEMON = Who("daemon", 1, frozenset({1}))


# --- files


def test_what_is_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("12345")
    (tmp_path / "x").chmod(0o640)
    found = doctor_facts.file(str(tmp_path / "x"))
    assert found is not None
    assert (found.bits, found.size, found.is_folder, found.uid) == ("0640", 5, False, os.geteuid())
    assert doctor_facts.file(str(tmp_path / "none")) is None
    assert doctor_facts.file(str(tmp_path / "x" / "below")) is None


@pytest.mark.parametrize(
    ("mode", "mine", "group", "others"),
    [(0o600, True, False, False), (0o660, True, True, False), (0o606, True, False, True), (0o060, False, True, False)],
)
def test_who_may_write_a_file_by_its_mode(tmp_path: Path, mode: int, mine: bool, group: bool, others: bool) -> None:
    path = tmp_path / "x"
    path.touch()
    path.chmod(mode)
    facts = doctor_facts.file(str(path))
    assert facts is not None
    stranger = facts.uid + 1
    assert facts.lets_write(Who("root", 0, frozenset()))
    if facts.uid != 0:
        assert facts.lets_write(Who("me", facts.uid, frozenset())) is mine
    assert facts.lets_write(Who("friend", stranger, frozenset({facts.gid}))) is group
    assert facts.lets_write(Who("other", stranger, frozenset())) is others


def test_writing_into_a_folder_needs_going_there_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o702)
    facts = doctor_facts.file(str(tmp_path))
    assert facts is not None
    assert not facts.lets_write(DAEMON)
    assert facts.open_to_all


def test_a_sample_holds_the_folder_itself_and_the_newest_names_of_each(tmp_path: Path) -> None:
    for day in range(100):
        (tmp_path / f"game_date={day:03}").mkdir()
    (tmp_path / "game_date=099" / "run=1").touch()
    (tmp_path / "game_date=099" / "link").symlink_to("/")
    found = doctor_facts.sample(str(tmp_path))
    names = [Path(each.path).name for each in found.files]
    assert names[0] == tmp_path.name
    assert {"game_date=099", "game_date=036", "run=1", "link"} <= set(names)
    assert "game_date=035" not in names
    assert not found.whole
    assert all(not each.path.startswith(f"{tmp_path}/game_date=099/link/") for each in found.files)


def test_a_sample_ends_in_time_and_of_nothing_it_is_empty(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    ticks = iter([0.0, 0.0, 9.0])
    found = doctor_facts.sample(str(tmp_path), clock=lambda: next(ticks))
    assert (len(found.files), found.whole) == (4, False)
    assert doctor_facts.sample(str(tmp_path / "none")).files == ()


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_look_at_is_told(tmp_path: Path) -> None:
    for folder in [*tmp_path.parents[:3], tmp_path]:
        folder.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "x").touch()
    with as_user(1):
        assert doctor_facts.sample(str(tmp_path)).unread == str(tmp_path / "closed")
        with pytest.raises(NotAllowed, match="may not be looked at"):
            doctor_facts.file(str(tmp_path / "closed" / "x"))


def test_disks_and_accounts(tmp_path: Path) -> None:
    found = doctor_facts.disk(str(tmp_path / "not" / "yet"))
    assert found.path.endswith("not/yet")
    assert 0 < found.free <= found.total
    assert found.device == tmp_path.stat().st_dev
    assert doctor_facts.who(None).uid == os.geteuid()
    assert doctor_facts.who("root").uid == 0
    assert doctor_facts.who(54321) == Who("uid 54321", 54321, frozenset())
    with pytest.raises(OrchctlError, match="there is no user nobody-of-this-name"):
        doctor_facts.who("nobody-of-this-name")


@pytest.mark.parametrize(
    ("name", "there"), [("America/New_York", True), ("UTC", True), ("Mars/Olympus", False), ("../etc/passwd", False)]
)
def test_zones(name: str, there: bool) -> None:
    assert doctor_facts.is_zone(name) is there


# --- sockets


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listening_socket_is_found_with_its_program(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        (found,) = doctor_sockets.listeners(port)
    assert (found.address, found.port, found.pid) == (address, port, os.getpid())
    assert found.is_loopback is (address == "127.0.0.1")
    assert found.program is not None
    assert f"(pid {os.getpid()})" in found.label
    assert doctor_sockets.listeners(port) == ()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize(("address", "dual"), [("::1", False), ("::", True)])
def test_a_socket_of_ipv6(address: str, dual: bool) -> None:
    try:
        server = socket.create_server((address, 0), family=socket.AF_INET6, dualstack_ipv6=dual)
    except OSError:
        pytest.skip("IPv6 is off here")
    with server:
        (found,) = doctor_sockets.listeners(server.getsockname()[1])
    assert (found.address, found.is_loopback) == (address, address == "::1")


LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
)


def test_a_prefect_server_is_told_from_other_programs_by_its_command() -> None:
    for word, is_prefect in (("prefect.server", True), ("nginx", False)):
        argv = [sys.executable, "-c", LISTEN, word, "--password=hunter2"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            (found,) = doctor_sockets.listeners(int(process.stdout.readline()))
            process.communicate("\n")
        assert found.is_prefect is is_prefect
        assert "hunter2" not in repr(found)


def test_a_host_without_proc_says_so(tmp_path: Path) -> None:
    with pytest.raises(OrchctlError, match="the sockets of this host cannot be looked at"):
        doctor_sockets.listeners(4200, proc=tmp_path)


def test_a_socket_of_somebody_who_may_not_be_looked_at_has_an_owner_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 00000000:1068 00000000:0000 0A 00000000:00000000 00:00000000 00000000     1        0 4711 1\n"
        "   1: 0100007F:1068 0100007F:9999 01 00000000:00000000 00:00000000 00000000     1        0 4712 1\n"
        "   2: nonsense\n"
    )
    (found,) = doctor_sockets.listeners(4200, proc=tmp_path)
    assert (found.address, found.owner, found.pid, found.is_prefect) == ("0.0.0.0", "daemon", None, None)
    assert found.label == "a program of daemon"


def test_addresses_of_ipv6_that_mean_ipv4() -> None:
    line = "0: 0000000000000000FFFF00000100007F:1068 0:0 0A 0:0 00:0 0 0 0 77"
    (found,) = doctor_net.listening(f"head\n{line}\n")
    assert (found.address, found.port) == ("127.0.0.1", 4200)


# --- packages


def package(folder: Path, name: str, version: str, *requires: str) -> None:
    made = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    made.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {e}" for e in requires),
    ]
    (made / "METADATA").write_text("\n".join(lines) + "\n")


def test_the_packages_of_this_interpreter_are_within_their_bounds() -> None:
    found = {each.name: each for each in doctor_versions.requirements()}
    assert {"fastapi", "prefect", "sqlalchemy"} <= found.keys()
    assert "polars" not in found  # of an extra
    assert all(each.holds for each in found.values())


def test_the_packages_of_another_interpreter_are_read_without_asking_it(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "python3.11" / "site-packages"
    package(folder, "orchctl", "0.1", "sqlalchemy>=2.0,<2.1", "fastapi<0.151", 'polars; extra == "contracts"', "gone>1")
    package(folder, "sqlalchemy", "2.1.9")
    package(folder, "fastapi", "0.150.0")
    found = {each.name: each for each in doctor_versions.requirements(str(tmp_path / "bin" / "python"))}
    assert {name: (each.installed, each.holds) for name, each in found.items()} == {
        "sqlalchemy": ("2.1.9", False),
        "fastapi": ("0.150.0", True),
        "gone": (None, False),
    }
    assert found["sqlalchemy"].bounds == "<2.1,>=2.0"


def test_an_interpreter_without_orchctl_is_told(tmp_path: Path) -> None:
    with pytest.raises(OrchctlError, match="orchctl's own metadata is not among the packages"):
        doctor_versions.requirements(str(tmp_path / "bin" / "python"))


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("3.8.8", ">=3.8.8,<3.9", True),
        ("3.9.0", ">=3.8.8,<3.9", False),
        ("what", ">=3.8.8", False),
        ("1", "what", False),
    ],
)
def test_bounds(version: str, bounds: str, holds: bool) -> None:
    assert doctor_versions.within(version, bounds) is holds
