"""The command line without a server: what is imported, where things are printed, how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from loaded import imported
from orchctl.cli.app import hoist
from orchctl.errors import MEANINGS, ExitCode, OrchctlError

CONFIG = str(ROOT / "config")


def orchctl(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchctl", *words],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, **env},
        check=False,
        timeout=60,
    )


HEAVY = {"prefect", "httpx", "rich", "pydantic", "sqlalchemy", "fastapi", "dateutil"}


def test_help_and_version_import_nothing_heavy() -> None:
    assert not imported("--help") & HEAVY
    assert not imported("--version") & HEAVY
    assert not imported("runs", "--help") & (HEAVY - {"pydantic"})  # Typer parses a command's options with pydantic


def test_check_imports_neither_httpx_nor_prefect_nor_rich(tmp_path: Path) -> None:
    loaded = imported("--config", CONFIG, "--state-dir", str(tmp_path), "check")
    assert not loaded & (HEAVY - {"pydantic"})


def test_runs_imports_neither_httpx_nor_prefect(tmp_path: Path) -> None:
    assert not imported("--config", CONFIG, "--state-dir", str(tmp_path), "runs") & {"prefect", "httpx"}


def test_plan_does_not_import_prefect(tmp_path: Path) -> None:
    loaded = imported("--config", CONFIG, "--state-dir", str(tmp_path), "--api-url", "http://127.0.0.1:9/api", "plan")
    assert "httpx" in loaded
    assert "prefect" not in loaded


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["runs", "--json"], ["--json", "runs"]),
        (["runs", "--config", "x", "--job", "a"], ["--config", "x", "runs", "--job", "a"]),
        (["runs", "--config=x"], ["--config=x", "runs"]),
        (["run", "--", "--json"], ["run", "--", "--json"]),
        (["sync", "--api-url"], ["--api-url", "sync"]),
    ],
)
def test_global_options_may_stand_anywhere(given: list[str], expected: list[str]) -> None:
    assert hoist(given) == expected


def test_errors_go_to_stderr_and_data_to_stdout(tmp_path: Path) -> None:
    done = orchctl("--config", str(tmp_path), "--state-dir", str(tmp_path), "check")
    assert (done.returncode, done.stdout) == (ExitCode.CATALOG, "")
    assert "jobs.toml: the file does not exist" in done.stderr
    assert "hint: name its folder with --config" in done.stderr


def test_json_errors_are_one_envelope_on_stdout(tmp_path: Path) -> None:
    done = orchctl("check", "--json", "--config", str(tmp_path), "--state-dir", str(tmp_path))
    envelope = json.loads(done.stdout)
    assert envelope["schema"] == 1
    assert (envelope["command"], envelope["status"], envelope["data"]) == ("check", "error", None)
    assert {error["code"] for error in envelope["errors"]} == {"catalog"}
    assert done.stderr == ""


def test_a_closed_api_is_exit_code_13_and_names_the_way_out(tmp_path: Path) -> None:
    done = orchctl("plan", "--config", CONFIG, "--state-dir", str(tmp_path), "--api-url", "http://127.0.0.1:9/api")
    assert done.returncode == ExitCode.PREFECT
    assert "127.0.0.1:9" in done.stderr
    assert "orchctl host up" in done.stderr


def test_a_misspelt_job_gets_the_nearest_name(tmp_path: Path) -> None:
    done = orchctl("jobs", "live-scor", "--config", CONFIG, "--state-dir", str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert 'did you mean "live-score"?' in done.stderr


@pytest.mark.parametrize("value", ["2025-13-01", "../../etc", "2025-12-19\n", "", "today", "20251219"])
def test_a_bad_date_is_refused_before_anything_is_read(tmp_path: Path, value: str) -> None:
    done = orchctl("runs", "--date", value, "--config", CONFIG, "--state-dir", str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert "--date" in done.stderr
    assert "\n\n" not in done.stderr


def test_secrets_of_the_catalog_are_not_shown(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "schedules.toml").write_text("version = 1\n")
    (config / "jobs.toml").write_text(
        'version = 1\n[jobs.a]\ncommand = ["x", "https://u:hunter2hunter@h/"]\nwork_pool = "p"\ndata_root = "/d"\n'
        'working_directory = "/w"\nenv = { DB_PASSWORD = "s3cr3ts3cr3t", URL = "postgres://u:hunter2hunter@h/db" }\n'
    )
    for words in (("jobs",), ("jobs", "a"), ("jobs", "--json"), ("jobs", "a", "--json")):
        done = orchctl(*words, "--config", str(config), "--state-dir", str(tmp_path))
        assert done.returncode == 0
        assert "hunter2" not in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


def test_output_into_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m orchctl jobs --json --config {CONFIG} --state-dir {tmp_path} | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_every_exit_code_has_a_meaning_and_every_error_a_known_one() -> None:
    assert set(MEANINGS) == set(ExitCode)

    def below(kind: type[OrchctlError]) -> list[type[OrchctlError]]:
        return [kind, *(inner for child in kind.__subclasses__() for inner in below(child))]

    for kind in below(OrchctlError):
        assert kind.exit_code in ExitCode
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code), kind


def test_the_state_directory_that_cannot_be_written_stops_no_reading_command(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    done = orchctl("check", "--config", CONFIG, "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("key", "value", "shown_as"),
    [
        ("job.command", ["curl", "--password", "s3cret", "x"], ["curl", "--password", "***", "x"]),
        ("job.command", ["curl", "--api-token=s3cret"], ["curl", "--api-token=***"]),
        ("job.command", ["curl", "-H", "Authorization: Bearer s3cret"], ["curl", "-H", "Authorization: ***"]),
        ("job.command", ["env", "DB_PASSWORD=s3cret", "run"], ["env", "DB_PASSWORD=***", "run"]),
        ("job.command", ["run", "--date={game_date}"], ["run", "--date={game_date}"]),
        ("parameters", {"api_token": "s3cret", "job": "a"}, {"api_token": "***", "job": "a"}),
        ("job.env", {"URL": "https://u:s3cret@h/"}, {"URL": "https://u:***@h/"}),
    ],
)
def test_secrets_are_masked_wherever_a_plan_may_show_them(key: str, value: object, shown_as: object) -> None:
    from orchctl.cli.views import shown

    assert shown(key, value) == shown_as


def test_a_date_that_no_window_can_hold_is_wrong_usage_also_as_json(tmp_path: Path) -> None:
    done = orchctl("runs", "--json", "--date", "9999-12-31", "--config", CONFIG, "--state-dir", str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert json.loads(done.stdout)["errors"][0]["code"] == "usage"
