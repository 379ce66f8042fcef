"""`orchctl host prune`: what is old enough goes, by policy. Stopped at any instant, the next one goes on with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchctl.core.retention import KINDS, Kind, told
from orchctl.errors import Interrupted, OrchctlError
from orchctl.services import prune_state
from orchctl.services.prune_history import History
from orchctl.services.prune_ports import Act, Notes, Problem, World
from orchctl.services.prune_runs import Runs

# The folder of a run goes before its logs would be told of, and what takes longest comes last.
_ORDER: tuple[Kind, ...] = ("state", "manifests", "logs", "compress_logs", "history")
_SAY_EACH_S = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """What goes of a job, or went: `size_bytes` on this host's disks, None where only the server knows."""

    kind: Kind
    job: str
    count: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of a job is old enough and stays, and why."""

    kind: Kind
    job: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go. `cutoffs` are the instants (UTC) before which a kind goes; kinds without one are kept."""

    cutoffs: Mapping[Kind, datetime]
    rows: tuple[Row, ...]
    kept: tuple[Kept, ...]
    problems: tuple[Problem, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not self.rows


def look(world: World, ages: Mapping[Kind, int]) -> Pruned:
    """Return what would go. `ages` are seconds by kind; kinds without one are kept. Changes nothing."""
    work = _Work(world, ages, changes=False)
    work.run(lambda act: act.count)
    return work.result()


def propose(world: World, ages: Mapping[Kind, int]) -> Pruned:
    """Return what somebody may be asked to let go: of a kind of which not all could be seen, the problems alone.

    Without such a kind others may find more: logs go by themselves where the folders that hold them do not.
    """
    found = look(world, ages)
    unseen = {problem.kind for problem in found.problems}
    if not unseen:
        return found
    rest = propose(world, {kind: age for kind, age in ages.items() if kind not in unseen})
    return replace(rest, problems=(*found.problems, *rest.problems))


def prune(world: World, ages: Mapping[Kind, int], agreed: Pruned | None = None) -> Pruned:
    """Let go what is old enough. Repeatable, and what fails for one job is done for the others.

    `agreed` is what was proposed of the same world: only its kinds go, and its problems are told with those that
    come; None: nobody was asked. Raises Locked where another prune is at work, Interrupted, with how
    far it came, and the error of the only kind that was wanted where nothing could be done for it.
    """
    wanted = len(ages)
    if agreed is not None:
        ages = {kind: age for kind, age in ages.items() if kind in agreed.cutoffs}
    work = _Work(world, ages, changes=True)
    with world.alone("host prune"):
        try:
            work.run(lambda act: act.do())
        except KeyboardInterrupt as interruption:
            raise Interrupted(
                f"interrupted; done until then: {work.words()}", hint="run it again: it goes on with the rest"
            ) from interruption
    done = work.result()
    if agreed is not None:
        done = replace(done, problems=(*agreed.problems, *done.problems))
    if wanted == 1 and done.is_empty and len(done.problems) == 1:
        raise done.problems[0].error
    return done


class _Work:
    """One look at all that is wanted. `changes`: what is told of goes at once."""

    def __init__(self, world: World, ages: Mapping[Kind, int], *, changes: bool) -> None:
        self._world, self._changes, self._notes = world, changes, Notes()
        self._cutoffs: dict[Kind, datetime] = {kind: world.now - timedelta(seconds=age) for kind, age in ages.items()}
        self._counts: Counter[tuple[Kind, str]] = Counter()
        self._sizes: Counter[tuple[Kind, str]] = Counter()
        self._runs = [Runs(world, job, self._cutoffs, self._notes) for job in world.catalog.jobs.values()]
        self._said = world.monotonic()

    def run(self, take: Callable[[Act], int]) -> None:
        """Go through all that is wanted; `take` returns how much of what it is given goes."""
        for kind in _ORDER:
            if kind not in self._cutoffs:
                continue
            try:
                with self._lock(kind):
                    for job, acts in self._acts(kind):
                        self._each(kind, job, acts, take)
            except OrchctlError as error:
                self._notes.failed(kind, None, error)

    def _lock(self, kind: Kind) -> AbstractContextManager[None]:
        """Return what keeps a backup, a restore and a handover away from the state while some of it goes."""
        return self._world.exclusive("host prune") if self._changes and kind == "state" else nullcontext()

    def _acts(self, kind: Kind) -> Iterator[tuple[str | None, Callable[[], Iterator[Act]]]]:
        if kind == "state":
            yield from prune_state.parts(self._world, self._cutoffs[kind], self._notes)
        elif kind == "history":
            yield None, self._history
        else:
            yield from ((runs.job.name, lambda runs=runs: self._of_runs(runs, kind)) for runs in self._runs)

    def _history(self) -> Iterator[Act]:
        history = History(self._world, self._cutoffs["history"], self._notes)
        yield from history.batches() if self._changes else history.would()

    def _of_runs(self, runs: Runs, kind: Kind) -> Iterator[Act]:
        if kind == "manifests":
            if self._changes:
                yield from runs.sweep()
            yield from runs.manifests()
            return
        yield from runs.logs(kind)
        if self._changes:
            runs.settle(kind)

    def _each(self, kind: Kind, job: str | None, acts: Callable[[], Iterator[Act]], take: Callable[[Act], int]) -> None:
        try:
            for act in acts():
                taken = take(act)
                self._counts[act.kind, act.job] += taken
                self._sizes[act.kind, act.job] += (act.size_bytes or 0) if taken else 0
                self._tell()
        except OrchctlError as error:
            self._notes.failed(kind, job, error)

    def _tell(self) -> None:
        """Say how far it is, now and then."""
        now = self._world.monotonic()
        if self._changes and now - self._said >= _SAY_EACH_S:
            self._said = now
            self._world.say(f"so far: {self.words()}")

    def words(self) -> str:
        """Return what went, by kind."""
        totals = {kind: sum(count for (of, _), count in self._counts.items() if of == kind) for kind in KINDS}
        return ", ".join(told(kind, count, done=True) for kind, count in totals.items() if count) or "nothing"

    def result(self) -> Pruned:
        """Return what went, or would."""
        order = {kind: number for number, kind in enumerate(KINDS)}
        rows = [
            Row(kind, job, count, None if kind == "history" else self._sizes[kind, job])
            for (kind, job), count in self._counts.items()
            if count
        ]
        kept = [Kept(kind, job, count, why) for (kind, job, why), count in self._notes.kept.items()]
        return Pruned(
            dict(sorted(self._cutoffs.items(), key=lambda item: order[item[0]])),
            tuple(sorted(rows, key=lambda row: (order[row.kind], row.job))),
            tuple(sorted(kept, key=lambda each: (order[each.kind], each.job, each.reason))),
            tuple(self._notes.problems.values()),
        )
