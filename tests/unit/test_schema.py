"""The JSON Schemas that editors use: they take what `check` takes, and refuse what one table shows to be wrong."""

from __future__ import annotations

import json
import tomllib
from datetime import date
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from catalogs import CONFIG, CONTRACTS, JOBS, SCHEDULES, STEPS, changed
from orchctl.core import catalog_steps, contracts, schema
from orchctl.core.catalog import Gates, JobTable, ScheduleTable

FILES = {"jobs": schema.jobs, "schedules": schema.schedules, "contracts": schema.contracts}


def as_json(text: str) -> Any:
    """A document as an editor sees it: instants are strings of the format date-time."""
    return json.loads(json.dumps(tomllib.loads(text), default=_instant))


def _instant(value: object) -> str:
    assert isinstance(value, date)
    return value.isoformat()


def errors(file: str, text: str) -> list[str]:
    validator = Draft202012Validator(FILES[file](), format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(as_json(text))]


@pytest.mark.parametrize("file", FILES)
def test_it_is_a_schema_of_draft_2020_12(file: str) -> None:
    Draft202012Validator.check_schema(FILES[file]())
    assert FILES[file]()["$schema"].endswith("draft/2020-12/schema")


@pytest.mark.parametrize("file", FILES)
def test_the_shipped_files_are_valid_and_name_it(file: str) -> None:
    text = (CONFIG / f"{file}.toml").read_text(encoding="utf-8")
    assert errors(file, text) == []
    assert text.splitlines()[0] == f"#:schema ../docs/schema/{file}.schema.json"


def test_a_crontab_trigger_and_a_list_of_expressions_are_valid() -> None:
    jobs = changed(JOBS, '{ timer = "score.timer", scope = "system" }', '{ cron = "0 1 * * * x", user = "me" }')
    assert errors("jobs", jobs) == []
    assert errors("schedules", changed(SCHEDULES, '"*-*-* 08..23:05,35:00"', '["daily", "12:00"]')) == []


def test_steps_and_contracts_are_valid() -> None:
    assert errors("jobs", STEPS) == []
    assert errors("contracts", CONTRACTS) == []
    assert errors("jobs", changed(STEPS, "factor = 2", "factor = 2.5")) == []


BROKEN_STEPS = [
    ('name = "rates.sim"\n', ""),
    ('name = "rates.sim"', 'name = "rates..sim"'),
    ('name = "rates.sim"', 'name = "rates sim"'),
    ('command = ["sim"]', ""),
    ('command = ["sim"]', "command = []"),
    ('command = ["sim"]', 'command = [" "]'),
    ('command = ["sim"]', 'command = ["sim", "{Season}"]'),
    ("optional = true", "optionl = true"),
    ("optional = true", "outputs = ['out']"),
    ("optional = true", "retry_delay = 30"),
    ("optional = true", 'retry_delay = "half a minute"'),
    ("optional = true", 'env = { ORCHCTL_X = "x" }'),
    ('first = "30s", ', ""),
    ("factor = 2", "factor = 0.5"),
    ("jitter = 0.5", "jitter = 1.5"),
    ('step = "rates.features"', 'step = "rates.features", path = "/x"'),
    ('step = "rates.features"', 'missing = "warn"'),
    ('step = "rates.features"', 'step = "rates.features", missing = "ignore"'),
    ('"{data_root}/roster/', '"roster/'),
    ('contract = "roster", input', "input"),
    ('file = "{season}/*.parquet"', 'file = "/*.parquet"'),
    ("{data_root}/rates/{group}/{game_date}/run={run_id}", "{data_root}/rates/{group}/{game_date}/run"),
    ("{data_root}/rates/{group}/{game_date}/run={run_id}", "{data_root}/rates/{group}/run={run_id}"),
    ("{data_root}/rates/{group}/{game_date}/run={run_id}", "rates/{group}/{game_date}/run={run_id}"),
    ('from = "{season}"', 'from = "/{season}"'),
    ('policy = "window", until', "until"),
    (', until = "lock"', ""),
    ('policy = "window"', 'policy = "sometimes"'),
    ("api = 3", "api = 0"),
    ("api = 3", '"A P I" = 3'),
    ('format = "%Y"', 'format = "%Y", default = "2025"'),
    ('format = "%Y", ', ""),
    ("season = {", "Season = {"),
    ('key = "{game_date}.{group}"', 'command = ["x"]'),
    ('command = ["tip", "{game_date}", "{season}"]', ""),
    ('command = ["tip", "{game_date}", "{season}"]', "command = []"),
    ('command = ["tip", "{game_date}", "{season}"]', 'command = ["x"], key = "x"'),
    ('shift = "-15m"', 'shift = "soon"'),
    ('execution = "steps"', 'execution = "step"'),
    ('execution = "steps"', "steps = []"),
    ("parallel_steps = 2", "parallel_steps = 0"),
    ("parallel_steps = 2", "backfill = { parallel = 0 }"),
]
BROKEN_CONTRACTS = [
    ("version = 1\n", ""),
    ("[contracts.own]", "[contracts.Own]"),
    ("[contracts.own]", '[contracts."a..b"]'),
    ('schema = "pipeline.schemas:Rates"', ""),
    ('schema = "pipeline.schemas:Rates"', 'schema = "Rates"'),
    ('schema = "pipeline.schemas:Rates"', 'schema = "a:R"\nstrict = true'),
    ('schema = "pipeline.schemas:Rates"', 'schema = "a:R"\ncolumns = {}'),
    ('schema = "pipeline.schemas:Rates"', "unique = [[]]"),
    ('schema = "pipeline.schemas:Rates"', 'unique = [["a", "a"]]'),
    ('schema = "pipeline.schemas:Rates"', 'unique = ["a"]'),
    ('dtype = "string"', 'dtype = "text"'),
    ('dtype = "string"', 'dtyp = "string"'),
    ("max = 48.5", "max = true"),
    ("max = 48.5", "max = [48]"),
    ("allowed = [1, 2, 3]", "allowed = 1"),
    ("max = 1000", "max = -1"),
    ('within = "18h"', 'within = "18 hours"'),
    ('within = "18h"', 'column = "x"'),
]


@pytest.mark.parametrize(("old", "new"), BROKEN_STEPS)
def test_it_refuses_broken_steps(old: str, new: str) -> None:
    assert errors("jobs", changed(STEPS, old, new))


@pytest.mark.parametrize(("old", "new"), BROKEN_CONTRACTS)
def test_it_refuses_broken_contracts(old: str, new: str) -> None:
    assert errors("contracts", changed(CONTRACTS, old, new))


BROKEN_JOBS = [
    ("version = 1\n", ""),
    ("version = 1", "version = 2"),
    ('name = "tests"', 'nam = "tests"'),
    ("[jobs.other]", "[jobs.Other]"),
    ("[jobs.other]", '[jobs."../x"]'),
    ("retries = 1", "retry = 1"),
    ("retries = 1", 'retries = "1"'),
    ("retries = 1", "retries = -1"),
    ("retries = 1", "nice = 20"),
    ('timeout = "1h"', "timeout = 90"),
    ('timeout = "1h"', 'timeout = "1 hour"'),
    ('"/srv/data"', '"srv/data"'),
    ('"/srv/data"', '"/srv/../data"'),
    ('overlap = "skip"', 'overlap = "skp"'),
    ("{game_date}", "{Game}"),
    ("{game_date}", "{game_date!r}"),
    ('command = ["scripts/other.sh"]', "command = []"),
    ('command = ["scripts/other.sh"]', 'command = [" "]'),
    ('command = ["scripts/other.sh"]', 'command = "scripts/other.sh"'),
    ('LEVEL = "3"', "LEVEL = 3"),
    ('LEVEL = "3"', '"A B" = "3"'),
    ('LEVEL = "3"', 'ORCHCTL_JOB = "3"'),
    ("retries = 1", 'asset = "a..b"'),
    ('timer = "score.timer"', 'timer = "score.service"'),
    ('scope = "system"', 'scope = "root"'),
    ('timer = "score.timer"', 'cron = "x"'),
    ('scope = "system"', 'cron = "0 1 * * * x", user = "me"'),
    ("within =", "withn ="),
]
BROKEN_SCHEDULES = [
    ('cron = "0 8 * * *"', ""),
    ('cron = "0 8 * * *"', 'cron = "0 8 * * *"\nevery = "1h"'),
    ('cron = "0 8 * * *"', 'cron = "0 8 * * * *"'),
    ('cron = "0 8 * * *"', 'cron = "0 8 * * *"\nanchor = 2025-12-19T00:00:00Z'),
    ('every = "90s"', 'every = "often"'),
    ("2025-12-19T00:00:00Z", '"yesterday"'),
    ('"*-*-* 08..23:05,35:00"', "[]"),
    ('"*-*-* 08..23:05,35:00"', "5"),
    ("[schedules.daily]", "[schedules.Daily]"),
    ("timezone =", "timezon ="),
]


@pytest.mark.parametrize(("old", "new"), BROKEN_JOBS)
def test_it_refuses_broken_jobs(old: str, new: str) -> None:
    assert errors("jobs", changed(JOBS, old, new))


@pytest.mark.parametrize(("old", "new"), BROKEN_SCHEDULES)
def test_it_refuses_broken_schedules(old: str, new: str) -> None:
    assert errors("schedules", changed(SCHEDULES, old, new))


@pytest.mark.parametrize(
    ("file", "model", "required"),
    [
        ("jobs", JobTable, []),
        ("jobs", Gates, []),
        ("jobs", catalog_steps.StepTable, ["name", "command"]),
        ("jobs", catalog_steps.InputTable, ["name"]),
        ("jobs", catalog_steps.ContractUse, ["contract"]),
        ("jobs", catalog_steps.PublishTable, ["to"]),
        ("jobs", catalog_steps.PartitionKey, []),
        ("jobs", catalog_steps.AsOfMode, []),
        ("jobs", catalog_steps.BackfillTable, []),
        ("schedules", ScheduleTable, []),
        ("contracts", contracts.ContractTable, []),
        ("contracts", contracts.ColumnTable, []),
        ("contracts", contracts.RowsTable, []),
        ("contracts", contracts.FreshnessTable, ["within"]),
    ],
)
def test_every_key_has_a_title_and_the_description_of_its_docstring(file: str, model: Any, required: list[str]) -> None:
    shown = FILES[file]()["$defs"][model.__name__]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert set(shown["properties"]) == set(fields)
    for key, field in fields.items():
        assert shown["properties"][key]["description"] == field.description
        assert {"title", "$ref", "anyOf"} & set(shown["properties"][key])
    assert shown["description"]
    assert shown.get("required", []) == required


@pytest.mark.parametrize("file", FILES)
def test_it_says_nothing_that_toml_cannot(file: str) -> None:
    assert '"null"' not in json.dumps(FILES[file]())


def test_durations_are_shown_as_they_are_written() -> None:
    keys = schema.jobs()["$defs"]["JobTable"]["properties"]
    assert (keys["timeout"]["default"], keys["kill_after"]["default"], keys["retry_delay"]["default"]) == (
        "1h",
        "10s",
        "1m",
    )
