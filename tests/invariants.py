"""The invariants of a handover, checked over a log of what really ran. Model, real processes and sandbox use this one.

A log is a list of entries in the order in which they happened. The checker is a fold: `look` takes what it has seen
so far (`Seen`, small and hashable, so that the model can keep it in its states) and one entry; `check` folds a log.

| invariant | broken by |
| --- | --- |
| I1 never two owners | a run of one side begins while one of the other's goes; a slot that both ran; two able to run |
| I2 never none | at rest, nobody could run the next slot |
| I3 no slot twice | a slot that the same side ran twice |
| I4 no slot missed | at rest, a slot that nobody ran, and that the catch-up policy does not drop |
| I5 recover | it left a handover unfinished, or changed something the second time |
| I6 rollback needs no API | legacy was not active after it, or not in time |
| I7 units as before | timers, links, drop-ins or cron lines differ from those before the cutover |
| I8 only a handover changes an owner | the owner file changed while no handover of that id was at work |
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal[
    "due",  # a slot fell due: slots
    "start",  # a run began: run, by ("legacy", "prefect" or "hand"), slots (those it is for; () where none is known)
    "end",  # a run ended: run
    "dropped",  # slots that are rightly not run: the job was going when they fell due (overlap), or are too late
    "owner",  # the owner file changed: state (None, "live", "draining"), by (id of the handover)
    "fence",  # a legacy service starts only without an owner file, or always: scope, state (True: fenced)
    "begin",  # a handover went to work, or went on: by (its id)
    "finish",  # it ended, was killed or stopped: by
    "recovered",  # recover has run: state ("finished", "unfinished", or "changed": a second one changed something)
    "rolled-back",  # a rollback with the API in trouble has ended: state (True: legacy active), took (seconds)
    "units",  # state of the legacy units: by ("before", "after"), state (anything that can be compared)
    "settled",  # nothing goes, no handover is at work: state (the sides that would run the next slot)
]
Policy = Literal["latest", "all", "skip"]
ROLLBACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened to a job. `t` is in seconds on any clock; slots are instants on one clock, any other."""

    t: float
    kind: Kind
    by: str | None = None
    run: str | None = None
    slots: tuple[float, ...] = ()
    scope: str | None = None
    state: Hashable = None
    took: float = 0.0
    job: str = "job"

    def __str__(self) -> str:
        said = [f"{self.t:g} {self.kind}", self.run, self.by, self.scope]
        said += [f"slots {', '.join(map('{:g}'.format, self.slots))}" if self.slots else None]
        said += [repr(self.state) if self.kind in {"owner", "fence", "recovered", "rolled-back", "settled"} else None]
        return " ".join(word for word in said if word)


class Run(NamedTuple):
    """A run that goes. `owned`: Prefect owned the job when it began."""

    id: str
    by: str
    owned: bool


class Seen(NamedTuple):
    """What the checker has to remember of a job."""

    owner: Hashable = None
    unfenced: frozenset[str] = frozenset()
    going: frozenset[Run] = frozenset()
    ran: frozenset[tuple[float, str]] = frozenset()
    unserved: frozenset[float] = frozenset()
    at_work: frozenset[str] = frozenset()
    before: Hashable = None


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and the entries that show it."""

    invariant: str
    says: str
    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return f"{self.invariant}: {self.says}\n" + "\n".join(f"    {entry}" for entry in self.entries)


Found = tuple[tuple[str, str], ...]
"""Invariant and sentence, each."""


def look(seen: Seen, entry: Entry, *, policy: Policy) -> tuple[Seen, Found]:
    """Take one more entry; return what is remembered now, and what this entry breaks."""
    return _LOOKS[entry.kind](seen, entry, policy)


def check(log: Iterable[Entry], *, policy: Policy = "latest") -> list[Violation]:
    """Return every violation in a log, each with the entries of its runs, slots or owner up to there."""
    seen: dict[str, Seen] = {}
    past: dict[str, list[Entry]] = {}
    violations = []
    for entry in log:
        before = past.setdefault(entry.job, [])
        seen[entry.job], found = look(seen.get(entry.job, Seen()), entry, policy=policy)
        violations += [Violation(number, says, (*_related(before, entry), entry)) for number, says in found]
        before.append(entry)
    return violations


def _related(past: Sequence[Entry], entry: Entry) -> Iterable[Entry]:
    ended = {each.run for each in past if each.kind == "end"}
    for each in past:
        same_slot = bool(set(each.slots) & set(entry.slots)) and each.kind in {"start", "dropped", "due"}
        going = entry.kind == "start" and each.kind == "start" and each.run not in ended
        if same_slot or going or each.kind == "owner" or (each.kind == "units" and entry.kind == "units"):
            yield each


def _due(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    return seen._replace(unserved=seen.unserved | set(entry.slots)), ()


def _start(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    by, run = entry.by or "?", Run(entry.run or "?", entry.by or "?", seen.owner is not None)
    found: Found = tuple(
        ("I1", f"{run.id} of {by} began while {other.id} of {other.by} went")
        for other in seen.going
        if _two_sides(run, other)
    )
    found += tuple(
        ("I3", f"{by} ran slot {slot:g} twice")
        if other_by == by
        else ("I1", f"slot {slot:g} was run by {other_by} and by {by}")
        for slot, other_by in sorted(seen.ran)
        if slot in entry.slots
    )
    left = seen.unserved - set(entry.slots)
    if by == "legacy":
        left = frozenset()  # systemd and cron start a job once, however many of its instants have passed
    elif policy != "all" and entry.slots:
        left = frozenset(slot for slot in left if slot > max(entry.slots))
    ran = seen.ran | {(slot, by) for slot in entry.slots}
    return seen._replace(going=seen.going | {run}, ran=ran, unserved=left), found


def _two_sides(one: Run, other: Run) -> bool:
    """Whether two runs may not meet. One by hand that began while legacy owned the job may: there is no fence then."""
    if (one.by == "legacy") == (other.by == "legacy"):
        return False
    return "hand" not in {one.by, other.by} or one.owned or other.owned


def _end(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    return seen._replace(going=frozenset(run for run in seen.going if run.id != entry.run)), ()


def _dropped(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    return seen._replace(unserved=seen.unserved - set(entry.slots)), ()


def _two_able(seen: Seen) -> Found:
    if seen.owner == "live" and seen.unfenced:
        return (("I1", f"Prefect owns the job, and {', '.join(sorted(seen.unfenced))} is not fenced"),)
    return ()


def _owner(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    after = seen._replace(owner=entry.state)
    found = _two_able(after)
    if entry.by not in seen.at_work:
        found += (("I8", f"the owner became {entry.state!r} by {entry.by}, which was not at work"),)
    return after, found


def _fence(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    scope = frozenset({entry.scope or "system"})
    after = seen._replace(unfenced=seen.unfenced - scope if entry.state else seen.unfenced | scope)
    return after, _two_able(after)


def _begin(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    found = (("I8", f"{entry.by} went to work beside {', '.join(sorted(seen.at_work))}"),) if seen.at_work else ()
    return seen._replace(at_work=seen.at_work | {entry.by or "?"}), found


def _finish(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    return seen._replace(at_work=seen.at_work - {entry.by or "?"}), ()


def _recovered(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    says = {"unfinished": "recover left a handover unfinished", "changed": "a second recover changed something"}
    found = says.get(str(entry.state))
    return seen, (("I5", found),) if found else ()


def _rolled_back(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    if not entry.state:
        return seen, (("I6", "legacy was not active after a rollback"),)
    if entry.took > ROLLBACK_S:
        return seen, (("I6", f"a rollback took {entry.took:.1f} s until legacy was active"),)
    return seen, ()


def _units(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    if entry.by == "before":
        return seen._replace(before=entry.state), ()
    if entry.state != seen.before:
        return seen, (("I7", f"before: {seen.before!r}, after: {entry.state!r}"),)
    return seen, ()


def _settled(seen: Seen, entry: Entry, policy: Policy) -> tuple[Seen, Found]:
    able = entry.state if isinstance(entry.state, tuple) else ()
    found: Found = ()
    if len(able) > 1:
        found += (("I1", f"{' and '.join(map(str, able))} would run the next slot"),)
    if not able:
        found += (("I2", "nobody would run the next slot"),)
    if seen.unserved and policy != "skip":
        found += (("I4", f"nobody ran slot {', '.join(f'{slot:g}' for slot in sorted(seen.unserved))}"),)
    return seen._replace(unserved=frozenset()), found


_LOOKS = {
    "due": _due,
    "start": _start,
    "end": _end,
    "dropped": _dropped,
    "owner": _owner,
    "fence": _fence,
    "begin": _begin,
    "finish": _finish,
    "recovered": _recovered,
    "rolled-back": _rolled_back,
    "units": _units,
    "settled": _settled,
}
