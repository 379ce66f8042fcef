"""The commands as they are called: output, exit codes, and the example of the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backup_cases import make_database
from catalogs import catalog
from conftest import ROOT
from support import command_line

ARCHIVE = {
    "path",
    "size_bytes",
    "created_at",
    "hostname",
    "orchctl",
    "prefect",
    "database",
    "counts",
    "files",
    "unpacked_bytes",
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_database(tmp_path / "state" / "prefect" / "prefect.db", runs=3).close()
    return tmp_path / "state"


def orchctl(state: Path, *words: str, check: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    places = ["--state-dir", str(state), "--config", str(state.parent / "config")]
    return command_line(*places, *words, home=state.parent, check=check, **env)


def data(done: subprocess.CompletedProcess[str]) -> Any:
    envelope = json.loads(done.stdout)
    assert set(envelope) == {"schema", "command", "status", "data", "errors"}
    return envelope["data"]


def test_a_backup_and_a_restore_without_a_terminal(state: Path) -> None:
    made = data(orchctl(state, "host", "backup", "--json"))
    assert set(made) == ARCHIVE | {"removed", "left_out"}
    assert made["counts"]["flow_runs"] == 3
    refused = orchctl(state, "host", "restore", made["path"], check=5)
    assert "this needs an answer: replace database, state, catalog" in refused.stderr
    done = data(orchctl(state, "host", "restore", made["path"], "--only", "state,catalog", "--yes", "--json"))
    assert set(done) == ARCHIVE | {"parts", "dry_run", "moved", "ended_runs"}
    looked = data(orchctl(state, "host", "restore", made["path"], "--dry-run", "--json"))
    assert set(looked) == ARCHIVE | {"parts", "dry_run"}
    wrong = orchctl(state, "host", "restore", made["path"], "--only", "databse", check=2)
    assert "names no parts" in wrong.stderr


def test_an_altered_archive_is_refused_by_every_command(state: Path) -> None:
    path = Path(data(orchctl(state, "host", "backup", "--json"))["path"])
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    for words in (
        ["verify"],
        ["verify", str(path)],
        ["restore", str(path), "--yes"],
        ["restore", str(path), "--dry-run"],
    ):
        done = orchctl(state, "host", *words, check=1)
        assert "is torn or was altered" in done.stderr
    record = state / "host" / "backups.json"
    assert json.loads(record.read_text())["broken"]["path"] == str(path)
    record.unlink()
    orchctl(state, "host", "verify", str(path), check=1, ORCHCTL_UPGRADE_TRIES="1")
    assert not record.exists()
    assert not list(state.rglob("*before*"))


def test_a_host_with_no_server_and_one_whose_server_is_elsewhere(state: Path, tmp_path: Path) -> None:
    assert "there is no server of this host's" in orchctl(tmp_path / "none", "host", "backup", check=5).stderr
    assert not (tmp_path / "none" / "backups").exists()
    elsewhere = orchctl(
        state, "host", "backup", check=5, PREFECT_API_URL="https://u:planted-secret@prefect.example/api"
    )
    assert "the server at prefect.example is not one of this host's" in elsewhere.stderr
    assert "planted-secret" not in elsewhere.stderr


def test_a_database_is_not_moved_to_another_kind(state: Path) -> None:
    done = orchctl(state, "host", "database", "move", check=5)
    assert "Prefect has no means to move its database, which is one of sqlite here" in done.stderr


def test_the_example_of_the_docs_is_a_catalog() -> None:
    text = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    jobs, schedules = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = catalog(jobs, schedules)
    for name in ("host-backup", "host-verify"):
        words = found.jobs[name].command
        assert words is not None
        asked = subprocess.run(
            [sys.executable, "-m", "orchctl", *words[1:], "--help"], capture_output=True, text=True, check=True
        )
        assert name.replace("-", " ") in asked.stdout
