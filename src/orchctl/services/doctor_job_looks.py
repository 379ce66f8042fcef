"""The checks of `doctor` that ask Prefect, or look at what starts jobs, one function each. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from orchctl.core import database_url, ownership
from orchctl.core import deployments as wanted
from orchctl.core import doctor_hosts as beside
from orchctl.core import doctor_jobs as jobs
from orchctl.core import doctor_server as server
from orchctl.core.doctor import Finding, failed_look, failure, ok, or_ok, unknown
from orchctl.core.words import counted
from orchctl.errors import OrchctlError, PrefectUnauthorized
from orchctl.services import ownership as owning
from orchctl.services import stack
from orchctl.services.doctor_world import Seen, unseen
from orchctl.services.ports import Prefect, StackHost

# --- server


def _api(seen: Seen) -> Iterator[Finding]:
    client = seen.client.or_error()
    if isinstance(client, OrchctlError):
        yield failed_look("api", client)
    else:
        yield server.api(client.shown, seen.version.or_error())


def _auth(seen: Seen) -> Iterator[Finding]:
    installed = seen.installation.or_none()
    demanded = installed is not None and installed.server and installed.api_url == seen.api_url()
    yield server.auth(
        seen.version.or_error(),
        seen.bare.or_error(),
        ours=seen.world.ours(),
        demanded=demanded,
        local=server.is_local(seen.api_url()),
    )


def _exposed(seen: Seen) -> Iterator[Finding]:
    bare = seen.bare.or_error()
    answers_all = False if isinstance(bare, PrefectUnauthorized) else True if isinstance(bare, str) else None
    yield from server.exposed(seen.api_url(), seen.listeners(), answers_all=answers_all)


def _database(seen: Seen) -> Iterator[Finding]:
    installed, url = seen.installation(), seen.api_url()
    if installed is not None and installed.server:
        try:
            found = database_url.of_settings(seen.world.settings(installed), installed.home)
        except ValueError as error:
            yield unknown("database", str(error), "see the settings of `host install`")
            return
    elif seen.world.background.api_url() == url:
        found = database_url.of_settings({}, seen.home())
    else:
        yield ok("database", "not kept by orchctl on this host")
        return
    files = []
    if isinstance(found, database_url.Sqlite):
        paths = (found.path, f"{found.path}-wal", f"{found.path}-shm")
        files = [each for path in paths if (each := seen.world.facts.file(path)) is not None]
        if not files:
            yield failure("database", f"{found.path} is not there", "start the server, or restore a backup")
            return
    yield from server.database(files, kind=f"{found.kind} at {found.shown}")


# --- scheduling


def _pools(seen: Seen) -> Iterator[Finding]:
    prefect = seen.prefect()
    names = sorted({job.work_pool for job in seen.catalog().jobs.values()})
    pools = {name: prefect.pool(name) for name in names}
    found = {name: (pool, prefect.queues(name) if pool is not None else ()) for name, pool in pools.items()}
    yield from jobs.pools(found)


def _limits(seen: Seen) -> Iterator[Finding]:
    yield from jobs.limits(seen.plan())


def _worker(seen: Seen) -> Iterator[Finding]:
    prefect = seen.prefect()
    names = sorted({job.work_pool for job in seen.catalog().jobs.values()})
    parts: list[stack.Part] = []
    for keeper, pools in _workers_of(seen, names):
        found = stack.status(keeper, lambda _url: prefect, seen.api_url(), pools)
        parts += [part for part in found.parts if part.name != stack.SERVER]
        for pool in pools:
            if not stack.is_gone(keeper, f"worker-{pool}"):
                _polled(prefect, pool)
    for part in parts:
        if not part.ok:
            fix = "start one: `orchctl host up`, or the unit of `host install`"
            yield failure("worker", f"{part.name}: {part.detail}", fix)
    if all(part.ok for part in parts):
        seen_ok = "; ".join(part.detail for part in parts) or "no pool needs one"
        yield from or_ok(_of_status("worker", seen), "worker", seen_ok)


def _polled(prefect: Prefect, pool: str) -> None:
    """Raise what kept Prefect from saying who polls a pool: that is not known then, and no worker is at fault."""
    if prefect.pool(pool) is not None:
        prefect.workers(pool)


def _hosts(seen: Seen) -> Iterator[Finding]:
    world, catalog, prefect = seen.world, seen.catalog(), seen.prefect()
    pools = sorted({job.work_pool for job in catalog.jobs.values()})
    own = {
        pool: keeper.worker_name(pool)
        for keeper, names in _workers_of(seen, pools)
        for pool in names
        if keeper.pid(f"worker-{pool}") is not None
    }
    if not own:
        yield beside.nothing_served()
        return
    polling = {pool: [each.name for each in prefect.workers(pool) if each.online] for pool in own}
    locks = f"{world.state_dir}/locks"
    yield from beside.hosts(
        beside.others(polling, own),
        locks,
        world.facts.mount(locks),
        prefect.deployments(names=tuple(catalog.jobs), tag=wanted.TAG),
        catalog=catalog.name,
        pools=pools,
        legacy={
            pool: [job.name for job in catalog.jobs.values() if job.has_legacy and job.work_pool == pool]
            for pool in own
        },
        here=(world.state_dir, world.applied.state_id()),
    )


def _workers_of(seen: Seen, pools: Sequence[str]) -> Iterator[tuple[StackHost, list[str]]]:
    """Yield what keeps the worker of each pool here: the units of an installation, or what `host up` started."""
    installed = seen.installed()
    own = [pool for pool in pools if installed is not None and pool in installed.pools]
    if installed is not None and own:
        yield seen.world.stack(installed), own
    yield seen.world.background, [pool for pool in pools if pool not in own]


def _deployments(seen: Seen) -> Iterator[Finding]:
    def wrong() -> Iterator[Finding]:
        yield from _of_status("deployments", seen)
        if seen.status().unreachable is None:
            yield from jobs.of_plan(seen.plan())

    yield from or_ok(wrong(), "deployments", jobs.seen_of("deployments", seen.status().jobs))


def _scheduler(seen: Seen) -> Iterator[Finding]:
    yield from or_ok(_of_status("scheduler", seen), "scheduler", jobs.seen_of("scheduler", seen.status().jobs))


def _late(seen: Seen) -> Iterator[Finding]:
    yield from or_ok(_of_status("late", seen), "late", jobs.seen_of("late", seen.status().jobs))


def _of_status(check: str, seen: Seen) -> Iterator[Finding]:
    """Yield what `status` found that belongs to a check. Raises OrchctlError where Prefect would have to say it."""
    if check in jobs.OF_PREFECT:
        seen.prefect()
    found = seen.status()
    if check in {"scheduler", "late"} and found.unreachable is not None:
        # It answered when it was asked for its version, and not when it was asked for runs.
        raise OrchctlError(found.unreachable, hint="see `api`")
    named = [(job.job, each) for job in found.jobs for each in job.findings]
    yield from jobs.of_status(check, [*((None, each) for each in found.findings), *named])


# --- legacy


def _handover(seen: Seen) -> Iterator[Finding]:
    owners, handovers = seen.world.owners, seen.world.handovers
    names = sorted({*owners.names(), *handovers.unfinished()})
    gone = ("owned-and-gone",)

    def wrong() -> Iterator[Finding]:
        # From the files alone: a host without a catalog, or without Prefect, can have an unfinished handover too.
        known = [
            (name, each)
            for name in names
            for each in ownership.findings(name, owning.known(owners, handovers, name), active=False, now=seen.now)
        ]
        yield from jobs.of_status("handover", known)
        if seen.read_catalog.or_none() is not None:
            yield from jobs.of_status("handover", [(None, each) for each in seen.status().findings], codes=gone)

    yield from or_ok(wrong(), "handover", f"none is unfinished; Prefect owns {counted(len(owners.names()), 'job')}")


def _triggers(seen: Seen) -> Iterator[Finding]:
    if not any(job.has_legacy for job in seen.catalog().jobs.values()):
        yield jobs.nothing_legacy("triggers")
        return
    yield from or_ok(_of_status("triggers", seen), "triggers", jobs.seen_of("triggers", seen.status().jobs))


def _handlers(seen: Seen) -> Iterator[Finding]:
    legacy = seen.legacy_jobs()
    if not legacy:
        yield ok("handlers", "no job is started by legacy units")
        return
    yield from jobs.handlers(seen.survey(), legacy)


def _linger(seen: Seen) -> Iterator[Finding]:
    installed = seen.installation.or_none()
    of_user = installed is not None and installed.scope == "user"
    lingers = seen.world.systemd.lingers(installed.manager) if installed and of_user else None
    legacy = seen.legacy_jobs() if seen.read_catalog.or_none() is not None else []
    yield from jobs.linger(seen.survey() if legacy else None, legacy, installed, lingers=lingers)
    yield from unseen("linger", seen.catalog, seen.installed)


LOOKS: Mapping[str, Callable[[Seen], Iterable[Finding]]] = {
    "api": _api,
    "auth": _auth,
    "exposed": _exposed,
    "database": _database,
    "pools": _pools,
    "limits": _limits,
    "worker": _worker,
    "hosts": _hosts,
    "deployments": _deployments,
    "scheduler": _scheduler,
    "late": _late,
    "handover": _handover,
    "triggers": _triggers,
    "handlers": _handlers,
    "linger": _linger,
}
"""The look of each of these checks, by its name."""
