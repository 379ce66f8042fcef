"""The gates of a cutover: each holds where it should, each refusal says what would make it pass, nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import fakes
import handover_fakes
from fakes import NOON, FakeApplied, FakePrefect
from legacy_fakes import FakeSystemd, service, timer
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core import calendar, gates
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.gates import Gate
from orchctl.core.handover import Kind, Step
from orchctl.core.handover_journal import Opened, Outcome
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import NotAllowed, OrchctlError, PrefectUnreachable, StateBroken, SystemdUnavailable, UsageError
from orchctl.services import gates as service_gates
from orchctl.services import sync
from orchctl.services.gates import Table, World

CRON = "0 * * * * true"
SCHEDULES = {"s": {"cron": "0 * * * *"}}


@dataclass
class Rule:
    """Prefect's rules, for the one cadence of these tests."""

    expression: str = "*:00"

    @contextmanager
    def asked(
        self,
        schedules: Sequence[Mapping[str, Any]],
        start: datetime,
        end: datetime | None,
        *,
        count: int | None = None,
    ) -> Iterator[Callable[[], tuple[list[int], ...]]]:
        last = end or start + timedelta(days=400)
        yield lambda: tuple(calendar.instants(self.expression, "UTC", start, last)[:count] for _ in schedules)


@dataclass
class Switches:
    """The timers, the crontab lines and the timer of a confirmation, of which gates only ask what is in the way."""

    in_the_way: dict[str, tuple[str, ...]] = field(default_factory=dict)
    running: tuple[str, ...] = ()
    asked: int = 0

    def of(self, kind: str) -> Any:
        host = handover_fakes.Host(Path("/none"), fakes.catalog({"job": {}}), "job")
        hands = host.hands()
        switch: Any = {"timers": hands.timers, "cron": hands.cron, "confirm": hands.confirm}[kind]
        switch.obstacles = lambda *_: self.in_the_way.get(kind, ())
        switch.is_running = lambda _snapshot: self._is_running()
        return switch

    def _is_running(self) -> tuple[str, ...]:
        self.asked += 1
        return self.running if self.asked < 4 else ()


@dataclass
class Desk:
    """A host whose job's gates all hold, until a test changes something."""

    root: Path
    catalog: Catalog
    systemd: FakeSystemd = field(default_factory=FakeSystemd)
    prefect: Any = field(default_factory=FakePrefect)
    applied: FakeApplied = field(default_factory=FakeApplied)
    rule: Rule = field(default_factory=Rule)
    switches: Switches = field(default_factory=Switches)
    lines: int | None = 1
    offset: float | None = 0.4
    synchronised: bool | None = True
    handovers_made: int = 0

    @property
    def owners(self) -> Owners:
        return Owners(self.root / "state")

    @property
    def handovers(self) -> Handovers:
        return Handovers(self.root / "state")

    @property
    def world(self) -> World:
        return World(
            catalog=self.catalog,
            systemd=self.systemd,
            crontabs=self,
            prefect=self.prefect,
            rule=self.rule,
            owners=self.owners,
            handovers=self.handovers,
            applied=self.applied,
            tree=self.tree,
            timers=self.switches.of("timers"),
            cron=self.switches.of("cron"),
            confirm=self.switches.of("confirm"),
            prefect_offset=lambda: self.offset,
            synchronised=lambda: self.synchronised,
            host_zone="UTC",
            state_dir="/state",
        )

    def find(self, trigger: CronTrigger) -> int | None:
        return self.lines

    def tree(self, _root: str) -> Manifests:
        return Manifests(str(self.root))

    def sync(self) -> None:
        proposed = sync.propose(self.catalog, self.prefect, self.applied, state_dir="/state", now=NOON)
        sync.apply(proposed, self.catalog, self.prefect, self.applied, now=lambda: NOON)
        self.change(status="READY")
        for key in self.prefect.by_id:
            self.prefect.schedule_from(key, NOON)

    def change(self, **fields: Any) -> None:
        self.prefect.by_id = {key: replace(each, **fields) for key, each in self.prefect.by_id.items()}

    def table(self, *, confirm: bool = False, waive: Mapping[str, str] | None = None) -> Table:
        return service_gates.table(self.world, "job", now=NOON, confirm=confirm, waive=waive or {})

    def gate(self, id: str, **more: Any) -> Gate:  # noqa: A002 - the word of the domain
        (found,) = [gate for gate in self.table(**more).gates if gate.id == id]
        return found

    def ran(self, status: str = "success", *, ago: timedelta = timedelta(hours=1), **more: Any) -> None:
        at = NOON - ago
        stamp = at.isoformat().replace("+00:00", "Z")
        told = {
            "ts": stamp, "event": "run_finished", "job": "job", "asset": "job", "slot": None, "origin": "prefect",
            "trigger": "manual", "mode": "live", "attempt": 1, "run_id": run_id(at, str(ago)), "status": status,
            "game_date": at.date().isoformat(), "started_at": stamp, "finished_at": stamp, **more,
        }  # fmt: skip
        Manifests(str(self.root)).append(told)

    def handover(self, kind: Kind, *, outcome: Outcome | None = "done", paused: bool | None = None) -> Opened:
        at = NOON - timedelta(hours=2)
        self.handovers_made += 1
        opened = Opened(run_id(at, str(self.handovers_made)), kind, "job", at, kind, Snapshot(paused=paused))
        self.handovers.begin(opened)
        if outcome is not None:
            self.handovers.end(opened, outcome, at)
        return opened


def made(root: Path, **job: Any) -> Desk:
    legacy = [{"timer": "job.timer"}, {"cron": CRON, "user": "root"}]
    desk = Desk(root, fakes.catalog({"job": {"legacy": legacy, "schedules": ["s"], **job}}, SCHEDULES))
    desk.systemd.units = [timer("job.timer", "*-*-* *:00:00", next_fire=NOON), service("job.service")]
    desk.sync()
    for number in range(3):
        desk.ran(ago=timedelta(hours=1 + number))
    return desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return made(tmp_path)


def test_all_gates_hold_and_looking_changes_nothing(desk: Desk) -> None:
    before = (list(desk.prefect.writes), sorted(desk.root.rglob("*")))
    table = desk.table(confirm=True)
    assert [(gate.id, gate.state, gate.fix) for gate in table.gates] == [(name, "ok", None) for name in gates.IDS]
    assert table.passes
    assert table.waived == {}
    assert table.digest == desk.catalog.digest
    assert (list(desk.prefect.writes), sorted(desk.root.rglob("*"))) == before


def test_the_steps_are_those_that_the_job_needs(desk: Desk, tmp_path: Path) -> None:
    assert Step.ARM not in desk.table().steps
    assert desk.table(confirm=True).steps[0] is Step.ARM
    only_cron = made(tmp_path / "b", legacy=[{"cron": CRON, "user": "root"}]).table().steps
    assert only_cron == (Step.SCHEDULE, Step.COMMIT, Step.CRON_OFF, Step.GRANT, Step.CATCH_UP)
    assert Step.CRON_OFF not in made(tmp_path / "c", legacy=[{"timer": "job.timer"}]).table().steps


def refusal(desk: Desk, id: str, **more: Any) -> tuple[str, str]:  # noqa: A002 - the word of the domain
    """Return what a gate saw and what would make it hold, where it alone refuses."""
    table = desk.table(**more)
    assert [gate.id for gate in table.refusals] == [id]
    (gate,) = table.refusals
    assert gate.state == "refused"
    assert gate.fix
    return gate.seen, gate.fix


def test_a_change_by_hand_and_a_change_of_the_catalog_are_drift(desk: Desk) -> None:
    desk.change(description="mine")
    seen, fix = refusal(desk, "applied")
    assert (seen, fix) == (
        "it was changed by hand in Prefect: description",
        "`orchctl plan job`, then `orchctl sync job`",
    )
    desk.change(description="")
    desk.catalog = fakes.catalog({"job": {"legacy": [{"timer": "job.timer"}], "schedules": ["s"]}}, SCHEDULES)
    assert refusal(desk, "applied")[0].startswith("the catalog has changed since the last sync")


def test_a_job_that_was_never_synced(desk: Desk) -> None:
    desk.prefect = FakePrefect(pools=desk.prefect.pools)
    table = desk.table()
    assert [gate.id for gate in table.refusals] == ["applied", "worker", "ahead"]
    assert {gate.fix for gate in table.refusals} == {"`orchctl sync job`"}


def test_without_a_worker_by_effect(desk: Desk) -> None:
    desk.change(status="NOT_READY")
    assert refusal(desk, "worker")[1] == "start one: `orchctl host up`"


def test_a_late_run_is_a_worker_that_takes_none(desk: Desk) -> None:
    (key, *_) = desk.prefect.runs
    late = NOON - timedelta(minutes=5)
    desk.prefect.runs[key] = replace(desk.prefect.runs[key], state_name="Late", expected_start=late)
    assert refusal(desk, "worker")[0] == "1 run waits past the time, the oldest since 2025-12-19 16:55:30Z"


def test_a_deployment_paused_by_hand_refuses_and_one_paused_by_a_rollback_does_not(desk: Desk) -> None:
    desk.change(paused=True)
    assert refusal(desk, "ahead")[0] == "its deployment was paused by hand in Prefect"
    desk.handover("cutover")
    assert refusal(desk, "ahead")[0] == "its deployment was paused by hand in Prefect"
    desk.handover("rollback")
    assert desk.table().passes
    assert desk.gate("ahead").seen == "paused by the last rollback; the cutover unpauses it"
    desk.handover("cutover", outcome="undone", paused=True)
    assert desk.table().passes
    desk.handover("cutover", outcome="undone", paused=False)
    assert not desk.table().passes


def test_a_schedule_paused_by_hand_and_a_scheduler_that_does_not_work(desk: Desk) -> None:
    (deployment,) = desk.prefect.by_id.values()
    desk.prefect.runs = {}
    assert refusal(desk, "ahead")[0] == "no run is scheduled"
    desk.change(schedules=tuple(replace(each, active=False) for each in deployment.schedules))
    assert refusal(desk, "ahead")[0] == "paused by hand in Prefect: schedule s"


def test_a_job_without_a_schedule_would_never_run(tmp_path: Path) -> None:
    desk = made(tmp_path, schedules=[])
    assert "the job has no schedule: Prefect would never run it" in [gate.seen for gate in desk.table().refusals]


def test_triggers_that_are_missing_unknown_or_all_off(desk: Desk) -> None:
    lines, units = desk.lines, desk.systemd.units
    desk.lines = None
    assert desk.gate("triggers").seen == "cron of root: its crontab could not be read"
    desk.lines = lines
    desk.systemd.units = []
    assert desk.gate("triggers").seen == "job.timer (system): there is no such timer on this host"
    desk.systemd.units = [timer("job.timer", "*:00", active=False), units[1]]
    assert (desk.gate("triggers").state, desk.gate("triggers").seen) == (
        "ok",
        "1 of 2 on; off: job.timer (system)",
    )
    desk.lines = 0
    assert desk.gate("triggers").seen == "none is on: job.timer (system), cron of root"


def test_a_timer_whose_service_is_not_there(desk: Desk) -> None:
    desk.systemd.units[1] = service("job.service", load="not-found")
    assert refusal(desk, "triggers")[0] == "there is no job.service for its timer to start"


def test_what_is_in_the_way_of_fence_and_crontab_is_all_told(desk: Desk) -> None:
    desk.switches.in_the_way = {"timers": ("x.timer is transient",), "cron": ("a", "b")}
    assert refusal(desk, "fence")[0] == "x.timer is transient; a; b"


def test_a_cadence_that_differs_needs_a_reason(tmp_path: Path) -> None:
    desk = made(tmp_path / "a")
    desk.rule = Rule("0/2:00")
    assert "`orchctl schedule compare job`" in refusal(desk, "cadence")[1]
    accepted = made(tmp_path / "b", accept_cadence="it was too often")
    accepted.rule = Rule("0/2:00")
    assert accepted.gate("cadence").state == "ok"
    assert accepted.gate("cadence").seen.endswith("; accepted: it was too often")


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"status": "failed"}, "3 of 3 succeeded within 7d; the last one failed: "),
        ({"status": "crashed"}, "3 of 3 succeeded within 7d; the last one crashed: "),
        ({"status": "failed", "mode": "observe"}, None),
        ({"status": "failed", "origin": "systemd"}, None),
        ({"status": "skipped"}, None),
        ({"status": "failed", "job": "other"}, None),
    ],
)
def test_the_last_run_of_prefects_must_be_good(desk: Desk, more: dict[str, Any], seen: str | None) -> None:
    desk.ran(ago=timedelta(minutes=1), **more)
    gate = desk.gate("runs")
    assert gate.state == ("ok" if seen is None else "refused")
    assert gate.seen.startswith(seen or "3 of 3 succeeded within 7d, and the last one is good")


def test_runs_that_are_too_few_or_too_long_ago_do_not_do(tmp_path: Path) -> None:
    desk = made(tmp_path / "a", gates={"min_successes": 5})
    assert refusal(desk, "runs") == ("3 of 5 succeeded within 7d", "`orchctl run job --wait`, 2 times")
    desk.ran(ago=timedelta(days=6, hours=23))
    desk.ran(ago=timedelta(days=7, hours=1))
    assert refusal(desk, "runs") == ("4 of 5 succeeded within 7d", "`orchctl run job --wait`")
    none = Desk(tmp_path / "b", fakes.catalog({"job": {"gates": {"min_successes": 0}}}))
    assert gates.runs(none.catalog.jobs["job"], (), NOON).state == "ok"


def test_successes_that_anybody_could_have_written_open_no_gate(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "tree", lambda _root: Manifests(str(desk.root), trust=()))
    assert desk.gate("runs").state == "ok"
    for path in (desk.root / "manifests" / "events").iterdir():
        path.chmod(0o666)
    gate = desk.gate("runs")
    assert (gate.state, gate.holds) == ("unknown", False)
    assert "could have been written by somebody else" in gate.seen


def test_a_job_between_two_owners_and_one_that_is_prefects_already(desk: Desk) -> None:
    opened = desk.handover("cutover", outcome=None)
    seen, fix = refusal(desk, "handover")
    assert (seen, fix) == ("a cutover of 2025-12-19 15:00:30Z is unfinished", "`orchctl recover`")
    desk.handovers.end(opened, "done", NOON)
    desk.owners.create("job", Owner(NOON, draining=False), still=lambda: True)
    assert refusal(desk, "handover")[0] == "Prefect owns the job already"


def test_a_state_that_cannot_be_believed_is_no_state_to_cut_over_from(desk: Desk) -> None:
    path = desk.owners.path("job")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o600)
    gate = desk.gate("handover")
    assert (gate.state, gate.holds) == ("unknown", False)
    assert "is not an owner file" in gate.seen
    assert isinstance(gate.error, StateBroken)


@pytest.mark.parametrize(
    ("offset", "synchronised", "state"),
    [(5.0, True, "ok"), (-5.0, None, "ok"), (None, None, "ok"), (5.1, True, "refused"), (-90.0, True, "refused"),
     (0.0, False, "ok")],
)  # fmt: skip
def test_clocks_that_differ(desk: Desk, offset: float | None, synchronised: bool | None, state: str) -> None:
    desk.offset, desk.synchronised = offset, synchronised
    assert desk.gate("clock").state == state


def test_a_clock_that_was_set_back(desk: Desk) -> None:
    desk.ran(ago=timedelta(seconds=-30))
    assert refusal(desk, "clock")[0] == "it is before the last run of 2025-12-19 17:01:00Z: it was set back"


def test_a_legacy_run_that_is_going_can_be_waited_for(desk: Desk) -> None:
    desk.switches.running = ("job.service (system)",)
    assert refusal(desk, "idle") == ("running: job.service (system)", "--wait waits until it has ended")
    assert desk.table().waits_only
    said: list[str] = []
    slept: list[float] = []
    service_gates.wait_until_idle(desk.world, "job", sleep=slept.append, say=said.append)
    assert said == ["waiting for job.service (system) to end"]
    assert len(slept) == 1


def test_a_confirmation_that_could_not_be_armed_matters_only_where_it_is_asked_for(desk: Desk) -> None:
    desk.switches.in_the_way = {"confirm": ("no systemd",)}
    assert desk.table().passes
    assert refusal(desk, "confirm", confirm=True)[0] == "no systemd"


def test_a_server_that_does_not_answer_leaves_gates_unknown(desk: Desk) -> None:
    class Down(FakePrefect):
        def deployments(self, **_: Any) -> Any:
            raise PrefectUnreachable("it is down", hint="start it")

    desk.prefect = Down()
    unknown = desk.table().refusals
    assert [(gate.id, gate.state, gate.seen, gate.fix) for gate in unknown] == [
        (name, "unknown", "it is down", "start it") for name in ("applied", "worker", "ahead")
    ]


def test_where_systemd_does_not_answer_the_gates_that_ask_it_do_not_hold(desk: Desk) -> None:
    for error in (NotAllowed("no"), SystemdUnavailable("gone")):
        desk.systemd.broken = {unit.manager: error for unit in desk.systemd.units}
        found = {gate.id: gate.state for gate in desk.table().gates}
        assert (found["triggers"], found["cadence"], found["runs"]) == ("refused", "refused", "ok")


def test_only_what_does_not_hold_is_waived_and_each_has_its_reason(desk: Desk) -> None:
    desk.change(status="NOT_READY")
    table = desk.table(waive={"worker": "it starts at noon", "runs": "not needed"})
    assert table.passes
    assert table.waived == {"worker": "it starts at noon"}
    assert desk.gate("worker", waive={"worker": "why"}).state == "waived"
    assert desk.gate("runs", waive={"runs": "why"}).state == "ok"


def test_waivers_are_read_and_what_cannot_be_waived_is_refused() -> None:
    assert gates.waivers(["runs= a=b ", "worker=x"]) == {"runs": "a=b", "worker": "x"}
    for text, said in {
        "wroker=x": "there is no gate 'wroker'",
        "runs": "why waive runs",
        "runs= ": "why waive runs",
        **{f"{name}=x": f"{name} cannot be waived" for name in gates.NEVER_WAIVED},
    }.items():
        with pytest.raises(UsageError, match=said):
            gates.waivers([text])
    with pytest.raises(UsageError) as caught:
        gates.waivers(["wroker=x"])
    assert caught.value.hint is not None
    assert caught.value.hint.startswith('did you mean "worker"?')


def test_a_job_that_is_not_there_or_that_nothing_else_starts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fakes.catalog({"job": {}}))
    with pytest.raises(UsageError, match="nothing else starts job"):
        desk.table()
    with pytest.raises(UsageError, match="there is no job 'jib'"):
        service_gates.table(desk.world, "jib", now=NOON, confirm=False, waive={})


def test_the_seam_of_a_cutover_is_counted_or_not_known() -> None:
    since = NOON
    assert gates.seam(since=since, last_legacy=since - timedelta(seconds=1), dropped=()) == gates.Seam(0, 0)
    assert gates.seam(since=since, last_legacy=since, dropped=()) == gates.Seam(0, 1)
    assert gates.seam(since=since, last_legacy=since - timedelta(seconds=1), dropped=(since,)) == gates.Seam(1, 0)
    assert gates.seam(since=since, last_legacy=None, dropped=()) is None
    assert gates.seam(since=None, last_legacy=since, dropped=()) is None


def test_an_error_without_a_hint_still_says_what_is_needed() -> None:
    assert gates.unknown("idle", OrchctlError("x")).fix == "it must be known before a cutover"


@pytest.mark.parametrize(("date", "told"), [(None, False), ("rubbish", False), ("Mon, 05 Jan 2026 12:00:00 GMT", True)])
def test_the_servers_clock_is_that_of_its_last_answer(date: str | None, told: bool) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json="3.8.8", headers={"date": date} if date else {})

    with PrefectApi(url="http://prefect/api", transport=httpx.MockTransport(answer)) as prefect:
        before = time.time()
        prefect.version()
        found = prefect.clock_offset_s
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()
    assert (found is not None) == told
    assert found is None or noon - time.time() <= found <= noon - before
