"""`orchctl host prune` as it is called: output, exit codes, and the examples of the docs."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalogs import catalog
from conftest import ROOT
from orchctl.adapters.claims import Claims
from orchctl.core.catalog_retention import RetentionTable
from orchctl.core.names import run_id
from pruning import Host, files_below
from support import command_line

DOCS = (ROOT / "docs" / "retention.md").read_text(encoding="utf-8")


def ago(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    for at in map(ago, (900, 400, 1)):
        made.ran(at)
        Claims(made.state).take("job", at, run_id=run_id(at, "x"), flow_run_id="x", at=at)
    return made


def orchctl(host: Host, *words: str, policy: str = "", check: int = 0) -> subprocess.CompletedProcess[str]:
    config = host.root / "config"
    config.mkdir(exist_ok=True)
    jobs = f'version = 1\n[retention]\n{policy}\n[jobs.job]\ncommand = ["true"]\ndata_root = "{host.data}"\n'
    (config / "jobs.toml").write_text(f'{jobs}working_directory = "/"\nwork_pool = "pool"\n')
    (config / "schedules.toml").write_text("version = 1\n")
    places = ["--state-dir", str(host.state), "--config", str(config), "--api-url", "http://127.0.0.1:9/api"]
    return command_line(*places, "host", "prune", *words, home=host.root, check=check)


def data(done: subprocess.CompletedProcess[str]) -> Any:
    envelope = json.loads(done.stdout)
    assert set(envelope) == {"schema", "command", "status", "data", "errors"}
    assert set(envelope["data"]) == {"dry_run", "cutoffs", "rows", "kept"}
    return envelope["data"]


def test_without_a_policy_it_says_what_could_be_set(host: Host) -> None:
    done = orchctl(host)
    assert done.stdout == "nothing is removed: no policy says when something is too old\n"
    assert "[retention]" in done.stderr
    assert data(orchctl(host, "--json"))["rows"] == []


def test_a_dry_run_changes_nothing_and_exits_with_3(host: Host) -> None:
    before = list(files_below(host.data))
    policy = 'compress_logs = "7d"\nmanifests = "800d"\nstate = "390d"'
    done = orchctl(host, "--dry-run", policy=policy, check=3)
    assert list(files_below(host.data)) == before
    lines = [re.sub(r"[0-9.]+ kB|of before \S+", "…", line) for line in done.stdout.splitlines()]
    assert lines == [
        "1 log to compress (…), …",
        "  job: 1 (…)",
        "1 folder of runs to remove (…), …",
        "  job: 1 (…)",
        "2 files of claims and journals to remove (…), …",
        "  job: 2 (…)",
    ]
    rows = data(orchctl(host, "--dry-run", "--json", policy=policy, check=3))["rows"]
    assert [(row["kind"], row["job"], row["count"]) for row in rows] == [
        ("compress_logs", "job", 1),
        ("manifests", "job", 1),
        ("state", "job", 2),
    ]


def test_without_a_terminal_it_needs_yes_and_then_does_it(host: Host) -> None:
    done = orchctl(host, policy='manifests = "800d"', check=5)
    assert "1 folder of runs to remove" in done.stderr
    assert "hint: --yes gives it" in done.stderr
    assert len(host.runs()) == 3
    done = orchctl(host, "--yes", policy='manifests = "800d"')
    assert done.stdout.startswith("1 folder of runs removed (")
    assert len(host.runs()) == 2
    # Nothing is asked where nothing would go.
    assert orchctl(host, policy='manifests = "800d"').stdout.startswith("0 folders of runs removed, of before ")
    assert orchctl(host, "--dry-run", policy='manifests = "800d"').stdout.startswith("0 folders")


def test_only_and_older_than(host: Host) -> None:
    orchctl(host, "--only", "manifests,logs", "--older-than", "300d", "--yes")
    assert len(host.runs()) == 1
    for words, said in [
        (("--only", "manifest"), 'did you mean "manifests"'),
        (("--older-than", "12h"), "less than a day"),
        (("--older-than", "soon"), "not a duration"),
    ]:
        assert said in orchctl(host, *words, check=2).stderr


def test_a_server_that_is_away_is_said_and_the_rest_is_done(host: Host) -> None:
    done = orchctl(host, "--yes", "--json", policy='manifests = "800d"\nhistory = "90d"', check=4)
    (error,) = json.loads(done.stdout)["errors"]
    assert (error["code"], error["kind"], error["job"]) == ("prefect-unreachable", "history", None)
    assert len(host.runs()) == 2
    assert "cannot reach the Prefect API" in orchctl(host, "--older-than", "90d", "--yes", check=13).stderr


def test_two_at_once_exclude_each_other(host: Host) -> None:
    from orchctl.adapters import host_lock

    with host_lock.held(host.state, "host prune", lock="host-prune"):
        done = orchctl(host, "--yes", policy='manifests = "800d"', check=11)
    assert "orchctl host prune" in done.stderr


def test_the_examples_of_the_docs_are_a_catalog() -> None:
    policy, jobs, schedules = re.findall(r"^```toml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    made = catalog(jobs.replace("[defaults]", f"{policy}\n[defaults]"), schedules)
    assert None not in made.retention.model_dump().values()
    assert made.jobs["host-prune"].command[-3:] == ("host", "prune", "--yes")
    for key in RetentionTable.model_fields:
        assert f"| `{key}` |" in DOCS
