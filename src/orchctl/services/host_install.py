"""`orchctl host install`: server and workers as units of systemd; planned (host_install_plan.py), then applied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from orchctl.core import host_settings, host_units
from orchctl.core.installation import RECOVER_TIMER, SERVER_UNIT, Installation
from orchctl.errors import GateRefused, OrchctlError
from orchctl.services import host_install_plan, stack
from orchctl.services.host_install_plan import Plan
from orchctl.services.host_install_ports import Asked, Host, UnitHost, Units
from orchctl.services.ports import Prefect
from orchctl.services.stack import HEARTBEAT_SLACK, Clock, Status

RECOVER = "recover"
"""The part beside server and workers: the timer that looks for lost runs."""
STOP_S = 120.0
_HEARTBEAT_S = 40.0
"""A worker tells the server every 30 seconds that it is there."""
_AGAIN = "`orchctl host install` goes on with it, `orchctl host uninstall` takes it back"


def install(
    host: Host,
    asked: Asked,
    *,
    ask: Callable[[Plan], None],
    alone: Callable[[], AbstractContextManager[None]],
    clock: Clock,
    say: Callable[[str], None],
) -> tuple[Plan, Status | None]:
    """Install what is asked for, and return what was done and came of it; None: there was nothing to do.

    `ask` is shown what would be done, and raises where it is not to be. `alone` holds the lock of the host, and raises
    where nothing is to be installed now: not while a question is open, for rollbacks by the clock need it. Raises
    GateRefused where it would not be the same any more after that, and OrchctlError as `plan` and `apply` do.
    """
    planned = host_install_plan.plan(host, asked)
    if planned.is_empty:
        return planned, None
    host_install_plan.reachable(host, planned)
    ask(planned)
    with alone():
        if host_install_plan.plan(host, asked) != planned:
            raise GateRefused(
                "meanwhile this host has changed, and so has what would be done", hint="run it again: nothing was done"
            )
        return planned, apply(host, planned, clock, say)


def apply(host: Host, planned: Plan, clock: Clock, say: Callable[[str], None]) -> Status:
    """Do it, and wait until the scheduler schedules and the workers poll. Repeatable, also after a kill halfway.

    Raises OrchctlError where something cannot be done or does not come up; what was done stays.
    """
    after, units, records = planned.after, host.units, host.records
    settings, *unit_files = planned.files
    # Each before what it tells of: whoever comes after a kill knows what may be there, and what has to start anew.
    if planned.before is not None:
        records.write(replace(planned.before, owed=planned.restart))
    if host_units.moves(planned.files):
        say(f"kept the settings that name the database it leaves: {records.keep_settings(clock.now())}")
    if not settings.is_empty:
        records.write_settings(settings.after)
        say(f"wrote {settings.path}")
    records.write(replace(after, units=(*planned.stale, *after.units), owed=planned.restart))
    records.make_home(after.home)
    try:
        if planned.linger:
            units.linger(True)
            say(f"{after.user}'s units run without a login from now on")
        take_away(units, planned.stale, after.state_dir, say)
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
        host.units.stop(SERVER_UNIT, patience_s=STOP_S)
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
        host.units.stop(SERVER_UNIT, patience_s=STOP_S)
        say("server stopped")
    return up(host, its, clock, say, anew=() if part == stack.SERVER else host_units.worker_units(its).values())


def take_away(units: Units, paths: Sequence[str], state_dir: str, say: Callable[[str], None]) -> list[str]:
    """Stop, disable and remove units that are ours. Returns what was removed. Repeatable."""
    removed = []
    for path in reversed(paths):
        name, text = path.rpartition("/")[2], units.read(path)
        if text is not None and not host_units.is_ours(text, state_dir):
            say(f"left {path}: it is not of this installation any more")
            continue
        units.stop(name, patience_s=STOP_S)
        units.disable(name)
        if text is not None:
            units.remove(path)
            removed.append(path)
            say(f"removed {path}")
        units.forget(name)
    return removed


def parts(found: Status, host: UnitHost) -> Status:
    """Return the status with the timer beside the workers: `recover`."""
    runs, failure = host.alive(RECOVER), host.failure()
    detail = "looks for runs that a worker lost" if runs else "does not look for runs that a worker lost"
    if runs and failure is not None:
        detail = f"its last look for runs that a worker lost failed ({failure}): {host.log_path(RECOVER)}"
    part = stack.Part(RECOVER, None, runs and failure is None, detail, str(host.log_path(RECOVER)))
    return replace(found, parts=(*found.parts, part))
