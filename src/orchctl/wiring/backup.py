"""What backing up, verifying and restoring work with, put together."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import orchctl
from orchctl.adapters import belief, host_lock, scratch_server, unpacking
from orchctl.adapters.backups import Shelf
from orchctl.adapters.databases import SqliteDatabase
from orchctl.adapters.installed import Installed
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.postgres import PostgresDatabase
from orchctl.adapters.restoring import Place
from orchctl.core.database_url import Kind, Sqlite
from orchctl.errors import GateRefused
from orchctl.services import backup, in_use
from orchctl.services.backup_ports import Facts, PrefectDatabase, World
from orchctl.services.restore import Desk, Target

if TYPE_CHECKING:
    from orchctl.wiring import App

_LOCK = "host-backup"


def world(app: App, environment: Mapping[str, str], say: Callable[[str], None]) -> World:
    """Return what a backup works with. `environment` is this process's."""
    settings, installed = app.settings, app.installation
    return World(
        facts=Facts(
            hostname=socket.gethostname(),
            state_dir=str(settings.state_dir),
            config_dir=str(settings.config_dir),
            orchctl=orchctl.__version__,
            prefect=metadata.version("prefect"),
        ),
        shelf=Shelf(
            settings.state_dir,
            settings.config_dir,
            installation=installed,
            encryption_key=unpacking.key_in(environment),
            trust=app.trusted,
        ),
        database=lambda: _database(app, environment),
        alone=lambda command: host_lock.held(settings.state_dir, command, lock=_LOCK),
        exclusive=app.exclusive,
        now=app.now,
        monotonic=time.monotonic,
        sleep=time.sleep,
        say=say,
    )


def desk(app: App, environment: Mapping[str, str]) -> Desk:
    """Return what an archive is looked at with: folders of the state directory, which only its user may look into."""
    folder = app.settings.state_dir / "host"
    archive, server = folder / "backup-archive", folder / "backup-server"
    return Desk(
        unpack=lambda path: unpacking.unpacked(path.absolute(), archive, trust=app.trusted),
        serve=lambda database, key: scratch_server.running(server, database, environment, key),
        trial=lambda kind: _trial(app, environment, kind, archive / "trial"),
    )


def target(app: App, environment: Mapping[str, str]) -> Target:
    """Return where a restore goes."""
    installed = app.installation
    home = app.settings.state_dir / "prefect" if installed is None else Path(installed.home)
    held = environment if installed is None else Installed.settings(installed)
    return Target(
        place=Place(app.settings.state_dir, app.settings.config_dir, home),
        running=lambda: in_use.running(
            _background(app),
            app.systemd,
            installed,
            lambda url: app.connect(url, attempts=1, patience=in_use.PATIENCE_S),
        ),
        encryption_key=unpacking.key_in(held),
    )


def unfinished_restore(app: App) -> str | None:
    """Return the archive whose restore was interrupted, None where none was. Raises StateBroken."""
    settings = app.settings
    return Shelf(settings.state_dir, settings.config_dir, installation=None, encryption_key=None).unfinished_restore()


def none_interrupted(app: App) -> None:
    """Raise GateRefused where a restore was interrupted: what it left is not to be run."""
    backup.no_half_restore(unfinished_restore(app))


def _background(app: App) -> LocalStack:
    """Return what `host up` started, to look at: root believes what the state directory's owner wrote there."""
    return LocalStack(app.settings.state_dir, {}, trust=belief.owner(app.settings.state_dir))


def _database(app: App, environment: Mapping[str, str]) -> PrefectDatabase:
    installed, own = app.installation, app.settings.state_dir / "prefect" / "prefect.db"
    place = backup.database_of(
        backup.Here(
            installation=installed,
            settings=Installed.settings(installed) if installed is not None and installed.server else {},
            named=app.settings.api_url,
            started=_background(app).api_url(),
            own=own,
            half_restored=installed is None and unfinished_restore(app) is not None,
        )
    )
    return SqliteDatabase(Path(place.path)) if isinstance(place, Sqlite) else PostgresDatabase(place, environment)


def _trial(app: App, environment: Mapping[str, str], kind: Kind, folder: Path) -> PrefectDatabase:
    """Return a database to try an archive in: a file of its own, or one beside this host's own in PostgreSQL."""
    if kind == "sqlite":
        return SqliteDatabase(folder / "prefect.db")
    database = _database(app, environment)
    if database.kind != kind:
        raise GateRefused(
            "the archive holds a database of PostgreSQL, and this host's server has none to try it in",
            hint="run this where that server is installed",
        )
    return database
