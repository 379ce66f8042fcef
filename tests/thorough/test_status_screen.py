"""`status` on a terminal: a table that fits, and `--watch`, which repaints it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pexpect
import pytest
import tomli_w

from orchctl.adapters.owners import Owners
from orchctl.core.slots import Owner
from support import sigint_as_usual

MANY = 200
NOBODY = "http://127.0.0.1:9/api"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A catalog of many jobs that need no systemd, and a server that is not there."""
    base = {"data_root": f"{tmp_path}/data", "working_directory": "/tmp", "work_pool": "p", "command": ["true"]}
    jobs = {f"a-job-with-quite-a-long-name-{number:03}": base for number in range(MANY)}
    (tmp_path / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "jobs": jobs}))
    (tmp_path / "schedules.toml").write_text("version = 1\n")
    return ["--config", str(tmp_path), "--state-dir", f"{tmp_path}/state", "--api-url", NOBODY]


def terminal(*words: str, columns: int = 80, lines: int = 24) -> pexpect.spawn[str]:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(lines)}
    argv = ["-m", "orchctl", *words]
    with sigint_as_usual():
        return pexpect.spawn(
            sys.executable, argv, env=environment, encoding="utf-8", dimensions=(lines, columns), timeout=60
        )


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "orchctl", *words]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("columns", [80, 160])
def test_no_line_is_wider_than_the_terminal(places: list[str], columns: int) -> None:
    shown = terminal(*places, "status", columns=columns)
    shown.expect(pexpect.EOF)
    assert shown.before is not None
    lines = _ESCAPE.sub("", shown.before).splitlines()
    assert max(map(len, lines)) <= columns
    rows = [line for line in lines if "a-job-with" in line]
    assert len(rows) == MANY
    assert all("a-job-with-quite-a-long-name-" in row for row in rows)
    assert lines[-1].startswith("200 jobs: 200 prefect")


def test_watch_repaints_within_the_terminal_and_ends_well(places: list[str]) -> None:
    shown = terminal(*places, "status", "--watch")
    shown.expect_exact("\x1b[?1049h")
    frames = []
    for _ in range(2):
        shown.expect_exact("\x1b[H")
        shown.expect_exact("\x1b[J")
        assert shown.before is not None
        frames.append(shown.before)
    shown.sendintr()
    shown.expect_exact("\x1b[?1049l")
    shown.expect(pexpect.EOF)
    shown.close()
    assert shown.exitstatus == 0
    for frame in frames:
        lines = _ESCAPE.sub("", frame).split("\n")
        assert len(lines) <= 24
        assert all(len(line.rstrip("\r")) <= 80 for line in lines)
        assert re.search(r"… 18\d more jobs", frame)
        assert "cannot reach the Prefect API" in frame
        assert "200 jobs: 200 prefect" in lines[-1]
        # What stood there is written over, and never wiped first.
        assert "\x1b[2J" not in frame


@pytest.mark.parametrize("lines", [4, 6, 10])
def test_watch_fits_a_small_terminal_too(places: list[str], lines: int) -> None:
    shown = terminal(*places, "status", "--watch", lines=lines)
    shown.expect_exact("\x1b[H")
    shown.expect_exact("\x1b[J")
    assert shown.before is not None
    assert len(shown.before.split("\n")) <= lines
    shown.sendintr()
    shown.expect(pexpect.EOF)


@pytest.mark.parametrize("more", [["--json"], ["--check"], []])
def test_watch_is_for_a_terminal(places: list[str], more: list[str]) -> None:
    done = run(*places, "status", "--watch", *more)
    assert done.returncode == 2


def test_without_prefect_the_status_is_shown_and_only_check_fails(places: list[str]) -> None:
    assert run(*places, "status").returncode == 0
    done = run(*places, "status", "--check", "--json")
    envelope = json.loads(done.stdout)
    assert (done.returncode, envelope["status"]) == (3, "success")
    data = envelope["data"]
    assert set(data) == {"at", "prefect", "ok", "jobs", "problems"}
    assert set(data["jobs"][0]) == {
        "job", "owner", "since", "mode", "triggers", "deployment", "last", "next", "next_legacy", "next_prefect",
        "late", "problems", "confirm_by",
    }  # fmt: skip
    assert (data["ok"], data["prefect"]["reached"]) == (False, False)
    assert data["problems"][0]["code"] == "prefect-unreachable"
    assert set(data["problems"][0]) == {"code", "message", "fix"}


def test_what_is_wrong_with_an_owner_is_shown_with_what_puts_it_right(tmp_path: Path) -> None:
    legacy = [{"cron": "5 3 * * * /bin/true", "user": "nobody-there"}]
    job = {"data_root": f"{tmp_path}/data", "working_directory": "/tmp", "work_pool": "p", "command": ["true"]}
    (tmp_path / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "jobs": {"mine": {**job, "legacy": legacy}}}))
    (tmp_path / "schedules.toml").write_text("version = 1\n")
    places = ["--config", str(tmp_path), "--state-dir", f"{tmp_path}/state", "--api-url", NOBODY]
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    owner = Owner(until - timedelta(days=1), draining=False, confirm_by=until)
    Owners(tmp_path / "state").create("mine", owner, still=lambda: True)
    done = run(*places, "status", "mine")
    assert f"({until:%Y-%m-%dT%H:%M:%SZ}), unless `orchctl confirm mine` comes first" in done.stdout
    assert "[no-journal]: `orchctl recover` writes one" in done.stdout
    assert "[no-journal]: `orchctl recover` writes one" in run(*places, "status").stdout
    assert run(*places, "status", "--check").returncode == 3


def test_one_job_in_a_block(places: list[str]) -> None:
    done = run(*places, "status", "a-job-with-quite-a-long-name-007")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "job", "owner", "mode", "deployment", "last", "next", "wrong",
    ]  # fmt: skip
    assert run(*places, "status", "a-job-with").returncode == 2
