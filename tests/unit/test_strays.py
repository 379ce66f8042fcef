"""Which runs count as lost by a worker, and what is made of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import catalogs
from orchctl.adapters.manifests import Manifests
from orchctl.core import manifest
from orchctl.core import strays as rules
from orchctl.core.catalog import Catalog
from orchctl.core.manifest import Identity, Place
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteRun, RemoteWorker
from orchctl.errors import OrchctlError, PrefectRejected
from orchctl.services import strays

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SLOT = NOW - timedelta(seconds=20)
OURS, THEIRS = "here-local", "there-local"


def run(kind: str, **fields: Any) -> RemoteRun:
    made = RemoteRun(
        id="run-1",
        name="a-run",
        deployment_id="d",
        state_type=kind,
        state_name=kind.title(),
        state_message=None,
        expected_start=SLOT,
        auto_scheduled=True,
        created_by_schedule="s",
        run_count=0 if kind in {"PENDING", "CRASHED"} else 1,
        parameters={"job": "job", "digest": "sha256:x"},
        state_since=NOW - timedelta(seconds=5),
        worker=OURS,
    )
    return replace(made, **fields)


@dataclass
class Server:
    """The part of Prefect that is asked. `refuses`: states that it does not take."""

    runs: dict[str, RemoteRun]
    online: tuple[str, ...] = (OURS,)
    refuses: bool = False
    set: list[tuple[str, str | None]] = field(default_factory=list)
    meanwhile: RemoteRun | None = None

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        return tuple(RemoteWorker(name, True, NOW) for name in self.online)

    def taken_runs(self, pool: str, states: Collection[str], *, since: datetime) -> tuple[RemoteRun, ...]:
        return tuple(each for each in self.runs.values() if each.state_type in states)

    def flow_run(self, id: str) -> RemoteRun | None:  # noqa: A002 - as the port has it
        return self.meanwhile or self.runs.get(id)

    def set_run_state(
        self,
        run_id: str,
        *,
        type: str,  # noqa: A002 - as the port has it
        name: str | None = None,
        message: str | None = None,
    ) -> None:
        if self.refuses:
            raise PrefectRejected("no", status=409)
        self.set.append((type, name))


class Applied:
    """One catalog, or none."""

    def __init__(self, catalog: Catalog | None) -> None:
        self.catalog = catalog

    def read(self, digest: str) -> Catalog | None:
        return self.catalog

    def write(self, catalog: Catalog) -> Path:
        raise NotImplementedError

    def state_id(self) -> str | None:
        raise NotImplementedError

    def make_state_id(self) -> str:
        raise NotImplementedError


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    jobs = f"""
version = 1
[defaults]
data_root = "{tmp_path}"
working_directory = "/srv"
work_pool = "local"
[jobs.job]
command = ["true"]
"""
    return catalogs.catalog(jobs, 'version = 1\ntimezone = "UTC"\n')


def look(
    server: Server, catalog: Catalog | None, *, stopped: bool = False, living: Collection[str] | None = ()
) -> list[tuple[str, str | None]]:
    world = strays.World(server, Applied(catalog), Manifests, lambda: living, lambda: NOW)
    strays.put_back(world, "local", OURS, stopped=stopped)
    return server.set


def record(catalog: Catalog, status: Any, *, attempt: int = 1) -> None:
    """Write the manifest that an attempt at the run left."""
    who = Identity(
        job="job",
        asset="job",
        run_id=run_id(SLOT, "run-1"),
        game_date=SLOT.date(),
        as_of=SLOT,
        slot=SLOT,
        trigger="schedule",
        mode="live",
        attempt=attempt,
    )
    data = manifest.started(who, Place("gone", "an-old-boot", 1, 1), {}, at=SLOT)
    if status != "running":
        data = manifest.finished(data, status, at=NOW, duration_s=1.0)
    Manifests(catalog.jobs["job"].data_root).write(data)


PUT_BACK = [("SCHEDULED", None)]


@pytest.mark.parametrize("kind", ["PENDING", "RUNNING"])
def test_what_a_stopped_worker_took_and_had_not_begun_is_put_back(catalog: Catalog, kind: str) -> None:
    assert look(Server({"run-1": run(kind)}), catalog, stopped=True) == PUT_BACK


@pytest.mark.parametrize("kind", ["PENDING", "RUNNING", "CANCELLING", "CRASHED"])
def test_what_a_process_carries_is_left(catalog: Catalog, kind: str) -> None:
    assert look(Server({"run-1": run(kind)}), catalog, stopped=True, living={"run-1"}) == []


def test_what_a_worker_that_goes_on_may_be_submitting_is_left_for_a_while(catalog: Catalog) -> None:
    long = NOW - rules.SUBMITTING - timedelta(seconds=1)
    assert look(Server({"run-1": run("PENDING")}), catalog) == []
    assert look(Server({"run-1": run("PENDING", state_since=long)}), catalog) == PUT_BACK
    assert look(Server({"run-1": run("RUNNING")}), catalog) == []
    assert look(Server({"run-1": run("RUNNING", state_since=long)}), catalog) == PUT_BACK


def test_what_another_host_took_is_left(catalog: Catalog) -> None:
    server = Server({"run-1": run("PENDING", worker=THEIRS)}, online=(THEIRS,))
    assert look(server, catalog, stopped=True) == []


def test_what_nobody_has_put_a_name_on_is_ours_where_nobody_else_is(catalog: Catalog) -> None:
    nameless = run("PENDING", worker=None)
    assert look(Server({"run-1": nameless}), catalog, stopped=True) == PUT_BACK
    assert look(Server({"run-1": nameless}, online=(THEIRS, OURS)), catalog, stopped=True) == []
    long = replace(nameless, state_since=NOW - rules.OTHERS - timedelta(seconds=1))
    assert look(Server({"run-1": long}, online=(THEIRS, OURS)), catalog, stopped=True) == PUT_BACK


def test_a_crash_before_anything_began_is_put_back_while_it_is_fresh(catalog: Catalog) -> None:
    assert look(Server({"run-1": run("CRASHED")}), catalog) == PUT_BACK
    nameless = run("CRASHED", worker=None)
    assert look(Server({"run-1": nameless}, online=(THEIRS, OURS)), catalog) == PUT_BACK
    assert look(Server({"run-1": run("CRASHED", worker=THEIRS)}), catalog) == []
    window = timedelta(seconds=catalog.jobs["job"].catchup_window)
    old = NOW - max(rules.TRIED_FOR, window)
    assert look(Server({"run-1": run("CRASHED", expected_start=old)}), catalog) == PUT_BACK
    assert look(Server({"run-1": run("CRASHED", expected_start=old - timedelta(seconds=1))}), catalog) == []
    assert look(Server({"run-1": run("CRASHED", auto_scheduled=False)}), catalog) == []


def test_what_was_to_be_cancelled_is_cancelled(catalog: Catalog) -> None:
    assert look(Server({"run-1": run("CANCELLING")}), catalog, stopped=True) == [("CANCELLED", None)]


def test_runs_of_flows_that_are_not_ours_are_left(catalog: Catalog) -> None:
    assert look(Server({"run-1": run("PENDING", parameters={})}), catalog, stopped=True) == []


def test_where_the_catalog_is_gone_a_dead_run_is_called_crashed_and_not_run_again() -> None:
    assert look(Server({"run-1": run("RUNNING")}), None, stopped=True) == [("CRASHED", None)]
    assert look(Server({"run-1": run("CRASHED")}), None, stopped=True) == []


def test_what_moved_on_meanwhile_is_left(catalog: Catalog) -> None:
    server = Server({"run-1": run("PENDING")}, meanwhile=run("RUNNING"))
    assert look(server, catalog, stopped=True) == []


def test_a_server_that_knows_better_is_believed(catalog: Catalog) -> None:
    assert look(Server({"run-1": run("PENDING")}, refuses=True), catalog, stopped=True) == []


def test_where_processes_cannot_be_seen_nothing_is_touched(catalog: Catalog) -> None:
    server = Server({"run-1": run("PENDING")})
    with pytest.raises(OrchctlError, match="another user"):
        look(server, catalog, stopped=True, living=None)
    assert server.set == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("running", ("CRASHED", None)),
        ("success", ("COMPLETED", None)),
        ("failed", ("FAILED", None)),
        ("cancelled", ("CANCELLED", None)),
        ("skipped", ("COMPLETED", "Skipped")),
        ("observed", ("COMPLETED", "Observed")),
    ],
)
def test_what_has_begun_is_never_put_back_but_told_as_it_ended(
    catalog: Catalog, status: str, told: tuple[str, str | None]
) -> None:
    record(catalog, status)
    assert look(Server({"run-1": run("RUNNING")}), catalog, stopped=True) == [told]
    assert look(Server({"run-1": run("CRASHED", run_count=1)}), catalog, stopped=True) == []


def test_a_second_attempt_that_had_not_begun_is_put_back(catalog: Catalog) -> None:
    record(catalog, "failed")
    assert look(Server({"run-1": run("RUNNING", run_count=2)}), catalog, stopped=True) == PUT_BACK
