"""The protocol of a handover: its steps, their order, and what is still to do. Pure; docs/handover.md has it in words.

A handover is not a script that remembers where it was. Every step has an effect that can be seen on the host, and what
is to be done next is the first step whose effect is not there. So a handover that was killed is gone on with by
looking, and `orchctl recover` is the same loop as `cutover` and `rollback` themselves. The model in tests/model takes
the orders below and kills, interleaves and reorders them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import Literal

Kind = Literal["cutover", "rollback"]


class Step(StrEnum):
    """A step of a handover. Its effect can be seen; doing it again where it is there changes nothing."""

    ARM = "arm"
    """A timer of its own will roll the job back unless somebody confirms the cutover (if that was asked for)."""
    FENCE = "fence"
    """Each legacy service starts only while the job has no owner file, and systemd has loaded that."""
    SCHEDULE = "schedule"
    """Prefect's deployment is not paused, and runs are scheduled ahead. They observe."""
    CRON_OFF = "cron-off"
    """The crontab lines are commented out, or, where the operator asked for it, look at the owner file."""
    COMMIT = "commit"
    """The owner file is there: from its `since` on, slots are Prefect's (of a job with crontab lines, after GRANT)."""
    TIMERS_OFF = "timers-off"
    """The legacy timers are stopped, and nothing starts them at boot."""
    GRANT = "grant"
    """The owner file names the slots before `since` that legacy did not run."""
    CATCH_UP = "catch-up"
    """Prefect has a run for each slot that was granted."""

    DRAIN = "drain"
    """The owner file says `draining`, or is gone: Prefect starts nothing new."""
    IDLE = "idle"
    """No run of Prefect's is going: this process holds the job's lock. Or the owner file is gone."""
    TIMERS_ON = "timers-on"
    """The legacy timers are as they were before the cutover. The fence is still there: nothing bursts."""
    RELEASE = "release"
    """The owner file is gone: legacy owns the job."""
    CRON_ON = "cron-on"
    """The crontab lines are as they were before the cutover."""
    OWED = "owed"
    """A slot that fell due while nobody might run it was run once through the legacy service."""
    UNFENCE = "unfence"
    """The drop-ins are gone from the legacy services, and systemd has loaded that."""
    DISARM = "disarm"
    """No timer of ours will roll the job back."""
    CLEAR = "clear"
    """Prefect's deployment is paused, and has no run that a worker could take."""
    RESTORE = "restore"
    """Prefect's deployment is paused again, where it was before the cutover that is undone."""


CUTOVER: tuple[Step, ...] = (
    Step.ARM,
    Step.FENCE,
    Step.SCHEDULE,
    Step.COMMIT,
    Step.TIMERS_OFF,
    Step.CRON_OFF,
    Step.GRANT,
    Step.CATCH_UP,
)
"""From legacy to Prefect. Before COMMIT everything can be undone, and legacy runs; from COMMIT on it is finished.

cron has no fence: the owner file of a job with crontab lines owns no slot before GRANT, so that cron may run the job
until its lines are out, and what fell due after that is granted.
"""

UNDO: tuple[Step, ...] = (Step.CRON_ON, Step.UNFENCE, Step.DISARM, Step.RESTORE)
"""What takes back a cutover that has not committed."""

ROLLBACK: tuple[Step, ...] = (
    Step.DRAIN,
    Step.IDLE,
    Step.TIMERS_ON,
    Step.CRON_ON,
    Step.RELEASE,
    Step.OWED,
    Step.UNFENCE,
    Step.DISARM,
    Step.CLEAR,
)
"""From Prefect to legacy. cron, which has no fence, is put back while nobody else can run the job: Prefect drains, and
this process holds the job's lock.

It is never undone, only finished: who asked for it wants the side that needs no API, and what was rolled back by an
unconfirmed cutover's timer has nobody who could ask again. Prefect's part comes last, and may be owed: nothing that
Prefect does can run the job once the owner file is gone.
"""

OF_PREFECT = frozenset({Step.CATCH_UP, Step.CLEAR, Step.RESTORE})
"""Steps that need only Prefect's API, and that nothing else waits for: where it does not answer they are owed."""

WORDS: dict[Step, str] = {
    Step.ARM: "arm the rollback that comes by itself unless you confirm",
    Step.FENCE: "fence the legacy services: they start only while the job has no owner file",
    Step.SCHEDULE: "see that Prefect schedules the job (its runs still only observe)",
    Step.CRON_OFF: "comment the crontab lines out",
    Step.COMMIT: "commit: write the owner file; from its instant on slots are Prefect's",
    Step.TIMERS_OFF: "stop and disable the legacy timers",
    Step.GRANT: "find the slots that legacy did not run before that instant, and grant them to Prefect",
    Step.CATCH_UP: "start those slots in Prefect, once each",
    Step.DRAIN: "let Prefect start nothing new (legacy is still fenced)",
    Step.IDLE: "wait for the run that is going",
    Step.TIMERS_ON: "put the legacy timers back as they were, behind the fence",
    Step.RELEASE: "commit: remove the owner file; from now on legacy runs the job",
    Step.CRON_ON: "put the crontab lines back as they were",
    Step.OWED: "run a slot that nobody ran, once, through the legacy service",
    Step.UNFENCE: "remove the fence from the legacy services",
    Step.DISARM: "disarm the rollback that would have come by itself",
    Step.CLEAR: "pause Prefect's deployment, and cancel what a worker could still take",
    Step.RESTORE: "pause Prefect's deployment again, as it was",
}
"""What each step does, for people."""


def order(kind: Kind, *, owned: bool, resumed: bool) -> tuple[Step, ...]:
    """Return the steps of a handover. `owned`: the owner file is there; `resumed`: another process began it.

    A cutover that another process left before its commit is taken back; one that has committed, and every rollback,
    is finished.
    """
    if kind == "rollback":
        return ROLLBACK
    return CUTOVER if owned or not resumed else UNDO


def todo(steps: Sequence[Step], holds: Callable[[Step], bool], *, put_off: Collection[Step] = ()) -> Step | None:
    """Return the first step whose effect is not there, None where all are. Those in `put_off` are passed over."""
    return next((step for step in steps if step not in put_off and not holds(step)), None)
