"""Step `rates.score`: fantasy points a minute."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    args = program.arguments(__doc__, "features-root").parse_args(argv)
    program.fail_if_asked("rates.score")
    features = tables.read(args.features_root, "features")
    needed = {"season_fg2_pct", "season_fg2_rate", "season_fg3_rate", "season_assist_rate", "team_total"}
    if missing := sorted(needed - set(features.columns)):
        raise SystemExit(f"features_rates_v1 missing required columns: {missing}")
    points = 2 * pl.col("season_fg2_pct") * pl.col("season_fg2_rate") + 3 * pl.col("season_fg3_rate")
    rate = (points + 1.5 * pl.col("season_assist_rate")) * (pl.col("team_total") / 114)
    scored = features.select("player_id", "game_id", "team", "position", "p50", fpts_per_minute=rate.round(6))
    tables.write(scored, args.out_root, "rates")


if __name__ == "__main__":
    main()
