"""Raw data out of a seed: a league, its games, and what scrapers would have left in the course of each day."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl

from projections import snapshots

# fmt: off
TEAMS = (
    "ATL", "BOS", "BKN", "CHA", "CHI", "CLE", "DAL", "DEN", "DET", "GSW", "HOU", "IND", "LAC", "LAL", "MEM",
    "MIA", "MIL", "MIN", "NOP", "NYK", "OKC", "ORL", "PHI", "PHX", "POR", "SAC", "SAS", "TOR", "UTA", "WAS",
)
# fmt: on
POSITIONS = ("PG", "SG", "SF", "PF", "C")
ROSTER = 14
HISTORY_DAYS = 20
TIP = time(0, 30)
"""Of the first game, UTC: the evening of the day before in New York."""
# When the scrapers left a snapshot, hours of the game date in UTC. Those after 22:30 are too new for a run before the
# first game, and say something else, so that a run that reads them is found out.
HOURS = {
    "schedule": (6.0,),
    "box_scores": (9.0,),
    "dk_salaries": (13.1, 23.2),
    "rosters": (14.0, 20.0, 23.5),
    "injuries": (14.0, 21.0, 23.5),
    "odds": (15.0, 21.5, 23.75),
}


@dataclass(frozen=True, slots=True)
class Player:
    """Somebody of a roster, and how good he is."""

    player_id: int
    name: str
    team: str
    position: str
    minutes: float
    fg2: float


def league(seed: int) -> tuple[Player, ...]:
    """Return the players of all teams."""
    draw = random.Random(f"{seed}/league")
    return tuple(
        Player(
            1000 + number,
            f"{team} {chr(65 + place)}. Player",
            team,
            POSITIONS[place % 5],
            max(3.0, 35.0 - 2.3 * place + draw.gauss(0, 1.5)),
            min(0.75, max(0.35, draw.gauss(0.53, 0.06))),
        )
        for number, (team, place) in enumerate((team, place) for team in TEAMS for place in range(ROSTER))
    )


def games(seed: int, day: date) -> Iterator[tuple[str, str, str, datetime]]:
    """Yield the games of a date: id, home, away and when it begins."""
    teams = list(TEAMS)
    draw = random.Random(f"{seed}/games/{day}")
    draw.shuffle(teams)
    first = datetime.combine(day + timedelta(days=1), TIP, UTC)
    for number in range(draw.randint(8, 12)):
        home, away = teams[2 * number : 2 * number + 2]
        yield f"{day:%Y%m%d}{home}{away}", home, away, first + timedelta(minutes=30 * (number % 5))


def write(root: Path, days: Sequence[date], *, seed: int = 7) -> None:
    """Write the snapshots of each day, and when each day's contests lock, below `root`/raw. Repeatable."""
    players = league(seed)
    for day in days:
        for table, hours in HOURS.items():
            for hour in hours:
                at = datetime.combine(day, time(), UTC) + timedelta(hours=hour)
                frame = _MAKERS[table](players, day, random.Random(f"{seed}/{table}/{at}"), seed)
                folder = snapshots.folder(root, table, at)
                folder.mkdir(parents=True, exist_ok=True)
                frame.write_parquet(folder / f"{table}.parquet")
    locks = {day.isoformat(): min(tip for *_, tip in games(seed, day)).strftime("%Y-%m-%dT%H:%M:%SZ") for day in days}
    (root / "raw" / "locks.json").write_text(json.dumps(locks, indent=1) + "\n", encoding="utf-8")


def _schedule(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:  # noqa: ARG001
    rows = [
        (game, on.isoformat(), home, away, tip.strftime("%Y-%m-%dT%H:%M:%SZ"))
        for on in (day - timedelta(days=1), day, day + timedelta(days=1))
        for game, home, away, tip in games(seed, on)
    ]
    return pl.DataFrame(rows, schema=["game_id", "game_date", "home", "away", "tip_ts"], orient="row")


def _rosters(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:  # noqa: ARG001
    rows = [(each.player_id, each.name, each.team, each.position) for each in players if draw.random() > 0.01]
    return pl.DataFrame(rows, schema=["player_id", "player", "team", "position"], orient="row")


def _injuries(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:  # noqa: ARG001
    rows = [
        (each.player_id, draw.choice(["out", "doubtful", "questionable"])) for each in players if draw.random() < 0.12
    ]
    return pl.DataFrame(rows, schema=["player_id", "status"], orient="row")


def _odds(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:  # noqa: ARG001
    rows = [(game, round(draw.gauss(228, 6) * 2) / 2, round(draw.gauss(0, 6) * 2) / 2) for game, *_ in games(seed, day)]
    return pl.DataFrame(rows, schema=["game_id", "total", "home_spread"], orient="row")


def _salaries(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:
    playing = {team for _, home, away, _ in games(seed, day) for team in (home, away)}
    rows = [
        (each.player_id, max(3000, round(each.minutes * 220 + draw.gauss(900, 300)) // 100 * 100))
        for each in players
        if each.team in playing
    ]
    return pl.DataFrame(rows, schema=["player_id", "salary"], orient="row")


def _box_scores(players: Sequence[Player], day: date, draw: random.Random, seed: int) -> pl.DataFrame:  # noqa: ARG001
    """Return what was played on the days before, in whole numbers: their sums are the same in any order."""
    rows = []
    for on in (day - timedelta(days=back) for back in range(HISTORY_DAYS, 0, -1)):
        one = random.Random(f"{seed}/played/{on}")
        playing = {team for _, home, away, _ in games(seed, on) for team in (home, away)}
        for each in players:
            if each.team not in playing or one.random() < 0.08:
                continue
            seconds = max(30, round(60 * one.gauss(each.minutes, 4)))
            tried = max(1, round(seconds / 240 + one.gauss(0, 1)))
            made = sum(one.random() < each.fg2 for _ in range(tried))
            threes = max(0, round(seconds / 600 + one.gauss(0, 1)))
            rows.append((each.player_id, on.isoformat(), seconds, made, tried, threes, one.randint(0, 6)))
    columns = ["player_id", "game_date", "seconds", "fg2_made", "fg2_tried", "fg3_made", "assists"]
    return pl.DataFrame(rows, schema=columns, orient="row")


_MAKERS = {
    "schedule": _schedule,
    "box_scores": _box_scores,
    "dk_salaries": _salaries,
    "rosters": _rosters,
    "injuries": _injuries,
    "odds": _odds,
}
