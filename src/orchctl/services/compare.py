"""`orchctl schedule`: when a job is due, and how that differs from what starts it today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from orchctl.core import cadence, cadence_words, clocks, compare_words, schedules
from orchctl.core.cadence import Source
from orchctl.core.catalog import Catalog, CronTrigger, Job, TimerTrigger
from orchctl.core.compare import Comparison, compare, without
from orchctl.core.legacy import Manager, Units
from orchctl.errors import OrchctlError, UsageError
from orchctl.services.ports import LegacyUnits, PrefectRule
from orchctl.services.trigger import job_of

Verdict = Literal["equal", "different", "incomplete"]


@dataclass(frozen=True, slots=True)
class TriggerSide:
    """A legacy trigger: what it says, in which zones, and how often that is in the window.

    `problem` says why nothing is known of it, else None; `hint` what to do about it, where there is something.
    `on`: whether it starts the job at present.
    """

    label: str
    kind: Literal["timer", "cron"]
    expressions: tuple[str, ...]
    monotonic: tuple[str, ...]
    zones: tuple[str, ...]
    on: bool
    fires: int
    cadence: str
    tolerance_s: float
    problem: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class ScheduleSide:
    """A schedule of the job: Prefect's rule in words, its zone, how often it is due in the window."""

    name: str
    rule: str
    zone: str
    fires: int
    cadence: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides of a job over the window from `start` to `end`; local times are in `zone`, cadences say theirs.

    `comparison` is None where no legacy trigger has instants. `findings` say what the operator should know.
    `accepted` is why the catalog accepts a difference, None where it does not.
    """

    job: str
    start: datetime
    end: datetime
    zone: str
    triggers: tuple[TriggerSide, ...]
    schedules: tuple[ScheduleSide, ...]
    legacy_cadence: str
    schedule_cadence: str
    comparison: Comparison | None
    differs: bool
    findings: tuple[str, ...]
    accepted: str | None

    @property
    def verdict(self) -> Verdict:
        """`incomplete`: what is known is equal, but not everything is known."""
        if self.differs:
            return "different"
        return "incomplete" if self.unknown else "equal"

    @property
    def unknown(self) -> tuple[TriggerSide, ...]:
        """The triggers of which nothing is known."""
        return tuple(each for each in self.triggers if each.problem is not None)


@dataclass(frozen=True, slots=True)
class _Legacy:
    """The legacy side: each readable source with its instants, and their union."""

    sources: tuple[tuple[Source, Sequence[int]], ...]
    problems: Mapping[str, str]
    hints: Mapping[str, str]
    union: Sequence[int]

    @property
    def by_calendar(self) -> list[Source]:
        """The sources that have instants."""
        return [source for source, _ in self.sources if source.expressions and source.label not in self.problems]

    @property
    def has_monotonic(self) -> bool:
        """Whether something starts the job that no calendar knows."""
        return any(source.monotonic for source, _ in self.sources)

    def zone(self, default: str) -> str:
        """Return the zone that all sources are in; `default` where they are in several, or in none."""
        zones = {zone for source in self.by_calendar for zone in source.zones}
        return zones.pop() if len(zones) == 1 else default


def run(
    catalog: Catalog,
    reader: LegacyUnits,
    rule: PrefectRule,
    name: str,
    *,
    days: int,
    now: datetime,
    host_zone: str,
) -> Compared:
    """Compare the job's legacy triggers with its schedules over the `days` from `now` on.

    Raises UsageError where the job is unknown or has no legacy triggers, and where none of them can be read
    whatever the first one raised.
    """
    job = job_of(catalog, name)
    if not job.legacy:
        raise UsageError(
            f"nothing else starts {name} today: there is nothing to compare",
            hint="`legacy = [...]` in jobs.toml names what starts a job today; `orchctl schedule next` shows the slots",
        )
    start = now.replace(microsecond=0)
    end = start + timedelta(days=days)
    wanted = prefect_schedules(catalog, job)
    found = read(job, reader)
    sources = readable(job, found, host_zone)
    with rule.asked(list(wanted.values()), start, end) as answer:
        # Millions of instants, counted while Prefect's process does its part.
        legacy = _legacy(sources, found.errors, start, end)
        lists = dict(zip(wanted, answer(), strict=True))
    return _compared(job, legacy, wanted, lists, start, end, zone_of(wanted, catalog))


def prefect_schedules(catalog: Catalog, job: Job) -> dict[str, Mapping[str, Any]]:
    """Return the job's schedules by name, in the JSON of Prefect's API."""
    return {each.name: schedules.canonical(schedules.to_prefect(each)) for each in catalog.schedules_of(job)}


def zone_of(wanted: Mapping[str, Mapping[str, Any]], catalog: Catalog) -> str:
    """Return the zone to show local times in: that of the first schedule."""
    return next((str(each["timezone"]) for each in wanted.values()), catalog.timezone)


@dataclass(frozen=True, slots=True)
class Read:
    """What the managers of a job's timers answered; `errors` holds those that did not, by manager."""

    units: Mapping[Manager, Units]
    errors: Mapping[Manager, OrchctlError]


def read(job: Job, reader: LegacyUnits) -> Read:
    """Ask each systemd that holds a timer of the job. An error of one does not hide the answer of another."""
    units: dict[Manager, Units] = {}
    errors: dict[Manager, OrchctlError] = {}
    for manager, names in cadence.managers_of({job.name: job}).items():
        try:
            units[manager] = reader.read(manager, names)
        except OrchctlError as error:
            errors[manager] = error
    return Read(units, errors)


def readable(job: Job, found: Read, host_zone: str) -> tuple[Source, ...]:
    """Return the job's legacy triggers. Raises where nothing is known of any of them."""
    unread = {manager: error.message for manager, error in found.errors.items()}
    sources = cadence.sources(job, found.units, host_zone, unread=unread)
    if all(source.missing for source in sources):
        for error in found.errors.values():
            raise error
        reasons = "; ".join(f"{source.label}: {source.missing}" for source in sources)
        raise OrchctlError(
            f"no legacy trigger of {job.name} can be read here ({reasons})",
            hint="run orchctl on the host whose timers are meant",
        )
    return sources


def _legacy(
    sources: Sequence[Source], errors: Mapping[Manager, OrchctlError], start: datetime, end: datetime
) -> _Legacy:
    counted: dict[tuple[object, ...], Sequence[int]] = {}
    known, problems = [], {}
    for source in sources:
        key = (source.calendars, source.cron, source.timezone)
        try:
            if source.missing is not None:
                raise ValueError(source.missing)
            if key not in counted:
                # Copies of one timer in two scopes say the same, and it may be millions of instants.
                counted[key] = cadence.instants(source, start, end)
            known.append((source, counted[key]))
        except ValueError as error:
            problems[source.label] = str(error)
            known.append((source, ()))
    hints = {
        source.label: failed.hint
        for source in sources
        if isinstance(source.trigger, TimerTrigger)
        and (failed := errors.get(cadence.manager_of(source.trigger))) is not None
        and failed.hint
    }
    return _Legacy(tuple(known), problems, hints, _union(list(counted.values())))


def _union(lists: Sequence[Sequence[int]]) -> Sequence[int]:
    return lists[0] if len(lists) == 1 else sorted(set().union(*lists))


def _compared(
    job: Job,
    legacy: _Legacy,
    wanted: Mapping[str, Mapping[str, Any]],
    lists: Mapping[str, Sequence[int]],
    start: datetime,
    end: datetime,
    zone: str,
) -> Compared:
    first, last = int(start.timestamp()), int(end.timestamp())
    new = _union(list(lists.values()))
    comparison = None
    if legacy.by_calendar:
        involved = {zone, *(each for source in legacy.by_calendar for each in source.zones)}
        changes = [change for each in involved for change in clocks.changes(each, first, last)]
        changes.sort(key=lambda change: (change.at, change.zone))
        tolerance = min(source.tolerance_s for source in legacy.by_calendar)
        comparison = compare(legacy.union, new, changes=changes, tolerance_s=tolerance)

    def words(instants: Sequence[int], own: str) -> str:
        said = cadence_words.describe(instants, own, first, last)
        return said if clocks.same_zone(own, zone) or not instants else f"{said} ({own})"

    return Compared(
        job.name,
        start,
        end,
        zone,
        tuple(_trigger(source, found, words(found, source.zones[0]), legacy) for source, found in legacy.sources),
        tuple(_schedule(name, each, lists[name], words) for name, each in wanted.items()),
        _legacy_cadence(legacy, words(legacy.union, legacy.zone(zone))),
        words(new, zone),
        comparison,
        (comparison is not None and comparison.differs) or legacy.has_monotonic,
        tuple(_findings(job, legacy, comparison, (new, zone), start, end)),
        job.accept_cadence,
    )


def _legacy_cadence(legacy: _Legacy, by_calendar: str) -> str:
    """Return the legacy side in words: its instants, and what starts it besides those."""
    said = [by_calendar] if legacy.by_calendar or not legacy.has_monotonic else []
    besides = (compare_words.monotonic_start(each) for source, _ in legacy.sources for each in source.monotonic)
    return cadence_words.listed([*said, *dict.fromkeys(besides)])


def _schedule(
    name: str, rule: Mapping[str, Any], instants: Sequence[int], words: Callable[[Sequence[int], str], str]
) -> ScheduleSide:
    zone = str(rule["timezone"])
    return ScheduleSide(name, schedules.words(rule), zone, len(instants), words(instants, zone))


def _trigger(source: Source, instants: Sequence[int], words: str, legacy: _Legacy) -> TriggerSide:
    return TriggerSide(
        source.label,
        "cron" if isinstance(source.trigger, CronTrigger) else "timer",
        source.expressions,
        tuple(map(compare_words.monotonic_start, source.monotonic)),
        source.zones,
        source.counts,
        len(instants),
        words,
        source.tolerance_s,
        legacy.problems.get(source.label),
        legacy.hints.get(source.label),
    )


def _findings(
    job: Job,
    legacy: _Legacy,
    comparison: Comparison | None,
    new: tuple[Sequence[int], str],
    start: datetime,
    end: datetime,
) -> list[str]:
    """Return what the operator should know: first why the sides differ, then what both do."""
    instants, zone = new
    said: dict[str, list[str]] = {}
    for source, found in legacy.sources:
        notes = [
            compare_words.seconds_for_minutes(source, instants, start, end),
            *compare_words.monotonic(source),
            *compare_words.delays(source, found),
            compare_words.zones(source, zone),
            compare_words.switched_off(source),
        ]
        for note in filter(None, notes):
            said.setdefault(note, []).append(source.label)
    findings = [f"{', '.join(labels)}: {note}" for note, labels in said.items()]
    findings += _doubles(legacy)
    if comparison is not None:
        days = (compare_words.changed_day(day) for day in comparison.changed_days)
        findings += filter(None, (compare_words.tolerated(comparison.shifted), *days))
        if job.accept_cadence and not comparison.differs and not legacy.has_monotonic:
            findings.append("accept_cadence is no longer needed: the schedule does not differ any more")
    return findings


def _doubles(legacy: _Legacy) -> list[str]:
    """Say which triggers that are on start the job together. Timers of one service do not: systemd starts it once."""
    findings = []
    on = [(source, found) for source, found in legacy.sources if source.counts and found]
    for number, (source, found) in enumerate(on):
        for other, others in on[number + 1 :]:
            count = len(found) - len(without(found, others))
            if count and _starts(source) != _starts(other):
                fires = max(len(found), len(others))
                findings.append(compare_words.twice((source.label, other.label), count, fires))
    return findings


def _starts(source: Source) -> object:
    """Return what a trigger starts: a timer a unit of its manager, a cron line only itself."""
    return (source.timer.manager, source.service) if source.timer is not None else source.trigger
