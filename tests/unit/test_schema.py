"""The JSON Schemas that editors use: they take what `check` takes, and refuse what one table shows to be wrong."""

from __future__ import annotations

import json
import tomllib
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from catalogs import CONFIG, JOBS, SCHEDULES, changed
from orchctl.core import schema
from orchctl.core.catalog import Gates, JobTable, ScheduleTable

FILES = {"jobs": schema.jobs, "schedules": schema.schedules}


def as_json(text: str) -> Any:
    """A document as an editor sees it: instants are strings of the format date-time."""
    return json.loads(json.dumps(tomllib.loads(text), default=_instant))


def _instant(value: object) -> str:
    assert isinstance(value, datetime)
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
    ("{game_date}", "{game_dat}"),
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
    ("file", "table", "model"),
    [("jobs", "JobTable", JobTable), ("jobs", "Gates", Gates), ("schedules", "ScheduleTable", ScheduleTable)],
)
def test_every_key_has_a_title_and_the_description_of_its_docstring(file: str, table: str, model: Any) -> None:
    shown = FILES[file]()["$defs"][table]
    assert set(shown["properties"]) == set(model.model_fields)
    for key, field in model.model_fields.items():
        assert shown["properties"][key]["description"] == field.description
        assert "title" in shown["properties"][key] or "$ref" in shown["properties"][key]
    assert shown["description"]
    assert "required" not in shown


@pytest.mark.parametrize("file", FILES)
def test_it_says_nothing_that_toml_cannot(file: str) -> None:
    assert "null" not in json.dumps(FILES[file]())


def test_durations_are_shown_as_they_are_written() -> None:
    keys = schema.jobs()["$defs"]["JobTable"]["properties"]
    assert (keys["timeout"]["default"], keys["kill_after"]["default"], keys["retry_delay"]["default"]) == (
        "1h",
        "10s",
        "1m",
    )
