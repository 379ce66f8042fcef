"""Step `health.checks`: whether what was made can be true."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from projections import tables

MOST_A_MINUTE = 3.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("check", choices=["check-rates-sanity"])
    parser.add_argument("--date", type=date.fromisoformat, required=True)
    parser.add_argument("--rates-root", type=Path, required=True)
    parser.add_argument("--projections-root", type=Path, required=True)
    args = parser.parse_args(argv)
    rates, unified = tables.read(args.rates_root, "rates"), tables.read(args.projections_root, "projections")
    wild = rates.filter(~pl.col("fpts_per_minute").is_between(0, MOST_A_MINUTE)).height
    if wild or rates.height != unified.height:
        raise SystemExit(f"{wild} of {rates.height} rates cannot be true; {unified.height} projections of them")
    print(f"{args.date}: {rates.height} rates are sane, and each has its projection", flush=True)


if __name__ == "__main__":
    main()
