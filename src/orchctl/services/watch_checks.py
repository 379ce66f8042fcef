"""What the watchdog looks at, but for the slots: server, workers, runs ahead, handovers, disks, backups, catalog.

Each check yields problems, and raises `Unseen` where it cannot be made: then nothing is said of its area.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from orchctl.core import deployments as wanted
from orchctl.core import doctor_host, slots, status
from orchctl.core.alerts import Alerts, Event
from orchctl.core.alerts import Watchdog as Settings
from orchctl.core.catalog import Catalog, Job
from orchctl.core.doctor_facts import Backup, Disk
from orchctl.core.durations import human
from orchctl.core.remote import RemoteDeployment, RemoteWorker
from orchctl.core.watch import Problem
from orchctl.errors import OrchctlError, PrefectRejected
from orchctl.services.ports import Owners, Prefect
from orchctl.services.watch_ports import Clock, OpenHandovers, World

SERVER, WORKER, AHEAD, HANDOVER = "server", "worker", "ahead", "handover"
DISK, BACKUPS, CATALOG, OWNER, MISSED, STATE = "disk", "backups", "catalog", "owner", "missed", "state"
PATIENCE_S = 12.0
"""How long the server has to answer, in all: a look must end before the next one begins."""
BOOTING_S = 180.0
"""After a boot server and workers take this long at most to come up."""
HEARTBEAT = timedelta(seconds=90)
"""A worker that was not heard of for so long is gone: it beats every 30 s, and Prefect allows for three."""
AHEAD_AFTER_S = 180.0
"""Prefect's scheduler goes round every minute; what `sync` changes has no runs until then."""
CATALOG_AFTER_S = 300.0
"""While somebody edits the catalog it may be invalid."""
MARGIN_PERCENT = 2
"""So much more must be free until a disk counts as no longer full: else it would be told at every turn."""
_POLL_S = 2.0
_OUT_INODES = 0.02


EVENTS: Mapping[str, Event] = {
    SERVER: "server_gone",
    WORKER: "worker_gone",
    AHEAD: "nothing_scheduled",
    HANDOVER: "handover_unfinished",
    OWNER: "handover_unfinished",
    DISK: "disk_full",
    STATE: "disk_full",
    BACKUPS: "backups_old",
    CATALOG: "catalog_invalid",
    MISSED: "missed_slots",
}
"""What is told of each area."""


class Unseen(Exception):
    """A check could not be made; its words say why."""


def why(error: Exception) -> str:
    """Say why something could not be looked at."""
    return str(error) if isinstance(error, (Unseen, OrchctlError)) else f"unexpected {type(error).__name__}: {error}"


def server(world: World, prefect: Prefect) -> Iterator[Problem]:
    """Ask the server for its version until it answers, as long as there is patience."""
    said = _why_silent(prefect, world.clock)
    if said is not None:
        yield Problem(
            SERVER,
            "server_gone",
            said,
            about=world.api_url,
            after_s=world.alerts.watchdog.server_after + booting(world.clock),
            command="orchctl host status",
        )


def _why_silent(prefect: Prefect, clock: Clock) -> str | None:
    deadline = clock.monotonic() + PATIENCE_S
    while True:
        try:
            prefect.version()
        except OrchctlError as error:
            if clock.monotonic() + _POLL_S >= deadline:
                return error.message
            clock.sleep(_POLL_S)
        else:
            return None


def booting(clock: Clock) -> float:
    """Return the seconds that are to be allowed for more because this host has just booted."""
    return max(0.0, BOOTING_S - clock.uptime())


def workers(prefect: Prefect, catalog: Catalog, settings: Settings, clock: Clock) -> Iterator[Problem]:
    """See whether a worker of each work pool is heard of. Raises Unseen."""
    now = clock.now()
    for pool in sorted({job.work_pool for job in catalog.jobs.values()}):
        try:
            found = prefect.workers(pool)
        except PrefectRejected:
            found = ()
        except OrchctlError as error:
            raise Unseen(error.message) from error
        if any(_is_heard(worker, now) for worker in found):
            continue
        heard = max((each.last_heartbeat for each in found if each.last_heartbeat is not None), default=None)
        last = f"none was heard of since {heard:%Y-%m-%d %H:%M:%S}Z" if heard is not None else "none was ever heard of"
        yield Problem(
            f"{WORKER}:{pool}",
            "worker_gone",
            f"work pool {pool}: {last}",
            about=f"work pool {pool}",
            after_s=max(0.0, settings.worker_after - HEARTBEAT.total_seconds()) + booting(clock),
            command="orchctl host status",
        )


def _is_heard(worker: RemoteWorker, now: datetime) -> bool:
    return worker.online and worker.last_heartbeat is not None and now - worker.last_heartbeat <= HEARTBEAT


def live_jobs(catalog: Catalog, owners: Owners) -> tuple[dict[str, Job], list[Problem]]:
    """Return the jobs whose slots are Prefect's to run, and of which that cannot be known."""
    found, problems = dict[str, Job](), list[Problem]()
    for name, job in catalog.jobs.items():
        if not job.schedules:
            continue
        try:
            owner = owners.read(name) if job.has_legacy else None
        except OrchctlError as error:
            problems.append(_broken(OWNER, name, job.tags, error))
            continue
        if not job.has_legacy or (owner is not None and not owner.draining):
            found[name] = job
    return found, problems


def ahead(prefect: Prefect, catalog: Catalog, live: Mapping[str, Job], clock: Clock) -> Iterator[Problem]:
    """See whether each live job has a run scheduled ahead. Raises Unseen."""
    if not live:
        return
    now = clock.now()
    try:
        found = {
            each.name: each
            for each in prefect.deployments(names=tuple(live), tag=wanted.TAG)
            if each.name in live and wanted.is_ours(each, catalog.name)
        }
        runs = prefect.next_runs([each.id for each in found.values()], now=now) if found else ()
    except OrchctlError as error:
        raise Unseen(error.message) from error
    coming = {run.deployment_id for run in runs if run.expected_start is not None and run.expected_start > now}
    for name, job in live.items():
        deployment = found.get(name)
        why = _why_nothing(deployment, now) if deployment is None or deployment.id not in coming else None
        if why is not None:
            yield Problem(
                f"{AHEAD}:{name}",
                "nothing_scheduled",
                why,
                job=name,
                tags=job.tags,
                after_s=AHEAD_AFTER_S + booting(clock),
                command=f"orchctl status {name}",
            )


def _why_nothing(deployment: RemoteDeployment | None, now: datetime) -> str | None:
    """Say why a job without runs ahead has none; None where none is due."""
    if deployment is None:
        return "Prefect does not have the job: `orchctl sync`"
    if deployment.paused:
        return "its deployment is paused in Prefect"
    active = [each for each in deployment.schedules if each.active]
    if not active:
        return "all its schedules are paused in Prefect, or it has none there"
    if any(status.due_soon(each.schedule, now) for each in active):
        return "Prefect's scheduler makes no runs for it"
    return None


def handovers(found: OpenHandovers, catalog: Catalog | None, settings: Settings) -> Iterator[Problem]:
    """See which handovers are unfinished. Raises Unseen."""
    try:
        names = found.unfinished()
    except OrchctlError as error:
        raise Unseen(error.message) from error
    for name in names:
        job = catalog.jobs.get(name) if catalog is not None else None
        tags = job.tags if job is not None else ()
        try:
            opened = found.open_of(name)
        except OrchctlError as error:
            yield _broken(HANDOVER, name, tags, error)
            continue
        if opened is None:
            continue
        kind = opened.opened.kind
        yield Problem(
            f"{HANDOVER}:{name}",
            "handover_unfinished",
            f"a {kind} began at {opened.opened.at:%Y-%m-%d %H:%M:%S}Z and has not ended",
            job=name,
            tags=tags,
            since=opened.opened.at,
            after_s=settings.handover_after,
            command="orchctl recover",
        )


def _broken(area: str, job: str, tags: tuple[str, ...], error: OrchctlError) -> Problem:
    return Problem(
        f"{area}:{job}", "handover_unfinished", error.message, job=job, tags=tags, command=f"orchctl status {job}"
    )


def disks(world: World, catalog: Catalog | None, full: Collection[str]) -> Iterator[Problem]:
    """See whether what state and data lie on is nearly full, each file system once. `full`: the keys that were."""
    found: dict[int, tuple[Disk, list[str]]] = {}
    for what, path in world.places(catalog).items():
        try:
            disk = world.disk(path)
        except OrchctlError as error:
            yield Problem(f"{DISK}:{path}", "disk_full", error.message, about=path, command=f"df {path}")
            continue
        found.setdefault(disk.device, (disk, []))[1].append(what)
    for disk, whats in found.values():
        key = f"{DISK}:{disk.path}"
        percent = world.alerts.watchdog.min_free_percent + (MARGIN_PERCENT if key in full else 0)
        left = [
            f"{free * 100 // total} % of its {word} are free ({shown})"
            for free, total, word, least, shown in (
                (disk.free, disk.total, "bytes", percent / 100, f"{disk.free // 2**20} of {disk.total // 2**20} MiB"),
                (disk.free_inodes, disk.inodes, "inodes", _OUT_INODES, f"{disk.free_inodes} of {disk.inodes}"),
            )
            if total > 0 and free < total * least
        ]
        if left:
            held = ", ".join(whats)
            yield Problem(
                key, "disk_full", f"{'; '.join(left)}; it holds {held}", about=disk.path, command=f"df -h {disk.path}"
            )


def backups(last: Backup | None, now: datetime) -> Iterator[Problem]:
    """See whether the last backup is too old, or is none; where nobody ever made one, nothing is said."""
    if last is None:
        return
    age = now - last.at
    if last.problem is not None:
        said = f"the last backup did not verify: {last.problem}"
    elif age > doctor_host.BACKUP_AGE:
        said = f"the last backup is {human(age.total_seconds())} old"
    else:
        return
    yield Problem(BACKUPS, "backups_old", said, about=last.path, command="orchctl host backup")


def files(problem: str | None, alerts_problem: str | None) -> Iterator[Problem]:
    """Say what is wrong with the catalog's files."""
    for key, said, about in (
        (CATALOG, problem, "the last applied catalog goes on"),
        (f"{CATALOG}:alerts", alerts_problem, "alerts.toml; the last valid one goes on"),
    ):
        if said is not None:
            yield Problem(key, "catalog_invalid", said, about=about, after_s=CATALOG_AFTER_S, command="orchctl check")


def patience(job: Job, alerts: Alerts) -> timedelta:
    """Return how long after it fell due a slot of a job may still be taken, and that it was not counts as missed."""
    on_time = slots.ON_TIME.total_seconds()
    late = on_time if job.catchup == "skip" else max(on_time, job.catchup_window)
    late += job.timeout if job.overlap == "queue" else 0
    return timedelta(seconds=late + alerts.watchdog.missed_after)
