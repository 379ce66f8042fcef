"""What the last look at a job's legacy history left: `state/observed/<job>.json`. Pure.

The manifests are the truth of what was brought in. This says where to read on, and for which time the journal was
really read without a gap; losing it costs one look over the whole journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchctl.core.journal import LegacyRun
from orchctl.core.legacy import Manager
from orchctl.core.names import format_exact, parse_instant

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Looked:
    """Where a look ended.

    `units` are the services that were looked at (`system:x.service`). `cursor` is the journal's entry to go on from,
    None: from the beginning. `open` are runs that began up to there and went on; `done` are the keys of runs that ended
    after it, so they will be read again. `spans` are sorted and disjoint. `dirty`: that look was writing manifests, and
    did not say that it ended.
    """

    units: tuple[str, ...]
    cursor: str | None = None
    open: tuple[LegacyRun, ...] = ()
    done: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    dirty: bool = False
    unsure: datetime | None = None


def covered(looked: Looked | None, start: datetime, end: datetime) -> bool:
    """Whether every run of the job's services from `start` to `end` is known: the journal was read without a gap."""
    return looked is not None and any(since <= start and end <= until for since, until in looked.spans)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans sorted, those that touch joined."""
    found: list[Span] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        elif since < until:
            found.append((since, until))
    return tuple(found)


def with_span(spans: tuple[Span, ...], first: datetime, until: datetime) -> tuple[Span, ...]:
    """Return the spans once the journal was read on to `until`; `first` is the oldest instant that was to be had.

    What was lost between the last look and this one is a gap.
    """
    last = spans[-1][1] if spans else None
    return merged([*spans, (last if last is not None and first <= last else first, until)])


def to_json(looked: Looked) -> dict[str, Any]:
    """Return the file's content."""
    return {
        "units": list(looked.units),
        "cursor": looked.cursor,
        "open": [_run_json(run) for run in looked.open],
        "done": list(looked.done),
        "dirty": looked.dirty,
        "unsure": format_exact(looked.unsure) if looked.unsure else None,
        "spans": [[format_exact(since), format_exact(until)] for since, until in looked.spans],
    }


def from_json(data: object) -> Looked:
    """Read the file's content. Raises ValueError where it is not that."""
    try:
        assert isinstance(data, dict)
        cursor = data["cursor"]
        assert cursor is None or isinstance(cursor, str)
        spans = [(parse_instant(since), parse_instant(until)) for since, until in data["spans"]]
        return Looked(
            tuple(map(str, data["units"])),
            cursor,
            tuple(_run(one) for one in data["open"]),
            tuple(map(str, data["done"])),
            merged(spans),
            bool(data["dirty"]),
            parse_instant(data["unsure"]) if data.get("unsure") else None,
        )
    except (AssertionError, KeyError, TypeError) as error:
        raise ValueError(f"not what a look at the journal leaves: {error!r}") from error


def _run_json(run: LegacyRun) -> dict[str, Any]:
    return {
        "unit": run.unit,
        "scope": run.manager.scope,
        "user": run.manager.user,
        "invocation": run.invocation,
        "boot_id": run.boot_id,
        "started_at": format_exact(run.started_at),
        "exit_code": run.exit_code,
        "signal": run.signal,
        "command": run.command,
        "stopped": run.stopped,
        "ready": run.ready,
    }


def _run(data: Mapping[str, Any]) -> LegacyRun:
    return LegacyRun(
        unit=data["unit"],
        manager=Manager(data["scope"], data["user"]),
        invocation=data["invocation"],
        boot_id=data["boot_id"],
        started_at=parse_instant(data["started_at"]),
        exit_code=data["exit_code"],
        signal=data["signal"],
        command=data["command"],
        stopped=data["stopped"],
        ready=data["ready"],
    )
