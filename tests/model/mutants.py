"""The protocol with one thing wrong, each with a setup in which that does harm, and the invariants that it breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.rules import Order, Rules
from model.world import Setup
from orchctl.core import handover as protocol
from orchctl.core.handover import Step


@dataclass(frozen=True)
class Mutant:
    """`breaks`: the checker must name one of them first."""

    name: str
    rules: Rules
    setup: Setup
    breaks: str


def _moved(order: Order, step: Step, *, before: Step | None) -> Order:
    """Return an order with a step elsewhere, at its end where `before` is None."""
    rest = [each for each in order if each is not step]
    rest.insert(len(rest) if before is None else rest.index(before), step)
    return tuple(rest)


def _cutover(step: Step, *, before: Step | None) -> Rules:
    return Rules(change=lambda order: _moved(order, step, before=before) if order is protocol.CUTOVER else order)


def _rollback(step: Step, *, before: Step | None) -> Rules:
    return Rules(change=lambda order: _moved(order, step, before=before) if order is protocol.ROLLBACK else order)


def _without(*steps: Step) -> Rules:
    return Rules(change=lambda order: tuple(each for each in order if each not in steps))


def _always_undo(kind: protocol.Kind, *, owned: bool, resumed: bool) -> Order:
    if kind == "cutover" and resumed:
        return protocol.UNDO
    return protocol.order(kind, owned=owned, resumed=resumed)


_KILLED = Setup((("cutover", "recover"),), crashes=1)
_BACK = Setup((("rollback", "recover"),), owned=True, crashes=1)
_BURST = Setup((("rollback",),), owned=True, bursts="persistent")
_REQUIRES = Setup((("rollback",),), owned=True, bursts="requires")
_CRON = Setup((("cutover", "recover"), ("rollback",)), crashes=1, scopes=0, cron=True)
_BOTH = Setup((("cutover", "rollback"),), slots=1, outages=1)
_TWO = Setup((("cutover", "recover"), ("rollback", "recover")), slots=1)
_TAKEN = Setup((("cutover", "recover"), ("rollback",)), slots=1, crashes=2)
S = Step

MUTANTS = [
    Mutant("the fence comes after the commit", _cutover(S.FENCE, before=S.TIMERS_OFF), _KILLED, "I1"),
    Mutant("there is no fence", _without(S.FENCE), _KILLED, "I1"),
    Mutant("a fence that systemd has not loaded is believed", Rules(fence_is_loaded=False), _KILLED, "I1"),
    Mutant("the timers are off before the commit", _cutover(S.TIMERS_OFF, before=S.COMMIT), _KILLED, "I7"),
    Mutant("the crontab line is off before the commit", _cutover(S.CRON_OFF, before=S.COMMIT), _CRON, "I4"),
    Mutant("no lock of the host", Rules(host_lock=False), _TWO, "I8"),
    Mutant("no second look at the owner, under the lock", Rules(second_look=False), _BACK, "I1"),
    Mutant("no look for a legacy service that runs", Rules(looks_at_legacy=False), _KILLED, "I1"),
    Mutant("the owner file appears with its since", Rules(since_after_appearance=False), _KILLED, "I1"),
    Mutant("nothing is granted", Rules(grants=False), _KILLED, "I4"),
    Mutant("the step that grants is left out", _without(S.GRANT), _KILLED, "I5"),
    Mutant("nothing is caught up with", _without(S.CATCH_UP), _KILLED, "I4"),
    Mutant("slots are granted while legacy starts", Rules(grant_waits=False), _KILLED, "I1"),
    Mutant("the owner file goes while a burst starts", Rules(release_waits=False), _BURST, "I1"),
    Mutant("the owner file goes while Requires= starts", Rules(release_waits=False), _REQUIRES, "I1"),
    Mutant("what legacy ran is owed", Rules(owed_looks=False), _BACK, "I3"),
    Mutant("the look at what is owed overtakes a start", Rules(owed_waits=False), _BACK, "I3"),
    Mutant(
        "what is owed counts as run when it is asked for",
        Rules(owed_is_seen=False),
        Setup((("rollback",), ("cutover",)), owned=True),
        "I4",
    ),
    Mutant("a rollback forgets what was granted", Rules(owed_from_grants=False), _BOTH, "I4"),
    Mutant(
        "a reboot makes forget what legacy ran",
        Rules(remembers_over_boots=False),
        Setup((("cutover", "recover"),), reboots=1, bursts="persistent"),
        "I1",
    ),
    Mutant(
        "a reboot makes forget that what was owed was run",
        Rules(remembers_over_boots=False),
        Setup((("rollback", "recover"),), owned=True, reboots=1, bursts="persistent"),
        "I3",
    ),
    Mutant("recover undoes a cutover that has committed", Rules(order=_always_undo), _KILLED, "I1"),
    Mutant("the fence goes before Prefect drains", _rollback(S.UNFENCE, before=S.DRAIN), _BACK, "I1"),
    Mutant("the timers return after the owner file went", _rollback(S.TIMERS_ON, before=S.OWED), _BURST, "I1"),
    Mutant("the timers return last", _rollback(S.TIMERS_ON, before=None), _BURST, "I1"),
    Mutant("a rollback does not wait for the run that goes", _without(S.IDLE), _BACK, "I1"),
    Mutant("a rollback looks for a run once, and goes on", Rules(waits_for_end=False), _BACK, "I1"),
    Mutant("the owner file goes before the run has ended", _rollback(S.RELEASE, before=S.IDLE), _BACK, "I1"),
    Mutant(
        "the job's lock is not held until the owner file is gone",
        Rules(job_lock_is_held=False),
        Setup((("rollback",),), owned=True, by_hand=1),
        "I1",
    ),
    Mutant("a slot can be claimed twice", Rules(claims_are_exclusive=False), _KILLED, "I3"),
    Mutant("a lock that a handover holds makes a run skipped", Rules(looks_when_locked=False), _BACK, "I4"),
    Mutant(
        "a skipped slot counts as one that was run",
        Rules(skipped_is_not_run=False),
        Setup((("cutover", "rollback"),), legacy_by_hand=1),
        "I4",
    ),
    Mutant("what is owed is left out", _without(S.OWED), _BACK, "I4"),
    Mutant("the fence stays", _without(S.UNFENCE), _BACK, "I6"),
    Mutant("runs that a worker could take stay", Rules(clears_runs=False), _BACK, "I5"),
    Mutant(
        "Prefect's part comes first, and is waited for",
        replace(_rollback(S.CLEAR, before=S.DRAIN), owes=False),
        Setup((("rollback",),), owned=True, outages=1),
        "I6",
    ),
    Mutant("the links of the timers stay", Rules(removes_links=False), _KILLED, "I5"),
    Mutant("the links of the timers do not return", Rules(restores_links=False), _BACK, "I6"),
    Mutant("the timers do not return", _without(S.TIMERS_ON), _BACK, "I6"),
    Mutant("until when cron ran is not known", Rules(cron_is_known=False), _CRON, "I1"),
    Mutant("the crontab line returns after the owner file went", _rollback(S.CRON_ON, before=S.OWED), _CRON, "I4"),
    Mutant("a rollback closes a cutover's journal and opens none", Rules(takes_over_journal=False), _TAKEN, "I5"),
    Mutant(
        "a cutover begins over an unfinished handover",
        Rules(lets_handover_be_finished=False),
        Setup((("rollback", "cutover", "rollback"),), owned=True, crashes=1, slots=1),
        "I4",
    ),
]
