"""Step `minutes.features_live`: who may play tonight, and how much he played lately."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = program.arguments(__doc__, "games", "rosters", "injuries", "box-scores")
    parser.add_argument("--run-as-of-ts", type=program.instant, required=True, help="nothing newer is used")
    args = parser.parse_args(argv)
    games = tables.read(args.games, "games")
    sides = pl.concat(
        [
            games.select("game_id", "hours_to_tip", team="home", opponent="away", is_home=pl.lit(True)),
            games.select("game_id", "hours_to_tip", team="away", opponent="home", is_home=pl.lit(False)),
        ]
    )
    box_scores = tables.read(args.box_scores, "box_scores").sort("player_id", "game_date")
    played = box_scores.group_by("player_id", maintain_order=True).agg(
        games=pl.len().cast(pl.Int64),
        minutes_avg=(pl.col("seconds").sum() / pl.len() / 60).round(4),
        minutes_last5=(pl.col("seconds").tail(5).sum() / pl.col("seconds").tail(5).len() / 60).round(4),
    )
    features = (
        tables.read(args.rosters, "rosters")
        .join(sides, on="team")
        .join(tables.read(args.injuries, "injuries"), on="player_id", how="left")
        .join(played, on="player_id", how="left")
        .with_columns(
            pl.col("status").fill_null("healthy"),
            pl.col("games", "minutes_avg", "minutes_last5").fill_null(0),
        )
    )
    tables.write(features, args.out_root, "features")


if __name__ == "__main__":
    main()
