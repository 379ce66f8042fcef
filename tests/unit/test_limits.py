"""`[limits]` and the queue of backfills: planned, set, read back, and otherwise left to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from fakes import NOON, FakeApplied, FakePrefect, catalog, failing_at
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core import limits, status
from orchctl.core.catalog import Catalog
from orchctl.core.remote import RemoteLimit, RemotePool, RemoteQueue, RemoteRun
from orchctl.errors import OrchctlError, PrefectApiError, PrefectRejected, PrefectUnreachable
from syncing import Operator


def limited(places: dict[str, int], **jobs: dict[str, Any]) -> Catalog:
    wanted = catalog(jobs or {"one": {}})
    return wanted.model_copy(update={"limits": places})


def step(name: str, *names: str) -> dict[str, Any]:
    return {"name": name, "command": ["true"], "concurrency": list(names)}


def operator(wanted: Catalog) -> tuple[FakePrefect, Operator]:
    server = FakePrefect()
    return server, Operator(server, FakeApplied(), "/state", wanted, server.clock)


def queue(server: FakePrefect, pool: str = "nobody") -> RemoteQueue:
    return {each.name: each for each in server.queues(pool)}["backfill"]


def test_a_sync_makes_them_and_a_second_one_writes_nothing() -> None:
    server, someone = operator(limited({"nba-api": 3, "other": 1}))
    plan = someone.plan()
    assert [(each.name, each.limit, each.before) for each in plan.limits] == [("nba-api", 3, None), ("other", 1, None)]
    assert [(each.pool, each.limit, each.priority) for each in plan.queues] == [("nobody", 2, 2)]
    assert not server.writes
    someone.sync()
    assert server.limits() == (RemoteLimit("nba-api", 3, True, 0.0), RemoteLimit("other", 1, True, 0.0))
    assert queue(server) == RemoteQueue("backfill", 2, 2, False)
    server.writes.clear()
    assert someone.plan().empty
    someone.sync()
    assert not server.writes


def test_they_are_there_before_the_first_deployment() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    someone.sync()
    assert server.writes[:4] == ["create_pool", "create_queue", "create_limit", "create_flow"]


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 5))
def test_wherever_a_sync_stops_the_next_one_ends_it(lost: str, number: int) -> None:
    server, someone = operator(limited({"nba-api": 3}))
    setattr(server, lost, failing_at(number))
    with pytest.raises(OrchctlError):
        someone.sync()
    setattr(server, lost, lambda _: None)
    someone.sync()
    assert (server.limits()[0].limit, queue(server).concurrency_limit) == (3, 2)
    assert someone.plan().empty


def test_a_new_number_is_set_and_says_who_wanted_it() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    someone.sync()
    server.update_limit("nba-api", {"limit": 7})
    (by_hand,) = someone.plan().limits
    assert (by_hand.before and by_hand.before.limit, by_hand.limit, by_hand.because) == (7, 3, "by hand")
    someone.catalog = limited({"nba-api": 5})
    (changed,) = someone.plan().limits
    assert (changed.limit, changed.because, changed.body) == (5, "catalog", {"limit": 5})
    someone.sync()
    assert server.limits()[0].limit == 5
    assert someone.plan().empty


def test_a_limit_that_somebody_made_is_taken_over_and_holds_its_places_again() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    server.by_name["nba-api"] = RemoteLimit("nba-api", 3, True, 0.5)
    server.by_name["somebodys"] = RemoteLimit("somebodys", 1, True, 0.0)
    (change,) = someone.plan().limits
    assert change.body == {"slot_decay_per_second": 0.0}
    someone.sync()
    assert server.by_name["nba-api"].decay == 0.0
    assert server.by_name["somebodys"] == RemoteLimit("somebodys", 1, True, 0.0)


def test_what_people_switched_off_or_paused_stays_so_and_is_said() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    someone.sync()
    server.by_name["nba-api"] = replace(server.by_name["nba-api"], active=False)
    server.by_pool["nobody"]["backfill"] = replace(queue(server), is_paused=True)
    plan = someone.plan()
    assert plan.empty
    assert plan.notes == (
        "limit nba-api is switched off in Prefect; sync leaves it so",
        "queue backfill of work pool nobody is paused in Prefect; sync leaves it so",
    )


def test_a_limit_that_is_gone_from_the_catalog_is_told_of_and_never_deleted() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    someone.sync()
    someone.catalog = limited({})
    plan = someone.plan(prune=True)
    assert (plan.changes, plan.limits, len(plan.notes)) == ((), (), 1)
    assert "limit nba-api: gone from the catalog" in plan.notes[0]
    someone.sync(prune=True)
    assert server.limits() == (RemoteLimit("nba-api", 3, True, 0.0),)


def test_a_catalog_without_limits_asks_for_none() -> None:
    server, someone = operator(limited({}))
    server.limits = lambda: pytest.fail("asked")  # type: ignore[method-assign]
    assert someone.plan().limits == ()


def test_a_sync_of_one_job_minds_its_limits_and_its_pool_only() -> None:
    wanted = limited(
        {"mine": 1, "theirs": 1},
        one={"steps": [step("a", "mine")]},
        two={"steps": [step("b", "theirs")], "work_pool": "elsewhere"},
    )
    server, someone = operator(wanted)
    plan = someone.plan("one")
    assert [each.name for each in plan.limits] == ["mine"]
    assert [each.pool for each in plan.queues] == ["nobody"]
    someone.sync("one")
    assert [each.name for each in server.limits()] == ["mine"]
    assert set(server.pools) == {"nobody"}


def test_the_queue_goes_behind_the_others_and_only_then_stays() -> None:
    server, someone = operator(limited({}))
    server.pools["nobody"] = RemotePool("nobody", "process", False, None)
    server.by_pool["nobody"] = {
        "default": RemoteQueue("default", 1, None, False),
        "urgent": RemoteQueue("urgent", 7, 1, False),
    }
    someone.sync()
    assert queue(server).priority == 8
    server.by_pool["nobody"]["backfill"] = replace(queue(server), priority=2)
    assert someone.plan().empty  # still behind `default`: the rest is the operator's
    server.by_pool["nobody"]["default"] = RemoteQueue("default", 2, None, False)
    (change,) = someone.plan().queues
    assert (change.body, change.because) == ({"priority": 8}, "by hand")
    someone.sync()
    assert queue(server).priority == 8


def test_the_queue_holds_as_many_as_the_job_that_allows_most() -> None:
    wanted = limited(
        {}, one={"backfill": {"parallel": 5}}, two={}, far={"work_pool": "far", "backfill": {"parallel": 1}}
    )
    server, someone = operator(wanted)
    someone.sync()
    assert (queue(server).concurrency_limit, queue(server, "far").concurrency_limit) == (5, 1)
    server.by_pool["nobody"]["backfill"] = replace(queue(server), concurrency_limit=None)
    (change,) = someone.plan().queues
    assert change.body == {"concurrency_limit": 5}


def test_a_worker_has_places_for_backfills_beside_those_for_slots() -> None:
    few = limited({}, one={"backfill": {"parallel": 5}}, far={"work_pool": "far"})
    many = limited({}, **{f"job-{number}": {} for number in range(20)})
    assert limits.worker_places(few) == {"far": 8 + 2, "nobody": 8 + 5}
    assert limits.worker_places(many) == {"nobody": 2 * 20 + 2}
    assert all(places > limits.backfills_at_a_time(few, pool) for pool, places in limits.worker_places(few).items())


def test_what_the_server_kept_otherwise_is_an_error() -> None:
    server, someone = operator(limited({"nba-api": 3}))
    server.create_limit = lambda name, *, limit: None  # type: ignore[method-assign]
    with pytest.raises(PrefectApiError, match="something else than it was given in limit nba-api"):
        someone.sync()


# What goes over the wire.


def api(answer: Any) -> PrefectApi:
    return PrefectApi(url="http://127.0.0.1:1/api", transport=httpx.MockTransport(answer), sleep=lambda _: None)


def row(number: int) -> dict[str, Any]:
    return {"name": f"l{number:04}", "limit": number, "active": True, "slot_decay_per_second": 0.0}


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (199, 1), (200, 2), (450, 3)])
def test_all_limits_are_read_in_few_requests(count: int, requests: int) -> None:
    asked: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        import json

        asked.append(request.url.path)
        body = json.loads(request.content)
        rows = [row(number) for number in range(count)]
        return httpx.Response(200, json=rows[body["offset"] : body["offset"] + body["limit"]])

    with api(serve) as prefect:
        assert [each.limit for each in prefect.limits()] == list(range(count))
    assert asked == ["/api/v2/concurrency_limits/filter"] * requests


@pytest.mark.parametrize(
    "bad",
    [{}, {"name": 3}, {**row(1), "limit": -1}, {**row(1), "active": None}, {**row(1), "slot_decay_per_second": [1]}],
)
def test_an_answer_that_is_none_of_prefects_is_an_error_of_ours(bad: Any) -> None:
    with api(lambda _: httpx.Response(200, json=[bad])) as prefect, pytest.raises(PrefectUnreachable):
        prefect.limits()


def test_names_are_one_segment_of_the_path() -> None:
    seen: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(204)

    with api(serve) as prefect:
        prefect.update_limit("a b", {"limit": 1})
        prefect.update_queue("po ol", "backfill", {"priority": 2})
    assert seen == ["PATCH /api/v2/concurrency_limits/a%20b", "PATCH /api/work_pools/po%20ol/queues/backfill"]


def test_a_creation_whose_answer_was_lost_is_done() -> None:
    answers: Iterator[Exception | int] = iter([httpx.ReadError("cut"), 409, 409])

    def serve(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, json={"detail": "exists"})

    with api(serve) as prefect:
        prefect.create_limit("x", limit=1)
        with pytest.raises(PrefectRejected):
            prefect.create_queue("p", "backfill", priority=2, limit=1)


# What else must not mind a backfill.


def test_a_run_of_a_backfill_that_waits_for_its_turn_is_not_late() -> None:
    run = RemoteRun(
        "r", "n", "d", "SCHEDULED", "Late", None, NOON - timedelta(hours=1), False, None, 0, {"backfill": "x"}
    )
    assert not status.is_late(run, NOON)
    assert status.is_late(replace(run, parameters={}), NOON)


@pytest.mark.parametrize(("overlap", "limit"), [("skip", None), ("queue", 6)])
def test_a_slot_finds_a_place_in_its_deployment_beside_all_backfills_of_the_pool(
    overlap: str, limit: int | None
) -> None:
    wanted = limited({}, one={"overlap": overlap}, two={"backfill": {"parallel": 5}})
    _, someone = operator(wanted)
    someone.sync()
    assert someone.deployment("one").concurrency_limit == limit
