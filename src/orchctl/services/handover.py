"""cutover, rollback, recover, confirm: one loop over the steps of core/handover.py, recorded in a journal.

The truth is observed, never remembered: each round does the first step whose effect is not there. A process that was
killed left a journal and an open mark; whoever comes next opens it and goes round the same loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchctl.core import handover as protocol
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Handover, Opened, Outcome, Phase, Record
from orchctl.core.names import parse_instant
from orchctl.core.snapshot import Snapshot
from orchctl.errors import (
    ExitCode,
    GateRefused,
    HandoverUnfinished,
    NotAllowed,
    OrchctlError,
    PrefectApiError,
    StateBroken,
    UsageError,
)
from orchctl.services.handover_steps import Hands, Steps

TRIES = 3
"""How often a step is done whose effect does not show."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Switched:
    """What a handover did to a job. `outcome` None: it is unfinished, for the steps in `owed`, which are Prefect's.

    `last_legacy` is when legacy really ran last, `first_slot` the first of Prefect's own; None where not known.
    `granted` are the slots that the new owner caught up with, `dropped` those that the catch-up policy drops. `held_s`:
    seconds for which neither side could begin a run. `since`: from when on Prefect owns it, None after a rollback.
    """

    job: str
    kind: str
    id: str | None
    outcome: Outcome | None
    since: datetime | None = None
    last_legacy: datetime | None = None
    first_slot: datetime | None = None
    granted: tuple[datetime, ...] = ()
    dropped: tuple[datetime, ...] = ()
    held_s: float | None = None
    confirm_by: datetime | None = None
    owed: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def cutover(
    hands: Hands,
    job: str,
    *,
    digest: str | None,
    waived: Mapping[str, str],
    confirm_by: datetime | None,
    command: str,
    say: Say,
) -> Switched:
    """Make Prefect the owner of a job whose gates hold. Under the host's lock.

    Raises GateRefused where it is Prefect's already or a handover is unfinished, the error itself where something
    failed before the commit and all was taken back, HandoverUnfinished where `recover` has to go on.
    """
    if hands.handovers.open_of(job) is not None:
        raise GateRefused(f"{job} has an unfinished handover", hint="run `orchctl recover`")
    if hands.owners.read(job) is not None:
        raise GateRefused(f"Prefect owns {job} already", hint=f"see `orchctl status {job}`")
    catalog = hands.catalog(job, digest)
    if catalog is None or not catalog.jobs[job].has_legacy:
        raise UsageError(f"{job} has no legacy triggers: it is Prefect's already")
    known = catalog.jobs[job]
    timers, cron = hands.timers.snapshot(known), hands.cron.snapshot(known)
    snapshot = replace(timers, cron=cron.cron, paused=hands.prefect.is_paused(job))
    opened = Opened(
        hands.new_id(), "cutover", job, hands.now(), command, snapshot, digest, dict(waived), confirm_by=confirm_by
    )
    hands.handovers.begin(opened)
    return _Loop(hands, opened, say).go()


def rollback(hands: Hands, job: str, *, now: bool, command: str, say: Say, prefect_later: bool = False) -> Switched:
    """Make legacy the owner of a job again, whatever Prefect does. Under the host's lock.

    It goes on with a rollback that is unfinished, and takes an unfinished cutover back or over. Where nothing can be
    written (a full disk) it works without a journal. `prefect_later`: Prefect's part is left as a debt, for `resume`,
    so that other jobs need not wait for it. Raises HandoverUnfinished where `recover` has to go on.
    """
    notes: list[str] = []
    before = _believed(lambda: hands.handovers.open_of(job), notes)
    if before is not None and (before.opened.kind == "rollback" or job not in hands.owners.names()):
        opened = replace(before.opened, now=now or before.opened.now)
        return _Loop(hands, opened, say, before=before, notes=notes).go()
    if job not in hands.owners.names():
        return Switched(job, "rollback", None, "done", notes=(*notes, f"legacy owns {job} already"))
    origin = before or _origin(hands, job, notes)
    snapshot = origin.opened.snapshot if origin is not None else _told_assumed(hands, job, notes)
    opened = Opened(
        hands.new_id(),
        "rollback",
        job,
        hands.now(),
        command,
        snapshot,
        origin.opened.digest if origin else None,
        now=now,
        of=origin.opened.id if origin else None,
    )
    loop = _Loop(hands, opened, say, notes=notes)
    loop.begin(superseded=before)
    loop.prefect_later = prefect_later
    return loop.go()


def resume(hands: Hands, job: str, *, say: Say) -> Switched | None:
    """Go on with the unfinished handover of a job; None where there is none. Under the host's lock.

    Raises StateBroken where its journal cannot be believed, HandoverUnfinished where it stops again.
    """
    before = hands.handovers.open_of(job)
    if before is None:
        return None
    if before.outcome is not None:
        hands.handovers.end(before.opened, before.outcome, hands.now())
        return Switched(job, before.opened.kind, before.opened.id, before.outcome)
    return _Loop(hands, before.opened, say, before=before).go()


def confirm(hands: Hands, job: str) -> bool:
    """Keep a cutover for good: nothing rolls it back by itself any more. False where nothing would have. Repeatable.

    Raises UsageError where legacy owns the job, HandoverUnfinished where a handover is unfinished.
    """
    if hands.handovers.open_of(job) is not None:
        raise HandoverUnfinished(f"{job} has an unfinished handover", hint="run `orchctl recover`")
    owner = hands.owners.read(job)
    if owner is None:
        raise UsageError(f"legacy owns {job}: there is no cutover to confirm")
    armed = owner.confirm_by is not None or hands.confirm.is_armed(job)
    hands.confirm.disarm(job)
    if owner.confirm_by is not None:
        hands.owners.replace(job, replace(owner, confirm_by=None))
    return armed


def _origin(hands: Hands, job: str, notes: list[str]) -> Handover | None:
    """Return the cutover that made Prefect the owner, None where its journal is gone or cannot be believed."""
    try:
        owner = hands.owners.read(job)
    except StateBroken as error:
        notes.append(error.message)
        owner = None
    found = None
    if owner is not None and owner.handover is not None:
        named = owner.handover
        found = _believed(lambda: hands.handovers.read(named), notes)
    if found is None:
        found = _believed(lambda: hands.handovers.last_of(job), notes)
    return found if found is not None and found.opened.kind == "cutover" else None


def _told_assumed(hands: Hands, job: str, notes: list[str]) -> Snapshot:
    found = assumed(hands, job)
    notes.append("its cutover has no journal: the timers of the catalog are enabled and started")
    return found


def assumed(hands: Hands, job: str) -> Snapshot:
    """Return what a rollback puts back where no journal tells. Raises StateBroken where no catalog knows the job."""
    catalog = hands.catalog(job, None)
    if catalog is None:
        raise StateBroken(
            f"what started {job} before is not known: its cutover has no journal, and no catalog knows the job",
            hint="put the job back into the catalog, with its legacy triggers",
        )
    timers, cron = hands.timers.assumed(catalog.jobs[job]), hands.cron.snapshot(catalog.jobs[job])
    return replace(timers, cron=cron.cron)


def _believed(look: Callable[[], Handover | None], notes: list[str]) -> Handover | None:
    """Look at a journal for a rollback, which goes on without one."""
    try:
        return look()
    except StateBroken as error:
        notes.append(error.message)
        return None


class _Loop:
    """One handover, from where it stands to its end."""

    def __init__(
        self,
        hands: Hands,
        opened: Opened,
        say: Say,
        *,
        before: Handover | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.hands, self.opened, self.before = hands, opened, before
        self.steps = Steps(hands, opened, say, before, notes if notes is not None else [])
        self.steps.note_facts = lambda step: self._record(step, "begun", self.steps.facts)
        self.say = say
        self.put_off: set[Step] = set()
        self.unrecorded = False
        self.prefect_later = False
        self.at: Step | None = None

    def begin(self, *, superseded: Handover | None) -> None:
        """Open the journal of a rollback; a full disk is no reason not to roll back."""
        try:
            self.hands.handovers.begin(self.opened)
            if superseded is not None:
                self.hands.handovers.supersede(superseded.opened, self.hands.now())
        except OrchctlError as error:
            self._unrecorded(error)

    def go(self) -> Switched:
        job = self.opened.job
        owned = job in self.hands.owners.names()
        order = protocol.order(self.opened.kind, owned=owned, resumed=self.before is not None)
        if self.before is not None and self.before.is_debt:
            # All else was done, and what has become of it since is not this handover's.
            order = self.before.owed
        self._tell("handover_started" if self.before is None else "handover_resumed")
        try:
            self._round(order)
            outcome: Outcome = "undone" if order is protocol.UNDO else "done"
        except BaseException as error:
            if order is protocol.CUTOVER and not self._owned():
                self._take_back(error)
                raise
            raise self._unfinished(error) from error
        finally:
            self.steps.release_lock()
        return self._ended(outcome)

    def _owned(self) -> bool:
        return self.opened.job in self.hands.owners.names()

    def _round(self, order: tuple[Step, ...]) -> None:
        done: Counter[Step] = Counter()
        while (step := protocol.todo(order, self._holds, put_off=self.put_off)) is not None:
            done[step] += 1
            if done[step] > TRIES:
                raise OrchctlError(f"{protocol.WORDS[step]}: done {TRIES} times, and it does not show")
            self.at = step
            self.say(protocol.WORDS[step])
            self._record(step, "begun")
            try:
                self._do(step)
            except (PrefectApiError, NotAllowed) as error:
                if step not in protocol.OF_PREFECT:
                    raise
                self._owe(step, error)
            else:
                self.steps.done[step] = self.hands.now()
                self._record(step, "done", self.steps.facts)

    def _holds(self, step: Step) -> bool:
        self.at = step
        if self.prefect_later and step in protocol.OF_PREFECT and not self.unrecorded:
            self.put_off.add(step)
            self._record(step, "owed", note="after the other jobs")
            return True
        try:
            return self.steps.holds(step)
        except (PrefectApiError, NotAllowed) as error:
            if step not in protocol.OF_PREFECT:
                raise
            self._owe(step, error)
            return True

    def _do(self, step: Step) -> None:
        if step is Step.DRAIN:
            if not self.steps.try_drain():
                self.put_off.add(step)
            return
        self.steps.do(step)
        if step in {Step.COMMIT, Step.RELEASE}:
            self._tell("handover_committed")

    def _owe(self, step: Step, error: OrchctlError) -> None:
        self.put_off.add(step)
        self.steps.notes.append(f"owed: {protocol.WORDS[step]} ({error.message})")
        self._record(step, "owed", note=error.message)

    def _record(self, step: Step, phase: Phase, data: Mapping[str, Any] | None = None, note: str | None = None) -> None:
        if self.unrecorded:
            return
        try:
            self.hands.handovers.add(self.opened, Record(step, phase, self.hands.now(), note, dict(data or {})))
        except OrchctlError as error:
            if self.opened.kind == "cutover":
                raise
            self._unrecorded(error)

    def _unrecorded(self, error: OrchctlError) -> None:
        self.unrecorded = True
        self.steps.notes.append(f"this rollback is not recorded: {error.message}")

    def _take_back(self, error: BaseException) -> None:
        """Undo a cutover that failed before its commit, so that it leaves nothing; else `recover` does."""
        self.say(f"{self.at.value if self.at else 'it'} failed; taking everything back")
        try:
            if self.at is not None:
                note = error.message if isinstance(error, OrchctlError) else type(error).__name__
                self._record(self.at, "failed", note=note)
            self._round(protocol.UNDO)
            if not self._debts():
                self.hands.handovers.end(self.opened, "undone", self.hands.now())
        except OrchctlError as again:
            raise self._unfinished(again) from error
        if isinstance(error, OrchctlError):
            error.message = f"{error.message}; {self.opened.job} was left as it was"

    def _unfinished(self, error: BaseException) -> BaseException:
        """Return what to raise where a handover stops halfway."""
        said = error.message if isinstance(error, OrchctlError) else "interrupted"
        if not isinstance(error, OrchctlError | KeyboardInterrupt):
            return error
        step = f" at {self.at.value}" if self.at is not None else ""
        owner = "Prefect" if self._owned() else "legacy"
        found = HandoverUnfinished(
            f"the {self.opened.kind} of {self.opened.job} stopped{step}: {said} ({owner} owns the job)",
            hint="run `orchctl recover`: it looks, and goes on from there",
        )
        if isinstance(error, KeyboardInterrupt):
            found.exit_code = ExitCode.INTERRUPTED
        return found

    def _debts(self) -> tuple[Step, ...]:
        return tuple(step for step in self.put_off if step in protocol.OF_PREFECT)

    def _ended(self, outcome: Outcome) -> Switched:
        owed = self._debts()
        if not owed and not self.unrecorded:
            self.hands.handovers.end(self.opened, outcome, self.hands.now())
        if not owed:
            self._tell("handover_finished")
        facts = self.steps.facts
        owed_run = facts.get("owed")
        return Switched(
            job=self.opened.job,
            kind=self.opened.kind,
            id=self.opened.id,
            outcome=None if owed else outcome,
            since=self._fact("since") if self.opened.kind == "cutover" else None,
            last_legacy=self._fact("last_legacy"),
            first_slot=self._fact("first_slot"),
            granted=_instants(facts.get("granted") or ([owed_run["slot"]] if owed_run else [])),
            dropped=_instants(facts.get("dropped") or []),
            held_s=self._held(),
            confirm_by=self.opened.confirm_by,
            owed=owed,
            notes=tuple(self.steps.notes),
        )

    def _held(self) -> float | None:
        """Return for how long neither side could begin a run: commit to `since`, or draining to release."""
        start, end = self._fact("held_from"), self._fact("since" if self.opened.kind == "cutover" else "released_at")
        return None if start is None or end is None else max(0.0, (end - start).total_seconds())

    def _fact(self, name: str) -> datetime | None:
        found = self.steps.facts.get(name)
        return parse_instant(found) if isinstance(found, str) else None

    def _tell(self, event: str) -> None:
        opened = self.opened
        data: dict[str, Any] = {"handover": opened.id, "kind": opened.kind, "job": opened.job}
        data["command"] = opened.command
        if event == "handover_committed":
            data |= {key: self.steps.facts[key] for key in ("since",) if key in self.steps.facts}
        if event == "handover_finished":
            data |= {key: self.steps.facts[key] for key in ("granted", "owed") if self.steps.facts.get(key)}
        if opened.waived and event == "handover_started":
            data |= {"waived": dict(opened.waived)}
        self.hands.event(event, self.steps.job(), data)


def _instants(found: list[str]) -> tuple[datetime, ...]:
    return tuple(map(parse_instant, found))
