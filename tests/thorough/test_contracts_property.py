"""Random tables and random contracts: the counts against a naive reading of them row by row, in plain Python."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandera.polars as pa
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from contract_data import check, write

Row = Mapping[str, Any]
Count = tuple[str, str | None, int]
INTS = st.one_of(st.none(), st.integers(-5, 5))
FLOATS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, -2.0, 48.0, math.nan, math.inf, -math.inf]))
TEXTS = st.one_of(st.none(), st.text("ab\nß", max_size=3))
PATTERNS = ["a*", "a|b", "[ab]+", "", r".", r"\w{2}"]
TYPES = {"i": pl.Int64, "f": pl.Float64, "s": pl.String}


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    row = st.fixed_dictionaries({"i": INTS, "f": FLOATS, "s": TEXTS})
    return draw(st.lists(row, max_size=12))


@st.composite
def contracts(draw: st.DrawFn) -> dict[str, Any]:
    flags = {"nullable": st.booleans(), "unique": st.booleans()}
    whole, bound = st.integers(-3, 3), st.sampled_from([-2.0, 0, 1.5, 3, 48.0])
    numbers = {"min": bound, "max": bound}
    texts = st.sampled_from(["", "a", "b", "ab"])
    rules = {
        "i": st.fixed_dictionaries(flags, optional={**numbers, "allowed": st.lists(whole | bound, min_size=1)}),
        "f": st.fixed_dictionaries(flags, optional={**numbers, "allowed": st.lists(bound, min_size=1)}),
        "s": st.fixed_dictionaries(
            flags,
            optional={
                "min": texts.filter(bool),
                "max": texts.filter(bool),
                "allowed": st.lists(texts, min_size=1),
                "pattern": st.sampled_from(PATTERNS).filter(bool),
            },
        ),
    }
    keys = st.lists(st.lists(st.sampled_from("ifs"), min_size=2, max_size=3, unique=True), max_size=2, unique_by=tuple)
    return {
        "columns": draw(st.fixed_dictionaries(rules)),
        "unique": draw(keys),
        "rows": {"min": draw(st.integers(0, 4)), "max": draw(st.integers(4, 12))},
    }


def absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def shared(rows: Sequence[Row], key: Sequence[str]) -> int:
    keys = Counter(tuple(row[name] for name in key) for row in rows if not any(absent(row[name]) for name in key))
    return sum(count for count in keys.values() if count > 1)


def naive(rows: Sequence[Row], contract: Mapping[str, Any]) -> Iterator[Count]:
    """Yield what is broken: the rule, its column, and in how many rows."""
    for name, rule in contract["columns"].items():
        values = [row[name] for row in rows if not absent(row[name])]
        yield "nullable", name, 0 if rule["nullable"] else len(rows) - len(values)
        yield "unique", name, shared(rows, [name]) if rule["unique"] else 0
        yield "range", name, sum(value < rule["min"] for value in values) if "min" in rule else 0
        yield "range", name, sum(value > rule["max"] for value in values) if "max" in rule else 0
        yield "allowed", name, sum(value not in rule["allowed"] for value in values) if "allowed" in rule else 0
        if "pattern" in rule:
            yield "pattern", name, sum(re.fullmatch(rule["pattern"], value) is None for value in values)
    for key in contract["unique"]:
        yield "unique", None, shared(rows, key)


def found(
    rows: Sequence[Row], contract: Mapping[str, Any], folder: Path, suffix: str
) -> tuple[int | None, list[Count]]:
    frame = pl.DataFrame(list(rows), schema=TYPES)
    checked = check(contract, write(frame, folder / f"table.{suffix}"))
    counted = [(each.check, each.column, each.count) for each in checked.findings if each.check != "rows"]
    return checked.rows, [(rule, column, count) for rule, column, count in counted if count is not None]


@settings(max_examples=150, deadline=None)
@given(tables(), contracts())
def test_counts_are_those_of_a_naive_reading(rows: list[Row], contract: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        number, counted = found(rows, contract, Path(folder), "parquet")
    assert number == len(rows)
    assert counted == [each for each in naive(rows, contract) if each[2]]


@settings(max_examples=60, deadline=None)
@given(tables(), contracts())
def test_a_csv_file_is_read_as_the_table_it_was(rows: list[Row], contract: dict[str, Any]) -> None:
    declared = {
        name: {**contract["columns"][name], "dtype": dtype} for name, dtype in (("i", "int64"), ("f", "float64"))
    }
    # An empty text and no value are one in CSV, and a line of nothing but text is no line.
    typed = {"columns": declared, "unique": [key for key in contract["unique"] if "s" not in key]}
    with TemporaryDirectory() as folder:
        _, counted = found(rows, typed, Path(folder), "csv")
    assert counted == [each for each in naive(rows, typed) if each[2]]


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(-3, 3), st.integers(-3, 3))
def test_pandera_agrees_where_it_says_the_same(rows: list[Row], least: int, most: int) -> None:
    frame = pl.DataFrame([row for row in rows if row["i"] is not None], schema=TYPES)
    schema = pa.DataFrameSchema({"i": pa.Column(pl.Int64, [pa.Check.ge(least), pa.Check.le(most)], unique=True)})
    try:
        schema.validate(frame, lazy=True)
        holds = True
    except SchemaErrors:
        holds = False
    rule = {"dtype": "int64", "min": least, "max": most, "unique": True}
    with TemporaryDirectory() as folder:
        assert check({"columns": {"i": rule}}, write(frame, Path(folder) / "table.parquet")).holds == holds
