"""The part of an upgrade during which server and workers stand still; it goes on after a kill. Back: `upgrade_back`.

Old code finishes and puts back: when the environments change places, the process goes on as one that runs from where
the old one is then. Each of those, and each one that is started after a kill, finds by the journal and by what is in
place what is left to do (`core.upgrade.move`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from orchctl.core import host_units, upgrade
from orchctl.core.installation import RECOVER_TIMER
from orchctl.core.upgrade import Journal
from orchctl.core.words import several
from orchctl.errors import GateRefused, OrchctlError, PrefectApiError
from orchctl.services import backup, host_install, stack
from orchctl.services import upgrade_back as back
from orchctl.services.upgrade_ports import World

_STOP_S = 120.0
_POLL_S = 0.5
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Done:
    """An upgrade that was finished. `aside` is the old environment, `removed` those of earlier upgrades."""

    before: str
    after: str
    status: stack.Status
    archive: str | None
    aside: str
    removed: tuple[str, ...]


def switch(world: World, journal: Journal, *, to: Path | None, patience_s: float | None) -> NoReturn:
    """Stop all, archive the database, let the environments change places, and go on from the old one (`go_on`).

    The lock of the host is held. `patience_s`: how long runs that are at work are waited for; None ends them. What
    goes wrong is put back; then OrchctlError is raised.
    """
    journal = _written(world, replace(journal, step="stopping"))
    with back.putting_back(world, journal), ExitStack() as held:
        _let_runs_end(world, patience_s)
        held.enter_context(back.no_backup(world))
        _no_probe(world)
        back.at_rest(world)
        if world.its.server:
            made = backup.back_up(back.unlocked(world).backup, to, None).archive
            held_then = made.manifest.database
            journal = replace(journal, archive=made.path, counts=held_then.counts, revision=held_then.revision)
        journal = _written(world, replace(journal, step="switching"))
        world.environments.exchange(journal.environment, journal.aside)
        world.hands.go_on(journal.aside)
    raise AssertionError("a process that goes on elsewhere does not come back")


def go_on(world: World, journal: Journal) -> Done:
    """Finish an upgrade that stands halfway, or put it back, in the process that can; see `core.upgrade.move`.

    Raises OrchctlError where it was put back, saying why, and where that could not be done.
    """
    switched = back.switched(world, journal)
    ran = switched and back.has_run(world, journal)
    move = upgrade.move(journal, switched=switched, ran=ran)
    old = journal.environment if move == "start" else journal.aside
    if not world.hands.runs_from(old):
        world.hands.go_on(old)
    with back.locked(world):
        if move in {"put back", "start"}:
            world.hands.ignore_signals()
            back.put_back(world, journal) if move == "put back" else back.started(world, journal)
        if ran or journal.step == "starting":
            # What it holds now is not what it held then: history was made, or pruned.
            journal = replace(journal, step="starting", begun=True, counts=None)
        guarded = back.putting_back if move == "finish" else back.only_forward
        with guarded(world, journal):
            world.hands.heed_signals()
            status = _finished(world, _written(world, journal))
    return _done(world, journal, status)


def names(world: World, ids: Collection[str]) -> tuple[str, ...]:
    """Return the names of flow runs, their ids where the server does not answer."""
    known = dict[str, str]()
    if ids:
        with contextlib.suppress(OrchctlError):
            known = {run.id: run.name for run in world.host.connect(world.its).flow_runs(ids)}
    return tuple(sorted(known.get(each, each) for each in ids))


def _written(world: World, journal: Journal) -> Journal:
    world.journal.write(journal)
    return journal


def _let_runs_end(world: World, patience_s: float | None) -> None:
    """End the workers, and wait for what they run. Raises GateRefused where that goes on too long."""
    world.host.units.stop(RECOVER_TIMER, patience_s=_STOP_S)
    if patience_s is None:
        return
    for pool, unit in host_units.worker_units(world.its).items():
        world.hands.let_go(unit)
        world.say(f"the worker of pool {pool} takes no more runs")
    deadline, said = world.clock.monotonic() + patience_s, frozenset[str]()
    while runs := frozenset(world.hands.runs()):
        if world.clock.monotonic() >= deadline:
            raise GateRefused(
                f"runs are still at work: {several(names(world, runs), shown=_SHOWN)}",
                hint="wait longer with --patience, or end them with --now",
            )
        if runs != said:
            world.say(f"waiting for {several(names(world, runs), shown=_SHOWN)}")
            said = runs
        world.clock.sleep(_POLL_S)


def _no_probe(world: World) -> None:
    """Remove what a start that was killed left to be scheduled: it is ours, and the next start removes it.

    Counted among what there was before, it would be missed then.
    """
    if world.its.server:
        prefect = world.host.connect(world.its)
        with contextlib.suppress(PrefectApiError):
            prefect.delete_flow(prefect.create_flow(stack.PROBE))


def _finished(world: World, journal: Journal) -> stack.Status:
    """Change the tables where that is due, start, and look whether it works as before. Repeatable."""
    if (half := world.backup.shelf.unfinished_restore()) is not None:
        raise OrchctlError(f"a restore was interrupted: {half}")
    if journal.migrations and not back.serves(world):
        if journal.step != "starting":
            journal = _written(world, replace(journal, step="migrating", begun=True))
        world.say("changing the database's tables")
        world.hands.migrate(journal.environment, world.say)
    journal = _written(world, replace(journal, step="starting", begun=True))
    host_install.up(world.host, world.its, world.clock, world.say)
    status = back.look(world)
    _judged(world, journal, status)
    return status


def _judged(world: World, journal: Journal, status: stack.Status) -> None:
    """Raise OrchctlError where what was started is not what it should be."""
    if not status.ok:
        raise OrchctlError(f"after the upgrade not all works: {back.wrong_with(status)}")
    if not world.its.server:
        return
    if status.version != journal.after:
        raise OrchctlError(f"the server says that it is Prefect {status.version}, and {journal.after} was installed")
    if journal.counts is not None and (lost := upgrade.fewer(journal.counts, back.counts(world))):
        raise OrchctlError(f"the database holds less than before: {'; '.join(lost)}")


def _done(world: World, journal: Journal, status: stack.Status) -> Done:
    """Remove what is not needed any more; what cannot be removed is no reason to put anything back."""
    back.cleared(world, world.journal.remove)
    older = [path for path in world.environments.asides(journal.environment) if path != journal.aside]
    removed = tuple(path for path in older if back.cleared(world, partial(world.environments.remove, path)))
    return Done(journal.before, journal.after, status, journal.archive, journal.aside, removed)
