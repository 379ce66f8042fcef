"""Step `finalize.unified`: one table of everything, for those who use it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step. Without a simulation or ownership their columns are empty."""
    parser = program.arguments(__doc__, "minutes-root", "rates-root", optional=["sim-root", "ownership-root"])
    args = parser.parse_args(argv)
    sim = {"player_id": pl.Int64, "fpts_p10": pl.Float64, "fpts_p90": pl.Float64}
    ownership = {"player_id": pl.Int64, "salary": pl.Int64, "ownership": pl.Float64}
    unified = (
        tables.read(args.minutes_root, "minutes")
        .join(tables.read(args.rates_root, "rates").select("player_id", "fpts_per_minute"), on="player_id")
        .join(
            pl.DataFrame(schema=sim) if args.sim_root is None else tables.read(args.sim_root, "sim"),
            on="player_id",
            how="left",
        )
        .join(
            pl.DataFrame(schema=ownership)
            if args.ownership_root is None
            else tables.read(args.ownership_root, "ownership"),
            on="player_id",
            how="left",
        )
        .with_columns(fpts=(pl.col("p50") * pl.col("fpts_per_minute")).round(4))
    )
    tables.write(unified, args.out_root, "projections")


if __name__ == "__main__":
    main()
