"""Checks contracts on files, with Polars: `python -m orchctl.adapters.contract_check`.

Reads `{"boundaries": [...]}` (`core.contracts.Boundary`) from stdin and prints `{"checked": [...]}`, or
`{"unavailable": …}` where Polars or Pandera is missing. A process of its own (`contract_process`): nothing else loads
them. The columns that a contract lists become one query of counts; a schema class is Pandera's to check.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.adapters import contract_columns as columns
from orchctl.adapters import contract_rules as rules
from orchctl.adapters import contract_schema
from orchctl.adapters.contract_rules import Question, Rule
from orchctl.core import contract_words as words
from orchctl.core.contracts import Boundary, Checked, Finding

if TYPE_CHECKING:
    import polars as pl

    from orchctl.core.contract_words import Format


def check(boundary: Boundary) -> tuple[Checked, ...]:
    """Check a boundary's files, in the order of their paths; one Checked says it where there is none."""
    root = Path(boundary.root)
    if root.is_file():
        return (_check_file(boundary, root, root.name),)
    try:
        files = sorted(path for path in root.glob(boundary.file) if path.is_file())
    except ValueError as error:  # a pattern like `**.parquet`
        return (Checked(boundary.contract, boundary.file, None, (words.no_file(f"{boundary.file}: {error}"),)),)
    if not files:
        return (Checked(boundary.contract, boundary.file, None, (words.no_file(boundary.file),)),)
    return tuple(_check_file(boundary, path, str(path.relative_to(root))) for path in files)


def _check_file(boundary: Boundary, path: Path, name: str) -> Checked:
    import polars as pl

    form = columns.FORMATS.get(path.suffix)
    if form is None:
        reason = f"its name ends in none of {', '.join(columns.FORMATS)}"
        return Checked(boundary.contract, name, None, (words.unreadable(reason),))
    try:
        rows, findings = _Table(path, form, boundary).answers()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        # Polars' own form of an OSError: `Permission denied (os error 13): /the/file`.
        first = reason.splitlines()[0].partition(" (os error ")[0]
        return Checked(boundary.contract, name, None, (words.unreadable(first),))
    return Checked(boundary.contract, name, rows, tuple(dict.fromkeys(findings)))


class _Table:
    """One file, and what one contract asks of it. Any part raises PolarsError, PanicException or OSError."""

    def __init__(self, path: Path, form: Format, boundary: Boundary) -> None:
        self._path = path
        self._form = form
        self._contract = boundary.table
        self._as_of = boundary.as_of
        self._snapshot = boundary.snapshot
        needed = {*boundary.table.columns, *self._needed()}
        self._columns, self._table = columns.table(path, form, boundary.table.columns, needed)

    def answers(self) -> tuple[int, list[Finding]]:
        """Return the number of rows, and all findings in the order of the contract."""
        import polars as pl

        asked = list(self._rules())
        questions = [each for each in asked if isinstance(each, Question)]
        own = [expr for each in questions if each.of is None for expr in each.asked]
        tables = [self._table.select(pl.len().alias("rows"), *_named(own))]
        tables += [each.of.select(_named(each.asked)) for each in questions if each.of is not None]
        first, *others = (list(frame.row(0)) for frame in pl.collect_all(tables, engine="streaming"))
        rows = first.pop(0)
        found: list[Finding] = []
        for each in asked:
            if isinstance(each, Finding):
                found.append(each)
                continue
            values = others.pop(0) if each.of is not None else [first.pop(0) for _ in each.asked]
            found += each.say(rows, *values)
        return rows, found

    def _rules(self) -> Iterator[Rule]:
        contract, here = self._contract, self._columns
        yield from map(words.missing, self._absent())
        if contract.strict:
            wanted = {*contract.columns, *self._needed()}
            yield from (words.unexpected(name) for name in here if name not in wanted)
        for name, rule in contract.columns.items():
            if name in here:
                yield from rules.of_column(here[name], rule, self._table)
        if contract.schema_class is not None:
            yield from contract_schema.findings(contract.schema_class, self._path, self._form)
        for key in contract.unique:
            if here.keys() >= set(key):
                yield rules.unique([here[name] for name in key], self._table)
        yield Question((), self._number_of_rows)
        yield from self._freshness()

    def _number_of_rows(self, rows: int) -> Iterator[Finding]:
        wrong = words.rows_beyond(rows, self._contract.rows)
        if wrong is not None:
            yield wrong

    def _freshness(self) -> Iterator[Rule]:
        rule = self._contract.freshness
        if rule is None:
            return
        if rule.column is None:
            wrong = rules.snapshot_age(self._snapshot, rule, self._as_of)
            yield from () if wrong is None else (wrong,)
        elif rule.column in self._columns:
            yield from rules.freshness(self._columns[rule.column], rule, self._as_of)

    def _needed(self) -> list[str]:
        """Columns that must be there whatever `required` says of them: keys, and what tells the age."""
        age = self._contract.freshness
        keys = [name for key in self._contract.unique for name in key]
        return keys + ([age.column] if age is not None and age.column is not None else [])

    def _absent(self) -> list[str]:
        if not self._columns and self._form == "jsonl":
            return []  # a file of no lines names no columns
        wanted = [name for name, rule in self._contract.columns.items() if rule.required] + self._needed()
        return [name for name in dict.fromkeys(wanted) if name not in self._columns]


def _named(asked: Sequence[pl.Expr]) -> list[pl.Expr]:
    return [expr.alias(f"a{index}") for index, expr in enumerate(asked)]


def _load(*, with_pandera: bool) -> None:
    """Load what may be ours alone to read, and before anything of the pipeline's can take its place."""
    import polars  # noqa: F401

    if with_pandera:
        contract_schema.load()


def _become(identity: Mapping[str, Any] | None, env: Mapping[str, str]) -> None:
    """Become the job's user in the job's environment, with modules found from the working directory."""
    if identity is not None:
        os.setgroups(identity["extra_groups"])
        os.setgid(identity["group"])
        os.setuid(identity["user"])
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [os.getcwd(), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]


def main() -> int:
    """Answer one request."""
    # What the pipeline's modules print must not become part of the answer.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin.buffer)
    lacking = [name for name in ("polars", "pandera") if importlib.util.find_spec(name) is None]
    if lacking:
        answer: dict[str, object] = {"unavailable": f"{' and '.join(lacking)} cannot be imported"}
    else:
        boundaries = [Boundary.from_json(each) for each in request["boundaries"]]
        _load(with_pandera=any(each.table.schema_class for each in boundaries))
        _become(request["identity"], request["env"])
        answer = {"checked": [checked.to_json() for each in boundaries for checked in check(each)]}
    with open(answer_fd, "wb") as file:
        file.write(json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
