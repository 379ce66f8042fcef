"""Step `minutes.score`: how many minutes each player will play."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from projections import program, tables

CHANCE = {"healthy": 0.97, "questionable": 0.6, "doubtful": 0.2, "out": 0.0}
MOST = 48.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = program.arguments(__doc__, "features-root")
    parser.add_argument("--mode", choices=["live"], default="live")
    args = parser.parse_args(argv)
    program.fail_if_asked("minutes.score")
    features = tables.read(args.features_root, "features")
    chance = pl.col("status").replace_strict(CHANCE, return_dtype=pl.Float64)
    usual = 0.6 * pl.col("minutes_last5") + 0.4 * pl.col("minutes_avg")
    scored = features.select(
        "player_id",
        "game_id",
        "player",
        "team",
        "opponent",
        "is_home",
        "position",
        play_prob=chance,
        p10=(usual * 0.75 * (chance > 0)).clip(0, MOST).round(4),
        p50=(usual * (chance > 0)).clip(0, MOST).round(4),
        p90=(usual * 1.2 * (chance > 0)).clip(0, MOST).round(4),
    )
    tables.write(scored, args.out_root, "minutes")


if __name__ == "__main__":
    main()
