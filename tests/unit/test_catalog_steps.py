"""Steps, contracts and limits in a valid catalog: what they mean, and what of them is part of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalogs import CONFIG, CONTRACTS, STEPS, catalog, changed, problems, write
from orchctl.adapters import toml_files
from orchctl.core import steps
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.core.catalog_steps import RetryDelay
from orchctl.core.plan import same_job
from orchctl.errors import CatalogInvalid

PIPELINE = {
    "ingest.scrape_all": "projections.cli.live_pipeline",
    "minutes.features_live": "projections.cli.build_minutes_live",
    "minutes.score": "projections.cli.score_minutes_v1",
    "rates.features_live": "projections.cli.build_rates_features_live",
    "rates.score": "projections.cli.score_rates_live",
    "sim.run": "scripts.sim_v2.run_sim_live",
    "ownership.score": "projections.cli.score_ownership_live",
    "finalize.unified": "projections.cli.finalize_projections",
    "health.checks": "projections.cli.check_health",
}


def whole(jobs: str = STEPS, contracts: str | None = CONTRACTS) -> Catalog:
    return catalog(jobs, contracts=contracts)


def test_the_shipped_live_score_is_there_both_ways_and_runs_as_its_command() -> None:
    job = toml_files.load(CONFIG).jobs["live-score"]
    assert (job.execution, job.command) == ("command", ("scripts/run_live_score.sh",))
    assert {step.name: step.command[4] for step in job.steps} == PIPELINE
    assert [step.name for step in steps.order(job.steps)] == list(PIPELINE)
    assert {step.name for step in job.steps if step.optional} == {"sim.run", "ownership.score"}
    assert steps.ancestors(job.steps, "health.checks") == set(PIPELINE) - {"health.checks"}


def test_the_shipped_contracts_are_used_and_the_roster_is_no_older_than_18_hours() -> None:
    shipped = toml_files.load(CONFIG)
    used = {use.contract for step in shipped.jobs["live-score"].steps for use in step.contracts}
    assert used == set(shipped.contracts)
    roster = shipped.contracts["roster"].freshness
    assert roster is not None
    assert (roster.within, roster.column) == (18 * 3600, None)
    assert "season_fg2_pct" in shipped.contracts["features_rates"].columns
    assert shipped.limits == {"nba-api": 3}


def test_switching_the_shipped_job_to_its_steps_is_one_edit(tmp_path: Path) -> None:
    texts = {name: (CONFIG / name).read_text() for name in ("jobs.toml", "schedules.toml", "contracts.toml")}
    after = changed(texts["jobs.toml"], '\nexecution = "command"\n', '\nexecution = "steps"\n')
    write(tmp_path, after, texts["schedules.toml"], texts["contracts.toml"])
    before, now = toml_files.load(CONFIG), toml_files.load(tmp_path)
    assert now.jobs["live-score"].execution == "steps"
    assert {name for name in now.jobs if not same_job(before, now, name)} == {"live-score"}


def test_the_steps_keep_the_order_in_which_they_were_written() -> None:
    names = [step.name for step in whole().jobs["rates"].steps]
    assert names == ["rates.scrape", "rates.features", "rates.score", "rates.sim"]


def test_a_plain_duration_is_the_same_wait_each_time() -> None:
    _, features, score, _ = whole().jobs["rates"].steps
    assert score.retry_delay == RetryDelay(first="1m", factor=1.0, most="1m", jitter=0.0)  # type: ignore[arg-type]
    assert features.retry_delay.first == 30


def test_a_job_that_runs_as_its_steps_needs_no_command() -> None:
    assert whole().jobs["rates"].command == ()


def test_a_job_without_steps_takes_no_part_in_any_of_it() -> None:
    plain = whole().jobs["plain"]
    assert (plain.steps, plain.execution, dict(plain.partition)) == ((), "command", {})


def test_no_file_of_contracts_is_no_contract() -> None:
    assert catalog().contracts == {}
    assert dict(catalog(contracts="version = 1\n").contracts) == {}


def test_contracts_are_sorted_and_read_whole() -> None:
    contracts = whole().contracts
    assert list(contracts) == ["features", "own", "roster"]
    assert contracts["own"].schema_class == "pipeline.schemas:Rates"
    assert (contracts["features"].columns["p50"].min, contracts["features"].columns["p50"].max) == (0, 48.5)


def test_the_applied_form_reads_back_as_the_same_catalog() -> None:
    text = json.dumps(whole().to_json())
    assert '"from": "{season}"' in text
    assert '"schema": "pipeline.schemas:Rates"' in text
    assert Catalog.from_json(json.loads(text)) == whole()
    assert Catalog.from_json(json.loads(text)).digest == whole().digest


OF_STEPS = [
    ("api = 3", "api = 4"),
    ("parallel_steps = 2", "parallel_steps = 3"),
    ("shift_months = -9", "shift_months = -8"),
    ('default = "all"', 'default = "some"'),
    ('shift = "-15m"', 'shift = "-16m"'),
    ('name = "rates.sim"', 'name = "rates.simulate"'),
    ('command = ["sim"]', 'command = ["simulate"]'),
    ('after = ["rates.score"]', 'after = ["rates.score", "rates.features"]'),
    ("optional = true", "optional = false"),
    ("retries = 2", "retries = 3"),
    ("jitter = 0.5", "jitter = 0.6"),
    ("no such league", "no such team"),
    ('concurrency = ["api"]', ""),
    ('timeout = "5m"', 'timeout = "6m"'),
    ('missing = "warn"', 'missing = "skip"'),
    ('from = "{season}", ', ""),
    ('until = "lock"', 'until = "tip"'),
    ("{data_root}/rates/", "{data_root}/scores/"),
    ("/*.json", "/*.jsonl"),
    ('execution = "steps"\n', 'execution = "steps"\nbackfill = { parallel = 3 }\n'),
]
OF_CONTRACTS = [
    ('within = "18h"', 'within = "19h"'),
    ("max = 48.5", "max = 48"),
    ("strict = true", "strict = false"),
    ('[["player", "day"]]', '[["player"]]'),
    ('"BOS", ', ""),
    ("pipeline.schemas:Rates", "pipeline.schemas:Other"),
    ('description = "Features"', 'description = "All features"'),
]


def test_every_change_of_meaning_changes_the_digest() -> None:
    digests = [whole().digest]
    digests += [whole(changed(STEPS, old, new)).digest for old, new in OF_STEPS]
    digests += [whole(contracts=changed(CONTRACTS, old, new)).digest for old, new in OF_CONTRACTS]
    assert len(set(digests)) == 1 + len(OF_STEPS) + len(OF_CONTRACTS)


def touched(jobs: str = STEPS, contracts: str = CONTRACTS) -> set[str]:
    """The jobs that a change makes others of."""
    before, after = whole(), whole(jobs, contracts)
    return {name for name in before.jobs if not same_job(before, after, name)}


@pytest.mark.parametrize(("old", "new"), OF_CONTRACTS)
def test_a_contract_is_part_of_the_jobs_whose_steps_use_it_and_of_no_other(old: str, new: str) -> None:
    assert touched(contracts=changed(CONTRACTS, old, new)) == (set() if "pipeline.schemas" in old else {"rates"})


def test_a_contract_that_nobody_uses_touches_no_job() -> None:
    assert touched(contracts=CONTRACTS + "\n[contracts.more]\nrows = { min = 1 }\n") == set()


def test_a_limit_is_part_of_the_jobs_whose_steps_name_it() -> None:
    assert touched(changed(STEPS, "api = 3", "api = 4")) == {"rates"}
    assert touched(changed(STEPS, "api = 3", "api = 3\nother = 1")) == set()


def test_the_parts_of_a_job_are_its_keys_its_steps_and_what_they_name() -> None:
    made = whole()
    parts = made.parts_of(made.jobs["rates"])
    assert parts["steps"] == ["rates.scrape", "rates.features", "rates.score", "rates.sim"]
    assert parts["steps.rates.features"]["publish"]["from"] == "{season}"
    assert parts["limits.api"] == 3
    assert {key for key in parts if key.startswith("contracts.")} == {"contracts.features", "contracts.roster"}
    assert not {key for key in made.parts_of(made.jobs["plain"]) if "." in key}


DEFAULTS = """\
version = 1

[defaults]
data_root = "/srv/data"
working_directory = "/srv/project"
work_pool = "local"
env = { SEASON = "{season}" }
partition = { season = { format = "%Y" }, group = { default = "all" } }
as_of = { lock = { file = "/srv/lock" } }

[jobs.a]
command = ["x", "{season}", "{group}"]

[jobs.b]
command = ["x", "{season}", "{month}"]
partition = { season = { format = "%y" }, month = { format = "%m" } }
as_of = { tip = { file = "/srv/tip" } }
"""


def test_partition_and_as_of_are_merged_over_their_defaults_key_by_key() -> None:
    jobs = catalog(DEFAULTS).jobs
    assert {name: key.format for name, key in jobs["a"].partition.items()} == {"season": "%Y", "group": None}
    assert {name: key.format for name, key in jobs["b"].partition.items()} == {
        "season": "%y",
        "group": None,
        "month": "%m",
    }
    assert sorted(jobs["b"].as_of) == ["lock", "tip"]


def test_two_jobs_may_share_an_asset_and_steps_may_share_a_name_in_other_roots() -> None:
    step = '\n[[jobs.{0}.steps]]\nname = "s"\ncommand = ["x"]\n'
    two = (
        f'{DEFAULTS}asset = "x"\n'
        + step.format("b")
        + '\n[jobs.c]\ncommand = ["x"]\nasset = "x"\ndata_root = "/else"\n'
    )
    assert problems(two + step.format("c")) == ()


def test_a_step_may_read_a_folder_above_what_another_makes_and_a_file_below_what_it_publishes() -> None:
    above = changed(STEPS, '/run={run_id}" },\n]', '/run={run_id}/a.json" },\n]')
    assert problems(above, contracts=CONTRACTS) == ()
    below = changed(
        above, 'step = "rates.features"', 'path = "{data_root}/features/{group}/{game_date}/run={run_id}/x/y.parquet"'
    )
    assert problems(changed(below, "retries = 1", 'after = ["rates.features"]'), contracts=CONTRACTS) == ()


def test_what_an_output_names_with_two_stars_is_made_whatever_is_below() -> None:
    text = changed(STEPS, "/run={run_id}/*.json", "/**")
    assert problems(text, contracts=CONTRACTS) == ()


@pytest.mark.parametrize("until", ["{game_date}T19:00:00-05:00", "{run_as_of_ts}", "2026-01-01T00:00:00Z", "tip"])
def test_the_end_of_a_window_is_a_template_for_an_instant_or_a_mode(until: str) -> None:
    assert problems(changed(STEPS, 'until = "lock"', f'until = "{until}"'), contracts=CONTRACTS) == ()


def test_a_partition_key_that_must_be_given_is_right_in_a_job_without_schedules() -> None:
    text = changed(STEPS, 'group = { default = "all" }', "group = {}")
    assert problems(changed(text, 'schedules = ["daily"]\n', ""), contracts=CONTRACTS) == ()


def test_the_age_of_what_another_step_made_is_that_of_its_run() -> None:
    text = changed(
        STEPS,
        'contracts = [{ contract = "features", input = "features" }]',
        'contracts = [{ contract = "roster", input = "features" }]',
    )
    assert problems(text, contracts=CONTRACTS) == ()


MANY = """\
version = 1

[defaults]
data_root = "/srv/data"
working_directory = "/srv/project"
work_pool = "local"

[limits]
api = "many"

[jobs.a]
execution = "steps"

[[jobs.a.steps]]
name = "one"
command = ["x", "{inputs.no}"]
after = ["two", "thre"]
retries = -1

[[jobs.a.steps]]
command = ["x", "{nope}"]
name = "two"
after = ["one"]
contracts = [{ contract = "rostr" }]
publish = { to = "x" }

[[jobs.a.steps]]
name = "No Name"
command = ["{what}"]

[[jobs.a.steps]]
name = "three"
command = ["x"]
concurrency = ["apy"]
inputs = [{ name = "i", path = "/x", step = "two" }]
"""
MANY_CONTRACTS = """\
version = 1

[contracts.Bad]
rows = { min = 2, max = 1 }

[contracts.roster]
rows = { min = "1" }

[contracts.last.columns]
a = { pattern = "(" }
b = { dtype = "int8", min = "x" }
"""
EXPECTED = [
    "contracts.toml:3 [contracts.Bad]",
    "contracts.toml:4 [contracts.Bad] rows.max",
    "contracts.toml:7 [contracts.roster] rows.min",
    "contracts.toml:10 [contracts.last] columns.a.pattern",
    "contracts.toml:11 [contracts.last] columns.b.min",
    "jobs.toml:9 [limits] api",
    "jobs.toml:16 [jobs.a] steps[0].command[1]",
    "jobs.toml:17 [jobs.a] steps[0].after",
    "jobs.toml:17 [jobs.a] steps[0].after[1]",
    "jobs.toml:18 [jobs.a] steps[0].retries",
    "jobs.toml:21 [jobs.a] steps[1].command[1]",
    "jobs.toml:24 [jobs.a] steps[1].contracts[0].contract",
    "jobs.toml:25 [jobs.a] steps[1].publish.to",
    "jobs.toml:25 [jobs.a] steps[1].publish.to",
    "jobs.toml:25 [jobs.a] steps[1].publish.to",
    "jobs.toml:28 [jobs.a] steps[2].name",
    "jobs.toml:29 [jobs.a] steps[2].command[0]",
    "jobs.toml:34 [jobs.a] steps[3].concurrency[0]",
    "jobs.toml:35 [jobs.a] steps[3].inputs[0]",
]


def test_every_problem_of_all_files_is_reported_in_one_pass_in_file_order() -> None:
    found = problems(MANY, contracts=MANY_CONTRACTS)
    assert [f"{problem.where} {problem.place}" for problem in found] == EXPECTED


def test_where_contracts_cannot_be_read_nothing_is_said_of_their_names() -> None:
    found = problems(STEPS, contracts="version = 1\n[")
    assert [f"{problem.where} {problem.message[:8]}" for problem in found] == ["contracts.toml:2 not TOML"]


@pytest.mark.parametrize(
    ("contracts", "expected"),
    [
        ("", ["contracts.toml version"]),
        ("version = 1\ncontracts = 5\n", ["contracts.toml:2 [contracts]"]),
        ("version = 1\n[[contracts]]\n", ["contracts.toml:2 [contracts]"]),
        ("version = 1\ncontracts.a = 5\n", ["contracts.toml:2 [contracts.a]"]),
        ("version = 1\ncontracts.a.columns = 5\n", ["contracts.toml:2 [contracts.a] columns"]),
        ("version = 1\ncontracts.a.columns.b = 5\n", ["contracts.toml:2 [contracts.a] columns.b"]),
    ],
)
def test_contracts_of_a_wrong_form(contracts: str, expected: list[str]) -> None:
    assert [f"{problem.where} {problem.place}".strip() for problem in problems(contracts=contracts)] == expected


def test_a_missing_contract_names_the_file_where_there_is_none() -> None:
    found = problems(STEPS)
    assert {problem.allowed for problem in found} == {"no contract is defined in contracts.toml"}
    assert len(found) == 3


def test_bytes_of_contracts_that_are_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path, STEPS, contracts=b'version = 1\nx = "\xff"\n')
    with pytest.raises(CatalogInvalid) as caught:
        toml_files.load(tmp_path)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [
        (str(tmp_path / "contracts.toml"), 2)
    ]


def test_the_files_on_disk_are_read_and_their_texts_returned(tmp_path: Path) -> None:
    write(tmp_path, STEPS, contracts=CONTRACTS)
    assert toml_files.load(tmp_path) == whole()
    assert toml_files.texts(tmp_path)["contracts.toml"] == CONTRACTS
    (tmp_path / "contracts.toml").unlink()
    assert toml_files.texts(tmp_path)["contracts.toml"] is None


SECRET = "hunter2secret"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('env = { RAW = "{inputs.raw}" }', f'env = {{ API_TOKEN = "{{{SECRET}}}" }}'),
        ('env = { RAW = "{inputs.raw}" }', f'env = {{ API_TOKEN = ["{SECRET}"] }}'),
        ('command = ["sim"]', f'command = ["sim", "https://me:{{{SECRET}}}@host/"]'),
        ('command = ["sim"]', f'command = "sim https://me:{SECRET}@host/"'),
        ("{data_root}/rates/{group}/{game_date}/run={run_id}", f"https://me:{SECRET}@host/x"),
        ('permanent = ["no such league"]', f'permanent = ["https://me:{SECRET}@host/("]'),
    ],
)
def test_secrets_never_appear(old: str, new: str) -> None:
    found = problems(changed(STEPS, old, new), contracts=CONTRACTS)
    assert found
    assert SECRET not in repr(found)


def test_build_takes_the_two_files_alone() -> None:
    schedules = ("schedules.toml", "version = 1\n[schedules.daily]\ncron = '0 8 * * *'\n")
    assert build(("jobs.toml", DEFAULTS), schedules).contracts == {}
