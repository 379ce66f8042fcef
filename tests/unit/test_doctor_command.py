"""`orchctl doctor` as a command: what it prints and exits with, on hosts of which nothing works."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
import tomli_w
from typer.testing import CliRunner, Result

from conftest import ROOT
from orchctl.cli.app import app, hoist
from orchctl.core.doctor import CHECKS
from support import sigint_as_usual

NOBODY = "http://127.0.0.1:9/api"
KEYS = {"at", "ok", "strict", "checks", "counts", "first", "findings"}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, hoist(words), prog_name="orchctl", env=environment)


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return ["--config", f"{tmp_path}/config", "--state-dir", f"{tmp_path}/state", "--api-url", NOBODY]


def written(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    base = {"data_root": f"{tmp_path}/data", "working_directory": "/tmp", "work_pool": "p", "command": ["true"]}
    (tmp_path / "config" / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "jobs": {"job": base}}))
    (tmp_path / "config" / "schedules.toml").write_text("version = 1\n")


def findings(*words: str, **environment: str) -> list[dict[str, Any]]:
    done = run(*words, "doctor", "--json", **environment)
    assert done.exit_code == 3, done.output
    data = json.loads(done.stdout)["data"]
    assert set(data) == KEYS
    found: list[dict[str, Any]] = data["findings"]
    return found


def test_without_catalog_server_and_state_every_check_answers_and_nothing_is_made(
    places: list[str], tmp_path: Path
) -> None:
    found = findings(*places)
    assert {each["check"] for each in found} == {check.name for check in CHECKS}
    assert [each["check"] for each in found if each["level"] == "failure"] == ["catalog", "api"]
    assert all(each["fix"] for each in found if each["level"] != "ok")
    assert list(tmp_path.iterdir()) == []


GARBAGE = ("host/installation.json", "host/server.json", "owners/job.json", "handovers/open/job", "host/backups.json")


def test_a_state_directory_that_is_garbage_is_a_failure_and_no_crash(places: list[str], tmp_path: Path) -> None:
    written(tmp_path)
    for name in GARBAGE:
        path = tmp_path / "state" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(b"\x00{")
    # Without --api-url the address, too, comes from there.
    found = findings(*places[:4])
    failed = {each["check"] for each in found if each["level"] == "failure"}
    assert {"state", "units", "handover", "backups", "api"} <= failed
    assert not [each for each in found if "unexpected" in each["seen"]]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["catalog", "--strict"], 0),
        (["backups"], 0),
        (["backups", "--strict"], 3),
        (["api"], 3),
        (["worker"], 0),  # not known
        (["worker", "--strict"], 3),
        (["--list", "--strict"], 2),
    ],
)
def test_exit_codes(places: list[str], tmp_path: Path, words: list[str], code: int) -> None:
    written(tmp_path)
    assert run(*places, "doctor", *words).exit_code == code


def test_a_check_that_there_is_not_is_refused_before_anything_is_looked_at(places: list[str]) -> None:
    wrong = run(*places, "doctor", "api", "ctalog")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "there is no check 'ctalog'" in wrong.stderr
    assert 'did you mean "catalog"?' in wrong.stderr


def test_a_group_stands_for_its_checks_and_the_list_names_all(places: list[str]) -> None:
    shown = run(*places, "doctor", "safekeeping").stdout.splitlines()
    warned = [line.split()[1] for line in shown if line.startswith("warning")]
    assert warned == ["backups", "alerts"]
    assert shown[-2] == "2 checks: 0 ok, 2 warnings, 0 failures, 0 not known"
    assert shown[-1].startswith("first: backups: `orchctl host backup`")
    listed = run(*places, "doctor", "--list").stdout
    assert all(f"{check.name} " in listed and check.asks in listed for check in CHECKS)
    data = json.loads(run(*places, "doctor", "--list", "--json").stdout)["data"]
    assert [each["check"] for each in data["checks"]] == [check.name for check in CHECKS]


@pytest.fixture
def terminal(places: list[str]) -> Callable[[int], list[str]]:
    def spawn(columns: int) -> list[str]:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
        with sigint_as_usual():
            shown = pexpect.spawn(
                sys.executable, ["-m", "orchctl", *places, "doctor"], env=environment, encoding="utf-8",
                dimensions=(24, columns), timeout=60,
            )  # fmt: skip
        shown.expect(pexpect.EOF)
        assert shown.before is not None
        return _ESCAPE.sub("", shown.before).splitlines()

    return spawn


@pytest.mark.parametrize("columns", [80, 160])
def test_no_line_is_wider_than_the_terminal_and_none_is_cut(terminal: Callable[[int], list[str]], columns: int) -> None:
    lines = terminal(columns)
    assert max(map(len, lines)) <= columns
    text = re.sub(r"\s+", " ", " ".join(lines))
    assert "…" not in text
    assert "best from a schedule of the catalog" in text
    assert all(re.search(rf"^(ok|warning|failure|unknown) +{check.name}\b", "\n".join(lines), re.M) for check in CHECKS)


def test_the_page_tells_of_every_check_and_of_no_other() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    told = re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", text, re.M)
    assert [(check.name, check.asks) for check in CHECKS] == told
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert [each.lower() for each in headings if each.lower() in {check.group for check in CHECKS}] == list(
        dict.fromkeys(check.group for check in CHECKS)
    )
