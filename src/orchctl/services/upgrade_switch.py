"""The part of an upgrade during which server and workers stand still, and the way back; it goes on after a kill.

Old code finishes and puts back: when the environments change places, the process goes on as one that runs from where
the old one is then. Each of those, and each one that is started after a kill, finds by the journal and by what is in
place what is left to do (`core.upgrade.move`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from orchctl.core import host_units, upgrade
from orchctl.core.installation import RECOVER_TIMER
from orchctl.core.upgrade import Journal
from orchctl.errors import GateRefused, Interrupted, Locked, OrchctlError
from orchctl.services import backup, host_install, restore, stack
from orchctl.services.upgrade_ports import World

LOCK_PATIENCE_S = 60.0
REST_PATIENCE_S = 60.0
LOOK_PATIENCE_S = 60.0
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
    with _putting_back(world, journal):
        _let_runs_end(world, patience_s)
        _at_rest(world)
        if world.its.server:
            made = backup.back_up(_unlocked(world).backup, to, None).archive
            journal = replace(journal, archive=made.path, counts=made.manifest.database.counts)
        journal = _written(world, replace(journal, step="switching"))
        world.environments.exchange(journal.environment, journal.aside)
        world.hands.go_on(journal.aside)
    raise AssertionError("a process that goes on elsewhere does not come back")


def go_on(world: World, journal: Journal) -> Done:
    """Finish an upgrade that stands halfway, or put it back, in the process that can; see `core.upgrade.move`.

    Raises OrchctlError where it was put back, saying why, and where that could not be done.
    """
    move = upgrade.move(journal, switched=_switched(world, journal))
    old = journal.environment if move == "start" else journal.aside
    if not world.hands.runs_from(old):
        world.hands.go_on(old)
    with locked(world):
        if move == "put back":
            _put_back(world, journal)
        if move != "finish":
            _started(world, journal)
        with _putting_back(world, journal):
            return _finished(world, journal)


def names(world: World, ids: Collection[str]) -> tuple[str, ...]:
    """Return the names of flow runs, their ids where the server does not answer."""
    known = dict[str, str]()
    if ids:
        with contextlib.suppress(OrchctlError):
            known = {run.id: run.name for run in world.host.connect(world.its).flow_runs(ids)}
    return tuple(sorted(known.get(each, each) for each in ids))


def look(world: World) -> stack.Status:
    """Return whether server and workers work. One that is late, as on a busy host, is waited for."""
    its, connect = world.its, world.host.connect
    deadline = world.clock.monotonic() + LOOK_PATIENCE_S
    while True:
        found = stack.status(world.host.stack(its), lambda _: connect(its), its.api_url, tuple(its.pools))
        if found.ok or world.clock.monotonic() >= deadline:
            return found
        world.clock.sleep(_POLL_S)


def wrong_with(status: stack.Status) -> str:
    """Return what does not work, in words."""
    return "; ".join(f"{part.name}: {part.detail}" for part in status.parts if not part.ok)


def _switched(world: World, journal: Journal) -> bool:
    return world.environments.marked(journal.environment, journal.id)


def _written(world: World, journal: Journal) -> Journal:
    world.journal.write(journal)
    return journal


def _unlocked(world: World) -> World:
    """Return the world for what takes the lock of the host by itself: we hold it."""
    return replace(world, backup=replace(world.backup, exclusive=lambda _: contextlib.nullcontext()))


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Hold the lock of the host; the process before this one had it until now, and others want it for a moment."""
    deadline = world.clock.monotonic() + LOCK_PATIENCE_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(world.exclusive("host upgrade"))
                break
            except Locked:
                if world.clock.monotonic() >= deadline:
                    raise
                world.clock.sleep(_POLL_S)
        yield


@contextmanager
def _putting_back(world: World, journal: Journal) -> Iterator[None]:
    """Put all back where something goes wrong, or somebody wants to stop."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, what was stopped must run again
        problem = _told(error)
        interrupted = isinstance(error, KeyboardInterrupt)
        # The journal holds what was written since.
        last = replace(world.journal.read() or journal, step="restoring", problem=problem, interrupted=interrupted)
        world.journal.write(last)
        world.say("interrupted: all is put back" if interrupted else f"{problem}\nall is put back")
        if _switched(world, last):
            if not world.hands.runs_from(last.aside):
                world.hands.go_on(last.aside)
            _put_back(world, last)
        _started(world, last)


def _told(error: BaseException) -> str:
    if not isinstance(error, OrchctlError):
        return f"unexpected {type(error).__name__}: {error}"
    return f"{error.message}\n{error.hint}" if error.hint else error.message


# --- forward


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
                f"runs are still at work: {_listed(names(world, runs))}",
                hint="wait longer with --patience, or end them with --now",
            )
        if runs != said:
            world.say(f"waiting for {_listed(names(world, runs))}")
            said = runs
        world.clock.sleep(_POLL_S)


def _listed(found: Collection[str]) -> str:
    shown = ", ".join(list(found)[:_SHOWN])
    return f"{shown} and {len(found) - _SHOWN} more" if len(found) > _SHOWN else shown


def _at_rest(world: World) -> None:
    """Stop server and workers, and wait until nothing of them runs. Raises OrchctlError. Repeatable."""
    deadline = world.clock.monotonic() + REST_PATIENCE_S
    while True:
        # Again and again: one that was on its way to start anew is not stopped by having been told once.
        stack.down(world.host.stack(world.its), world.clock, world.say)
        running = world.in_use()
        if not running:
            return
        if world.clock.monotonic() >= deadline:
            raise OrchctlError(f"not all could be stopped: {'; '.join(running)}")
        world.clock.sleep(_POLL_S)


def _finished(world: World, journal: Journal) -> Done:
    """Change the tables where that is due, start, and look whether it works as before. Repeatable."""
    if journal.migrations and world.host.stack(world.its).pid(stack.SERVER) is None:
        world.say("changing the database's tables")
        world.hands.migrate(journal.environment)
    host_install.up(world.host, world.its, world.clock, world.say)
    status = look(world)
    _judged(world, journal, status)
    removed = [path for path in world.environments.asides(journal.environment) if path != journal.aside]
    for path in removed:
        world.environments.remove(path)
    world.journal.remove()
    return Done(journal.before, journal.after, status, journal.archive, journal.aside, tuple(removed))


def _judged(world: World, journal: Journal, status: stack.Status) -> None:
    """Raise OrchctlError where what was started is not what it should be."""
    if not status.ok:
        raise OrchctlError(f"after the upgrade not all works: {wrong_with(status)}")
    if not world.its.server:
        return
    if status.version != journal.after:
        raise OrchctlError(f"the server says that it is Prefect {status.version}, and {journal.after} was installed")
    with world.backup.database().snapshot() as held:
        lost = upgrade.fewer(journal.counts or {}, held.database.counts)
    if lost:
        raise OrchctlError(f"the database holds less than before: {'; '.join(lost)}")


# --- back


def _put_back(world: World, journal: Journal) -> NoReturn:
    """Put the database back, then the environment, and go on from that. Repeatable after a kill."""
    with _told_by_hand(world, journal):
        _at_rest(world)
        if journal.migrations and journal.archive is not None:
            world.say(f"the database is put back from {journal.archive}")
            quiet = _unlocked(world)
            restore.restore(quiet.backup, quiet.desk, quiet.target, Path(journal.archive), ["database"])
        world.environments.exchange(journal.environment, journal.aside)
        world.say(f"{journal.environment} is the old one again")
        world.hands.go_on(journal.environment)


def _started(world: World, journal: Journal) -> NoReturn:
    """Start what is in place, which is as it was, and raise what says so."""
    with _told_by_hand(world, journal):
        host_install.up(world.host, world.its, world.clock, world.say)
        status = look(world)
        if not status.ok:
            raise OrchctlError(f"not all works: {wrong_with(status)}")
    world.environments.remove(journal.aside)
    world.journal.remove()
    if journal.interrupted:
        raise Interrupted("interrupted; all is put back as it was, and runs")
    if journal.problem is None:
        raise OrchctlError(
            f"an upgrade to Prefect {journal.after} was interrupted; all is as it was before, and runs",
            hint="`orchctl host upgrade` begins anew",
        )
    raise OrchctlError(
        f"the upgrade to Prefect {journal.after} failed; all is put back as it was, and runs: {journal.problem}",
        hint=None if journal.archive is None else f"the database of that moment is in {journal.archive}",
    )


@contextmanager
def _told_by_hand(world: World, journal: Journal) -> Iterator[None]:
    """Say what stands where, and which commands help, where putting back fails as well."""
    try:
        yield
    except OrchctlError as error:
        switched = _switched(world, journal)
        lines = upgrade.by_hand(journal, switched=switched, options=world.options)
        old = journal.aside if switched else journal.environment
        said = [
            f"the upgrade failed ({journal.problem or 'it was killed'}), and putting back as well: {error.message}",
            f"the environment with Prefect {journal.before} is {old}; what puts all back by hand:",
            *(f"  {line}" for line in lines),
        ]
        raise OrchctlError(
            "\n".join(said), hint="`orchctl host upgrade` tries it once more; after these, it forgets"
        ) from error
