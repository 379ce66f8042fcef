"""Parquet in and out, so that the same rows always give the same bytes."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def read(place: Path, name: str) -> pl.DataFrame:
    """Return the table `name` of a folder; `place` may be the file itself. Raises FileNotFoundError."""
    path = place / f"{name}.parquet" if place.is_dir() else place
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {name} at {place}")
    return pl.read_parquet(path)


def write(frame: pl.DataFrame, folder: Path, name: str) -> None:
    """Write a table, sorted by its first columns, and say how many rows it has.

    Nothing of the run (its id, the clock, a path) goes into the file, and everything that a newer default could change
    is fixed here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ordered = frame.sort(frame.columns[:2])
    ordered.write_parquet(
        folder / f"{name}.parquet",
        compression="zstd",
        compression_level=3,
        statistics=True,
        row_group_size=65_536,
    )
    print(f"{name}: {ordered.height} rows", flush=True)
