"""Reads `contracts.toml`, and says what in it cannot hold or means nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from orchctl.core import durations
from orchctl.core.catalog_rules import regex_problem, unknown
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_words import found_words
from orchctl.core.contract_words import FLOATS, INTEGERS
from orchctl.core.contracts import ColumnTable, ContractsFile, ContractTable, Scalar
from orchctl.core.names import DOTTED_NAME_PATTERN, is_dotted_name, parse_date, parse_instant
from orchctl.core.toml_lines import Path

_INTEGERS = INTEGERS | {"integer"}
_NUMBERS = _INTEGERS | FLOATS | {"float", "number"}
# Types whose values TOML has no form for that every file format shares: they are written as text.
_AS_TEXT: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "date": (parse_date, 'a date as text, like "2025-12-19"'),
    "datetime": (parse_instant, 'an instant as text, like "2025-12-19T05:00:00Z"'),
    "duration": (durations.parse, 'a duration as text, like "90s"'),
}
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(_NUMBERS, "a number"),
    **dict.fromkeys(_INTEGERS, "a whole number"),
    "string": "a text",
    "bool": "true or false",
}
_DATED = frozenset({None, "date", "datetime", "string"})


_ONLY_PYTHON = re.compile(r"(?<!\\)(?:\(\?<?[=!]|\(\?P=\w*\)?|\\[1-9])")
_CLASS, _NAMED = re.compile(r"\\[pP](?:\{[^}]*\}|[A-Z])"), re.compile(r"\(\?<(?![=!])")
_FLAGS = re.compile(r"\(\?[a-zA-Z]*-?[a-zA-Z]+\)")


def read(source: Source) -> dict[str, ContractTable] | None:
    """Return the contracts of a parsed file, also broken ones as far as they can be read; None where that is no file
    of contracts at all. What is wrong is noted.
    """
    tables = source.data.get("contracts", {})
    shell = {**source.data, "contracts": {}} if isinstance(tables, dict) else source.data
    try:
        ContractsFile.model_validate(shell)
    except ValidationError as error:
        source.refused(error, ())
    if not isinstance(tables, dict):
        return None
    return {name: _contract(source, name, raw) for name, raw in tables.items()}


def _contract(source: Source, name: str, raw: object) -> ContractTable:
    path: Path = ("contracts", name)
    if not is_dotted_name(name):
        source.wrong(path, f'the name "{name}" is not allowed', allowed=f"{DOTTED_NAME_PATTERN} without ..")
    if not isinstance(raw, dict):
        source.wrong(path, found_words(path, raw), allowed="a table [contracts.NAME]")
        return ContractTable()
    try:
        table = ContractTable.model_validate(raw)
    except ValidationError as error:
        source.refused(error, path)
        return ContractTable()
    _check_whole(source, path, raw, table)
    for column, rules in table.columns.items():
        _check_column(source, (*path, "columns", column), rules)
    _check_unique(source, path, table)
    least, most = table.rows.min, table.rows.max
    if most is not None and most < least:
        source.wrong((*path, "rows", "max"), f"the most rows, {most}, are fewer than the least, {least}")
    if table.freshness is not None and table.freshness.column is not None:
        _check_freshness(source, (*path, "freshness", "column"), table.freshness.column, table.columns)
    return table


def _check_whole(source: Source, path: Path, raw: Mapping[str, Any], table: ContractTable) -> None:
    if table.schema_class is not None:
        for key in ("columns", "unique", "strict"):
            if key in raw:
                source.wrong((*path, key), "means nothing beside schema: the class says it")
    elif not set(raw) & {"columns", "unique", "rows", "freshness"}:
        source.wrong(path, "promises nothing", allowed="columns, unique, rows, freshness or schema")
    elif table.strict and not table.columns:
        source.wrong((*path, "strict"), "would allow no column at all", allowed="columns beside it")


def _check_column(source: Source, path: Path, column: ColumnTable) -> None:
    bounds: dict[str, Any] = {}
    for key in ("min", "max"):
        value = getattr(column, key)
        if value is not None and _check_value(source, (*path, key), value, column.dtype, ordered=True):
            bounds[key] = _comparable(value, column.dtype)
    if len(bounds) == 2:
        if isinstance(bounds["min"], str) != isinstance(bounds["max"], str):
            source.wrong((*path, "max"), "one of min and max is a number and the other a text")
        elif bounds["max"] < bounds["min"]:
            source.wrong((*path, "max"), f"max, {column.max}, is less than min, {column.min}")
    for index, value in enumerate(column.allowed):
        _check_value(source, (*path, "allowed", index), value, column.dtype, ordered=False)
    if column.pattern is None:
        return
    if column.dtype not in {None, "string"}:
        source.wrong((*path, "pattern"), f"means something only for texts, and the column is {column.dtype}")
    if reason := _pattern_problem(column.pattern):
        source.wrong((*path, "pattern"), f'"{column.pattern}" is not a regular expression: {reason}')


def _pattern_problem(pattern: str) -> str | None:
    """Return why a column cannot be matched with it. Polars does that, with the syntax of Rust: what only Python knows
    is refused, and what only Rust knows is left to it.
    """
    if found := _ONLY_PYTHON.search(pattern):
        return f"{found[0]} looks around or back, which a contract cannot"
    return regex_problem(_NAMED.sub("(?P<", _CLASS.sub(".", _FLAGS.sub("", pattern))))


def _check_value(source: Source, path: Path, value: Scalar, dtype: str | None, *, ordered: bool) -> bool:
    """Whether a value may stand in a column of this type."""
    allowed = _misfit(value, dtype, ordered=ordered)
    if allowed is not None:
        source.wrong(path, found_words(path, value), allowed=allowed)
    return allowed is None


def _misfit(value: Scalar, dtype: str | None, *, ordered: bool) -> str | None:
    """Return what a value would have to be in a column of this type, None where it is."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if dtype == "bool" and ordered:
        return "nothing: true and false have no order"
    if dtype is None or dtype not in _AS_TEXT:
        return None if dtype is None or _is_of(value, dtype, ordered=ordered) else _KINDS[dtype]
    reads, words = _AS_TEXT[dtype]
    try:
        reads(value if isinstance(value, str) else "")
    except ValueError:
        return words
    return None


def _is_of(value: Scalar, dtype: str, *, ordered: bool) -> bool:
    """Whether a value is of a type that TOML has too. A bound of whole numbers need not be one."""
    if dtype in {"bool", "string"}:
        return isinstance(value, bool if dtype == "bool" else str)
    kinds = int if dtype in _INTEGERS and not ordered else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _comparable(value: Any, dtype: str | None) -> Any:
    return _AS_TEXT[dtype][0](value) if dtype is not None and dtype in _AS_TEXT else value


def _check_unique(source: Source, path: Path, table: ContractTable) -> None:
    for index, key in enumerate(table.unique):
        where: Path = (*path, "unique", index)
        if not key:
            source.wrong(where, "is empty", allowed="at least one column")
        for number, column in enumerate(key):
            if column in key[:number]:
                source.wrong((*where, number), f'"{column}" stands here twice')
            _check_listed(source, (*where, number), column, table.columns)


def _check_listed(source: Source, path: Path, column: str, columns: Mapping[str, ColumnTable]) -> None:
    if columns and column not in columns:
        unknown(source, path, "column", column, known=columns, none="")


def _check_freshness(source: Source, path: Path, column: str, columns: Mapping[str, ColumnTable]) -> None:
    _check_listed(source, path, column, columns)
    if column in columns and columns[column].dtype not in _DATED:
        source.wrong(
            path, f'"{column}" is {columns[column].dtype}', allowed="a column of dates or instants, also as text"
        )
