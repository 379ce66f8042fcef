"""What `host upgrade` works with, put together."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from orchctl import wiring
from orchctl.adapters import belief, doctor_facts, doctor_versions, host_lock
from orchctl.adapters.environments import Environments
from orchctl.adapters.upgrade_hands import SIGNALS, UpgradeHands
from orchctl.adapters.upgrades import Upgrades
from orchctl.core import upgrade
from orchctl.errors import GateRefused
from orchctl.services.upgrade_ports import World
from orchctl.wiring import backup
from orchctl.wiring import host as host_wiring

if TYPE_CHECKING:
    from orchctl.wiring import App

_LOCK = "host-upgrade"


def world(app: App, say: Callable[[str], None]) -> World:
    """Return what an upgrade works with. Raises GateRefused where nothing is installed, StateBroken."""
    its, environment, settings = host_wiring.installed(app), wiring.environment(), app.settings
    options = ("--config", str(settings.config_dir), "--state-dir", str(settings.state_dir))
    shown = (("--json", settings.as_json), ("--no-color", not settings.color), ("--verbose", settings.verbose))
    host = host_wiring.host(app, its.manager)
    target, saved = backup.target(app, environment), backup.world(app, environment, say)
    return World(
        its=its,
        options=options,
        host=host,
        backup=saved,
        desk=backup.desk(app, environment),
        target=target,
        environments=Environments(environment),
        journal=Upgrades(settings.state_dir),
        hands=UpgradeHands(
            its,
            host_wiring.units_of(app, its.manager),
            app.systemd,
            options=options,
            shown=[word for word, on in shown if on],
            variables=environment,
            owner=belief.owner(settings.state_dir),
        ),
        needs=doctor_versions.requirements,
        within=doctor_versions.within,
        in_use=target.running,
        unfinished=lambda: app.unfinished,
        disk=doctor_facts.disk,
        database_size=lambda: _size(saved.database().shown),
        alone=lambda command: host_lock.held(settings.state_dir, command, lock=_LOCK),
        exclusive=app.exclusive,
        clock=host_wiring.clock(app),
        say=say,
    )


def _size(shown: str) -> tuple[str, int] | None:
    """Return where a database of SQLite is, and how large; what PostgreSQL's takes is its server's."""
    with contextlib.suppress(OSError):
        return str(Path(shown).parent), Path(shown).stat().st_size
    return None


def unfinished(app: App) -> str | None:
    """Return that an upgrade is unfinished, in words; None where none is. Raises StateBroken."""
    journal = Upgrades(app.settings.state_dir).read()
    return None if journal is None else upgrade.told(journal)


def none_unfinished(app: App) -> None:
    """Raise GateRefused where an upgrade is unfinished."""
    if (said := unfinished(app)) is not None:
        raise GateRefused(said, hint="`orchctl host upgrade` finishes it, or puts it back")


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let a lost terminal and a polite kill end us as Ctrl-C does: what was stopped must be started again.

    Only the first one counts: a second would keep us from doing that.
    """
    # What ignores a lost terminal (nohup) goes on ignoring it.
    heard = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, _interrupted) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    UpgradeHands.ignore_signals()
    raise KeyboardInterrupt
