"""What `doctor` says of jobs, owners and triggers: each finding of `status`, made on a host that is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from doctoring import Host
from fakes import NOON
from legacy_fakes import service, timer
from orchctl.core.doctor import Finding
from orchctl.core.doctor_jobs import CODES
from orchctl.core.handover import Kind, Step
from orchctl.core.handover_journal import Opened, Record
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import PrefectUnreachable

LEGACY = {"job": {"schedules": ["hourly"], "legacy": [{"timer": "job.timer"}]}}
FENCE = "/etc/systemd/system/job.service.d/zz-orchctl-job.conf"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def legacy(tmp_path: Path) -> Host:
    """A host on which a timer starts the job."""
    host = Host(tmp_path, jobs=LEGACY)
    host.systemd.units = [timer("job.timer", "hourly", next_fire=NOON), service("job.service")]
    return host


def moved(host: Host, **fields: Any) -> Opened:
    """Let Prefect own the job by a cutover that has ended; return it. `fields` are those of the owner file."""
    made = opened("cutover")
    host.handovers.begin(made)
    host.handovers.end(made, "done", NOON)
    given = {"draining": False, "handover": made.id, **fields}
    host.owners.create("job", Owner(NOON - timedelta(days=1), **given), still=lambda: True)
    host.systemd.units = [
        timer("job.timer", "hourly", active=False, enabled="disabled"),
        service("job.service", drop_ins=(FENCE,)),
    ]
    return made


def opened(kind: Kind, *, of: str | None = None) -> Opened:
    return Opened(run_id(NOON, kind), kind, "job", NOON - MINUTE, f"{kind} job", Snapshot(), of=of)


def only(host: Host, code: str) -> Finding:
    """Return the one thing that is not ok: what belongs to a code, with its check and its level."""
    (found,) = host.findings()
    assert (found.check, found.level) == CODES[code][:2]
    return found


def test_a_job_that_a_cutover_gave_to_prefect_is_all_ok(legacy: Host) -> None:
    moved(legacy)
    assert legacy.findings() == []


# --- handover


def test_a_rollback_that_was_broken_off(legacy: Host) -> None:
    moved(legacy, draining=True)
    found = only(legacy, "draining")
    assert "until it is done nothing runs the job" in found.seen
    assert found.fix == "`orchctl recover` finishes it"


@pytest.mark.parametrize("handover", [None, "20251219T170030Z-0a1b2c"])
def test_an_owner_file_without_a_journal(legacy: Host, handover: str | None) -> None:
    moved(legacy, handover=handover)
    found = only(legacy, "no-journal")
    assert "its owner file has no journal" in found.seen
    assert "`orchctl recover` writes one" in str(found.fix)


def test_a_cutover_that_nobody_confirmed_and_nothing_rolled_back(legacy: Host) -> None:
    moved(legacy, confirm_by=NOON - MINUTE)
    assert legacy.findings() == [], "its timer may be at it"
    legacy.owners.replace("job", replace(owner(legacy), confirm_by=NOON - 3 * MINUTE))
    found = only(legacy, "confirm-overdue")
    assert "nobody confirmed the cutover until 2025-12-19 16:57:30Z" in found.seen
    assert found.fix == "`orchctl confirm job` keeps it, `orchctl rollback job` does not"


def owner(host: Host) -> Owner:
    found = host.owners.read("job")
    assert found is not None
    return found


def test_a_part_of_a_rollback_that_is_owed_to_prefect(legacy: Host) -> None:
    back = opened("rollback")
    legacy.handovers.begin(back)
    legacy.handovers.add(back, Record(Step.CLEAR, "owed", NOON))
    found = only(legacy, "debt")
    assert "Prefect's part of the rollback of 2025-12-19 16:59:30Z is owed" in found.seen
    assert "`orchctl recover`" in str(found.fix)


# --- triggers


def test_a_timer_of_the_catalog_that_is_not_on_this_host(tmp_path: Path) -> None:
    two = [{"timer": "job.timer"}, {"timer": "second.timer"}]
    host = Host(tmp_path, jobs={"job": {"schedules": ["hourly"], "legacy": two}})
    host.systemd.units = [timer("job.timer", "hourly", next_fire=NOON), service("job.service")]
    found = only(host, "trigger-missing")
    assert found.seen.startswith("job: second.timer (system)")
    assert found.fix == "put right `legacy` in jobs.toml, or the unit"


def test_a_fence_of_a_job_that_legacy_owns(legacy: Host) -> None:
    legacy.systemd.units[1] = service("job.service", drop_ins=(FENCE,))
    found = only(legacy, "fence-left")
    assert "job.service (system) has a fence of this job's, although legacy owns it" in found.seen
    assert found.fix == "if not, remove the drop-in, and enable the timer"


# --- deployments


def test_a_job_whose_deployment_somebody_resumed_after_a_rollback(legacy: Host) -> None:
    back = opened("rollback")
    legacy.handovers.begin(back)
    legacy.handovers.end(back, "done", NOON)
    found = only(legacy, "unpaused-by-hand")
    assert "its deployment was paused by a rollback, and is active again" in found.seen
    (key,) = legacy.prefect.by_id
    legacy.prefect.set_by_hand(key, paused=True)
    assert legacy.findings() == []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_deployment_of_that_name_that_is_somebody_else_s(host: Host) -> None:
    (key,) = host.prefect.by_id
    host.prefect.set_by_hand(key, labels={}, tags=(), parameters={})
    found = only(host, "foreign-deployment")
    assert found.seen.startswith("job: job/job ")
    assert found.fix == "`orchctl plan` says more"


def test_a_schedule_that_was_added_by_hand(host: Host) -> None:
    (key,) = host.prefect.by_id
    cron = {"cron": "0 * * * *", "timezone": "UTC"}
    host.prefect.add_schedules(key, [{"slug": "mine", "active": True, "schedule": cron}])
    found = only(host, "extra-schedule")
    assert found.seen == "job: schedule mine was added by hand in Prefect"
    assert found.fix == "delete it in Prefect, or add it to the catalog"


def test_a_job_that_is_in_prefect_and_no_longer_in_the_catalog(host: Host) -> None:
    host.jobs = {**host.jobs, "old": {"schedules": ["hourly"]}}
    host.sync()
    host.jobs = {"job": host.jobs["job"]}
    host.sync()
    found = only(host, "gone-from-catalog")
    assert found.seen == "old is in Prefect and no longer in the catalog"
    assert found.fix == "`orchctl sync --prune` deletes it"


def test_a_server_that_answers_and_does_not_say_what_it_has(host: Host) -> None:
    said = PrefectUnreachable("the Prefect API does not answer")

    def refused(*_words: object, **_named: object) -> Any:
        raise said

    host.prefect.deployments = refused  # type: ignore[method-assign]
    host.prefect.workers = refused  # type: ignore[method-assign]
    found = host.findings("deployments", "scheduler", "late", "worker")
    # No run is late, as far as is known; that is not to say that none is. And no worker is at fault.
    assert [each.check for each in found] == ["worker", "deployments", "scheduler", "late"]
    assert {(each.level, each.seen) for each in found} == {("unknown", said.message)}


def test_a_worker_that_is_dead_is_at_fault_whatever_the_server_says(host: Host) -> None:
    def refused(_pool: str) -> Any:
        raise PrefectUnreachable("the Prefect API does not answer")

    host.prefect.workers = refused  # type: ignore[method-assign,assignment]
    host.stack.processes["worker-nobody"] = None
    assert [each.level for each in host.findings("worker")] == ["failure"]


def test_a_job_of_which_prefect_says_that_no_worker_asks(host: Host) -> None:
    (key,) = host.prefect.by_id
    host.prefect.set_by_hand(key, status="NOT_READY")
    found = only(host, "no-worker")
    assert "no worker has asked the work pool nobody for runs in the last minute" in found.seen
