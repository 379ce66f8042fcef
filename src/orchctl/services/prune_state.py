"""What the state directory gathers: claims on slots, and journals of handovers that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

from orchctl.core import durations, retention
from orchctl.core.handover_journal import Handover
from orchctl.errors import StateBroken
from orchctl.services import backup
from orchctl.services.prune_ports import Act, Notes, World


def parts(world: World, cutoff: datetime, notes: Notes) -> Iterator[tuple[str | None, Callable[[], Iterator[Act]]]]:
    """Yield what tells of the journals (None), then, by job, what tells of its claims: one may fail without the others.

    Nothing of a job in a handover goes. Raises GateRefused while a restore is unfinished.
    """
    backup.no_half_restore(world.unfinished_restore())
    unfinished = frozenset(world.handovers.unfinished())
    yield None, partial(_journals, world, cutoff, unfinished, notes)
    for job in world.claims.jobs():
        if job in unfinished:
            notes.kept["state", job, "a handover is unfinished"] += 1
        else:
            yield job, partial(_claims, world, cutoff, job)


def _claims(world: World, cutoff: datetime, job: str) -> Iterator[Act]:
    """Yield the claims of a job that may go, at once.

    Its newest claim stays, and all that a slot may need which may still run. That a claim which is gone lets no slot
    run twice is `Claims`' own doing, whatever its age.
    """
    known = world.catalog.jobs.get(job)
    window = known.catchup_window if known is not None else durations.MAX_SECONDS
    old = world.claims.old(job, retention.claims_cutoff(cutoff, world.now, window))
    if old.slots:
        yield Act("state", job, len(old.slots), old.size_bytes, partial(_forget, world, job, old.slots))


def _forget(world: World, job: str, slots: Sequence[datetime]) -> int:
    world.claims.forget(job, slots)
    return len(slots)


def _journals(world: World, cutoff: datetime, unfinished: frozenset[str], notes: Notes) -> Iterator[Act]:
    """Yield the journals that nothing names: no mark of a job, no owner file, and no journal that does not go either.

    A rollback puts back what the cutover's journal says that the owner file names.
    """
    for handover in world.handovers.ended(cutoff):
        opened = handover.opened
        if opened.job in unfinished or (handover.ended_at or opened.at) >= cutoff:
            continue
        if _needed(world, handover):
            notes.kept["state", opened.job, "the job's ownership rests on its journal"] += 1
            continue
        yield Act("state", opened.job, 1, world.handovers.size(opened.id), partial(_remove, world, opened.id))


def _needed(world: World, handover: Handover) -> bool:
    """Whether a rollback of the job may read the journal; also where that cannot be known."""
    job, id = handover.opened.job, handover.opened.id  # noqa: A001 - the word of the domain
    try:
        owner, last = world.owners.read(job), world.handovers.last_of(job)
    except StateBroken:
        return True
    return id in {owner.handover if owner else None, last.opened.id if last else None, last.opened.of if last else None}


def _remove(world: World, id: str) -> int:  # noqa: A002 - the word of the domain
    world.handovers.remove(id)
    return 1
