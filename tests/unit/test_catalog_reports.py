"""How broken catalogs are reported: all at once, in file order, through the real command line, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalogs import JOBS, SCHEDULES, changed, problems, write
from orchctl.adapters import toml_files
from orchctl.core.catalog_build import build
from orchctl.errors import CatalogInvalid, ExitCode

MANY = """\
version = 1
nam = "x"

[defaults]
data_root = "data"
working_directory = "/srv"
timeout = 5

[jobs.Bad]
command = []

[jobs.score]
schedules = ["dayly"]
command = ["x", "{nope}"]
overlap = "skp"
retries = -1
gates = { within = "x", successes = 3 }
legacy = [
  { timer = "a.timer" },
  { timer = "a.service" },
]

[jobs.score.env]
"A B" = "x"
N = 5

[jobs.third]
command = ["x"]
work_pool = "here"
legacy = [{ timer = "a.timer" }]
"""
MANY_SCHEDULES = """\
version = 1
timezone = "Nowhere"

[schedules.daily]
cron = "0 25 * * *"

[schedules.twice]
cron = "0 1 * * *"
every = "0s"
"""
EXPECTED = [
    "jobs.toml:2 nam",
    "jobs.toml:5 [defaults] data_root",
    "jobs.toml:7 [defaults] timeout",
    "jobs.toml:9 [jobs.Bad]",
    "jobs.toml:9 [jobs.Bad] work_pool",
    "jobs.toml:10 [jobs.Bad] command",
    "jobs.toml:12 [jobs.score] work_pool",
    "jobs.toml:13 [jobs.score] schedules[0]",
    "jobs.toml:14 [jobs.score] command[1]",
    "jobs.toml:15 [jobs.score] overlap",
    "jobs.toml:16 [jobs.score] retries",
    "jobs.toml:17 [jobs.score] gates.successes",
    "jobs.toml:17 [jobs.score] gates.within",
    "jobs.toml:20 [jobs.score] legacy[1].timer",
    'jobs.toml:24 [jobs.score] env."A B"',
    "jobs.toml:25 [jobs.score] env.N",
    "jobs.toml:30 [jobs.third] legacy[0]",
    "schedules.toml:2 timezone",
    "schedules.toml:5 [schedules.daily] cron",
    "schedules.toml:7 [schedules.twice]",
    "schedules.toml:9 [schedules.twice] every",
]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchctl", *words]
    environment = {**os.environ, "XDG_STATE_HOME": os.devnull}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_every_problem_of_both_files_is_reported_in_one_pass_in_file_order() -> None:
    assert [f"{problem.where} {problem.place}" for problem in problems(MANY, MANY_SCHEDULES)] == EXPECTED


def test_the_command_line_reports_all_of_them_and_exits_10(tmp_path: Path) -> None:
    done = run("--config", str(write(tmp_path, MANY, MANY_SCHEDULES)), "check")
    assert done.returncode == ExitCode.CATALOG
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == len(EXPECTED)
    assert f"error: the catalog has {len(EXPECTED)} problems" in done.stderr
    assert 'did you mean "skip"?; allowed: skip or queue' in done.stderr


def test_as_json_each_problem_has_file_line_table_and_key(tmp_path: Path) -> None:
    done = run("--json", "--config", str(write(tmp_path, MANY, MANY_SCHEDULES)), "check")
    assert done.returncode == ExitCode.CATALOG
    envelope = json.loads(done.stdout)
    assert (envelope["schema"], envelope["status"], envelope["data"]) == (1, "error", None)
    assert len(envelope["errors"]) == len(EXPECTED)
    overlap = next(error for error in envelope["errors"] if error["key"] == "overlap")
    assert overlap == {
        "code": "catalog",
        "message": '[jobs.score] overlap: found "skp"',
        "hint": 'did you mean "skip"?; allowed: skip or queue',
        "file": str(tmp_path / "jobs.toml"),
        "line": 15,
        "table": "jobs.score",
        "key": "overlap",
    }


@pytest.mark.parametrize(
    ("jobs", "schedules", "expected"),
    [
        ("", SCHEDULES, ["jobs.toml version"]),
        (JOBS, "", ["schedules.toml version", "jobs.toml:13 [jobs.score] schedules[0]"]),
        ("# nothing\n", "", ["jobs.toml version", "schedules.toml version"]),
        ("jobs = 5\nversion = 1\n", SCHEDULES, ["jobs.toml:1 [jobs]"]),
        ("jobs = []\nversion = 1\n", SCHEDULES, ["jobs.toml:1 [jobs]"]),
        ("version = 1\ndefaults = 5\n[jobs.a]\n", SCHEDULES, ["jobs.toml:2 [defaults]"]),
        ("version = 1\n[[defaults]]\n[jobs.a]\n", SCHEDULES, ["jobs.toml:2 [defaults]"]),
        ("version = 1\ndefaults = 'command'\n[jobs.a]\n", SCHEDULES, ["jobs.toml:2 [defaults]"]),
        ("version = 1\n[jobs]\na = 5\n", SCHEDULES, ["jobs.toml:3 [jobs.a]"]),
        ("version = 1\njobs.a = []\n", SCHEDULES, ["jobs.toml:2 [jobs.a]"]),
        (JOBS, "version = 1\nschedules = 5\n", ["schedules.toml:2 [schedules]"]),
        (JOBS, "version = 1\nschedules.daily = 5\n", ["schedules.toml:2 [schedules.daily]"]),
        (JOBS, "version = 1\n[[schedules.daily]]\n", ["schedules.toml:2 [schedules.daily]"]),
        ("[", "[", ["jobs.toml:1", "schedules.toml:1"]),
        ("version = 1\n\ufeff", SCHEDULES, ["jobs.toml:2"]),
    ],
)
def test_files_of_a_wrong_form(jobs: str, schedules: str, expected: list[str]) -> None:
    found = [f"{problem.where} {problem.place}".strip() for problem in problems(jobs, schedules)]
    assert sorted(found) == sorted(expected)


def test_a_missing_required_key_is_named_for_every_job_that_lacks_it() -> None:
    found = problems(changed(JOBS, 'data_root = "/srv/data"\n', ""))
    assert [problem.place for problem in found] == ["[jobs.score] data_root", "[jobs.other] data_root"]


def test_a_trigger_in_defaults_belongs_to_every_job_and_so_to_too_many() -> None:
    found = problems(changed(JOBS, 'timeout = "1h"', 'legacy = [{ timer = "all.timer" }]\ntimeout = "1h"') + OTHERS)
    assert [problem.place for problem in found] == ["[jobs.more] legacy[0]"]
    assert "already a trigger of other" in found[0].message


OTHERS = '\n[jobs.more]\ncommand = ["x"]\n'


def test_a_name_that_grows_too_long_with_the_lines_of_on_calendar() -> None:
    name = "x" * 62
    text = SCHEDULES + f'\n[schedules.{name}]\non_calendar = ["daily", "12:00"]\n'
    assert [problem.place for problem in problems(schedules=text)] == [f"[schedules.{name}] on_calendar"]


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path, JOBS.encode() + b'x = "\xff"\n')
    with pytest.raises(CatalogInvalid) as caught:
        toml_files.load(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.line, "not UTF-8" in problem.message) == (JOBS.count("\n") + 1, True)


@pytest.mark.parametrize("missing", [["jobs.toml"], ["schedules.toml"], ["jobs.toml", "schedules.toml"]])
def test_missing_files_are_all_named(tmp_path: Path, missing: list[str]) -> None:
    write(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    with pytest.raises(CatalogInvalid) as caught:
        toml_files.load(tmp_path)
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / name) for name in missing]
    assert "--config" in (caught.value.hint or "")


LEVEL = 'LEVEL = "3"'
SECRET = "hunter2secret"  # and a number below: what must not be seen
URL = f"postgres://me:{SECRET}@db/x"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LEVEL, "DB_PASSWORD = 718281828"),
        (LEVEL, "DB_PASSWORD = [718281828]"),
        (LEVEL, f'DB_PASSWORD = ["{SECRET}"]'),
        (LEVEL, f'DB_PASSWORD.x = "{SECRET}"'),
        (LEVEL, f'DB_PASSWORD = "{SECRET}\\u0000"'),
        (LEVEL, f'DB_PASSWORD = "a{{{SECRET}}}"'),
        (LEVEL, f'URL = "postgres://me:{{{SECRET}}}@db/x"'),
        (LEVEL, f'"{URL}" = "x"'),
        ('{ SEASON = "2025" }', f'[{{ DB_PASSWORD = "{SECRET}" }}]'),
        ('{ SEASON = "2025" }', f'{{ DB_PASSWORD = {{ a = "{SECRET}" }} }}'),
        ("[defaults]", f'[[defaults]]\nenv = {{ DB_PASSWORD = "{SECRET}" }}\n[later]'),
        ("[jobs.other]", f'[[jobs.other]]\nenv = {{ DB_PASSWORD = "{SECRET}" }}'),
        ('command = ["scripts/other.sh"]', f'command = "psql {URL}"'),
        ('command = ["scripts/other.sh"]', f'command = [["psql {URL}"]]'),
        ('command = ["scripts/other.sh"]', f'command = ["psql", "{"x" * 40} {URL}{{x}}"]'),
        ('command = ["scripts/other.sh"]', f'command = "{"x" * 50} {URL}"'),
        ("retries = 1", f'retries = "{URL}"'),
        ("retries = 1", f'retry_delay = {{ DB_PASSWORD = "{SECRET}" }}'),
        ("retries = 1", f'kill_after = "{URL}"'),
        ("retries = 1", f'working_directory = "{URL}"'),
        ("retries = 1", f'asset = "{URL}"'),
        ('["daily"]', f'["{URL}"]'),
        ('name = "tests"', f'name = "{URL}"'),
        ('name = "tests"', f'"{URL}" = 1'),
    ],
)
def test_secrets_never_appear(old: str, new: str) -> None:
    found = problems(changed(JOBS, old, new))
    assert found
    assert SECRET not in repr(found)
    assert "718281828" not in repr(found)


def test_no_name_of_a_file_or_catalog_is_needed_for_a_report() -> None:
    with pytest.raises(CatalogInvalid, match=r"the catalog has 1 problem$"):
        build(("", JOBS.replace("retries = 1", "retries = -1")), ("", SCHEDULES))
