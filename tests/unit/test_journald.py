"""journalctl as a program: what it is asked, and what its messages mean. The real one is asked in tests/sandboxed."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchctl.adapters.journald import Journald
from orchctl.core.journal import Written
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

ME = Manager("user", pwd.getpwuid(os.geteuid()).pw_name)
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HINT = "Hint: You are currently not seeing messages from other users and the system."
DATA = Path(__file__).parents[1] / "data" / "journal_system.jsonl"
Make = Callable[[str], Journald]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a journal of which `journalctl` is this shell script; its words are written to `asked`."""

    def made(script: str) -> Journald:
        program = tmp_path / "journalctl"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\n{script}\n')
        program.chmod(0o755)
        return Journald({"PATH": f"{tmp_path}:/usr/bin:/bin"})

    return made


def test_only_the_managers_themselves_are_believed(make: Make, tmp_path: Path) -> None:
    journal = make(f"cat {DATA}")
    read = journal.entries({SYSTEM: ["b.service", "a.service"], ME: ["c.service"]}, since=NOON)
    assert len(read.entries) > 100
    asked = (tmp_path / "asked").read_text().split()
    assert f"--since=@{NOON.timestamp():.6f}" in asked
    system, user = " ".join(one for one in asked if not one.startswith(("-", "MESSAGE_ID"))).split(" + ")
    assert system == "_PID=1 UNIT=a.service UNIT=b.service"
    assert user == f"_UID={os.geteuid()} USER_UNIT=c.service"


def test_reading_goes_on_after_the_cursor_and_takes_nothing_for_it_where_it_is_gone(make: Make) -> None:
    first = json.loads(DATA.read_text().splitlines()[0])["__CURSOR"]
    journal = make(f"cat {DATA}")
    whole = journal.entries({SYSTEM: ["a.service"]}).entries
    assert journal.entries({SYSTEM: ["a.service"]}, cursor=first).entries == whole[1:]
    assert journal.entries({SYSTEM: ["a.service"]}, cursor="rotated away").entries == whole
    some = journal.entries({SYSTEM: ["a.service"]}, limit=5)
    assert (some.entries, some.more) == (whole[:5], True)


def test_a_cursor_that_is_none_is_done_without(make: Make) -> None:
    journal = make(
        f'case "$*" in *--cursor*) echo "Failed to seek to cursor: Invalid argument" >&2; exit 1;; esac\ncat {DATA}'
    )
    assert journal.entries({SYSTEM: ["a.service"]}, cursor="x").entries


@pytest.mark.parametrize(
    ("said", "code", "manager", "error"),
    [
        ("No journal files were opened due to insufficient permissions.", 1, SYSTEM, NotAllowed),
        ("No journal files were opened due to insufficient permissions.", 1, ME, NotAllowed),
        (HINT, 0, SYSTEM, NotAllowed),
        (HINT, 0, ME, None),
        (HINT, 0, Manager("user", "nobody" if os.geteuid() == 0 else "root"), NotAllowed),
        ("No journal files were found.", 0, SYSTEM, SystemdUnavailable),
        ("Failed to parse", 1, SYSTEM, OrchctlError),
        ("a warning", 0, SYSTEM, None),
    ],
)
def test_what_journalctl_says_is_told_though_it_exits_with_0(
    make: Make, said: str, code: int, manager: Manager, error: type[OrchctlError] | None
) -> None:
    # It says what it cannot show only where it does not print JSON.
    quiet = 'case "$*" in *json*|*cat*) exit 0;; esac; ' if code == 0 else ""
    journal = make(f"{quiet}echo '{said}' >&2; exit {code}")
    if error is None:
        assert journal.entries({manager: ["a.service"]}).entries == ()
        return
    with pytest.raises(error) as raised:
        journal.entries({manager: ["a.service"]})
    if error is NotAllowed:
        assert "sudo usermod -aG systemd-journal" in (raised.value.hint or "")


def test_a_journalctl_that_hangs_is_ended(make: Make, tmp_path: Path) -> None:
    make("exec sleep 30")
    begun = time.monotonic()
    with pytest.raises(SystemdUnavailable, match="did not answer"):
        Journald({"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout_s=0.2).first(SYSTEM)
    assert time.monotonic() - begun < 10


def test_a_host_without_journalctl_has_no_journal() -> None:
    with pytest.raises(SystemdUnavailable) as raised:
        Journald({"PATH": "/nonexistent"}).first(SYSTEM)
    assert raised.value.absent


def line(at: datetime, text: str, **fields: str) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": str(round(at.timestamp() * 1e6)), "MESSAGE": text, **fields})


def test_output_is_that_of_the_run_and_of_no_other(make: Make, tmp_path: Path) -> None:
    later = NOON + timedelta(seconds=2)
    lines = [
        line(NOON, "ours", _SYSTEMD_INVOCATION_ID="a"),
        line(NOON, "whose run journald did not know"),
        line(later, "another's", _SYSTEMD_INVOCATION_ID="b"),
        line(later + timedelta(seconds=1), "later, and unknown too"),
    ]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    journal = make(f'case "$*" in *--reverse*) tac {tmp_path}/lines;; *) cat {tmp_path}/lines;; esac')
    written = Written(SYSTEM, "x.service", "a", NOON, later)
    assert list(journal.output(written)) == [b"ours\n", b"whose run journald did not know\n"]
    assert list(journal.output(written, last=1)) == [b"whose run journald did not know\n"]
