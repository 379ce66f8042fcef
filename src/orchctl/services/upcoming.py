"""`orchctl schedule next`: when a job is next due, by its schedules and by what starts it today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from orchctl.core import cadence, clocks, schedules
from orchctl.core.cadence_words import listed, short
from orchctl.core.catalog import Catalog, Job
from orchctl.core.clocks import ClockChange
from orchctl.errors import UsageError
from orchctl.services import compare
from orchctl.services.ports import LegacyUnits, PrefectRule
from orchctl.services.trigger import job_of

# A change of clocks is told from how the fires around it differ from others: it takes a few of those.
_LEAST = 4


@dataclass(frozen=True, slots=True)
class NextOfSchedule:
    """The next instants of a schedule; fewer than asked for where it ends. `notes` are on changes of clocks."""

    name: str
    rule: str
    zone: str
    instants: tuple[datetime, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NextOfTrigger:
    """When a legacy trigger is next due; None where it is not, or where nothing says. `problem` as elsewhere."""

    label: str
    on: bool
    instant: datetime | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Upcoming:
    """What is next, seen from `now`."""

    job: str
    now: datetime
    schedules: tuple[NextOfSchedule, ...]
    legacy: tuple[NextOfTrigger, ...]


def run(
    catalog: Catalog,
    reader: LegacyUnits,
    rule: PrefectRule,
    name: str,
    *,
    count: int,
    now: datetime,
    host_zone: str,
) -> Upcoming:
    """Return the next `count` instants of each schedule, by Prefect's own rules.

    Raises UsageError for an unknown job and for one that runs by hand only. A systemd that cannot be asked is told
    beside its trigger.
    """
    job = job_of(catalog, name)
    wanted = compare.prefect_schedules(catalog, job)
    if not wanted:
        raise UsageError(
            f"{name} has no schedule: it runs by hand only",
            hint=f'`orchctl run {name}` runs it; `schedules = ["…"]` in jobs.toml gives it one',
        )
    # An instant that is due in this very second is no longer ahead.
    start = now.replace(microsecond=0) + timedelta(seconds=1)
    with rule.asked(list(wanted.values()), start, None, count=max(count, _LEAST)) as answer:
        legacy = _legacy(job, reader, now, host_zone)
        lists = answer()
    found = zip(wanted.items(), lists, strict=True)
    return Upcoming(name, now, tuple(_schedule(one, each, instants, count) for (one, each), instants in found), legacy)


def _schedule(name: str, rule: Mapping[str, Any], instants: Sequence[int], count: int) -> NextOfSchedule:
    zone = str(rule["timezone"])
    return NextOfSchedule(
        name,
        schedules.words(rule),
        zone,
        tuple(datetime.fromtimestamp(instant, UTC) for instant in instants[:count]),
        tuple(clock_notes(instants, zone)),
    )


def _legacy(job: Job, reader: LegacyUnits, now: datetime, host_zone: str) -> tuple[NextOfTrigger, ...]:
    found = compare.read(job, reader)
    unread = {manager: error.message for manager, error in found.errors.items()}
    return tuple(
        NextOfTrigger(source.label, source.counts, cadence.following(source, now), source.missing)
        for source in cadence.sources(job, found.units, host_zone, unread=unread)
    )


def clock_notes(instants: Sequence[int], zone: str) -> list[str]:
    """Say what changes of clocks in `zone` do to these instants: fires moved, skipped, or a pause."""
    if not instants:
        return []
    changes = clocks.changes(zone, instants[0] - clocks.DAY_S, instants[-1] + 1)
    return [f"{change.day:%a %Y-%m-%d}, {change}: {_effect(change, instants, zone)}" for change in changes]


def _effect(change: ClockChange, instants: Sequence[int], zone: str) -> str:
    first, last = clocks.bounds(change.day, zone)
    there = clocks.within(instants, first, last)
    other = [instant for instant in instants if not first <= instant < last]
    usual = {clocks.time_of_day(instant, zone) for instant in other}
    moved = [instant for instant in there if clocks.time_of_day(instant, zone) not in usual]
    low, high = sorted(change.walls)
    missed = sorted(second for second in usual if low <= second < high)
    if change.forward and missed and len(moved) in range(1, len(missed) + 1):
        times = listed(f"{clocks.local(instant, zone):%H:%M}" for instant in moved)
        return f"{listed(map(clocks.clock, missed))} does not exist, it fires at {times} instead"
    if change.forward and missed and not moved:
        return f"{listed(map(clocks.clock, missed))} does not exist, it does not fire then"
    gaps = {earlier: later - earlier for earlier, later in pairwise(instants)}
    across = max((gap for earlier, gap in gaps.items() if earlier < change.at <= earlier + gap), default=0)
    rest = [gap for earlier, gap in gaps.items() if not earlier < change.at <= earlier + gap]
    if not change.forward and rest and across > max(rest) and max(rest) < clocks.DAY_S // 2:
        return f"the hour comes twice, it fires in the first only: a pause of {short(across)}"
    return "its fires go on by the new local time"
