"""Data that breaks a contract in its columns: a table of what is done to it, and of all that is then to be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from contract_data import AS_OF, SEEN, good

ALL = ("parquet", "csv", "jsonl")
TYPED, LOOSE, ONLY_PARQUET, TEXT = ("parquet", "jsonl"), ("csv", "jsonl"), ("parquet",), ("csv",)
Change = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Broken:
    """A contract, what is done to the good table so that it is broken, and all that is then to be found.

    `made`: the table as it is in the file. `formats`: those in which exactly this is found.
    """

    name: str
    contract: Mapping[str, Any]
    made: Change
    found: tuple[str, ...]
    formats: tuple[str, ...] = ALL

    def __str__(self) -> str:
        return self.name


def columns(**rules: Mapping[str, Any]) -> dict[str, Any]:
    return {"columns": {name: {"nullable": True, **rule} for name, rule in rules.items()}}


def put(column: str, *values: Any) -> Change:
    """Put values into the first rows of a column."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        old = frame[column]
        new = pl.Series(column, [*values, *old[len(values) :]], dtype=old.dtype)
        return frame.with_columns(new)

    return change


def cast(column: str, dtype: Any) -> Change:
    return lambda frame: frame.with_columns(pl.col(column).cast(dtype))


def replace(column: str, *values: Any, dtype: Any = None) -> Change:
    return lambda frame: frame.with_columns(pl.Series(column, values, dtype=dtype))


def many(*changes: Change) -> Change:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        for each in changes:
            frame = each(frame)
        return frame

    return change


IN_COLUMNS = [
    Broken(
        "a column is missing",
        columns(season_fg2_pct={"required": False}, team={}),
        lambda frame: frame.drop("team"),
        ("missing column team",),
    ),
    Broken(
        "two columns are missing",
        columns(team={}, p50={"min": 0}, player_id={}),
        lambda frame: frame.drop("p50", "team"),
        ("missing column team", "missing column p50"),
    ),
    Broken(
        "the columns are swapped in case",
        columns(team={}),
        lambda frame: frame.rename({"team": "Team"}),
        ("missing column team",),
    ),
    Broken(
        "extra columns where there may be none",
        {"columns": {name: {"required": name != "rest"} for name in good().columns}, "strict": True},
        lambda frame: frame.with_columns(x=pl.lit(1), y=pl.lit(2)),
        ("extra column x", "extra column y"),
    ),
    Broken(
        "text for a number",
        columns(player_id={"dtype": "int64"}),
        cast("player_id", pl.String),
        ("player_id is string, not int64",),
        TYPED,
    ),
    Broken(
        "text for a number, of which one is none",
        columns(player_id={"dtype": "int64"}),
        replace("player_id", "1", "2", "three", "4", "5"),
        ('1 of 5 rows has a value of player_id that is no int64, such as "three"',),
        TEXT,
    ),
    Broken(
        "a smaller whole number",
        columns(player_id={"dtype": "int64"}),
        cast("player_id", pl.Int32),
        ("player_id is int32, not int64",),
        ONLY_PARQUET,
    ),
    Broken(
        "a number too large for its type",
        columns(games={"dtype": "uint8"}),
        many(cast("games", pl.Int64), put("games", 300, -1)),
        ('2 of 5 rows have a value of games that is no uint8, such as "-1"',),
        LOOSE,
    ),
    Broken(
        "a fraction for a whole number",
        columns(player_id={"dtype": "integer"}),
        cast("player_id", pl.Float64),
        ("player_id is float64, not integer",),
        TYPED,
    ),
    Broken(
        "a whole number for a fraction",
        columns(p50={"dtype": "float"}),
        cast("p50", pl.Int64),
        ("p50 is int64, not float",),
        ONLY_PARQUET,
    ),
    Broken(
        "no number at all",
        columns(p50={"dtype": "number"}),
        cast("p50", pl.String),
        ("p50 is string, not number",),
        TYPED,
    ),
    Broken(
        "a number for truth",
        columns(active={"dtype": "bool"}),
        cast("active", pl.Int8),
        ("active is int8, not bool",),
        ONLY_PARQUET,
    ),
    Broken(
        "a number for truth, as text",
        columns(active={"dtype": "bool"}),
        cast("active", pl.Int8),
        ('5 of 5 rows have a value of active that is no bool, such as "0"',),
        TEXT,
    ),
    Broken(
        "text for a date",
        columns(game_date={"dtype": "date"}),
        cast("game_date", pl.String),
        ("game_date is string, not date",),
        ONLY_PARQUET,
    ),
    Broken(
        "a day that does not exist",
        columns(game_date={"dtype": "date"}),
        many(cast("game_date", pl.String), put("game_date", "2025-02-30")),
        ('1 of 5 rows has a value of game_date that is no date, such as "2025-02-30"',),
        LOOSE,
    ),
    Broken(
        "a date for an instant",
        columns(updated_at={"dtype": "datetime"}),
        cast("updated_at", pl.Date),
        ("updated_at is date, not datetime",),
        ONLY_PARQUET,
    ),
    Broken(
        "a date for an instant, as text",
        columns(updated_at={"dtype": "datetime"}),
        cast("updated_at", pl.Date),
        ('5 of 5 rows have a value of updated_at that is no datetime, such as "2025-12-18"',),
        LOOSE,
    ),
    Broken(
        "a column of nothing",
        columns(team={"dtype": "string"}),
        lambda frame: frame.with_columns(team=pl.lit(None)),
        ("team is null, not string",),
        ONLY_PARQUET,
    ),
    Broken(
        "a list for a number",
        columns(p50={"dtype": "float64", "max": 48}),
        lambda frame: frame.with_columns(p50=pl.concat_list("p50", "p50")),
        ("p50 is list, not float64",),
        TYPED,
    ),
    Broken("nulls", {"columns": {"team": {}}}, put("team", None, None), ("2 of 5 rows have no value in team",)),
    Broken(
        "one null", {"columns": {"player_id": {}}}, put("player_id", None), ("1 of 5 rows has no value in player_id",)
    ),
    Broken(
        "NaN counts as no value",
        {"columns": {"p50": {"dtype": "float64"}}},
        put("p50", float("nan"), None),
        ("2 of 5 rows have no value in p50",),
    ),
    Broken(
        "values that come twice",
        columns(player_id={"unique": True}),
        put("player_id", 2, 2, 3, 3),
        ("4 rows share player_id",),
    ),
    Broken("too small", columns(p50={"min": 0}), put("p50", -0.5, -1), ("2 of 5 rows have p50 < 0",)),
    Broken("too large", columns(p50={"max": 48}), put("p50", 48.5, 49, 50), ("3 of 5 rows have p50 > 48",)),
    Broken(
        "too small and too large",
        columns(p50={"min": 0, "max": 48}),
        put("p50", -1, 49),
        ("1 of 5 rows has p50 < 0", "1 of 5 rows has p50 > 48"),
    ),
    Broken(
        "infinite",
        columns(p50={"max": 48, "dtype": "float64"}),
        put("p50", float("inf")),
        ("1 of 5 rows has p50 > 48",),
        ("parquet", "csv"),
    ),
    Broken(
        "a whole number beyond a fraction",
        columns(games={"max": 2.5}),
        put("games", 1, 2, 3),
        ("3 of 5 rows have games > 2.5",),
    ),
    Broken(
        "a small float beyond a bound that it cannot hold",
        columns(share={"min": 0.1, "dtype": "float32"}),
        put("share", 0.0999),
        ("1 of 5 rows has share < 0.1",),
    ),
    Broken(
        "a decimal too large",
        columns(salary={"max": 5}),
        put("salary", Decimal("5.01")),
        ("1 of 5 rows has salary > 5",),
        ALL,
    ),
    Broken("a text after the last", columns(team={"max": "NYK"}), put("team", "WAS"), ("1 of 5 rows has team > NYK",)),
    Broken(
        "a date too early",
        columns(game_date={"dtype": "date", "min": "2025-12-18"}),
        put("game_date", AS_OF.date() - timedelta(days=2)),
        ("1 of 5 rows has game_date < 2025-12-18",),
    ),
    Broken(
        "an instant too late",
        columns(updated_at={"dtype": "datetime", "max": "2025-12-19T02:00:00+01:00"}),
        put("updated_at", SEEN + timedelta(seconds=1)),
        ("1 of 5 rows has updated_at > 2025-12-19T02:00:00+01:00",),
    ),
    Broken(
        "an instant without a zone too late",
        columns(local_at={"dtype": "datetime", "max": "2025-12-19T01:00:00Z"}),
        put("local_at", SEEN.replace(tzinfo=None, minute=1)),
        ("1 of 5 rows has local_at > 2025-12-19T01:00:00Z",),
    ),
    Broken(
        "a duration too short",
        columns(rest={"dtype": "duration", "min": "1d"}),
        put("rest", timedelta(hours=23)),
        ("1 of 5 rows has rest < 1d",),
        ONLY_PARQUET,
    ),
    Broken(
        "a value that is not allowed",
        columns(team={"allowed": ["BOS", "LAL", "NYK"]}),
        put("team", "SEA", "BOS", "KCK"),
        ('2 of 5 rows have a value of team that is not allowed, such as "KCK"',),
    ),
    Broken(
        "a category that is not allowed",
        columns(position={"allowed": ["C", "F", "G"]}),
        many(cast("position", pl.String), put("position", "PG"), cast("position", pl.Categorical)),
        ('1 of 5 rows has a value of position that is not allowed, such as "PG"',),
    ),
    Broken(
        "a number that is not allowed",
        columns(game_id={"allowed": [1, 2.0, 2.5]}),
        put("game_id", 3),
        ('1 of 5 rows has a value of game_id that is not allowed, such as "3"',),
        TYPED,
    ),
    Broken(
        "a fraction that is not allowed",
        columns(p50={"allowed": [10.5, 48, 0, 20.25, 3.5]}),
        put("p50", 1),
        ('1 of 5 rows has a value of p50 that is not allowed, such as "1.0"',),
    ),
    Broken(
        "a truth that is not allowed",
        columns(active={"allowed": [True]}),
        lambda frame: frame,
        ('1 of 5 rows has a value of active that is not allowed, such as "false"',),
    ),
    Broken(
        "a text of another form",
        columns(team={"pattern": "[A-Z]{3}"}),
        put("team", "BOS2", "bos"),
        ('2 of 5 rows have a value of team that does not match [A-Z]{3}, such as "BOS2"',),
    ),
    Broken(
        "a text with a line break at its end",
        columns(team={"pattern": "[A-Z]{3}"}),
        put("team", "BOS\n"),
        ('1 of 5 rows has a value of team that does not match [A-Z]{3}, such as "BOS\\n"',),
    ),
    Broken(
        "one of two alternatives, and more",
        columns(team={"pattern": "BOS|NYK|LAL"}),
        put("team", "BOSNYK"),
        ('1 of 5 rows has a value of team that does not match BOS|NYK|LAL, such as "BOSNYK"',),
    ),
]
