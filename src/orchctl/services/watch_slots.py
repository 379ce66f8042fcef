"""Missed slots: those of live jobs that fell due, and that no run took, skipped or observed.

Each slot is looked at once, when it is too late for it. What that takes grows with what has fallen due since the last
look: Prefect is asked for its instants some hours at a time, and the records are read only where a slot has no claim.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchctl.core import schedules, slots
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import Run, Skipped
from orchctl.core.watch import Problem
from orchctl.core.watch_memory import Known, Missed, Watched
from orchctl.errors import OrchctlError, StateBroken
from orchctl.services import watch_checks as checks
from orchctl.services.runs import Window
from orchctl.services.watch_checks import Unseen
from orchctl.services.watch_ports import World

AT_A_TIME = timedelta(hours=6)
"""For so long ahead the instants are asked for at once: that starts a Prefect, which takes a second."""
LONGEST = timedelta(days=7)
"""A watchdog that was away for longer looks at the slots of the last days only."""
MOST = 10_000
"""Instants of one schedule that are asked for at once."""
MOST_IN_ALL = 200_000
"""Instants that are kept: some 2 MB."""
_EXECUTED = frozenset({"running", "success", "failed", "crashed", "cancelled"})


@dataclass(slots=True)
class Slots:
    """What a look at the slots found. `watched` is what to remember; `unseen` says by job why its slots could not be
    looked at: those of the others were.
    """

    problems: list[Problem] = field(default_factory=list)
    watched: dict[str, Watched] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)


def look(world: World, catalog: Catalog, live: Mapping[str, Job], before: Mapping[str, Watched]) -> Slots:
    """Look at the slots that have become too late since the last look. Raises Unseen."""
    now = world.clock.now()
    found = Slots()
    rules = {name: rules_of(catalog, job) for name, job in live.items()}
    until = {name: now - checks.patience(job, world.alerts) for name, job in live.items()}
    # A job that is new, or has other schedules, is looked at from now on: before, other slots may have been due.
    since = {
        name: max(before[name].until, now - LONGEST) if name in before and before[name].rules == rules[name] else now
        for name in live
    }
    due = {name for name in live if since[name] < until[name]}
    known = _known(world, catalog, live, rules, since) if due else Known(now, now)
    for name, job in live.items():
        had = before.get(name)
        missed = had.missed if had is not None else None
        # Where not all instants are known yet, the rest comes with the next look.
        end = max(since[name], min(until[name], known.end))
        if name in due:
            try:
                missed = _judged(world, job, known.of(rules[name], since[name], end), missed, now)
            except Exception as error:  # noqa: BLE001 - one job that breaks must not silence the others
                found.unseen[name] = checks.why(error)
                end = since[name]  # The next look begins where this one did.
        found.watched[name] = Watched(rules[name], end, missed)
        if missed is not None and name not in found.unseen:
            found.problems.append(_problem(job, missed))
    return found


def rules_of(catalog: Catalog, job: Job) -> str:
    """Return what stands for the schedules of a job."""
    text = json.dumps([schedules.canonical(schedules.to_prefect(each)) for each in catalog.schedules_of(job)])
    return f"{zlib.crc32(text.encode()):08x}-{len(text)}"


def _known(
    world: World,
    catalog: Catalog,
    live: Mapping[str, Job],
    rules: Mapping[str, str],
    since: Mapping[str, datetime],
) -> Known:
    """Return the instants of all live jobs from `since` on; Prefect is asked where they are not known yet."""
    now = world.clock.now()
    start = min(since.values())
    known = world.store.slots()
    if known is not None and known.start <= start and known.end > now and set(rules.values()) <= set(known.instants):
        return known
    every = {rules[name]: job for name, job in live.items()}
    wanted = [(key, schedule) for key, job in every.items() for schedule in catalog.schedules_of(job)]
    begin, end = start.replace(microsecond=0), now + AT_A_TIME
    asked = [schedules.canonical(schedules.to_prefect(schedule)) for _, schedule in wanted]
    try:
        with world.rule.asked(asked, begin, end, count=MOST) as answer:
            lists = answer()
    except OrchctlError as error:
        raise Unseen(error.message) from error
    instants: dict[str, set[int]] = {key: set() for key in every}
    for (key, _), some in zip(wanted, lists, strict=True):
        instants[key] |= set(some)
        if len(some) >= MOST:
            end = min(end, datetime.fromtimestamp(some[-1], UTC))
    if sum(map(len, instants.values())) > MOST_IN_ALL:
        end = min(end, now + timedelta(minutes=10))
    last = end.timestamp()
    known = Known(begin, end, {key: sorted(at for at in some if at <= last) for key, some in instants.items()})
    world.store.keep_slots(known)
    return known


def _judged(
    world: World, job: Job, instants: Sequence[datetime], missed: Missed | None, now: datetime
) -> Missed | None:
    """Return which slots of a job are missed, after those that have become too late."""
    if not instants and missed is None:
        return None
    try:
        owner = world.owners.read(job.name) if job.has_legacy else None
    except StateBroken:
        return missed  # It broke just now: the next look tells.
    owed = [slot for slot in instants if slots.owned(job, slot, owner).kind == "run"]
    free = [slot for slot in owed if not _claimed(world, job.name, slot)]
    taken = [slot for slot in owed if slot not in free]
    if not free and missed is None:
        return None
    first = min(filter(None, (free[0] if free else None, missed.last if missed is not None else None)))
    runs = list(_runs(world, job, first, now))
    said = {run.slot for run in runs}
    gone = [slot for slot in free if slot not in said]
    if gone:
        count, begun = (missed.count, missed.first) if missed is not None else (0, gone[0])
        missed = Missed(count + len(gone), begun, gone[-1])
    if missed is None or _made_good(missed, taken, runs):
        return None
    return missed


def _made_good(missed: Missed, taken: Iterable[datetime], runs: Iterable[Run]) -> bool:
    """Whether the job has run since the last slot that was missed."""
    later = any(slot > missed.last for slot in taken)
    return later or any(
        run.started_at > missed.last and run.status in _EXECUTED and (run.mode == "live" or run.origin != "prefect")
        for run in runs
    )


def _claimed(world: World, job: str, slot: datetime) -> bool:
    try:
        return world.claims.read(job, slot) is not None
    except StateBroken:
        return True  # Somebody took it; that its claim is broken `doctor` tells.


def _runs(world: World, job: Job, start: datetime, now: datetime) -> Iterator[Run]:
    """Yield the runs of a job that began since a slot fell due, whatever became of them."""
    skipped: list[Skipped] = []
    tree = world.tree(job.data_root)
    early = start - timedelta(minutes=2)  # A worker starts a run up to a minute before it is due.
    for day in Window(early, now).utc_dates():
        yield from (run for run in tree.events(day, skipped=skipped) if run.job == job.name and run.started_at >= early)


def _problem(job: Job, missed: Missed) -> Problem:
    many = missed.count > 1
    when = f"{missed.first:%Y-%m-%d %H:%M:%S}Z"
    span = f"{missed.count} slots, from {when} to {missed.last:%Y-%m-%d %H:%M:%S}Z," if many else f"the slot {when}"
    return Problem(
        f"{checks.MISSED}:{job.name}",
        "missed_slots",
        f"{span} {'were' if many else 'was'} not run, and the job has not run since",
        job=job.name,
        tags=job.tags,
        command=f"orchctl runs audit --job {job.name} --since {missed.first.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
