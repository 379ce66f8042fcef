"""The legacy timers of a job, switched off and put back as they were, and the fence in their services.

Not by `systemctl disable` and `enable`: those also remove links that were made by hand, switch whatever Also= names,
and do not bring back what they removed. A timer is off when it is stopped and no link starts it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from orchctl.adapters import timer_obstacles, timer_states, unit_links
from orchctl.adapters.fence import Fence
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders, acting_as
from orchctl.core import cadence, legacy_runs, systemd_show, unit_text
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.legacy import Manager, Timer, Units
from orchctl.core.snapshot import Link, Snapshot, TimerState
from orchctl.errors import OrchctlError, SystemdUnavailable

PATIENCE_S = 10.0
_POLL_S = 0.1
_STARTING = {"condition", "start-pre"}
_Answer = TypeVar("_Answer")
_INSTALLS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


class TimerSwitch:
    """Switches timers. `owner_path` returns where the owner file of a job is, or would be."""

    def __init__(
        self,
        systemd: Systemd,
        owner_path: Callable[[str], Path],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._systemd = systemd
        self._fence = Fence(systemd, owner_path)
        self._now = now
        self._sleep = sleep

    # --- what is there

    def snapshot(self, job: Job) -> Snapshot:
        """Return the timers of a job as they are now, each by every name that a link starts it by."""
        return self._snapshot(job, assumed=False)

    def assumed(self, job: Job) -> Snapshot:
        """Return every timer of the job as active, and with the links of its own [Install] besides those it has."""
        return self._snapshot(job, assumed=True)

    def _snapshot(self, job: Job, *, assumed: bool) -> Snapshot:
        states, missing = list[TimerState](), list[str]()
        for manager, names in self._asked(job).items():
            where = unit_links.folders(self._systemd, manager)
            timers = self._systemd.read(manager, names, handlers=False).timers
            loaded = [(name, timer) for name in names if (timer := timers.get(name)) and timer.load == "loaded"]
            fresh = [
                self._as_installed(state, timer, where) if assumed else state
                for name, timer in loaded
                for state in timer_states.states_of(timer, name, where)
            ]
            states += [state for state in fresh if state not in states]
            missing += self._fence.folders(where, dict.fromkeys(state.service for state in fresh))
            missing += timer_states.folders_of_masks(where, fresh)
        return Snapshot(timers=tuple(states), folders=tuple(dict.fromkeys(missing)), assumed=assumed)

    def _as_installed(self, state: TimerState, timer: Timer, where: Folders) -> TimerState:
        text = self._systemd.call("systemctl", state.manager, "cat", "--no-pager", "--", state.timer)
        links = {link.path: link for link in state.links}
        for each in unit_text.assignments(text):
            if each.section == "Install" and each.key in _INSTALLS:
                for unit in each.value.split():
                    path = str(where.config / f"{unit}.{_INSTALLS[each.key]}" / state.timer)
                    if "%" not in unit and timer.fragment is not None:
                        links.setdefault(path, Link(path, timer.fragment))
        return replace(state, active=True, links=tuple(links.values()))

    def obstacles(self, job: Job) -> tuple[str, ...]:
        """Say why the timers or the fence could not be switched, one sentence each."""
        found = list[str]()
        for manager, names in self._asked(job).items():
            try:
                where = unit_links.folders(self._systemd, manager)
                units = self._systemd.read(manager, names, handlers=False)
                found += timer_obstacles.of(self._systemd, where, units, names)
                timers = [timer for name in names if (timer := units.timers.get(name)) and timer.load == "loaded"]
                services = {timer.unit for timer in timers if timer.unit.endswith(".service")}
                found += self._fence.obstacles(job.name, where, sorted(services))
            except OrchctlError as error:
                found.append(error.message)
        return tuple(dict.fromkeys(found))

    # --- the fence

    def is_fenced(self, job: str, snapshot: Snapshot) -> bool:
        """Whether every service has the fence, as it should be, and systemd has loaded it."""
        return self._fence.is_up(job, snapshot)

    def fence(self, job: str, snapshot: Snapshot) -> None:
        """Fence every service. Repeatable."""
        self._fence.put_up(job, snapshot)

    def has_fence(self, job: str, snapshot: Snapshot) -> bool:
        """Whether a trace of the fence is left: a file of ours, a folder of ours, or in what systemd has loaded."""
        return self._fence.has_trace(job, snapshot)

    def unfence(self, job: str, snapshot: Snapshot) -> None:
        """Take the fence away. Repeatable."""
        self._fence.take_down(job, snapshot)

    # --- off and on

    def are_off(self, snapshot: Snapshot) -> bool:
        """Whether no timer is active, and no link would start one at boot."""
        for manager, states in timer_states.by_manager(snapshot).items():
            units = self._units(manager, states)
            if any(timer.active == "active" for timer in units.timers.values()):
                return False
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                if any(where.links(name) for name in timer_states.names_of(units, states)):
                    return False
        return True

    def turn_off(self, snapshot: Snapshot) -> None:
        """Remove every link that starts a timer, mask those that a package owns, and stop the timers. Repeatable.

        The links first: one of an `.upholds` folder would start a stopped timer again.
        """
        for manager, states in timer_states.by_manager(snapshot).items():
            units = self._units(manager, states)
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                unit_links.lead(timer_states.off(where, timer_states.names_of(units, states)))
            active = sorted({timer.name for timer in units.timers.values() if timer.active == "active"})
            self._reload(manager)
            if active:
                self._call(manager, "stop", "--", *active)

    def are_back(self, snapshot: Snapshot) -> bool:
        """Whether every timer has the links that it had, and is active where it was.

        One without links that was active is not expected to be so after another boot.
        """
        for manager, states in timer_states.by_manager(snapshot).items():
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                if any(unit_links.target_of(path) != target for path, target in timer_states.back(where, states)):
                    return False
            expected = timer_states.expected_of(states, self._units(manager, states))
            if any((timer.active == "active") != active for timer, active in expected):
                return False
        return True

    def put_back(self, snapshot: Snapshot) -> None:
        """Put the links back, and start the timers that were active; one that was not is stopped. Repeatable.

        To be done behind the fence: a timer that finds an instant in its past starts its service at once.
        """
        failed = list[OrchctlError]()
        for manager, states in timer_states.by_manager(snapshot).items():
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                unit_links.lead(timer_states.back(where, states))
            try:
                self._reload(manager)
                expected = timer_states.expected_of(states, self._units(manager, states))
                start = [timer for timer, active in expected if active and timer.active != "active"]
                stop = sorted(timer.name for timer, active in expected if not active and timer.active == "active")
                if stop:
                    self._call(manager, "stop", "--", *stop)
                if start:
                    self._start(where, start)
            except OrchctlError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _start(self, where: Folders, timers: Collection[Timer]) -> None:
        """Start timers so that what fell due before now is behind them.

        With RandomizedDelaySec= a timer that finds an instant in its past does not fire now, behind the fence, but some
        time later. Persistent= counts from its stamp, so that is set to now; others count from when they were last
        started, where systemd still knows: starting them twice makes that now.
        """
        names = sorted(timer.name for timer in timers)
        with acting_as(where.account):
            for timer in timers:
                if timer.persistent:
                    with contextlib.suppress(OSError):
                        os.utime(where.stamp(timer.name), follow_symlinks=False)
        self._call(where.manager, "start", "--", *names)
        started = self._systemd.read(where.manager, names, handlers=False).timers
        late = sorted(
            {
                timer.name
                for timer in started.values()
                if timer.sub == "waiting" and timer.next_nominal is not None and timer.next_nominal < self._now()
            }
        )
        if late:
            self._call(where.manager, "restart", "--", *late)
        self._cancel_starts(where.manager, sorted({timer.unit for timer in timers}))

    def _cancel_starts(self, manager: Manager, services: Collection[str]) -> None:
        """Cancel starts that wait for another unit (After=): they would begin when the fence is gone."""
        words = ("--no-pager", "--property=Id,Job,SubState", "--", *services)
        for block in systemd_show.blocks(self._call(manager, "show", *words)):
            job = block.get("Job", [""])[-1]
            if block.get("SubState") in (["dead"], ["failed"]) and job not in {"", "0"}:
                self._systemd.call("systemctl", manager, "cancel", job, check=False)

    # --- what the services do

    def last_start(self, snapshot: Snapshot) -> datetime | None:
        """Return when a service last really ran, in whole seconds; None where systemd does not know (any more).

        It forgets when nothing refers to the service: once its timers are off. Waits while a start's conditions are
        being looked at; raises OrchctlError where that takes longer than PATIENCE_S.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            blocks = [block for each in snapshot.services.items() for block in self._starts(*each)]
            subs = {block.get("SubState", [""])[-1] for block in blocks}
            if not subs & _STARTING or time.monotonic() >= deadline:
                break
            self._sleep(_POLL_S)
        if "condition" in subs:
            raise OrchctlError("a legacy service does not get past its conditions", hint="see `systemctl list-jobs`")
        found = [systemd_show.instant(block.get("ExecMainStartTimestamp", [""])[-1]) for block in blocks]
        found += [
            systemd_show.instant(block.get("InactiveExitTimestamp", [""])[-1])
            for block in blocks
            if block.get("SubState") == ["start-pre"]
        ]
        return max(filter(None, found), default=None)

    def _starts(self, manager: Manager, names: Collection[str]) -> list[systemd_show.Block]:
        words = "--property=Id,SubState,ExecMainStartTimestamp,InactiveExitTimestamp"
        printed = _unless_absent(manager, lambda: self._call(manager, "show", "--no-pager", words, "--", *names))
        return [] if printed is None else list(systemd_show.blocks(printed))

    def is_running(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Return the services that run now, as `x.service (system)`."""
        found = list[str]()
        for manager, names in snapshot.services.items():
            services = self._read(manager, names).services
            found += [
                f"{name} ({manager})"
                for name in names
                if (each := services.get(name)) is not None and legacy_runs.is_going(each)
            ]
        return tuple(found)

    def will_run(self, snapshot: Snapshot, before: datetime) -> bool:
        """Whether a timer that is on has yet to start its service for an instant before `before`."""
        for manager, states in timer_states.by_manager(snapshot).items():
            for timer in self._units(manager, states).timers.values():
                due = [timer.next_nominal] if timer.calendars else []
                due += [timer.next_fire] if timer.next_monotonic_s is not None else []
                # `running`: it has started its service, and has yet to count when it is next due.
                if timer.sub == "waiting" and any(instant < before for instant in due if instant is not None):
                    return True
        return False

    def run_once(self, snapshot: Snapshot) -> str | None:
        """Start the service of the first timer that was active, without waiting; None where none was."""
        for state in snapshot.timers:
            if state.active:
                self._call(state.manager, "start", "--no-block", "--", state.service)
                return state.service
        return None

    def wake(self, snapshot: Snapshot, last: datetime | None) -> tuple[str, ...]:
        """Start the services whose timers sleep until they run: now where that is due, else by a timer of systemd-run.

        `last` None: nobody knows, and a whole interval goes by first.
        """
        told = list[str]()
        for manager, states in timer_states.by_manager(snapshot).items():
            asleep = {timer.name: timer for timer in self._units(manager, states).timers.values() if _sleeps(timer)}
            for timer in asleep.values():
                interval = timedelta(seconds=min(each.seconds for each in timer.monotonic if _counts_runs(each.base)))
                due = (last or self._now()) + interval
                told.append(self._wake(manager, timer.unit, (due - self._now()).total_seconds()))
        return tuple(told)

    def _wake(self, manager: Manager, service: str, delay_s: float) -> str:
        if delay_s <= 0:
            self._call(manager, "start", "--no-block", "--", service)
            return f"{service} was started: its timer counts from its last run"
        unit = f"orchctl-wake-{service.removesuffix('.service').replace('@', '-')}"
        state = self._call(manager, "show", "--property=ActiveState", "--value", "--", f"{unit}.timer").strip()
        if state != "active":
            start = [
                "systemctl",
                *(["--user"] if manager.scope == "user" else []),
                "start",
                "--no-block",
                "--",
                service,
            ]
            options = ["--quiet", "--collect", f"--on-active={delay_s:.3f}", "--timer-property=AccuracySec=100ms"]
            self._systemd.call("systemd-run", manager, *options, f"--unit={unit}", *start)
        return f"{service} starts in {delay_s:.0f} s: its timer counts from its last run"

    # --- asking

    def _asked(self, job: Job) -> Mapping[Manager, list[str]]:
        """Return the timers of a job by the systemd that holds them, whose user is named."""
        found: dict[Manager, list[str]] = {}
        for trigger in job.legacy:
            if isinstance(trigger, TimerTrigger):
                manager = cadence.manager_of(trigger)
                named = Manager(manager.scope, self._systemd.owner(manager))
                found.setdefault(named, []).append(trigger.timer)
        return found

    def _units(self, manager: Manager, states: Collection[TimerState]) -> Units:
        return self._read(manager, {state.timer for state in states})

    def _read(self, manager: Manager, names: Collection[str]) -> Units:
        """Ask for these units; where a user's manager certainly does not run, none is loaded."""
        found = _unless_absent(manager, lambda: self._systemd.read(manager, names, handlers=False))
        return found if found is not None else Units(manager)

    def _reload(self, manager: Manager) -> None:
        """Have a manager see what changed on disk; one that certainly does not run will see it when it starts."""
        _unless_absent(manager, lambda: self._call(manager, "daemon-reload"))

    def _call(self, manager: Manager, verb: str, *words: str) -> str:
        return self._systemd.call("systemctl", manager, verb, *words)


def _sleeps(timer: Timer) -> bool:
    return (
        timer.active == "active"
        and timer.sub == "elapsed"
        and timer.next_fire is None
        and any(_counts_runs(each.base) for each in timer.monotonic)
    )


def _counts_runs(base: str) -> bool:
    return base in {"OnUnitActiveSec", "OnUnitInactiveSec"}


def _unless_absent(manager: Manager, ask: Callable[[], _Answer]) -> _Answer | None:
    """Return the answer, None where a user's manager certainly does not run."""
    try:
        return ask()
    except SystemdUnavailable as error:
        if manager.scope == "system" or not error.absent:
            raise
        return None
