"""`orchctl host up|down|status`: a local server and worker, judged by what they do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchctl.errors import OrchctlError, PrefectApiError, PrefectUnreachable
from orchctl.services.ports import Prefect, StackHost

SERVER = "server"
SERVER_PATIENCE_S = 180.0
EFFECT_PATIENCE_S = 60.0
WORKER_PATIENCE_S = 90.0
HEARTBEAT_SLACK = timedelta(seconds=1)
STOP_PATIENCE_S = 30.0
_POLL_S = 0.25
# A deployment of no pool, so that no worker can take its runs; it exists only while `host up` waits.
PROBE = "orchctl-probe"
PROBE_SCHEDULE = {"interval": 3600.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"}


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the services get it: `monotonic` in seconds, a way to wait, and `now` in UTC."""

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `pid` and `log` are None where this host did not start it; `detail` is what was seen of it."""

    name: str
    pid: int | None
    ok: bool
    detail: str
    log: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The stack. `schedules` is None where it was not asked, else whether the scheduler was seen to schedule."""

    api_url: str
    ui_url: str
    version: str | None
    parts: tuple[Part, ...]
    schedules: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that should run does."""
        return self.version is not None and all(part.ok for part in self.parts) and self.schedules is not False


def up(
    host: StackHost,
    connect: Callable[[str], Prefect],
    pools: Mapping[str, int],
    *,
    port: int,
    external_url: str | None,
    clock: Clock,
    say: Callable[[str], None],
    before_worker: Callable[[str], object] = lambda _: None,
) -> Status:
    """Start what is not running and wait until it works. Repeatable.

    `pools` says how many runs at a time the worker of each pool takes: a worker that runs already keeps its number.

    `before_worker` is called with its pool before a worker starts. With `external_url` only workers are started, for a
    server that somebody else keeps. Raises OrchctlError with the last lines of the log where something does not come
    up; what was started stays for a look.
    """
    if external_url is None:
        url, prefect = _server(host, connect, port, clock, say)
    else:
        url, prefect = external_url, connect(external_url)
        prefect.version()
    for pool, limit in pools.items():
        if prefect.pool(pool) is None:
            prefect.create_pool(pool, description="Jobs of this host, kept by orchctl")
        since = None
        if not host.alive(f"worker-{pool}"):
            before_worker(pool)
            since = clock.now() - HEARTBEAT_SLACK
            host.start_worker(pool, url, limit=limit)
        wait_for_worker(host, prefect, pool, since=since, clock=clock, say=say)
    return status(host, connect, url, tuple(pools), schedules=True if external_url is None else None)


def _server(
    host: StackHost, connect: Callable[[str], Prefect], port: int, clock: Clock, say: Callable[[str], None]
) -> tuple[str, Prefect]:
    if not host.alive(SERVER):
        url = host.start_server(port)
        say(f"server starting on {url}")
    else:
        url = host.api_url() or ""
        say(f"server is running (pid {host.pid(SERVER)})")
    prefect = connect(url)
    _wait_for_server(host, prefect, clock)
    _wait_for_effect(host, prefect, clock)
    say("server schedules runs")
    return url, prefect


def wait_for_worker(
    host: StackHost,
    prefect: Prefect,
    pool: str,
    *,
    since: datetime | None,
    clock: Clock,
    say: Callable[[str], None],
) -> None:
    """Wait until this host's worker of a pool polls. Raises OrchctlError.

    `since`: it was started then, and what the server remembers of one that is gone does not count.
    """
    name = f"worker-{pool}"
    _wait(
        lambda: _polls(host, prefect, pool, since),
        WORKER_PATIENCE_S,
        clock,
        alive=lambda: host.alive(name),
        failed=lambda: _not_up(host, name, f"the worker of pool {pool} does not poll"),
    )
    say(f"worker of pool {pool} is online")


def _polls(host: StackHost, prefect: Prefect, pool: str, since: datetime | None) -> bool:
    ours = [worker for worker in prefect.workers(pool) if worker.online and worker.name == host.worker_name(pool)]
    return any(since is None or (worker.last_heartbeat or since) > since for worker in ours)


def _wait_for_server(host: StackHost, prefect: Prefect, clock: Clock) -> None:
    def answers() -> bool:
        try:
            prefect.version()
        except PrefectUnreachable:
            return False
        return _is_ours(host)

    def failed() -> OrchctlError:
        why = "another program has its port" if host.port_is_anothers() else "the server does not answer"
        return _not_up(host, SERVER, why)

    _wait(answers, SERVER_PATIENCE_S, clock, alive=lambda: host.alive(SERVER), failed=failed)


def _is_ours(host: StackHost) -> bool:
    """Whether it is this host's own server that answers where it should: another one may have its port."""
    return host.alive(SERVER) and not host.port_is_anothers()


def _wait_for_effect(host: StackHost, prefect: Prefect, clock: Clock) -> None:
    """Wait until the server's scheduler makes a run of a deployment that exists for this only.

    /health answers also on a server that schedules nothing (a wrong version of SQLAlchemy is enough).
    """
    flow = prefect.create_flow(PROBE)
    try:
        body = {
            "name": PROBE,
            "flow_id": flow,
            "schedules": [{"slug": PROBE, "schedule": PROBE_SCHEDULE, "active": True}],
        }
        deployment = prefect.create_deployment(body)
        _wait(
            lambda: bool(prefect.scheduled_runs([deployment])),
            EFFECT_PATIENCE_S,
            clock,
            alive=lambda: host.alive(SERVER),
            failed=lambda: _not_up(host, SERVER, "the server answers and schedules nothing"),
        )
    finally:
        # Suppressed: the error that brought us here tells more.
        with contextlib.suppress(PrefectApiError):
            prefect.delete_flow(flow)


def _wait(
    done: Callable[[], bool],
    patience_s: float,
    clock: Clock,
    *,
    alive: Callable[[], bool],
    failed: Callable[[], OrchctlError],
) -> None:
    deadline = clock.monotonic() + patience_s
    while not done():
        if clock.monotonic() >= deadline or not alive():
            raise failed()
        clock.sleep(_POLL_S)


def _not_up(host: StackHost, name: str, what: str) -> OrchctlError:
    tail = host.log_tail(name)
    state = "it is still running" if host.alive(name) else "it has ended"
    return OrchctlError(f"{what}; {state}" + (f"\n{tail}" if tail else ""), hint=f"its log: {host.log_path(name)}")


def down(host: StackHost, clock: Clock, say: Callable[[str], None]) -> tuple[str, ...]:
    """Stop workers and what they run, then the server. Repeatable. Returns the names of what was running."""
    stopped = []
    for name in sorted(host.names(), key=lambda name: name == SERVER):
        if name == SERVER:
            # The guards of interrupted runs end their commands and tell the server: it must still be there.
            deadline = clock.monotonic() + STOP_PATIENCE_S
            if host.guards():
                say(f"waiting for {host.guards()} interrupted runs to end")
            while host.guards() and clock.monotonic() < deadline:
                clock.sleep(_POLL_S)
        if host.stop(name, patience_s=STOP_PATIENCE_S):
            stopped.append(name)
            say(f"{name} stopped")
    return tuple(stopped)


def status(
    host: StackHost,
    connect: Callable[[str], Prefect],
    url: str,
    pools: Sequence[str],
    *,
    schedules: bool | None = None,
) -> Status:
    """Look at the processes and ask the server; never raises where it does not answer."""
    prefect = connect(url)
    version, why = None, ""
    try:
        version = prefect.version()
    except OrchctlError as error:
        why = error.message
    detail = f"Prefect {version} at {prefect.shown}" if version else why
    ours = url == host.api_url()
    serves = version is not None
    if serves and ours and not _is_ours(host):
        serves, detail = False, f"another program answers at {prefect.shown}, and not the server of this host"
    parts = [
        Part(
            SERVER,
            host.pid(SERVER) if ours else None,
            serves,
            detail,
            _log(host, SERVER) if ours else None,
        )
    ]
    parts += [_worker_part(host, prefect if version else None, pool) for pool in pools]
    return Status(prefect.shown, prefect.ui_url(), version, tuple(parts), schedules)


def _worker_part(host: StackHost, prefect: Prefect | None, pool: str) -> Part:
    name = f"worker-{pool}"
    if prefect is None:
        return Part(name, host.pid(name), False, "the server does not answer", _log(host, name))
    try:
        workers = prefect.workers(pool) if prefect.pool(pool) is not None else ()
    except OrchctlError as error:  # a server without its database answers, and knows nothing
        return Part(name, host.pid(name), False, error.message, _log(host, name))
    online = [worker for worker in workers if worker.online]
    # The server calls a worker online for a while after it has gone: where it is ours, its process tells more.
    gone = is_gone(host, name)
    alive = [worker for worker in online if not (gone and worker.name == host.worker_name(pool))]
    detail = f"{len(alive)} online in pool {pool}" + ("; its process is gone" if gone else "")
    # Those of other hosts do not make up for one that this host keeps, and that is gone.
    return Part(name, host.pid(name), bool(alive) and not gone, detail, _log(host, name))


def is_gone(host: StackHost, name: str) -> bool:
    """Whether a part is recorded as one of this host's, and its process does not live."""
    return name in host.names() and host.pid(name) is None


def _log(host: StackHost, name: str) -> str | None:
    return str(host.log_path(name)) if name in host.names() else None
