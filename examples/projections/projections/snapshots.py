"""Which snapshot of a raw table a run may read: the newest at or before its `run_as_of_ts`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

FORM = "%Y%m%dT%H%M%SZ"


def folder(root: Path, table: str, at: datetime) -> Path:
    """Return the folder of the snapshot that was taken `at`."""
    return root / "raw" / table / f"run_ts={at.astimezone(UTC).strftime(FORM)}"


def newest(root: Path, table: str, as_of: datetime) -> Path:
    """Return the newest snapshot at or before `as_of`, by its name alone. Raises FileNotFoundError."""
    limit = folder(root, table, as_of)
    found = [path for path in limit.parent.glob("run_ts=*") if path.name <= limit.name]
    if not found:
        raise FileNotFoundError(f"{table}: no snapshot at or before {as_of:%Y-%m-%dT%H:%M:%SZ} in {limit.parent}")
    return max(found, key=lambda path: path.name) / f"{table}.parquet"
