"""The protocol of core/handover.py on a host that does everything at the worst moment, and its mutants."""

from __future__ import annotations

import pytest

from invariants import Entry, check
from model.explore import explore
from model.mutants import MUTANTS, Mutant
from model.world import Setup
from support import STRESS

pytestmark = pytest.mark.campaign

AT_LEAST = 1_000_000

SETUPS = {
    "a cutover that is killed, timers that fire late": Setup(
        (("cutover", "recover"),), crashes=1, delays=True, bursts="persistent"
    ),
    "a cutover in two scopes, killed twice": Setup((("cutover", "recover"),), crashes=2, scopes=2, bursts="persistent"),
    "a cutover and a reboot": Setup((("cutover", "recover"),), crashes=1, reboots=1, bursts="persistent"),
    "a rollback and a reboot": Setup((("rollback", "recover"),), owned=True, crashes=1, reboots=1, bursts="persistent"),
    "a timer without a link, in two scopes, and a reboot": Setup(
        (("cutover", "rollback", "recover"),), slots=1, scopes=2, linked=(True, False), reboots=1, bursts="persistent"
    ),
    "a rollback beside a cutover": Setup((("rollback", "cutover"),), owned=True, crashes=1, bursts="persistent"),
    "two operators who roll back": Setup(
        (("rollback", "cutover"), ("rollback", "recover")), owned=True, slots=1, crashes=1
    ),
    "two operators, killed": Setup((("cutover", "recover"), ("rollback", "recover")), slots=1, crashes=1),
    "a rollback with Requires=, a run by hand, no API": Setup(
        (("rollback",),), owned=True, outages=1, by_hand=1, bursts="requires"
    ),
    "a cutover without an API, paused before": Setup(
        (("cutover", "recover"),), slots=1, outages=2, crashes=1, paused=True
    ),
    "a service that somebody starts": Setup((("cutover", "recover"),), crashes=1, legacy_by_hand=1),
    "every slot counts": Setup((("cutover", "recover"),), policy="all", crashes=1),
    "a crontab line": Setup((("cutover", "recover"), ("rollback",)), crashes=1, scopes=0, cron=True),
}
LARGE = {
    "three slots": Setup((("cutover", "recover"),), slots=3, crashes=1),
    "two operators, killed, two slots": Setup((("cutover", "recover"), ("rollback",)), crashes=1, bursts="persistent"),
    "two operators at random": Setup(
        (("cutover", "rollback", "recover"), ("rollback", "cutover", "recover")), slots=1, crashes=2
    ),
    "a rollback beside a cutover of another": Setup(
        (("rollback", "recover"), ("cutover",)), owned=True, crashes=1, bursts="persistent"
    ),
    "every slot counts, two operators, killed": Setup((("cutover", "recover"), ("rollback",)), crashes=1, policy="all"),
    "a rollback, everything at once": Setup(
        (("rollback", "recover"),), owned=True, crashes=1, outages=1, by_hand=1, bursts="requires"
    ),
    "there and back without an API": Setup(
        (("cutover", "rollback"),), slots=1, crashes=1, outages=2, legacy_by_hand=1, paused=True
    ),
    "a service that somebody starts, there and back": Setup((("cutover", "rollback"),), legacy_by_hand=1),
    "two reboots": Setup((("cutover", "rollback", "recover"),), slots=1, reboots=2, crashes=1, bursts="persistent"),
}


ALL = SETUPS | LARGE if STRESS else SETUPS


@pytest.mark.parametrize("name", ALL)
def test_no_schedule_breaks_an_invariant(name: str) -> None:
    explored = explore(ALL[name])
    assert explored.violations == [], str(explored)
    assert explored.schedules >= AT_LEAST
    print(f"{name}: {explored}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_of_the_protocol_is_caught(mutant: Mutant) -> None:
    explored = explore(mutant.setup, mutant.rules)
    assert mutant.breaks in {violation.invariant for violation in explored.violations}, str(explored)


def test_without_a_mutation_their_setups_break_nothing() -> None:
    for setup in {mutant.setup for mutant in MUTANTS} - set((SETUPS | LARGE).values()):
        explored = explore(setup)
        assert explored.violations == [], str(explored)


def started(t: float, by: str, run: str, *slots: float) -> Entry:
    return Entry(t, "start", by=by, run=run, slots=slots)


LOGS = {
    "I1 a run beside another": ([started(1, "legacy", "a", 1), started(2, "prefect", "b", 2)], "I1"),
    "I1 a slot that both ran": (
        [started(1, "legacy", "a", 1), Entry(2, "end", run="a"), started(3, "prefect", "b", 1)],
        "I1",
    ),
    "I1 two able": ([Entry(1, "settled", state=("legacy", "prefect"))], "I1"),
    "I2 none able": ([Entry(1, "settled", state=())], "I2"),
    "I3 a slot twice": (
        [started(1, "prefect", "a", 1), Entry(2, "end", run="a"), started(3, "prefect", "b", 1)],
        "I3",
    ),
    "I4 a slot missed": ([Entry(1, "due", slots=(1,)), Entry(2, "settled", state=("legacy",))], "I4"),
    "I5 left unfinished": ([Entry(1, "recovered", state="unfinished")], "I5"),
    "I5 changed again": ([Entry(1, "recovered", state="changed")], "I5"),
    "I6 not back": ([Entry(1, "rolled-back", state=False)], "I6"),
    "I6 too slow": ([Entry(1, "rolled-back", state=True, took=5.1)], "I6"),
    "I7 other units": ([Entry(1, "units", by="before", state=1), Entry(2, "units", by="after", state=2)], "I7"),
    "I8 nobody's change": ([Entry(1, "owner", by="x", state="live")], "I8"),
    "I8 two at work": ([Entry(1, "begin", by="x"), Entry(2, "begin", by="y")], "I8"),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_checker_names_the_invariant_that_a_log_breaks(name: str) -> None:
    log, invariant = LOGS[name]
    (violation,) = check(log)
    assert violation.invariant == invariant
    assert violation.entries[-1] == log[-1]


def test_the_checker_keeps_jobs_apart() -> None:
    log = [started(1, "legacy", "a", 1), Entry(2, "start", by="prefect", run="b", slots=(1,), job="other")]
    assert check(log) == []


def test_a_later_run_serves_an_earlier_slot_unless_every_slot_counts() -> None:
    log = [Entry(1, "due", slots=(1, 2)), started(2, "prefect", "a", 2), Entry(3, "settled", state=("prefect",))]
    assert check(log) == []
    assert [violation.invariant for violation in check(log, policy="all")] == ["I4"]
