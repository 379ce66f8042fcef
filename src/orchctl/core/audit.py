"""The expected slots of a job against what ran: one verdict a slot. Pure.

Instants of slots are whole epoch seconds, as the cadences give them; those of runs are epoch seconds with fractions.
What is not known is a verdict of its own: where the record has a hole, no slot is called ok, and none missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from orchctl.core.audit_match import Ran, Served, serve

Verdict = Literal["ok", "late", "failed", "skipped", "missed", "double", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("ok", "late", "failed", "skipped", "missed", "double", "unknown")
WRONG: frozenset[str] = frozenset({"missed", "double"})
"""The verdicts that make an audit wrong."""
Side = Literal["legacy", "prefect"]
# systemd starts a service a moment after its timer has elapsed; a busy host takes longer.
GRACE_S = 5.0
SETTLING_S = 10.0
_TOO_RECENT = "too recent: it may still start, or its record come"


@dataclass(frozen=True, slots=True)
class Doubt:
    """From `start` up to `end` the record is not whole, for `reason`.

    `total`: what is there proves nothing either, for a second run may be hidden. Otherwise only a run that is not
    there may have been.
    """

    start: float
    end: float
    reason: str
    total: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """What makes slots of a job due: a legacy trigger, or a schedule in Prefect; and the instants it names, sorted.

    A start within `reach_s` seconds of its instant is on time; until `patience_s` one may still come. `feed` names
    whose runs serve it (see `Ran.feed`). `catches_up`: a start that comes too late is for it all the same.
    """

    label: str
    side: Side
    instants: Sequence[int]
    reach_s: float
    patience_s: float
    feed: str
    doubts: tuple[Doubt, ...] = ()
    catches_up: bool = True


def reach(instants: Sequence[int], tolerance_s: float) -> float:
    """Return a trigger's tolerance with what a host takes to start something; never so much that it hides a slot."""
    closest = min((after - before for before, after in pairwise(instants)), default=86400)
    return tolerance_s + min(GRACE_S, closest / 2)


@dataclass(frozen=True, slots=True)
class Slot:
    """One expected slot. `why` is what neighbours of the same verdict may share, `detail` what they do not.

    `coalesced`: its run serves neighbours too, which lie closer than the trigger tells apart.
    """

    at: int
    side: Side
    due: tuple[str, ...]
    verdict: Verdict
    why: str | None = None
    detail: str | None = None
    runs: tuple[str, ...] = ()
    coalesced: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """From `start` up to `end` not even the slots are known."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class Extra:
    """Executions that belong to no slot, though nobody asked for them by hand: those of one feed."""

    feed: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring slots with the same verdict for the same reason."""

    slots: tuple[Slot, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs of all of them, each once."""
        return tuple(dict.fromkeys(run for slot in self.slots for run in slot.runs))


@dataclass(frozen=True, slots=True)
class JobAudit:
    """What came of one job's slots, by time."""

    job: str
    slots: tuple[Slot, ...]
    gaps: tuple[Gap, ...] = ()
    extra: tuple[Extra, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many slots have each verdict; those that none has are left out."""
        found = Counter(slot.verdict for slot in self.slots)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    @property
    def wrong(self) -> bool:
        """Whether a slot was missed, or ran twice."""
        return any(slot.verdict in WRONG for slot in self.slots)

    def groups(self) -> Iterator[Group]:
        """Yield the slots that are not ok, neighbours of one kind together."""
        held: list[Slot] = []
        for slot in self.slots:
            if held and (held[-1].verdict, held[-1].why, held[-1].due) != (slot.verdict, slot.why, slot.due):
                yield Group(tuple(held))
                held = []
            if slot.verdict != "ok":
                held.append(slot)
        if held:
            yield Group(tuple(held))


@dataclass(slots=True)
class _Found:
    """What was found for one slot. `by` are the executions, each under its feed."""

    dues: list[Due] = field(default_factory=list)
    by: dict[str, Ran] = field(default_factory=dict)
    late_s: dict[str, float] = field(default_factory=dict)
    said: list[Ran] = field(default_factory=list)
    during: Ran | None = None
    coalesced: bool = False


def audit(job: str, dues: Iterable[Due], runs: Sequence[Ran], *, start: float, end: float, now: float) -> JobAudit:
    """Return the verdict of every slot of `dues` from `start` up to, and without, `end`: exactly one a slot.

    Slots and runs beyond are looked at too: a run may lie on the other side of the line. `runs` are those of the job,
    by whomever; what was run by hand belongs to no slot.
    """
    listed = list(dues)
    found: dict[int, _Found] = {}
    for due in listed:
        for at in due.instants:
            found.setdefault(at, _Found()).dues.append(due)
    executed = sorted((run for run in runs if run.executed), key=lambda run: (run.started, run.run_id))
    extra = _attribute(listed, found, executed)
    for run in runs:
        if not run.executed and run.slot in found:
            found[run.slot].said.append(run)
    slots = tuple(_judged(at, found[at], now) for at in sorted(found) if start <= at < end)
    gone = [run for run in extra if start <= run.started < end and not run.by_hand]
    feeds = dict.fromkeys(run.feed for run in gone)
    loose = tuple(Extra(feed, tuple(run.run_id for run in gone if run.feed == feed)) for feed in feeds)
    return JobAudit(job, slots, extra=loose)


def _attribute(dues: list[Due], found: dict[int, _Found], executed: Sequence[Ran]) -> list[Ran]:
    """Give each execution to its slots, in `found`; return those that belong to none.

    Prefect's say their slot themselves. Those of a legacy service are matched by their start, with the instants of
    their own triggers, and with those of Prefect: where it owns the job they should not be there, and where a slot of
    Prefect's was handed back they serve it.
    """
    left = []
    for run in executed:
        if run.side == "prefect":
            if run.slot in found:
                _add(found[run.slot], run, max(0.0, run.started - run.slot))
            else:
                left.append(run)
    legacy = [due for due in dues if due.side == "legacy"]
    theirs = {at for due in dues if due.side == "prefect" for at in due.instants}
    feeds = dict.fromkeys(due.feed for due in legacy)
    strays = [run for run in executed if run.side == "legacy" and run.feed not in feeds]
    for feed in feeds:
        own = [due for due in legacy if due.feed == feed]
        runs = [run for run in executed if run.side == "legacy" and run.feed == feed]
        left += _serve(own, theirs, found, runs)
    # Runs of a service that no trigger starts any more, or of which nobody noted whose they were.
    left += _serve(legacy, theirs, found, strays)
    return left


def _serve(dues: Sequence[Due], theirs: set[int], found: dict[int, _Found], runs: Sequence[Ran]) -> list[Ran]:
    if not runs:
        return []
    instants = sorted({at for due in dues for at in due.instants} | theirs)
    widest = max((due.reach_s for due in dues), default=GRACE_S)
    catches_up = any(due.catches_up for due in dues)
    served = serve(instants, widest, runs, taken={at for at in theirs if found[at].by}, catches_up=catches_up)
    _enter(found, served)
    return list(served.extra)


def _enter(found: dict[int, _Found], served: Served) -> None:
    shared = Counter(run.run_id for runs in served.hard.values() for run in runs)
    for at, runs in served.hard.items():
        for run in runs:
            _add(found[at], run, run.started - at)
            found[at].coalesced = found[at].coalesced or shared[run.run_id] > 1
    for at, run in served.soft.items():
        if at not in served.hard:
            _add(found[at], run, 0.0)
            found[at].coalesced = True
    for at, run in served.during.items():
        if at not in served.hard:
            found[at].during = run


def _add(entry: _Found, run: Ran, late_s: float) -> None:
    """Note an execution. One of the same service after a failed one is its retry, as Restart= makes them."""
    for other in [*entry.by.values()]:
        if other.run_id != run.run_id and other.feed == run.feed and run.side == "legacy" and other.failed:
            del entry.by[other.run_id]
            late_s = entry.late_s.pop(other.run_id)
    entry.by[run.run_id] = run
    entry.late_s[run.run_id] = late_s


def _judged(at: int, found: _Found, now: float) -> Slot:
    dues = found.dues
    verdict, why, detail = _verdict(at, found, now)
    return Slot(
        at,
        dues[0].side,
        tuple(due.label for due in dues),
        verdict,
        why,
        detail,
        tuple(found.by) or tuple(run.run_id for run in found.said),
        found.coalesced,
    )


def _verdict(at: int, found: _Found, now: float) -> tuple[Verdict, str | None, str | None]:
    ran = list(found.by.values())
    if len(ran) > 1:
        feeds = list(dict.fromkeys(run.feed for run in ran))
        both = f"{' and '.join(feeds)} both ran it" if len(feeds) == 2 else f"ran {len(ran)} times: {', '.join(feeds)}"
        return "double", both, None
    doubts = _doubts(at, found.dues)
    young = now - at <= max(due.patience_s for due in found.dues)
    for doubt in doubts:
        if doubt.total:
            # What is read from a journal lags behind a little.
            fresh = now - at <= max(due.reach_s for due in found.dues) + SETTLING_S
            return "unknown", _TOO_RECENT if fresh else doubt.reason, None
    if ran:
        return _one(ran[0], found)
    return _none(found, doubts, young=young)


def _one(run: Ran, found: _Found) -> tuple[Verdict, str | None, str | None]:
    late = found.late_s[run.run_id]
    if run.status == "running":
        return "unknown", "it still runs", None
    if run.failed:
        return "failed", run.reason or run.status, None
    if late > max(due.reach_s for due in found.dues):
        return "late", "started late", f"{round(late)} s after its time"
    return "ok", None, None


def _none(found: _Found, doubts: Sequence[Doubt], *, young: bool) -> tuple[Verdict, str | None, str | None]:
    said = [run for run in found.said if run.reason]
    skipped = next((run for run in found.said if run.status == "skipped"), None)
    if skipped is not None:
        return "skipped", skipped.reason, None
    if found.during is not None:
        return "skipped", "the run before still went on", f"run {found.during.run_id}"
    if young:
        return "unknown", _TOO_RECENT, None
    if doubts:
        return "unknown", doubts[0].reason, None
    return "missed", "nothing ran it", said[-1].reason if said else None


def _doubts(at: int, dues: Sequence[Due]) -> list[Doubt]:
    """Return what makes this slot doubtful, what makes it wholly so first."""
    found = [doubt for due in dues for doubt in due.doubts if doubt.start <= at + due.reach_s and at < doubt.end]
    return sorted(found, key=lambda doubt: not doubt.total)


def holes(covered: Iterable[tuple[float, float]], start: float, end: float) -> Iterator[tuple[float, float]]:
    """Yield the parts of `start` up to `end` that no span of `covered` holds, by time."""
    at = start
    for first, last in sorted(covered):
        if first > at and at < end:
            yield at, min(first, end)
        at = max(at, last)
    if at < end:
        yield at, end
