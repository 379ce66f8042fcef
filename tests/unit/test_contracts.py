"""Broken data, each kind found and named in the words that a person reads; and the same contracts on good data."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from contract_cases import IN_COLUMNS, Broken
from contract_data import AS_OF, SEEN, check, good, messages, write
from contract_table_cases import IN_TABLES
from orchctl.adapters import contract_check
from orchctl.core import contract_words as words
from orchctl.core.contracts import Boundary, Checked, ContractTable

NO_SNAPSHOT = "no snapshot was selected, and the contract names no freshness.column"
BROKEN = [*IN_COLUMNS, *IN_TABLES]
EACH = [(broken, suffix) for broken in BROKEN for suffix in broken.formats]
# What the table lacks on purpose, in these two.
NOT_FOR_GOOD = {"all at once", "a truth that is not allowed", "old, and what comes later does not make it new",
                "a whole number beyond a fraction"}  # fmt: skip


def checked(broken: Broken, frame: pl.DataFrame, suffix: str, folder: Path) -> Checked:
    return check(broken.contract, write(frame, folder / f"table.{suffix}"))


def test_there_are_at_least_forty() -> None:
    assert len(BROKEN) >= 40
    assert len({broken.name for broken in BROKEN}) == len(BROKEN)


@pytest.mark.parametrize(("broken", "suffix"), EACH, ids=str)
def test_what_is_broken_is_found_and_nothing_else(broken: Broken, suffix: str, tmp_path: Path) -> None:
    found = checked(broken, broken.made(good()), suffix, tmp_path)
    assert messages(found) == list(broken.found)
    assert found.rows is not None


@pytest.mark.parametrize(("broken", "suffix"), [each for each in EACH if each[0].name not in NOT_FOR_GOOD], ids=str)
def test_good_data_keeps_the_same_contract(broken: Broken, suffix: str, tmp_path: Path) -> None:
    assert messages(checked(broken, good(), suffix, tmp_path)) == []


# ------------------------------------------------------------------------------------------------ files


TORN = {
    "empty.parquet": b"",
    "half.parquet": None,
    "noise.parquet": b"PAR1" + bytes(range(256)) * 4 + b"PAR1",
    "empty.csv": b"",
    "quote.csv": b'player_id,team\n1,"BOS\n',
    "ragged.csv": b"player_id,team\n1,BOS,2\n",
    "latin.csv": b"player_id,team\n1,\xe9\xff\n",
    "half.jsonl": b'{"player_id": 1}\n{"player_id": 2, "te',
    "list.jsonl": b"[1, 2]\n",
    "table.xlsx": b"PK",
    "nameless": b"",
}


@pytest.mark.parametrize("name", TORN)
def test_a_file_that_cannot_be_read_is_one_finding(name: str, tmp_path: Path) -> None:
    whole = write(good(), tmp_path / "whole.parquet").read_bytes()
    content = TORN[name]
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    found = check({"columns": {"player_id": {}, "team": {}}, "rows": {"min": 1}}, tmp_path / name)
    (finding,) = found.findings
    assert finding.check == "file"
    assert finding.message.startswith("the file cannot be read: ")
    assert "\n" not in finding.message
    assert found.rows is None


def test_damage_inside_a_file_is_one_finding(tmp_path: Path) -> None:
    path = write(pl.DataFrame({"player_id": range(50_000)}), tmp_path / "table.parquet")
    content = bytearray(path.read_bytes())
    content[4:100] = bytes(96)
    path.write_bytes(content)
    (finding,) = check({"columns": {"player_id": {"min": 0}}}, path).findings
    assert finding.check == "file"


def test_a_folder_is_checked_file_by_file(tmp_path: Path) -> None:
    write(good(), tmp_path / "b.parquet")
    write(good().drop("team"), tmp_path / "a.parquet")
    (tmp_path / "deep").mkdir()
    write(good(), tmp_path / "deep" / "c.parquet")
    (tmp_path / "d.parquet").mkdir()
    table = ContractTable.model_validate({"columns": {"team": {}}})
    found = contract_check.check(Boundary("rates", table, tmp_path, "**/*.parquet", AS_OF))
    assert [(each.file, each.holds) for each in found] == [
        ("a.parquet", False),
        ("b.parquet", True),
        ("deep/c.parquet", True),
    ]


def test_no_file_is_a_finding(tmp_path: Path) -> None:
    found = check({"columns": {"team": {}}}, tmp_path, file="*.parquet")
    assert (found.file, found.rows, messages(found)) == ("*.parquet", None, ["no file matches *.parquet"])


def test_a_glob_that_is_none_is_a_finding(tmp_path: Path) -> None:
    (message,) = messages(check({"columns": {"team": {}}}, tmp_path, file="**.parquet"))
    assert message.startswith("no file matches **.parquet: ")


def test_a_file_whose_name_is_a_pattern_is_itself(tmp_path: Path) -> None:
    folder = tmp_path / "game_date=2025-12-18"
    folder.mkdir()
    path = write(good(), folder / "run=[1]*.parquet")
    assert messages(check({"columns": {"game_date": {"dtype": "date"}}}, path)) == []


# ------------------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_columns_whose_names_are_patterns(suffix: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"^p.*$": [1, 99], "*": [1, 2], "p50": [99, 99], "a b": [1, None], "": [1, 2]})
    contract = {"columns": {"^p.*$": {"max": 48}, "*": {"max": 1}, "a b": {}}}
    assert messages(check(contract, write(frame, tmp_path / f"table.{suffix}"))) == [
        "1 of 2 rows has ^p.*$ > 48",
        "1 of 2 rows has * > 1",
        "1 of 2 rows has no value in a b",
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_nan_that_may_be_there_is_neither_large_nor_forbidden_nor_shared(suffix: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"p50": [float("nan"), float("nan"), 1.0, None, None]})
    rule = {"dtype": "float64", "nullable": True, "max": 48, "min": 0, "allowed": [1], "unique": True}
    assert messages(check({"columns": {"p50": rule}}, write(frame, tmp_path / f"table.{suffix}"))) == []


def test_a_row_without_its_key_shares_it_with_none(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, 1, None, None, 2, 2], "b": [1.0, None, 2.0, 2.0, 0.0, -0.0]})
    found = check({"unique": [["a", "b"]]}, write(frame, tmp_path / "table.parquet"))
    assert messages(found) == ["2 rows share (a, b)"]


def test_a_column_of_the_wrong_type_is_compared_where_it_can_be(tmp_path: Path) -> None:
    contract = {"columns": {"games": {"dtype": "int64", "max": 10}, "team": {"dtype": "int64", "max": 10}}}
    assert messages(check(contract, write(good(), tmp_path / "table.parquet"))) == [
        "games is uint8, not int64",
        "1 of 5 rows has games > 10",
        "team is string, not int64",
    ]


def test_rules_about_another_type_are_said(tmp_path: Path) -> None:
    contract = {
        "columns": {
            "team": {"max": 10, "allowed": [1]},
            "p50": {"min": "a", "pattern": "x"},
            "active": {"max": 1},
            "updated_at": {"min": "yesterday"},
        }
    }
    assert messages(check(contract, write(good(), tmp_path / "table.parquet"))) == [
        "team is string, and cannot be compared with 10",
        "team is string, and cannot be compared with the values that are allowed",
        "p50 is float64, and cannot be compared with a",
        "p50 is float64, and cannot be compared with a pattern",
        "active is bool, and cannot be compared with 1",
        "updated_at is datetime, and cannot be compared with yesterday",
    ]


def test_a_pattern_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    contract = {"columns": {"team": {"pattern": "(?=B)BOS"}, "p50": {"max": 1}}}
    assert messages(check(contract, write(good().head(1), tmp_path / "table.parquet"))) == [
        "team cannot be matched with (?=B)BOS: look-around, including look-ahead and look-behind, is not supported",
        "1 of 1 rows has p50 > 1",
    ]


def test_what_comes_at_the_instant_itself_is_known(tmp_path: Path) -> None:
    frame = good().with_columns(updated_at=pl.lit(AS_OF))
    contract = {"freshness": {"within": "0s", "column": "updated_at"}}
    assert messages(check(contract, write(frame, tmp_path / "table.parquet"))) == []


def test_a_text_that_is_no_number_is_not_a_missing_value_too(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("p50\nx\nnan\n1\n")
    assert messages(check({"columns": {"p50": {"dtype": "float64"}}}, tmp_path / "table.csv")) == [
        '1 of 3 rows has a value of p50 that is no float64, such as "x"',
        "1 of 3 rows has no value in p50",
    ]


def test_numbers_are_allowed_as_the_type_of_their_column_holds_them(tmp_path: Path) -> None:
    path = write(good(), tmp_path / "table.parquet")
    assert messages(check({"columns": {"share": {"allowed": [0.1, 0.25, 0.5, 0.75, 1]}}}, path)) == []
    assert messages(check({"columns": {"game_id": {"allowed": [1.0, 2.5]}}}, path)) == [
        '2 of 5 rows have a value of game_id that is not allowed, such as "2"'
    ]


def test_a_key_that_is_said_twice_is_found_once(tmp_path: Path) -> None:
    contract = {"columns": {"game_id": {"unique": True}}, "unique": [["game_id"]]}
    assert messages(check(contract, write(good(), tmp_path / "table.parquet"))) == ["5 rows share game_id"]


def test_what_is_missing_twice_over_is_said_once(tmp_path: Path) -> None:
    contract = {
        "columns": {"team": {}},
        "unique": [["team"], ["team", "p50"]],
        "freshness": {"within": "1h", "column": "team"},
    }
    assert messages(check(contract, write(good().drop("team"), tmp_path / "table.parquet"))) == ["missing column team"]


def test_a_file_of_no_lines_lacks_rows_and_not_columns(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"")
    found = check({"columns": {"team": {}}, "rows": {"min": 1}, "unique": [["team"]]}, tmp_path / "none.jsonl")
    assert (found.rows, messages(found)) == (0, ["0 rows, at least 1"])


def test_an_empty_text_of_a_csv_file_is_no_value(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('a,b\n,\n1,""\n')
    found = check({"columns": {"a": {"dtype": "int64"}, "b": {}}}, tmp_path / "table.csv")
    assert messages(found) == ["1 of 2 rows has no value in a", "1 of 2 rows has no value in b"]


def test_a_long_value_is_cut_and_its_line_breaks_are_written_out(tmp_path: Path) -> None:
    frame = pl.DataFrame({"team": ["a\nb" * 100]})
    (message,) = messages(check({"columns": {"team": {"allowed": ["BOS"]}}}, write(frame, tmp_path / "t.parquet")))
    assert "\n" not in message
    assert message.endswith('…"')
    assert len(message) < 130


# ------------------------------------------------------------------------------------------------ the age of a snapshot


@pytest.mark.parametrize(
    ("snapshot", "found"),
    [
        (AS_OF - timedelta(hours=18), []),
        (AS_OF, []),
        (AS_OF - timedelta(hours=18, microseconds=1), ["the snapshot is 18.1h old, at most 18h"]),
        (
            AS_OF + timedelta(seconds=1),
            ["the snapshot is of 2025-12-19T05:00:01Z, after 2025-12-19T05:00:00Z, the run_as_of_ts"],
        ),
        (
            None,
            [f"the age of the data cannot be told: {NO_SNAPSHOT}"],
        ),
    ],
)
def test_the_age_of_a_snapshot(snapshot: datetime | None, found: list[str], tmp_path: Path) -> None:
    path = write(good(), tmp_path / "table.parquet")
    assert messages(check({"freshness": {"within": "18h"}}, path, snapshot=snapshot)) == found


@pytest.mark.parametrize(
    ("seconds", "within", "said"),
    [
        (1.2, 1, "2s"),
        (119, 1, "119s"),
        (121, 60, "2.1m"),
        (7199, 60, "120.0m"),
        (7201, 7200, "2.1h"),
        (337896, 9, "93.9h"),
    ],
)
def test_an_age_is_rounded_up(seconds: float, within: int, said: str) -> None:
    finding = words.stale("it", None, timedelta(seconds=seconds), within)
    assert finding is not None
    assert f"is {said} old" in finding.message


# ------------------------------------------------------------------------------------------------ as data


def test_what_was_found_reads_back_as_it_was(tmp_path: Path) -> None:
    path = write(good(), tmp_path / "table.parquet")
    found = check({"columns": {"p50": {"max": 1}, "x": {}}, "rows": {"min": 9}}, path)
    data = found.to_json()
    assert Checked.from_json(json.loads(json.dumps(data))) == found
    assert data["status"] == "broken"
    assert data["findings"][1] == {
        "check": "range",
        "column": "p50",
        "message": "4 of 5 rows have p50 > 1",
        "count": 4,
        "rows": 5,
    }
    assert found.message == ("contract broken: rates: missing column x; 4 of 5 rows have p50 > 1; 5 rows, at least 9")


def test_a_boundary_reads_back_as_it_was(tmp_path: Path) -> None:
    table = ContractTable.model_validate(
        {
            "schema": "a.b:C",
            "columns": {"a": {"dtype": "int8", "min": 1, "max": 2.5, "allowed": [True, 1, 1.5, "x"]}},
            "unique": [["a"]],
            "freshness": {"within": "90m"},
        }
    )
    boundary = Boundary("rates", table, tmp_path, "*.csv", AS_OF + timedelta(microseconds=7), SEEN)
    assert Boundary.from_json(json.loads(json.dumps(boundary.to_json()))) == boundary
