"""Prefect's history: which runs go, in which batches, and what stays whatever its age."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.handover_journal import Opened
from orchctl.core.names import run_id
from orchctl.core.retention import Ended
from orchctl.core.snapshot import Snapshot
from orchctl.errors import Interrupted, PrefectUnreachable
from orchctl.services import prune
from orchctl.services.prune_history import GONE
from pruning import Host, ago, deployment, kept, seconds


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.history.deployments_ = [deployment("job"), deployment("other")]
    return made


def test_what_ended_before_goes_and_the_rest_stays(host: Host) -> None:
    for days in (300, 200, 91):
        host.history.add("job", ago(days), state="FAILED")
    stay = {host.history.add("job", ago(days)) for days in (89, 1)}
    stay.add(host.history.add("job", ago(400), state="SCHEDULED"))
    assert host.look(history=90) == {("history", "job"): 3}
    assert host.history.deleted == []
    assert host.prune(history=90) == {("history", "job"): 3}
    assert set(host.history.runs) == stay
    assert host.prune(history=90) == {}


def test_the_newest_of_each_deployment_stays(host: Host) -> None:
    newest = {host.history.add(job, ago(100)) for job in ("job", "other")}
    host.history.add("job", ago(101))
    assert host.look(history=90) == host.prune(history=90) == {("history", "job"): 1}
    assert set(host.history.runs) == newest


def test_what_is_another_catalogs_stays(host: Host) -> None:
    host.history.deployments_ = [deployment("job", owner="theirs")]
    for days in (200, 100, 1):
        host.history.add("job", ago(days))
    assert host.look(history=90) == host.prune(history=90) == {}


def test_of_a_job_whose_deployment_is_gone_the_runs_go_that_were_ours(host: Host) -> None:
    host.applied.write(host.catalog)
    for days in (101, 100):
        host.history.add(None, ago(days), digest=host.catalog.digest)
    theirs = [host.history.add(None, ago(days), job="theirs", digest="sha256:" + "0" * 64) for days in (101, 100)]
    no_digest = [host.history.add(None, ago(days), job="nobody's") for days in (101, 100)]
    newest = host.history.add(None, ago(99), digest=host.catalog.digest)
    assert host.look(history=90) == host.prune(history=90) == {("history", GONE): 2}
    assert set(host.history.runs) == {newest, *theirs, *no_digest}


def test_of_each_job_whose_deployment_is_gone_the_newest_stays(host: Host) -> None:
    host.applied.write(host.catalog)
    for job in ("one", "two"):
        host.history.add(None, ago(101), job=job, digest=host.catalog.digest)
    newest = host.history.add(None, ago(100), job="one", digest=host.catalog.digest)
    young = host.history.add(None, ago(1), job="two", digest=host.catalog.digest)
    found = prune.look(host.world(), seconds({"history": 90}))
    assert [(each.job, each.count, each.reason) for each in found.kept] == [(GONE, 1, "the newest of its job")]
    assert host.look(history=90) == host.prune(history=90) == {("history", GONE): 2}
    assert set(host.history.runs) == {newest, young}


def test_they_go_in_batches_with_a_pause_as_long_as_each_took(host: Host) -> None:
    for number in range(120):
        host.history.add("job", ago(100 + number))
    host.history.add("job", ago(1))

    def slow() -> None:
        host.elapsed += 3.0

    host.history.before_deleting = slow
    assert host.prune(history=90) == {("history", "job"): 120}
    assert [len(each) for each in host.history.deleted] == [50, 50, 20]
    assert host.slept == [3.0, 3.0, 3.0]


def test_after_a_fast_batch_there_is_a_pause_too(host: Host) -> None:
    host.history.add("job", ago(100))
    host.history.add("job", ago(1))
    host.prune(history=90)
    assert host.slept == [0.2]


def test_a_run_that_is_to_be_run_again_meanwhile_stays(host: Host) -> None:
    again = host.history.add("job", ago(100))
    host.history.add("job", ago(1))

    def retry() -> None:
        host.history.runs[again] = replace(host.history.runs[again], state_type="SCHEDULED")

    host.history.before_deleting = retry
    assert host.prune(history=90) == {}
    assert again in host.history.runs


def test_stopped_halfway_it_says_how_far_and_the_next_one_goes_on(host: Host) -> None:
    for number in range(120):
        host.history.add("job", ago(100 + number))
    host.history.add("job", ago(1))

    def stop() -> None:
        if len(host.history.deleted) == 2:
            raise KeyboardInterrupt

    host.history.before_deleting = stop
    with pytest.raises(Interrupted, match="interrupted; done until then: 100 runs in Prefect deleted"):
        host.prune(history=90)
    host.history.before_deleting = None
    assert host.prune(history=90) == {("history", "job"): 20}


def test_a_long_work_says_how_far_it_is(host: Host) -> None:
    for number in range(120):
        host.history.add("job", ago(100 + number))

    def slow() -> None:
        host.elapsed += 6.0

    host.history.add("job", ago(1))
    host.history.before_deleting = slow
    host.prune(history=90)
    assert host.said == ["so far: 100 runs in Prefect deleted"]


def test_where_the_server_is_away_the_rest_is_done(host: Host) -> None:
    def away() -> Any:
        raise PrefectUnreachable("cannot reach it")

    host.ran(ago(100))
    host.ran(ago(1))
    world = host.world(prefect=away)
    found = prune.prune(world, seconds({"history": 90, "manifests": 90}))
    assert [row.kind for row in found.rows] == ["manifests"]
    assert [(each.kind, each.error.message) for each in found.problems] == [("history", "cannot reach it")]
    with pytest.raises(PrefectUnreachable):
        prune.prune(world, seconds({"history": 90}))


# --- backfills and handovers


def summed_up(host: Host, at: datetime) -> None:
    folder = host.data / "manifests" / "backfills" / "b"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"finished_at": at.strftime("%Y-%m-%dT%H:%M:%SZ")}))


def test_the_runs_of_a_backfill_go_together_or_not_at_all(host: Host) -> None:
    for days in (100, 95):
        host.history.add("job", ago(days), queue="backfill", backfill="b")
    late = host.history.add("job", ago(80), queue="backfill", backfill="b")
    host.history.add("job", ago(1))
    assert host.look(history=90) == {}
    summed_up(host, ago(80))
    assert host.prune(history=90) == {}
    summed_up(host, ago(95))  # and a date was run again since
    found = prune.prune(host.world(), seconds({"history": 90}))
    assert (found.rows, list(kept(found).values())) == ((), [2])
    del host.history.runs[late]
    assert host.look(history=90) == host.prune(history=90) == {("history", "job"): 2}


def test_a_backfill_of_a_job_that_is_gone_is_looked_for_where_its_catalog_had_it(host: Host) -> None:
    before = host.catalog
    host.applied.write(before)
    host.catalog = before.model_copy(update={"jobs": {"other": before.jobs["other"]}})
    for days in (102, 101):
        host.history.add(None, ago(days), job="job", queue="backfill", backfill="b", digest=before.digest)
    newest = host.history.add(None, ago(100), job="job", digest=before.digest)
    assert host.look(history=90) == host.prune(history=90) == {}
    summed_up(host, ago(95))
    assert host.look(history=90) == host.prune(history=90) == {("history", GONE): 2}
    assert set(host.history.runs) == {newest}


def test_more_runs_of_an_unfinished_backfill_than_a_page_hide_no_others(host: Host) -> None:
    for number in range(130):
        host.history.add("job", ago(100 + number), queue="backfill", backfill="b")
        host.history.add("job", ago(100 + number))
    host.history.add("job", ago(1))
    assert host.look(history=90) == host.prune(history=90) == {("history", "job"): 130}
    assert len(host.history.runs) == 131


def test_nothing_of_a_job_in_a_handover_goes(host: Host) -> None:
    for job in ("job", "other"):
        for days in (100, 1):
            host.history.add(job, ago(days))
    host.handovers.begin(Opened(run_id(ago(2), "x"), "cutover", "job", ago(2), "orchctl", Snapshot()))
    assert host.look(history=90) == host.prune(history=90) == {("history", "other"): 1}


# --- what is sent


def api(answer: Callable[[str, Any], Any]) -> PrefectApi:
    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        data = answer(f"{request.method} {request.url.path}", body)
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(200, json=data)

    return PrefectApi(url="http://prefect/api", transport=httpx.MockTransport(handle), sleep=lambda _: None)


def test_what_is_deleted_is_what_has_still_ended_and_its_artifacts_first() -> None:
    sent: list[tuple[str, Any]] = []

    def answer(call: str, body: Any) -> Any:
        sent.append((call, body))
        if call.endswith("/artifacts/filter"):
            return [{"id": "an-artifact"}] if len(sent) == 1 else []
        return {"deleted": ["a"]} if call.endswith("bulk_delete") else None

    with api(answer) as prefect:
        assert prefect.delete_ended(["a", "b"], ago(90)) == 1
    calls = [call for call, _ in sent]
    assert calls == [
        "POST /api/artifacts/filter",
        "DELETE /api/artifacts/an-artifact",
        "POST /api/artifacts/filter",
        "POST /api/flow_runs/bulk_delete",
    ]
    assert sent[-1][1] == {
        "flow_runs": {
            "id": {"any_": ["a", "b"]},
            "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
            "end_time": {"before_": ago(90).isoformat()},
        },
        "limit": 50,
    }


def test_an_artifact_that_somebody_else_has_deleted_is_done() -> None:
    sent: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(f"{request.method} {request.url.path}")
        if request.method == "DELETE":
            return httpx.Response(404, json={"detail": "Artifact not found."})
        listed = [{"id": "an-artifact"}] if len(sent) == 1 else []
        return httpx.Response(200, json=listed if request.url.path.endswith("/filter") else {"deleted": ["a"]})

    with PrefectApi(url="http://prefect/api", transport=httpx.MockTransport(handle), sleep=lambda _: None) as prefect:
        assert prefect.delete_ended(["a"], ago(90)) == 1
    assert len(sent) == 4


@pytest.mark.parametrize("answered", ["no", [], {"deleted": 3}, {}])
def test_what_is_no_answer_of_prefect_is_an_error(answered: Any) -> None:
    with (
        api(lambda call, _: [] if call.endswith("/artifacts/filter") else answered) as prefect,
        pytest.raises(PrefectUnreachable),
    ):
        prefect.delete_ended(["a"], ago(90))


@pytest.mark.parametrize(
    ("flow", "flows"), [(None, {"deployment": {"is_null_": True}}), ("a-flow", {"id": {"any_": ["a-flow"]}})]
)
def test_what_is_counted_is_what_a_flow_of_ours_ran(flow: str | None, flows: dict[str, Any]) -> None:
    sent: list[Any] = []

    def answer(_: str, body: Any) -> int:
        sent.append(body)
        return 7

    with api(answer) as prefect:
        assert prefect.count_ended(Ended(ago(90), flow, queue="backfill")) == 7
    assert sent == [
        {
            "flows": flows,
            "flow_runs": {
                "tags": {"all_": ["orchctl"]},
                "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
                "end_time": {"before_": ago(90).isoformat()},
                "work_queue_name": {"any_": ["backfill"]},
            },
        }
    ]
