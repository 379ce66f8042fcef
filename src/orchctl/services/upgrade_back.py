"""The way back of an upgrade: all runs as before, or each command is named that does it by hand. Repeatable.

The database of before is put back only where the tables are other ones now, and never by who comes after a kill and
finds that the new server has run since: what was written then is nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

from orchctl.core import host_units, upgrade
from orchctl.core.installation import SERVER_UNIT
from orchctl.core.upgrade import Journal
from orchctl.errors import GateRefused, Interrupted, Locked, OrchctlError
from orchctl.services import host_install, restore, stack
from orchctl.services.upgrade_ports import World

LOCK_PATIENCE_S = 60.0
BACKUP_PATIENCE_S = 600.0
"""A backup or a trial of one ends by itself, and what waits for our lock of the host gives up before this."""
REST_PATIENCE_S = 60.0
LOOK_PATIENCE_S = 60.0
_POLL_S = 0.5
_SHOWN = 5
_COMMAND = "host upgrade"
_T = TypeVar("_T")


@contextmanager
def putting_back(world: World, journal: Journal) -> Iterator[None]:
    """Put all back where something goes wrong, or somebody wants to stop."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, what was stopped must run again
        world.hands.ignore_signals()
        interrupted = isinstance(error, KeyboardInterrupt)
        problem = told(error)
        last = replace(_last(world, journal), step="restoring", problem=problem, interrupted=interrupted)
        world.say("interrupted: all is put back" if interrupted else f"{problem}\nall is put back")
        _noted(world, last)
        if switched(world, last):
            put_back(world, last)
        started(world, last)


def put_back(world: World, journal: Journal) -> NoReturn:
    """Put the database back where its tables are other ones, then the environment, and go on from that. Repeatable."""
    with _told_by_hand(world, journal, _failed_too(journal)):
        if not world.hands.runs_from(journal.aside):
            world.hands.go_on(journal.aside)
        with no_backup(world):
            at_rest(world)
            archive = journal.archive if journal.restores else None
            if archive is not None:
                _note_counts(world, journal)
                _restored(world, journal, archive)
            world.environments.exchange(journal.environment, journal.aside)
            world.say(f"{journal.environment} is the old one again")
            world.hands.go_on(journal.environment)


def _restored(world: World, journal: Journal, archive: str) -> None:
    """Put the database back; where somebody has it open, and with that kept its tables as they were, leave it."""
    try:
        _restore(world, archive)
    except GateRefused as error:
        if not _untouched(world, journal):
            raise
        world.say(f"{error.message}\nits tables are those of before, and it stays as it is")


def _untouched(world: World, journal: Journal) -> bool:
    """Whether no restore has begun, and no change of the tables came to its end: PostgreSQL's are transactions."""
    database = world.backup.database()
    if database.kind != "postgresql" or world.backup.shelf.unfinished_restore() is not None:
        return False
    with contextlib.suppress(OrchctlError), database.snapshot() as held:
        return journal.revision is not None and held.database.revision == journal.revision
    return False


def _note_counts(world: World, journal: Journal) -> None:
    """Note what the database holds: who comes after a kill sees by it whether the new server has run since."""
    then, now = journal.counts or {}, dict[str, int]()
    with contextlib.suppress(OrchctlError):
        now.update(counts(world))
    _noted(world, replace(journal, counts={name: max(count, now.get(name, 0)) for name, count in then.items()}))


def _restore(world: World, archive: str) -> None:
    world.say(f"the database is put back from {archive}")
    quiet = unlocked(world)
    settled = restore.restore(quiet.backup, quiet.desk, quiet.target, Path(archive), ["database"]).settled
    for each in settled[:_SHOWN]:
        world.say(f"run {each.run.name} was ended: {each.why}")
    if len(settled) > _SHOWN:
        world.say(f"and {len(settled) - _SHOWN} more runs")


def started(world: World, journal: Journal) -> NoReturn:
    """Start what is in place, which is as it was, and raise what says so."""
    with _told_by_hand(world, journal, _failed_too(journal)), _going_on_to_try(world):
        host_install.up(world.host, world.its, world.clock, world.say)
        status = look(world)
        if not status.ok:
            raise OrchctlError(f"not all works: {wrong_with(status)}")
    cleared(world, lambda: world.environments.remove(journal.aside))
    cleared(world, world.journal.remove)
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
def only_forward(world: World, journal: Journal) -> Iterator[None]:
    """Put nothing back where something goes wrong: say what does that by hand, and what it costs."""
    first = (
        f"the upgrade to Prefect {journal.after} stood halfway, and its server has run since, or may have; it does not "
        "work, and nothing is put back by itself: what was written since is only in the database as it is"
    )
    with _told_by_hand(world, journal, first), _going_on_to_try(world):
        yield


@contextmanager
def _going_on_to_try(world: World) -> Iterator[None]:
    """Let systemd go on trying to start all where we have given up."""
    try:
        yield
    except Exception:
        for name in host_units.enabled(world.its):
            with contextlib.suppress(OrchctlError):
                world.host.units.start(name)
        raise


@contextmanager
def _told_by_hand(world: World, journal: Journal, first: str) -> Iterator[None]:
    """Say what stands where, and which commands help, where what is tried here fails."""
    try:
        yield
    except Exception as error:
        there = switched(world, journal)
        lines = upgrade.by_hand(journal, switched=there, options=world.options)
        old = journal.aside if there else journal.environment
        loses = ", and loses what was written since the archive" if there and journal.restores else ""
        said = [
            f"{first}: {told(error)}",
            f"the environment with Prefect {journal.before} is {old}; what puts all back by hand{loses}:",
            *(f"  {line}" for line in lines),
        ]
        raise OrchctlError(
            "\n".join(said), hint="`orchctl host upgrade` tries it once more; after these, it forgets"
        ) from error


def _failed_too(journal: Journal) -> str:
    return f"the upgrade failed ({journal.problem or 'it was killed'}), and putting back as well"


def told(error: BaseException) -> str:
    """Return what went wrong, with what helps, in words."""
    if not isinstance(error, OrchctlError):
        return f"unexpected {type(error).__name__}: {error}"
    return f"{error.message}\n{error.hint}" if error.hint else error.message


def _last(world: World, journal: Journal) -> Journal:
    """Return the journal as it was written last; `journal` where it cannot be read."""
    with contextlib.suppress(OrchctlError):
        return world.journal.read() or journal
    return journal


def _noted(world: World, journal: Journal) -> None:
    """Write the journal; a full disk must not keep anybody from starting again what was stopped."""
    cleared(world, lambda: world.journal.write(journal))


def cleared(world: World, act: Callable[[], None]) -> bool:
    """Do what all works without, and say where it cannot be done. Returns whether it was."""
    try:
        act()
    except OrchctlError as error:
        world.say(told(error))
        return False
    return True


def at_rest(world: World) -> None:
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


def switched(world: World, journal: Journal) -> bool:
    """Whether the new environment is in place."""
    return world.environments.marked(journal.environment, journal.id)


def serves(world: World) -> bool:
    """Whether the server of this host runs, or is about to."""
    return world.its.server and world.host.units.state(SERVER_UNIT).runs


def has_run(world: World, journal: Journal) -> bool:
    """Whether the server has run since the database was archived: it does now, or there is more in it than there was.

    What cannot be read holds nothing that an archive could take the place of.
    """
    if serves(world):
        return True
    if journal.counts is None:
        return False
    with contextlib.suppress(OrchctlError):
        return bool(upgrade.fewer(counts(world), journal.counts))
    return False


def counts(world: World) -> Mapping[str, int]:
    """Return what the database holds. Raises OrchctlError."""
    with world.backup.database().snapshot() as held:
        return held.database.counts


def unlocked(world: World) -> World:
    """Return the world for what takes the lock of the host, and that of backups, by itself: we hold them."""
    free = replace(world.backup, alone=_free, exclusive=_free)
    return replace(world, backup=free)


def _free(_command: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def locked(world: World) -> AbstractContextManager[None]:
    """Hold the lock of the host; the process before this one had it until now, and others want it for a moment."""
    return _held(world, world.exclusive, LOCK_PATIENCE_S)


def no_backup(world: World) -> AbstractContextManager[None]:
    """Keep backups, and trials of them, from being made; one that is at work is waited for."""
    return _held(world, world.backup.alone, BACKUP_PATIENCE_S)


def beside_no_backup(world: World, act: Callable[[], _T]) -> _T:
    """Do what keeps backups and trials of them away by itself, when none is at work any more."""
    return _patiently(world, act, BACKUP_PATIENCE_S)


@contextmanager
def _held(world: World, lock: Callable[[str], AbstractContextManager[None]], patience_s: float) -> Iterator[None]:
    with ExitStack() as held:
        _patiently(world, lambda: held.enter_context(lock(_COMMAND)), patience_s)
        yield


def _patiently(world: World, act: Callable[[], _T], patience_s: float) -> _T:
    """Return what `act` does, as soon as it is no longer Locked; raise that where it is for too long."""
    deadline, said = world.clock.monotonic() + patience_s, False
    while True:
        try:
            return act()
        except Locked as error:
            if world.clock.monotonic() >= deadline:
                raise
            if not said:
                world.say(f"waiting: {error.message}")
                said = True
            world.clock.sleep(_POLL_S)
