"""The number of rows in a Parquet file's footer, against what wrote it; and files that are none."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract_data import good
from orchctl.adapters import host_facts, parquet


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 8191, 8192, 1_000_000])
def test_rows_that_polars_wrote(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": range(rows)}, schema={"a": pl.Int64}).write_parquet(path)
    assert parquet.row_count(path) == rows


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "uncompressed", "statistics": False},
        {"compression": "snappy", "row_group_size": 100},
        {"compression": "zstd", "statistics": "full", "row_group_size": 7},
    ],
)
def test_rows_of_every_kind_of_column(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    frame = pl.concat([good()] * 200).with_columns(
        lists=pl.concat_list("p50", "p50"), inner=pl.struct("team", "p50"), nothing=pl.lit(None)
    )
    frame.write_parquet(path, metadata={"note": "x" * 1000}, **options)
    assert parquet.row_count(path) == 1000


def test_rows_of_many_columns(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({f"column_{number}": [number] * 3 for number in range(1000)}).write_parquet(path)
    assert parquet.row_count(path) == 3


@pytest.mark.parametrize("rows", [0, 1234, 300_000])
def test_rows_that_duckdb_wrote(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (select range a, range::text b, [1, 2] c, {{'x': 1}} d, now() e from range({rows})) "
            f"to '{path}' (format parquet, row_group_size 10000)"
        )
    assert parquet.row_count(path) == rows


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(4) + b"PAR1", b"x" * 100, b"PAR1" + b"\xff" * 40 + b"PAR1"]
)
def test_what_is_no_parquet_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(content)
    assert parquet.row_count(tmp_path / "table.parquet") is None


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    for name in ("nothing.parquet", "pipe.parquet", "."):
        assert parquet.row_count(tmp_path / name) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "table.parquet"
    good().write_parquet(path)
    return path.read_bytes()


def test_a_file_that_was_cut_anywhere_has_no_rows(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert parquet.row_count(path) is None
    path.write_bytes(whole)
    assert parquet.row_count(path) == 5


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_for_a_footer_end_in_a_number_or_none(footer: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        rows = parquet.row_count(path)
        assert rows is None or 0 <= rows < 2**63


def test_a_deep_nest_of_structures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    footer = b"\x1c" * 100_000
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert parquet.row_count(path) is None


def test_rows_of_several_files(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        good().write_parquet(tmp_path / name)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    paths = sorted(map(str, tmp_path.iterdir()))
    assert parquet.rows_of(paths) == 10
    assert parquet.rows_of([str(tmp_path / "_SUCCESS")]) is None
    (tmp_path / "b.parquet").write_bytes(b"torn")
    assert parquet.rows_of(paths) is None


def test_rows_stand_in_the_outputs_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "gold").mkdir()
    good().write_parquet(tmp_path / "gold" / "a.parquet")
    (tmp_path / "gold" / "notes.txt").write_text("x")
    declared = ("{data_root}/gold", "{data_root}/gold/*.txt")
    found = host_facts.find_outputs(declared, {"data_root": str(tmp_path)}, "", unreadable=lambda _: None)
    assert [(each["file_count"], each["row_count"]) for each in found] == [(2, 5), (1, None)]
