"""What `orchctl host install` would change, and what it refuses: gathered, and planned. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchctl.core import host_settings, host_units
from orchctl.core.env_file import parse
from orchctl.core.host_units import FileChange
from orchctl.core.installation import AUTH_CLIENT, SERVER_UNIT, Installation
from orchctl.errors import GateRefused, NotAllowed, StateBroken, UsageError
from orchctl.services.host_install_ports import Asked, Host

DEFAULT_PORT = 4200


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
    before = ours(host)
    server = asked.server if asked.server is not None else before.server if before is not None else True
    _check(host, asked, before, server=server)
    text = host.records.settings_text()
    kept = parsed(host.records.settings_path, text)
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


def ours(host: Host) -> Installation | None:
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
    if before is None and files[0].before is None and (kept := host.records.kept_settings()) is not None:
        notes.append(f"settings from before are in {kept}: what is still wanted of them goes into {after.settings}")
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
    _within_bounds(host, asked.python)


def _within_bounds(host: Host, python: str) -> None:
    """Raise GateRefused where the units would run packages that orchctl does not work with.

    With a newer FastAPI or SQLAlchemy the server answers, and schedules nothing.
    """
    wrong = [each for each in host.needs(python) if not each.holds]
    if wrong:
        has = ", ".join(f"{each.name} {each.installed}" if each.installed else f"no {each.name}" for each in wrong)
        wanted = " ".join(f'"{each.name}{each.bounds}"' for each in wrong)
        raise GateRefused(
            f"{python} has {has}, and orchctl needs {wanted}",
            hint=f"{python} -m pip install {wanted}, best with -c constraints.txt of orchctl's source",
        )


def reachable(host: Host, planned: Plan) -> None:
    """Raise GateRefused where the server would be led to a database that it cannot open. Changes nothing.

    Before anything is written: it goes on with the database that it has. Takes seconds.
    """
    settings = host_units.to_try(planned.files)
    why = host.no_way_to_database(settings, planned.after.python, planned.after.user) if settings is not None else None
    if why is not None:
        raise GateRefused(
            f"{planned.after.user} cannot open the database: {why}", hint="see its URL; nothing was changed"
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


def parsed(path: str, text: str | None) -> dict[str, str]:
    """Return what the file of settings holds; None is no file. Raises StateBroken."""
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
    if host_units.is_privileged(port) and after.scope == "user":
        raise GateRefused(
            f"a user's units may not listen on port {port}",
            hint=f"name one from {host_units.PRIVILEGED} on with --port, or install with --scope system",
        )
    if not is_ours and port is not None and not host.port_is_free(port):
        raise GateRefused(
            f"port {port} of {host_settings.LOOPBACK} is taken by another program",
            hint="stop it, or name another port with --port; 0 takes a free one",
        )
