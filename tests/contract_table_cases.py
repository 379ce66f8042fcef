"""Data that breaks a contract as a table: keys, numbers of rows, ages, and all at once."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from contract_cases import ONLY_PARQUET, TYPED, Broken, cast, many, put, replace
from contract_data import AS_OF, SEEN

IN_TABLES = [
    Broken(
        "rows that share a key",
        {"unique": [["player_id", "game_id"]]},
        many(put("player_id", 1, 1), put("game_id", 1, 1)),
        ("2 rows share (player_id, game_id)",),
    ),
    Broken(
        "two keys, both shared",
        {"unique": [["player_id"], ["team", "position"]]},
        many(put("player_id", 2), put("team", "BOS", "BOS", "BOS")),
        ("2 rows share player_id", "2 rows share (team, position)"),
    ),
    Broken(
        "a key whose column is missing",
        {"unique": [["player_id", "game_id"]]},
        lambda frame: frame.drop("game_id"),
        ("missing column game_id",),
    ),
    Broken("no rows", {"rows": {"min": 1}}, lambda frame: frame.clear(), ("0 rows, at least 1",)),
    Broken("too few rows", {"rows": {"min": 5}}, lambda frame: frame.head(1), ("1 row, at least 5",)),
    Broken("too many rows", {"rows": {"min": 1, "max": 5}}, lambda frame: frame.vstack(frame), ("10 rows, at most 5",)),
    Broken(
        "old data",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        lambda frame: frame.with_columns(pl.col("updated_at") - pl.duration(hours=89, minutes=51)),
        ("the newest updated_at is 93.9h old, at most 18h",),
    ),
    Broken(
        "old by a second",
        {"freshness": {"within": "4h", "column": "updated_at"}},
        lambda frame: frame.with_columns(pl.col("updated_at") - pl.duration(seconds=1)),
        ("the newest updated_at is 4.1h old, at most 4h",),
    ),
    Broken(
        "old by minutes",
        {"freshness": {"within": "4h", "column": "updated_at"}, "rows": {"max": 9}},
        lambda frame: frame.filter(pl.col("updated_at") < SEEN),
        ("the newest updated_at is 5.0h old, at most 4h",),
    ),
    Broken(
        "old days",
        {"freshness": {"within": "2d", "column": "game_date"}},
        lambda frame: frame.with_columns(pl.col("game_date") - pl.duration(days=3)),
        ("the newest game_date is 101.0h old, at most 2d",),
        ONLY_PARQUET,
    ),
    Broken(
        "an age that nothing tells",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        lambda frame: frame.with_columns(pl.lit(None, dtype=frame.schema["updated_at"]).alias("updated_at")),
        ("the age of the data cannot be told: updated_at holds no instant",),
        ("parquet", "csv"),
    ),
    Broken(
        "an age in numbers",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        cast("updated_at", pl.Int64),
        ("the age of the data cannot be told: updated_at is int64, not an instant",),
        TYPED,
    ),
    Broken(
        "an age in other words",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        replace("updated_at", *["2025-12-19T01:00:00Z"] * 4, "yesterday"),
        ('1 of 5 rows has a value of updated_at that is no datetime, such as "yesterday"',),
    ),
    Broken(
        "instants that the run must not know",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        put("updated_at", AS_OF + timedelta(seconds=1)),
        ("1 of 5 rows has updated_at after 2025-12-19T05:00:00Z, the run_as_of_ts",),
    ),
    Broken(
        "old, and what comes later does not make it new",
        {"freshness": {"within": "1h", "column": "updated_at"}},
        put("updated_at", AS_OF + timedelta(days=1)),
        (
            "the newest updated_at is 5.0h old, at most 1h",
            "1 of 5 rows has updated_at after 2025-12-19T05:00:00Z, the run_as_of_ts",
        ),
    ),
    Broken(
        "its freshness column is missing",
        {"freshness": {"within": "18h", "column": "updated_at"}},
        lambda frame: frame.drop("updated_at"),
        ("missing column updated_at",),
    ),
    Broken(
        "all at once",
        {
            "columns": {"season_fg2_pct": {}, "player_id": {"dtype": "int64"}, "p50": {"max": 48}, "team": {}},
            "rows": {"min": 10},
        },
        many(cast("player_id", pl.String), put("p50", 50, 50, 50), put("team", None)),
        (
            "missing column season_fg2_pct",
            "player_id is string, not int64",
            "3 of 5 rows have p50 > 48",
            "1 of 5 rows has no value in team",
            "5 rows, at least 10",
        ),
        TYPED,
    ),
]
