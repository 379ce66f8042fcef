"""The shipped catalog, and what a valid catalog means."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from catalogs import CONFIG, JOBS, SCHEDULES, catalog, changed
from orchctl.adapters import toml_files
from orchctl.core.catalog import Catalog, CronTrigger, TimerTrigger

SHIPPED = {
    "live-score": "*/5 8-23 * * *",
    "live-scrape": "5,35 8-23 * * *",
    "freeze-slates": "*/5 8-23 * * *",
    "dk-salaries": "5 8 * * *",
    "dk-ownership-aggregate": "0 2 * * *",
    "live-boxscores": "30 3 * * *",
    "tracking-daily": "0 4 * * *",
    "post-slate-minutes-labels": "0 6 * * *",
    "nightly-eval": "30 10 * * *",
}
IN_BOTH_SCOPES = {"live-score", "live-scrape"}
DAY_BEFORE = {"live-boxscores", "tracking-daily", "post-slate-minutes-labels"}


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return toml_files.load(CONFIG)


def test_the_shipped_catalog_has_the_nine_jobs_and_their_cadences(shipped: Catalog) -> None:
    cadences = {name: [schedule.cron for schedule in shipped.schedules_of(job)] for name, job in shipped.jobs.items()}
    assert cadences == {name: [cron] for name, cron in sorted(SHIPPED.items())}
    assert shipped.timezone == "America/New_York"
    assert {schedule.timezone for [schedule] in shipped.schedules.values()} == {"America/New_York"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_job_names_the_timers_that_start_it_today(shipped: Catalog, name: str) -> None:
    scopes = ["system", "user"] if name in IN_BOTH_SCOPES else ["system"]
    expected = tuple(TimerTrigger.model_validate({"timer": f"{name}.timer", "scope": scope}) for scope in scopes)
    assert shipped.jobs[name].legacy == expected
    assert shipped.jobs[name].game_date_offset_days == (-1 if name in DAY_BEFORE else 0)


LOAD = """
from pathlib import Path
from orchctl.adapters import toml_files
print(len(toml_files.load(Path(sys.argv[1])).jobs), "jobs")
"""
CHECK = """
from orchctl.cli.app import main
try:
    main(["check", "--config", sys.argv[1]])
except SystemExit as ended:
    assert not ended.code
"""
SHOW = """
print("heavy:", *[name for name in ("httpx", "prefect", "rich") if name in sys.modules])
"""


@pytest.mark.parametrize("action", [LOAD, CHECK], ids=["load", "check"])
def test_loading_it_imports_no_heavy_library(action: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import sys\n{action}{SHOW}", str(CONFIG)]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert "9 jobs" in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("which", ["shipped", "small", "all kinds"])
def test_the_applied_form_reads_back_as_the_same_catalog(shipped: Catalog, which: str) -> None:
    original = {"shipped": shipped, "small": catalog(), "all kinds": catalog(ALL_KINDS)}[which]
    text = json.dumps(original.to_json())
    assert Catalog.from_json(json.loads(text)) == original
    assert Catalog.from_json(json.loads(text)).digest == original.digest


ALL_KINDS = JOBS + (
    '\n[jobs.hand]\ncommand = ["x"]\nasset = "hand.made"\nlegacy = [{ cron = "0 15 * * * run", user = "daniel" }]\n'
    'schedules = ["pulse", "loop", "last"]\ndry_run_command = ["x", "-n"]\noverlap = "queue"\ncatchup = "all"\n'
)


@pytest.mark.parametrize("broken", [{}, {"name": "x"}, {"jobs": []}, {"extra": 1}])
def test_an_applied_form_that_is_none_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Catalog.from_json({**catalog().to_json(), **broken} if "extra" in broken else broken)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same tables with their keys in another order; lists keep theirs, for it means something."""
    if not isinstance(value, dict):
        return value
    keys = list(value)
    order.shuffle(keys)
    return {key: shuffled(value[key], order) for key in keys}


@pytest.mark.parametrize("seed", range(5))
def test_the_digest_does_not_depend_on_order_or_comments(shipped: Catalog, seed: int) -> None:
    jobs, schedules, contracts = (
        "# a comment\n" + tomli_w.dumps(shuffled(tomllib.loads((CONFIG / name).read_text()), random.Random(seed)))
        for name in ("jobs.toml", "schedules.toml", "contracts.toml")
    )
    assert catalog(jobs, schedules, contracts).digest == shipped.digest


def test_the_digest_does_not_depend_on_saying_a_default_or_a_duration_in_another_way() -> None:
    said = changed(JOBS, "retries = 1\n", 'retries = 1\ntimeout = "60m"\nkill_after = "10s"\nnice = 0\n')
    assert catalog(said).digest == catalog().digest


CHANGES_OF_JOBS = [
    ('name = "tests"', 'name = "other"'),
    ('"/srv/data"', '"/srv/data2"'),
    ('"/srv/project"', '"/srv"'),
    ('"local"', '"remote"'),
    ('timeout = "1h"', 'timeout = "61m"'),
    ('SEASON = "2025"', 'SEASON = "2026"'),
    ('SEASON = "2025"', 'OTHER = "2025"'),
    ('"Score"', '"Scores"'),
    ('["daily"]', '["daily", "pulse"]'),
    ('["daily"]', "[]"),
    ('"--date={game_date}"', '"--date", "{game_date}"'),
    ("retries = 1", "retries = 2"),
    ("retries = 1", 'retries = 1\nretry_delay = "2m"'),
    ("retries = 1", 'retries = 1\ndry_run_command = ["x"]'),
    ("retries = 1", "retries = 1\nnice = 1"),
    ("retries = 1", 'retries = 1\nasset = "other"'),
    ("retries = 1", "retries = 1\ngame_date_offset_days = -1"),
    ("retries = 1", 'retries = 1\nkill_after = "11s"'),
    ("retries = 1", 'retries = 1\ncatchup = "all"'),
    ("retries = 1", 'retries = 1\ncatchup_window = "11m"'),
    ("retries = 1", 'retries = 1\ntags = ["x"]'),
    ('overlap = "skip"', 'overlap = "queue"'),
    ('"{data_root}/out"', '"{data_root}/out2"'),
    ('scope = "system"', 'scope = "user"'),
    ('{ timer = "score.timer", scope = "system" }', ""),
    ("min_successes = 3", "min_successes = 4"),
    ('within = "7d"', 'within = "8d"'),
    ("[jobs.other]", "[jobs.another]"),
]
CHANGES_OF_SCHEDULES = [
    ('timezone = "America/New_York"', 'timezone = "UTC"'),
    ('cron = "0 8 * * *"', 'cron = "1 8 * * *"'),
    ('cron = "0 8 * * *"', 'cron = "0 8 * * *"\ntimezone = "UTC"'),
    ('every = "90s"', 'every = "91s"'),
    ("2025-12-19T00:00:00Z", "2025-12-19T00:00:01Z"),
    ('"*-*-* 08..23:05,35:00"', '["*-*-* 08..23:05,35:00", "daily"]'),
    ("BYDAY=-1FR", "BYDAY=-1MO"),
    ("[schedules.last]", "[schedules.final]"),
]


def test_every_change_of_meaning_changes_the_digest() -> None:
    digests = [catalog().digest]
    digests += [catalog(changed(JOBS, old, new)).digest for old, new in CHANGES_OF_JOBS]
    digests += [catalog(schedules=changed(SCHEDULES, old, new)).digest for old, new in CHANGES_OF_SCHEDULES]
    assert len(set(digests)) == 1 + len(CHANGES_OF_JOBS) + len(CHANGES_OF_SCHEDULES)


def test_a_key_of_a_job_replaces_its_default() -> None:
    jobs = catalog(changed(JOBS, "retries = 1", 'retries = 1\ntimeout = "5m"\ndata_root = "/else"')).jobs
    assert (jobs["score"].timeout, jobs["other"].timeout) == (300, 3600)
    assert (jobs["score"].data_root, jobs["other"].data_root) == ("/else", "/srv/data")


def test_env_is_merged_key_by_key() -> None:
    jobs = catalog(changed(JOBS, 'LEVEL = "3"', 'LEVEL = "3"\nSEASON = "1999"')).jobs
    assert jobs["score"].env == {"SEASON": "1999", "LEVEL": "3"}
    assert jobs["other"].env == {"SEASON": "2025"}
    assert catalog().jobs["score"].env == {"SEASON": "2025", "LEVEL": "3"}


def test_what_no_table_says_has_its_documented_default() -> None:
    job = catalog().jobs["other"]
    assert (job.asset, job.schedules, job.retries, job.overlap, job.catchup) == ("other", (), 0, "skip", "latest")
    assert (job.kill_after, job.catchup_window, job.gates.min_successes, job.has_legacy) == (10, 600, 3, False)


def test_a_list_of_calendar_lines_becomes_one_schedule_a_line() -> None:
    text = changed(SCHEDULES, '"*-*-* 08..23:05,35:00"', '["daily", "Mon 12:00 UTC"]')
    first, second = catalog(schedules=text).schedules["loop"]
    assert (first.name, first.on_calendar) == ("loop", ("daily",))
    assert (second.name, second.on_calendar) == ("loop-2", ("Mon 12:00 UTC",))


@pytest.mark.parametrize("anchor", ["2025-12-19T00:00:00Z", "2025-12-18T19:00:00-05:00", '"2025-12-19T00:00:00Z"'])
def test_an_anchor_is_an_instant_however_it_is_written(anchor: str) -> None:
    text = changed(SCHEDULES, "2025-12-19T00:00:00Z", anchor)
    assert catalog(schedules=text).digest == catalog().digest


def test_a_crontab_line_is_a_trigger_too() -> None:
    assert catalog(ALL_KINDS).jobs["hand"].legacy == (CronTrigger(cron="0 15 * * * run", user="daniel"),)
