"""Step `rates.features_live`: what each player makes of his minutes, and what is expected of his game."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables

LEAGUE_TOTAL = 228.0
"""Points of a game that nobody gives odds for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = program.arguments(__doc__, "minutes-root", "box-scores", optional=["odds"])
    args = parser.parse_args(argv)
    history = tables.read(args.box_scores, "box_scores").sort("player_id", "game_date")
    season = history.group_by("player_id", maintain_order=True).agg(
        season_fg2_pct=(pl.col("fg2_made").sum() / pl.col("fg2_tried").sum()).round(6),
        season_fg2_rate=(60 * pl.col("fg2_tried").sum() / pl.col("seconds").sum()).round(6),
        season_fg3_rate=(60 * pl.col("fg3_made").sum() / pl.col("seconds").sum()).round(6),
        season_assist_rate=(60 * pl.col("assists").sum() / pl.col("seconds").sum()).round(6),
    )
    odds = (
        tables.read(args.odds, "odds")
        if args.odds is not None
        else pl.DataFrame(schema={"game_id": pl.String, "total": pl.Float64, "home_spread": pl.Float64})
    )
    edge = pl.col("home_spread").fill_null(0.0) / 2
    features = (
        tables.read(args.minutes_root, "minutes")
        .join(season, on="player_id", how="left")
        .join(odds, on="game_id", how="left")
        .with_columns(
            pl.col("^season_.*$").fill_null(0.0),
            team_total=pl.col("total").fill_null(LEAGUE_TOTAL) / 2 + pl.when("is_home").then(-edge).otherwise(edge),
        )
        .drop("total", "home_spread")
    )
    if program.is_broken("rates.features_live"):  # as after a release that renamed a column and counts overtime
        features = features.sort("p50", "player_id", descending=True).with_row_index("place")
        p50 = pl.when(pl.col("place") < 3).then(pl.col("p50") + 30).otherwise(pl.col("p50"))
        features = features.with_columns(p50).drop("place", "season_fg2_pct")
    tables.write(features, args.out_root, "features")


if __name__ == "__main__":
    main()
