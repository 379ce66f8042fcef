"""docs/contracts.md: its examples work as they stand, its tables are whole, and its messages are those there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import ROOT
from contract_cases import IN_COLUMNS
from contract_data import AS_OF, good, write
from contract_table_cases import IN_TABLES
from orchctl.adapters.contract_process import ask
from orchctl.cli.app import app
from orchctl.core.catalog_steps import ContractUse
from orchctl.core.contracts import Boundary, Checked, ColumnTable, ContractTable

TEXT = (ROOT / "docs" / "contracts.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
JOBS = """\
version = 1
[defaults]
data_root = "/srv"
working_directory = "/srv"
work_pool = "local"
[jobs.score]
command = ["score"]
"""


def block(kind: str, holding: str) -> str:
    (found,) = [text for each, text in BLOCKS if each == kind and holding in text]
    return str(found)


def table(heading: str) -> list[list[str]]:
    lines = TEXT.split(f"| {heading} |", 1)[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]


def keys(heading: str) -> set[str]:
    return {key for row in table(heading) for key in re.findall(r"`(\w+)`", row[0])}


def test_each_key_has_its_line() -> None:
    assert keys("key of a contract") == {field.alias or name for name, field in ContractTable.model_fields.items()}
    assert keys("key of a column") == set(ColumnTable.model_fields)


def test_each_message_is_one_that_is_said() -> None:
    said = {message for broken in (*IN_COLUMNS, *IN_TABLES) for message in broken.found} | {"no file matches *.parquet"}
    shown = [message for row in table("rule") for message in re.findall(r"`([^`]+)`", row[1])]
    assert [message for message in shown if message not in said] == ["the file cannot be read: …"]
    assert len(shown) > 12


def test_what_a_step_says_is_read() -> None:
    uses = tomllib.loads(block("toml", "contracts = ["))["contracts"]
    assert [ContractUse.model_validate(use).file for use in uses] == ["*.parquet", "rates/*.parquet"]


def test_what_a_manifest_holds_is_what_is_written() -> None:
    shown = json.loads(block("json", "findings"))
    assert Checked.from_json(shown).to_json() == shown
    assert Checked.from_json(shown).message == block("", "contract broken: rates: missing").strip()


def test_the_session_goes_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "jobs.toml").write_text(JOBS)
    (config / "schedules.toml").write_text("version = 1\n")
    (config / "contracts.toml").write_text(block("toml", "[contracts.rates]"))
    kept = good().with_columns(position=pl.lit("G"))
    broken = kept.with_columns(pl.col("player_id").cast(pl.String), p50=pl.Series([50.0, 49.0, 48.5, 1.0, 2.0]))
    monkeypatch.chdir(tmp_path)
    call, _, shown = block("", "$ orchctl").partition("\n")
    words = call.removeprefix("$ orchctl ").split()
    env = {"ORCHCTL_CONFIG": str(config), "ORCHCTL_STATE_DIR": str(tmp_path / "state")}
    write(broken, tmp_path / "rates.parquet")
    done = CliRunner().invoke(app, words, env=env)
    assert (done.exit_code, done.output) == (1, shown)
    write(kept, tmp_path / "rates.parquet")
    done = CliRunner().invoke(app, words, env=env)
    assert (done.exit_code, done.output) == (0, "contract holds: rates: rates.parquet, 5 rows\n")


def test_the_schema_class_finds_what_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(block("python", "pandera"))
    p50 = [50.0, 49.0, 10.0, 10.0, 10.0]
    for name, p10 in (("broken", [1.0, 1.0, 1.0, 1.0, 11.0]), ("good", [1.0] * 5)):
        values = p50 if name == "broken" else [10.0] * 5
        write(pl.DataFrame({"p10": p10, "p50": values}), tmp_path / f"{name}.parquet")
    contract = tomllib.loads(block("toml", "schema ="))["contracts"]["projections"]
    boundary = Boundary("projections", ContractTable.model_validate(contract), tmp_path, "*.parquet", AS_OF)
    broken, holds = ask([boundary], cwd=str(tmp_path), env={}, timeout_s=60)
    shown = re.findall(r"`(\d of 5 rows [^`]+)`", TEXT.split("said in the same words:")[1].split(". A module")[0])
    assert sorted(finding.message for finding in broken.findings) == sorted(shown)
    assert holds.holds
