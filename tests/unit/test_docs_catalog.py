"""The examples of the docs are valid, and the docs name every key there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from catalogs import catalog
from conftest import ROOT
from orchctl.cli import catalog_views, render
from orchctl.core import steps
from orchctl.core.catalog import Catalog, JobTable
from orchctl.core.catalog_steps import (
    AsOfMode,
    BackfillTable,
    ContractUse,
    InputTable,
    PartitionKey,
    PublishTable,
    RetryDelay,
    StepTable,
)
from orchctl.core.contracts import ColumnTable, ContractTable, FreshnessTable, RowsTable
from orchctl.wiring import Settings

STEPS = (ROOT / "docs" / "steps.md").read_text(encoding="utf-8")
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def example() -> Catalog:
    jobs, schedules, contracts = blocks(STEPS)
    assert [text.partition(".toml")[0] for text in (jobs, schedules, contracts)] == [
        "# jobs",
        "# schedules",
        "# contracts",
    ]
    return catalog(jobs, schedules, contracts)


def test_the_example_of_steps_is_valid_and_does_what_is_said_of_it() -> None:
    job = example().jobs["scores"]
    assert [step.name for step in steps.order(job.steps)] == ["ingest.scrape", "features.build", "odds.fetch", "score"]
    assert steps.needs(job.steps[3]) == ("odds.fetch", "features.build")
    assert [step.name for step in job.steps if step.optional] == ["odds.fetch"]
    assert sorted(example().contracts) == ["features", "roster", "scores"]


def test_the_drawing_is_the_one_of_the_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "width", lambda: 96)
    catalog_views.job(example(), example().jobs["scores"], Settings(Path("/c"), Path("/s"), None, color=False))
    drawn = capsys.readouterr().out.partition("\n\n")[2].partition("\n\n")[2]
    (shown,) = re.findall(r"^```text\n(.*?)^```$", STEPS, re.MULTILINE | re.DOTALL)
    assert shown == drawn


def test_the_example_of_formats_is_valid() -> None:
    schedules, jobs = blocks(FORMATS)
    job = catalog(jobs, schedules).jobs["live-score"]
    assert (job.execution, job.parallel_steps, job.backfill.parallel) == ("command", 4, 2)


def keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


@pytest.mark.parametrize(
    "model",
    [StepTable, InputTable, ContractUse, PublishTable, RetryDelay, PartitionKey, AsOfMode, BackfillTable],
)
def test_the_page_of_steps_names_every_key(model: type[BaseModel]) -> None:
    assert [key for key in keys(model) if not re.search(rf"\b{key}\b", STEPS)] == []


@pytest.mark.parametrize("model", [JobTable, ContractTable, ColumnTable, RowsTable, FreshnessTable])
def test_the_page_of_formats_names_every_key(model: type[BaseModel]) -> None:
    assert [key for key in keys(model) if not re.search(rf"\b{key}\b", FORMATS)] == []


def test_the_example_uses_every_key_of_a_step() -> None:
    used: set[str] = set()
    for step in example().jobs["scores"].steps:
        used |= {f"step.{key}" for key in step.model_fields_set}
        used |= {f"publish.{key}" for key in (step.publish.model_fields_set if step.publish else ())}
        used |= {f"inputs.{key}" for each in step.inputs for key in each.model_fields_set}
        used |= {f"contracts.{key}" for each in step.contracts for key in each.model_fields_set}
    tables: dict[str, Any] = {
        "step": StepTable,
        "publish": PublishTable,
        "inputs": InputTable,
        "contracts": ContractUse,
    }
    assert used == {f"{name}.{key}" for name, table in tables.items() for key in table.model_fields}
