"""What `plan` makes of a change of steps, contracts and limits: one job is touched, and what changed is named."""

from __future__ import annotations

import pytest

from catalogs import CONTRACTS, STEPS, catalog, changed
from fakes import FakeApplied, FakePrefect
from orchctl.core.plan import Change
from syncing import Operator

OTHER = """
[jobs.other]
execution = "command"
command = ["x"]

[[jobs.other.steps]]
name = "other.step"
command = ["x"]
contracts = [{ contract = "own" }]
"""


@pytest.fixture
def synced() -> Operator:
    server = FakePrefect()
    operator = Operator(server, FakeApplied(), "/state", catalog(STEPS + OTHER, contracts=CONTRACTS), server.clock)
    operator.sync()
    assert operator.plan().empty
    return operator


def after(operator: Operator, jobs: str = STEPS, contracts: str = CONTRACTS) -> Change:
    """The one change that a new catalog makes, carried out."""
    operator.catalog = catalog(jobs + OTHER, contracts=contracts)
    (change,) = operator.plan().changes
    operator.sync()
    assert operator.plan().empty
    return change


def fields(change: Change) -> dict[str, tuple[object, object]]:
    return {item.field: (item.before, item.after) for item in change.fields if item.field.startswith("job.")}


def test_a_contract_touches_the_job_that_uses_it(synced: Operator) -> None:
    before = synced.deployment("other").parameters["digest"]
    change = after(synced, contracts=changed(CONTRACTS, "max = 48.5", "max = 48"))
    assert change.job == "rates"
    assert set(fields(change)) == {"job.contracts.features"}
    assert synced.deployment("other").parameters["digest"] == before
    assert synced.deployment("rates").parameters["digest"] == synced.catalog.digest


def test_a_schema_class_touches_the_other(synced: Operator) -> None:
    assert after(synced, contracts=changed(CONTRACTS, ":Rates", ":Other")).job == "other"


def test_a_limit_is_named_with_its_number(synced: Operator) -> None:
    change = after(synced, changed(STEPS, "api = 3", "api = 4"))
    assert (change.job, fields(change)) == ("rates", {"job.limits.api": (3, 4)})


def test_a_step_is_named_alone(synced: Operator) -> None:
    change = after(synced, changed(STEPS, 'timeout = "5m"', 'timeout = "6m"'))
    assert set(fields(change)) == {"job.steps.rates.features"}


def test_a_step_that_comes_or_goes_changes_the_list_too(synced: Operator) -> None:
    change = after(synced, changed(STEPS, 'name = "rates.sim"', 'name = "rates.simulate"'))
    found = fields(change)
    assert set(found) == {"job.steps", "job.steps.rates.sim", "job.steps.rates.simulate"}
    assert found["job.steps.rates.sim"][1] is None
    assert found["job.steps.rates.simulate"][0] is None


def test_the_switch_back_to_the_command_is_one_change_and_keeps_the_schedule(synced: Operator) -> None:
    ids = synced.ids("rates")
    text = changed(STEPS, "parallel_steps = 2", 'parallel_steps = 2\nexecution = "command"\ncommand = ["x"]')
    change = after(synced, text)
    assert set(fields(change)) == {"job.execution", "job.command"}
    assert (change.action, change.schedules) == ("update", ())
    assert synced.ids("rates") == ids
