"""`orchctl host upgrade`: all that can fail without harm first, while server and workers run; then the switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from orchctl.core import backup as archives
from orchctl.core import upgrade as rules
from orchctl.core.doctor_facts import Requirement
from orchctl.core.upgrade import Change, Journal, Wanted
from orchctl.errors import GateRefused, Interrupted, NotAllowed, OrchctlError, StateBroken, UsageError
from orchctl.services import backup, upgrade_back, upgrade_switch
from orchctl.services.upgrade_ports import Asked, World
from orchctl.services.upgrade_switch import Done

_ROOM = 1.3
_COPIES: tuple[Mapping[Literal["archives", "state", "database"], int], ...] = (
    {"archives": 1, "state": 2},
    {"archives": 3},
    {"archives": 2, "state": 1, "database": 1},
)
"""How many copies of the database there are at most, and where: tried, archived once more, put back (or changed)."""
_PREFECT = "prefect"
_AS_BEFORE = "nothing was changed, and all runs as before"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done. `before` and `after` are versions of Prefect; `migrations` how many changes of the
    database's tables are due, None where that is seen only when it is there; `at_work` are runs, by name.
    """

    environment: str
    before: str
    after: str
    changes: tuple[Change, ...]
    migrations: int | None
    at_work: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to upgrade."""
        return not self.changes


def upgrade(world: World, asked: Asked, ask: Callable[[Plan], None]) -> Done | Plan:
    """Go on with an upgrade that stands halfway, else do the one that is asked for; the plan where that is empty.

    `ask` is shown what would be done, and raises where it is not to be. Raises OrchctlError where it cannot be done, or
    was put back; Interrupted on Ctrl-C.
    """
    with world.alone("host upgrade"):
        done = resume(world)
        if done is not None:
            return done
        planned = propose(world, asked)
        if not planned.is_empty:
            ask(planned)
            carry_out(world, asked, planned)
        return planned


def propose(world: World, asked: Asked) -> Plan:
    """Return what would be done. Changes nothing.

    Raises UsageError for what cannot be meant, NotAllowed where this user may not, GateRefused where it cannot be done
    here and now, OrchctlError where pip finds no such packages.
    """
    # Before anything of there is run: root would run what a record in the worker's state directory names.
    _allowed(world, world.environments.place(world.its.python))
    environment = world.environments.of(world.its.python)
    needs = world.needs(world.its.python)
    before = next((each.installed for each in needs if each.name == _PREFECT), None)
    if before is None:
        raise GateRefused(
            f"there is no Prefect in {environment}", hint="`orchctl doctor versions` says what is missing"
        )
    wanted = _wanted(world, asked, needs)
    if asked.version is not None:
        _no_downgrade(before, asked.version)
    changes = world.environments.resolve(environment, wanted)
    after = next((each.after for each in changes if each.name == _PREFECT), before)
    _no_downgrade(before, after)
    if not changes:
        return Plan(environment, before, after, (), 0, ())
    _works(world, after)
    migrations = _migrations(world, environment, before, after)
    _room(world, environment, asked.to)
    return Plan(environment, before, after, changes, migrations, upgrade_switch.names(world, world.hands.runs()))


def _wanted(world: World, asked: Asked, needs: Sequence[Requirement]) -> Wanted:
    for word in asked.requirements:
        if word.startswith("-") or not word.strip() or not word.isprintable():
            raise UsageError(f"--requirement: {word!r} is no requirement of pip's")
    wanted = Wanted(asked.version, asked.requirements, asked.constraints, {each.name: each.bounds for each in needs})
    bounds = wanted.bounds.get(_PREFECT, "")
    if asked.version is not None and wanted.limits and not world.within(asked.version, bounds):
        raise GateRefused(
            f"this orchctl works with Prefect {bounds}, and {asked.version} is none of those",
            hint="a newer orchctl may: upgrade both, with --requirement",
        )
    return wanted


def _no_downgrade(before: str, after: str) -> None:
    if archives.newer_prefect(before, after):
        raise GateRefused(
            f"Prefect {after} is older than {before}, which is installed: it cannot open the newer one's tables",
            hint="`orchctl host restore` puts a backup of that time back, with a Prefect of that time",
        )


def _allowed(world: World, environment: str) -> None:
    """Raise NotAllowed and GateRefused where it cannot be done here and now, whatever is asked for."""
    if world.its.scope == "system" and not world.host.units.may_write():
        raise NotAllowed(
            "units of the system are root's to stop", hint=f"run: sudo {world.its.python} -m orchctl host upgrade"
        )
    if not world.hands.runs_from(environment):
        raise GateRefused(
            f"server and workers run from {environment}, and this orchctl is another one",
            hint=f"run: {world.its.python} -m orchctl host upgrade",
        )
    _no_handover(world)
    backup.no_half_restore(world.backup.shelf.unfinished_restore())


def _no_handover(world: World) -> None:
    if unfinished := world.unfinished():
        raise GateRefused(f"a handover of {', '.join(sorted(unfinished))} is unfinished", hint="orchctl recover")


def _works(world: World, after: str) -> None:
    """Raise GateRefused where it does not work now: what an upgrade broke could not be told from what was broken."""
    found = upgrade_back.look(world)
    if not found.ok:
        wrong = upgrade_back.wrong_with(found)
        raise GateRefused(f"server and workers do not all work now: {wrong}", hint="`orchctl host up` starts them")
    if not world.its.server and found.version is not None and archives.newer_prefect(after, found.version):
        raise GateRefused(
            f"the server at {found.api_url} is of Prefect {found.version}: no worker may be newer",
            hint="upgrade the server first",
        )


def _migrations(world: World, environment: str, before: str, after: str) -> int | None:
    if not world.its.server or before == after:
        return 0
    return world.environments.migrations(environment, after, world.backup.database().kind)


def _room(world: World, environment: str, to: Path | None) -> None:
    """Raise GateRefused where a disk has not the room for all that is made on it."""
    state_dir, found = world.its.state_dir, world.database_size() if world.its.server else None
    folder, size = found or (state_dir, 0)
    places = {"archives": str(to or Path(state_dir, "backups")), "state": state_dir, "database": folder}
    copy = (environment, int(world.environments.needs_bytes(environment) * _ROOM))
    most: dict[int, tuple[int, list[str], int]] = {}
    for copies in _COPIES:
        needs: dict[int, list[tuple[str, int]]] = {}
        for path, needed in (copy, *((places[name], count * size) for name, count in copies.items())):
            if needed:
                needs.setdefault(world.disk(path).device, []).append((path, needed))
        for device, there in needs.items():
            made = (sum(needed for _, needed in there), [path for path, _ in there], world.disk(there[0][0]).free)
            most[device] = max(most.get(device, made), made)
    for needed, paths, free in most.values():
        if free < needed:
            where = f"{' and '.join(paths)} {'is' if len(paths) == 1 else 'are'}"
            raise GateRefused(
                f"{needed / 1e6:.0f} MB are needed where {where}, and {free / 1e6:.0f} MB are free", hint="make room"
            )


def carry_out(world: World, asked: Asked, planned: Plan) -> NoReturn:
    """Do it: install beside, back up, try, and then switch. What goes wrong before the switch has changed nothing.

    The switch ends in another process: see `upgrade_switch`. Raises OrchctlError; Interrupted on Ctrl-C.
    """
    stamp = archives.stamp(world.clock.now())
    journal = Journal(
        id=stamp,
        step="preparing",
        environment=planned.environment,
        aside=rules.aside(planned.environment, stamp),
        before=planned.before,
        after=planned.after,
        migrations=0,
    )
    world.journal.write(journal)
    with ExitStack() as held:
        try:
            journal = _prepared(world, asked, journal)
            held.enter_context(upgrade_back.locked(world))
            _no_handover(world)
        except BaseException as error:
            forget(world, journal)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; {_AS_BEFORE}") from error
            if isinstance(error, OrchctlError):
                error.hint = f"{error.hint}; {_AS_BEFORE}" if error.hint else _AS_BEFORE
            raise
        upgrade_switch.switch(world, journal, to=asked.to, patience_s=asked.patience_s)


def _prepared(world: World, asked: Asked, journal: Journal) -> Journal:
    environments, environment, aside = world.environments, journal.environment, journal.aside
    wanted = _wanted(world, replace(asked, version=journal.after), world.needs(world.its.python))
    world.say(f"copying {environment}")
    environments.copy(environment, aside)
    already = set(environments.complaints(aside))
    world.say(f"installing Prefect {journal.after} into the copy")
    environments.install(aside, environment, wanted)
    needs = world.needs(rules.python_of(aside))
    wrong = [f"{each.name} {each.installed} is not {each.bounds}" for each in needs if not each.holds]
    wrong += [each for each in environments.complaints(aside) if each not in already]
    if wrong:
        raise GateRefused(f"what would be installed does not fit together: {'; '.join(wrong)}")
    environments.mark(aside, journal.id)
    if not world.its.server:
        return journal
    # Each takes the lock of backups itself, the trial in a process of its own.
    made = upgrade_back.beside_no_backup(world, lambda: backup.back_up(world.backup, asked.to, None))
    world.say(f"trying Prefect {journal.after} on a copy of the database")
    upgrade_back.beside_no_backup(world, lambda: world.hands.try_archive(aside, made.archive.path))
    kind = world.backup.database().kind
    return replace(journal, migrations=environments.new_migrations(environment, aside, kind))


def resume(world: World) -> Done | None:
    """Go on with an upgrade that stands halfway, and return what came of it.

    None where there is none, or none that had changed anything: what was left of that one is removed. Raises
    StateBroken where the journal cannot be ours, OrchctlError where it was put back.
    """
    journal = world.journal.read()
    if journal is None:
        return None
    _ours(world, journal)
    if journal.step != "preparing":
        return upgrade_switch.go_on(world, journal)
    forget(world, journal)
    world.say("removed what an upgrade that was killed has left; it had changed nothing")
    return None


def _ours(world: World, journal: Journal) -> None:
    """Raise StateBroken where a journal is not about the environment that this process runs from, or did.

    It is in a folder of the worker's user: root that went on wherever it says would run anything for that user.
    """
    place, hands = world.environments.place(world.its.python), world.hands
    if journal.environment == place and (hands.runs_from(place) or hands.runs_from(journal.aside)):
        return
    raise StateBroken(
        f"{rules.JOURNAL} tells of an upgrade of {journal.environment}, and this orchctl does not run from there",
        hint="see docs/host.md, Upgrades: which orchctl goes on with it, and who could have written that",
    )


def forget(world: World, journal: Journal) -> None:
    """Remove what was made beside, where nothing was changed yet. Repeatable."""
    upgrade_back.cleared(world, lambda: world.environments.remove(journal.aside))
    world.journal.remove()
