"""A contract on 1,000,000 rows of 30 columns, checked by us and by Pandera alone: each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROOT, Aim, Options, Ratio, Report, Used, alternate, clean_env, folder, launch, ms
from orchctl.core.contracts import Boundary, ContractTable

if TYPE_CHECKING:
    import polars as pl

ROWS = 1_000_000
TEAMS = [f"t{number:02d}" for number in range(30)]
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
OURS, PANDERA, IMPORTS = "our check", "Pandera alone", "only importing Polars and Pandera"
KINDS = {"good": "every row is good", "broken": "a third of the rows breaks 12 rules"}


def contract() -> ContractTable:
    """Return a contract of 30 columns: types, nulls, ranges, allowed values, patterns, and a key of two columns."""
    columns: dict[str, Mapping[str, Any]] = {}
    columns |= {f"i{n}": {"dtype": "int64", "min": 0, "max": ROWS} for n in range(10)}
    columns |= {f"f{n}": {"dtype": "float64", "min": 0, "max": 48} for n in range(12)}
    columns |= {f"a{n}": {"dtype": "string", "allowed": TEAMS} for n in range(3)}
    columns |= {f"p{n}": {"dtype": "string", "pattern": r"t\d\d"} for n in range(2)}
    columns |= {"d0": {"dtype": "date"}, "t0": {"dtype": "datetime"}, "b0": {"dtype": "bool"}}
    return ContractTable.model_validate({"columns": columns, "strict": True, "unique": [["i0", "t0"]]})


def pandera_schema() -> Any:
    """Return the same as Pandera says it."""
    import pandera.polars as pa
    import polars as pl

    columns = {f"i{n}": pa.Column(pl.Int64, [pa.Check.ge(0), pa.Check.le(ROWS)]) for n in range(10)}
    columns |= {f"f{n}": pa.Column(pl.Float64, [pa.Check.ge(0), pa.Check.le(48)]) for n in range(12)}
    columns |= {f"a{n}": pa.Column(pl.String, [pa.Check.isin(TEAMS)]) for n in range(3)}
    columns |= {f"p{n}": pa.Column(pl.String, [pa.Check.str_matches(r"^t\d\d$")]) for n in range(2)}
    columns |= {"d0": pa.Column(pl.Date), "t0": pa.Column(pl.Datetime("us", "UTC")), "b0": pa.Column(pl.Boolean)}
    return pa.DataFrameSchema(columns, strict=True, unique=["i0", "t0"])


def table(kind: str) -> pl.DataFrame:
    """Return a table that keeps the contract, or of which a third of the rows do not."""
    import polars as pl

    row = pl.int_range(ROWS, eager=True)
    columns = {f"i{n}": row.shuffle(seed=n) for n in range(10)}
    columns |= {f"f{n}": row.shuffle(seed=100 + n) / ROWS * 48 for n in range(12)}
    columns |= {f"a{n}": "t" + (row.shuffle(seed=200 + n) % 30).cast(pl.String).str.zfill(2) for n in range(3)}
    columns |= {f"p{n}": "t" + (row.shuffle(seed=300 + n) % 30).cast(pl.String).str.zfill(2) for n in range(2)}
    columns["d0"] = (row % 3000).cast(pl.Int32).cast(pl.Date)
    columns["t0"] = (row * 1_000_000).cast(pl.Datetime("us", "UTC"))
    columns["b0"] = row % 2 == 0
    made = pl.DataFrame(columns)
    if kind == "good":
        return made
    third = pl.int_range(pl.len()) % 3 == 0
    return made.with_columns(pl.when(third).then(100.0).otherwise(pl.col(f"f{n}")).alias(f"f{n}") for n in range(12))


def check(how: str, file: str) -> int:
    """Check a file as one of the two does; return how many rules it found broken."""
    if how == OURS:
        from orchctl.adapters import contract_check

        (checked,) = contract_check.check(Boundary("rates", contract(), Path(file), "*", AS_OF + timedelta(hours=1)))
        return len(checked.findings)
    import polars as pl
    from pandera.errors import SchemaErrors

    schema = pandera_schema()
    if how == IMPORTS:
        return 0
    try:
        schema.validate(pl.read_parquet(file), lazy=True)
    except SchemaErrors as broken:
        return len(broken.schema_errors)
    return 0


def run(options: Options) -> Report:
    report = Report("contracts", ("What", "Wall", "CPU", "Peak RSS", "Wall against Pandera", "CPU against Pandera"))
    with folder() as base:
        for kind, what in KINDS.items():
            file = base / f"{kind}.parquet"
            table(kind).write_parquet(file)
            found = _measure(file, broken=12 if kind == "broken" else 0, options=options)
            for name, used in found.items():
                _row(report, f"{name}: {what}", used, found[PANDERA])
            ratio = Ratio.of(_cpu(found[OURS]), _cpu(found[PANDERA]))
            report.aims.append(Aim(f"no more CPU than Pandera alone where {what}", str(ratio), ratio.median <= 1))
    report.notes.append(
        f"{ROWS:,} rows of 30 columns; each is a fresh process: imports, reading the file, checking it."
    )
    return report


def _row(report: Report, what: str, used: list[Used], alone: list[Used]) -> None:
    peak = f"{max(each.rss for each in used):,.0f} MiB"
    walls = Ratio.of([each.wall for each in used], [each.wall for each in alone])
    cpus = Ratio.of(_cpu(used), _cpu(alone))
    report.row(what, ms([each.wall for each in used]), ms(_cpu(used)), peak, walls, cpus)
    report.raw[what] = [[each.wall, each.cpu, each.rss] for each in used]


def _cpu(used: list[Used]) -> list[float]:
    return [each.cpu for each in used]


def _measure(file: Path, *, broken: int, options: Options) -> dict[str, list[Used]]:
    cases: dict[str, Callable[[], Used]] = {}
    for name in (OURS, PANDERA) if broken else (OURS, PANDERA, IMPORTS):
        argv = [sys.executable, "-W", "ignore", "-m", "benchmarks.contracts", name, str(file)]
        cases[name] = partial(launch, argv, env=clean_env(), cwd=ROOT, exits=broken)
    return alternate(cases, rounds=15 if options.full else 5, say=options.say)


if __name__ == "__main__":
    sys.exit(check(*sys.argv[1:]))
