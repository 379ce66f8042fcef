"""What `check` and `jobs` show of a catalog with steps: a drawing that fits, and JSON that holds every edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalogs import CONFIG, CONTRACTS, JOBS, STEPS, catalog, changed
from orchctl.adapters import toml_files
from orchctl.cli import catalog_views, render
from orchctl.core.catalog import Catalog
from orchctl.wiring import Settings

DRAWING = """\
4 steps, at most 2 at a time:

● rates.scrape
│   timeout 1h, 2 retries after 30s, 1m and up to 50% more, limit api…
│   makes     {data_root}/raw/{game_date}/run={run_id}/*.json
● rates.features
│   timeout 5m
│   reads     roster: …ot}/roster/run_ts={snapshot_ts} (missing: warn)
│   reads     raw: {data_root}/raw/{game_date}/run={run_id}
│   contract  roster on input roster
│   contract  features on what it makes
│   publishes …es/{group}/{game_date}/run={run_id} (window until lock)
● rates.score
│   timeout 1h, 1 retry after 1m
│   reads     features: what rates.features publishes
│   contract  features on input features
│   publishes …a_root}/rates/{group}/{game_date}/run={run_id} (always)
○ rates.sim
    optional  its failure only warns, timeout 1h
"""


def settings(*, as_json: bool = False) -> Settings:
    return Settings(Path("/c"), Path("/s"), None, as_json=as_json, color=False)


@pytest.fixture
def made() -> Catalog:
    return catalog(STEPS, contracts=CONTRACTS)


def shown(capsys: pytest.CaptureFixture[str], made: Catalog, job: str) -> list[str]:
    catalog_views.job(made, made.jobs[job], settings())
    return capsys.readouterr().out.splitlines()


def data(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)["data"]


def test_the_steps_of_a_job_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, made: Catalog
) -> None:
    monkeypatch.setattr(render, "width", lambda: 70)
    lines = shown(capsys, made, "rates")
    assert lines[-len(DRAWING.splitlines()) :] == DRAWING.splitlines()


def test_what_the_drawing_says_no_other_line_says(capsys: pytest.CaptureFixture[str], made: Catalog) -> None:
    keys = [line.split()[0] for line in shown(capsys, made, "rates")[:30] if line]
    assert "steps" not in keys
    assert {"execution", "partition", "as_of", "parallel_steps"} <= set(keys)


def test_the_place_of_an_instant_in_a_file_is_no_secret(capsys: pytest.CaptureFixture[str], made: Catalog) -> None:
    assert any('"key": "{game_date}.{group}"' in line for line in shown(capsys, made, "rates"))


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_the_shipped_drawing_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(render, "width", lambda: columns)
    lines = shown(capsys, toml_files.load(CONFIG), "live-score")
    drawing = lines[next(number for number, line in enumerate(lines) if line.startswith("●")) :]
    assert len(drawing) > 30
    assert max(len(line) for line in drawing) <= columns
    assert "├─╮" in drawing


def test_off_a_terminal_nothing_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "width", lambda: None)
    lines = shown(capsys, toml_files.load(CONFIG), "live-score")
    assert not any("…" in line for line in lines)
    assert any(
        line.endswith("{data_root}/artifacts/projections/{game_date}/run={run_id}/projections.parquet")
        for line in lines
    )


def test_steps_that_are_not_in_use_say_how_they_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(shown(capsys, toml_files.load(CONFIG), "live-score"))
    assert "9 steps, at most 4 at a time; not in use: a run is the command" in text
    assert "orchctl run live-score --execution steps" in text


def test_a_job_without_steps_has_no_drawing(capsys: pytest.CaptureFixture[str], made: Catalog) -> None:
    assert shown(capsys, made, "plain")[-1].startswith("backfill")


def test_as_json_each_step_says_what_it_needs_and_what_needs_it(
    capsys: pytest.CaptureFixture[str], made: Catalog
) -> None:
    catalog_views.job(made, made.jobs["rates"], settings(as_json=True))
    found = data(capsys)
    assert [(each["step"], each["needs"], each["before"]) for each in found["dag"]] == [
        ("rates.scrape", [], ["rates.features"]),
        ("rates.features", ["rates.scrape"], ["rates.score"]),
        ("rates.score", ["rates.features"], ["rates.sim"]),
        ("rates.sim", ["rates.score"], []),
    ]
    assert found["dag"][1] | {"needs": 0, "before": 0} == {
        "step": "rates.features",
        "needs": 0,
        "before": 0,
        "optional": False,
        "retries": 0,
        "timeout": "5m",
        "publishes": "{data_root}/features/{group}/{game_date}/run={run_id}",
        "contracts": ["roster", "features"],
    }
    assert found["job"]["steps"][1]["publish"]["from"] == "{season}"


def test_secrets_in_steps_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    text = changed(
        STEPS, 'command = ["sim"]', 'command = ["sim", "--api-token", "s3cret"]\nenv = { DB_PASSWORD = "s3cret" }'
    )
    made = catalog(text, contracts=CONTRACTS)
    catalog_views.job(made, made.jobs["rates"], settings(as_json=True))
    assert "s3cret" not in capsys.readouterr().out


def test_the_list_of_jobs_says_how_each_runs(capsys: pytest.CaptureFixture[str], made: Catalog) -> None:
    catalog_views.jobs(made, settings())
    lines = capsys.readouterr().out.splitlines()
    assert "EXECUTION" in lines[0]
    assert "steps (4)" in next(line for line in lines if line.startswith("rates"))
    catalog_views.jobs(toml_files.load(CONFIG), settings())
    assert "command (9 steps)" in capsys.readouterr().out


def test_check_counts_steps_and_contracts_where_there_are_any(
    capsys: pytest.CaptureFixture[str], made: Catalog
) -> None:
    catalog_views.checked(made, settings())
    assert capsys.readouterr().out == (
        "/c: 2 jobs (0 with legacy triggers), 4 steps, 4 schedules, 3 contracts, no problems\n"
    )
    catalog_views.checked(catalog(JOBS), settings())
    assert capsys.readouterr().out == "/c: 2 jobs (1 with legacy triggers), 4 schedules, no problems\n"
    catalog_views.checked(made, settings(as_json=True))
    assert {key: data_of for key, data_of in data(capsys).items() if key in {"steps", "contracts", "limits"}} == {
        "steps": 4,
        "contracts": 3,
        "limits": 1,
    }
