"""The checks of `doctor` that look at this host, one function each. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from orchctl.core import doctor_alerts as told
from orchctl.core import doctor_host as host
from orchctl.core import doctor_server as server
from orchctl.core.alerts import Watchdog
from orchctl.core.doctor import Finding, failed_look, failure, ok
from orchctl.core.doctor_facts import FileFacts
from orchctl.core.doctor_host import Kept
from orchctl.core.legacy import Unit
from orchctl.core.mask import looks_secret
from orchctl.core.words import counted
from orchctl.errors import CatalogInvalid, OrchctlError, PrefectUnauthorized
from orchctl.services import stack
from orchctl.services.doctor_world import Seen, unseen

Look = Callable[[Seen], Iterable[Finding]]


# --- configuration, software


def _catalog(seen: Seen) -> Iterator[Finding]:
    found = seen.read_catalog.or_error()
    if isinstance(found, CatalogInvalid):
        yield failure("catalog", found.summary, found.hint or "`orchctl check` lists every problem")
    elif isinstance(found, OrchctlError):
        yield failed_look("catalog", found)
    else:
        steps = sum(len(job.steps) for job in found.jobs.values())
        counts = [counted(len(found.jobs), "job"), counted(len(found.schedules), "schedule")]
        counts += [counted(steps, "step")] if steps else []
        yield ok("catalog", f"{', '.join(counts)} in {seen.world.config_dir}")


def _versions(seen: Seen) -> Iterator[Finding]:
    installed = seen.installation.or_none()
    # Of one that is not installed anew since an upgrade, both count: that of the units, and ours.
    for python in dict.fromkeys([*([installed.python] if installed else []), seen.world.python]):
        try:
            found = seen.world.facts.requirements(python)
        except OrchctlError as error:
            yield failed_look("versions", error)
        else:
            yield from server.versions(found, python)
    yield from unseen("versions", seen.installed)


def _server_version(seen: Seen) -> Iterator[Finding]:
    seen.prefect()
    installed = seen.installation.or_none()
    found = seen.world.facts.requirements(installed.python if installed else seen.world.python)
    wanted = next((each for each in found if each.name == "prefect"), None)
    yield from server.server_version(seen.version(), wanted, within=seen.world.facts.within)


# --- host


def _state(seen: Seen) -> Iterator[Finding]:
    facts, path = seen.world.facts, seen.world.state_dir
    folder = facts.file(path)
    files = seen.sampled(path) if folder is not None and folder.is_folder else None
    # Its record is a part of the state directory, which no other check would tell of.
    record = seen.installation.or_error()
    if isinstance(record, OrchctlError):
        yield failed_look("state", record)
    archive = seen.world.unfinished_restore()
    if archive is not None:
        yield host.unfinished_restore(archive)
    upgrade = seen.world.unfinished_upgrade()
    if upgrade is not None:
        yield host.unfinished_upgrade(upgrade)
    yield from host.state(path, folder, files, me=facts.who(None), worker=seen.worker())


def _units(seen: Seen) -> Iterator[Finding]:
    installed = seen.installation()
    found: dict[str, Unit] = {}
    changed: Collection[str] = ()
    if installed is not None:
        names = [path.rpartition("/")[2] for path in installed.units]
        read = seen.world.systemd.read(installed.manager, names, handlers=False)
        found = {**read.services, **read.timers}
        changed = seen.world.changed_units(installed)
    yield from host.units(installed, found, changed)


def _ports(seen: Seen) -> Iterator[Finding]:
    version, installed = seen.version.or_error(), seen.installation.or_none()
    found = seen.listeners.or_error()
    silent = found.message if isinstance(found, OrchctlError) else None
    yield from server.ports(
        seen.api_url(),
        () if isinstance(found, OrchctlError) else found,
        answers=isinstance(version, (str, PrefectUnauthorized)),
        held_by_two=installed is not None and installed.server and seen.world.background.alive(stack.SERVER),
        silent=silent,
    )


def _clock(seen: Seen) -> Iterator[Finding]:
    seen.version.or_none()  # its answer says what time the server has
    client = seen.client.or_none()
    offset = client.clock_offset_s if client is not None else None
    yield host.clock(now=seen.world.now(), offset_s=offset, synchronised=seen.world.systemd.synchronised())


def _zone(seen: Seen) -> Iterator[Finding]:
    here, catalog = seen.world.facts.zone(), seen.read_catalog.or_none()
    of_legacy = seen.legacy_jobs() if catalog is not None else []
    zone = catalog.timezone if catalog is not None else here
    yield host.zone(here, zone, legacy=of_legacy, exists=seen.world.facts.is_zone)
    yield from unseen("zone", seen.catalog)


def _disk(seen: Seen) -> Iterator[Finding]:
    catalog, installed, alerts = seen.read_catalog.or_none(), seen.installation.or_none(), seen.alerts.or_none()
    paths = [seen.world.state_dir, *(seen.data_roots() if catalog is not None else [])]
    paths += [installed.home] if installed is not None else []
    watched = alerts.watchdog if alerts is not None else Watchdog()
    yield from host.disks([seen.world.facts.disk(path) for path in paths], low=watched.min_free_percent / 100)
    yield from unseen("disk", seen.catalog, seen.installed)


def _permissions(seen: Seen) -> Iterator[Finding]:
    roots = {root: seen.world.facts.file(root) for root in seen.data_roots()}
    missing = [root for root, there in roots.items() if there is None]
    sampled = [seen.sampled(root) for root in roots if root not in missing]
    yield from host.permissions(sampled, missing, seen.worker())


def _secrets(seen: Seen) -> Iterator[Finding]:
    kept, unread = list[Kept](), list[str]()
    for path, (what, optional) in _secret_files(seen).items():
        try:
            facts = seen.world.facts.file(path)
        except OrchctlError:
            unread.append(path)
            continue
        holds = what != _ENV_FILE or any(looks_secret(name) for name in seen.world.facts.variables(path))
        if facts is not None or not optional:
            kept.append(Kept(what, path, facts, holds))
    yield from host.secrets(kept, unread)
    yield from unseen("secrets", seen.catalog, seen.installed, seen.alerting)


_ENV_FILE = "an environment file of a job"


def _secret_files(seen: Seen) -> dict[str, tuple[str, bool]]:
    """Return by path what each file is for, and whether it may be missing."""
    installed, alerts, catalog = seen.installation.or_none(), seen.alerts.or_none(), seen.read_catalog.or_none()
    found: dict[str, tuple[str, bool]] = {}
    if installed is not None:
        found[installed.settings] = ("the settings of server and workers", False)
    for path in seen.world.watchdog_files():
        found.setdefault(path, ("variables of the watchdog's unit", False))
    for path in (path for job in (catalog.jobs.values() if catalog else ()) for path in job.env_files):
        found.setdefault(path.removeprefix("-"), (_ENV_FILE, path.startswith("-")))
    loki = catalog.logs.loki if catalog is not None else None
    if loki is not None and loki.url_file is not None:
        found.setdefault(loki.url_file, ("the address of Loki", False))
    for channel in alerts.channels.values() if alerts is not None else ():
        for secret in channel.secrets:
            if secret.file is not None:
                found.setdefault(secret.file, (f"a secret of the channel {channel.name}", False))
    dead_man = alerts.watchdog.dead_man if alerts is not None else None
    if dead_man is not None and dead_man.file is not None:
        found.setdefault(dead_man.file, ("the dead-man address", False))
    return found


def _leftovers(seen: Seen) -> Iterator[Finding]:
    roots = [seen.world.state_dir, *(seen.data_roots() if seen.read_catalog.or_none() is not None else [])]
    files = (each for root in roots for each in seen.sampled(root).files)
    yield from host.leftovers(seen.dead(), files, now=seen.now)
    yield from unseen("leftovers", seen.catalog)


# --- safekeeping


def _backups(seen: Seen) -> Iterator[Finding]:
    last = seen.world.last_backup()
    there: FileFacts | None = seen.world.facts.file(last.path) if last is not None else None
    yield from host.backups(last, now=seen.now, there=there)


def _alerts(seen: Seen) -> Iterator[Finding]:
    found = seen.alerts.or_error()
    if isinstance(found, CatalogInvalid):
        yield failure("alerts", found.summary, found.hint or "put it right in alerts.toml")
    elif isinstance(found, OrchctlError):
        yield failed_look("alerts", found)
    else:
        deliveries = seen.world.deliveries(seen.read_catalog.or_none())
        yield from told.alerts(found, deliveries, watched=seen.world.watched(), now=seen.now)
        if found is not None:
            yield from told.given_up(seen.sampled(f"{seen.home()}/{_GIVEN_UP}"), now=seen.now)
            prefect = seen.prefect()
            yield from told.in_prefect(seen.world.alerts_in_prefect(found, seen.catalog(), prefect))


_GIVEN_UP = "dlq"
"""Where under its home a server on this host leaves the events that it gave up: Prefect's messaging/memory.py."""

LOOKS: Mapping[str, Look] = {
    "catalog": _catalog,
    "versions": _versions,
    "server-version": _server_version,
    "state": _state,
    "units": _units,
    "ports": _ports,
    "clock": _clock,
    "zone": _zone,
    "disk": _disk,
    "permissions": _permissions,
    "secrets": _secrets,
    "leftovers": _leftovers,
    "backups": _backups,
    "alerts": _alerts,
}
"""The look of each of these checks, by its name."""
