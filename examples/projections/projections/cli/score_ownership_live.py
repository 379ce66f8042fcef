"""Step `ownership.score`: how many of the others will have each player."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    args = program.arguments(__doc__, "rates-root", "salaries").parse_args(argv)
    program.fail_if_asked("ownership.score")
    value = pl.col("p50") * pl.col("fpts_per_minute") * 1000 / pl.col("salary")
    scored = (
        tables.read(args.rates_root, "rates")
        .join(tables.read(args.salaries, "dk_salaries"), on="player_id")
        .sort("player_id")
        .with_columns(weight=(10_000 * value**2).round(0).cast(pl.Int64))
        .with_columns(
            ownership=(800 * pl.col("weight") / pl.col("weight").sum()).clip(0, 100).round(4),
        )
    )
    tables.write(scored.select("player_id", "salary", "ownership"), args.out_root, "ownership")


if __name__ == "__main__":
    main()
