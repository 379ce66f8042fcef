"""The queries of docs/queries.md, asked of what real runs have left."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import tomli_w

from example_pipeline import AS_OF, DAY, Runner

DOC = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
NEXT, NEXT_AS_OF = "2025-12-20", "2025-12-20T22:30:00Z"
STANDS_FOR = "/srv/projections-data"
Ask = Callable[[str], list[dict[str, Any]]]

FLAKY = """\
if ! test -e "$ORCHCTL_RUN_DIR/tried"; then
  touch "$ORCHCTL_RUN_DIR/tried"
  echo "Temporary failure in name resolution" >&2
  exit 75
fi
cp "$1" "$2/games.parquet"
"""


def _snapshot(of: str) -> str:
    return "{data_root}/raw/" + of + "/run_ts={snapshot_ts}/" + of + ".parquet"


STEPS: list[dict[str, Any]] = [
    {
        "name": "ingest.scrape_all",
        "command": ["sh", "-ec", FLAKY, "sh", "{inputs.schedule}", "{staging}"],
        "inputs": [{"name": "schedule", "path": _snapshot("schedule")}],
        "retries": 1,
        "retry_delay": "1s",
        "publish": {"to": "{data_root}/games/{game_date}/run={run_id}"},
    },
    {
        "name": "rates.features_live",
        "command": ["sh", "-ec", 'cp raw/"$ORCHCTL_GAME_DATE".parquet "$1"', "sh", "{staging}"],
        "inputs": [
            {"name": "games", "step": "ingest.scrape_all"},
            {"name": "odds", "path": _snapshot("odds"), "missing": "warn"},
        ],
        "contracts": [{"contract": "rates.features_live"}],
        "publish": {"to": "{data_root}/rates/{game_date}/run={run_id}"},
    },
    {"name": "sim.run", "command": ["false"], "after": ["rates.features_live"], "optional": True},
    {
        "name": "finalize.unified",
        "command": ["sh", "-ec", 'cp "$1"/* "$2"', "sh", "{inputs.rates}", "{staging}"],
        "inputs": [{"name": "rates", "step": "rates.features_live"}],
        "after": ["sim.run"],
        "publish": {
            "to": "{data_root}/final/{game_date}/run={run_id}",
            "policy": "window",
            "until": "{game_date}T23:59:00Z",
        },
    },
]


def _write(root: Path) -> None:
    """Write a small catalog and its data: what it makes of the second date breaks the contract."""
    config, raw = root / "config", root / "data" / "raw"
    config.mkdir()
    places = {"data_root": f"{root}/data", "working_directory": f"{root}/data", "work_pool": "p"}
    job = {"command": ["true"], "execution": "steps", "steps": STEPS}
    (config / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "defaults": places, "jobs": {"live-score": job}}))
    (config / "schedules.toml").write_text('version = 1\ntimezone = "America/New_York"\n')
    columns = {"p50": {"dtype": "float64", "max": 48}, "season_fg2_pct": {"dtype": "float64"}}
    contracts = {"rates.features_live": {"columns": columns}}
    (config / "contracts.toml").write_text(tomli_w.dumps({"version": 1, "contracts": contracts}))
    for table, instant in (
        ("schedule", "20251219T063000Z"),
        ("schedule", "20251219T233000Z"),
        ("odds", "20251220T000000Z"),
    ):
        folder = raw / table / f"run_ts={instant}"
        folder.mkdir(parents=True)
        pl.DataFrame({"game": [1, 2]}).write_parquet(folder / f"{table}.parquet")
    pl.DataFrame({"p50": [30.0, 20.0], "season_fg2_pct": [0.5, 0.6]}).write_parquet(raw / f"{DAY}.parquet")
    pl.DataFrame({"p50": [60.0, 20.0]}).write_parquet(raw / f"{NEXT}.parquet")


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    """Return each heading's SQL."""
    parts = re.split(r"(?m)^## (.+)$", DOC.read_text())
    titled = zip(parts[1::2], parts[2::2], strict=True)
    return {title: "\n".join(re.findall(r"(?s)```sql\n(.*?)```", body)) for title, body in titled}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, queries: dict[str, str]) -> Ask:
    root = tmp_path_factory.mktemp("queries")
    _write(root)
    runner = Runner(root)
    assert runner.run("good").status == "success", runner.log
    assert runner.run("again", backfill="b").status == "success", runner.log
    assert runner.run("broken", day=NEXT, as_of=NEXT_AS_OF, backfill="b").status == "failed", runner.log
    assert runner.run("command", as_of="2025-12-19T22:40:00Z", execution="command").status == "success"
    connection = duckdb.connect()
    views = queries["Views to begin with"]
    connection.execute(views.replace(STANDS_FOR, f"{root}/data"))

    def rows(title: str) -> list[dict[str, Any]]:
        cursor = connection.execute(queries[title].replace(STANDS_FOR, f"{root}/data"))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return rows


def test_every_query_of_the_page_is_asked_here(queries: dict[str, str]) -> None:
    source = Path(__file__).read_text()
    asked = {title for title, sql in queries.items() if sql and f'ask("{title}")' in source}
    assert asked | {"Views to begin with"} == {title for title, sql in queries.items() if sql}


def test_how_often_each_job_succeeds(ask: Ask) -> None:
    steps, command = sorted(ask("How often does each job succeed?"), key=lambda row: row["percent"])
    assert (steps["execution"], steps["runs"], steps["succeeded"], steps["percent"]) == ("steps", 3, 2, 66.7)
    assert (command["execution"], command["runs"], command["percent"]) == ("command", 1, 100.0)


def test_which_steps_take_longest(ask: Ask) -> None:
    rows = ask("Which steps take longest?")
    assert {row["step"]: row["runs"] for row in rows} == {
        "ingest.scrape_all": 3,
        "rates.features_live": 2,
        "finalize.unified": 2,
    }
    assert sum(row["percent_of_job"] for row in rows) == pytest.approx(100, abs=0.3)


def test_what_failed_and_why(ask: Ask) -> None:
    rows = {row["step"]: row for row in ask("What failed, and why?")}
    assert rows["sim.run"]["times"] == 2
    assert rows["sim.run"]["cause"] == "exit code N"
    broken = rows["rates.features_live"]
    assert broken["class"] == "contract"
    assert broken["cause"].startswith("contract broken: rates.features_live:")


def test_what_retries_cost(ask: Ask) -> None:
    (row,) = ask("What do retries cost?")
    assert (row["step"], row["error_class"], row["retries"], row["waited_s"]) == (
        "ingest.scrape_all",
        "network",
        3,
        3.0,
    )


def test_which_inputs_were_missing(ask: Ask) -> None:
    rows = ask("Which inputs were missing?")
    assert [(str(row["game_date"]), row["step"], row["input"], row["status"]) for row in rows] == [
        (DAY, "rates.features_live", "odds", "success")
    ] * 2


def test_how_old_was_what_was_read(ask: Ask) -> None:
    rows = {row["input"]: row for row in ask("How old was what was read?")}
    assert (rows["schedule"]["runs"], rows["schedule"]["median_h"], rows["schedule"]["oldest_h"]) == (3, 16.0, 23.0)
    assert rows["odds"]["oldest_h"] == 22.5


def test_nothing_newer_was_read(ask: Ask) -> None:
    assert ask("Was anything read that is newer than the run may know?") == []


def test_what_fed_a_projection(ask: Ask) -> None:
    (row,) = ask("What fed this projection?")
    assert (row["input"], row["read_by"], row["rows"], row["depth"]) == ("schedule", "ingest.scrape_all", 2, 2)
    assert row["path"].endswith("/raw/schedule/run_ts=20251219T063000Z/schedule.parquet")


def test_which_contracts_break(ask: Ask) -> None:
    rows = ask("Which contracts break?")
    assert {(row["contract"], row["rule"], row["column_name"]) for row in rows} == {
        ("rates.features_live", "missing", "season_fg2_pct"),
        ("rates.features_live", "range", "p50"),
    }
    assert any(row["last_message"].startswith("1 of 2 rows ha") for row in rows)


def test_what_production_read(ask: Ask) -> None:
    rows = [row for row in ask("What did production read, and since when?") if row["asset"] == "rates.features_live"]
    assert len(rows) == 2
    assert rows[0]["until"] == rows[1]["since"]
    assert rows[1]["until"] is None
    assert rows[1]["before"] == rows[0]["run_id"]


def test_what_was_not_published(ask: Ask) -> None:
    rows = ask("What was scored and not published?")
    assert {row["step"] for row in rows} == {"finalize.unified"}
    assert all(row["why"].startswith("not published: after") for row in rows)


def test_the_same_inputs_gave_the_same_files(ask: Ask) -> None:
    assert ask("Did the same inputs give the same files?") == []


def test_how_each_backfill_went(ask: Ask) -> None:
    (row,) = ask("How did each backfill go?")
    assert (row["backfill"], row["dates"], row["succeeded"]) == ("b", 2, 1)
    assert (str(row["first_date"]), str(row["last_date"])) == (DAY, NEXT)


def test_a_run_as_it_happened(ask: Ask) -> None:
    rows = ask("A run as it happened")
    assert [row["event"] for row in rows[:4]] == ["run_started", "step_started", "step_finished", "step_retry"]
    assert rows[-1]["event"] == "run_finished"
    assert AS_OF < NEXT_AS_OF  # the newest run is that of the second date
    assert {row["what"] for row in rows} >= {"failed", "broken"}
