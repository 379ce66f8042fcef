"""Schema classes of a pipeline, which Pandera checks; what it finds is said in our words. Loads Polars and Pandera."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.adapters.contract_columns import found_name, scan
from orchctl.core import contract_words as words
from orchctl.core.contract_words import Format
from orchctl.core.contracts import Finding

if TYPE_CHECKING:
    import polars as pl

_KEY = "check_output"
"""The column of Pandera's results that is true in the rows where a check holds."""


def load() -> None:
    """Load all of Pandera, also what it loads only when it first checks something."""
    import pandera.polars as pa
    import polars as pl

    wanted = pa.DataFrameSchema({"x": pa.Column(pl.Int64, pa.Check.ge(1), unique=True)}, unique=["x"], strict=True)
    for value in (1, 0):
        with contextlib.suppress(pa.errors.SchemaErrors):
            wanted.validate(pl.DataFrame({"x": [value]}), lazy=True)


def findings(name: str, path: Path, form: Format) -> Iterator[Finding]:
    """Yield what Pandera finds in a file. Raises PolarsError or OSError where the file cannot be read.

    Whatever the pipeline's own code raises is a finding as well.
    """
    import polars as pl
    from pandera.backends.polars.base import PolarsSchemaBackend
    from pandera.errors import FailureCaseMetadata, SchemaErrors

    # Pandera's own report fails where checks of a column and of the whole table do not hold at once (0.35.0), and it
    # copies every row that breaks a key. What we need is in the errors themselves.
    nothing = FailureCaseMetadata(failure_cases=None, message={}, error_counts={})
    PolarsSchemaBackend.failure_cases_metadata = lambda *_: nothing  # type: ignore[method-assign]
    if form == "csv":
        table = pl.read_csv(path, infer_schema_length=None, try_parse_dates=True)
    else:
        table = scan(path, form).collect()
    try:
        schema = _load(name)
        schema.validate(table, lazy=True)
    except SchemaErrors as broken:
        yield from _said(broken.schema_errors, schema, table)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the pipeline's code that runs
        said = str(error).strip().splitlines()
        yield words.bad_schema(name, f"{type(error).__name__}{f': {said[0]}' if said else ''}")


def _load(name: str) -> Any:
    import pandera.polars

    module, _, title = name.partition(":")
    found = getattr(importlib.import_module(module), title)
    if not (isinstance(found, type) and issubclass(found, pandera.polars.DataFrameModel)):
        raise TypeError(f"{title} is no pandera.polars.DataFrameModel")
    schema = found.to_schema()
    for check in [*schema.checks, *(check for column in schema.columns.values() for check in column.checks)]:
        # Rows are counted from its results: its lists of failing values take a second for each million.
        check.n_failure_cases = 1
    return schema


def _said(errors: Any, schema: Any, table: pl.DataFrame) -> Iterator[Finding]:
    from pandera.errors import SchemaErrorReason as Reason

    # Of these Pandera names only the first.
    whole = (Reason.DATATYPE_COERCION, Reason.COLUMN_NOT_IN_SCHEMA, Reason.DUPLICATES)
    reasons = {error.reason_code for error in errors}
    # Where one column cannot be coerced, Pandera names only that one, and coerces none.
    coerced = _coerced(schema, table) if Reason.DATATYPE_COERCION in reasons else {}
    mistyped = {error.schema.name for error in errors if error.reason_code == Reason.WRONG_DATATYPE} | coerced.keys()
    for name, wanted in coerced.items():
        yield from _not_coerced(name, table[name], wanted)
    for error in errors:
        reason, name = error.reason_code, error.schema.name
        # Checks on a column of the wrong type end in errors: it is said once.
        said = name in coerced if reason == Reason.WRONG_DATATYPE else name in mistyped and reason == Reason.CHECK_ERROR
        if not said and reason not in whole:
            yield _finding(error, table)
    if Reason.COLUMN_NOT_IN_SCHEMA in reasons:
        yield from (words.unexpected(name) for name in table.columns if not _knows(schema, name))
    if Reason.DUPLICATES in reasons:
        yield from _shared(schema.unique, table)


def _coerced(schema: Any, table: pl.DataFrame) -> dict[str, pl.DataType]:
    return {
        name: column.dtype.type
        for name, column in schema.columns.items()
        if name in table.columns and column.dtype is not None and (schema.coerce or column.coerce)
    }


def _not_coerced(name: str, column: pl.Series, wanted: pl.DataType) -> Iterator[Finding]:
    import polars as pl

    try:
        lost = column.is_not_null() & column.cast(wanted, strict=False).is_null()
    except pl.exceptions.InvalidOperationError:
        yield _wrong_dtype(name, column.dtype, wanted)
        return
    if lost.any():
        example = column.filter(lost).cast(pl.String).min()
        yield words.no_reading(name, found_name(wanted), int(lost.sum()), len(column), str(example))


def _finding(error: Any, table: pl.DataFrame) -> Finding:
    from pandera.errors import SchemaErrorReason as Reason

    column = error.schema.name if error.schema.name in table.columns else None
    if error.reason_code == Reason.COLUMN_NOT_IN_DATAFRAME:
        return words.missing(str(error.failure_cases))
    if error.reason_code == Reason.INVALID_COLUMN_NAME:
        return words.missing(f"that matches {error.schema.name}")
    if error.reason_code == Reason.WRONG_DATATYPE and column is not None:
        return _wrong_dtype(column, table.schema[column], error.schema.dtype.type)
    check = error.check if isinstance(error.check, str) else error.check.error or error.check.name or str(error.check)
    if error.reason_code == Reason.CHECK_ERROR:
        return words.broken_check(column, check, str(error.failure_cases).splitlines()[0])
    count = _broken(error)
    if column is None or count is None:
        return words.fails(column, check, count, table.height)
    return _of_rows(error, column, check, count, table.height)


def _of_rows(error: Any, column: str, check: str, count: int, rows: int) -> Finding:
    from pandera.errors import SchemaErrorReason as Reason

    if error.reason_code == Reason.SERIES_CONTAINS_NULLS:
        return words.no_value(column, count, rows)
    if error.reason_code == Reason.SERIES_CONTAINS_DUPLICATES:
        return words.shared([column], count, rows)
    name = "" if isinstance(error.check, str) else str(error.check.name)
    if name in _BOUNDS:
        sign, key = _BOUNDS[name]
        return words.beyond(column, sign, error.check.statistics[key], count, rows)
    return words.fails(column, check, count, rows)


_BOUNDS: Mapping[str, tuple[words.Sign, str]] = {
    "greater_than_or_equal_to": ("<", "min_value"),
    "greater_than": ("<=", "min_value"),
    "less_than_or_equal_to": (">", "max_value"),
    "less_than": (">=", "max_value"),
}


def _wrong_dtype(column: str, found: pl.DataType, wanted: pl.DataType) -> Finding:
    same = found_name(found) == found_name(wanted)
    name: Callable[[pl.DataType], str] = str if same else found_name
    return words.wrong_dtype(column, name(found), name(wanted))


def _broken(error: Any) -> int | None:
    """Return how many rows a check does not hold in, None where it is not about rows."""
    import polars as pl

    output = error.check_output
    if not isinstance(error.failure_cases, pl.DataFrame) or output is None or _KEY not in output.columns:
        return None
    return int((~output[_KEY]).sum())


def _knows(schema: Any, name: str) -> bool:
    return any(
        name == known or (column.regex and re.fullmatch(known, name)) for known, column in schema.columns.items()
    )


def _shared(unique: Any, table: pl.DataFrame) -> Iterator[Finding]:
    keys = [unique] if all(isinstance(part, str) for part in unique) else unique
    for key in keys:
        count = int(table.select(key).is_duplicated().sum())
        if count:
            yield words.shared(key, count, table.height)
