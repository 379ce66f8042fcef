"""Observe mode: what systemd did for a slot, and the dry run. Nothing of the job itself runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchctl.adapters.accounts import Account
from orchctl.core import cadence, journal, legacy_runs
from orchctl.core.cadence import Source
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.durations import human
from orchctl.core.journal import HeldBack, LegacyRun
from orchctl.core.legacy_runs import GRACE_S
from orchctl.core.mask import Masker
from orchctl.errors import OrchctlError
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, CommandNotStarted, Ended, run_command
from orchctl.services import observe
from orchctl.services.observe import Eyes

LONGEST_WAIT_S = 600.0
"""Seconds to wait for a start at most, however long a timer may delay it."""
FIRST_POLL_S, LAST_POLL_S = 1.0, 15.0


def seen(job: Job, slot: datetime, zone: str, eyes: Eyes, sleep: Callable[[float], None]) -> str:
    """Wait for what systemd does for `slot`, bring the job's history in, and say what it did.

    It waits for a start as long as the timers may delay it, at most ten minutes, then for the end, at most the job's
    time-out; not at all where no timer can start anything. `zone` is the catalog's. Raises nothing of orchctl's: what
    cannot be known is said.
    """
    if not any(isinstance(trigger, TimerTrigger) for trigger in job.legacy):
        return "what cron did is not known: it leaves no record of how its jobs end"
    try:
        said = _Watch(job, slot, zone, eyes, sleep).say()
    except OrchctlError as error:
        return f"what systemd did is not known: {error.message}"
    try:
        note = observe.bring_in(job, zone, eyes).note
    except OrchctlError as error:
        note = error.message
    return f"{said}; its history is not whole: {note}" if note else said


@dataclass(frozen=True, slots=True)
class _Found:
    """What began in the slot's time, oldest first."""

    runs: tuple[LegacyRun, ...]
    held: tuple[HeldBack, ...]

    @property
    def services(self) -> set[tuple[str, str]]:
        """What began, or was held back: (manager, unit)."""
        begun = {(str(run.manager), run.unit) for run in self.runs}
        return begun | {(str(held.manager), held.unit) for held in self.held}

    @property
    def open(self) -> bool:
        """Whether the first run of a service goes on; a fast timer begins others meanwhile."""
        first = {(str(run.manager), run.unit): run for run in reversed(self.runs)}
        return any(run.is_open for run in first.values())


class _Watch:
    def __init__(self, job: Job, slot: datetime, zone: str, eyes: Eyes, sleep: Callable[[float], None]) -> None:
        self._job, self._slot, self._zone, self._eyes, self._sleep = job, slot, zone, eyes, sleep
        self._triggers = observe.triggers(job, eyes)
        self._timers = [one for one in self._triggers.sources if isinstance(one.trigger, TimerTrigger)]
        tolerance = max((one.tolerance_s for one in self._timers), default=0.0) + GRACE_S
        self._starts_by = slot + timedelta(seconds=tolerance)

    def say(self) -> str:
        absent = self._triggers.absent
        if absent and not self._triggers.units:
            return f"what systemd did is not known: {' and '.join(dict.fromkeys(absent.values()))}"
        found = self._wait()
        now = self._eyes.now()
        if found.runs or found.held:
            return legacy_runs.told(found.runs, found.held, zone=self._zone, now=now)
        if self._expected() and now < self._starts_by:
            longest = human((self._starts_by - self._slot).total_seconds() - GRACE_S)
            return f"systemd has not run it yet; its timer may wait up to {longest}"
        return "systemd did not run it" + self._why_not()

    def _wait(self) -> _Found:
        """Wait until each service whose timer is due has begun, or has had its time, and what began has ended."""
        begun = self._eyes.now()
        expected = self._expected()
        last = min(self._starts_by, begun + timedelta(seconds=LONGEST_WAIT_S))
        found = self._look()
        for pause in _pauses():
            now = self._eyes.now()
            waits = now < last and not expected <= found.services
            ends_by = max((run.started_at for run in found.runs), default=now) + timedelta(seconds=self._job.timeout)
            if not waits and not (found.open and now < ends_by):
                return found
            self._sleep(pause)
            found = self._look()
        raise AssertionError("unreachable")

    def _look(self) -> _Found:
        read = self._eyes.journal.entries(self._triggers.services, since=self._slot)
        folded = journal.fold(read.entries)
        runs = [run for run in folded.runs if run.ran and run.started_at <= self._starts_by]
        if any(run.is_open for run in runs):
            self._triggers = observe.triggers(self._job, self._eyes)
            shown_at = self._triggers.read_at
            runs = [journal.settled(run, self._triggers.service(run), shown_at=shown_at) for run in runs]
        held = [one for one in folded.held if one.at <= self._starts_by]
        return _Found(tuple(sorted(runs, key=lambda run: run.started_at)), tuple(held))

    def _expected(self) -> set[tuple[str, str]]:
        """Return the services that a timer may start for this slot."""
        return {
            (str(one.timer.manager), one.service)
            for one in self._timers
            if one.timer is not None and one.service is not None and one.counts and self._may_be_due(one)
        }

    def _may_be_due(self, source: Source) -> bool:
        if source.monotonic:
            return True
        before = self._slot - timedelta(seconds=source.tolerance_s)
        try:
            return bool(cadence.instants(source, before, self._starts_by + timedelta(seconds=1)))
        except ValueError:
            return True

    def _why_not(self) -> str:
        reasons = [f"{one.label}: {one.missing}" for one in self._timers if one.missing]
        reasons += [f"{one.label} is not active" for one in self._timers if not one.missing and not one.counts]
        if not reasons and not self._expected():
            reasons = [f"no timer of it was due at {legacy_runs.clock(self._slot, self._zone)}"]
        reasons += [f"{name} was still running" for name in legacy_runs.going(self._timers, self._triggers.units)]
        return f": {'; '.join(reasons)}" if reasons else ""


def _pauses() -> Iterator[float]:
    pause = FIRST_POLL_S
    while True:
        yield pause
        pause = min(pause * 1.5, LAST_POLL_S)


@contextmanager
def scratch(account: Account | None) -> Iterator[str]:
    """Give a run directory for a dry run, which its command may write to and nobody else; it is removed afterwards."""
    folder = tempfile.mkdtemp(prefix="orchctl-dry-run-")
    try:
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dry_run(command: Command, pump: OutputPump, masker: Masker, on_started: Callable[[int], None]) -> str:
    """Run a job's `dry_run_command` and say how it ended. Its output goes to `pump`."""
    try:
        ended = run_command(command, pump, on_started=on_started)
    except CommandNotStarted as error:
        return f"the dry run was not started: {masker.mask(error.message)}"
    return f"the dry run {_how(ended, command.timeout_s)}"


def _how(ended: Ended, timeout_s: float) -> str:
    if ended.timed_out:
        return f"was stopped after its time-out of {human(timeout_s)}"
    if ended.signal is not None:
        return f"was killed by {ended.signal}"
    if ended.exit_code is None:
        return "ended, and how is not known"
    return f"ended with exit code {ended.exit_code} after {human(ended.duration_s)}"
