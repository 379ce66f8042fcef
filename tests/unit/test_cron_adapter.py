"""The crontabs of a host that is made up in a folder, with a `crontab` that answers as Debian's does."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from orchctl.adapters.cron import Crontabs
from orchctl.core.catalog import CronTrigger
from orchctl.errors import NotAllowed, OrchctlError

ME = pwd.getpwuid(os.geteuid()).pw_name
PROGRAM = """#!/bin/sh
user=$(id -un)
while [ $# -gt 0 ]; do
  case $1 in -u) user=$2; shift;; esac
  shift
done
[ "$user" != games ] || { echo "You (games) are not allowed to use this program (crontab)" >&2; exit 1; }
[ "$user" != news ] || { echo "it broke" >&2; exit 3; }
cat "@/$user" 2> /dev/null || { echo "no crontab for $user" >&2; exit 1; }
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="cron's own files belong to root, and root reads all crontabs"
)


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "var/spool/cron/crontabs"
        for folder in ("bin", "etc/cron.d", "usr/sbin", "var/spool/cron/crontabs"):
            (root / folder).mkdir(parents=True)
        self.write("bin/crontab", PROGRAM.replace("@", str(self.spool)), mode=0o755)
        self.write("usr/sbin/cron", "", mode=0o755)

    def write(self, path: str, text: str, *, mode: int = 0o644) -> Path:
        place = self.root / path
        place.write_text(text)
        place.chmod(mode)
        return place

    def own(self, user: str, text: str) -> None:
        self.write(f"var/spool/cron/crontabs/{user}", text)

    @property
    def crontabs(self) -> Crontabs:
        return Crontabs({"PATH": f"{self.root}/bin:/usr/bin:/bin"}, root=self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_ones_own_crontab(host: Host) -> None:
    assert host.crontabs.text_of(ME) == ""
    host.own(ME, "0 0 * * * caf\udcc3\udca9 \n".encode("utf-8", "surrogateescape").decode())
    assert host.crontabs.text_of(ME) == "0 0 * * * café \n"
    (entry,), _ = host.crontabs.entries()
    assert (entry.user, entry.file, entry.line, entry.number) == (ME, None, "0 0 * * * café ", 1)


@needs_root
def test_root_reads_the_crontabs_of_all_and_the_files_of_cron(host: Host) -> None:
    host.own("daemon", "0 1 * * * a\n")
    host.own("root", "0 2 * * * b\nbroken\n")
    host.own("nobody-of-that-name", "0 3 * * * c\n")
    host.write("etc/crontab", "SHELL=/bin/sh\n0 4 * * *  bin  d\n")
    host.write("etc/cron.d/some-job_1", "0 5 * * * root e\n")
    found, notes = host.crontabs.entries()
    assert [(entry.user, entry.file, entry.line, entry.number) for entry in found] == [
        ("daemon", None, "0 1 * * * a", 1),
        ("root", None, "0 2 * * * b", 1),
        ("bin", "/etc/crontab", "0 4 * * *  bin  d", 2),
        ("root", "/etc/cron.d/some-job_1", "0 5 * * * root e", 1),
    ]
    assert found[2].entry.variables == {"SHELL": "/bin/sh"}
    assert notes == (
        "line 2 of the crontab of root cannot be read: not five fields of time and a command",
        "cron ignores the whole of the crontab of root, for line 2",
    )
    assert [entry.ignored is not None for entry in found] == [False, True, False, False]


@needs_root
def test_files_that_cron_ignores(host: Host) -> None:
    line = "0 5 * * * root e\n"
    for name in ("a.dpkg-old", "b~", ".placeholder", "c.conf"):
        host.write(f"etc/cron.d/{name}", line)
    host.write("etc/cron.d/writable", line, mode=0o666)
    os.chown(host.write("etc/cron.d/theirs", line), pwd.getpwnam("daemon").pw_uid, -1)
    (host.root / "etc/cron.d/folder").mkdir()
    found, notes = host.crontabs.entries()
    assert found == ()
    assert notes == (
        "/etc/cron.d/folder is ignored by cron: it is not a file",
        "/etc/cron.d/theirs is ignored by cron: it belongs to daemon, not to root",
        "/etc/cron.d/writable is ignored by cron: others than root may write to it",
    )


@needs_root
def test_cronie_takes_other_names(host: Host) -> None:
    (host.root / "usr/sbin/cron").rename(host.root / "usr/sbin/crond")
    for name in ("a.conf", "b~", ".hidden", "d.rpmsave"):
        host.write(f"etc/cron.d/{name}", "CRON_TZ=UTC\n0 5 * * * root e\n")
    host.write("etc/cron.d/executable", "0 5 * * * root e\n", mode=0o755)
    assert host.crontabs.daemon == "cronie"
    found, notes = host.crontabs.entries()
    assert [entry.file for entry in found] == ["/etc/cron.d/a.conf"]
    assert notes == ("/etc/cron.d/executable is ignored by cron: it is executable",)


def trigger(cron: str, user: str = ME, file: str | None = None) -> CronTrigger:
    return CronTrigger(cron=cron, user=user, file=file)


def test_a_trigger_is_found_by_its_exact_line(host: Host) -> None:
    host.own(ME, "0 1 * * * a \n#0 2 * * * b\n0 3 * * * c\n0 3 * * * c\n")
    host.write("etc/crontab", "0 1 * * * root a\n")
    find = host.crontabs.find
    assert [find(trigger(line)) for line in ("0 1 * * * a ", "0 1 * * * a", "0 2 * * * b", "0 3 * * * c")] == [
        1,
        0,
        0,
        2,
    ]
    assert find(trigger("0 1 * * * root a", "root", "/etc/crontab")) == 1
    assert find(trigger("0 1 * * * root a", "root", "/etc/cron.d/none")) == 0


@needs_root
def test_what_cannot_be_read_is_not_known(host: Host) -> None:
    host.own("games", "0 1 * * * a\n")
    host.own("news", "0 1 * * * a\n")
    assert host.crontabs.find(trigger("0 1 * * * a", "games")) is None
    with pytest.raises(NotAllowed, match="games cannot be read: You"):
        host.crontabs.text_of("games")
    with pytest.raises(OrchctlError, match="news cannot be read: it broke"):
        host.crontabs.text_of("news")
    found, notes = host.crontabs.entries()
    assert found == ()
    assert len(notes) == 2


def test_no_cron_is_no_crontab(tmp_path: Path) -> None:
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "etc/crontab").write_text("0 5 * * * root e\n")
    crontabs = Crontabs({"PATH": str(tmp_path)}, root=tmp_path)
    assert crontabs.daemon is None
    assert crontabs.entries() == ((), ("cron is not installed on this host",))
    assert crontabs.text_of(ME) == ""
    assert crontabs.find(trigger("0 5 * * * root e", "root", "/etc/crontab")) == 0


def test_a_file_that_is_named(host: Host) -> None:
    host.write("mine", "0 0 * * * x\n")
    assert host.crontabs.read_file(f"{host.root}/mine") == "0 0 * * * x\n"
    with pytest.raises(OrchctlError, match="No such file"):
        host.crontabs.read_file(f"{host.root}/none")
    own: Callable[[str], bool] = host.crontabs.is_system
    assert [own(path) for path in ("/etc/crontab", "/etc/cron.d/x", "/home/x/crontab", "/etc/cron.d")] == [
        True,
        True,
        False,
        False,
    ]


def test_who_is_meant(host: Host) -> None:
    assert host.crontabs.me == host.crontabs.caller == ME
    assert Crontabs({}, "daniel").caller == "daniel"
    assert host.crontabs.home(ME) == pwd.getpwuid(os.geteuid()).pw_dir
    assert host.crontabs.home("nobody-of-that-name") is None
    assert ME in host.crontabs.users()
