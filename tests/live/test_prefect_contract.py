"""What plan and sync rely on: the fake server and a real one give the same answers."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes import FakePrefect
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.errors import PrefectApiError, PrefectRejected
from support import Live
from syncing import NOBODYS

Server = FakePrefect | PrefectApi
HOURLY = {"slug": "hourly", "schedule": {"cron": "0 * * * *", "timezone": "UTC"}, "active": True}
YEARLY = {"slug": "yearly", "schedule": {"cron": "0 5 1 1 *", "timezone": "UTC"}, "active": True}
NAME = "contract"


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "fake":
        fake = FakePrefect(clock=lambda: datetime.now(UTC))
        fake.create_pool(NOBODYS, description=None)
        yield fake
        return
    live: Live = request.getfixturevalue("live")
    with live.api() as api:
        # Another test may have left it: a pool goes with nobody's flow.
        if api.pool(NOBODYS) is None:
            api.create_pool(NOBODYS, description=None)
        yield api
        for flow in api.flow_ids([NAME]).values():
            api.delete_flow(flow)
        with contextlib.suppress(PrefectRejected):
            api.request("DELETE", f"/work_pools/{NOBODYS}")


def make(server: Server, *schedules: dict[str, Any], **more: Any) -> str:
    body = {"name": NAME, "flow_id": server.create_flow(NAME), "work_pool_name": NOBODYS, "work_queue_name": "default"}
    return server.create_deployment({**body, "schedules": list(schedules), **more})


def read(server: Server) -> Any:
    return server.deployment(NAME, NAME)


def ids(server: Server) -> dict[str, str]:
    return {each.slug: each.id for each in read(server).schedules}


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def ahead(server: Server, deployment: str) -> set[str]:
    """Return the ids of the runs ahead. New ones may come at any time: the real server has a scheduler of its own."""
    now = datetime.now(UTC)
    return {run.id for run in server.scheduled_runs([deployment]) if (run.expected_start or now) > now}


def late(server: Server, deployment: str) -> list[datetime | None]:
    now = datetime.now(UTC)
    return [run.expected_start for run in server.scheduled_runs([deployment]) if (run.expected_start or now) <= now]


def test_a_pool_is_made_once(server: Server) -> None:
    found = server.pool(NOBODYS)
    assert found is not None
    assert found.type == "process"
    with pytest.raises(PrefectRejected) as raised:
        server.create_pool(NOBODYS, description=None)
    assert raised.value.status == 409
    assert server.pool("no-such-pool") is None


def test_a_flow_has_one_id(server: Server) -> None:
    flow = server.create_flow(NAME)
    assert server.create_flow(NAME) == flow
    assert server.flow_names([flow]) == {flow: NAME}


def test_a_deployment_is_found_by_name_by_tag_and_by_flow(server: Server) -> None:
    key = make(server, tags=["contract-tag"])
    assert read(server).id == key
    assert [each.id for each in server.deployments(names=[NAME], tag="no-such-tag")] == [key]
    assert [each.id for each in server.deployments(names=[], tag="contract-tag")] == [key]
    assert server.deployment("other-flow", NAME) is None


def test_a_deployment_needs_its_pool(server: Server) -> None:
    with pytest.raises(PrefectRejected) as raised:
        make(server, work_pool_name="no-such-pool")
    assert raised.value.status == 404


def test_posting_again_gives_schedules_new_ids_replaces_labels_and_keeps_the_pause(server: Server) -> None:
    key = make(server, HOURLY, labels={"one": "1", "two": "2"})
    was = ids(server)
    server.update_deployment(key, {"paused": True})
    assert make(server, HOURLY, labels={"one": "3"}) == key
    assert ids(server)["hourly"] != was["hourly"]
    assert read(server).paused
    labels = dict(read(server).labels)
    assert labels.pop("prefect.flow.id") == read(server).flow_id
    assert labels == {"one": "3"}


def test_posting_again_drops_the_runs_ahead_and_no_late_one(server: Server) -> None:
    key = make(server, HOURLY)
    server.schedule_from(key, this_hour() - timedelta(hours=2))
    server.schedule_from(key, this_hour())
    was, gone = late(server, key), ahead(server, key)
    assert was
    assert gone
    make(server, HOURLY)
    assert late(server, key) == was
    assert not ahead(server, key) & gone


def test_a_patch_keeps_schedules_and_late_runs_and_drops_the_runs_ahead(server: Server) -> None:
    key = make(server, HOURLY)
    was = ids(server)
    server.schedule_from(key, this_hour())
    gone = ahead(server, key)
    assert gone
    server.update_deployment(key, {"description": "new", "concurrency_limit": 3, "tags": ["b", "a"]})
    assert not ahead(server, key) & gone
    assert late(server, key) == [this_hour()]
    assert ids(server) == was
    assert (read(server).description, read(server).concurrency_limit) == ("new", 3)
    assert read(server).tags == ("b", "a")


def test_a_schedule_keeps_its_id_through_any_change(server: Server) -> None:
    key = make(server, HOURLY)
    was = ids(server)
    server.schedule_from(key, this_hour())
    gone = ahead(server, key)
    cadences: tuple[dict[str, Any], ...] = (
        {"cron": "0 5 1 1 *", "timezone": "America/New_York"},
        {"interval": 90.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"},
        {"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=YEARLY", "timezone": "Europe/Berlin"},
    )
    for schedule in cadences:
        server.update_schedule(key, was["hourly"], {**HOURLY, "schedule": schedule, "active": False})
        assert ids(server) == was
        (found,) = read(server).schedules
        assert (found.schedule["timezone"], found.active) == (schedule["timezone"], False)
    assert not ahead(server, key) & gone
    assert late(server, key) == [this_hour()]


def test_a_schedule_that_is_not_there_cannot_be_changed(server: Server) -> None:
    key, nobody = make(server, HOURLY), "00000000-0000-4000-8000-000000000000"
    calls: tuple[Callable[[], None], ...] = (
        lambda: server.update_schedule(key, nobody, HOURLY),
        lambda: server.delete_schedule(key, nobody),
        lambda: server.update_deployment(nobody, {}),
        lambda: server.delete_deployment(nobody),
    )
    for call in calls:
        with pytest.raises(PrefectRejected) as raised:
            call()
        assert raised.value.status == 404


def test_the_end_of_a_schedule_takes_the_late_runs_of_the_others_along(server: Server) -> None:
    key = make(server, HOURLY, YEARLY)
    server.schedule_from(key, this_hour())
    gone = {run.id for run in server.scheduled_runs([key])}
    assert late(server, key)
    server.delete_schedule(key, ids(server)["yearly"])
    assert set(ids(server)) == {"hourly"}
    assert not {run.id for run in server.scheduled_runs([key])} & gone
    assert not late(server, key)


def test_added_schedules_leave_the_others_alone_and_no_slug_comes_twice(server: Server) -> None:
    key = make(server, HOURLY)
    was = ids(server)["hourly"]
    server.schedule_from(key, this_hour())
    server.add_schedules(key, [YEARLY])
    assert set(ids(server)) == {"hourly", "yearly"}
    assert ids(server)["hourly"] == was
    assert ahead(server, key)
    with pytest.raises(PrefectApiError):
        server.add_schedules(key, [{**YEARLY, "slug": "another"}, YEARLY])
    assert set(ids(server)) == {"hourly", "yearly"}


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        (HOURLY["schedule"], timedelta(hours=1)),
        ({"cron": "*/10 * * * *", "timezone": "America/New_York"}, timedelta(minutes=10)),
        ({"interval": 1200.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"}, timedelta(minutes=20)),
        ({"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=HOURLY", "timezone": "Asia/Tokyo"}, timedelta(hours=1)),
    ],
    ids=["cron", "cron with a zone", "interval", "rrule"],
)
def test_runs_are_made_from_the_start_on_for_an_hour_and_not_twice(
    server: Server, schedule: dict[str, Any], step: timedelta
) -> None:
    key, start = make(server, {**HOURLY, "schedule": schedule}), this_hour() - timedelta(hours=30)
    for _ in range(2):
        server.schedule_from(key, start)
        found = [run.expected_start for run in server.scheduled_runs([key])]
        past = [slot for slot in found if slot is not None and slot <= start + timedelta(hours=20)]
        assert past == [start + step * number for number in range(max(3, 1 + timedelta(hours=1) // step))]
    assert all(run.auto_scheduled for run in server.scheduled_runs([key]))
    assert {run.created_by_schedule for run in server.scheduled_runs([key])} == {ids(server)["hourly"]}


def test_runs_are_made_for_a_paused_deployment_but_not_for_a_paused_schedule(server: Server) -> None:
    key = make(server, HOURLY, {**YEARLY, "active": False}, paused=True)
    server.schedule_from(key, this_hour() - timedelta(days=3))
    assert {run.created_by_schedule for run in server.scheduled_runs([key])} == {ids(server)["hourly"]}


def test_a_run_made_by_hand_is_made_once_and_goes_only_with_its_deployment(server: Server) -> None:
    key, slot = make(server), this_hour() + timedelta(days=1)
    made = server.create_run(key, parameters={}, idempotency_key="k", scheduled_for=slot)
    again = server.create_run(key, parameters={}, idempotency_key="k", scheduled_for=slot)
    assert (made.id, made.auto_scheduled, made.expected_start) == (again.id, False, slot)
    server.update_deployment(key, {"description": "new"})
    assert server.flow_run(made.id) is not None
    server.delete_deployment(key)
    assert server.flow_run(made.id) is None
    assert read(server) is None


def test_to_pause_drops_late_runs_too_and_leaves_what_was_taken_and_what_was_made_by_hand(server: Server) -> None:
    key = make(server, HOURLY)
    server.schedule_from(key, this_hour() - timedelta(hours=1))
    taken, *others = server.waiting_runs([key])
    assert len(others) > 1
    server.set_run_state(taken.id, type="PENDING", force=True)
    by_hand = server.create_run(key, parameters={}, idempotency_key="pause")
    server.pause_deployment(key)
    server.pause_deployment(key)
    assert read(server).paused
    assert {run.id for run in server.waiting_runs([key])} == {taken.id, by_hand.id}
    server.set_run_state(taken.id, type="CANCELLED", force=True)
    server.delete_run(by_hand.id)
    assert server.waiting_runs([key]) == ()


def test_to_resume_leaves_paused_schedules_and_makes_no_run_by_itself(server: Server) -> None:
    key = make(server, HOURLY, {**YEARLY, "active": False}, paused=True)
    server.resume_deployment(key)
    assert not read(server).paused
    assert {each.slug: each.active for each in read(server).schedules} == {"hourly": True, "yearly": False}


def test_a_slot_whose_run_was_cancelled_gets_no_other_and_one_whose_run_was_deleted_does(server: Server) -> None:
    key = make(server, HOURLY, paused=True)
    server.schedule_from(key, this_hour() + timedelta(hours=1))
    first, second, *_ = server.waiting_runs([key])
    for run in (first, second):
        server.set_run_state(run.id, type="CANCELLED", force=True)
    server.delete_run(second.id)
    server.schedule_from(key, this_hour() + timedelta(hours=1))
    slots = [run.expected_start for run in server.waiting_runs([key])]
    assert first.expected_start not in slots
    assert second.expected_start in slots


def test_what_is_not_there_cannot_be_paused_resumed_cancelled_or_deleted(server: Server) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    calls: tuple[Callable[[], None], ...] = (
        lambda: server.pause_deployment(nobody),
        lambda: server.resume_deployment(nobody),
        lambda: server.set_run_state(nobody, type="CANCELLED", force=True),
        lambda: server.delete_run(nobody),
    )
    for call in calls:
        with pytest.raises(PrefectRejected) as raised:
            call()
        assert raised.value.status == 404
    assert server.waiting_runs([nobody]) == ()


def test_a_pool_has_the_queue_default_and_others_by_priority(server: Server) -> None:
    name = f"queue-{uuid.uuid4().hex[:8]}"
    (default,) = [each for each in server.queues(NOBODYS) if each.name == "default"]
    assert (default.priority, default.concurrency_limit, default.is_paused) == (1, None, False)
    server.create_queue(NOBODYS, name, priority=20, limit=3)
    with pytest.raises(PrefectRejected) as raised:
        server.create_queue(NOBODYS, name, priority=20, limit=3)
    assert raised.value.status == 409
    server.update_queue(NOBODYS, name, {"priority": 30, "concurrency_limit": 4})
    found = {each.name: each for each in server.queues(NOBODYS)}
    assert list(found)[-1] == name
    assert (found[name].priority, found[name].concurrency_limit, found[name].is_paused) == (30, 4, False)
    assert found["default"] == default
    for call in (
        lambda: server.update_queue(NOBODYS, "no-such-queue", {"priority": 3}),
        lambda: server.queues("no-such-pool"),
    ):
        with pytest.raises(PrefectRejected) as raised:
            call()
        assert raised.value.status == 404


def test_a_limit_is_made_once_and_set_by_name(server: Server) -> None:
    name = f"contract-{uuid.uuid4().hex[:8]}"
    try:
        server.create_limit(name, limit=3)
        with pytest.raises(PrefectRejected) as raised:
            server.create_limit(name, limit=3)
        assert raised.value.status == 409
        server.update_limit(name, {"limit": 2, "slot_decay_per_second": 0.5, "active": False})
        (found,) = [each for each in server.limits() if each.name == name]
        assert (found.limit, found.active, found.decay) == (2, False, 0.5)
        with pytest.raises(PrefectRejected) as raised:
            server.update_limit("no-such-limit", {"limit": 1})
        assert raised.value.status == 404
    finally:
        if isinstance(server, PrefectApi):
            server.request("DELETE", f"/v2/concurrency_limits/{name}")


def test_runs_are_found_by_their_tag_and_keep_their_id_and_start_when_they_are_set_again(server: Server) -> None:
    key, tag = make(server, parameters={"job": "x"}), f"contract:{uuid.uuid4().hex}"
    made = [
        server.create_run(
            key, parameters={"n": str(number)}, idempotency_key=str(number), tags=(tag,), work_queue="default"
        )
        for number in (1, 2, 1)
    ]
    assert made[0].id == made[2].id
    found = {run.id: run for run in server.tagged_runs(tag)}
    assert set(found) == {made[0].id, made[1].id}
    assert found[made[0].id].parameters == {"job": "x", "n": "1"}
    assert server.tagged_runs("contract:nobody") == ()
    one = made[0].id
    server.set_run_state(one, type="FAILED", force=True)
    assert [run.finished for run in server.flow_runs([one, made[1].id])] == [True, False]
    server.set_run_parameters(one, {"job": "x", "n": "3"})
    server.set_run_state(one, type="SCHEDULED", name="AwaitingRetry")
    (again,) = server.flow_runs([one])
    assert (again.state_type, again.state_name, again.parameters) == (
        "SCHEDULED",
        "AwaitingRetry",
        {"job": "x", "n": "3"},
    )
    assert again.expected_start == found[one].expected_start
