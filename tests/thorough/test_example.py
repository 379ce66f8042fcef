"""The example pipeline alone: what its programs make depends on the date and `run_as_of_ts`, and on nothing else."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import time
from pathlib import Path

import polars as pl
import pytest

import example_pipeline
from example_pipeline import AS_OF, DAY, FIRST, black_box, here, published
from orchctl import publish
from orchctl.adapters import toml_files
from orchctl.core import steps

OTHER = "20251220T223000Z-bbbbbb"
TABLES = {
    "bronze/games_v1/2025-12-19/run/games.parquet",
    "live/features_minutes_v1/2025-12-19/run/features.parquet",
    "artifacts/minutes_v1/daily/2025-12-19/run/minutes.parquet",
    "live/features_rates_v1/2025-12-19/run/features.parquet",
    "gold/rates_v1_live/2025-12-19/run/rates.parquet",
    "artifacts/sim_v2/worlds_fpts_v2/game_date=2025-12-19/run/worlds.parquet",
    "artifacts/sim_v2/worlds_fpts_v2/game_date=2025-12-19/run/sim.parquet",
    "artifacts/ownership_v1/2025-12-19/run/ownership.parquet",
    "artifacts/projections/2025-12-19/run/projections.parquet",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, run once as the black box."""
    folder = example_pipeline.set_up(tmp_path_factory.mktemp("example"))
    with pytest.MonkeyPatch.context() as patch:
        example_pipeline.in_process(patch)
        assert here(folder) == 0
    return folder


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the black box call its programs in this process, where that proves as much: it is quicker."""
    example_pipeline.in_process(monkeypatch)


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> Path:
    """The example with its raw data, and nothing made of it."""
    return example_pipeline.set_up(tmp_path)


def test_the_black_box_publishes_every_table_with_rows(made: Path) -> None:
    assert published(made).keys() == TABLES
    for path in (made / "data").glob("[!r]*/**/*.parquet"):
        assert pl.read_parquet(path).height > 0


def test_no_table_is_empty_of_meaning(made: Path) -> None:
    (path,) = (made / "data").glob("artifacts/projections/*/run=*/projections.parquet")
    table = pl.read_parquet(path)
    assert table.height > 200
    assert table["fpts"].max() > 20  # type: ignore[operator]
    assert not any(table.null_count().drop("salary", "ownership").row(0))
    assert 700 < table["ownership"].sum() <= 801


def test_the_day_after_under_another_run_id_gives_equal_bytes(made: Path, fresh: Path) -> None:
    clock = example_pipeline.later_clock(fresh)
    assert 80_000 < example_pipeline.clock_of(clock) - time.time() < 100_000  # the clock does lie
    done = black_box(fresh, run_id=OTHER, env={**clock, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"})
    assert done.returncode == 0, done.stderr
    assert published(fresh) == published(made)


def test_the_same_data_on_another_day_is_the_same_raw_data(made: Path, fresh: Path) -> None:
    raw = [sorted((folder / "data" / "raw").rglob("*.parquet")) for folder in (made, fresh)]
    assert [path.read_bytes() for path in raw[0]] == [path.read_bytes() for path in raw[1]]
    assert len(raw[0]) == 13


@pytest.mark.usefixtures("called")
def test_another_as_of_gives_other_tables(made: Path, fresh: Path) -> None:
    assert here(fresh, as_of="2025-12-19T20:30:00Z") == 0
    others = published(fresh)
    assert {key for key in TABLES if others[key] != published(made)[key]} >= {
        "bronze/games_v1/2025-12-19/run/games.parquet",
        "live/features_minutes_v1/2025-12-19/run/features.parquet",
        "artifacts/projections/2025-12-19/run/projections.parquet",
    }


def test_what_is_newer_is_never_read(made: Path, fresh: Path) -> None:
    assert example_pipeline.poison(fresh, AS_OF) == 4
    done = black_box(fresh)
    assert done.returncode == 0, done.stderr
    assert published(fresh) == published(made)


@pytest.mark.usefixtures("called")
def test_a_poisoned_snapshot_would_be_noticed(fresh: Path) -> None:
    example_pipeline.poison(fresh, AS_OF)
    with pytest.raises(pl.exceptions.ComputeError, match="parquet"):
        here(fresh, as_of="2025-12-19T23:59:00Z")


def test_what_is_newer_is_never_even_opened(fresh: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    done = black_box(fresh, under=[strace, "-f", "-qq", "-e", "trace=open,openat", "-o", str(trace)])
    assert done.returncode == 0, done.stderr
    opened = set(re.findall(r"raw/(\w+)/run_ts=(\w+)/", trace.read_text(errors="replace")))
    assert {table for table, _ in opened} == {"schedule", "rosters", "injuries", "box_scores", "odds", "dk_salaries"}
    assert max(instant for _, instant in opened) == "20251219T213000Z"


@pytest.mark.usefixtures("called")
def test_a_flaky_source_ends_with_75_as_often_as_asked(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROJECTIONS_OUTAGES", "2")
    monkeypatch.setenv("ORCHCTL_RUN_DIR", str(fresh / "run"))
    for _ in range(2):
        assert here(fresh) == 75
        assert "Temporary failure in name resolution" in capsys.readouterr().err
        assert published(fresh) == {}
    assert here(fresh) == 0


@pytest.mark.usefixtures("called")
def test_the_simulation_may_fail(
    made: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROJECTIONS_FAIL", "sim.run")
    assert here(fresh) == 0
    assert "warning: sim.run" in capsys.readouterr().err
    without = published(fresh)
    assert {key for key in TABLES if key not in without} == {key for key in TABLES if "sim_v2" in key}
    assert {key for key in without if without[key] != published(made)[key]} == {
        "artifacts/projections/2025-12-19/run/projections.parquet"
    }


@pytest.mark.usefixtures("called")
def test_a_step_that_is_needed_ends_the_run(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROJECTIONS_FAIL", "rates.score")
    assert here(fresh) == 1
    assert "rates.score: failing, as PROJECTIONS_FAIL asks" in capsys.readouterr().err
    assert len(published(fresh)) == 4
    assert not list((fresh / "data").rglob("_staging/*"))


@pytest.mark.usefixtures("called")
def test_a_broken_release_is_found_by_the_step_after_it_at_the_earliest(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without contracts: the table is published, broken as it is, and what reads it fails."""
    monkeypatch.setenv("PROJECTIONS_BREAK", "rates.features_live")
    assert here(fresh) == 1
    assert "features_rates_v1 missing required columns: ['season_fg2_pct']" in capsys.readouterr().err
    (broken,) = (fresh / "data").glob("live/features_rates_v1/*/run=*/features.parquet")
    table = pl.read_parquet(broken)
    assert table.filter(pl.col("p50") > 48).height == 3


@pytest.mark.usefixtures("called")
def test_a_run_without_odds_and_salaries_goes_on(fresh: Path) -> None:
    for table in ("odds", "dk_salaries"):
        shutil.rmtree(fresh / "data" / "raw" / table)
    assert here(fresh) == 0
    (path,) = (fresh / "data").glob("artifacts/projections/*/run=*/projections.parquet")
    assert pl.read_parquet(path)["ownership"].null_count() > 200


def test_a_past_evening_is_not_what_production_reads(made: Path) -> None:
    folder = made / "data" / "artifacts" / "projections" / DAY
    latest = publish.read(folder, publish.LATEST)
    assert latest is not None
    assert latest.run_id == FIRST
    assert publish.digest(folder / latest.path) == latest.run.digest
    assert publish.read(folder, publish.CURRENT) is None


def test_the_catalog_is_valid_as_it_is_shipped_and_as_it_is_set_up(made: Path) -> None:
    for folder in (example_pipeline.EXAMPLE / "config", made / "config"):
        job = toml_files.load(folder).jobs["live-score"]
        assert job.execution == "steps"
        assert [step.name for step in steps.order(job.steps)] == [step.name for step in job.steps]
        assert len(job.steps) == 9
    assert job.data_root == str(made / "data")


def test_each_step_is_a_program_that_takes_its_arguments(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = toml_files.load(made / "config").jobs["live-score"]
    for step in job.steps:
        assert step.command[:2] == ("bin/python", "-m")
        with pytest.raises(SystemExit):
            importlib.import_module(step.command[2]).main(["--help"])
        told = capsys.readouterr().out
        assert f"Step `{step.name}`" in told
        assert all(word in told for word in step.command if word.startswith("--"))


def test_the_lock_of_a_date_is_its_first_game(made: Path) -> None:
    locks = json.loads((made / "data" / "raw" / "locks.json").read_text())
    (path,) = (made / "data" / "bronze").rglob("games.parquet")
    assert locks == {DAY: pl.read_parquet(path)["tip_ts"].min().strftime("%Y-%m-%dT%H:%M:%SZ")}  # type: ignore[union-attr]
