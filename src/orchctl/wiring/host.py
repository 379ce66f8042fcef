"""What `host install` and its relatives work with, put together."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl import wiring
from orchctl.adapters import doctor_versions, host_facts, local_stack, unit_links
from orchctl.adapters.host_units import HostUnits, may_keep, may_run, no_way_to_database
from orchctl.adapters.installed import Installed
from orchctl.adapters.unit_stack import UnitStack
from orchctl.core import host_settings
from orchctl.core.installation import AUTH_CLIENT, Installation, Scope
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.errors import GateRefused, NotBelieved, UsageError
from orchctl.services import strays
from orchctl.services.host_install_ports import Asked, Host
from orchctl.services.stack import Clock

if TYPE_CHECKING:
    from orchctl.wiring import App

DATABASE_URL = "ORCHCTL_DATABASE_URL"
"""The environment's variable for a database's URL with a password: an argument could be read by everybody."""


def clock(app: App) -> Clock:
    """Return the time as services get it."""
    return Clock(time.monotonic, time.sleep, app.now)


def units_of(app: App, manager: Manager) -> HostUnits:
    """Return the units of a manager."""
    return HostUnits(app.systemd, manager)


def unit_stack(app: App, installation: Installation) -> UnitStack:
    """Return what acts on the units of an installation."""
    return UnitStack(units_of(app, installation.manager), installation, wiring.environment())


def host(app: App, manager: Manager) -> Host:
    """Return this host as an installation in a manager needs it."""
    return Host(
        units=units_of(app, manager),
        records=Installed(app.settings.state_dir),
        stack=lambda its: unit_stack(app, its),
        # Another app: the record and the settings are new, and this one may have read the old.
        connect=lambda its: wiring.App(app.settings, _without_client()).connect(its.api_url),
        background=lambda: [name for name in app.stack.names() if app.stack.alive(name)],
        port_is_free=local_stack.is_free,
        free_port=functools.cache(local_stack.free_port),
        may_run=may_run,
        may_keep=may_keep,
        needs=doctor_versions.requirements,
        no_way_to_database=no_way_to_database,
        new_auth=functools.cache(lambda: f"orchctl:{secrets.token_urlsafe(32)}"),
        hostname=host_facts.here().hostname,
    )


def _without_client() -> dict[str, str]:
    """Return the environment without the credentials of some other server."""
    return {key: value for key, value in wiring.environment().items() if key != AUTH_CLIENT}


@dataclass(frozen=True, slots=True)
class Words:
    """The words of `host install`; None where one is not given."""

    scope: str | None
    user: str | None
    port: int | None
    database: str | None
    database_file: Path | None
    server: bool | None
    only: tuple[str, ...] = ()


def asked(app: App, words: Words) -> Asked:
    """Return what an installation is to be. Raises UsageError, GateRefused."""
    before = app.installation
    root, environment = os.geteuid() == 0, wiring.environment()
    usual = before.scope if before else "system" if root else "user"
    scope: Scope = "system" if (words.scope or usual) == "system" else "user"
    me = host_facts.account(None).pw_name
    user = words.user or (before.user if before else environment.get("SUDO_USER") or me)
    if user == "root" and words.user is None and before is None:
        raise UsageError(
            "as root nobody is named who runs server and jobs", hint="name who: --user NAME (--user root means root)"
        )
    if not root and user != me:
        raise UsageError(f"only root can install for {user}", hint=f"run it as {user}, or with sudo")
    host_facts.account(user)
    database = words.database
    if database is not None and host_settings.has_password(database):
        raise UsageError(
            "a password on the command line can be read by every user of this host",
            hint=f"put the URL into a file that only you can read: --database-file FILE, or into {DATABASE_URL}",
        )
    if words.database_file is not None:
        database = _url_in(words.database_file)
    elif database is None:
        database = environment.get(DATABASE_URL) or None
    return Asked(
        scope=scope,
        user=user,
        python=sys.executable,
        config_dir=str(app.settings.config_dir),
        state_dir=str(app.settings.state_dir),
        pools=app.worker_places,
        port=words.port,
        database=database,
        server=words.server,
        api_url=app.settings.api_url,
        auth=environment.get(AUTH_CLIENT) or None,
        by_hand=_by_hand(app, user, words),
        only=words.only,
    )


def manager_of(wanted: Asked) -> Manager:
    """Return the systemd that the units are to belong to."""
    return SYSTEM if wanted.scope == "system" else Manager("user", wanted.user)


def _url_in(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise NotBelieved(f"{path} may be read or written by others", hint=f"chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--database-file: {path} cannot be read ({type(error).__name__})") from error
    if len(lines) != 1:
        raise UsageError(f"--database-file: {path} is to hold one line, the URL of the database")
    return lines[0]


def _by_hand(app: App, user: str, words: Words) -> str:
    options = [f"--config {app.settings.config_dir}", f"--state-dir {app.settings.state_dir}"]
    options += ["host install --scope system", f"--user {user}"]
    options += [f"--port {words.port}"] if words.port is not None else []
    options += [f"--database {words.database}"] if words.database is not None else []
    options += [f"--database-file {words.database_file.absolute()}"] if words.database_file is not None else []
    options += ["--no-server"] if words.server is False else []
    options += [f"--pool {pool}" for pool in words.only]
    options += [f"--api-url {app.settings.api_url}"] if app.settings.api_url is not None else []
    return f"sudo {sys.executable} -m orchctl {' '.join(options)}"


def strays_of(app: App, *, attempts: int) -> strays.World:
    """Return where runs are looked for that a worker lost."""
    return strays.World(
        prefect=app.connect(app.api_url, attempts=attempts),
        applied=app.applied,
        tree=app.tree,
        living=host_facts.flow_runs_here,
        now=app.now,
    )


def put_back(app: App, pool: str, *, stopped: bool, attempts: int = 5) -> tuple[strays.Stray, ...]:
    """Look for runs that this host's worker of a pool lost; see `services/strays.py`."""
    return strays.put_back(strays_of(app, attempts=attempts), pool, app.stack.worker_name(pool), stopped=stopped)


def wait_for_server(
    app: App, *, patience_s: float, still: Callable[[], bool], ours: Callable[[], bool] = lambda: True
) -> None:
    """Wait until the API answers, as long as `still` says so. Raises OrchctlError after `patience_s` seconds.

    `ours`: whether it is the right program that answers.
    """
    from orchctl.errors import PrefectUnreachable

    deadline = time.monotonic() + patience_s
    while True:
        try:
            app.connect(app.api_url, attempts=1).version()
            if ours():
                return
            raise PrefectUnreachable("another program has the port of the server of this host")
        except PrefectUnreachable:
            if time.monotonic() >= deadline or not still():
                raise
        time.sleep(_POLL_S)


def main_process_lives() -> bool:
    """Whether the main process of the unit that runs us is there; True where no unit does."""
    pid = wiring.environment().get("MAINPID")
    return pid is None or not pid.isdigit() or host_facts.started_ticks(int(pid)) is not None


def main_process_answers(app: App) -> bool:
    """Whether the main process of the unit that runs us is what listens, as far as that is seen; True without one."""
    pid, port = wiring.environment().get("MAINPID"), host_settings.port_of(app.api_url)
    return pid is None or not pid.isdigit() or not local_stack.another_listens(port, int(pid))


def was_told_to_stop() -> bool:
    """Whether the main process of the unit that runs us ended by a signal to stop, and not by SIGKILL."""
    return wiring.environment().get("EXIT_STATUS") != "KILL"


def wait_for_guards(app: App, *, patience_s: float) -> int:
    """Wait until the guards of runs that were stopped have ended. Returns how many have not after that time."""
    from orchctl.adapters.unit_stack import guards_alone

    deadline = time.monotonic() + patience_s
    while (left := guards_alone(str(app.settings.state_dir))) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def manager_or_own(its: Installation | None) -> Manager:
    """Return the systemd of an installation; where there is none, that of who runs us."""
    if its is not None:
        return its.manager
    return unit_links.own_manager()


def secrets_of(app: App) -> dict[str, str]:
    """Return what must not be shown of a log: the settings of what is installed, and this environment."""
    its = app.installation
    return {**wiring.environment(), **(Installed.settings(its) if its is not None else {})}


def installed(app: App) -> Installation:
    """Return the installation. Raises GateRefused where there is none."""
    if app.installation is None:
        raise GateRefused("nothing is installed here", hint="orchctl host install")
    return app.installation


_POLL_S = 0.5
