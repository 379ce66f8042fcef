"""Slots in doubt at a handover: those that neither side ran. By what really ran, never by what was to run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from orchctl.core import cadence, slots
from orchctl.core.catalog import Catalog, CronTrigger, Job
from orchctl.core.manifest import Run
from orchctl.core.snapshot import Snapshot
from orchctl.core.status import is_execution
from orchctl.errors import OrchctlError
from orchctl.services import compare, timers
from orchctl.services.handover_ports import Doubt
from orchctl.services.ports import Claims, ManifestTree, PrefectRule
from orchctl.services.timers import TimerReader

DAYS_BACK = 1
FEW = 60
"""Slots after a commit that are looked at: a handover takes seconds from there to its `since`."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_BEFORE = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class SlotsInDoubt:
    """Finds them. `bring_in` records what the journal knows of a job's legacy runs, dated in a zone; `boot_id` is this
    boot of the machine.
    """

    reader: TimerReader
    rule: PrefectRule
    claims: Claims
    tree: Callable[[str], ManifestTree]
    bring_in: Callable[[Job, str], object]
    host_zone: str
    boot_id: str
    now: Callable[[], datetime]

    def missed_by_legacy(
        self,
        catalog: Catalog,
        job: Job,
        snapshot: Snapshot,
        *,
        since: datetime,
        last: datetime | None,
        committed: datetime | None,
        cron_off: datetime | None,
    ) -> Doubt:
        """Return the slots before `since` that legacy has not run and never will, as the job's catch-up policy has it.

        `last` is when legacy really ran last: a run serves every instant before it, for systemd and cron start a
        job once, however many of its instants have passed. `committed`: from then on legacy was fenced, and slots
        of Prefect's own cadence count too. `cron_off`: until then cron ran its instants, of which nobody keeps a
        record. What was taken by a run of Prefect's already is not missed.
        """
        notes: list[str] = []
        self._bring_in(catalog, job, notes)
        last = max(filter(None, (last, self._last_recorded(job, since))), default=None)
        if last is None and any(each.boot_id != self.boot_id for each in snapshot.timers):
            notes.append("when legacy ran last is not known after a reboot: slots before the commit count as run")
            last = committed or since
        start = max(filter(None, (last, since - self._window(job))))
        found = set(self._legacy_instants(job, snapshot, start, since, notes, cron_off=cron_off))
        slots_of_prefect = self._prefect_slots(catalog, job, committed or since, None, notes)
        found |= {slot for slot in slots_of_prefect if slot < since}
        first = next((slot for slot in slots_of_prefect if slot >= since), None)
        missed = [slot for slot in sorted(found) if slot > start and self.claims.read(job.name, slot) is None]
        granted = missed if job.catchup == "all" else missed[-1:]
        return Doubt(tuple(granted), tuple(slot for slot in missed if slot not in granted), tuple(notes), first)

    def missed_by_prefect(
        self,
        catalog: Catalog,
        job: Job,
        *,
        since: datetime | None,
        released_at: datetime,
        granted: Collection[datetime] = (),
    ) -> Doubt:
        """Return Prefect's slots before `released_at` that no run of its has run, as the catch-up policy has it.

        `since`: slots before it were legacy's; None: not known. `granted` are some of those that were Prefect's all the
        same, and may be on no schedule of its.
        """
        start = max(filter(None, (since, released_at - self._window(job))))
        notes: list[str] = []
        found = sorted({*self._prefect_slots(catalog, job, start, released_at, notes), *granted})
        found = [slot for slot in found if slot >= start]
        status = {slot: self._status(job, slot) for slot in found}
        missed = [slot for slot in found if status[slot] in {None, "observed"}]
        if job.catchup != "all":
            later = max((slot for slot in found if status[slot] not in {None, "observed", "skipped"}), default=_BEFORE)
            missed = [slot for slot in missed if slot > later]
        owed = missed if job.catchup == "all" else missed[-1:]
        return Doubt(tuple(owed), tuple(slot for slot in missed if slot not in owed), tuple(notes))

    def last_run(self, job: Job) -> datetime | None:
        """Return when either side ran the job last by the manifests of the last days, None where they do not tell."""
        return max((run.started_at for run in self._recorded(job, self.now()) if is_execution(run)), default=None)

    def _last_recorded(self, job: Job, before: datetime) -> datetime | None:
        """Return when legacy ran last by the manifests of the last days: systemd forgets with the boot."""
        starts = (run.started_at for run in self._recorded(job, before) if run.origin != "prefect")
        return max((start for start in starts if start < before), default=None)

    def _recorded(self, job: Job, before: datetime) -> Iterator[Run]:
        tree = self.tree(job.data_root)
        for back in range(DAYS_BACK + 1):
            for run in tree.events((before - timedelta(days=back)).date(), skipped=[]):
                if run.job == job.name:
                    yield run

    @staticmethod
    def _window(job: Job) -> timedelta:
        """Return how long after its time a slot may still run: with `skip` only one that counts as on time."""
        late = timedelta(seconds=job.catchup_window) if job.catchup != "skip" else slots.ON_TIME
        return max(late, slots.ON_TIME)

    def _status(self, job: Job, slot: datetime) -> str | None:
        """Return the status of the run that took a slot; None where none did, or one that has not begun."""
        claim = self.claims.read(job.name, slot)
        run = self.tree(job.data_root).find(claim[0], skipped=[]) if claim is not None else None
        return run.status if run is not None else None

    def _bring_in(self, catalog: Catalog, job: Job, notes: list[str]) -> None:
        try:
            self.bring_in(job, catalog.timezone)
        except OrchctlError as error:
            notes.append(f"the journal could not be read: {error.message}")

    def _legacy_instants(
        self,
        job: Job,
        snapshot: Snapshot,
        start: datetime,
        end: datetime,
        notes: list[str],
        *,
        cron_off: datetime | None,
    ) -> list[datetime]:
        on = {(each.manager.scope, each.timer) for each in snapshot.timers if each.active}
        read = timers.read(self.reader, {job.name: job}, host_zone=self.host_zone, now=self.now())
        found: set[int] = set()
        for source in read.sources(job):
            if source.timer is not None and (source.timer.manager.scope, source.timer.name) not in on:
                continue
            begin = max(start, cron_off or end) if isinstance(source.trigger, CronTrigger) else start
            try:
                found |= set(cadence.instants(source, begin, _up_to(end))) if begin < end else set()
            except ValueError as error:
                notes.append(f"when {source.label} was due is not known: {error}")
            if source.missing is not None:
                notes.append(f"when {source.label} was due is not known: {source.missing}")
        return _instants(found, before=end)

    def _prefect_slots(
        self, catalog: Catalog, job: Job, start: datetime, end: datetime | None, notes: list[str]
    ) -> list[datetime]:
        """Return Prefect's slots from `start` up to, and without, `end`; None: the first few."""
        wanted = compare.prefect_schedules(catalog, job)
        if not wanted:
            return []
        try:
            first = datetime.fromtimestamp(ceil(start.timestamp()), UTC)
            until, count = (None, FEW) if end is None else (_up_to(end), None)
            with self.rule.asked(list(wanted.values()), first, until, count=count) as answer:
                return _instants({instant for each in answer() for instant in each}, before=end or _NEVER)
        except OrchctlError as error:
            notes.append(f"slots of Prefect's that nobody ran could not be found: {error.message}")
            return []


def _up_to(end: datetime) -> datetime:
    return datetime.fromtimestamp(ceil(end.timestamp()), UTC)


def _instants(found: Iterable[int], *, before: datetime) -> list[datetime]:
    every = (datetime.fromtimestamp(instant, UTC) for instant in sorted(found))
    return [instant for instant in every if instant < before]
