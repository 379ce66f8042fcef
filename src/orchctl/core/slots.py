"""The slot rule: whether a scheduled run may execute. Pure; ARCHITECTURE of the rule in docs/slot-rule.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from orchctl.core.catalog import Job
from orchctl.core.durations import human

# A worker polls every few seconds and Python starts in a few more. A run that begins within this time of its
# slot is on time; a later one is a catch-up. Prefect calls a run Late after 15 s, which a busy host exceeds.
ON_TIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Owner:
    """The content of `owners/<job>.json`. The file exists exactly while Prefect owns the job.

    `since`: slots from this instant on are Prefect's. `granted` are earlier ones that are Prefect's too, because legacy
    did not run them before its last instant; None while a cutover has yet to find out. `handover` is the cutover that
    made the file, None where it does not say. `confirm_by`: unless the cutover is confirmed until then, it is rolled
    back by itself; None where that was not asked for, or has been confirmed.
    """

    since: datetime
    draining: bool
    granted: tuple[datetime, ...] | None = ()
    handover: str | None = None
    confirm_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`run`, `observe`, `skip`, or `fail` where a step cannot be judged; and why (None for `run`)."""

    kind: Literal["run", "observe", "skip", "fail"]
    reason: str | None = None


RUN = Verdict("run")


def owned(job: Job, slot: datetime, owner: Owner | None) -> Verdict:
    """Step 1: whether Prefect owns this slot. A job with no legacy triggers is simply Prefect's."""
    if not job.has_legacy:
        return RUN
    if owner is None:
        return Verdict("observe", "legacy owns the job")
    if owner.draining:
        return Verdict("observe", "a rollback is draining the job")
    if slot < owner.since and slot not in (owner.granted or ()):
        return Verdict("observe", "the slot fell due before Prefect owned the job")
    return RUN


def fresh(job: Job, slot: datetime, *, now: datetime, later_due: datetime | None) -> Verdict:
    """Step 2: whether the slot is still worth running.

    `later_due` is the newest later slot of the job that has fallen due too and has a run of its own, None
    where there is none or nobody asked (`needs_later`).
    """
    late = now - slot
    if late <= ON_TIME:
        return RUN
    if job.catchup == "skip":
        return Verdict("skip", f"stale: {human(late.total_seconds())} late, and catchup is skip")
    if late.total_seconds() > job.catchup_window:
        return Verdict(
            "skip",
            f"stale: {human(late.total_seconds())} late, and catchup_window is {human(job.catchup_window)}",
        )
    if job.catchup == "latest" and later_due is not None:
        return Verdict("skip", f"stale: a later slot ({later_due:%H:%M:%S}Z) is due, and catchup is latest")
    return RUN


def needs_later(job: Job, slot: datetime, *, now: datetime) -> bool:
    """Whether `fresh` would use `later_due`, so that it is only looked up where it matters."""
    late = now - slot
    return job.catchup == "latest" and late > ON_TIME and late.total_seconds() <= job.catchup_window


def game_date(job: Job, instant: datetime, timezone: str) -> date:
    """Return the partition of a run for `instant`: its date in the catalog's zone, moved by the job's offset."""
    return instant.astimezone(ZoneInfo(timezone)).date() + timedelta(days=job.game_date_offset_days)
