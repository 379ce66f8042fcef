"""What `runs audit` shows: a line a job, and below it the slots that are not ok."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.audit import VERDICTS
from orchctl.core.words import counted, several

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from orchctl.core.audit import Gap, Group, JobAudit, Slot
    from orchctl.services.audit import Audited
    from orchctl.wiring import Settings

_GROUPS = 50
_RUNS = 3
_INDENT = 2


def audited(result: Audited, timezone: str, settings: Settings, *, one_day: bool) -> None:
    """Show an audit. What could not be looked at goes to stderr."""
    from zoneinfo import ZoneInfo

    errors: list[dict[str, str | None]] = [
        {"code": "skipped", "message": f"{item.path}: {item.reason}", "hint": "orchctl runs reindex"}
        for item in result.skipped
    ]
    errors += [{"code": "not-brought-in", "message": note, "hint": None} for note in result.notes]
    if not settings.as_json:
        for item in result.skipped:
            render.note(f"passed over {item.path}: {item.reason}")
        for note in result.notes:
            render.note(note)
    clock = _Clock(result, ZoneInfo(timezone), one_day=one_day)
    render.emit("runs audit", _data(result, timezone), lambda: _text(result, clock), settings, errors=errors)


def _data(result: Audited, timezone: str) -> dict[str, Any]:
    return {
        "timezone": timezone,
        "start": result.window.start,
        "end": result.window.end,
        "wrong": result.wrong,
        "totals": _totals(result),
        "jobs": [
            {
                "job": job.job,
                "wrong": job.wrong,
                "counts": job.counts,
                "slots": [_slot(slot) for slot in job.slots],
                "gaps": [{"start": _at(gap.start), "end": _at(gap.end), "reason": gap.reason} for gap in job.gaps],
                "extra": [{"by": each.feed, "runs": list(each.runs)} for each in job.extra],
            }
            for job in result.jobs
        ],
    }


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        "slot": _at(slot.at),
        "side": slot.side,
        "due": list(slot.due),
        "verdict": slot.verdict,
        "why": slot.why,
        "detail": slot.detail,
        "runs": list(slot.runs),
        "coalesced": slot.coalesced,
    }


def _at(stamp: float) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)


def _totals(result: Audited) -> dict[str, int]:
    found: Counter[str] = Counter()
    for job in result.jobs:
        found.update(job.counts)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


class _Clock:
    """Writes instants: with the date where the window is more than a day, with the zone where clocks change."""

    def __init__(self, result: Audited, zone: ZoneInfo, *, one_day: bool) -> None:
        self.zone = zone
        start, end = (each.astimezone(zone) for each in (result.window.start, result.window.end))
        self.start, self.end, self.now = start.timestamp(), end.timestamp(), result.at.timestamp()
        changes = start.utcoffset() != end.utcoffset()
        self._form = ("" if one_day else "%m-%d ") + "%H:%M:%S" + (" %Z" if changes else "")
        self.span = f"on {start:%Y-%m-%d}" if one_day else f"since {start:%Y-%m-%d %H:%M}"

    def at(self, stamp: float) -> str:
        return _at(stamp).astimezone(self.zone).strftime(self._form)

    def between(self, first: float, last: float) -> str:
        return self.at(first) if first == last else f"{self.at(first)} … {self.at(last)}"


def _text(result: Audited, clock: _Clock) -> None:
    widest = max((len(job.job) for job in result.jobs), default=0)
    for job in result.jobs:
        render.line(f"{job.job:<{widest}}  {counted(len(job.slots), 'slot')}{_of(job.counts)}")
        for when, verdict, said in _lines(job, clock):
            _paragraph(when, verdict, said)
    totals = _totals(result)
    gaps = sum(1 for job in result.jobs if job.gaps)
    rest = f"; of {counted(gaps, 'job')} not all slots are known" if gaps else ""
    render.line(f"{counted(sum(totals.values()), 'slot')}{_of(totals)} {clock.span} ({clock.zone.key}){rest}")


def _of(counts: dict[str, int]) -> str:
    return ": " + ", ".join(f"{number} {verdict}" for verdict, number in counts.items()) if counts else ""


def _lines(job: JobAudit, clock: _Clock) -> Iterator[tuple[str, str, str]]:
    yield from (_gap(gap, clock) for gap in job.gaps)
    groups = list(job.groups())
    yield from (_group(group, clock) for group in islice(groups, _GROUPS))
    if len(groups) > _GROUPS:
        yield "…", "", f"{len(groups) - _GROUPS} more; --json has all"
    for each in job.extra:
        belong = "belongs" if len(each.runs) == 1 else "belong"
        yield "-", "extra", f"{_runs(each.runs)} of {each.feed} {belong} to no slot"


def _gap(gap: Gap, clock: _Clock) -> tuple[str, str, str]:
    # A day ends at 00:00:00, which reads as its beginning.
    until = "" if gap.end in {clock.end, clock.now} else f" until {clock.at(gap.end)}"
    when = f"from {clock.at(gap.start)}" if gap.start > clock.start else "" if until else "all the time"
    return f"{when}{until}".strip(), "unknown", f"the slots are not known: {gap.reason}"


def _group(group: Group, clock: _Clock) -> tuple[str, str, str]:
    first, last = group.slots[0], group.slots[-1]
    details = {slot.detail for slot in group.slots}
    said = first.why or ""
    if len(details) == 1 and first.detail:
        said += f" ({first.detail})"
    if len(group.slots) > 1:
        said = f"{counted(len(group.slots), 'slot')}: {said}"
    # Of many slots of which nothing is known, the runs that are there say nothing.
    runs = () if first.verdict == "unknown" and len(group.slots) > 1 else group.runs
    return clock.between(first.at, last.at), first.verdict, f"{said}; {_runs(runs)}" if runs else said


def _runs(runs: tuple[str, ...]) -> str:
    if len(runs) == 1:
        return f"run {runs[0]}"
    return f"{len(runs)} runs: {several(runs, shown=_RUNS)}"


def _paragraph(when: str, verdict: str, said: str) -> None:
    lead = f"{'':{_INDENT}}{when:<21}  {verdict:<7}  "
    for line in textwrap.wrap(said, max(40, (render.width() or 10_000) - len(lead)), break_on_hyphens=False):
        render.line(f"{lead}{line}")
        lead = " " * len(lead)
