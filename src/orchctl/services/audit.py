"""`orchctl runs audit`: the slots that there should have been, against what ran on either side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from orchctl.core import audit as core
from orchctl.core import cadence, eras, legacy_runs, names, observed, schedules, slots
from orchctl.core.audit import Doubt, Due, Gap, JobAudit
from orchctl.core.audit_match import FAILED, Ran
from orchctl.core.cadence import Source
from orchctl.core.catalog import Catalog, CronTrigger, Job, TimerTrigger
from orchctl.core.eras import Eras, Owed
from orchctl.core.legacy import Manager
from orchctl.core.manifest import Run, Skipped
from orchctl.core.observed import Looked
from orchctl.errors import OrchctlError, StateBroken
from orchctl.services import observe, timers
from orchctl.services.observe import Eyes, Triggers
from orchctl.services.ports import ManifestTree, Owners, PrefectRule
from orchctl.services.runs import Listing, Window, listing
from orchctl.services.timers import Read, TimerReader

MARGIN = timedelta(days=1)
"""How far beyond the window slots and runs are looked at, so that those at its edges find each other."""
LATER = timedelta(days=2)
"""How long after the window a run for one of its slots is looked for."""
_EXECUTED = FAILED | {"success", "running"}
_EVENTS_OF = re.compile(r"/events/(\d{4}-\d\d-\d\d)\.jsonl")
_FOR_EVER = float("inf")


class AppliedHistory(Protocol):
    """The applied catalogs, and when each was applied first. See `adapters/applied.py`."""

    def read(self, digest: str) -> Catalog | None: ...  # noqa: D102
    def written(self) -> Mapping[str, datetime]: ...  # noqa: D102


@dataclass(frozen=True)
class World:
    """What an audit works with. `eyes` are those of the observer, `tree` gives the manifests of a data root."""

    catalog: Catalog
    systemd: TimerReader
    eyes: Eyes
    owners: Owners
    applied: AppliedHistory
    rule: PrefectRule
    tree: Callable[[str], ManifestTree]


@dataclass(frozen=True, slots=True)
class Audited:
    """The jobs, by name, as they were at `at` (UTC).

    `notes` say why something could not be looked at; `skipped` are records passed over.
    """

    window: Window
    at: datetime
    jobs: tuple[JobAudit, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether a slot was missed, or ran twice."""
        return any(job.wrong for job in self.jobs)


ROLLBACK = "the rollback"
STARTS_S = 15.0
"""Seconds that the start of a service may take after a rollback has asked for it."""


@dataclass(frozen=True, slots=True)
class _Span:
    """What is looked at, in epoch seconds: the slots of the window, and those around it."""

    first: datetime
    start: float
    end: float
    last: datetime
    now: float


@dataclass(slots=True)
class _Case:
    """A job under audit. `eras` say when it was Prefect's."""

    job: Job
    sources: tuple[Source, ...]
    eras: Eras
    broken: str | None = None
    looked: Looked | None = None
    dues: list[Due] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


def audit(world: World, window: Window, *, only: str | None = None) -> Audited:
    """Judge the slots of `window` up to now: of one job, or of all that something starts by a clock.

    Before, it brings the legacy history in where it may. Legacy slots are those that the triggers name as they are
    now. Who owned a job is known from its owner file and from the events of its handovers in these days.
    """
    now = world.eyes.now()
    jobs = {
        name: job
        for name, job in world.catalog.jobs.items()
        if (name == only if only is not None else job.legacy or job.schedules)
    }
    span = _Span(
        window.start - MARGIN,
        window.start.timestamp(),
        min(window.end, now).timestamp(),
        min(window.end + MARGIN, now),
        now.timestamp(),
    )
    eyes = world.eyes
    read = timers.read(world.systemd, jobs, host_zone=eyes.host_zone, now=now, look=eyes.looks.read)
    cases = [_case(world, job, read, span) for job in jobs.values()]
    notes = _bring_in(world, cases, read, span)
    _add_schedules(world, [case for case in cases if case.eras.prefect or case.eras.granted], span)
    for case in cases:
        if not case.eras.all_prefect:
            _add_legacy(case, read, span)
    reach = Window(span.first, min(window.end + LATER, now + timedelta(seconds=1)))
    records = {root: listing([world.tree(root)], reach) for root in sorted({job.data_root for job in jobs.values()})}
    audited = tuple(_judged(world, case, records[case.job.data_root], span) for case in cases)
    skipped = tuple(item for one in records.values() for item in one.skipped)
    return Audited(window, now, audited, notes, skipped)


def _case(world: World, job: Job, read: Read, span: _Span) -> _Case:
    if not job.has_legacy:
        return _Case(job, (), eras.ALWAYS)
    sources = read.sources(job)
    try:
        owner = world.owners.read(job.name)
    except StateBroken as error:
        return _Case(job, sources, eras.NEVER, broken=error.message)
    tree, days = world.tree(job.data_root), Window(span.first, datetime.fromtimestamp(span.now, UTC)).utc_dates()
    events = (event for day in days for event in tree.handover_events(day, job.name))
    return _Case(job, sources, eras.of(owner, events, start=span.first.timestamp()))


def _bring_in(world: World, cases: Sequence[_Case], read: Read, span: _Span) -> tuple[str, ...]:
    """Bring the history of each job's services in, and note until when it is known. Returns what stood in the way."""
    said: dict[str, list[str]] = {}
    for case in cases:
        services = legacy_runs.services_of(case.sources)
        if not services:
            continue
        case.looked = read.looked[case.job.name]
        if not observed.covered(case.looked, span.first, span.last):
            reason = _look(world, case, read)
            if reason is not None:
                said.setdefault(reason, []).append(case.job.name)
        if case.looked is not None and set(case.looked.units) != set(legacy_runs.marks(services)):
            case.looked = None
    return tuple(f"{', '.join(jobs)}: {reason}" for reason, jobs in said.items())


def _look(world: World, case: _Case, read: Read) -> str | None:
    unread = [read.unread[manager] for manager in _managers(case) if manager in read.unread]
    if unread:
        return f"the legacy history was not brought in: {unread[0]}"
    try:
        found = Triggers(case.sources, read.units, read.absent, read.at)
        brought = observe.bring_in(case.job, world.catalog.timezone, world.eyes, found)
    except OrchctlError as error:
        return f"the legacy history was not brought in: {error.message}"
    case.looked = brought.looked or world.eyes.looks.read(case.job.name)
    return brought.note


def _managers(case: _Case) -> Iterator[Manager]:
    for source in case.sources:
        if isinstance(source.trigger, TimerTrigger):
            yield cadence.manager_of(source.trigger)


# --- what should have been


def _add_legacy(case: _Case, read: Read, span: _Span) -> None:
    if case.broken is not None:
        case.gaps.append(Gap(span.start, span.end, f"who owns the job is not known: {case.broken}"))
        return
    nothing: list[str] = []
    unplaced: list[str] = []
    useful: list[tuple[Source, tuple[Doubt, ...]]] = []
    off: list[tuple[Source, tuple[Doubt, ...]]] = []
    doubts = _hidden(case, read)
    for source in case.sources:
        if source.missing is not None:
            nothing.append(f"{source.label}: {source.missing}")
        elif not source.expressions:
            bases = " and ".join(dict.fromkeys(each.base for each in source.monotonic)) or "nothing"
            unplaced.append(f"{source.label} is due by {bases}, which names no instants")
        elif source.counts or case.eras.prefect:
            # Where Prefect owns the job now its timers are off, and before that they were on.
            useful.append((source, doubts))
        else:
            reason = f"{source.label} is off, and since when is not known"
            off.append((source, (*doubts, Doubt(-_FOR_EVER, _FOR_EVER, reason))))
    for source, held in useful or off:
        try:
            instants = [at for at in cadence.instants(source, span.first, span.last) if case.eras.is_legacys(at)]
            case.dues.append(_legacy_due(case, source, held, instants))
        except ValueError as error:
            unplaced.append(f"{source.label}: {error}")
    case.dues += [_owed_due(owed, doubts) for owed in case.eras.owed]
    reasons = unplaced if case.dues else [*nothing, *unplaced]
    # Up to where Prefect owns the job: it is its slots then that count.
    end = min((since for since, until in case.eras.prefect if until == _FOR_EVER), default=span.end)
    if reasons and span.start < end:
        case.gaps.append(Gap(span.start, min(end, span.end), "; ".join(reasons)))


def _owed_due(owed: Owed, doubts: tuple[Doubt, ...]) -> Due:
    """Return the slot that a rollback ran through the legacy service, because it fell due while nobody might run it."""
    late = owed.at - owed.slot + STARTS_S
    return Due("the rollback", "legacy", [int(owed.slot)], late, late, ROLLBACK, doubts)


def _hidden(case: _Case, read: Read) -> tuple[Doubt, ...]:
    """Return the doubt that a manager casts which may have run the job, and could not be asked."""
    return tuple(
        Doubt(-_FOR_EVER, _FOR_EVER, f"{source.label} may have run it too: {source.missing}", total=True)
        for source in case.sources
        if isinstance(source.trigger, TimerTrigger) and cadence.manager_of(source.trigger) in read.unread
    )


def _legacy_due(case: _Case, source: Source, doubts: tuple[Doubt, ...], instants: Sequence[int]) -> Due:
    reach = core.reach(instants, source.tolerance_s)
    if isinstance(source.trigger, CronTrigger):
        feed = "cron"
        doubts = (*doubts, Doubt(-_FOR_EVER, _FOR_EVER, "cron leaves no record of how its runs ended"))
    else:
        feed = _feed(source.service or "", cadence.manager_of(source.trigger))
        spans = case.looked.spans if case.looked is not None else ()
        known = [(since.timestamp(), until.timestamp()) for since, until in spans]
        reason = "the journal was not read for this time, or no longer holds it"
        doubts = (*doubts, *(Doubt(*hole, reason, total=True) for hole in core.holes(known, -_FOR_EVER, _FOR_EVER)))
    persistent = source.timer is not None and source.timer.persistent
    return Due(source.label, "legacy", instants, reach, reach, feed, doubts, catches_up=persistent)


def _feed(service: str, manager: Manager) -> str:
    return f"{service} ({manager})"


def _add_schedules(world: World, cases: Sequence[_Case], span: _Span) -> None:
    """Add the slots that Prefect owns, by Prefect's own rule, asked once for all of them."""
    asked = [(case, schedule) for case in cases for schedule in world.catalog.schedules_of(case.job)]
    if not asked:
        return
    rules: list[Mapping[str, Any]] = [schedules.canonical(schedules.to_prefect(schedule)) for _, schedule in asked]
    with world.rule.asked(rules, span.first, span.last) as answer:
        known = _known_from(world, [case.job for case in cases], span)
        lists = answer()
    on_time = slots.ON_TIME.total_seconds()
    for (case, schedule), found in zip(asked, lists, strict=True):
        job = case.job
        patience = on_time if job.catchup == "skip" else max(on_time, job.catchup_window)
        patience += job.timeout if job.overlap == "queue" else 0
        doubts = (Doubt(-_FOR_EVER, *known[job.name]),) if job.name in known else ()
        instants = [at for at in found if case.eras.is_prefects(at)]
        case.dues.append(Due(f"schedule {schedule.name}", "prefect", instants, on_time, patience, "Prefect", doubts))


def _known_from(world: World, jobs: Sequence[Job], span: _Span) -> dict[str, tuple[float, str]]:
    """Return, for jobs whose schedules were not surely in force all the time, from when on they were, and why not.

    A catalog is in force on this host from when it was first applied. Only those that were applied in the window are
    read, and the last one before it.
    """
    begun: dict[str, float] = {}
    for digest, at in sorted(world.applied.written().items(), key=lambda item: item[1], reverse=True):
        applied = _believed(world.applied, digest)
        for job in jobs:
            if applied is not None and _same_schedules(applied, world.catalog, job):
                begun[job.name] = at.timestamp()
        if at.timestamp() <= span.first.timestamp():
            break
    never = "the job was never applied on this host (`orchctl sync`)"
    since = "before its schedules were applied on this host (`orchctl sync`)"
    return {
        job.name: (begun.get(job.name, _FOR_EVER), since if job.name in begun else never)
        for job in jobs
        if begun.get(job.name, _FOR_EVER) > span.first.timestamp()
    }


def _believed(applied: AppliedHistory, digest: str) -> Catalog | None:
    try:
        return applied.read(digest)
    except OrchctlError:
        return None


def _same_schedules(applied: Catalog, catalog: Catalog, job: Job) -> bool:
    old = applied.jobs.get(job.name)
    return old is not None and applied.schedules_of(old) == catalog.schedules_of(job)


# --- what was


def _judged(world: World, case: _Case, records: Listing, span: _Span) -> JobAudit:
    torn = tuple(_torn(records.skipped))
    dues = [replace(due, doubts=(*due.doubts, *torn)) for due in case.dues]
    runs = list(_runs(world, case, records, span.now))
    found = core.audit(case.job.name, dues, runs, start=span.start, end=span.end, now=span.now)
    return replace(found, gaps=tuple(case.gaps))


def _torn(skipped: Iterable[Skipped]) -> Iterator[Doubt]:
    """Yield the doubt that records cast which could not be read: any run may have been among them."""
    for item in skipped:
        reason = f"a record could not be read: {item.path}"
        day = _EVENTS_OF.search(item.path)
        if day is None:
            yield Doubt(-_FOR_EVER, _FOR_EVER, reason)
        else:
            start = datetime.fromisoformat(day[1]).replace(tzinfo=UTC)
            yield Doubt(start.timestamp(), (start + timedelta(days=1)).timestamp(), reason)


def _runs(world: World, case: _Case, records: Listing, now: float) -> Iterator[Ran]:
    """Yield the job's runs: those on record, and those of its services that go on."""
    feeds = {due.feed for due in case.dues if due.side == "legacy"} - {ROLLBACK}
    for run in records.runs:
        if run.job == case.job.name:
            ran = _ran(run, world.tree(run.data_root), feeds, now)
            owed = ran.side == "legacy" and any(0 <= ran.started - each.at < STARTS_S for each in case.eras.owed)
            yield replace(ran, feed=ROLLBACK) if owed else ran
    for going in case.looked.open if case.looked is not None else ():
        name = names.run_id(going.started_at, going.key)
        feed = _feed(going.unit, going.manager)
        yield Ran(name, "legacy", feed, "running", None, going.started_at.timestamp(), now)


def _ran(run: Run, tree: ManifestTree, feeds: set[str], now: float) -> Ran:
    ours = run.origin == "prefect"
    ended = run.finished_at.timestamp() if run.finished_at else now if run.status == "running" else None
    return Ran(
        run_id=run.run_id,
        side="prefect" if ours else "legacy",
        feed="Prefect" if ours else _feed_of(run, tree, feeds),
        status=run.status,
        slot=int(run.slot.timestamp()) if run.slot else None,
        started=_first_start(run, tree).timestamp(),
        ended=ended,
        executed=run.status in _EXECUTED and (run.mode == "live" or not ours),
        by_hand=ours and run.slot is None,
        reason=run.reason,
    )


def _feed_of(run: Run, tree: ManifestTree, feeds: set[str]) -> str:
    """Return whose legacy run it is. Events do not say; where there is but one service it is that one's."""
    if run.origin == "cron":
        return "cron"
    if len(feeds) == 1 and "cron" not in feeds:
        return next(iter(feeds))
    environment = (_manifest(run, tree) or {}).get("environment") or {}
    unit, scope = environment.get("unit"), environment.get("scope")
    return _feed(unit, Manager(scope, environment.get("user"))) if unit and scope else run.origin


def _first_start(run: Run, tree: ManifestTree) -> datetime:
    """Return when the run's first attempt began: a retry is as late as its delay makes it, and that is not late."""
    attempts = (_manifest(run, tree) or {}).get("attempts") or [] if run.attempt > 1 else []
    try:
        return names.parse_instant(attempts[0]["started_at"])
    except (IndexError, KeyError, TypeError, ValueError):
        return run.started_at


def _manifest(run: Run, tree: ManifestTree) -> dict[str, Any] | None:
    try:
        return tree.read(run)
    except ValueError:
        return None
