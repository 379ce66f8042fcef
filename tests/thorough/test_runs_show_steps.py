"""`orchctl runs show` of a run of steps, as a process: on a terminal, in a pipe, as data and as a picture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pexpect
import pytest
import tomli_w

from example_pipeline import Runner
from support import clean_env, sigint_as_usual

STEPS: list[dict[str, Any]] = [
    {"name": "fetch", "command": ["true"]},
    {"name": "check.rates", "command": ["sh", "-c", "echo 'no such column' >&2; exit 3"], "after": ["fetch"]},
    {"name": "simulate", "command": ["false"], "after": ["fetch"], "optional": True},
    {"name": "score", "command": ["true"], "after": ["check.rates", "simulate"]},
]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with a failed run of steps and a run of the command, and the ids of both."""
    root = tmp_path_factory.mktemp("shown")
    (root / "config").mkdir()
    places = {"data_root": f"{root}/data", "working_directory": f"{root}", "work_pool": "p"}
    job = {"command": ["true"], "execution": "steps", "steps": STEPS}
    (root / "config" / "jobs.toml").write_text(
        tomli_w.dumps({"version": 1, "defaults": places, "jobs": {"live-score": job}})
    )
    (root / "config" / "schedules.toml").write_text("version = 1\n")
    (root / "data").mkdir()
    runner = Runner(root)
    steps, command = runner.run("steps"), runner.run("command", execution="command")
    assert (steps.status, command.status) == ("failed", "success"), runner.log
    return root, steps.run_id, command.run_id


def words(root: Path, *more: str) -> list[str]:
    return ["-m", "orchctl", "--config", f"{root}/config", "--state-dir", f"{root}/state", "runs", "show", *more]


def shown(root: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words(root, *more)], env={**clean_env(), **env}, capture_output=True, text=True, check=False
    )


def test_in_a_pipe_it_has_no_colour_and_every_step(ran: tuple[Path, str, str]) -> None:
    root, steps, _ = ran
    done = shown(root, steps)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    for status, step in (("success", "fetch"), ("failed", "check.rates"), ("warned", "simulate"), ("skipped", "score")):
        assert any(line.startswith(f"{status} ") and f" {step} " in line for line in lines)
    assert any("upstream failed: check.rates" in line for line in lines)
    assert "check.rates: failed: exit code 3" in done.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_it_fits(ran: tuple[Path, str, str], columns: int) -> None:
    root, steps, _ = ran
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24", "PYTHONIOENCODING": "utf-8"}
    with sigint_as_usual():
        terminal = pexpect.spawn(
            sys.executable, words(root, steps), env=env, encoding="utf-8", dimensions=(24, columns), timeout=60
        )
    terminal.expect(pexpect.EOF)
    assert terminal.before is not None
    lines = _ESCAPE.sub("", terminal.before).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("STATUS"))
    table = lines[first : first + 5]
    assert columns - 2 <= max(map(len, table)) < columns
    assert "\x1b[" in terminal.before  # the statuses have their colours


def test_as_plain_characters_where_there_are_no_others(ran: tuple[Path, str, str]) -> None:
    root, steps, _ = ran
    done = shown(root, steps, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "#" in done.stdout
    assert "x" in done.stdout


def test_as_data(ran: tuple[Path, str, str]) -> None:
    root, steps, command = ran
    data = json.loads(shown(root, steps, "--json").stdout)["data"]
    assert [(row["step"], row["status"]) for row in data["timeline"]["steps"]] == [
        ("fetch", "success"),
        ("check.rates", "failed"),
        ("simulate", "warned"),
        ("score", "skipped"),
    ]
    assert json.loads(shown(root, command, "--json").stdout)["data"]["timeline"] is None


def test_a_run_of_a_command_is_shown_as_before(ran: tuple[Path, str, str]) -> None:
    root, _, command = ran
    done = shown(root, command)
    assert done.returncode == 0, done.stderr
    assert "STEP" not in done.stdout
    assert "exit       0" in done.stdout


def test_as_a_picture(ran: tuple[Path, str, str], tmp_path: Path) -> None:
    root, steps, _ = ran
    done = shown(root, steps, "--svg", f"{tmp_path}/run.svg")
    assert done.returncode == 0, done.stderr
    said = " ".join("".join(each.itertext()) for each in ET.parse(tmp_path / "run.svg").getroot().iter())
    assert all(step["name"] in said for step in STEPS)
    assert steps in said


def test_a_picture_of_a_command_is_refused(ran: tuple[Path, str, str], tmp_path: Path) -> None:
    root, _, command = ran
    done = shown(root, command, "--svg", f"{tmp_path}/run.svg")
    assert done.returncode == 2
    assert f"run {command} has no steps to draw" in done.stderr
    assert not (tmp_path / "run.svg").exists()


def test_a_picture_that_cannot_be_written_is_one_error(ran: tuple[Path, str, str]) -> None:
    root, steps, _ = ran
    done = shown(root, steps, "--svg", "/nowhere/run.svg")
    assert done.returncode == 2
    assert "--svg: cannot write /nowhere/run.svg: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_events_that_are_lost_change_nothing_that_a_manifest_knows(ran: tuple[Path, str, str], tmp_path: Path) -> None:
    root, steps, _ = ran
    before = json.loads(shown(root, steps, "--json").stdout)["data"]["timeline"]
    events = root / "data" / "manifests" / "events"
    moved = events.rename(tmp_path / "events")
    try:
        after = json.loads(shown(root, steps, "--json").stdout)["data"]["timeline"]
    finally:
        moved.rename(events)
    assert [(row["step"], row["status"], len(row["attempts"])) for row in after["steps"]] == [
        (row["step"], row["status"], len(row["attempts"])) for row in before["steps"]
    ]
