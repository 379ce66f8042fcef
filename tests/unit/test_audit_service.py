"""`runs audit`: which slots it expects, whose they were, and what it does not know."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

import fakes
from legacy_fakes import FakeSystemd, timer
from orchctl.adapters.manifests import Manifests
from orchctl.core.catalog import Catalog
from orchctl.core.journal import LegacyRun
from orchctl.core.legacy import SYSTEM, Manager, Monotonic
from orchctl.core.observed import Looked
from orchctl.core.slots import Owner
from orchctl.errors import NotAllowed, StateBroken
from orchctl.services import audit
from orchctl.services.observe import Eyes
from orchctl.services.runs import window_of

USER = Manager("user")
NEW_YORK = ZoneInfo("America/New_York")
DAY = "2025-12-19"
NOW = datetime(2025, 12, 22, 12, 0, tzinfo=UTC)
NOON = datetime(2025, 12, 19, 12, 0, tzinfo=UTC)
LEGACY = [{"timer": "job.timer"}]
BOTH = [*LEGACY, {"timer": "job.timer", "scope": "user"}]
HOURLY = {"hourly": {"cron": "0 * * * *"}}
EVER = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


class Rule:
    """Prefect's rule, for cron lines on days when no clock changes."""

    @contextmanager
    def asked(
        self, schedules: Sequence[Mapping[str, Any]], start: datetime, end: datetime | None, *, count: int | None = None
    ) -> Iterator[Callable[[], tuple[list[int], ...]]]:
        assert end is not None
        yield lambda: tuple(self._instants(each, start, end) for each in schedules)

    @staticmethod
    def _instants(schedule: Mapping[str, Any], start: datetime, end: datetime) -> list[int]:
        found: list[int] = []
        for moment in CronSim(
            schedule["cron"], start.astimezone(ZoneInfo(schedule["timezone"])) - timedelta(seconds=1)
        ):
            if moment >= end:
                return found
            found.append(int(moment.timestamp()))
        return found


@dataclass
class Looks:
    looked: dict[str, Looked] = field(default_factory=dict)

    def read(self, job: str) -> Looked | None:
        return self.looked.get(job)

    @contextmanager
    def alone(self, job: str, *, patience_s: float) -> Iterator[bool]:
        """Another observer is at work: what it has read so far is what there is."""
        yield False


@dataclass
class History:
    catalogs: dict[str, tuple[Catalog, datetime]] = field(default_factory=dict)

    def read(self, digest: str) -> Catalog | None:
        return self.catalogs[digest][0]

    def written(self) -> dict[str, datetime]:
        return {digest: at for digest, (_, at) in self.catalogs.items()}

    def add(self, catalog: Catalog, at: datetime) -> None:
        self.catalogs[catalog.digest] = (catalog, at)


@dataclass
class Host:
    root: Path
    catalog: Catalog
    systemd: FakeSystemd = field(default_factory=FakeSystemd)
    looks: Looks = field(default_factory=Looks)
    applied: History = field(default_factory=History)
    owner: Owner | str | None = None
    now: datetime = NOW

    def read(self, _job: str) -> Owner | None:
        if isinstance(self.owner, str):
            raise StateBroken(self.owner)
        return self.owner

    def audit(self, day: str = DAY, *, only: str | None = None) -> audit.Audited:
        tree = Manifests(str(self.root))
        eyes = Eyes(
            systemd=self.systemd,
            journal=cast("Any", None),
            looks=cast("Any", self.looks),
            tree=lambda _root: cast("Any", tree),
            host_zone="UTC",
            hostname="here",
            boot_id="",
            now=lambda: self.now,
            elapsed=lambda: 0.0,
        )
        world = audit.World(self.catalog, self.systemd, eyes, self, self.applied, Rule(), lambda _root: tree)
        window = window_of(day, None, timezone=self.catalog.timezone, now=self.now)
        return audit.audit(world, window, only=only)

    def counts(self, day: str = DAY) -> dict[str, int]:
        (job,) = self.audit(day).jobs
        return job.counts

    def whys(self, day: str = DAY) -> set[str | None]:
        (job,) = self.audit(day).jobs
        return {slot.why for slot in job.slots}

    def covers(self, *spans: tuple[datetime, datetime], units: tuple[str, ...] = ("system:job.service",)) -> None:
        self.looks.looked["job"] = Looked(units, spans=spans or (EVER,))

    def ran(self, at: datetime, status: str = "success", *, origin: str = "systemd", **more: Any) -> str:
        stamp = at.isoformat().replace("+00:00", "Z")
        run_id = f"{at:%Y%m%dT%H%M%SZ}-{zlib.crc32(f'{origin}{more}'.encode()) % 16**6:06x}"
        fields = {"job": "job", "asset": "job", "slot": None, "trigger": "schedule", "mode": "live", "attempt": 1}
        end = (at + timedelta(seconds=5)).isoformat().replace("+00:00", "Z")
        event = {**fields, "ts": stamp, "event": "run_finished", "run_id": run_id, "game_date": str(at.date()),
                 "status": status, "origin": origin, "started_at": stamp, "finished_at": end, **more}  # fmt: skip
        Manifests(str(self.root)).append(event)
        return run_id

    def manifest(self, run_id: str, day: date, **content: Any) -> None:
        """Write a manifest of a run that `ran` told of, with what events do not say."""
        part = {"run_id": run_id, "game_date": str(day)}
        Manifests(str(self.root)).write({"manifest_version": "v1", "asset": "job", "partition": part, **content})


@pytest.fixture
def legacy(tmp_path: Path) -> Host:
    """A job that an hourly timer of the system runs, with its journal read."""
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": LEGACY}}))
    host.systemd.units = [timer("job.timer", "*-*-* *:00:00")]
    host.covers()
    return host


@pytest.fixture
def own(tmp_path: Path) -> Host:
    """A job without legacy triggers, applied long ago."""
    host = Host(tmp_path, fakes.catalog({"job": {"schedules": ["hourly"]}}, HOURLY))
    host.applied.add(host.catalog, NOON - timedelta(days=30))
    return host


def hours(*, without: tuple[int, ...] = ()) -> list[datetime]:
    first = datetime(2025, 12, 19, tzinfo=UTC)
    return [first + timedelta(hours=hour, seconds=20) for hour in range(24) if hour not in without]


def test_a_clean_day_of_a_timer(legacy: Host) -> None:
    for at in hours():
        legacy.ran(at)
    assert legacy.counts() == {"ok": 24}
    assert not legacy.audit().wrong


def test_a_clean_day_of_prefect(own: Host) -> None:
    for at in hours():
        own.ran(at, origin="prefect", slot=f"{at:%Y-%m-%dT%H}:00:00Z")
    assert own.counts() == {"ok": 24}


def test_a_day_on_which_prefect_did_nothing_is_missed(own: Host) -> None:
    assert own.counts() == {"missed": 24}
    assert own.audit().wrong


def test_slots_up_to_now_only(legacy: Host) -> None:
    legacy.now = NOON + timedelta(minutes=30)
    assert sum(legacy.counts().values()) == 13


def test_both_scopes_are_told_apart_by_the_manifests(tmp_path: Path) -> None:
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": BOTH}}))
    host.systemd.units = [timer("job.timer", "*-*-* 12:00:00"), timer("job.timer", "*-*-* 12:00:00", manager=USER)]
    host.covers(units=("system:job.service", "user:job.service"))
    for seconds, scope in ((5, "system"), (40, "user")):
        run = host.ran(NOON + timedelta(seconds=seconds), by=scope)
        host.manifest(run, NOON.date(), environment={"unit": "job.service", "scope": scope, "user": None})
    assert host.counts() == {"double": 1}
    assert host.whys() == {"job.service (system) and job.service (user) both ran it"}


def test_what_the_journal_does_not_cover_is_unknown(legacy: Host) -> None:
    for at in hours(without=(3,)):
        legacy.ran(at)
    legacy.covers((NOON - timedelta(hours=6), EVER[1]))
    assert legacy.counts() == {"ok": 18, "unknown": 6}
    assert not legacy.audit().wrong


def test_a_look_at_other_services_covers_nothing(legacy: Host) -> None:
    for at in hours():
        legacy.ran(at)
    legacy.covers(units=("system:other.service",))
    assert legacy.counts() == {"unknown": 24}


def test_a_manager_that_refuses_may_hide_a_second_run(tmp_path: Path) -> None:
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": BOTH}}))
    host.systemd.units = [timer("job.timer", "*-*-* *:00:00")]
    host.systemd.broken[USER] = NotAllowed("not yours")
    for at in hours():
        host.ran(at)
    found = host.audit()
    assert found.jobs[0].counts == {"unknown": 24}
    assert found.notes == ("job: the legacy history was not brought in: not yours",)


def test_a_run_that_goes_on_is_known_from_the_look(legacy: Host) -> None:
    for at in hours(without=(12,)):
        legacy.ran(at)
    going = LegacyRun("job.service", SYSTEM, "f" * 32, "b" * 32, NOON + timedelta(seconds=4))
    legacy.looks.looked["job"] = Looked(("system:job.service",), open=(going,), spans=(EVER,))
    legacy.now = NOON + timedelta(minutes=30)
    (job,) = legacy.audit().jobs
    assert (job.slots[-1].verdict, job.slots[-1].why) == ("unknown", "it still runs")


def test_a_timer_that_is_off_makes_slots_unknown(legacy: Host) -> None:
    legacy.ran(NOON + timedelta(seconds=5))
    legacy.systemd.units = [timer("job.timer", "*-*-* *:00:00", active=False)]
    assert legacy.counts() == {"ok": 1, "unknown": 23}


def test_cron_is_unknown_unless_a_record_is_there(tmp_path: Path) -> None:
    trigger = {"cron": "0 * * * * /bin/true", "user": "daniel"}
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": [trigger]}}))
    host.ran(NOON + timedelta(seconds=5), origin="cron")
    assert host.counts() == {"ok": 1, "unknown": 23}


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ([], "there is no such timer"),
        ([timer("job.timer", monotonic=(Monotonic("OnUnitActiveSec", 900.0),))], "OnUnitActiveSec"),
    ],
    ids=["no timer", "monotonic"],
)
def test_where_no_instants_are_known_a_gap_is_told(legacy: Host, units: list[Any], reason: str) -> None:
    legacy.systemd.units = units
    (job,) = legacy.audit().jobs
    assert job.slots == ()
    assert [reason in gap.reason for gap in job.gaps] == [True]


def test_who_owned_the_job_decides_whose_the_slots_were(tmp_path: Path) -> None:
    """A cutover at 12:30: the timer's hours before, the schedule's after; the timer is off now, and was on then."""
    catalog = fakes.catalog({"job": {"legacy": LEGACY, "schedules": ["hourly"]}}, HOURLY)
    host = Host(tmp_path, catalog, owner=Owner(NOON + timedelta(minutes=30), draining=False))
    host.applied.add(catalog, NOON - timedelta(days=9))
    host.systemd.units = [timer("job.timer", "*-*-* *:00:00", active=False, enabled="disabled")]
    host.covers()
    for at in hours(without=(3, 20)):
        slot = f"{at:%Y-%m-%dT%H}:00:00Z"
        if at.hour <= 12:
            host.ran(at)
            host.ran(at, "observed", origin="prefect", slot=slot, mode="observe")
        else:
            host.ran(at, origin="prefect", slot=slot)
    (job,) = host.audit().jobs
    assert [slot.side for slot in job.slots] == ["legacy"] * 13 + ["prefect"] * 11
    assert {slot.at: slot.verdict for slot in job.slots if slot.verdict != "ok"} == {
        int(datetime(2025, 12, 19, hour, tzinfo=UTC).timestamp()): "missed" for hour in (3, 20)
    }


def test_an_owner_file_that_cannot_be_believed_leaves_a_gap(legacy: Host) -> None:
    legacy.owner = "torn"
    (job,) = legacy.audit().jobs
    assert (job.slots, ["torn" in gap.reason for gap in job.gaps]) == ((), [True])


def test_before_the_schedules_were_applied_nothing_is_called_missed(own: Host) -> None:
    own.applied.catalogs.clear()
    assert own.counts() == {"unknown": 24}
    assert own.whys() == {"the job was never applied on this host (`orchctl sync`)"}
    own.applied.add(own.catalog, NOON + timedelta(minutes=30))
    assert own.counts() == {"missed": 11, "unknown": 13}


def test_other_schedules_before_are_not_held_against_the_job(own: Host) -> None:
    own.applied.catalogs.clear()
    daily = fakes.catalog({"job": {"schedules": ["hourly"]}}, {"hourly": {"cron": "0 3 * * *"}})
    other = fakes.catalog({"job": {"schedules": ["hourly"], "nice": 5}}, HOURLY)
    own.applied.add(daily, NOON - timedelta(days=9))
    own.applied.add(other, NOON - timedelta(minutes=30))
    own.applied.add(own.catalog, NOON + timedelta(hours=3))
    assert own.counts() == {"missed": 12, "unknown": 12}


def test_a_retry_is_not_late(own: Host) -> None:
    slot = "2025-12-19T12:00:00Z"
    run = own.ran(NOON + timedelta(minutes=9), origin="prefect", slot=slot, attempt=2)
    own.manifest(run, NOON.date(), attempts=[{"attempt": 1, "started_at": "2025-12-19T12:00:04Z"}])
    (job,) = own.audit().jobs
    assert [each.verdict for each in job.slots if each.runs] == ["ok"]


def test_a_catch_up_that_came_after_midnight_is_found(own: Host) -> None:
    midnight = datetime(2025, 12, 20, tzinfo=UTC)
    own.ran(midnight + timedelta(minutes=6), origin="prefect", slot="2025-12-19T23:00:00Z", trigger="catchup")
    assert own.counts() == {"late": 1, "missed": 23}


def test_a_run_of_the_next_day_serves_no_slot_of_this_one(legacy: Host) -> None:
    legacy.systemd.units = [timer("job.timer", "*-*-* 02:00:00")]
    legacy.ran(datetime(2025, 12, 20, 2, 0, 5, tzinfo=UTC))
    assert legacy.counts() == {"missed": 1}


@pytest.mark.parametrize("day", ["2025-12-19", "2025-12-20"])
def test_a_record_that_is_torn_makes_missed_unknown_on_its_day(own: Host, day: str) -> None:
    path = own.root / "manifests" / "events" / f"{day}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "run_fin\n')
    found = own.audit()
    assert len(found.skipped) == 1
    # The first slot's reach of the next day begins a minute before midnight.
    assert own.counts() == ({"unknown": 24} if day == DAY else {"missed": 24})


def test_only_the_job_that_is_asked_for(tmp_path: Path) -> None:
    jobs = {"job": {"schedules": ["hourly"]}, "other": {"schedules": ["hourly"]}, "by-hand": {}}
    host = Host(tmp_path, fakes.catalog(jobs, HOURLY))
    assert [job.job for job in host.audit().jobs] == ["job", "other"]
    assert [job.job for job in host.audit(only="by-hand").jobs] == ["by-hand"]


@pytest.mark.parametrize(("day", "slots"), [("2026-03-08", 23), ("2026-11-01", 24)])
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(tmp_path: Path, day: str, slots: int) -> None:
    """23 hours have 23 slots; of 25 hours one repeats its wall clock, and systemd fires once."""
    host = Host(tmp_path, fakes.catalog({"job": {"legacy": LEGACY}}), now=datetime(2026, 12, 1, tzinfo=UTC))
    host.catalog = host.catalog.model_copy(update={"timezone": "America/New_York"})
    host.systemd.units = [timer("job.timer", "*-*-* *:15:00 America/New_York")]
    host.covers()
    first = datetime.combine(date.fromisoformat(day), datetime.min.time(), NEW_YORK).astimezone(UTC)
    repeated = datetime(2026, 11, 1, 6, tzinfo=UTC)
    for hour in range(23 if slots == 23 else 25):
        at = first + timedelta(hours=hour, minutes=15, seconds=3)
        if not repeated <= at < repeated + timedelta(hours=1):
            host.ran(at)
    assert host.counts(day) == {"ok": slots}


def _handed(host: Host, event: str, at: datetime, kind: str, **more: Any) -> None:
    stamp = at.isoformat().replace("+00:00", "Z")
    Manifests(str(host.root)).append({"ts": stamp, "event": event, "handover": "h", "job": "job", "kind": kind, **more})


def test_slots_are_those_of_the_owner_of_their_time(tmp_path: Path) -> None:
    host = Host(tmp_path, fakes.catalog({"job": {"schedules": ["hourly"], "legacy": LEGACY}}, HOURLY))
    host.systemd.units = [timer("job.timer", "*-*-* *:00:00")]
    host.covers(EVER)
    host.applied.add(host.catalog, NOON - timedelta(days=30))
    for at in hours():
        if at.hour in range(10, 14):
            host.ran(at, origin="prefect", slot=f"{at:%Y-%m-%dT%H}:00:00Z")
        elif at.hour != 14:
            host.ran(at + timedelta(seconds=5))
    assert host.counts() == {"ok": 23, "missed": 1}
    # Prefect had it from 9:30 to 14:10; what fell due while the rollback drained it was run through the service.
    _handed(host, "handover_committed", NOON - timedelta(hours=2, minutes=30), "cutover")
    drained = NOON + timedelta(hours=2, minutes=10)
    _handed(host, "handover_committed", drained, "rollback")
    assert host.counts() == {"ok": 23, "missed": 1}
    host.ran(drained + timedelta(seconds=8))
    owed = {"slot": "2025-12-19T14:00:00Z", "service": "job.service", "at": "2025-12-19T14:10:05Z"}
    _handed(host, "handover_finished", drained + timedelta(seconds=20), "rollback", owed=owed)
    assert host.counts() == {"ok": 24}
    # A slot that systemd ran although Prefect owned the job is no slot of legacy's.
    host.ran(NOON - timedelta(hours=1) + timedelta(seconds=5))
    assert host.counts() == {"ok": 23, "double": 1}
