"""`orchctl host backup`: an archive of one instant, whole and read again before it has its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchctl.core import backup, database_url
from orchctl.core.backup import Archive, Manifest
from orchctl.core.database_url import Postgres, Sqlite
from orchctl.core.installation import Installation
from orchctl.errors import GateRefused, Locked, OrchctlError, StateBroken
from orchctl.services.backup_ports import World

LOCK_PATIENCE_S = 60.0
_POLL_S = 0.5
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made. `removed` are older archives that went; `left_out` says what is not in it, and why."""

    archive: Archive
    removed: tuple[str, ...]
    left_out: tuple[str, ...]


def no_half_restore(archive: str | None) -> None:
    """Raise GateRefused where the restore of an archive was interrupted; None: none was."""
    if archive is not None:
        raise GateRefused(f"a restore was interrupted: {archive}", hint=f"run it again: orchctl host restore {archive}")


def back_up(world: World, to: Path | None, keep: int | None) -> Made:
    """Make an archive in `to` (None: `backups` in the state directory), then remove all but the newest `keep`.

    One that an unfinished upgrade needs to put the database back is never removed.

    The lock of the host is held only while the state is copied and the database's snapshot is taken: no handover is
    half in an archive. It is waited for a minute. Raises Locked after that, GateRefused where there is no database of
    this host's, BackupBroken where the database is damaged: then no older archive is removed.
    """
    database = world.database()
    with world.alone("host backup"):
        no_half_restore(world.shelf.unfinished_restore())
        folder = world.shelf.folder(to)
        with world.shelf.staging(folder) as staging, ExitStack() as held:
            with _exclusive(world):
                at = world.now().replace(microsecond=0)
                gathered = world.shelf.gather(staging)
                taken = held.enter_context(database.snapshot())
            world.say(f"copying {database.shown}")
            dump = backup.DUMPS[database.kind]
            taken.write(staging / dump)
            held.close()
            members, facts = world.shelf.members(staging, [dump, *gathered.paths]), world.facts
            manifest = Manifest(
                created_at=at,
                hostname=facts.hostname,
                state_dir=facts.state_dir,
                config_dir=facts.config_dir,
                orchctl=facts.orchctl,
                prefect=facts.prefect,
                database=taken.database,
                members=members,
            )
            archive = world.shelf.put(folder, manifest, staging)
        world.shelf.note_backup(archive)
        removed = _prune(world, folder, archive, keep)
    return Made(archive, removed, gathered.left_out)


@contextmanager
def _exclusive(world: World) -> Iterator[None]:
    """Hold the lock of the host; others hold it for a command's time, so it is waited for."""
    deadline = world.monotonic() + LOCK_PATIENCE_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(world.exclusive("host backup"))
                break
            except Locked:
                if world.monotonic() >= deadline:
                    raise
                world.sleep(_POLL_S)
        yield


def _prune(world: World, folder: Path, newest: Archive, keep: int | None) -> tuple[str, ...]:
    if keep is None:
        return ()
    needed = world.shelf.needed()
    surplus = [
        archive
        for archive in backup.surplus(world.shelf.archives(folder), newest.manifest, keep)
        # By its name: one folder can be named in two ways.
        if needed is None or Path(archive.path).name != Path(needed).name
    ]
    for archive in surplus:
        world.shelf.remove(archive)
    return tuple(archive.path for archive in surplus)


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of the server of this host. `settings` are those of the installation, with secrets; `named` is the
    API that option or environment names, `started` that of a server which `host up` started and nobody stopped; `own`
    is where that one's database is. `half_restored`: a restore was interrupted, which may have moved that one aside.
    """

    installation: Installation | None
    settings: Mapping[str, str]
    named: str | None
    started: str | None
    own: Path
    half_restored: bool = False


def database_of(here: Here) -> Sqlite | Postgres:
    """Return where the database of this host's server is, or will be where its restore is run again.

    Raises GateRefused where there is no such server: its database cannot be reached through the API.
    """
    installed = here.installation
    server = installed.api_url if installed is not None else here.started
    # What a stopped server's address was is not known: on this host, it is taken for the one that is named.
    elsewhere = here.named is not None and (
        not _same(here.named, server) if server is not None else _host(here.named) not in _LOOPBACK
    )
    if elsewhere or (installed is not None and not installed.server):
        where = here.named if elsewhere else installed and installed.api_url
        raise GateRefused(
            f"the server at {_shown(str(where))} is not one of this host's, and its database is where it runs",
            hint="run this there; or leave --api-url and PREFECT_API_URL away, if this host's own server is meant",
        )
    if installed is not None:
        try:
            return database_url.of_settings(here.settings, installed.home)
        except ValueError as error:
            raise StateBroken(f"{installed.settings}: {error}") from error
    if not here.own.exists() and not here.half_restored:
        raise GateRefused(
            f"there is no server of this host's: no installation, and no database {here.own}",
            hint="`orchctl host up` starts one; --state-dir says which one is meant",
        )
    return Sqlite(str(here.own))


def _same(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, int | None]:
    host = _host(url)
    try:
        return ("127.0.0.1" if host in _LOOPBACK else host, urlsplit(url).port)
    except ValueError as error:
        raise OrchctlError("the address of the API cannot be read", hint="check PREFECT_API_URL") from error


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _shown(url: str) -> str:
    """Return an address without what may be secret in it."""
    host, port = _place(url)
    return f"{host}:{port}" if port else host
