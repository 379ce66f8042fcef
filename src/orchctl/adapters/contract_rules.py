"""The rules of a contract as questions to a table, and what the answers mean. Loads Polars: see `contract_check`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from orchctl.adapters import contract_columns as columns
from orchctl.adapters.contract_columns import Column
from orchctl.core import contract_words as words
from orchctl.core import durations
from orchctl.core.contract_words import INTEGERS, Kind
from orchctl.core.contracts import ColumnTable, Finding, FreshnessTable, Scalar

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a table, one value an expression; `say` gets the number of rows and those values.

    `of` is another table to ask, None for the table itself.
    """

    asked: Sequence[pl.Expr]
    say: Callable[..., Iterator[Finding]]
    of: pl.LazyFrame | None = None


Rule = Finding | Question


def of_column(column: Column, rule: ColumnTable, table: pl.LazyFrame) -> Iterator[Rule]:
    """Yield what is asked of one column."""
    wrong = rule.dtype is not None and column.unread is None and not words.accepts(rule.dtype, column.found)
    if wrong and rule.dtype is not None:
        yield words.wrong_dtype(column.name, column.found, rule.dtype)
    if column.unread is not None:
        yield _unread(column.name, column.unread, column.text, str(column.read_as))
    if not rule.nullable:
        yield counted(column.empty, lambda count, rows: words.no_value(column.name, count, rows))
    if rule.unique:
        yield unique((column,), table)
    for each in _of_values(column, rule):
        # A column of the wrong type is said once, and compared where it can be all the same.
        if not (wrong and isinstance(each, Finding)):
            yield each


def counted(broken: pl.Expr, finding: Callable[[int, int], Finding]) -> Question:
    """Ask how many rows break a rule."""

    def say(rows: int, count: int) -> Iterator[Finding]:
        if count:
            yield finding(count, rows)

    return Question((broken.sum(),), say)


def shown(broken: pl.Expr, text: pl.Expr, finding: Callable[[int, int, str | None], Finding]) -> Question:
    """Ask how many rows break a rule, and for the least of their texts."""

    def say(rows: int, count: int, example: str | None) -> Iterator[Finding]:
        if count:
            yield finding(count, rows, example)

    return Question((broken.sum(), text.filter(broken).min()), say)


def unique(key: Sequence[Column], table: pl.LazyFrame) -> Question:
    """Ask how many rows share their key with another. A row that lacks a part of it shares it with none."""
    import polars as pl

    parts = table.select(part.value.alias(f"k{index}") for index, part in enumerate(key)).drop_nulls()
    sizes = parts.group_by(pl.all()).agg(pl.len().alias("size"))

    def say(rows: int, count: int) -> Iterator[Finding]:
        if count:
            yield words.shared([part.name for part in key], count, rows)

    return Question((pl.col("size").filter(pl.col("size") > 1).sum(),), say, sizes)


def freshness(column: Column, rule: FreshnessTable, as_of: datetime) -> Iterator[Rule]:
    """Ask for the newest instant at or before `as_of`, and for those after it, of which a run must know nothing."""
    import polars as pl

    if column.kind not in ("datetime", "date", "string"):
        yield words.no_age(f"{column.name} is {column.found}, not an instant", column.name)
        return
    moment = column.value
    if column.kind == "date":
        moment = moment.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if column.kind == "string":
        moment = columns.instant(column.value)
        yield _unread(column.name, column.value.is_not_null() & moment.is_null(), column.text, "datetime")
    until = pl.lit(as_of.astimezone(UTC))

    def say(rows: int, newest: datetime | None, later: int) -> Iterator[Finding]:
        if newest is not None:
            old = words.stale(f"the newest {column.name}", column.name, as_of - newest, rule.within)
            yield from () if old is None else (old,)
        elif not later:
            yield words.no_age(f"{column.name} holds no instant", column.name)
        if later:
            yield words.too_new(column.name, as_of, later, rows)

    yield Question((moment.filter(moment <= until).max(), (moment > until).sum()), say)


def snapshot_age(snapshot: datetime | None, rule: FreshnessTable, as_of: datetime) -> Finding | None:
    """Return what is wrong with the age of a snapshot, None where nothing is."""
    if snapshot is None:
        return words.no_age("no snapshot was selected, and the contract names no freshness.column")
    if snapshot > as_of:
        return words.snapshot_too_new(snapshot, as_of)
    return words.stale("the snapshot", None, as_of - snapshot, rule.within)


def _of_values(column: Column, rule: ColumnTable) -> Iterator[Rule]:
    if rule.min is not None:
        yield _bound(column, rule.min, "<")
    if rule.max is not None:
        yield _bound(column, rule.max, ">")
    if rule.allowed:
        yield _allowed(column, rule.allowed)
    if rule.pattern is not None:
        yield _pattern(column, rule.pattern)


def _bound(column: Column, bound: int | float | str, sign: Literal["<", ">"]) -> Rule:
    limit = literal(bound, column.kind)
    if limit is None:
        return words.incomparable("range", column.name, column.found, f"{bound}")
    value = column.value
    if column.kind == "date" and isinstance(limit, datetime):
        import polars as pl

        value = value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    broken = value < limit if sign == "<" else value > limit
    return counted(broken, lambda count, rows: words.beyond(column.name, sign, bound, count, rows))


def _allowed(column: Column, allowed: Sequence[Scalar]) -> Rule:
    import polars as pl

    name, value = column.name, column.value
    fitting: list[Any] = [made for each in allowed if (made := literal(each, column.kind)) is not None]
    if not fitting:
        return words.incomparable("allowed", name, column.found, "the values that are allowed")
    if column.kind == "number":
        if column.found in INTEGERS and column.read_as not in ("number", "float", "float32", "float64"):
            # What is no whole number equals none; Polars refuses to compare them.
            known: Any = [int(each) for each in fitting if each == int(each)] or [None]
        elif column.found == "float32":
            known = pl.Series([float(each) for each in fitting], dtype=pl.Float32).implode()
        else:
            known, value = [float(each) for each in fitting], value.cast(pl.Float64)
    else:
        known = fitting
    return shown(~value.is_in(known), column.text, lambda *found: words.not_allowed(name, *found))


def _pattern(column: Column, pattern: str) -> Rule:
    import polars as pl

    name = column.name
    if column.kind != "string":
        return words.incomparable("pattern", name, column.found, "a pattern")
    whole = rf"\A(?:{pattern})\z"
    try:
        pl.Series([""]).str.contains(whole)
    except pl.exceptions.ComputeError as error:
        reason = re.search(r"^error: (.*)$", str(error), re.MULTILINE)
        return words.bad_pattern(name, pattern, reason[1] if reason else "it is no regular expression")
    broken = ~column.value.str.contains(whole)
    return shown(broken, column.text, lambda *found: words.no_match(name, pattern, *found))


def _unread(name: str, unread: pl.Expr, text: pl.Expr, wanted: str) -> Question:
    return shown(unread, text, lambda *found: words.no_reading(name, wanted, *found))


def literal(value: Scalar, kind: Kind | None) -> Any:
    """Return a value of the contract as one that values of a kind are compared with, None where that cannot be."""
    if isinstance(value, bool) or kind == "bool":
        return value if kind == "bool" and isinstance(value, bool) else None
    if not isinstance(value, str) or kind == "number":
        return value if kind == "number" and not isinstance(value, str) else None
    readers: dict[Kind | None, Callable[[str], Any]] = {
        "string": str,
        "date": _day,
        "datetime": _moment,
        "duration": lambda text: timedelta(seconds=durations.parse(text)),
    }
    try:
        return readers[kind](value) if kind in readers else None
    except ValueError:
        return None


def _day(text: str) -> date | datetime:
    return date.fromisoformat(text) if len(text) == len("2025-12-19") else _moment(text)


def _moment(text: str) -> datetime:
    """Read an instant; without a zone it is in UTC, and a date alone is its first instant."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
