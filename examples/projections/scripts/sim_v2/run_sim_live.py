"""Step `sim.run`: play the evening many times over, each world from a seed of its own."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from projections import program, tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run-date", type=date.fromisoformat, required=True)
    parser.add_argument("--profile-name", default="sim_v3")
    parser.add_argument("--num-worlds", type=int, default=200)
    parser.add_argument("--minutes-run-id", default="", help="whose minutes these are; no file tells it")
    parser.add_argument("--minutes-root", type=Path, required=True)
    parser.add_argument("--rates-root", type=Path, required=True)
    parser.add_argument("--out-root", type=Path, required=True)
    args = parser.parse_args(argv)
    program.fail_if_asked("sim.run")
    players = (
        tables.read(args.minutes_root, "minutes")
        .join(tables.read(args.rates_root, "rates").select("player_id", "fpts_per_minute"), on="player_id")
        .sort("player_id")
        .select("player_id", "game_id", "play_prob", "p10", "p50", "p90", "fpts_per_minute")
        .rows()
    )
    worlds = []
    for world in range(args.num_worlds):
        draw = random.Random(f"{args.profile_name}/{args.run_date}/{world}")
        pace: dict[str, float] = {}
        for player, game, chance, low, middle, high, rate in players:
            if game not in pace:
                pace[game] = draw.gauss(1.0, 0.05)
            minutes = draw.triangular(low, high, middle) if draw.random() < chance else 0.0
            worlds.append((player, world, round(minutes * rate * pace[game], 4)))
    frame = pl.DataFrame(worlds, schema=["player_id", "world", "fpts"], orient="row")
    tables.write(frame, args.out_root, "worlds")
    summary = frame.group_by("player_id").agg(
        fpts_p10=pl.col("fpts").quantile(0.1, "nearest"), fpts_p90=pl.col("fpts").quantile(0.9, "nearest")
    )
    tables.write(summary, args.out_root, "sim")


if __name__ == "__main__":
    main()
