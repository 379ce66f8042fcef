"""A small valid catalog, and how tests build catalogs from it and ask what is wrong with them."""

from __future__ import annotations

from pathlib import Path

from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.core.problems import Problem
from orchctl.errors import CatalogInvalid

CONFIG = Path(__file__).resolve().parents[1] / "config"

JOBS = """\
version = 1
name = "tests"

[defaults]
data_root = "/srv/data"
working_directory = "/srv/project"
work_pool = "local"
timeout = "1h"
env = { SEASON = "2025" }

[jobs.score]
description = "Score"
schedules = ["daily"]
command = ["scripts/score.sh", "--date={game_date}"]
retries = 1
overlap = "skip"
outputs = ["{data_root}/out"]
legacy = [{ timer = "score.timer", scope = "system" }]

[jobs.score.env]
LEVEL = "3"

[jobs.score.gates]
min_successes = 3
within = "7d"

[jobs.other]
command = ["scripts/other.sh"]
"""

SCHEDULES = """\
version = 1
timezone = "America/New_York"

[schedules.daily]
cron = "0 8 * * *"

[schedules.pulse]
every = "90s"
anchor = 2025-12-19T00:00:00Z

[schedules.loop]
on_calendar = "*-*-* 08..23:05,35:00"

[schedules.last]
rrule = "FREQ=MONTHLY;BYDAY=-1FR"
"""


def catalog(jobs: str = JOBS, schedules: str = SCHEDULES) -> Catalog:
    return build(("jobs.toml", jobs), ("schedules.toml", schedules))


def problems(jobs: str = JOBS, schedules: str = SCHEDULES) -> tuple[Problem, ...]:
    """Return what is wrong with a catalog; nothing where it is right."""
    try:
        catalog(jobs, schedules)
    except CatalogInvalid as invalid:
        found = tuple(problem for problem in invalid.problems if isinstance(problem, Problem))
        assert found
        return found
    return ()


def changed(text: str, old: str, new: str) -> str:
    """Return `text` with the one place that says `old` saying `new`."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def write(directory: Path, jobs: str | bytes = JOBS, schedules: str | bytes = SCHEDULES) -> Path:
    """Write the two files; return their folder."""
    for name, content in (("jobs.toml", jobs), ("schedules.toml", schedules)):
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory
