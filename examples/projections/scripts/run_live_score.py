"""The black box: the same nine programs one after another, published with `orchctl.publish`.

This is what a pipeline looks like before its steps are declared in a catalog, but for one thing: here too no reader
ever sees half of what a program has written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from orchctl import publish
from projections import program, snapshots

SIM = ("--profile-name", "sim_v3", "--num-worlds", "200")


@dataclass(frozen=True, slots=True)
class Run:
    """One run: which date, as of when, and under which id its files are published."""

    day: date
    as_of: datetime
    run_id: str
    data_root: Path

    def raw(self, table: str) -> str:
        """Return the snapshot of a raw table that this run may read."""
        return str(snapshots.newest(self.data_root, table, self.as_of))

    def raw_if_any(self, table: str) -> str:
        """Return the snapshot of a raw table that can be done without, "" where there is none."""
        try:
            return self.raw(table)
        except FileNotFoundError as error:
            print(f"warning: {error}", file=sys.stderr, flush=True)
            return ""

    def place(self, folder: str) -> Path:
        """Return where the run's files of an asset are once they are published."""
        return self.data_root / folder.format(self.day) / f"run={self.run_id}"

    @contextlib.contextmanager
    def published(self, asset: str, folder: str, *, until: datetime | None = None) -> Iterator[Path]:
        """Give a folder to write to. What is in it at the end is published whole, or not at all.

        The run becomes the newest; production reads it where it is not later than `until`.
        """
        to = self.place(folder)
        with publish.staging(to.parent) as staging:
            yield staging
            promotion = publish.promote(staging, to)
        pointers = [publish.LATEST]
        if until is None or datetime.now(UTC) < until:
            pointers.append(publish.CURRENT)
        for pointer in pointers:
            publish.point(promotion, pointer, run_id=self.run_id, as_of=self.as_of, asset=asset, game_date=self.day)

    def start(self, module: str, *words: object) -> None:
        """Run a program to its end. Raises CalledProcessError where it fails."""
        argv = [sys.executable, "-m", module, *map(str, words)]
        print(f"-- {module}", flush=True)
        subprocess.run(argv, check=True)

    @contextlib.contextmanager
    def only_warns(self, step: str) -> Iterator[None]:
        """Go on where a step fails that can be done without."""
        try:
            yield
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"warning: {step}: {error}", file=sys.stderr, flush=True)


GAMES = "bronze/games_v1/{}"
MINUTES_FEATURES = "live/features_minutes_v1/{}"
MINUTES = "artifacts/minutes_v1/daily/{}"
RATES_FEATURES = "live/features_rates_v1/{}"
RATES = "gold/rates_v1_live/{}"
SIMULATED = "artifacts/sim_v2/worlds_fpts_v2/game_date={}"
OWNERSHIP = "artifacts/ownership_v1/{}"
PROJECTIONS = "artifacts/projections/{}"


def live_score(run: Run) -> None:
    """Run the nine programs. Raises CalledProcessError at the first that fails and cannot be done without."""
    same = ("--date", run.day, "--run-id", run.run_id)
    as_of = ("--run-as-of-ts", run.as_of.strftime("%Y-%m-%dT%H:%M:%SZ"))
    with run.published("ingest.scrape_all", GAMES) as out:
        run.start("projections.cli.live_pipeline", *same, *as_of, "--source", run.raw("schedule"), "--out-root", out)
    with run.published("minutes.features_live", MINUTES_FEATURES) as out:
        raw = [f"--{name.replace('_', '-')}={run.raw(name)}" for name in ("rosters", "injuries", "box_scores")]
        games = ("--games", run.place(GAMES))
        run.start("projections.cli.build_minutes_live", *same, *as_of, *games, *raw, "--out-root", out)
    with run.published("minutes.score", MINUTES) as out:
        features = ("--features-root", run.place(MINUTES_FEATURES))
        run.start("projections.cli.score_minutes_v1", *same, "--mode", "live", *features, "--out-root", out)
    with run.published("rates.features_live", RATES_FEATURES) as out:
        odds = run.raw_if_any("odds")
        read = ("--minutes-root", run.place(MINUTES), "--box-scores", run.raw("box_scores"), "--odds", odds)
        run.start("projections.cli.build_rates_features_live", *same, *read, "--out-root", out)
    with run.published("rates.score", RATES) as out:
        features = ("--features-root", run.place(RATES_FEATURES))
        run.start("projections.cli.score_rates_live", *same, *features, "--out-root", out)
    _what_only_warns(run)
    _finalize(run)


def _what_only_warns(run: Run) -> None:
    scored = ("--minutes-root", run.place(MINUTES), "--rates-root", run.place(RATES))
    with run.only_warns("sim.run"), run.published("sim.run", SIMULATED) as out:
        same = ("--run-date", run.day, "--minutes-run-id", run.run_id)
        run.start("scripts.sim_v2.run_sim_live", *same, *SIM, *scored, "--out-root", out)
    with run.only_warns("ownership.score"), run.published("ownership.score", OWNERSHIP) as out:
        read = ("--rates-root", run.place(RATES), "--salaries", run.raw("dk_salaries"))
        same = ("--date", run.day, "--run-id", run.run_id)
        run.start("projections.cli.score_ownership_live", *same, *read, "--out-root", out)


def _finalize(run: Run) -> None:
    found = {name: run.place(folder) for name, folder in (("sim-root", SIMULATED), ("ownership-root", OWNERSHIP))}
    optional = [f"--{name}={place if place.exists() else ''}" for name, place in found.items()]
    locks = json.loads((run.data_root / "raw" / "locks.json").read_text(encoding="utf-8"))
    with run.published("finalize.unified", PROJECTIONS, until=program.instant(locks[run.day.isoformat()])) as out:
        read = ("--minutes-root", run.place(MINUTES), "--rates-root", run.place(RATES), *optional)
        same = ("--date", run.day, "--run-id", run.run_id)
        run.start("projections.cli.finalize_projections", *same, *read, "--out-root", out)
    made = ("--rates-root", run.place(RATES), "--projections-root", run.place(PROJECTIONS))
    run.start("projections.cli.check_health", "check-rates-sanity", "--date", run.day, *made)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it; ends with the exit code of the program that failed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--date", type=date.fromisoformat, required=True)
    parser.add_argument("--run-id", default="", help="under which the files are published; default: a new one")
    parser.add_argument("--run-as-of-ts", type=program.instant, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    args = parser.parse_args(argv)
    run_id = args.run_id or publish.new_run_id()
    try:
        live_score(Run(args.date, args.run_as_of_ts, run_id, args.data_root))
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[2]} ended with {error.returncode}", file=sys.stderr)
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
