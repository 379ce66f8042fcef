"""A small table that keeps every contract of the tests, and what checks files in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors

from orchctl.adapters import contract_check
from orchctl.core.contracts import Boundary, Checked, ContractTable

AS_OF = datetime(2025, 12, 19, 5, tzinfo=UTC)
SEEN = datetime(2025, 12, 19, 1, tzinfo=UTC)


def good() -> pl.DataFrame:
    """Return the table: five rows."""
    return pl.DataFrame(
        {
            "player_id": pl.Series([1, 2, 3, 4, 5], dtype=pl.Int64),
            "game_id": pl.Series([1, 1, 1, 2, 2], dtype=pl.Int32),
            "team": ["BOS", "BOS", "NYK", "NYK", "LAL"],
            "position": pl.Series(["G", "F", "G", "C", "F"], dtype=pl.Categorical),
            "p50": [10.5, 48.0, 0.0, 20.25, 3.5],
            "share": pl.Series([0.1, 0.25, 0.5, 0.75, 1.0], dtype=pl.Float32),
            "games": pl.Series([1, 2, 3, 4, 82], dtype=pl.UInt8),
            "salary": pl.Series(["1.50", "2.00", "3.25", "4.00", "5.00"]).cast(pl.Decimal(10, 2)),
            "active": [True, True, False, True, True],
            "game_date": [date(2025, 12, 18)] * 5,
            "updated_at": [SEEN - timedelta(hours=hours) for hours in range(5)],
            "local_at": [SEEN.replace(tzinfo=None)] * 5,
            "rest": [timedelta(hours=hours) for hours in (24, 48, 30, 25, 26)],
        }
    )


def write(frame: pl.DataFrame, path: Path) -> Path:
    """Write a table in the format that the name says."""
    writers: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
        ".parquet": lambda table, to: table.write_parquet(to),
        ".csv": lambda table, to: table.drop("rest", strict=False).write_csv(to, datetime_format="%Y-%m-%dT%H:%M:%SZ"),
        ".jsonl": lambda table, to: _texts(table).write_ndjson(to),
    }
    writers[path.suffix](frame, path)
    return path


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table as JSON can hold it."""
    return frame.drop("rest", strict=False).with_columns(
        selectors.temporal().dt.to_string("iso:strict"), selectors.decimal().cast(pl.Float64)
    )


def check(
    contract: Mapping[str, Any],
    path: Path,
    *,
    file: str = "*",
    as_of: datetime = AS_OF,
    snapshot: datetime | None = None,
) -> Checked:
    """Check one file and return what came of it."""
    table = ContractTable.model_validate(dict(contract))
    (found,) = contract_check.check(Boundary("rates", table, path, file, as_of, snapshot))
    return found


def messages(found: Checked) -> list[str]:
    """Return what was found, in words."""
    return [finding.message for finding in found.findings]
