"""The columns of a table as Polars expressions, whatever the format of its file. Loads Polars: see `contract_check`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.core import contract_words as words
from orchctl.core.contract_words import Format, Kind
from orchctl.core.contracts import ColumnTable, DType

if TYPE_CHECKING:
    import polars as pl

FORMATS: Mapping[str, Format] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""The format of a file, by the end of its name."""
_ANY = ColumnTable()
_NAMES = {"boolean": "bool", "categorical": "string", "enum": "string"}
_NUMBERS = {"integer": "int64", "float": "float64", "number": "float64"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    `found` is its type in words, `kind` what its values are compared as (None: nothing). `value` is what is compared:
    instants in UTC, NaN as null, the texts of a format without types read as `read_as`. `empty`: whether a cell holds
    nothing. `unread`: whether it cannot be read as `read_as`; both are None where nothing has to be. `text` is the
    cell as it can be shown.
    """

    name: str
    found: str
    kind: Kind | None
    value: pl.Expr
    empty: pl.Expr
    text: pl.Expr
    read_as: DType | None = None
    unread: pl.Expr | None = None


def scan(path: Path, form: Format) -> pl.LazyFrame:
    """Return the table of a file; little is read yet. Raises PolarsError or OSError."""
    import polars as pl

    if form == "csv":
        return pl.scan_csv(path, infer_schema=False, glob=False)
    if form == "jsonl":
        # By its size: Polars refuses to say what the columns of nothing are.
        return pl.scan_ndjson(path, infer_schema_length=None) if path.stat().st_size else pl.LazyFrame()
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def table(
    path: Path, form: Format, rules: Mapping[str, ColumnTable], needed: Collection[str]
) -> tuple[dict[str, Column], pl.LazyFrame]:
    """Return the columns of a file by name, and the table that their expressions are about.

    `needed` are those that will be asked about. A column has a name of ours there: in Polars one can also be a pattern
    for many (`^a.*$`, `*`). Raises PolarsError or OSError.
    """
    import polars as pl

    frame = scan(path, form)
    found: dict[str, Column] = {}
    cells: list[pl.Expr] = []
    for index, (name, dtype) in enumerate(frame.collect_schema().items()):
        rule, raw = rules.get(name, _ANY), pl.nth(index).alias(f"c{index}")
        wanted = words.implied(rule) if form == "csv" else rule.dtype
        read_as = wanted if wanted is not None and words.readable(form, found_name(dtype), wanted) else None
        found[name] = _column(name, index, dtype, read_as)
        if form == "parquet" or name in needed:
            cells += [raw] if read_as is None else [raw, reading(raw, read_as).alias(f"r{index}")]
    if form == "parquet":
        return found, frame.select(cells)
    # Texts are read once, and not anew for each rule. Without any column, rows could not be counted.
    return found, frame.select(cells or pl.all()).collect(engine="streaming").lazy()


def _column(name: str, index: int, dtype: pl.DataType, read_as: DType | None) -> Column:
    import polars as pl

    raw, found = pl.col(f"c{index}"), found_name(dtype)
    text = raw if found == "string" else raw.cast(pl.String, strict=False)
    if read_as is None:
        value = _comparable(raw, dtype)
        return Column(name, found, words.kind_of(found), value, value.is_null(), text)
    read, name_read = pl.col(f"r{index}"), _NUMBERS.get(read_as, read_as)
    value, unread = _comparable(read, _type(name_read)), raw.is_not_null() & read.is_null()
    return Column(name, found, words.kind_of(name_read), value, value.is_null() & ~unread, text, read_as, unread)


def found_name(dtype: pl.DataType) -> str:
    """Return the name of a type as contracts write it; others in Polars' words."""
    name = str(dtype.base_type()).lower()
    return _NAMES.get(name, name)


def reading(text: pl.Expr, wanted: DType) -> pl.Expr:
    """Read cells as a type, null where they are none."""
    import polars as pl

    if wanted == "bool":
        low = text.str.to_lowercase()
        return pl.when(low.is_in(["true", "false"])).then(low == "true")
    if wanted == "date":
        return text.str.to_date("%Y-%m-%d", strict=False)
    if wanted == "datetime":
        return instant(text)
    return text.cast(_type(_NUMBERS.get(wanted, wanted)), strict=False)


def instant(text: pl.Expr) -> pl.Expr:
    """Read texts as RFC 3339 instants, null where they are none; without a zone they are in UTC."""
    import polars as pl

    joined = text.str.replace(" ", "T", literal=True)
    zoned = pl.when(joined.str.contains(r"(Z|[+-]\d\d:?\d\d)$")).then(joined).otherwise(joined + "Z")
    return zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False)


def _comparable(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    import polars as pl

    if dtype.is_float():
        return value.fill_nan(None)
    if isinstance(dtype, pl.Datetime):
        zoned = value if dtype.time_zone else value.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return value.cast(pl.String) if isinstance(dtype, (pl.Categorical, pl.Enum)) else value


def _type(name: str) -> pl.DataType:
    import polars as pl

    made: Mapping[str, Callable[[], Any]] = {
        "bool": pl.Boolean,
        "string": pl.String,
        "date": pl.Date,
        "datetime": lambda: pl.Datetime("us", "UTC"),
        "duration": pl.Duration,
    }
    for prefix, title in (("uint", "UInt"), ("int", "Int"), ("float", "Float")):
        if name.startswith(prefix):
            return getattr(pl, title + name.removeprefix(prefix))()  # type: ignore[no-any-return]
    return made[name]()  # type: ignore[no-any-return]
