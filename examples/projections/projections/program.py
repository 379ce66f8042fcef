"""What the programs share: their arguments, and how they fail on purpose."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

BREAK, OUTAGES, FAIL = "PROJECTIONS_BREAK", "PROJECTIONS_OUTAGES", "PROJECTIONS_FAIL"
"""Trouble on request: a step whose output breaks its contract, how often the source does not answer, a step that fails.

They are variables of the environment, so that nothing in a catalog or a command says that this is an example.
"""
EX_TEMPFAIL = 75


def arguments(about: str | None, *roots: str, optional: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return a parser with `--date`, `--run-id`, `--out-root` and a path for each of `roots`.

    One of `optional` may be left out or empty: then it is None, and the program goes on without it.
    """
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.add_argument("--date", type=date.fromisoformat, required=True, help="the game date")
    parser.add_argument("--run-id", default="", help="which run this is; no file tells it")
    parser.add_argument("--out-root", type=Path, required=True, help="the folder to write to")
    for root in roots:
        parser.add_argument(f"--{root}", type=Path, required=True, help=f"where {root} is")
    for root in optional:
        parser.add_argument(f"--{root}", type=_place, default=None, help=f"where {root} is, if there is any")
    return parser


def _place(text: str) -> Path | None:
    return Path(text) if text else None


def instant(text: str) -> datetime:
    """Read an instant such as 2025-12-19T22:30:00Z."""
    return datetime.fromisoformat(text).astimezone(UTC)


def is_broken(step: str) -> bool:
    """Whether this step is asked to break the contract of its output."""
    return os.environ.get(BREAK) == step


def fail_if_asked(step: str) -> None:
    """End the program where this step is asked to fail."""
    if os.environ.get(FAIL) == step:
        sys.exit(f"{step}: failing, as {FAIL} asks")


def look_up(host: str, run_folder: Path) -> None:
    """Stand in for a look at an outside source: as often as asked, its name cannot be resolved.

    How often it was tried is counted in the run's own folder, for each try is a process of its own.
    """
    wanted = int(os.environ.get(OUTAGES) or 0)
    if not wanted:
        return
    run_folder.mkdir(parents=True, exist_ok=True)
    counter = run_folder / "outages"
    tried = int(counter.read_text()) if counter.exists() else 0
    if tried < wanted:
        counter.write_text(str(tried + 1))
        print(f"{host}: [Errno -3] Temporary failure in name resolution", file=sys.stderr)
        sys.exit(EX_TEMPFAIL)
