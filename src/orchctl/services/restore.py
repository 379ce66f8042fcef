"""`orchctl host verify` and `host restore`: an archive on trial, and an archive in place of what is there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchctl.core import backup
from orchctl.core.backup import Archive, Database, Moved, OpenRun, Part
from orchctl.core.database_url import Kind
from orchctl.errors import BackupBroken, GateRefused, OrchctlError
from orchctl.services.backup_ports import Place, PrefectDatabase, Scratch, Unpacked, World

_VERIFY, _RESTORE = "verify", "restore"


@dataclass(frozen=True, slots=True)
class Desk:
    """What an archive is looked at with.

    `unpack` unpacks one; `serve` starts a server on a copy of a database (its URL, and the key of its blocks where the
    database holds none); `trial` is a database to try an archive of this kind in, which is not the host's own.
    """

    unpack: Callable[[Path], AbstractContextManager[Unpacked]]
    serve: Callable[[str, str | None], AbstractContextManager[Scratch]]
    trial: Callable[[Kind], PrefectDatabase]


@dataclass(frozen=True, slots=True)
class Verified:
    """An archive that was restored on trial. `blocks` is how many blocks were read, and so decrypted."""

    archive: Archive
    counts: dict[str, int]
    blocks: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """A run of the restored database that was ended, and why."""

    run: OpenRun
    why: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put in place, and which runs were ended because the world has gone on since."""

    archive: Archive
    parts: tuple[Part, ...]
    moved: tuple[Moved, ...]
    settled: tuple[Settled, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a restore goes. `running` says what of this host's server and workers runs, in words; `encryption_key` is
    that of the settings here, None: they hold none.
    """

    place: Place
    running: Callable[[], Sequence[str]]
    encryption_key: str | None


def verify(world: World, desk: Desk, path: Path | None, *, foreign: bool = False) -> Verified:
    """Try an archive (None: the newest that is remembered): every digest, its database in a server, its counts.

    Nothing of the host is touched. Raises BackupBroken where it is not whole, GateRefused where none is remembered, or
    there is no room. What is found broken is remembered, unless it is `foreign`: what tries it is not this host's.
    """
    with world.alone("host verify"):
        found = path or world.shelf.newest()
        if found is None:
            raise GateRefused("there is no backup yet", hint="`orchctl host backup` makes one, or name an archive")
        try:
            archive, counts, blocks = _tried(world, desk, found)
        except BackupBroken as error:
            if not foreign:
                world.shelf.note_broken(found, error.message, world.now())
            raise
        at = world.now()
        if (archive.manifest.hostname, archive.manifest.state_dir) == (world.facts.hostname, world.facts.state_dir):
            world.shelf.note_verified(archive, at)
    return Verified(archive, counts, blocks, at)


def _tried(world: World, desk: Desk, path: Path) -> tuple[Archive, dict[str, int], int]:
    with desk.unpack(path) as unpacked:
        manifest = unpacked.archive.manifest
        database = desk.trial(manifest.database.kind)
        world.say(f"starting a server on a copy of the database of {manifest.hostname}")
        try:
            url = database.load(unpacked.dump, _VERIFY)
            _same(manifest.database, database.look(_VERIFY))
            with desk.serve(url, unpacked.encryption_key) as server:
                counts, blocks = _asked(server, manifest.database)
        finally:
            database.drop(_VERIFY)
    return unpacked.archive, counts, blocks


def look(world: World, desk: Desk, target: Target, path: Path, parts: Sequence[Part]) -> Archive:
    """Return the archive that a restore would put in place, every digest in it read.

    Raises BackupBroken, and GateRefused where it cannot be put in place here and now.
    """
    with world.alone("host restore"), desk.unpack(path) as unpacked:
        _fits(world, target, unpacked, parts)
        return unpacked.archive


def restore(world: World, desk: Desk, target: Target, path: Path, parts: Sequence[Part]) -> Restored:
    """Put parts of an archive in place; what was there stays beside. Repeatable after a kill at any instant.

    The database is tried first, in a server, which also ends the runs that must not go on (`core.backup.over`) and
    frees the places that they held; only then is anything moved. What fails leaves no copy of the database. Raises
    GateRefused while a server or worker runs, or where there is no room, BackupBroken before anything was changed where
    the archive is not whole.
    """
    with (
        world.alone("host restore"),
        world.exclusive("host restore"),
        desk.unpack(path) as unpacked,
        ExitStack() as staged,
    ):
        archive, settled, moved = unpacked.archive, tuple[Settled, ...](), list[Moved]()
        _fits(world, target, unpacked, parts)
        if "database" in parts:
            staged.enter_context(_dropped_where_it_fails(world.database()))
            settled = _stage(world, desk, target, unpacked)
        # Once more: what was tried took a while.
        _stopped(world, target, parts)
        before = target.place.begin(archive, parts, world.now())
        if "database" in parts:
            database = world.database()
            moved.append(database.put(_RESTORE, before))
            moved += target.place.leases_aside(before)
            _same(archive.manifest.database, database.look(None))
        for part in parts:
            if part != "database":
                moved += target.place.put(unpacked.root, archive.manifest, part, before)
                target.place.check(archive.manifest, part)
        target.place.end()
    return Restored(archive, tuple(parts), tuple(moved), settled)


@contextmanager
def _dropped_where_it_fails(database: PrefectDatabase) -> Iterator[None]:
    """Remove what was to be put in place: left there, it would keep a full disk full."""
    try:
        yield
    except BaseException:
        with suppress(OrchctlError):
            database.drop(_RESTORE)
        raise


def _stage(world: World, desk: Desk, target: Target, unpacked: Unpacked) -> tuple[Settled, ...]:
    """Load the database beside the host's own, try it in a server, and end what must not go on."""
    database, manifest = world.database(), unpacked.archive.manifest
    world.say("starting a server on a copy of the database")
    url = database.load(unpacked.dump, _RESTORE)
    _same(manifest.database, database.look(_RESTORE))
    here = target.place.claimed()
    claimed: Collection[str] = {*unpacked.claimed(), *(here or ())}
    settled = []
    with desk.serve(url, unpacked.encryption_key) as server:
        _asked(server, manifest.database)
        for run in server.open_runs():
            why = backup.over(run, claimed=claimed, claims_known=here is not None, now=world.now())
            if why is not None:
                server.end_run(run, why)
                settled.append(Settled(run, why))
        server.free_places()
    _same(manifest.database, database.look(_RESTORE))
    return tuple(settled)


def _fits(world: World, target: Target, unpacked: Unpacked, parts: Sequence[Part]) -> None:
    manifest = unpacked.archive.manifest
    if "database" in parts:
        kind = world.database().kind
        if manifest.database.kind != kind:
            raise GateRefused(
                f"the archive holds a database of {manifest.database.kind}, and this host's is one of {kind}",
                hint="Prefect moves no database from one to the other; --only state,catalog restores the rest",
            )
        if backup.newer_prefect(manifest.prefect, world.facts.prefect):
            raise GateRefused(
                f"the archive is of Prefect {manifest.prefect}, and this is {world.facts.prefect}",
                hint=f"install Prefect {manifest.prefect} first: older ones cannot open its tables",
            )
        if unpacked.encryption_key != target.encryption_key:
            raise GateRefused(
                "the settings of this host's server hold another key than the one that encrypted the archive's blocks",
                hint=f"make PREFECT_SERVER_ENCRYPTION_KEY what it is, or is not, in {backup.SETTINGS} of the archive",
            )
    _stopped(world, target, parts)


def _stopped(world: World, target: Target, parts: Sequence[Part]) -> None:
    """Raise GateRefused while anything runs that reads or writes what is restored. The catalog is read by no server."""
    if set(parts) == {"catalog"}:
        return
    running = list(target.running())
    if "database" in parts and not running:
        running = [f"{who} has the database open" for who in world.database().used_by()]
    if running:
        raise GateRefused(f"nothing is restored while it is in use: {'; '.join(running)}", hint="`orchctl host down`")


def _asked(server: Scratch, wanted: Database) -> tuple[dict[str, int], int]:
    counts = server.counts()
    _equal(wanted.counts, counts, "a server on the restored database")
    blocks = server.read_blocks()
    _equal({"blocks": wanted.counts.get("blocks", 0)}, {"blocks": blocks}, "reading the blocks")
    return counts, blocks


def _same(wanted: Database, found: Database) -> None:
    _equal(wanted.counts, found.counts, "the restored database")


def _equal(wanted: Mapping[str, int], found: Mapping[str, int], who: str) -> None:
    wrong = backup.differences(wanted, found)
    if wrong:
        raise BackupBroken(f"{who} does not hold what the archive says: {'; '.join(wrong)}")
