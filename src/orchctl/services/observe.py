"""Bring the legacy history in: each finished run of a job's legacy services becomes a manifest, exactly once.

The manifest comes first, it is the truth; then its events, then the state that says where to read on. A kill between
any two leaves what the next look completes: a run's id follows from the run alone, so it finds its manifest again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import orchctl
from orchctl.core import journal, legacy_runs, observed
from orchctl.core.cadence import Source
from orchctl.core.catalog import Job
from orchctl.core.journal import Entry, Folded, HeldBack, LegacyRun, Written
from orchctl.core.legacy import Manager, Service, Units
from orchctl.core.legacy_runs import Recorder
from orchctl.core.manifest import Run
from orchctl.core.mask import Masker
from orchctl.core.observed import Looked
from orchctl.errors import OrchctlError
from orchctl.services import timers
from orchctl.services.legacy_record import Record
from orchctl.services.ports import Journal, LegacyTree, Looks, ManifestTree
from orchctl.services.timers import TimerReader

HISTORY = timedelta(days=7)
"""How far back the first look at a job reads."""
BUDGET_S = 30.0
"""Seconds after which a look stops between two batches; the next one goes on."""
PATIENCE_S = 60.0
OVERLAP = timedelta(seconds=5)
"""The last entries are read again at the next look: two files of one journal may show theirs in another order."""
LAG = timedelta(seconds=2)
"""What was logged this long ago is in the journal."""
SNIPPET_LINES, SNIPPET_BYTES = 40, 8 * 1024


@dataclass(frozen=True)
class Eyes:
    """What a look works with. `secrets` is an environment whose secrets are masked, besides those of job and service.

    `env_file` returns the variables of an environment file, none where it cannot be read. `tree` gives the manifests
    of a data root. `elapsed` is a clock in seconds that nobody sets.
    """

    systemd: TimerReader
    journal: Journal
    looks: Looks
    tree: Callable[[str], LegacyTree]
    host_zone: str
    hostname: str
    boot_id: str
    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    secrets: Mapping[str, str] = field(repr=False, default_factory=dict)
    env_file: Callable[[str], Mapping[str, str]] = lambda _path: {}


@dataclass(frozen=True, slots=True)
class Triggers:
    """A job's legacy triggers as they were at `read_at`, and what their managers showed.

    `absent` are the managers that do not run, and their reasons.
    """

    sources: tuple[Source, ...]
    units: Mapping[Manager, Units]
    absent: Mapping[Manager, str]
    read_at: datetime

    @property
    def services(self) -> dict[Manager, tuple[str, ...]]:
        """The services that the timers start."""
        return legacy_runs.services_of(self.sources)

    def service(self, run: LegacyRun) -> Service | None:
        """Return the service of a run as it was shown."""
        return legacy_runs.service_in(self.units, run.manager, run.unit)


@dataclass(frozen=True, slots=True)
class Brought:
    """What a look did.

    `new`: ids of the runs that it recorded, oldest first. `going`: runs that have not ended. `held`: starts that a
    condition held back; they leave no manifest, for nothing ran. `looked`: what it left (see `core.observed`), None
    where it did not look. `whole`: it read to the end of the journal. `note`: why the time up to now does not count as
    known, else None.
    """

    new: tuple[str, ...] = ()
    going: tuple[LegacyRun, ...] = ()
    held: tuple[HeldBack, ...] = ()
    looked: Looked | None = None
    whole: bool = True
    note: str | None = None


def triggers(job: Job, eyes: Eyes) -> Triggers:
    """Read a job's legacy triggers: one or two systemctl calls a manager.

    Raises NotAllowed or OrchctlError where a manager could not be asked although it may be there.
    """
    one = {job.name: job}
    read = timers.read(eyes.systemd, one, host_zone=eyes.host_zone, now=eyes.now(), look=eyes.looks.read)
    unread = [read.errors[manager] for manager in read.unread]
    if unread:
        raise unread[0]
    return Triggers(read.sources(job), read.units, read.absent, read.at)


def legacy_running(job: Job, eyes: Eyes) -> tuple[str, ...]:
    """Return the job's legacy services that run now, as `x.service (system)`.

    A manager that certainly does not run runs none. Raises OrchctlError where one could not be asked: then nothing
    is known.
    """
    found = triggers(job, eyes)
    return legacy_runs.going(found.sources, found.units)


def bring_in(job: Job, zone: str, eyes: Eyes, found: Triggers | None = None) -> Brought:
    """Record what the job's legacy services did since the last look. Repeatable, and safe beside other observers.

    `zone` is the catalog's; `found` is what `triggers` returned just now, where the caller has asked already. A manager
    that does not run is looked at all the same: its history outlives it. Raises NotAllowed, SystemdUnavailable,
    OrchctlError; the next look brings in what this one did not.
    """
    found = found or triggers(job, eyes)
    if not found.services:
        return Brought(note="the job has no timer: cron leaves no record of how its runs ended")
    with eyes.looks.alone(job.name, patience_s=PATIENCE_S) as alone:
        if not alone:
            return Brought(whole=False, note="another observer of this job is at work")
        return _Look(job, zone, eyes, found).go()


class _Look:
    def __init__(self, job: Job, zone: str, eyes: Eyes, found: Triggers) -> None:
        self._job, self._eyes, self._found = job, eyes, found
        names = legacy_runs.marks(found.services)
        before = eyes.looks.read(job.name)
        # Other services than at the last look: what was known of those says nothing about these.
        self._state = before if before is not None and before.units == names else Looked(names)
        self._recorder = Recorder(job, found.sources, zone, eyes.hostname, f"orchctl {orchctl.__version__}")
        self._record = Record(eyes.tree(job.data_root), careful=self._state.cursor is None or self._state.dirty)
        self._masker: Masker | None = None
        self._done, self._seen = set(self._state.done), set(self._state.done)
        self._new: list[str] = []
        self._held: list[HeldBack] = []

    def go(self) -> Brought:
        deadline = self._eyes.elapsed() + BUDGET_S
        first = self._first()
        while True:
            oldest = self._eyes.now() - HISTORY if self._state.cursor is None else None
            asked_at = self._eyes.now()
            read = self._eyes.journal.entries(self._found.services, cursor=self._state.cursor, since=oldest)
            folded = journal.fold(read.entries, self._state.open)
            if not read.more:
                folded = Folded(tuple(self._closed(run) for run in folded.runs), folded.held)
            self._held += folded.held
            self._write(folded.runs)
            until = read.entries[-1].at if read.more else asked_at - LAG
            since = max(filter(None, (oldest, first, self._state.unsure)), default=until)
            note = _nothing(first) or (None if read.more else self._unrecorded(since, until))
            self._state = self._next(read.entries, folded, asked_at - OVERLAP if not read.more else None)
            if note is None:
                self._state = replace(self._state, spans=observed.with_span(self._state.spans, since, until))
            else:
                # No later look may count this time as known because it reads on from here.
                self._state = replace(self._state, unsure=until)
            self._eyes.looks.write(self._job.name, self._state)
            if not read.more or self._eyes.elapsed() >= deadline:
                going = tuple(run for run in folded.runs if run.is_open)
                return Brought(tuple(self._new), going, tuple(self._held), self._state, not read.more, note)

    def _first(self) -> datetime | None:
        """Return from when on the journal holds what all the managers said; None where it holds nothing of one."""
        firsts = [self._eyes.journal.first(manager) for manager in self._found.services]
        return max(filter(None, firsts)) if all(firsts) else None

    def _closed(self, run: LegacyRun) -> LegacyRun:
        """Return a run that is open in the journal as it ended, where that is known from elsewhere."""
        if run.is_open and run.boot_id != self._eyes.boot_id.replace("-", ""):
            return journal.superseded(run, self._eyes.boot_id)
        return journal.settled(run, self._found.service(run), shown_at=self._found.read_at)

    def _write(self, runs: tuple[LegacyRun, ...]) -> None:
        """Record the runs that have ended and were not recorded by an earlier look."""
        ended = [run for run in runs if not run.is_open and run.ran and run.key not in self._done]
        if ended and not self._state.dirty:
            self._state = replace(self._state, dirty=True)
            self._eyes.looks.write(self._job.name, self._state)
        self._seen |= {run.key for run in runs}
        for run in ended:
            self._done.add(run.key)
            content = self._recorder.manifest(run, exit_code=legacy_runs.exit_code_of(run, self._found.service(run)))
            there = self._record.find(run, content)
            if there is not None:
                self._record.complete(there)
                continue
            if content["status"] == "failed":
                content["error"]["snippet"] = self._snippet(run)
            self._record.write(content)
            self._new.append(content["partition"]["run_id"])

    def _next(self, entries: tuple[Entry, ...], folded: Folded, reread: datetime | None) -> Looked:
        """Return where the next look goes on: after the last entry, or after the last one before `reread`."""
        cut = len(entries)
        while reread is not None and cut and entries[cut - 1].at > reread:
            cut -= 1
        before = {run.key for run in journal.fold(entries[:cut], self._state.open).runs if run.is_open}
        after = {entry.key for entry in entries[cut:]}
        return replace(
            self._state,
            cursor=entries[cut - 1].cursor if cut else self._state.cursor,
            open=tuple(run for run in folded.runs if run.is_open and run.key in before),
            done=tuple(run.key for run in folded.runs if not run.is_open and run.key in after),
            dirty=False,
        )

    def _unrecorded(self, first: datetime, until: datetime) -> str | None:
        """Say which service's last run the journal should hold and does not, None where all is well.

        LogLevelMax= of a unit, or a manager's log level, keep its messages out: then silence means nothing.
        """
        since = self._state.spans[-1][1] if self._state.spans else first
        for manager, names in self._found.services.items():
            for name in names:
                service = legacy_runs.service_in(self._found.units, manager, name)
                if service is None or service.ended_at is None or not service.invocation_id:
                    continue
                recent = since < service.ended_at < until
                if recent and journal.run_key(manager, service.invocation_id) not in self._seen:
                    return f"the journal does not hold the last run of {name} ({manager}); see its LogLevelMax="
        return None

    def _snippet(self, run: LegacyRun) -> str | None:
        """Return the end of what a run wrote, secrets masked; None where the journal has none of it."""
        if self._masker is None:
            self._masker = masker_of(self._job, self._found, self._eyes)
        written = Written(run.manager, run.unit, run.invocation, run.started_at, run.ended_at)
        lines = self._eyes.journal.output(written, last=SNIPPET_LINES)
        masked = b"".join(self._masker.mask_bytes(line) for line in lines)
        return masked.rstrip(b"\n")[-SNIPPET_BYTES:].decode("utf-8", "backslashreplace") or None


def log_of(tree: ManifestTree, run: Run, job: Job | None, eyes: Eyes) -> Iterator[bytes]:
    """Yield what a legacy run wrote, from the journal, secrets masked; where it wrote nothing, what systemd said of it.

    `job` None: the catalog has it no more. Raises OrchctlError where the journal holds nothing of the run any more,
    NotAllowed, SystemdUnavailable.
    """
    try:
        environment = (tree.read(run) or {})["environment"]
        manager = Manager(environment["scope"], environment["user"])
        unit, invocation = str(environment["unit"]), str(environment["invocation_id"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"the manifest of run {run.run_id} does not say which invocation of systemd's it was"
        raise OrchctlError(message, hint=f"`orchctl runs show {run.run_id}` shows what is left") from error
    masker = masker_of(job, _shown(job, eyes), eyes)
    silent = True
    for line in eyes.journal.output(Written(manager, unit, invocation, run.started_at, run.finished_at)):
        silent = False
        yield masker.mask_bytes(line)
    if silent:
        raise OrchctlError(
            f"the journal no longer holds what run {run.run_id} wrote",
            hint=f"`orchctl runs show {run.run_id}` has the last lines of a failed one",
        )


def _shown(job: Job | None, eyes: Eyes) -> Triggers | None:
    try:
        return triggers(job, eyes) if job is not None else None
    except OrchctlError:
        return None  # the log is worth showing without what a service's Environment= would add


def masker_of(job: Job | None, found: Triggers | None, eyes: Eyes) -> Masker:
    """Return what masks the secrets of a job, of its legacy services, of the files of both, and of `eyes.secrets`."""
    environments = [eyes.secrets, *([job.env] if job is not None else [])]
    units = found.units.values() if found is not None else ()
    services = [service for one in units for service in one.services.values()]
    environments += [service.environment for service in services]
    files = [*(job.env_files if job is not None else ()), *(name for one in services for name in one.environment_files)]
    environments += [eyes.env_file(path) for path in dict.fromkeys(name.removeprefix("-") for name in files)]
    return Masker.of(*environments)


def _nothing(first: datetime | None) -> str | None:
    return "the journal holds nothing of one of the managers" if first is None else None
