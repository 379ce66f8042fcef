"""A sync that breaks off at any of its writing calls says what it did, and the next one finishes the work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import catalog
from orchctl.errors import ExitCode, OrchctlError, PartialFailure, PrefectApiError
from support import Live
from syncing import Site, Wire, site

YEARLY = {"cron": "0 5 1 1 *"}
LATER = {"cron": "0 6 1 1 *"}
THREE = catalog({name: {"schedules": ["one", "two"]} for name in ("fa", "fb", "fc")}, {"one": YEARLY, "two": LATER})
BEFORE = catalog(
    {"fa": {"schedules": ["one", "two", "three"]}, "fb": {"schedules": ["one"]}},
    {"one": YEARLY, "two": YEARLY, "three": YEARLY},
)
# One schedule stays, one changes, one ends, two come; a field changes. The other job is as it was.
AFTER = catalog(
    {"fa": {"schedules": ["one", "two", "four", "five"], "description": "new"}, "fb": {"schedules": ["one"]}},
    {"one": YEARLY, "two": {"every": "300d"}, "three": YEARLY, "four": LATER, "five": LATER},
)


@pytest.fixture
def here(live: Live, tmp_path: Path) -> Iterator[Site]:
    with site(live.api_url, tmp_path / "state", THREE, sleep=lambda wanted: time.sleep(min(wanted, 0.02))) as made:
        yield made


def refused_from(wire: Wire, number: int) -> None:
    """The server goes away before the call arrives, and stays away."""

    def before(_call: int | None, request: httpx.Request) -> httpx.Response | None:
        if len(wire.writes) > number:
            raise httpx.ConnectError("connection refused", request=request)
        return None

    wire.before = before


def failing_from(wire: Wire, number: int) -> None:
    """From this call on the server cannot write (a full disk)."""

    def before(call: int | None, request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(500, json={"detail": "disk full"}) if call is not None and call >= number else None

    wire.before = before


def lost_from(wire: Wire, number: int) -> None:
    """The server does what the call says and goes away before it answers."""

    def after(call: int | None) -> None:
        if call == number:
            refused_from(wire, number)
            raise httpx.ReadError("connection reset")

    wire.after = after


def blink_at(wire: Wire, number: int) -> None:
    """The server does what the call says, and only this answer is lost."""

    def after(call: int | None) -> None:
        if call == number:
            wire.after = lambda _call: None
            raise httpx.ReadError("connection reset")

    wire.after = after


FAULTS: dict[str, tuple[Callable[[Wire, int], None], int]] = {
    "refused": (refused_from, ExitCode.PREFECT),
    "500": (failing_from, ExitCode.FAILED),
    "lost": (lost_from, ExitCode.PREFECT),
    "blink": (blink_at, ExitCode.PREFECT),
}


def check_error(error: OrchctlError, done: list[str], code: int) -> None:
    """The error says what is true: these jobs, and no others, were finished."""
    if isinstance(error, PartialFailure):
        assert f"{len(done)} of " in error.message
        assert error.exit_code == (ExitCode.PARTIAL if done else code)
        assert error.hint == "run `orchctl sync` again: it goes on from what is there"
    else:
        assert not done or "Prefect API" in error.message
        assert error.exit_code == code


def break_at_every_call(here: Site, fault: str, start: Callable[[], None]) -> int:
    """Sync with the fault at each writing call in turn, each time from `start`; return how often it broke.

    After each break the next sync must leave exactly what an undisturbed one leaves.
    """
    make, code = FAULTS[fault]
    breaks = 0
    for number in range(40):
        start()
        proposed = here.plan()
        here.wire.heal()
        make(here.wire, number)
        done: list[str] = []
        try:
            _apply(here, proposed, done)
        except OrchctlError as error:
            breaks += 1
            check_error(error, done, code)
        reached = len(here.wire.writes) > number
        here.wire.heal()
        here.sync()
        assert here.plan().empty, (fault, number)
        for job in here.catalog.jobs.values():
            assert set(here.schedules(job.name)) == set(job.schedules), (fault, number)
        if not reached:
            return breaks
    raise AssertionError("it does not end")


def _apply(here: Site, proposed: Any, done: list[str]) -> None:
    from orchctl.services import sync

    sync.apply(
        proposed, here.catalog, here.api, here.applied, now=here.now, progress=lambda change: done.append(change.job)
    )


@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_three_new_jobs(here: Site, fault: str) -> None:
    # The pool and its queue; a flow and a deployment for each job.
    assert break_at_every_call(here, fault, here.forget) == 8


@pytest.mark.parametrize("fault", ["500", "lost", "blink"])
def test_one_job_with_several_schedules(here: Site, fault: str) -> None:
    ids: dict[str | None, str] = {}

    def start() -> None:
        here.catalog = BEFORE
        here.sync()
        ids.update(here.ids("fa"))
        here.catalog = AFTER

    # The end of one, a new cadence, two new ones, the fields, the runs ahead. Only the new ones cannot be repeated.
    assert break_at_every_call(here, fault, start) == (1 if fault == "blink" else 5)
    assert {slug: here.ids("fa")[slug] for slug in ("one", "two")} == {slug: ids[slug] for slug in ("one", "two")}


def test_a_lost_label_is_set_anew_after_any_break(here: Site) -> None:
    def start() -> None:
        here.catalog = BEFORE
        here.sync()
        found = here.deployment("fa")
        body = {"name": "fa", "flow_id": found.flow_id, "tags": ["orchctl"], "parameters": dict(found.parameters)}
        paused = {"slug": "two", "schedule": dict(here.schedules("fa")["two"].schedule), "active": False}
        here.by_hand("POST", "/deployments/", {**body, "work_pool_name": "nobody", "schedules": [paused]})

    assert break_at_every_call(here, "lost", start) == 3
    assert not here.schedules("fa")["two"].active


ALTERED: dict[str, tuple[str, dict[str, Any]]] = {
    "description": ("PATCH", {"description": "something else"}),
    "concurrency_limit": ("PATCH", {"concurrency_limit": 9}),
    "schedule two": ("PATCH", {"schedule": {"cron": "0 7 1 1 *", "timezone": "UTC"}}),
    "schedule four": ("POST", {"schedule": {"cron": "0 7 1 1 *", "timezone": "UTC"}}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_server_that_keeps_something_else_is_caught(here: Site, what: str) -> None:
    here.catalog = BEFORE
    here.sync()
    here.catalog = AFTER
    proposed = here.plan()
    method, other = ALTERED[what]

    def before(call: int | None, request: httpx.Request) -> httpx.Response | None:
        is_schedule = "/schedules" in request.url.path
        if call is None or request.method != method or is_schedule != ("schedule" in what):
            return None
        sent = json.loads(request.content)
        kept = [{**each, **other} for each in sent] if isinstance(sent, list) else {**sent, **other}
        answer = httpx.request(request.method, request.url, json=kept, timeout=30)
        return httpx.Response(answer.status_code, content=answer.content, headers={"content-type": "application/json"})

    here.wire.before = before
    with pytest.raises(PrefectApiError) as raised:
        here.apply(proposed)
    assert raised.value.message.startswith("fa: Prefect kept something else than it was given in ")
    assert what in raised.value.message
    here.wire.heal()
    here.sync()
    assert here.plan().empty


def test_nothing_is_written_where_a_name_is_taken(here: Site) -> None:
    here.catalog = BEFORE
    here.sync()
    here.catalog = catalog({"fa": {"description": "new"}, "fb": {}}, name="second")
    files = sorted(Path(here.state_dir).rglob("*"))
    here.wire.heal()
    with pytest.raises(OrchctlError) as raised:
        here.sync()
    assert raised.value.exit_code == ExitCode.REFUSED
    assert "fa/fa" in raised.value.message
    assert not here.wire.writes
    assert sorted(Path(here.state_dir).rglob("*")) == files
