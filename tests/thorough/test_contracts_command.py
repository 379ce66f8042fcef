"""`orchctl contract`: the contracts of the catalog, and trying one on a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from catalogs import SCHEDULES
from contract_data import good, write
from loaded import imported
from orchctl.cli.app import app

JOBS = """\
version = 1

[defaults]
data_root = "{root}"
working_directory = "{root}/pipeline"
work_pool = "local"

[jobs.live-score]
execution = "steps"

[[jobs.live-score.steps]]
name = "rates.score"
command = ["score"]
contracts = [{{ contract = "rates" }}, {{ contract = "shaped" }}]
publish = {{ to = "{{data_root}}/gold/rates/{{game_date}}/run={{run_id}}" }}
"""
CONTRACTS = """\
version = 1

[contracts.rates]
description = "Scored rates"
unique = [["player_id", "game_id"]]
rows = { min = 1, max = 500 }

[contracts.rates.columns]
player_id = { dtype = "int64" }
game_id = {}
p50 = { dtype = "float64", min = 0, max = 48 }

[contracts.shaped]
schema = "shapes:Rates"

[contracts.snapshots]
freshness = { within = "18h" }

[contracts.updates]
freshness = { within = "18h", column = "updated_at" }
"""
SHAPES = """\
import pandera.polars as pa


class Rates(pa.DataFrameModel):
    p50: float = pa.Field(le=40)
"""
MODULES = {"polars", "pandera", "pyarrow", "duckdb"}


class Desk:
    """An operator's folder with a catalog, a pipeline and a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "config").mkdir()
        (root / "pipeline").mkdir()
        (root / "config" / "jobs.toml").write_text(JOBS.format(root=root))
        (root / "config" / "schedules.toml").write_text(SCHEDULES)
        (root / "config" / "contracts.toml").write_text(CONTRACTS)
        (root / "pipeline" / "shapes.py").write_text(SHAPES)
        self.file = str(write(good(), root / "rates.parquet"))

    @property
    def env(self) -> dict[str, str]:
        return {"ORCHCTL_CONFIG": str(self.root / "config"), "ORCHCTL_STATE_DIR": str(self.root / "state")}

    def orchctl(self, *words: str, check: int = 0) -> str:
        done = CliRunner().invoke(app, list(words), env=self.env)
        assert done.exit_code == check, done.output
        return done.output

    def json(self, *words: str, check: int = 0) -> Any:
        return json.loads(self.orchctl("--json", *words, check=check))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_contract_that_holds(desk: Desk) -> None:
    assert desk.orchctl("contract", "check", "rates", desk.file) == ("contract holds: rates: rates.parquet, 5 rows\n")
    assert desk.json("contract", "check", "rates", desk.file) == {
        "schema": 1,
        "command": "contract check",
        "status": "success",
        "data": {"checks": [{"contract": "rates", "file": "rates.parquet", "rows": 5, "status": "ok", "findings": []}]},
        "errors": [],
    }


def test_a_broken_contract_shows_all_findings_and_fails(desk: Desk) -> None:
    path = str(write(good().drop("game_id").with_columns(p50=good()["p50"] + 40), desk.root / "broken.parquet"))
    said = desk.orchctl("contract", "check", "rates", path, check=1)
    assert said.splitlines() == [
        "FILE           COLUMN  RULE    FINDING",
        "broken.parquet game_id missing missing column game_id",
        "broken.parquet p50     range   3 of 5 rows have p50 > 48",
        "contract broken: rates: broken.parquet, 5 rows: 2 findings",
    ]
    told = desk.json("contract", "check", "rates", path, check=1)
    assert told["status"] == "error"
    assert [finding["count"] for finding in told["data"]["checks"][0]["findings"]] == [None, 3]
    assert told["errors"] == [
        {
            "code": "contract",
            "message": "broken.parquet: contract broken: rates: missing column game_id; 3 of 5 rows have p50 > 48",
            "hint": None,
        }
    ]


def test_a_folder_is_checked_file_by_file(desk: Desk) -> None:
    write(good().drop("p50"), desk.root / "a.parquet")
    assert desk.orchctl("contract", "check", "rates", str(desk.root), check=1).splitlines()[1:] == [
        "a.parquet p50    missing missing column p50",
        "contract broken: rates: a.parquet, 5 rows: 1 finding",
        "contract holds: rates: rates.parquet, 5 rows",
    ]


def test_a_schema_is_found_from_the_working_directory_of_the_job(desk: Desk) -> None:
    said = desk.orchctl("contract", "check", "shaped", desk.file, check=1)
    assert "1 of 5 rows has p50 > 40" in said


def test_instants_can_be_given(desk: Desk) -> None:
    as_of = ("--as-of", "2025-12-19T05:00:00Z")
    desk.orchctl("contract", "check", "updates", desk.file, *as_of)
    assert "the newest updated_at is " in desk.orchctl("contract", "check", "updates", desk.file, check=1)
    desk.orchctl("contract", "check", "snapshots", desk.file, *as_of, "--snapshot", "2025-12-18T12:00:00Z")
    # As it is written in the name of a snapshot.
    late = desk.orchctl("contract", "check", "snapshots", desk.file, *as_of, "--snapshot", "20251218T105959Z", check=1)
    assert "the snapshot is 18.1h old, at most 18h" in late
    assert "--as-of: 'now' is not an instant" in desk.orchctl(
        "contract", "check", "rates", desk.file, "--as-of", "now", check=2
    )


def test_what_is_not_there(desk: Desk) -> None:
    said = desk.orchctl("contract", "check", "rate", desk.file, check=2)
    assert 'there is no contract "rate"' in said
    assert 'did you mean "rates"?' in said
    assert "does not exist" in desk.orchctl("contract", "check", "rates", "nothing.parquet", check=2)
    (desk.root / "pipeline" / "shapes.py").unlink()
    (desk.root / "pipeline").rmdir()
    said = desk.orchctl("contract", "check", "shaped", desk.file, check=1)
    assert f"could not be started: there is no directory {desk.root}/pipeline" in said
    desk.orchctl("contract", "check", "rates", desk.file)


def test_the_list_says_what_each_promises_and_who_names_it(desk: Desk) -> None:
    lines = [line.split(None, 1) for line in desk.orchctl("contract", "list").splitlines()]
    assert lines[1][0] == "rates"
    assert (
        lines[1][1]
        .split("  ")[0]
        .startswith("3 columns, key (player_id, game_id), 1 to 500 rows live-score/rates.score")
    )
    assert [name for name, _ in lines[1:]] == ["rates", "shaped", "snapshots", "updates"]
    assert lines[3][1].startswith("at most 18h old")
    told = desk.json("contract", "list")["data"]["contracts"]
    assert [each["used_by"] for each in told] == [["live-score/rates.score"]] * 2 + [[], []]
    assert told[0]["columns"]["p50"]["max"] == 48
    assert told[1]["schema"] == "shapes:Rates"


def test_a_catalog_without_contracts(desk: Desk) -> None:
    (desk.root / "config" / "contracts.toml").unlink()
    text = (desk.root / "config" / "jobs.toml").read_text()
    (desk.root / "config" / "jobs.toml").write_text(text.replace('{ contract = "rates" }, { contract = "shaped" }', ""))
    assert desk.orchctl("contract", "list") == "the catalog has no contracts\n"
    assert "holds none" in desk.orchctl("contract", "check", "rates", desk.file, check=2)


def test_names_are_kept_for_completion(desk: Desk) -> None:
    desk.orchctl("check")
    names = (desk.root / "state" / "completion" / "contracts").read_text().split()
    assert names == ["rates", "shaped", "snapshots", "updates"]


@pytest.mark.parametrize(
    "words", [("--help",), ("check",), ("jobs",), ("runs",), ("contract", "list"), ("contract", "check", "rates", ".")]
)
def test_no_command_loads_what_checks_contracts(words: tuple[str, ...], desk: Desk) -> None:
    """Not even `contract check`, which leaves that to a process of its own."""
    assert not imported(*words, **desk.env) & MODULES


def test_the_process_that_checks_does_load_it() -> None:
    code = (
        "import sys; from orchctl.adapters import contract_check; print('polars' in sys.modules); "
        "contract_check._load(with_pandera=True); print('polars' in sys.modules, 'pandera' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
