"""Step `ingest.scrape_all`: take the games of a date from the source's schedule."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = program.arguments(__doc__, "source")
    parser.add_argument("--run-as-of-ts", type=program.instant, required=True, help="nothing newer is used")
    args = parser.parse_args(argv)
    program.look_up("stats.example.com", Path(os.environ.get("ORCHCTL_RUN_DIR") or args.out_root.parent))
    tips = pl.col("tip_ts").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms", time_zone="UTC")
    found = (
        tables.read(args.source, "schedule")
        .filter(pl.col("game_date") == args.date.isoformat())
        .with_columns(tips)
        .with_columns(
            ((pl.col("tip_ts") - args.run_as_of_ts).dt.total_minutes() / 60).round(4).alias("hours_to_tip"),
        )
    )
    tables.write(found, args.out_root, "games")


if __name__ == "__main__":
    main()
