"""`orchctl host install | uninstall`: server and workers as units of systemd; gathered, planned, then applied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchctl.core import database_url, host_settings, host_units
from orchctl.core.env_file import parse
from orchctl.core.host_units import FileChange
from orchctl.core.installation import AUTH_CLIENT, RECOVER_TIMER, SERVER_UNIT, Installation
from orchctl.errors import GateRefused, NotAllowed, OrchctlError, StateBroken, UsageError
from orchctl.services import stack
from orchctl.services.host_install_ports import Asked, Host, Units
from orchctl.services.ports import Prefect, StackHost
from orchctl.services.stack import HEARTBEAT_SLACK, Clock, Status

DEFAULT_PORT = 4200
RECOVER = "recover"
"""The part beside server and workers: the timer that looks for lost runs."""
_STOP_S = 120.0
_HEARTBEAT_S = 40.0
"""A worker tells the server every 30 seconds that it is there."""
_AGAIN = "`orchctl host install` goes on with it, `orchctl host uninstall` takes it back"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done. `stale` are paths of units of an earlier install that are not wanted any more."""

    before: Installation | None
    after: Installation
    files: tuple[FileChange, ...]
    enable: tuple[str, ...]
    start: tuple[str, ...]
    restart: tuple[str, ...]
    stale: tuple[str, ...]
    linger: bool
    notes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the host is as it is to be."""
        work = (self.enable, self.start, self.restart, self.stale, self.linger)
        return not any(work) and all(change.is_empty for change in self.files) and self.before == self.after


def plan(host: Host, asked: Asked) -> Plan:
    """Return what has to change. Changes nothing.

    Raises UsageError for what cannot be meant, NotAllowed where this user may not, GateRefused where something of
    somebody else's is in the way.
    """
    before = _ours(host)
    server = asked.server if asked.server is not None else before.server if before is not None else True
    _check(host, asked, before, server=server)
    text = host.records.settings_text()
    kept = _parsed(host.records.settings_path, text)
    after = _installation(host, asked, before, server=server)
    try:
        settings = host_settings.text(_settings(host, asked, after, kept))
        texts = host_units.texts(after, systemd=host.units.version())
    except ValueError as error:
        raise UsageError(f"this cannot be installed: {error}") from error
    paths = {name: host.units.path(name) for name in texts}
    lingers = host.units.lingers()
    units = tuple(FileChange(paths[name], host.units.read(paths[name]), each) for name, each in texts.items())
    for change in units:
        _ours_or_none(host, change, asked.state_dir)
    after = replace(after, units=tuple(paths.values()), lingering=after.lingering or lingers is False)
    made = [folder for path in after.units for folder in host.units.new_folders(path)]
    after = replace(after, folders=tuple(dict.fromkeys([*after.folders, *made])))
    files = (FileChange(host.records.settings_path, text, settings, private=True), *units)
    return _what_follows(host, before, after, files, linger=lingers is False)


def _ours(host: Host) -> Installation | None:
    """Return what is installed, None where nothing is. Raises GateRefused where it is another host's, StateBroken."""
    its = host.records.read()
    if its is not None and its.hostname not in {"", host.hostname} and not _renamed(host, its):
        record = f"{its.state_dir}/host/installation.json"
        raise GateRefused(
            f"{its.state_dir} holds the installation of {its.hostname}, and this host is {host.hostname}",
            hint=f"give this host a state directory of its own: --state-dir DIR; if it was renamed, say so in {record}",
        )
    return its


def _renamed(host: Host, its: Installation) -> bool:
    """Whether it is this host that had another name: its units are here. A user's home may be on two hosts."""
    texts = map(host.units.read, its.units)
    return its.scope == "system" and any(text is not None and host_units.is_ours(text, its.state_dir) for text in texts)


def _pools(asked: Asked, before: Installation | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the pools that were named, and those that this host is to serve. Raises UsageError for another."""
    only = asked.only or (before.only if before is not None else ())
    for name in only:
        if name not in asked.pools:
            raise UsageError(f"there is no work pool {name!r} in the catalog", hint=f"it has {', '.join(asked.pools)}")
    return only, {pool: places for pool, places in asked.pools.items() if not only or pool in only}


def _what_follows(
    host: Host, before: Installation | None, after: Installation, files: tuple[FileChange, ...], *, linger: bool
) -> Plan:
    states = {name: host.units.state(name) for name in host_units.enabled(after)}
    owed = host_units.to_restart(after, files) | set(before.owed if before is not None else ())
    notes = ["the history stays in the database that the server leaves"] if host_units.moves(files) else []
    if after.server:
        _port(host, after, is_ours=before is not None and states[SERVER_UNIT].runs and before.api_url == after.api_url)
    return Plan(
        before,
        after,
        files,
        enable=tuple(name for name, state in states.items() if state.enabled != "enabled"),
        start=tuple(name for name, state in states.items() if not state.runs),
        restart=tuple(name for name, state in states.items() if state.runs and name in owed),
        stale=tuple(path for path in (before.units if before is not None else ()) if path not in after.units),
        linger=linger,
        notes=tuple(notes),
    )


def _check(host: Host, asked: Asked, before: Installation | None, *, server: bool) -> None:
    if not asked.pools:
        raise UsageError("the catalog has no job, and so no work pool for a worker")
    if before is not None and (before.scope, before.user) != (asked.scope, asked.user):
        raise GateRefused(
            f"there is an installation in scope {before.scope} for {before.user} already",
            hint="take it back first: orchctl host uninstall",
        )
    if not server and asked.api_url is None:
        raise UsageError("without a server this host needs to know one", hint="name it: --no-server --api-url URL")
    if asked.scope == "system" and not host.units.may_write():
        raise NotAllowed("units of the system are root's to write", hint=f"run: {asked.by_hand}")
    if running := host.background():
        raise GateRefused(
            f"{' and '.join(running)} of this state directory run in the background",
            hint="stop them first: orchctl host down",
        )
    if not host.may_keep(asked.state_dir, asked.user):
        raise GateRefused(
            f"{asked.user} may not write into the state directory {asked.state_dir}",
            hint=f"see whose it is, then: chown -R {asked.user}: {asked.state_dir}; or name another: --state-dir DIR",
        )
    if not host.may_run(asked.python, asked.user):
        raise GateRefused(
            f"{asked.user} may not run {asked.python}",
            hint="install orchctl where that user can read it, for example in a venv under /opt",
        )


def _installation(host: Host, asked: Asked, before: Installation | None, *, server: bool) -> Installation:
    url = asked.api_url
    only, pools = _pools(asked, before)
    if server:
        same = host_settings.port_of(before.api_url) if before is not None and before.server else None
        port = host.free_port() if asked.port == 0 else asked.port or same or DEFAULT_PORT
        url = host_settings.api_url(port)
        if asked.api_url is not None and asked.api_url != url:
            raise UsageError(
                f"a server would be installed here, and {asked.api_url} is named",
                hint="--no-server installs workers for that one; without --api-url and PREFECT_API_URL it is one here",
            )
    return Installation(
        scope=asked.scope,
        user=asked.user,
        api_url=url or "",
        python=asked.python,
        config_dir=asked.config_dir,
        state_dir=asked.state_dir,
        home=f"{asked.state_dir}/prefect",
        settings=host.records.settings_path,
        units=(),
        pools=pools,
        server=server,
        folders=before.folders if before is not None else (),
        lingering=before.lingering if before is not None else False,
        hostname=host.hostname,
        only=only,
    )


def _settings(host: Host, asked: Asked, after: Installation, kept: Mapping[str, str]) -> dict[str, str]:
    database = host_settings.named_database(kept) if after.server and asked.database is None else None
    if after.server and database is None:
        try:
            database = host_settings.database(asked.database or "sqlite", after.home)
        except ValueError as error:
            raise UsageError(f"the database cannot be used: {error}") from error
    auth = (kept.get(AUTH_CLIENT) or host.new_auth()) if after.server else asked.auth or kept.get(AUTH_CLIENT)
    return host_settings.settings(after.api_url, after.home, auth=auth, database_url=database, before=kept)


def _parsed(path: str, text: str | None) -> dict[str, str]:
    try:
        return parse((text or "").encode())
    except ValueError as error:
        raise StateBroken(f"{path} cannot be read: {error}", hint="look at it, and remove it") from error


def _ours_or_none(host: Host, change: FileChange, state_dir: str) -> None:
    """Raise GateRefused where a unit of this name is not of this installation."""
    name = change.path.rpartition("/")[2]
    hint = f"look at it: systemctl cat {name}; it has to go, or this cannot be installed"
    if change.before is not None and not host_units.is_ours(change.before, state_dir):
        raise GateRefused(f"there is a {name} that is not of this installation: {change.path}", hint=hint)
    state = host.units.state(name)
    if state.load == "masked":
        raise GateRefused(f"{name} is masked", hint=f"see why, then: systemctl unmask {name}")
    if change.before is None and state.fragment not in {"", change.path}:
        raise GateRefused(f"there is a {name} that is not of this installation: {state.fragment}", hint=hint)


def _port(host: Host, after: Installation, *, is_ours: bool) -> None:
    port = host_settings.port_of(after.api_url)
    if not is_ours and port is not None and not host.port_is_free(port):
        raise GateRefused(
            f"port {port} of {host_settings.LOOPBACK} is taken by another program",
            hint="stop it, or name another port with --port; 0 takes a free one",
        )


def apply(host: Host, planned: Plan, clock: Clock, say: Callable[[str], None]) -> Status:
    """Do it, and wait until the scheduler schedules and the workers poll. Repeatable, also after a kill halfway.

    Raises OrchctlError where something cannot be done or does not come up; what was done stays.
    """
    after, units, records = planned.after, host.units, host.records
    settings, *unit_files = planned.files
    # Each before what it tells of: whoever comes after a kill knows what may be there, and what has to start anew.
    if planned.before is not None:
        records.write(replace(planned.before, owed=planned.restart))
    if not settings.is_empty:
        records.write_settings(settings.after)
        say(f"wrote {settings.path}")
    records.write(replace(after, units=(*planned.stale, *after.units), owed=planned.restart))
    records.make_home(after.home)
    try:
        if planned.linger:
            units.linger(True)
            say(f"{after.user}'s units run without a login from now on")
        _take_away(units, planned.stale, after.state_dir, say)
        for change in unit_files:
            if not change.is_empty:
                units.write(change.path, change.after)
                say(f"wrote {change.path}")
        units.reload()
        if not after.server:
            # Before a boot could start them.
            _no_namesake(host, after, clock, say)
        for name in planned.enable:
            units.enable(name)
        found = _start(host, planned, clock, say)
    except OrchctlError as error:
        error.hint = f"{error.hint}; {_AGAIN}" if error.hint else _AGAIN
        raise
    records.write(after)
    return found


def _start(host: Host, planned: Plan, clock: Clock, say: Callable[[str], None]) -> Status:
    if SERVER_UNIT in planned.restart:
        host.units.stop(SERVER_UNIT, patience_s=_STOP_S)
        say("server stopped")
    if RECOVER_TIMER in planned.restart:
        host.units.restart(RECOVER_TIMER)
    return up(host, planned.after, clock, say, anew=planned.restart)


def _no_namesake(host: Host, its: Installation, clock: Clock, say: Callable[[str], None]) -> None:
    """Raise GateRefused where another host has a worker of the name that one of ours will have.

    Each would take the other's runs for its own, find no process that carries them, and put them back while they run.
    """
    acts, prefect = host.stack(its), host.connect(its)
    for pool in its.pools:
        name = acts.worker_name(pool)
        if acts.alive(f"worker-{pool}") or (first := _heard(prefect, pool, name)) is None:
            continue
        say(f"a worker {name} was heard of at {first:%H:%M:%S}Z: waiting whether it still is, on another host")
        deadline = clock.monotonic() + _HEARTBEAT_S
        while clock.monotonic() < deadline:
            clock.sleep(1.0)
            if _heard(prefect, pool, name) not in {first, None}:
                raise GateRefused(
                    f"another host has a worker {name}: it polls the pool {pool}, and none runs here",
                    hint="each host needs a name of its own: hostnamectl set-hostname NAME",
                )


def _heard(prefect: Prefect, pool: str, name: str) -> datetime | None:
    """Return when the server heard last of a worker that it calls online, None where there is none of this name."""
    workers = prefect.workers(pool) if prefect.pool(pool) is not None else ()
    return next((each.last_heartbeat for each in workers if each.online and each.name == name), None)


def up(
    host: Host, its: Installation, clock: Clock, say: Callable[[str], None], *, anew: Collection[str] = ()
) -> Status:
    """Start what does not run, and wait until it works. Repeatable. `anew`: units of workers that are restarted."""
    acts, prefect = host.stack(its), host.connect(its)
    workers = host_units.worker_units(its)
    stack.up(
        acts,
        lambda _: prefect,
        {pool: limit for pool, limit in its.pools.items() if workers[pool] not in anew},
        port=host_settings.port_of(its.api_url) or 0,
        external_url=None if its.server else its.api_url,
        clock=clock,
        say=say,
    )
    for pool, unit in workers.items():
        if unit in anew:
            since = clock.now() - HEARTBEAT_SLACK
            host.units.restart(unit)
            say(f"worker of pool {pool} starts anew; what it runs goes on")
            stack.wait_for_worker(acts, prefect, pool, since=since, clock=clock, say=say)
    host.units.start(RECOVER_TIMER)
    return stack.status(acts, lambda _: prefect, its.api_url, tuple(its.pools), schedules=True if its.server else None)


def restart(host: Host, its: Installation, part: str | None, clock: Clock, say: Callable[[str], None]) -> Status:
    """Start the server (part `server`), the workers (`worker`) or both (None) anew, and wait until they work.

    Runs that are at work go on.
    """
    if part in {None, stack.SERVER} and its.server:
        host.units.stop(SERVER_UNIT, patience_s=_STOP_S)
        say("server stopped")
    return up(host, its, clock, say, anew=() if part == stack.SERVER else host_units.worker_units(its).values())


def _take_away(units: Units, paths: Sequence[str], state_dir: str, say: Callable[[str], None]) -> list[str]:
    """Stop, disable and remove units that are ours. Returns what was removed. Repeatable."""
    removed = []
    for path in reversed(paths):
        name, text = path.rpartition("/")[2], units.read(path)
        if text is not None and not host_units.is_ours(text, state_dir):
            say(f"left {path}: it is not of this installation any more")
            continue
        units.stop(name, patience_s=_STOP_S)
        units.disable(name)
        if text is not None:
            units.remove(path)
            removed.append(path)
            say(f"removed {path}")
        units.forget(name)
    return removed


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What was taken back. `database` is where the server's history stays, None where that cannot be said."""

    removed: tuple[str, ...]
    database: str | None


def uninstall(host: Host, clock: Clock, say: Callable[[str], None]) -> Uninstalled:
    """Take back what an install added, and nothing else. Repeatable, also after a kill halfway."""
    its = _ours(host)
    settings = host.records.settings_text()
    if its is None:
        if settings is not None:
            host.records.remove_settings()
        return Uninstalled((host.records.settings_path,) if settings is not None else (), None)
    if its.scope == "system" and not host.units.may_write():
        raise NotAllowed("units of the system are root's to remove", hint="run: sudo orchctl host uninstall")
    stack.down(host.stack(its), clock, say)
    removed = _take_away(host.units, its.units, its.state_dir, say)
    host.units.reload()
    host.units.remove_folders(its.folders)
    if its.lingering and host.units.lingers():
        host.units.linger(False)
        say(f"{its.user}'s units end with the last login again")
    where = _database(its, _parsed(its.settings, settings)) if its.server else None
    host.records.remove_settings()
    host.records.remove()
    return Uninstalled((*removed, *([its.settings] if settings is not None else ())), where)


def _database(its: Installation, settings: Mapping[str, str]) -> str:
    try:
        return database_url.of_settings(settings, its.home).shown
    except ValueError:
        return its.home


def parts(found: Status, host: StackHost) -> Status:
    """Return the status with the timer beside the workers: `recover`."""
    runs = host.alive(RECOVER)
    detail = "looks for runs that a worker lost" if runs else "does not look for runs that a worker lost"
    part = stack.Part(RECOVER, None, runs, detail, str(host.log_path(RECOVER)))
    return replace(found, parts=(*found.parts, part))
