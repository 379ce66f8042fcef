"""What is found of data, said to a person; and which types of columns are which. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from orchctl.core import durations
from orchctl.core.contracts import ColumnTable, DType, Finding, RowsTable, Scalar
from orchctl.core.names import format_instant

Kind = Literal["number", "string", "bool", "date", "datetime", "duration"]
Format = Literal["parquet", "csv", "jsonl"]
Sign = Literal["<", "<=", ">", ">="]
_SIGNED = ("int8", "int16", "int32", "int64", "int128")
INTEGERS = frozenset({*_SIGNED, *(f"u{name}" for name in _SIGNED)})
FLOATS = frozenset({"float16", "float32", "float64"})
_ANY: dict[str, frozenset[str]] = {"integer": INTEGERS, "float": FLOATS, "number": INTEGERS | FLOATS | {"decimal"}}
_OTHER_KINDS: dict[str, Kind] = {
    "string": "string",
    "bool": "bool",
    "date": "date",
    "datetime": "datetime",
    "duration": "duration",
}
_EXAMPLE = 40


def kind_of(found: str) -> Kind | None:
    """Return what values of a type are compared as; None for a type that has no order here (`list`, `binary`)."""
    return "number" if found in _ANY["number"] else _OTHER_KINDS.get(found)


def accepts(wanted: DType, found: str) -> bool:
    """Whether a column of the type `found` is what the contract wants."""
    return found == wanted or found in _ANY.get(wanted, ())


def readable(form: Format, found: str, wanted: DType) -> bool:
    """Whether a column of a text format is read as `wanted`, value by value: such a format has fewer types, or none.

    All of a CSV file is text. JSON has one type of number, and no dates.
    """
    if form == "csv":
        return found == "string" and wanted != "duration"
    if form == "jsonl":
        number = found in INTEGERS and kind_of(wanted) == "number"
        return (
            number
            or (found == "float64" and wanted in FLOATS)
            or (found == "string" and wanted in ("date", "datetime"))
        )
    return False


def implied(column: ColumnTable) -> DType | None:
    """Return as what a column of a CSV file is read: as declared, else what its rules compare it with."""
    if column.dtype is not None:
        return column.dtype
    rules: tuple[Scalar | None, ...] = (column.min, column.max, *column.allowed)
    if any(isinstance(rule, bool) for rule in rules):
        return "bool"
    return "number" if any(isinstance(rule, (int, float)) for rule in rules) else None


def no_file(pattern: str) -> Finding:
    """No file is where one must be."""
    return Finding("file", None, f"no file matches {pattern}")


def unreadable(reason: str) -> Finding:
    """The file cannot be read."""
    return Finding("file", None, f"the file cannot be read: {reason}")


def missing(column: str) -> Finding:
    """A column is not there."""
    return Finding("missing", column, f"missing column {column}")


def unexpected(column: str) -> Finding:
    """A column is there that must not be."""
    return Finding("extra", column, f"extra column {column}")


def wrong_dtype(column: str, found: str, wanted: str) -> Finding:
    """A column is of another type."""
    return Finding("dtype", column, f"{column} is {found}, not {wanted}")


def no_reading(column: str, wanted: str, count: int, rows: int, example: str | None) -> Finding:
    """Texts cannot be read as what they must be."""
    text = f"{_of(count, rows)} a value of {column} that is no {wanted}{_such_as(example)}"
    return Finding("dtype", column, text, count, rows)


def no_value(column: str, count: int, rows: int) -> Finding:
    """Nulls, or NaN, where there must be values."""
    return Finding("nullable", column, f"{_of(count, rows)} no value in {column}", count, rows)


def beyond(column: str, sign: Sign, bound: int | float | str, count: int, rows: int) -> Finding:
    """Values below the least or above the greatest."""
    return Finding("range", column, f"{_of(count, rows)} {column} {sign} {bound}", count, rows)


def not_allowed(column: str, count: int, rows: int, example: str | None) -> Finding:
    """Values that are none of the allowed."""
    text = f"{_of(count, rows)} a value of {column} that is not allowed{_such_as(example)}"
    return Finding("allowed", column, text, count, rows)


def no_match(column: str, pattern: str, count: int, rows: int, example: str | None) -> Finding:
    """Texts that the pattern does not match."""
    text = f"{_of(count, rows)} a value of {column} that does not match {pattern}{_such_as(example)}"
    return Finding("pattern", column, text, count, rows)


def bad_pattern(column: str, pattern: str, reason: str) -> Finding:
    """The contract's own pattern cannot be used."""
    return Finding("pattern", column, f"{column} cannot be matched with {pattern}: {reason}")


def incomparable(check: str, column: str, found: str, rule: str) -> Finding:
    """A rule is about another type than the column is of."""
    return Finding(check, column, f"{column} is {found}, and cannot be compared with {rule}")


def shared(key: Sequence[str], count: int, rows: int) -> Finding:
    """Rows that have the same key."""
    column = key[0] if len(key) == 1 else None
    return Finding("unique", column, f"{count} rows share {column or '(' + ', '.join(key) + ')'}", count, rows)


def rows_beyond(rows: int, allowed: RowsTable) -> Finding | None:
    """Too few rows, or too many; None where the number is right."""
    said = f"{rows} row{'' if rows == 1 else 's'}"
    if rows < allowed.min:
        return Finding("rows", None, f"{said}, at least {allowed.min}", rows=rows)
    if allowed.max is not None and rows > allowed.max:
        return Finding("rows", None, f"{said}, at most {allowed.max}", rows=rows)
    return None


def stale(what: str, column: str | None, age: timedelta, within: int) -> Finding | None:
    """Return that the newest is too old; None where it is not. `within` in seconds."""
    if age <= timedelta(seconds=within):
        return None
    return Finding("freshness", column, f"{what} is {_age(age)} old, at most {durations.canonical(within)}")


def too_new(column: str, as_of: datetime, count: int, rows: int) -> Finding:
    """Instants after `run_as_of_ts`, of which the run must know nothing."""
    text = f"{_of(count, rows)} {column} after {format_instant(as_of)}, the run_as_of_ts"
    return Finding("as_of", column, text, count, rows)


def snapshot_too_new(snapshot: datetime, as_of: datetime) -> Finding:
    """The snapshot itself is after `run_as_of_ts`."""
    text = f"the snapshot is of {format_instant(snapshot)}, after {format_instant(as_of)}, the run_as_of_ts"
    return Finding("as_of", None, text)


def no_age(reason: str, column: str | None = None) -> Finding:
    """How old the data is cannot be told."""
    return Finding("freshness", column, f"the age of the data cannot be told: {reason}")


def bad_schema(name: str, reason: str) -> Finding:
    """The schema class cannot be loaded or used."""
    return Finding("schema", None, f"the schema {name} cannot be used: {reason}")


def fails(column: str | None, check: str, count: int | None, rows: int) -> Finding:
    """A check of a schema class fails; `count` None where it is about the table as a whole."""
    where = f" in {column}" if column else ""
    if count is None:
        return Finding("check", column, f"{check} does not hold{where}")
    breaks = "breaks" if count == 1 else "break"
    return Finding("check", column, f"{count} of {rows} rows {breaks} {check}{where}", count, rows)


def broken_check(column: str | None, check: str, reason: str) -> Finding:
    """A check of a schema class ended in an error."""
    return Finding("check", column, f"{check} ended in an error{f' in {column}' if column else ''}: {reason}")


def _of(count: int, rows: int) -> str:
    return f"{count} of {rows} rows {'has' if count == 1 else 'have'}"


def _such_as(example: str | None) -> str:
    if example is None:
        return ""
    cut = example if len(example) <= _EXAMPLE else example[: _EXAMPLE - 1] + "…"
    return f", such as {json.dumps(cut, ensure_ascii=False)}"


def _age(age: timedelta) -> str:
    """Write an age rounded up, so that what is too old never reads as just old enough."""
    seconds = age.total_seconds()
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{math.ceil(seconds * 10 / length) / 10:.1f}{unit}"
    return f"{math.ceil(seconds)}s"
