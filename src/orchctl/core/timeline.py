"""A run of steps as a timeline: each step's attempts, contracts, promotion and pointers, from its events and manifests.

The events say what happened when; the manifests say what the events lost, and what the contracts found. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from orchctl.core import step_events
from orchctl.core.names import parse_instant

_ENDED = {step_events.FINISHED, step_events.RETRY}
_OPEN = {"waiting", "running", None}
"""What a run's manifest says of steps that had not ended when it was written: the events know better."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt of a step. `finished_at` is None while it runs, and where nobody wrote down when it ended.

    `delay_s`: how long was waited before it was tried again, None where it was not, or nobody said.
    """

    attempt: int
    started_at: datetime
    finished_at: datetime | None = None
    status: str = "running"
    reason: str | None = None
    error_class: str | None = None
    delay_s: float | None = None

    def until(self, now: datetime) -> datetime:
        """Return where the bar ends: `now` while it runs. One that crashed has only a beginning."""
        return self.finished_at or (now if self.status == "running" else self.started_at)


@dataclass(frozen=True, slots=True)
class Boundary:
    """What came of a contract at a boundary. `findings` say what breaks it; None where only their `count` is known."""

    contract: str
    file: str
    holds: bool
    count: int
    findings: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PointerChange:
    """What happened to a pointer: it moved from one run (None: from none) to another, or it stayed, and why."""

    pointer: str
    moved: bool
    was: str | None
    now: str | None
    reason: str | None
    by: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A step of the run. `status` is None for one that has not begun; `bars` are its attempts, oldest first."""

    step: str
    status: str | None = None
    reason: str | None = None
    bars: tuple[Bar, ...] = ()
    contracts: tuple[Boundary, ...] = ()
    promoted_to: str | None = None
    digest: str | None = None
    pointers: tuple[PointerChange, ...] = ()

    @property
    def busy_s(self) -> float | None:
        """Seconds that its attempts took together, without the waits; None where none has ended."""
        ended = [(bar.finished_at - bar.started_at).total_seconds() for bar in self.bars if bar.finished_at is not None]
        return sum(ended) if ended else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The steps of a run in the run's own order, from the first bar's start to the last one's end."""

    start: datetime
    end: datetime
    rows: tuple[Row, ...]


def of(
    run: Mapping[str, Any], steps: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], *, now: datetime
) -> Timeline | None:
    """Return the timeline of a run, None where it has no steps.

    `run` is its manifest, `steps` the manifests of its steps that there are, `events` those of its steps, in any order.
    What cannot be read is left out.
    """
    manifests = {str(each.get("step")): each for each in steps}
    told = sorted((each for each in events if _instant(each.get("ts")) is not None), key=_order)
    listed = [row for row in _tables(run.get("steps")) if isinstance(row.get("name"), str)]
    names = dict.fromkeys([row["name"] for row in listed])
    names |= dict.fromkeys(str(each["step"]) for each in told if each.get("step"))
    if not names:
        return None
    ends = {row["name"]: row for row in listed}
    of_steps = {name: [each for each in told if each.get("step") == name] for name in names}
    rows = tuple(
        _as_of_now(_row(name, of_steps[name], manifests.get(name), ends.get(name)), of_steps[name], run)
        for name in names
    )
    bars = [bar for row in rows for bar in row.bars]
    timing = run.get("timing") or {}
    start = min((bar.started_at for bar in bars), default=_instant(timing.get("started_at")) or now)
    end = max((bar.until(now) for bar in bars), default=_instant(timing.get("finished_at")) or start)
    return Timeline(start, max(start, end), rows)


def _order(event: Mapping[str, Any]) -> tuple[datetime, int]:
    # Within one instant, an end comes before the next start.
    return parse_instant(event["ts"]), event.get("event") == step_events.STARTED


def _row(
    name: str,
    events: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any] | None,
    listed: Mapping[str, Any] | None,
) -> Row:
    row = Row(name)
    for event in sorted([*events, *_lost(events, manifest)], key=_order):
        row = _told(row, event)
    if manifest is not None:
        row = _with_manifest(row, manifest)
    if listed is not None and listed.get("status") not in _OPEN:
        row = replace(row, status=str(listed["status"]), reason=_text(listed.get("reason")) or row.reason)
    if row.status == "warned" and row.bars:  # a failure that only warns is none
        row = replace(row, bars=(*row.bars[:-1], replace(row.bars[-1], status="warned")))
    return row


def _as_of_now(row: Row, events: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Row:
    """Return the row of a step that waits to be run again as one that waits: what went wrong was an earlier attempt."""
    began = _instant((run.get("timing") or {}).get("started_at")) if run.get("status") == "running" else None
    if began is None or row.status in {"success", "kept", "running"} or not events or _order(events[-1])[0] >= began:
        return row
    return replace(row, status=None, reason=None)


def _lost(events: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the starts and ends that a step's manifest knows, and the events do not."""
    if manifest is None:
        return []
    known = {(_attempt(each), str(each.get("event")) in _ENDED) for each in events}
    try:
        return [
            each
            for _, each in step_events.known_by(manifest)
            if (_attempt(each), each["event"] == step_events.FINISHED) not in known
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _told(row: Row, event: Mapping[str, Any]) -> Row:
    """Return the row after one more event; one that is not known changes nothing."""
    teller = _TELLERS.get(str(event.get("event")))
    return row if teller is None else teller(row, event)


def _started(row: Row, event: Mapping[str, Any]) -> Row:
    begun = _instant(event.get("started_at")) or parse_instant(event["ts"])
    bar = Bar(_attempt(event), begun)
    return replace(row, status="running", reason=None, bars=(*_closed(row.bars), bar))


def _kept(row: Row, event: Mapping[str, Any]) -> Row:
    return replace(row, status="kept", reason=_text(event.get("reason")))


def _checked(row: Row, event: Mapping[str, Any]) -> Row:
    found = event.get("findings")
    count = found if isinstance(found, int) else len(found) if isinstance(found, list) else 0
    one = Boundary(str(event.get("contract")), str(event.get("file")), event.get("status") == "ok", count)
    return replace(row, contracts=_with(row.contracts, one))


def _promoted(row: Row, event: Mapping[str, Any]) -> Row:
    return replace(row, promoted_to=_text(event.get("to")), digest=_text(event.get("digest")))


def _pointed(row: Row, event: Mapping[str, Any]) -> Row:
    texts = [_text(event.get(key)) for key in ("from", "to", "reason", "by")]
    one = PointerChange(str(event.get("pointer")), event["event"] == step_events.MOVED, *texts)
    return replace(row, pointers=(*(each for each in row.pointers if each.pointer != one.pointer), one))


def _closed(bars: tuple[Bar, ...]) -> tuple[Bar, ...]:
    """Return the bars with none still running: an attempt after which another began has ended, however."""
    return tuple(replace(bar, status="crashed") if bar.status == "running" else bar for bar in bars)


def _finished(row: Row, event: Mapping[str, Any]) -> Row:
    """Return the row after an attempt's end; `step_retry` may say it again, with the wait that follows."""
    again = event.get("event") == step_events.RETRY
    reason, kind = _text(event.get("reason")), _text(event.get("error_class"))
    status = "failed" if again else str(event.get("status") or "failed")
    delay = event.get("delay_s")
    last = row.bars[-1] if row.bars else None
    if last is None or (last.status != "running" and not again):
        # It never began: skipped, kept, or failed before its command could run.
        return replace(row, status=status, reason=reason)
    ended = last.finished_at or _instant(event.get("finished_at")) or parse_instant(event["ts"])
    bar = replace(
        last,
        finished_at=max(ended, last.started_at),
        status=status,
        reason=reason or last.reason,
        error_class=kind or last.error_class,
        delay_s=float(delay) if isinstance(delay, (int, float)) else last.delay_s,
    )
    return replace(row, status=status, reason=reason or row.reason, bars=(*row.bars[:-1], bar))


_TELLERS = {
    step_events.STARTED: _started,
    step_events.FINISHED: _finished,
    step_events.RETRY: _finished,
    step_events.KEPT: _kept,
    step_events.CHECKED: _checked,
    step_events.PROMOTED: _promoted,
    step_events.MOVED: _pointed,
    step_events.STAYED: _pointed,
}


def _with(contracts: tuple[Boundary, ...], one: Boundary) -> tuple[Boundary, ...]:
    """Return the contracts with `one` in place of an earlier attempt's answer for the same file."""
    return (*(each for each in contracts if (each.contract, each.file) != (one.contract, one.file)), one)


def _with_manifest(row: Row, manifest: Mapping[str, Any]) -> Row:
    """Return the row with what only the step's manifest knows: the findings, and a promotion the events lost."""
    for check in _tables(manifest.get("checks")):
        findings = tuple(str(each.get("message")) for each in _tables(check.get("findings")))
        place = str(check.get("contract")), str(check.get("file"))
        row = replace(
            row, contracts=_with(row.contracts, Boundary(*place, check.get("status") == "ok", len(findings), findings))
        )
    published = manifest.get("publish")
    if isinstance(published, dict) and row.promoted_to is None:
        row = replace(row, promoted_to=_text(published.get("to")), digest=_text(published.get("digest")))
    if manifest.get("status") == "crashed" and row.bars and row.bars[-1].status == "running":
        row = replace(row, status="crashed", reason=_text(manifest.get("reason")), bars=_closed(row.bars))
    return row


def _instant(value: object) -> datetime | None:
    try:
        return parse_instant(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _attempt(event: Mapping[str, Any]) -> int:
    found = event.get("attempt")
    return found if isinstance(found, int) else 1


def _tables(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Axis:
    """Time as a line from 0 to 1, with long idle times cut short, so that a run that was tried again the next day fits.

    `cuts` are the idle times that were cut. Instants outside lie on the nearest end.
    """

    start: datetime
    end: datetime
    cuts: tuple[tuple[datetime, datetime], ...] = ()
    kept_s: float = field(default=0.0)
    """Seconds that stay of each cut."""

    @property
    def shown_s(self) -> float:
        """Seconds that the line is long."""
        return self._seconds(self.end)

    def place(self, at: datetime) -> float:
        """Return where an instant lies."""
        whole = self.shown_s
        return min(1.0, max(0.0, self._seconds(at) / whole)) if whole > 0 else 0.0

    def _seconds(self, at: datetime) -> float:
        gone = (at - self.start).total_seconds()
        for begin, end in self.cuts:
            length = (end - begin).total_seconds()
            into = min(max((at - begin).total_seconds(), 0.0), length)
            gone -= into * (1 - self.kept_s / length)
        return gone


_LEAST_CUT_S, _CUT_SHARE, _KEPT_SHARE = 30.0, 0.5, 0.05


def axis(timeline: Timeline, *, now: datetime) -> Axis:
    """Return the axis of a timeline. An idle time is cut where it is longer than half of all the work."""
    spans = sorted((bar.started_at, bar.until(now)) for row in timeline.rows for bar in row.bars)
    busy: list[tuple[datetime, datetime]] = []
    for begin, end in spans:
        if busy and begin <= busy[-1][1]:
            busy[-1] = (busy[-1][0], max(busy[-1][1], end))
        else:
            busy.append((begin, end))
    work = sum(((end - begin) for begin, end in busy), timedelta()).total_seconds()
    longest = max(_LEAST_CUT_S, work * _CUT_SHARE)
    gaps = [(one[1], other[0]) for one, other in pairwise(busy)]
    cuts = tuple(gap for gap in gaps if (gap[1] - gap[0]).total_seconds() > longest)
    return Axis(timeline.start, timeline.end, cuts, kept_s=max(1.0, work * _KEPT_SHARE) if cuts else 0.0)
