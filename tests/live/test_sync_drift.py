"""Whatever is changed by hand in Prefect, `plan` finds it and `sync` repairs it; what belongs to people stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import catalog
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import MANAGED
from support import POOL, Live
from syncing import Site, reasons, site

YEARLY = {"cron": "0 5 1 1 *"}
JOB = "drifting"
HAND_MADE = {"schedule": {"cron": "0 0 29 2 *", "timezone": "UTC"}, "active": True}


def wanted(**more: Any) -> Catalog:
    job = {"schedules": ["one", "two"], "description": "what it does", "tags": ["mine"], **more}
    return catalog({JOB: job}, {"one": YEARLY, "two": {"every": "300d", "anchor": "2025-12-19T00:00:00.500Z"}})


@pytest.fixture
def here(live: Live, tmp_path: Path) -> Iterator[Site]:
    """An operator whose one job is in Prefect as the catalog says."""
    with site(live.api_url, tmp_path / "state", wanted()) as made:
        made.sync()
        made.wire.heal()
        yield made


@pytest.fixture(scope="module")
def shared(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same, for tests that repair what they break."""
    with site(live.api_url, tmp_path_factory.mktemp("shared"), wanted()) as made:
        yield made


@pytest.fixture
def repaired(shared: Site) -> Site:
    shared.sync()
    shared.wire.heal()
    return shared


def post(here: Site, **body: Any) -> None:
    """Post the deployment as a person's script would: only what the script knows of."""
    found = here.deployment(JOB)
    body = {"work_pool_name": found.work_pool, "work_queue_name": found.work_queue, **body}
    here.by_hand("POST", "/deployments/", {"name": JOB, "flow_id": found.flow_id, **body})


def parameters(here: Site, **changed: Any) -> dict[str, Any]:
    return {**here.deployment(JOB).parameters, **changed}


FIELDS: dict[str, Callable[[Site], None]] = {
    "entrypoint": lambda here: here.patch(JOB, entrypoint="theirs.flow"),
    "path": lambda here: here.patch(JOB, path="/tmp"),
    "pull_steps": lambda here: here.patch(JOB, pull_steps=[{"a.step": {"directory": "/"}}]),
    "work_pool": lambda here: here.patch(JOB, work_pool_name=POOL),
    "work_queue": lambda here: here.patch(JOB, work_pool_name="nobody", work_queue_name="urgent"),
    "parameters": lambda here: here.patch(JOB, parameters=parameters(here, job="another")),
    "parameter_schema": lambda here: here.patch(JOB, parameter_openapi_schema={"type": "object", "properties": {}}),
    "enforce_parameter_schema": lambda here: here.patch(JOB, enforce_parameter_schema=False),
    "concurrency_limit": lambda here: here.patch(JOB, concurrency_limit=5),
    "collision_strategy": lambda here: here.patch(JOB, concurrency_options={"collision_strategy": "ENQUEUE"}),
    "job_variables": lambda here: here.patch(JOB, job_variables={"env": {"ORCHCTL_STATE_DIR": "/tmp"}}),
    "tags": lambda here: here.patch(JOB, tags=["mine"]),
    "labels": lambda here: post(
        here,
        labels={"orchctl.catalog": "tests"},
        parameters=parameters(here),
        schedules=[schedule(here, "one"), schedule(here, "two")],
    ),
    "description": lambda here: here.patch(JOB, description=""),
}
# The same fields, changed in other ways.
MORE_FIELDS: dict[str, tuple[str, Callable[[Site], None]]] = {
    "no parameters": ("parameters", lambda here: here.patch(JOB, parameters={})),
    "an unknown digest": (
        "parameters",
        lambda here: here.patch(JOB, parameters=parameters(here, digest="sha256:" + "0" * 64)),
    ),
    "no pool": ("work_pool", lambda here: here.patch(JOB, work_pool_name=None)),
    "one more variable": (
        "job_variables",
        lambda here: here.patch(JOB, job_variables={**here.deployment(JOB).job_variables, "command": "sh"}),
    ),
}
SCHEDULES: dict[str, Callable[[Site], None]] = {
    "cron": lambda here: here.patch_schedule(JOB, "one", schedule={"cron": "0 6 1 1 *", "timezone": "UTC"}),
    "timezone": lambda here: here.patch_schedule(JOB, "one", schedule={**YEARLY, "timezone": "Asia/Tokyo"}),
    "day_or": lambda here: here.patch_schedule(JOB, "one", schedule={**YEARLY, "timezone": "UTC", "day_or": False}),
    "kind": lambda here: here.patch_schedule(JOB, "one", schedule={"rrule": "FREQ=YEARLY", "timezone": "UTC"}),
    "parameters": lambda here: here.patch_schedule(JOB, "one", parameters={"game_date": "2025-12-19"}),
    "anchor": lambda here: here.patch_schedule(
        JOB, "two", schedule={"interval": 300 * 86400.0, "anchor_date": "2025-12-19T00:00:00Z", "timezone": "UTC"}
    ),
    "interval": lambda here: here.patch_schedule(
        JOB, "two", schedule={"interval": 86400.0, "anchor_date": "2025-12-19T00:00:00.500Z", "timezone": "UTC"}
    ),
    "gone": lambda here: here.by_hand(
        "DELETE", f"/deployments/{here.deployment(JOB).id}/schedules/{here.ids(JOB)['one']}"
    ),
}


def schedule(here: Site, slug: str) -> dict[str, Any]:
    found = here.schedules(JOB)[slug]
    return {"slug": slug, "schedule": dict(found.schedule), "active": found.active}


def test_every_managed_field_is_tried() -> None:
    assert set(FIELDS) == set(MANAGED)


@pytest.mark.parametrize("name", [*FIELDS, *MORE_FIELDS])
def test_a_field_changed_by_hand_is_found_and_repaired(repaired: Site, name: str) -> None:
    field, change = (name, FIELDS[name]) if name in FIELDS else MORE_FIELDS[name]
    change(repaired)
    was = repaired.ids(JOB)
    repaired.wire.heal()
    found = reasons(repaired.change(JOB))
    assert found.pop(field) == "by hand"
    # A deployment without a pool has no queue either.
    assert found in ({}, {"work_queue": "by hand"})
    assert not repaired.wire.writes
    repaired.sync()
    assert repaired.plan().empty
    assert (repaired.ids(JOB) == was) == (field != "labels")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_changed_by_hand_is_found_and_repaired(repaired: Site, name: str) -> None:
    was = repaired.ids(JOB)
    SCHEDULES[name](repaired)
    repaired.wire.heal()
    slug = "two" if name in {"anchor", "interval"} else "one"
    assert reasons(repaired.change(JOB)) == {f"schedule {slug}": "by hand"}
    assert not repaired.wire.writes
    repaired.sync()
    assert repaired.plan().empty
    assert (repaired.ids(JOB) == was) == (name != "gone")


def test_a_schedule_added_by_hand_is_left_alone(here: Site) -> None:
    here.add_schedule(JOB, **HAND_MADE)
    here.add_schedule(JOB, **HAND_MADE, slug="theirs", parameters={"game_date": "2025-12-19"})
    theirs = {slug: each for slug, each in here.schedules(JOB).items() if slug not in {"one", "two"}}
    plan = here.plan()
    assert plan.empty
    assert sum("was added by hand; sync leaves it" in note for note in plan.notes) == 2
    here.catalog = wanted(description="new", schedules=["two"])
    here.sync()
    assert here.plan().empty
    assert here.schedules(JOB) == {**theirs, "two": here.schedules(JOB)["two"]}


def test_without_its_applied_catalog_an_old_schedule_is_left_and_named(here: Site) -> None:
    for path in Path(here.state_dir).glob("applied/*"):
        path.unlink()
    here.catalog = wanted(schedules=["two"])
    here.sync()
    assert here.plan().empty
    assert set(here.schedules(JOB)) == {"one", "two"}
    assert any("schedule one" in note for note in here.plan().notes)


@pytest.mark.parametrize("body", [{}, {"labels": {}, "tags": ["orchctl"]}, {"labels": {"orchctl.catalog": "tests"}}])
def test_new_labels_leave_paused_and_hand_made_schedules_as_they_were(here: Site, body: dict[str, Any]) -> None:
    here.patch(JOB, paused=True)
    theirs = {**HAND_MADE, "parameters": {"game_date": "2025-12-19"}}
    paused = {**schedule(here, "one"), "active": False}
    post(here, **body, parameters=parameters(here), schedules=[paused, schedule(here, "two"), theirs])
    was = {slug: (each.active, each.schedule, each.parameters) for slug, each in here.schedules(JOB).items()}
    change = here.change(JOB)
    assert (change.action, reasons(change)["labels"]) == ("recreate", "by hand")
    here.sync()
    assert here.plan().empty
    assert here.deployment(JOB).paused
    assert {slug: (each.active, each.schedule, each.parameters) for slug, each in here.schedules(JOB).items()} == was
    assert not here.runs(JOB)


def test_new_labels_go_with_new_schedules_from_the_catalog(here: Site) -> None:
    post(here, labels={}, parameters=parameters(here), schedules=[schedule(here, "one"), schedule(here, "two")])
    here.catalog = catalog({JOB: {"schedules": ["three"]}}, {"three": YEARLY})
    here.sync()
    assert here.plan().empty
    assert set(here.schedules(JOB)) == {"three"}


def test_pauses_by_hand_stay_through_changes_of_the_catalog(here: Site) -> None:
    here.patch(JOB, paused=True)
    here.patch_schedule(JOB, "one", active=False)
    was = here.ids(JOB)
    assert here.plan().empty
    for cadence in ({"cron": "0 6 1 1 *"}, {"cron": "0 6 1 1 *", "timezone": "Asia/Tokyo"}, {"every": "299d"}):
        here.catalog = catalog(
            {JOB: {"schedules": ["one", "two"], "description": str(cadence)}}, {"one": cadence, "two": YEARLY}
        )
        here.sync()
        assert here.plan().empty
        assert here.ids(JOB) == was
        assert [here.schedules(JOB)[slug].active for slug in ("one", "two")] == [False, True]
        assert here.deployment(JOB).paused
        assert not here.runs(JOB), "a paused deployment got runs"


def test_a_schedule_keeps_its_id_whatever_its_kind_becomes(here: Site) -> None:
    was = here.ids(JOB)
    for cadence in (
        {"cron": "0 5 1 1 *", "timezone": "America/New_York"},
        {"every": "300d"},
        {"rrule": "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=-1;BYHOUR=9;BYMINUTE=0;BYSECOND=0"},
        {"on_calendar": ["Mon *-01-01..07 03:00:00 Europe/Berlin"]},
    ):
        here.catalog = catalog({JOB: {"schedules": ["one", "two"]}}, {"one": cadence, "two": YEARLY})
        assert here.change(JOB).action == "update"
        here.sync()
        assert here.plan().empty
        assert here.ids(JOB) == was
