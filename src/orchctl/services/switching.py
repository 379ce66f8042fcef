"""Several jobs handed over one after another, each on its own: what was refused, done, and what stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from orchctl.core import handover as protocol
from orchctl.core.gates import NEVER_WAIVED
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Handover
from orchctl.core.names import nearest
from orchctl.core.slots import Owner
from orchctl.errors import ExitCode, GateRefused, HandoverUnfinished, Interrupted, OrchctlError, StateBroken, UsageError
from orchctl.services import gates, handover
from orchctl.services.gates import Table, World
from orchctl.services.handover import Switched
from orchctl.services.handover_ports import Handovers, Owners
from orchctl.services.handover_steps import Hands

Say = Callable[[str], None]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job. `table` are its gates, None for a rollback; `switched` None: nothing was switched.

    `error` is why not, or why it stopped; None where all is well.
    """

    job: str
    table: Table | None = None
    switched: Switched | None = None
    error: OrchctlError | None = None


@dataclass(frozen=True)
class Wish:
    """What the operator asked of a cutover. `within`: it is rolled back unless confirmed in this time; None: it stays.

    `wait`: for a legacy run that is going. `waive` are reasons by gate. `command` is for the journal. `ask` raises
    GateRefused where the answer is no; `show` is told of each table, `say` of what goes on.
    """

    wait: bool
    waive: Mapping[str, str]
    within: timedelta | None
    command: str
    ask: Callable[[Table], None]
    show: Callable[[Table], None]
    say: Say
    now: Callable[[], datetime]
    sleep: Callable[[float], None]


def look(world: World, name: str, wish: Wish) -> Done:
    """Look at the gates of a job, and change nothing."""
    table = _table(world, name, wish)
    wish.show(table)
    return Done(name, table, error=None if table.passes else _refused(table))


def cutover(world: World, hands: Hands, name: str, wish: Wish) -> Done:
    """Cut a job over if its gates hold and the operator says yes."""
    table = _table(world, name, wish)
    if wish.wait and table.waits_only:
        gates.wait_until_idle(world, name, sleep=wish.sleep, say=wish.say)
        table = _table(world, name, wish)
    wish.show(table)
    if not table.passes:
        return Done(name, table, error=_refused(table))
    try:
        wish.ask(table)
        switched = handover.cutover(
            hands,
            name,
            digest=table.digest,
            waived=table.waived,
            confirm_by=wish.now() + wish.within if wish.within is not None else None,
            command=wish.command,
            say=wish.say,
        )
    except OrchctlError as error:
        return Done(name, table, error=error)
    return Done(name, table, switched)


def _table(world: World, name: str, wish: Wish) -> Table:
    return gates.table(world, name, now=wish.now(), confirm=wish.within is not None, waive=wish.waive)


def _refused(table: Table) -> OrchctlError:
    """Return what keeps the job from being cut over: a state that cannot be believed comes before any gate."""
    broken = [gate.error for gate in table.refusals if isinstance(gate.error, StateBroken)]
    if broken:
        return broken[0]
    names = [gate.id for gate in table.refusals]
    said = f"{names[0]} does" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} do"
    # What could not be looked at may be waived too, but is first made to answer.
    waivable = [gate.id for gate in table.refusals if gate.state == "refused" and gate.id not in NEVER_WAIVED]
    hint = "the table says what would make it hold"
    if waivable:
        hint += f'; --waive {waivable[0]}="why" waives one'
    return GateRefused(f"{table.job} cannot be cut over: {said} not hold", hint=hint)


def rollback(
    hands: Hands, names: Sequence[str], *, now: bool, command: str, say: Say, ended: Callable[[Done], Done]
) -> tuple[Done, ...]:
    """Roll jobs back: legacy owns them all before Prefect, which may not answer, is asked for the first.

    `ended` is told of each. What stops one is in what is returned.
    """
    alone = len(names) == 1
    owned = set(hands.owners.names())

    def release(name: str) -> Done:
        try:
            done = handover.rollback(hands, name, now=now, command=command, say=say, prefect_later=not alone)
        except OrchctlError as error:
            return Done(name, error=error)
        return Done(name, switched=done)

    def tell(done: Done) -> None:
        if alone or not _owes(done):
            ended(done)

    # Those that only owe Prefect's part come last: they wait for it.
    found = each(sorted(names, key=lambda name: name not in owned), release, tell)
    if alone:
        return found
    told: list[Done] = []
    for done in found:
        interrupted = any(_is_interrupted(one) for one in (*told, *found))
        told.append(ended(done if interrupted else _paid(hands, done, say)) if _owes(done) else done)
    return tuple(told)


def _is_interrupted(done: Done) -> bool:
    return done.error is not None and done.error.exit_code == ExitCode.INTERRUPTED


def _owes(done: Done) -> bool:
    return done.switched is not None and bool(done.switched.owed)


def _paid(hands: Hands, done: Done, say: Say) -> Done:
    try:
        paid = handover.resume(hands, done.job, say=say)
    except OrchctlError as error:
        return replace(done, error=error)
    except KeyboardInterrupt:
        hint = "run `orchctl recover`: it goes on from there"
        return replace(done, error=Interrupted(f"{done.job} is legacy's; interrupted before Prefect's part", hint=hint))
    notes = done.switched.notes if done.switched is not None else ()
    return done if paid is None else Done(done.job, switched=replace(paid, notes=(*notes, *paid.notes)))


def each(names: Sequence[str], do: Callable[[str], Done], tell: Callable[[Done], object]) -> tuple[Done, ...]:
    """Do the jobs one after another, and `tell` of each. One that is refused keeps no other back; one that stops
    halfway does.
    """
    found: list[Done] = []
    for name in names:
        try:
            found.append(do(name))
        except KeyboardInterrupt:
            found.append(Done(name, error=Interrupted(f"interrupted before anything of {name} was changed")))
        tell(found[-1])
        stopped = found[-1].error
        if isinstance(stopped, HandoverUnfinished | Interrupted):
            for other in names[len(found) :]:
                found.append(Done(other, error=OrchctlError(f"{other} was not begun: {name} stopped")))
                tell(found[-1])
            break
    return tuple(found)


def exit_code(found: Sequence[Done]) -> ExitCode:
    """Return what the command exits with: that of the errors where all failed alike, 4 where some did."""
    codes = [done.error.exit_code for done in found if done.error is not None]
    if not codes:
        return ExitCode.DONE
    return codes[0] if len(codes) == len(found) and len(set(codes)) == 1 else ExitCode.PARTIAL


# --- rollback, before it is done


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback would do to a job. `owner` is None where its owner file cannot be believed, or is gone."""

    job: str
    owner: Owner | None
    steps: tuple[Step, ...]


def live(hands: Hands) -> tuple[str, ...]:
    """Return the jobs that a rollback of all means: Prefect's, and those whose rollback is unfinished."""
    unfinished = [name for name in hands.handovers.unfinished() if _kind(hands, name) == "rollback"]
    return tuple(sorted({*hands.owners.names(), *unfinished}))


def check(owners: Owners, handovers: Handovers, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError for a job that neither the catalog (`known`) nor this host's state knows."""
    all_known = {*known, *owners.names(), *handovers.unfinished()}
    for name in names:
        if name not in all_known:
            near = nearest(name, all_known)
            hint = f'did you mean "{near}"?' if near else "see `orchctl status`"
            raise UsageError(f"there is no job {name.encode('unicode_escape').decode()[:80]!r}", hint=hint)


def rollback_of(hands: Hands, name: str) -> Rollback:
    """Return what a rollback of a job would do. Changes nothing."""
    owned = name in hands.owners.names()
    owner = _or_none(lambda: hands.owners.read(name))
    made = owner.handover if owner is not None else None
    cutover = _or_none(lambda: hands.handovers.read(made)) if made is not None else None
    unfinished = _or_none(lambda: hands.handovers.open_of(name))
    if unfinished is not None:
        steps = protocol.order("rollback" if owned else unfinished.opened.kind, owned=owned, resumed=True)
    else:
        steps = protocol.ROLLBACK if owned else ()
    return Rollback(name, owner, tuple(step for step in steps if _may_be(step, unfinished or cutover, owner)))


def _may_be(step: Step, cutover: Handover | None, owner: Owner | None) -> bool:
    if cutover is None:
        return True
    snapshot = cutover.opened.snapshot
    if step is Step.CRON_ON:
        return bool(snapshot.cron)
    if step in {Step.TIMERS_ON, Step.UNFENCE}:
        return bool(snapshot.timers)
    if step is Step.DISARM:
        return cutover.opened.confirm_by is not None or (owner is not None and owner.confirm_by is not None)
    return True


def _kind(hands: Hands, name: str) -> str | None:
    found = _or_none(lambda: hands.handovers.open_of(name))
    return found.opened.kind if found is not None else None


def _or_none(look: Callable[[], _T | None]) -> _T | None:
    try:
        return look()
    except StateBroken:
        return None
