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


STEPS = """\
version = 1

[defaults]
data_root = "/srv/data"
working_directory = "/srv/project"
work_pool = "local"
execution = "steps"

[limits]
api = 3

[jobs.rates]
description = "Rates"
schedules = ["daily"]
parallel_steps = 2

[jobs.rates.partition]
season = { format = "%Y", shift_months = -9 }
group = { default = "all" }

[jobs.rates.as_of]
lock = { file = "{data_root}/locks.json", key = "{game_date}.{group}", shift = "-15m" }
tip = { command = ["tip", "{game_date}", "{season}"] }

[[jobs.rates.steps]]
name = "rates.scrape"
command = ["scrape", "--to", "{staging}"]
retries = 2
retry_delay = { first = "30s", factor = 2, most = "5m", jitter = 0.5 }
permanent = ["no such league"]
concurrency = ["api"]
outputs = ["{data_root}/raw/{game_date}/run={run_id}/*.json"]

[[jobs.rates.steps]]
name = "rates.features"
after = ["rates.scrape"]
command = ["features", "--roster={inputs.roster}", "--raw={inputs.raw}", "--out={staging}/{season}"]
env = { RAW = "{inputs.raw}" }
timeout = "5m"
inputs = [
  { name = "roster", path = "{data_root}/roster/run_ts={snapshot_ts}", missing = "warn" },
  { name = "raw", path = "{data_root}/raw/{game_date}/run={run_id}" },
]
contracts = [
  { contract = "roster", input = "roster" },
  { contract = "features", file = "{season}/*.parquet" },
]
publish = { from = "{season}", to = "{data_root}/features/{group}/{game_date}/run={run_id}", policy = "window", until = "lock" }

[[jobs.rates.steps]]
name = "rates.score"
command = ["score", "{inputs.features}"]
retries = 1
retry_delay = "1m"
inputs = [{ name = "features", step = "rates.features" }]
contracts = [{ contract = "features", input = "features" }]
publish = { to = "{data_root}/rates/{group}/{game_date}/run={run_id}" }

[[jobs.rates.steps]]
name = "rates.sim"
after = ["rates.score"]
command = ["sim"]
optional = true

[jobs.plain]
execution = "command"
command = ["plain"]
"""  # noqa: E501

CONTRACTS = """\
version = 1

[contracts.roster]
rows = { min = 1 }
freshness = { within = "18h" }

[contracts.features]
description = "Features"
strict = true
unique = [["player", "day"]]
rows = { min = 1, max = 1000 }
freshness = { within = "2d", column = "seen" }

[contracts.features.columns]
player = { dtype = "string", pattern = "[a-z]+" }
day = { dtype = "date", min = "2020-01-01", max = "2030-01-01" }
seen = { dtype = "datetime", min = "2020-01-01T00:00:00Z" }
rest = { dtype = "duration", max = "3d", required = false }
p50 = { dtype = "float", min = 0, max = 48.5 }
games = { dtype = "int32", allowed = [1, 2, 3] }
home = { dtype = "bool", allowed = [true] }
team = { allowed = ["BOS", "NYK"], nullable = true }

[contracts.own]
schema = "pipeline.schemas:Rates"
"""


def catalog(jobs: str = JOBS, schedules: str = SCHEDULES, contracts: str | None = None) -> Catalog:
    return build(("jobs.toml", jobs), ("schedules.toml", schedules), ("contracts.toml", contracts))


def problems(jobs: str = JOBS, schedules: str = SCHEDULES, contracts: str | None = None) -> tuple[Problem, ...]:
    """Return what is wrong with a catalog; nothing where it is right."""
    try:
        catalog(jobs, schedules, contracts)
    except CatalogInvalid as invalid:
        found = tuple(problem for problem in invalid.problems if isinstance(problem, Problem))
        assert found
        return found
    return ()


def changed(text: str, old: str, new: str) -> str:
    """Return `text` with the one place that says `old` saying `new`."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def write(
    directory: Path,
    jobs: str | bytes = JOBS,
    schedules: str | bytes = SCHEDULES,
    contracts: str | bytes | None = None,
) -> Path:
    """Write the files; return their folder."""
    for name, content in (("jobs.toml", jobs), ("schedules.toml", schedules), ("contracts.toml", contracts)):
        if content is not None:
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory
