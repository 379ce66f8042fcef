"""The steps of a handover on a real host: what each looks at, and what each does. The order is core/handover.py's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchctl.core.catalog import Catalog, Job
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Handover, Opened
from orchctl.core.names import format_exact, parse_instant
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError, StateBroken
from orchctl.services.handover_ports import (
    ConfirmTimer,
    CronSwitch,
    Handovers,
    JobLock,
    JobLocks,
    Owners,
    PrefectSide,
    Slots,
    TimerSwitch,
)

AHEAD = timedelta(seconds=2)
"""How far in the future of its own writing a cutover's `since` lies: it must be after the owner file has appeared, or
a slot between the two would be run by legacy, which is not fenced yet, and by Prefect, whose it is."""
NOT_YET = datetime(9999, 1, 1, tzinfo=UTC)
"""The `since` of an owner file that owns no slot yet: of a job that cron may still run."""
_SPARE = timedelta(seconds=1.5)
_CRON_SETTLES = timedelta(seconds=10)
LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class Hands:
    """What a handover works with.

    `catalog` returns one that knows the job: that of now, or the applied one of this digest; None where neither does.
    `event` tells the job's events what happened, as far as they can be written. `pid` is this process, `boot_id` this
    boot of the machine.
    """

    owners: Owners
    handovers: Handovers
    timers: TimerSwitch
    cron: CronSwitch
    confirm: ConfirmTimer
    locks: JobLocks
    prefect: PrefectSide
    slots: Slots
    catalog: Callable[[str, str | None], Catalog | None]
    event: Callable[[str, Job | None, Mapping[str, Any]], None]
    new_id: Callable[[], str]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    pid: int
    boot_id: str


@dataclass
class Steps:
    """One handover at work. `say` tells the operator what it waits for; `notes` are for the end.

    `facts` are what its steps found out, and go into their records.
    """

    hands: Hands
    opened: Opened
    say: Callable[[str], None]
    before: Handover | None = None
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    begun: dict[Step, datetime] = field(default_factory=dict)
    done: dict[Step, datetime] = field(default_factory=dict)
    lock: JobLock | None = None
    note_facts: Callable[[Step], None] = lambda _step: None

    def __post_init__(self) -> None:
        self.name = self.opened.job
        self.snapshot = self.opened.snapshot
        for record in self.before.records if self.before else ():
            self.facts |= record.data
            if record.phase == "done":
                self.done[record.step] = record.at
            elif record.phase == "begun":
                self.begun[record.step] = record.at

    def job(self) -> Job | None:
        """Return the job, None where no catalog knows it (any more)."""
        catalog = self.catalog()
        return catalog.jobs[self.name] if catalog is not None else None

    def catalog(self) -> Catalog | None:
        """Return the catalog that says what the job is."""
        return self.hands.catalog(self.name, self.opened.digest)

    def owner(self) -> Owner | None:
        """Return the owner file; one that cannot be believed counts as draining: Prefect runs nothing by it."""
        try:
            return self.hands.owners.read(self.name)
        except StateBroken:
            if self.opened.kind == "cutover":
                raise
            return Owner(since=self.opened.at, draining=True)

    def release_lock(self) -> None:
        """Let others have the job's lock. Repeatable."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def holds(self, step: Step) -> bool:
        """Whether the effect of a step is there."""
        return self._looks()[step]()

    def do(self, step: Step) -> None:
        """Do a step. Repeatable."""
        self._deeds()[step]()

    def _looks(self) -> Mapping[Step, Callable[[], bool]]:
        hands, name, snapshot = self.hands, self.name, self.snapshot
        return {
            Step.ARM: lambda: self.opened.confirm_by is None or hands.confirm.is_armed(name),
            Step.FENCE: lambda: hands.timers.is_fenced(name, snapshot),
            # After the commit it is status, not this handover, that says when somebody has paused it.
            Step.SCHEDULE: lambda: self.owner() is not None or hands.prefect.is_scheduled(name),
            Step.CRON_OFF: lambda: hands.cron.are_off(name, snapshot),
            Step.COMMIT: lambda: self.owner() is not None,
            Step.TIMERS_OFF: lambda: hands.timers.are_off(snapshot),
            Step.GRANT: lambda: (owner := self.owner()) is not None and owner.granted is not None,
            Step.CATCH_UP: lambda: Step.CATCH_UP in self.done or not (owner := self.owner()) or not owner.granted,
            Step.DRAIN: lambda: (owner := self.owner()) is None or owner.draining,
            Step.IDLE: lambda: self.lock is not None or self.owner() is None,
            Step.TIMERS_ON: lambda: hands.timers.are_back(snapshot),
            Step.RELEASE: lambda: name not in hands.owners.names(),
            Step.CRON_ON: lambda: hands.cron.are_back(name, snapshot),
            Step.OWED: lambda: Step.OWED in self.done,
            Step.UNFENCE: lambda: not hands.timers.has_fence(name, snapshot),
            Step.DISARM: lambda: not hands.confirm.has_trace(name),
            Step.CLEAR: lambda: hands.prefect.is_clear(name),
            Step.RESTORE: lambda: snapshot.paused is not True or hands.prefect.is_paused(name) is not False,
        }

    def _deeds(self) -> Mapping[Step, Callable[[], object]]:
        hands, name, snapshot = self.hands, self.name, self.snapshot
        return {
            Step.ARM: self._arm,
            Step.FENCE: lambda: hands.timers.fence(name, snapshot),
            Step.SCHEDULE: lambda: hands.prefect.open_up(name),
            Step.CRON_OFF: lambda: hands.cron.turn_off(name, snapshot),
            Step.COMMIT: self._commit,
            Step.TIMERS_OFF: self._timers_off,
            Step.GRANT: self._grant,
            Step.CATCH_UP: self._catch_up,
            Step.DRAIN: self._drain,
            Step.IDLE: self._idle,
            Step.TIMERS_ON: lambda: hands.timers.put_back(snapshot),
            Step.RELEASE: self._release,
            Step.CRON_ON: lambda: hands.cron.put_back(name, snapshot),
            Step.OWED: self._owed,
            Step.UNFENCE: lambda: hands.timers.unfence(name, snapshot),
            Step.DISARM: lambda: hands.confirm.disarm(name),
            Step.CLEAR: self._clear,
            Step.RESTORE: lambda: hands.prefect.pause(name),
        }

    # --- cutover

    def _arm(self) -> None:
        if self.opened.confirm_by is not None:
            self.hands.confirm.arm(self.name, self.opened.confirm_by)

    def _commit(self) -> None:
        """Let the owner file appear before its `since`. Where the disk takes longer than that, it does not appear."""
        hands, since = self.hands, NOT_YET if self.snapshot.cron else self.hands.now() + AHEAD
        owner = Owner(since, False, None, self.opened.id, self.opened.confirm_by)
        if not hands.owners.create(self.name, owner, still=lambda: hands.now() < since - _SPARE):
            return
        there = hands.now()
        if there >= since:  # this process was stopped in between
            owner = replace(owner, since=there)
            hands.owners.replace(self.name, owner)
        self.facts["committed_at"] = format_exact(there)
        if owner.since != NOT_YET:
            self.facts["since"] = format_exact(owner.since)

    def _timers_off(self) -> None:
        # systemd forgets a service, and when it ran, once no timer refers to it. It is fenced: nothing runs after this.
        self._see_last_start()
        self.note_facts(Step.TIMERS_OFF)
        self.hands.timers.turn_off(self.snapshot)

    def _see_last_start(self) -> datetime | None:
        """Return when legacy really ran last, as far as this handover has seen."""
        seen = (self.hands.timers.last_start(self.snapshot), self._instant("last_legacy"))
        last = max(filter(None, seen), default=None)
        self.facts["last_legacy"] = format_exact(last) if last is not None else None
        return last

    def _grant(self) -> None:
        hands, owner = self.hands, self._owner_file()
        if owner.since == NOT_YET:
            owner = replace(owner, since=hands.now())
        while (wait := (owner.since - hands.now()).total_seconds()) > 0:
            hands.sleep(wait)
        last = self._see_last_start()
        catalog = self.catalog()
        granted: tuple[datetime, ...] = ()
        if catalog is None:
            self.notes.append("no catalog knows the job any more: slots that nobody ran could not be found")
        else:
            doubt = hands.slots.missed_by_legacy(
                catalog,
                catalog.jobs[self.name],
                self.snapshot,
                since=owner.since,
                last=last,
                committed=self._instant("committed_at"),
                cron_off=self._cron_off(),
            )
            granted = doubt.granted
            self.facts["dropped"] = [format_exact(slot) for slot in doubt.dropped]
            self.facts["first_slot"] = format_exact(doubt.first) if doubt.first is not None else None
            self.notes += doubt.notes
        hands.owners.replace(self.name, replace(self._owner_file(), since=owner.since, granted=granted))
        self.facts |= {
            "since": format_exact(owner.since),
            "held_from": format_exact(self.done[Step.CRON_OFF])
            if self._cron_went()
            else self.facts.get("committed_at"),
            "granted": [format_exact(slot) for slot in granted],
        }

    def _cron_off(self) -> datetime | None:
        """Return from when on cron ran nothing. Killed before that was recorded, it is at most this much after the
        step began: where a minute ends within that, the step waits for it, and cron runs what is due in it.
        """
        begun = self.begun.get(Step.CRON_OFF)
        return self.done.get(Step.CRON_OFF) or (begun + _CRON_SETTLES if begun is not None else None)

    def _cron_went(self) -> bool:
        """Whether cron could run the job until its lines were out."""
        return bool(self.snapshot.cron) and Step.CRON_OFF in self.done

    def _catch_up(self) -> None:
        self.facts["runs"] = list(self.hands.prefect.catch_up(self.name, self._owner_file().granted or ()))

    def _owner_file(self) -> Owner:
        owner = self.owner()
        if owner is None:
            raise StateBroken(f"the owner file of {self.name} went away meanwhile", hint="run `orchctl recover`")
        return owner

    def _instant(self, fact: str) -> datetime | None:
        found = self.facts.get(fact)
        return parse_instant(found) if isinstance(found, str) else None

    # --- rollback

    def _drain(self) -> None:
        owner = self.owner()
        if owner is None:
            return
        # Slots that were granted to Prefect are its own too; which they are is not known before they are found.
        since = None if owner.granted is None else format_exact(min((owner.since, *owner.granted)))
        self.facts |= {"held_from": format_exact(self.hands.now()), "since": since}
        self.facts["were_granted"] = [format_exact(slot) for slot in owner.granted or ()]
        self.hands.owners.replace(self.name, replace(owner, draining=True))

    def _idle(self) -> None:
        hands, said = self.hands, False
        while (lock := hands.locks.try_take(self.name, run_id=self.opened.id, pid=hands.pid)) is None:
            if self.opened.now:
                job = self.job()
                self.say(f"stopping {hands.locks.holder(self.name)}")
                hands.locks.stop_holders(self.name, kill_after=job.kill_after if job is not None else 10.0)
            elif not said:
                said = True
                self.say(f"waiting for {hands.locks.holder(self.name)} to end (--now would stop it)")
            hands.sleep(LOCK_POLL_S)
        self.lock = lock

    def _release(self) -> None:
        # A start that systemd has queued looks at the owner file a moment later: it shall find it.
        self.hands.timers.last_start(self.snapshot)
        self.hands.owners.remove(self.name)
        self.facts["released_at"] = format_exact(self.hands.now())
        self.release_lock()

    def _owed(self) -> None:
        """Run once what nobody ran while the job was nobody's to run: the last slot of Prefect's before the release."""
        hands, catalog = self.hands, self.catalog()
        released = self._instant("released_at") or hands.now()
        if catalog is None:
            self.notes.append("no catalog knows the job any more: slots that nobody ran could not be found")
        elif missed := self._missed(catalog, released):
            self._run_once(missed, released)
        job = self.job()
        seen = (hands.timers.last_start(self.snapshot), hands.slots.last_run(job) if job is not None else None)
        self.facts["woken"] = list(hands.timers.wake(self.snapshot, max(filter(None, seen), default=None)))

    def _missed(self, catalog: Catalog, released: datetime) -> tuple[datetime, ...]:
        job = catalog.jobs[self.name]
        granted = [parse_instant(slot) for slot in self.facts.get("were_granted", ())]
        doubt = self.hands.slots.missed_by_prefect(
            catalog, job, since=self._instant("since"), released_at=released, granted=granted
        )
        self.notes += doubt.notes
        return doubt.granted

    def _run_once(self, missed: Sequence[datetime], released: datetime) -> None:
        """Start the legacy service for the last of these slots: it is started once, however many there are."""
        hands, slot = self.hands, max(missed)
        # Asked now: finding out what was missed takes seconds, in which the timer goes on.
        last = hands.timers.last_start(self.snapshot)
        self.facts["dropped"] = [format_exact(each) for each in sorted(missed) if each != slot]
        if (last is not None and last >= slot) or hands.timers.will_run(self.snapshot, released):
            self.notes.append(f"nobody ran the slot {slot:%Y-%m-%d %H:%M:%S}Z: legacy's own next run is for it too")
            self.facts["served"] = format_exact(slot)
            return
        if self.facts.get("owed_in", hands.boot_id) != hands.boot_id:
            return  # it was begun before a reboot, which systemd does not remember; twice would be worse than not
        self.facts |= {"owed_in": hands.boot_id}
        self.note_facts(Step.OWED)
        begun = hands.now()
        service = hands.timers.run_once(self.snapshot)
        hands.timers.last_start(self.snapshot)  # until it has begun
        if service is None:
            self.notes.append(
                f"the slot {slot:%Y-%m-%d %H:%M:%S}Z was run by nobody, and cron cannot be told to: by hand"
            )
        else:
            self.facts["owed"] = {"slot": format_exact(slot), "service": service, "at": format_exact(begun)}

    def _clear(self) -> None:
        self.facts["cancelled"] = self.hands.prefect.clear(self.name)

    def try_drain(self) -> bool:
        """Write `draining`; False where that fails (a full disk): then the job's lock alone keeps runs out."""
        try:
            self._drain()
        except OrchctlError as error:
            self.notes.append(f"{error.message}: new runs of Prefect's were held back by the job's lock alone")
            return False
        return True
