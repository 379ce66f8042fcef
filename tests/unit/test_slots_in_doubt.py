"""Slots that neither side ran at a handover: by what really ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim

import fakes
from legacy_fakes import FakeSystemd, timer
from orchctl.adapters.claims import Claims
from orchctl.adapters.manifests import Manifests
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.legacy import SYSTEM
from orchctl.core.names import format_instant, run_id
from orchctl.core.snapshot import CronState, Snapshot, TimerState
from orchctl.errors import OrchctlError
from orchctl.services.handover_ports import Doubt
from orchctl.services.slots_in_doubt import SlotsInDoubt

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
LINE = CronTrigger(cron="*/5 * * * * score", user="root")


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


class Rule:
    """Prefect's rule, for cron lines in UTC."""

    broken = False

    @contextmanager
    def asked(
        self, schedules: Sequence[Mapping[str, Any]], start: datetime, end: datetime | None, *, count: int | None = None
    ) -> Iterator[Callable[[], tuple[list[int], ...]]]:
        if self.broken:
            raise OrchctlError("Prefect's rules gave no answer")
        yield lambda: tuple(self._instants(each, start, end, count) for each in schedules)

    @staticmethod
    def _instants(schedule: Mapping[str, Any], start: datetime, end: datetime | None, count: int | None) -> list[int]:
        found: list[int] = []
        for moment in CronSim(schedule["cron"], start - timedelta(seconds=1)):
            if (end is not None and moment >= end) or len(found) == count:
                break
            found.append(int(moment.timestamp()))
        return found


@dataclass
class Host:
    root: Path
    every: str = "*-*-* *:00/5:00"
    cron: str = "*/5 * * * *"
    boot: str = "this boot"
    brought: list[str] = field(default_factory=list)
    rule: Rule = field(default_factory=Rule)
    catchup: str = "latest"
    legacy: list[dict[str, str]] = field(default_factory=lambda: [{"timer": "job.timer"}])

    @property
    def catalog(self) -> Catalog:
        tables = {"often": {"cron": self.cron, "timezone": "UTC"}}
        more = {"catchup": self.catchup, "catchup_window": "30m", "data_root": str(self.root)}
        return fakes.catalog({"job": {"schedules": ["often"], "legacy": self.legacy, **more}}, tables)

    @property
    def claims(self) -> Claims:
        return Claims(self.root / "state")

    def slots(self) -> SlotsInDoubt:
        return SlotsInDoubt(
            reader=FakeSystemd([timer("job.timer", self.every)]),
            rule=self.rule,
            claims=self.claims,
            tree=Manifests,
            bring_in=lambda job, _zone: self.brought.append(job.name),
            host_zone="UTC",
            boot_id=self.boot,
            now=lambda: NOON,
        )

    def by_legacy(self, *, last: float | None, since: float, **more: Any) -> Doubt:
        seen = Snapshot(
            timers=(TimerState(SYSTEM, "job.timer", "job.service", True, "enabled", (), "this boot", False),)
        )
        wanted: dict[str, Any] = {"committed": at(since), "cron_off": None, "snapshot": seen, **more}
        started = None if last is None else at(last)
        catalog = self.catalog
        return self.slots().missed_by_legacy(catalog, catalog.jobs["job"], since=at(since), last=started, **wanted)

    def by_prefect(self, *, since: float | None, released: float) -> Doubt:
        catalog, begun = self.catalog, None if since is None else at(since)
        return self.slots().missed_by_prefect(catalog, catalog.jobs["job"], since=begun, released_at=at(released))

    def ran(self, minute: float, status: str | None) -> None:
        """Let a run of Prefect's take the slot; status None: it has not begun."""
        own = run_id(at(minute), f"{minute}")
        self.claims.take("job", at(minute), run_id=own, flow_run_id="f", at=at(minute))
        if status is not None:
            self.told(minute, status, own, "prefect")

    def told(self, minute: float, status: str, own: str, origin: str) -> None:
        stamp = format_instant(at(minute))
        event = {
            "ts": stamp, "event": "run_finished", "run_id": own, "job": "job", "asset": "job", "slot": stamp,
            "game_date": "2026-01-05", "trigger": "schedule", "mode": "live", "attempt": 1, "status": status,
            "origin": origin, "started_at": stamp, "finished_at": stamp,
        }  # fmt: skip
        Manifests(str(self.root)).append(event)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_start_serves_every_instant_before_it_and_one_after_it_is_granted(host: Host) -> None:
    assert host.by_legacy(last=0.01, since=3).granted == ()
    assert host.by_legacy(last=-1, since=3).granted == (at(0),)
    assert host.by_legacy(last=-1, since=0).granted == ()  # a slot at `since` is Prefect's anyway
    assert host.brought == ["job"] * 3


@pytest.mark.parametrize(
    ("catchup", "granted", "dropped"),
    [("latest", [0], [-15, -10, -5]), ("all", [-15, -10, -5, 0], []), ("skip", [], [])],
)
def test_what_is_caught_up_with_is_the_policys_and_the_rest_is_told(
    host: Host, catchup: str, granted: list[int], dropped: list[int]
) -> None:
    host.catchup = catchup
    found = host.by_legacy(last=-19, since=3)
    assert (found.granted, found.dropped) == (tuple(map(at, granted)), tuple(map(at, dropped)))


def test_nothing_older_than_the_catch_up_window_is_granted(host: Host) -> None:
    host.catchup = "all"
    assert min(host.by_legacy(last=-500, since=3).granted) == at(-25)


def test_a_slot_that_a_run_of_prefects_has_taken_is_not_granted(host: Host) -> None:
    host.ran(0, "success")
    assert host.by_legacy(last=-1, since=3).granted == ()


def test_what_the_manifests_know_of_legacy_counts_where_systemd_has_forgotten(host: Host) -> None:
    host.told(0, "success", run_id(at(0), "x"), "systemd")
    assert host.by_legacy(last=None, since=3).granted == ()
    assert host.by_legacy(last=None, since=6).granted == (at(5),)


def test_after_a_reboot_of_which_nothing_is_known_slots_before_the_commit_count_as_run(host: Host) -> None:
    host.boot = "another boot"
    found = host.by_legacy(last=None, since=6, committed=at(4))
    assert found.granted == (at(5),)
    assert "after a reboot" in found.notes[0]
    assert host.by_legacy(last=None, since=4, committed=at(3)).granted == ()


def test_slots_of_prefects_own_cadence_count_from_the_commit_on_and_its_first_one_is_told(host: Host) -> None:
    host.cron = "*/2 * * * *"
    found = host.by_legacy(last=0.1, since=4.5, committed=at(3.5))
    assert (found.granted, found.first) == ((at(4),), at(6))


def test_cron_ran_its_instants_until_its_line_was_out(host: Host) -> None:
    host.legacy = [{"cron": LINE.cron, "user": "root"}]
    seen = Snapshot(cron=(CronState(LINE),))
    assert host.by_legacy(last=None, since=6, committed=at(6), cron_off=at(4), snapshot=seen).granted == (at(5),)
    assert host.by_legacy(last=None, since=6, committed=at(6), cron_off=at(5.5), snapshot=seen).granted == ()


def test_a_slot_of_prefects_that_no_run_has_run_is_owed_once_by_legacy(host: Host) -> None:
    for minute in (-10, -5):
        host.ran(minute, "success")
    assert host.by_prefect(since=-60, released=3).granted == (at(0),)
    host.ran(0, None)  # taken, and not begun: it may not run any more
    assert host.by_prefect(since=-60, released=3).granted == (at(0),)
    host.told(0, "observed", run_id(at(0), "0"), "prefect")
    assert host.by_prefect(since=-60, released=3).granted == (at(0),)


@pytest.mark.parametrize("status", ["success", "failed", "crashed", "skipped"])
def test_a_slot_that_was_run_or_skipped_by_policy_is_not_owed(host: Host, status: str) -> None:
    host.ran(0, status)
    assert host.by_prefect(since=-4, released=3).granted == ()


def test_a_later_slot_that_ran_makes_an_earlier_one_stale_one_that_was_skipped_does_not(host: Host) -> None:
    host.ran(0, "skipped")
    assert host.by_prefect(since=-6, released=3).granted == (at(-5),)
    host.told(0, "success", run_id(at(0), "0"), "prefect")
    assert host.by_prefect(since=-6, released=3).granted == ()


def test_a_granted_slot_that_is_on_no_schedule_of_prefects_is_owed_too(host: Host) -> None:
    host.ran(0, "success")
    catalog = host.catalog
    slots, job = host.slots(), catalog.jobs["job"]
    found = slots.missed_by_prefect(catalog, job, since=at(-1), released_at=at(3), granted=[at(1)])
    assert found.granted == (at(1),)


def test_slots_before_since_were_legacys(host: Host) -> None:
    assert host.by_prefect(since=1, released=3).granted == ()
    assert host.by_prefect(since=None, released=3).granted == (at(0),)


def test_where_prefects_rule_gives_no_answer_it_is_said(host: Host) -> None:
    host.rule.broken = True
    assert "could not be found" in host.by_prefect(since=-60, released=3).notes[0]
    assert host.by_legacy(last=-1, since=3).granted == (at(0),)
