"""Drift of ownership: what the state directory says of a job, and what `recover` puts right on its host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from orchctl.core import ownership as core
from orchctl.core.handover_journal import Handover, Opened
from orchctl.core.ownership import Known
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import NotAllowed, OrchctlError, PrefectApiError, StateBroken
from orchctl.services import handover
from orchctl.services.handover_steps import Hands

COMMAND = "recover"
"""What the journals say that a repair begins."""
Say = Callable[[str], None]
_T = TypeVar("_T")


class OwnerFiles(Protocol):
    """Owner files, to look at."""

    def read(self, job: str) -> Owner | None: ...  # noqa: D102
    def names(self) -> tuple[str, ...]: ...  # noqa: D102


class Journals(Protocol):
    """Journals of handovers, to look at."""

    def unfinished(self) -> tuple[str, ...]: ...  # noqa: D102
    def open_of(self, job: str) -> Handover | None: ...  # noqa: D102
    def last_of(self, job: str) -> Handover | None: ...  # noqa: D102
    def read(self, id: str) -> Handover | None: ...  # noqa: A002, D102


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done about a finding of this code. `done` False: nothing was, and `what` says why."""

    job: str
    code: str
    what: str
    done: bool = True


def known(owners: OwnerFiles, handovers: Journals, job: str) -> Known:
    """Return what the files say of a job: no more of them than its owner file and its marks name. Writes nothing."""
    owner = _or_why(lambda: owners.read(job))
    opened = _or_why(lambda: handovers.open_of(job))
    made: Handover | str | None = None
    if isinstance(owner, Owner) and owner.handover is not None:
        named = owner.handover
        made = _or_why(lambda: handovers.read(named))
    last = _or_why(lambda: handovers.last_of(job)) if owner is None and opened is None else None
    return Known(owner, made, opened, last)


def _or_why(look: Callable[[], _T]) -> _T | str:
    try:
        return look()
    except StateBroken as error:
        return error.message


def repair(hands: Hands, job: str, *, say: Say) -> tuple[Repaired, ...]:
    """Put right what has drifted about who owns a job that has no unfinished handover. Under the host's lock.

    Repeatable: where all is right it changes nothing. An owner file that cannot be believed raises StateBroken: nobody
    knows whose the job is, and nothing is done. Raises HandoverUnfinished, NotAllowed, OrchctlError where it stops; to
    run it again goes on.
    """
    found = known(hands.owners, hands.handovers, job)
    if isinstance(found.owner, str):
        raise StateBroken(found.owner, hint=f"`orchctl rollback {job}` removes it, and legacy owns the job")
    if found.open is not None:
        return ()
    if found.owner is None:
        return tuple(_paused_again(hands, job, found, say))
    if found.owner.draining:
        say("finishing a rollback that nothing is written of")
        handover.rollback(hands, job, now=False, command=COMMAND, say=say)
        return (Repaired(job, "draining", "the rollback was finished"),)
    if core.is_adrift(found) or core.is_broken_off(found):
        return (_finished(hands, job, found.owner, found.made, say),)
    assert isinstance(found.made, Handover)
    return tuple(_kept(hands, job, found.owner, found.made.opened.snapshot, say))


def debts(handovers: Journals) -> tuple[tuple[str, str], ...]:
    """Return the jobs of which a part of Prefect's is owed, and what, for `sync` to say and to pay; by job.

    One look into one folder, and the journals that it names. Journals that cannot be believed are not debts.
    """
    found = ((job, _or_why(partial(handovers.open_of, job))) for job in handovers.unfinished())
    return tuple((job, core.debt(each)) for job, each in found if isinstance(each, Handover) and each.is_debt)


def _paused_again(hands: Hands, job: str, found: Known, say: Say) -> Iterator[Repaired]:
    """Pause what a rollback paused and somebody let go again: its runs only observe, and a job that is legacy's shall
    be as the rollback left it.
    """
    if not core.was_rolled_back(found):
        return
    code = "unpaused-by-hand"
    try:
        if hands.prefect.is_paused(job) is not False:
            return
        say("pausing the deployment again")
        hands.prefect.clear(job)
    except (PrefectApiError, NotAllowed) as error:
        yield Repaired(job, code, f"whether its deployment is still paused is not known: {error.message}", done=False)
    else:
        yield Repaired(job, code, "its deployment was paused again")


def _finished(hands: Hands, job: str, owner: Owner, made: Handover | str | None, say: Say) -> Repaired:
    """Finish the cutover of an owner file, from a journal written now where there is none to go on from."""
    if isinstance(made, Handover):
        hands.handovers.begin(made.opened)  # its journal is there: only the mark is new
        done = Repaired(job, "unfinished-handover", "its cutover was finished")
    else:
        opened = Opened(
            hands.new_id(),
            "cutover",
            job,
            hands.now(),
            COMMAND,
            handover.assumed(hands, job),
            confirm_by=owner.confirm_by,
        )
        hands.handovers.begin(opened)
        hands.owners.replace(job, replace(owner, handover=opened.id))
        what = "a journal was written: a rollback enables and starts the timers that the catalog names"
        done = Repaired(job, "no-journal", what)
    handover.resume(hands, job, say=say)
    return done


def _kept(hands: Hands, job: str, owner: Owner, snapshot: Snapshot, say: Say) -> Iterator[Repaired]:
    """See that legacy cannot run a job of Prefect's. The fence first: it holds whatever the timers do."""
    timers, cron = hands.timers, hands.cron
    if not timers.is_fenced(job, snapshot):
        say("putting the fence back")
        timers.fence(job, snapshot)
        _must(timers.is_fenced(job, snapshot), "the fence")
        yield Repaired(job, "fence-gone", "the fence was put back")
    if not timers.are_off(snapshot):
        say("turning the legacy timers off again")
        timers.turn_off(snapshot)
        _must(timers.are_off(snapshot), "that the timers are off")
        yield Repaired(job, "trigger-came-back", "the legacy timers were turned off again")
    if not cron.are_off(job, snapshot):
        say("turning the crontab lines off again")
        cron.turn_off(job, snapshot)
        _must(cron.are_off(job, snapshot), "that the crontab lines are off")
        yield Repaired(job, "trigger-came-back", "the crontab lines were turned off again")
    until = owner.confirm_by
    if until is not None and until > hands.now() and not hands.confirm.is_armed(job):
        say("arming the rollback that comes by itself again")
        hands.confirm.arm(job, until)
        yield Repaired(job, "confirm-unarmed", "the rollback that comes by itself was armed again")
    yield from _others(hands, job, snapshot)


def _others(hands: Hands, job: str, snapshot: Snapshot) -> Iterator[Repaired]:
    """Say which timers of the catalog are on that the cutover did not find: a rollback could not put them back."""
    catalog = hands.catalog(job, None)
    if catalog is None:
        return
    seen = {(each.manager.scope, each.timer) for each in snapshot.timers}
    for each in hands.timers.snapshot(catalog.jobs[job]).timers:
        if (each.manager.scope, each.timer) not in seen and (each.active or each.starts_at_boot):
            what = f"{each.timer} ({each.manager}) was not there at the cutover: turn it off by hand"
            yield Repaired(job, "trigger-came-back", what, done=False)


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise OrchctlError(f"{what} does not show", hint="run `orchctl recover` again")
