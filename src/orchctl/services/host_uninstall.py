"""`orchctl host uninstall`: what an install added is taken back, and what only its settings held is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchctl.core import database_url, host_settings
from orchctl.core.installation import Installation
from orchctl.errors import NotAllowed
from orchctl.services import stack
from orchctl.services.host_install import take_away
from orchctl.services.host_install_plan import ours, parsed
from orchctl.services.host_install_ports import Host
from orchctl.services.stack import Clock


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What was taken back. `database` is where the server's history stays, None where that cannot be said.

    `kept` is where the settings are that only their file held, None where there were none.
    """

    removed: tuple[str, ...]
    database: str | None
    kept: str | None = None


def uninstall(host: Host, clock: Clock, say: Callable[[str], None]) -> Uninstalled:
    """Take back what an install added, and nothing else. Repeatable, also after a kill halfway."""
    its = ours(host)
    text = host.records.settings_text()
    settings = parsed(host.records.settings_path, text)
    gone = (host.records.settings_path,) if text is not None else ()
    if its is None:
        kept = _keep(host, settings, clock, say)
        if gone:
            host.records.remove_settings()
        return Uninstalled(gone, None, kept)
    if its.scope == "system" and not host.units.may_write():
        raise NotAllowed("units of the system are root's to remove", hint="run: sudo orchctl host uninstall")
    stack.down(host.stack(its), clock, say)
    removed = take_away(host.units, its.units, its.state_dir, say)
    host.units.reload()
    host.units.remove_folders(its.folders)
    if its.lingering and host.units.lingers():
        host.units.linger(False)
        say(f"{its.user}'s units end with the last login again")
    where = _database(its, settings) if its.server else None
    kept = _keep(host, settings, clock, say)
    host.records.remove_settings()
    host.records.remove()
    return Uninstalled((*removed, *gone), where, kept)


def _keep(host: Host, settings: Mapping[str, str], clock: Clock, say: Callable[[str], None]) -> str | None:
    """Keep the settings that nothing else holds: a key without which the blocks of the database cannot be read."""
    names = ", ".join(host_settings.not_ours(settings))
    if not names:
        return None
    kept = host.records.keep_settings(clock.now())
    say(f"kept {names}: {kept}")
    return kept


def _database(its: Installation, settings: Mapping[str, str]) -> str:
    try:
        return database_url.of_settings(settings, its.home).shown
    except ValueError:
        return its.home
