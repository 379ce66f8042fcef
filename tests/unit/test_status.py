"""Where a job stands, and everything that can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import fakes
from fakes import NOON, FakeApplied, FakePrefect
from legacy_fakes import FakeSystemd, service, timer
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.handover import Kind, Step
from orchctl.core.handover_journal import Opened, Record
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.core.status import JobStatus, due_soon
from orchctl.errors import NotAllowed, PrefectUnreachable, StateBroken, SystemdUnavailable
from orchctl.services import status, sync

USER = Manager("user")
SINCE = NOON - timedelta(days=3)
LEGACY = [{"timer": "job.timer"}, {"timer": "job.timer", "scope": "user"}]
FENCE = ("/etc/systemd/system/job.service.d/zz-orchctl-job.conf",)
HOURLY = {"hourly": {"cron": "0 * * * *"}}


@dataclass
class Owners:
    owners: dict[str, Owner | str] = field(default_factory=dict)

    def read(self, job: str) -> Owner | None:
        found = self.owners.get(job)
        if isinstance(found, str):
            raise StateBroken(found)
        return found

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.owners))


@dataclass
class Host:
    """A host on which the catalog has been synced."""

    root: Path
    catalog: Catalog
    systemd: FakeSystemd = field(default_factory=FakeSystemd)
    prefect: Any = field(default_factory=FakePrefect)
    owners: Owners = field(default_factory=Owners)
    applied: FakeApplied = field(default_factory=FakeApplied)
    lines: dict[str, int | None] = field(default_factory=dict)
    journals: type[Handovers] = Handovers

    def sync(self) -> None:
        proposed = sync.propose(self.catalog, self.prefect, self.applied, state_dir="/state", now=NOON)
        sync.apply(proposed, self.catalog, self.prefect, self.applied, now=lambda: NOON)
        for key, each in self.prefect.by_id.items():
            self.prefect.by_id[key] = replace(each, status="READY")
            self.prefect.schedule_from(key, NOON)

    def status(self, only: str | None = None) -> status.Status:
        world = status.World(
            catalog=self.catalog,
            systemd=self.systemd,
            crontabs=self,
            prefect=self.prefect,
            owners=self.owners,
            handovers=self.handovers,
            applied=self.applied,
            tree=self.tree,
            host_zone="UTC",
            state_dir="/state",
        )
        return status.status(world, now=NOON, only=only)

    def find(self, trigger: CronTrigger) -> int | None:
        return self.lines.get(trigger.cron)

    def tree(self, _root: str) -> Manifests:
        return Manifests(str(self.root))

    @property
    def handovers(self) -> Handovers:
        return self.journals(self.root / "state")

    def handover(self, kind: Kind, at: datetime = SINCE, job: str = "job", *, ended: bool = True) -> Opened:
        """Write the journal of a handover."""
        opened = Opened(run_id(at, kind), kind, job, at, f"{kind} {job}", Snapshot())
        self.handovers.begin(opened)
        if ended:
            self.handovers.end(opened, "done", at)
        return opened

    def cut_over(self, job: str = "job", **more: Any) -> None:
        """Make Prefect the owner, as a cutover that ended left it."""
        made = self.handover("cutover", job=job)
        self.owners.owners[job] = Owner(SINCE, **{"draining": False, "handover": made.id, **more})

    @property
    def job(self) -> JobStatus:
        (job,) = self.status().jobs
        return job

    @property
    def deployment(self) -> str:
        (key,) = self.prefect.by_id
        return str(key)


def event(root: Path, at: datetime, status: str, **more: Any) -> None:
    fields = {"job": "job", "asset": "job", "slot": None, "origin": "prefect", "trigger": "schedule", "mode": "live"}
    stamp = at.isoformat().replace("+00:00", "Z")
    number = at.strftime("%Y%m%dT%H%M%SZ")
    Manifests(str(root)).append(
        {
            **fields,
            "ts": stamp,
            "event": "run_finished",
            "run_id": f"{number}-000000",
            "game_date": at.date().isoformat(),
            "status": status,
            "attempt": 1,
            "started_at": stamp,
            "finished_at": stamp,
            **more,
        }
    )


@pytest.fixture
def legacy(tmp_path: Path) -> Host:
    """A job that both timers run and Prefect observes."""
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": LEGACY, "schedules": ["hourly"]}}, HOURLY))
    later = NOON + timedelta(minutes=5)
    host.systemd.units = [
        timer("job.timer", "*:0/5", next_fire=later),
        timer("job.timer", "*:0/5", next_fire=later, manager=USER),
    ]
    host.sync()
    return host


@pytest.fixture
def owned(legacy: Host) -> Host:
    """The same after a cutover: Prefect owns it, the timers are off, the services fenced."""
    legacy.systemd.units = [
        timer("job.timer", active=False, enabled="disabled", manager=each) for each in (SYSTEM, USER)
    ]
    legacy.systemd.units += [service("job.service", manager=each, drop_ins=FENCE) for each in (SYSTEM, USER)]
    legacy.cut_over()
    return legacy


def codes(host: Host) -> list[str]:
    return [each.code for each in host.job.findings]


def test_a_job_that_legacy_owns(legacy: Host) -> None:
    job = legacy.job
    assert (job.owner, job.mode, job.deployment, job.since) == ("legacy", "observe", "scheduled", None)
    assert [each.state for each in job.triggers] == ["on", "on"]
    assert job.next == job.next_legacy == NOON + timedelta(minutes=5)
    assert job.next_prefect == NOON.replace(hour=18, minute=0, second=0)
    assert job.findings == ()
    assert not legacy.status().wrong


def test_a_job_that_prefect_owns(owned: Host) -> None:
    job = owned.job
    assert (job.owner, job.mode, job.since) == ("prefect", "live", SINCE)
    assert [each.state for each in job.triggers] == ["off", "off"]
    assert job.next == job.next_prefect
    assert job.findings == ()


def test_a_job_without_legacy_triggers_is_prefects(tmp_path: Path) -> None:
    host = Host(tmp_path, fakes.catalog({"job": {"schedules": ["hourly"]}}, HOURLY))
    host.sync()
    assert (host.job.owner, host.job.mode, host.job.triggers) == ("prefect", "live", ())
    assert host.systemd.calls == []
    assert not host.status().wrong


@pytest.mark.parametrize(("active", "enabled"), [(True, "disabled"), (False, "enabled"), (True, "enabled")])
def test_a_timer_that_came_back_is_found(owned: Host, active: bool, enabled: str) -> None:
    owned.systemd.units[1] = timer("job.timer", manager=USER, active=active, enabled=enabled)
    assert codes(owned) == ["trigger-came-back"]
    assert "job.timer (user)" in owned.job.findings[0].message


def test_a_job_whose_timers_are_off_is_run_by_nobody(legacy: Host) -> None:
    legacy.systemd.units = [timer("job.timer", active=False, manager=each) for each in (SYSTEM, USER)]
    assert codes(legacy) == ["nobody-runs-it"]


def test_one_timer_that_is_on_is_enough(legacy: Host) -> None:
    legacy.systemd.units[1] = timer("job.timer", active=False, manager=USER)
    assert codes(legacy) == []


def test_a_timer_that_is_gone_is_missed_while_legacy_owns_the_job(legacy: Host, owned: Host) -> None:
    legacy.owners.owners.clear()
    legacy.systemd.units = [timer("job.timer", "*:0/5")]
    assert codes(legacy) == ["trigger-missing"]
    legacy.cut_over()
    legacy.systemd.units = []
    assert codes(legacy) == []


def test_a_systemd_that_refuses_leaves_a_question(legacy: Host) -> None:
    legacy.systemd.broken[USER] = NotAllowed("not yours")
    assert codes(legacy) == ["trigger-unknown"]
    assert [each.state for each in legacy.job.triggers] == ["on", "unknown"]


@pytest.mark.parametrize(
    ("count", "state", "legacy_code", "owned_code"),
    [(1, "on", [], ["trigger-came-back"]), (0, "off", ["nobody-runs-it"], []), (None, "unknown", None, None)],
)
def test_a_cron_line_is_looked_for(
    tmp_path: Path, count: int | None, state: str, legacy_code: list[str] | None, owned_code: list[str] | None
) -> None:
    line = "5 3 * * * /bin/true"
    job = {"legacy": [{"cron": line, "user": "daniel"}], "schedules": ["hourly"]}
    host = Host(tmp_path, fakes.catalog({"job": job}, HOURLY), lines={line: count})
    host.sync()
    assert [each.state for each in host.job.triggers] == [state]
    assert (host.job.next is not None) is (count == 1)
    assert codes(host) == (["trigger-unknown"] if legacy_code is None else legacy_code)
    host.cut_over()
    assert codes(host) == (["trigger-unknown"] if owned_code is None else owned_code)


def test_a_systemd_that_does_not_run_starts_nothing(legacy: Host) -> None:
    for manager in (SYSTEM, USER):
        legacy.systemd.broken[manager] = SystemdUnavailable("it does not run", absent=True)
    assert codes(legacy) == ["nobody-runs-it"]
    assert "it does not run" in legacy.job.findings[0].message


def test_an_owner_file_that_cannot_be_believed_is_shown(legacy: Host) -> None:
    legacy.owners.owners["job"] = "owners/job.json is not an owner file"
    assert (legacy.job.owner, legacy.job.mode, codes(legacy)) == ("unknown", "unknown", ["owner-unknown"])


def test_a_rollback_under_way_is_shown(owned: Host) -> None:
    owned.owners.owners["job"] = Owner(SINCE, draining=True)
    assert (owned.job.owner, owned.job.mode, codes(owned)) == ("draining", "observe", ["draining"])


def test_drift_is_told_from_a_catalog_that_is_ahead(owned: Host) -> None:
    owned.prefect.set_by_hand(owned.deployment, tags=("orchctl", "mine"))
    assert codes(owned) == ["drift"]
    assert "tags" in owned.job.findings[0].message
    # As an orchctl leaves it that does not tag with the catalog's name: nobody changed it.
    owned.prefect.set_by_hand(owned.deployment, tags=("orchctl",))
    assert codes(owned) == ["not-synced"]
    owned.prefect.set_by_hand(owned.deployment, tags=("orchctl", f"orchctl:{owned.catalog.name}"))
    assert codes(owned) == []
    owned.catalog = fakes.catalog({"job": {"legacy": LEGACY, "schedules": ["hourly"], "nice": 5}}, HOURLY)
    assert codes(owned) == ["not-synced"]


def test_a_job_that_prefect_does_not_have_is_not_synced(legacy: Host) -> None:
    legacy.prefect = FakePrefect()
    assert (legacy.job.deployment, codes(legacy)) == ("absent", ["not-synced"])


def test_a_deployment_of_somebody_else_is_in_the_way(legacy: Host) -> None:
    labels = {"orchctl.catalog": "other", "orchctl.job": "job"}
    legacy.prefect.set_by_hand(legacy.deployment, labels=labels)
    assert (legacy.job.deployment, codes(legacy)) == ("foreign", ["foreign-deployment"])


def test_no_worker(owned: Host) -> None:
    owned.prefect.set_by_hand(owned.deployment, status="NOT_READY")
    assert codes(owned) == ["no-worker"]


def test_nothing_ahead_of_an_active_schedule(owned: Host) -> None:
    owned.prefect.runs.clear()
    assert codes(owned) == ["nothing-ahead"]


def test_nothing_ahead_of_a_schedule_that_is_not_due_for_months_is_right(tmp_path: Path) -> None:
    yearly = {"hourly": {"cron": "0 5 1 6 *"}}
    host = Host(tmp_path, fakes.catalog({"job": {"schedules": ["hourly"]}}, yearly))
    host.sync()
    host.prefect.runs.clear()
    assert codes(host) == []


@pytest.mark.parametrize(
    ("schedule", "soon"),
    [
        ({"cron": "0 5 1 1 *", "timezone": "America/New_York"}, True),
        ({"cron": "0 5 1 6 *"}, False),
        ({"interval": 3600.0, "anchor_date": "2020-01-01T00:00:00Z"}, True),
        ({"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY"}, True),
        ({"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY;COUNT=3"}, False),
        ({"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=YEARLY;BYMONTH=6"}, False),
        ({"cron": "no cron"}, True),
    ],
)
def test_how_far_prefect_looks_ahead(schedule: dict[str, Any], soon: bool) -> None:
    assert due_soon(schedule, NOON) is soon


def test_late_runs_are_counted_and_their_slot_is_not_the_next(owned: Host) -> None:
    late = [key for key, run in owned.prefect.runs.items()][:2]
    for minutes, key in zip((40, 5), late, strict=True):
        owned.prefect.set_run(key, state_name="Late", expected_start=NOON - timedelta(minutes=minutes))
    job = owned.job
    assert (job.late, [each.code for each in job.findings]) == (2, ["late-runs"])
    assert "2 runs wait past the time, the oldest since 2025-12-19 16:20:30Z" in job.findings[0].message
    assert job.next is not None
    assert job.next > NOON


def test_a_run_that_waits_for_its_retry_is_not_late(owned: Host) -> None:
    key = next(iter(owned.prefect.runs))
    owned.prefect.set_run(key, state_name="AwaitingRetry", expected_start=NOON - timedelta(minutes=5))
    assert codes(owned) == []


def test_what_is_paused_by_hand_is_wrong_where_prefect_owns_the_job(owned: Host) -> None:
    owned.prefect.set_by_hand(owned.deployment, paused=True)
    assert (owned.job.deployment, codes(owned)) == ("paused", ["paused"])
    owned.owners.owners.clear()
    owned.systemd.units = [timer("job.timer", "*:0/5"), timer("job.timer", manager=USER)]
    assert (owned.job.deployment, codes(owned)) == ("paused", [])


def test_a_schedule_that_is_paused_by_hand_is_named(owned: Host) -> None:
    (schedule,) = owned.prefect.by_id[owned.deployment].schedules
    owned.prefect.set_by_hand(owned.deployment, schedules=(replace(schedule, active=False),))
    assert [(each.code, "hourly" in each.message) for each in owned.job.findings] == [("paused", True)]


def test_a_schedule_that_was_added_by_hand_is_named(owned: Host) -> None:
    (schedule,) = owned.prefect.by_id[owned.deployment].schedules
    owned.prefect.set_by_hand(owned.deployment, schedules=(schedule, replace(schedule, id="x", slug="mine")))
    assert codes(owned) == ["extra-schedule"]


def test_a_job_that_is_gone_from_the_catalog_is_told_once(owned: Host) -> None:
    jobs = {"other": {"schedules": ["hourly"]}}
    owned.catalog = fakes.catalog(jobs, HOURLY)
    owned.owners.owners.clear()
    found = owned.status()
    assert [(each.code, "job" in each.message) for each in found.findings] == [("gone-from-catalog", True)]


def test_without_prefect_everything_else_is_there(legacy: Host) -> None:
    class Gone(FakePrefect):
        def deployments(self, **_: Any) -> Any:
            raise PrefectUnreachable("cannot reach it")

    legacy.prefect = Gone()
    found = legacy.status()
    (job,) = found.jobs
    assert (found.unreachable, [each.code for each in found.findings]) == ("cannot reach it", ["prefect-unreachable"])
    assert (job.deployment, [each.state for each in job.triggers], job.findings) == ("unknown", ["on", "on"], ())
    assert found.wrong


# --- drift of ownership


def fixes(host: Host) -> dict[str, str | None]:
    return {each.code: each.fix for each in host.job.findings}


def test_each_drift_says_what_recover_does_about_it(owned: Host) -> None:
    owned.systemd.units[0] = timer("job.timer")
    owned.systemd.units[2] = service("job.service")
    assert fixes(owned) == {
        "fence-gone": "`orchctl recover` puts it back",
        "trigger-came-back": "`orchctl recover` turns it off again",
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"drop_ins": ()}, "job.service (user) has no fence"),
        ({"drop_ins": ("/etc/systemd/system/job.service.d/zz-orchctl-other.conf",)}, "has no fence"),
        ({"drop_ins": FENCE, "needs_reload": True}, "has files that systemd has not loaded"),
    ],
)
def test_a_fence_that_is_gone_is_found(owned: Host, more: dict[str, Any], said: str) -> None:
    owned.systemd.units[3] = service("job.service", manager=USER, **more)
    (finding,) = owned.job.findings
    assert finding.code == "fence-gone"
    assert said in finding.message


def test_a_service_that_is_gone_needs_no_fence(owned: Host) -> None:
    owned.systemd.units[2:] = [
        service("job.service", load="not-found"),
        service("job.service", manager=USER, load="masked"),
    ]
    assert codes(owned) == []


def test_a_fence_of_a_job_that_legacy_owns_is_found_and_left_to_people(legacy: Host) -> None:
    legacy.systemd.units.append(service("job.service", drop_ins=FENCE))
    assert fixes(legacy) == {"fence-left": "if not, remove the drop-in, and enable the timer"}
    legacy.handover("cutover", ended=False)
    assert codes(legacy) == ["unfinished-handover"]


@pytest.mark.parametrize("named", [None, "20251219T020143Z-3f9a1c"])
def test_an_owner_file_without_a_journal_is_found(owned: Host, named: str | None) -> None:
    owned.owners.owners["job"] = Owner(SINCE, draining=False, handover=named)
    assert fixes(owned) == {
        "no-journal": "`orchctl recover` writes one, from the job's timers in the catalog, and sees that they are off"
    }


def test_a_journal_that_cannot_be_believed_is_none(owned: Host) -> None:
    (path,) = (owned.root / "state" / "handovers").glob("*.jsonl")
    path.write_bytes(b"{}\n")
    (finding,) = owned.job.findings
    assert (finding.code, str(path) in finding.message) == ("no-journal", True)


def test_a_cutover_whose_mark_is_gone_is_unfinished(owned: Host) -> None:
    made = owned.handover("cutover", NOON, ended=False)
    (owned.root / "state" / "handovers" / "open" / "job").unlink()
    owned.owners.owners["job"] = Owner(SINCE, draining=False, handover=made.id)
    assert fixes(owned) == {"unfinished-handover": "`orchctl recover` finishes it"}


def test_an_unfinished_handover_says_how_far_it_came_and_what_recover_does(legacy: Host) -> None:
    opened = legacy.handover("cutover", ended=False)
    assert fixes(legacy) == {"unfinished-handover": "`orchctl recover` takes it back"}
    legacy.handovers.add(opened, Record(Step.FENCE, "begun", NOON))
    assert "it came to “fence the legacy services" in legacy.job.findings[0].message
    legacy.owners.owners["job"] = Owner(SINCE, draining=False, handover=opened.id)
    assert fixes(legacy)["unfinished-handover"] == "`orchctl recover` finishes it"


def test_a_rollback_that_is_unfinished_is_told_once(owned: Host) -> None:
    owned.handover("rollback", NOON, ended=False)
    owned.owners.owners["job"] = Owner(SINCE, draining=True)
    assert codes(owned) == ["unfinished-handover"]


def test_a_handover_whose_mark_was_left_over_only_lacks_its_end(owned: Host) -> None:
    opened = owned.handover("rollback", NOON)
    owned.handovers.begin(opened)
    assert "only its end is not written down" in owned.job.findings[0].message


def test_a_mark_that_cannot_be_believed_is_found(legacy: Host) -> None:
    legacy.handover("cutover", ended=False)
    (legacy.root / "state" / "handovers" / "open" / "job").write_text("{}")
    (finding,) = legacy.job.findings
    assert (finding.code, "names no handover" in finding.message) == ("unfinished-handover", True)


def test_a_debt_is_no_other_unfinished_handover(legacy: Host) -> None:
    opened = legacy.handover("rollback", ended=False)
    legacy.handovers.add(opened, Record(Step.CLEAR, "owed", NOON, "the API is closed"))
    (finding,) = legacy.job.findings
    assert finding.code == "debt"
    assert finding.message == (
        "Prefect's part of the rollback of 2025-12-16 17:00:30Z is owed: pause Prefect's deployment, and cancel what a "
        "worker could still take"
    )
    assert finding.fix == "`orchctl recover` and `orchctl sync` do it once Prefect answers"


def test_a_deployment_that_was_unpaused_by_hand_after_a_rollback_is_found(legacy: Host) -> None:
    legacy.prefect.set_by_hand(legacy.deployment, paused=True)
    legacy.handover("rollback")
    assert codes(legacy) == []
    legacy.prefect.set_by_hand(legacy.deployment, paused=False)
    assert fixes(legacy) == {"unpaused-by-hand": "`orchctl recover` pauses it again"}
    legacy.cut_over()
    legacy.systemd.units = []
    assert codes(legacy) == []


def test_an_unconfirmed_cutover_is_shown_and_is_not_wrong_until_it_is_overdue(owned: Host) -> None:
    owned.cut_over(confirm_by=NOON + timedelta(hours=1))
    assert (owned.job.confirm_by, codes(owned)) == (NOON + timedelta(hours=1), [])
    owned.cut_over(confirm_by=NOON - timedelta(minutes=1))
    assert codes(owned) == []
    owned.cut_over(confirm_by=NOON - timedelta(minutes=5))
    assert fixes(owned) == {
        "confirm-overdue": "`orchctl confirm job` keeps it, `orchctl rollback job` does not",
    }


def test_what_prefect_owns_of_jobs_that_are_not_in_the_catalog_is_told(owned: Host) -> None:
    owned.cut_over("gone")
    owned.handover("rollback", job="half", ended=False)
    found = owned.status().findings
    assert [(each.code, each.message, each.fix) for each in found] == [
        (
            "owned-and-gone",
            "Prefect owns gone, which is not in the catalog",
            "`orchctl rollback gone` makes legacy its owner",
        ),
        (
            "unfinished-handover",
            "a handover of half, which is not in the catalog, is unfinished",
            "`orchctl recover` goes on with it",
        ),
    ]
    assert owned.status("job").findings == ()


def test_only_the_journals_that_marks_and_owners_name_are_read(owned: Host) -> None:
    read: list[str] = []

    class Watched(Handovers):
        def read(self, id: str) -> Any:  # noqa: A002 - as the adapter has it
            read.append(id)
            return super().read(id)

    for day in range(20):
        owned.handover("rollback", SINCE - timedelta(days=day + 1))
    made = owned.owners.owners["job"]
    owned.journals = Watched
    assert codes(owned) == []
    assert isinstance(made, Owner)
    assert read == [made.handover]


# --- what ran last


def test_the_last_run_is_the_last_that_executed(legacy: Host) -> None:
    event(legacy.root, NOON - timedelta(hours=30), "failed", origin="systemd")
    event(legacy.root, NOON - timedelta(minutes=2), "observed", mode="observe")
    last = legacy.job.last
    assert last is not None
    assert (last.status, last.by, last.at) == ("failed", "systemd", (NOON - timedelta(hours=30)).replace(microsecond=0))


def test_a_service_knows_of_a_run_that_was_not_brought_in_yet(legacy: Host) -> None:
    event(legacy.root, NOON - timedelta(hours=2), "success", origin="systemd")
    legacy.systemd.units.append(service("job.service", started_at=NOON - timedelta(minutes=1), result="exit-code"))
    last = legacy.job.last
    assert last is not None
    assert (last.status, last.by, last.run_id) == ("failed", "job.service (system)", None)


def test_history_is_not_read(legacy: Host) -> None:
    event(legacy.root, NOON - timedelta(days=4), "success")
    assert legacy.job.last is None


def test_only_the_days_that_are_needed_are_read(legacy: Host) -> None:
    read = []

    class Watched(Manifests):
        def events(self, day: Any, **more: Any) -> Any:
            read.append(day)
            return super().events(day, **more)

    legacy.tree = lambda _root: Watched(str(legacy.root))  # type: ignore[method-assign]
    event(legacy.root, NOON - timedelta(minutes=2), "success")
    assert legacy.job.last is not None
    assert read == [NOON.date()]


# --- how much is asked


def answers(ready: FakePrefect, requests: list[httpx.Request]) -> PrefectApi:
    """Return the real client, on a transport that answers as Prefect does, and keeps what it was asked."""
    deployments = [
        {
            "id": each.id,
            "name": each.name,
            "flow_id": each.flow_id,
            "paused": each.paused,
            "description": each.description,
            "entrypoint": each.entrypoint,
            "tags": list(each.tags),
            "labels": dict(each.labels),
            "parameters": dict(each.parameters),
            "parameter_openapi_schema": dict(each.parameter_schema),
            "enforce_parameter_schema": True,
            "work_pool_name": each.work_pool,
            "work_queue_name": each.work_queue,
            "job_variables": dict(each.job_variables),
            "schedules": [
                {"id": one.id, "slug": one.slug, "active": one.active, "schedule": dict(one.schedule)}
                for one in each.schedules
            ],
            "status": each.status,
        }
        for each in ready.by_id.values()
    ]

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path.endswith("/deployments/paginate"):
            return httpx.Response(200, json={"count": len(deployments), "results": deployments})
        assert request.url.path.endswith("/flow_runs/filter")
        runs = sorted(ready.runs.values(), key=lambda run: (run.expected_start or NOON, run.id))
        rows = [
            {
                "id": run.id,
                "name": run.name,
                "deployment_id": run.deployment_id,
                "state_type": run.state_type,
                "state_name": run.state_name,
                "expected_start_time": run.expected_start.isoformat() if run.expected_start else None,
                "auto_scheduled": True,
                "run_count": 0,
            }
            for run in runs
        ]
        return httpx.Response(200, json=rows[:200])

    return PrefectApi(url="http://127.0.0.1:4200/api", transport=httpx.MockTransport(handle))


def test_two_hundred_jobs_cost_two_requests_and_one_call_a_manager(tmp_path: Path) -> None:
    legacy = {f"job-{number:03}": [{"timer": f"t-{number}.timer"}, {"timer": f"t-{number}.timer", "scope": "user"}]
              for number in range(200)}  # fmt: skip
    jobs = {name: {"legacy": timers, "schedules": ["hourly"]} for name, timers in legacy.items()}
    host = Host(tmp_path, fakes.catalog(jobs, HOURLY))
    host.sync()
    host.systemd.units = [timer(f"t-{number}.timer", "*:0/5", manager=each) for number in range(200)
                          for each in (SYSTEM, USER)]  # fmt: skip
    requests: list[httpx.Request] = []
    host.prefect = answers(host.prefect, requests)
    found = host.status()
    assert [job.findings for job in found.jobs] == [()] * 200
    assert all(job.next_prefect for job in found.jobs)
    assert [request.url.path for request in requests] == ["/api/deployments/paginate", "/api/flow_runs/filter"]
    assert [manager for manager, _ in host.systemd.calls] == [SYSTEM, USER]


def test_next_runs_asks_again_only_for_those_left_over() -> None:
    """A job each minute fills the page; the daily ones are asked for by themselves, and past runs no more."""
    minutely = [("busy", NOON + timedelta(minutes=number - 50)) for number in range(260)]
    daily = [("daily", NOON + timedelta(hours=20)), ("daily", NOON + timedelta(hours=44))]
    bodies = []

    def handle(request: httpx.Request) -> httpx.Response:
        import json

        body = json.loads(request.content)
        bodies.append(body)
        wanted = body["flow_runs"]["deployment_id"]["any_"]
        after = body["flow_runs"].get("expected_start_time", {}).get("after_")
        rows = [
            {
                "id": f"{name}-{at.isoformat()}",
                "name": "run",
                "deployment_id": name,
                "state_type": "SCHEDULED",
                "state_name": "Scheduled",
                "expected_start_time": at.isoformat(),
                "auto_scheduled": True,
                "run_count": 0,
            }
            for name, at in sorted([*minutely, *daily], key=lambda run: run[1])
            if name in wanted and (after is None or at >= datetime.fromisoformat(after))
        ]
        return httpx.Response(200, json=rows[:200])

    api = PrefectApi(url="http://127.0.0.1:4200/api", transport=httpx.MockTransport(handle))
    found = api.next_runs(["busy", "daily", "never"], now=NOON)
    assert len(bodies) == 2
    assert bodies[1]["flow_runs"]["deployment_id"]["any_"] == ["daily", "never"]
    assert next(run for run in found if run.deployment_id == "daily").expected_start == daily[0][1]
    assert sum(run.expected_start is not None and run.expected_start < NOON for run in found) == 50
    assert api.next_runs([], now=NOON) == ()
    assert len(bodies) == 2


def test_a_record_that_cannot_be_read_is_told(legacy: Host) -> None:
    path = legacy.root / "manifests" / "events" / f"{NOON.astimezone(UTC):%Y-%m-%d}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "run_fin\n')
    assert [item.path for item in legacy.status().skipped] == [f"{path}:1"]
