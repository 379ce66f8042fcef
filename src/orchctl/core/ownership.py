"""Drift of ownership: what is wrong with who owns a job, and what `recover` and `sync` do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchctl.core.handover import WORDS
from orchctl.core.handover_journal import Handover
from orchctl.core.slots import Owner

# The timer of an unconfirmed cutover waits for another orchctl that is at work, and tries again every few seconds.
OVERDUE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. `code` is a stable word; `fix` says what puts it right, None where nobody can know."""

    code: str
    message: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the state directory says of a job's owner. Text stands for what cannot be believed: why.

    `made` is the cutover that made the owner file, `open` the unfinished handover, `last` the one that ended last; None
    where there is none.
    """

    owner: Owner | str | None = None
    made: Handover | str | None = None
    open: Handover | str | None = None
    last: Handover | str | None = None


def findings(job: str, known: Known, *, active: bool, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong by the files alone. `active`: Prefect has a deployment of the job that is not paused."""
    owner = known.owner
    if isinstance(owner, str):
        fix = f"`orchctl recover` leaves it alone; `orchctl rollback {job}` removes it, and legacy owns the job"
        yield Finding("owner-unknown", owner, fix)
    if known.open is not None:
        yield _unfinished(job, known.open, owned=owner is not None)
    elif isinstance(owner, Owner):
        yield from _owned(owner, known.made)
    elif owner is None and active and was_rolled_back(known):
        yield Finding(
            "unpaused-by-hand",
            "its deployment was paused by a rollback, and is active again: its runs execute nothing",
            "`orchctl recover` pauses it again",
        )
    if isinstance(owner, Owner) and owner.confirm_by is not None and owner.confirm_by + OVERDUE < now:
        yield Finding(
            "confirm-overdue",
            f"nobody confirmed the cutover until {_at(owner.confirm_by)}, and it was not rolled back",
            f"`orchctl confirm {job}` keeps it, `orchctl rollback {job}` does not",
        )


def was_rolled_back(known: Known) -> bool:
    """Whether the last handover is a rollback that ended: since then the deployment is paused."""
    last = known.last
    return isinstance(last, Handover) and last.opened.kind == "rollback" and last.outcome == "done"


def is_adrift(known: Known) -> bool:
    """Whether the owner file has no journal that could be gone on with: nobody knows what its cutover found."""
    return isinstance(known.owner, Owner) and known.open is None and not isinstance(known.made, Handover)


def is_broken_off(known: Known) -> bool:
    """Whether the cutover that made the owner has no end, and nothing says that it is unfinished: its mark is gone."""
    made = known.made
    return isinstance(known.owner, Owner) and known.open is None and isinstance(made, Handover) and made.outcome is None


def _unfinished(job: str, found: Handover | str, *, owned: bool) -> Finding:
    if isinstance(found, str):
        fix = f"`orchctl rollback {job}` makes legacy the owner all the same" if owned else "look at it, and remove it"
        return Finding("unfinished-handover", f"a handover is unfinished, and {found}", fix)
    if found.is_debt:
        return Finding("debt", debt(found), "`orchctl recover` and `orchctl sync` do it once Prefect answers")
    opened = found.opened
    said = f"a {opened.kind} begun {_at(opened.at)} is unfinished"
    if found.outcome is not None:
        return Finding("unfinished-handover", f"{said}: only its end is not written down", _RECOVER)
    if found.records:
        said = f"{said}: it came to “{WORDS[found.records[-1].step]}”"
    takes_back = opened.kind == "cutover" and not owned
    return Finding("unfinished-handover", said, f"`orchctl recover` {'takes it back' if takes_back else 'finishes it'}")


_RECOVER = "`orchctl recover` finishes it"


def _owned(owner: Owner, made: Handover | str | None) -> Iterator[Finding]:
    if owner.draining:
        said = "a rollback is under way, or was broken off: until it is done nothing runs the job"
        yield Finding("draining", said, _RECOVER)
    elif not isinstance(made, Handover):
        why = made or "its owner file has no journal: what started the job before is not known"
        fix = "`orchctl recover` writes one, from the job's timers in the catalog, and sees that they are off"
        yield Finding("no-journal", why, fix)
    elif made.outcome is None:
        yield Finding("unfinished-handover", f"its cutover begun {_at(made.opened.at)} has no end", _RECOVER)


def came_back(label: str, *, on: bool) -> Finding:
    """Return what is wrong with a legacy trigger that is on (or only enabled) although Prefect owns the job."""
    how = "is on" if on else "is enabled, and starts at the next boot,"
    return Finding(
        "trigger-came-back", f"{label} {how} although Prefect owns the job", "`orchctl recover` turns it off again"
    )


def fence_gone(service: str, *, unloaded: bool) -> Finding:
    """Return what is wrong with a legacy service that could start. `unloaded`: systemd has yet to load its files."""
    why = "has files that systemd has not loaded: its fence may not be what holds it" if unloaded else "has no fence"
    return Finding("fence-gone", f"{service} {why}, and Prefect owns the job", "`orchctl recover` puts it back")


def fence_left(service: str) -> Finding:
    """Return what is wrong with a service that is fenced for a job that legacy owns and no handover is at work on."""
    return Finding(
        "fence-left",
        f"{service} has a fence of this job's, although legacy owns it: it may be another state directory's",
        "if not, remove the drop-in, and enable the timer",
    )


def debt(found: Handover) -> str:
    """Say what of Prefect's part of a handover is still to be done."""
    opened = found.opened
    owed = "; ".join(WORDS[step] for step in found.owed)
    return f"Prefect's part of the {opened.kind} of {_at(opened.at)} is owed: {owed}"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}Z"
