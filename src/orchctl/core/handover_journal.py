"""What a handover has done so far: its journal, one JSON object a line. Pure.

The first line opens it and holds all that a later process needs; each step follows as `begun` and `done`; the last
line closes it. A line that a kill left torn at the end says nothing, and hides nothing: what is true is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from orchctl.core import sealed
from orchctl.core import snapshot as snapshots
from orchctl.core.handover import Kind, Step
from orchctl.core.names import format_instant, is_name, is_run_id, parse_instant
from orchctl.core.snapshot import Snapshot

Phase = Literal["begun", "done", "failed", "owed"]
Outcome = Literal["done", "undone", "superseded"]
VERSION = 1


@dataclass(frozen=True, slots=True)
class Opened:
    """How a handover began. `id` sorts by time, like a run's. `snapshot` is what a rollback puts back.

    `digest` is the catalog that was applied, where the job's schedules are found without one that is valid now; None
    where there is none. `waived` are the gates that the operator waived, and why. `confirm_by` as in `slots.Owner`.
    `now`: a rollback does not wait for a live run. `of`: the cutover whose snapshot a rollback puts back.
    """

    id: str
    kind: Kind
    job: str
    at: datetime
    command: str
    snapshot: Snapshot
    digest: str | None = None
    waived: Mapping[str, str] = field(default_factory=dict)
    confirm_by: datetime | None = None
    now: bool = False
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A step of a handover, or its end. `note` is for people; `data` is what later steps need of it."""

    step: Step
    phase: Phase
    at: datetime
    note: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handover:
    """A handover as its journal tells it. `outcome` None: it is unfinished."""

    opened: Opened
    records: tuple[Record, ...] = ()
    outcome: Outcome | None = None
    ended_at: datetime | None = None

    def last(self, step: Step, phase: Phase = "done") -> Record | None:
        """Return the last record of a step in a phase, None where there is none."""
        found = [record for record in self.records if record.step == step and record.phase == phase]
        return found[-1] if found else None

    @property
    def owed(self) -> tuple[Step, ...]:
        """The steps of Prefect's that were put off, and have not been done since."""
        last = {record.step: record.phase for record in self.records}
        return tuple(step for step, phase in last.items() if phase == "owed")

    @property
    def is_debt(self) -> bool:
        """Whether all that is left of an unfinished handover is Prefect's part."""
        return self.outcome is None and bool(self.owed) and self.records[-1].phase == "owed"


def opening(opened: Opened) -> bytes:
    """Return the first line of a journal."""
    return _line(
        sealed.seal(
            {
                "version": VERSION,
                "handover": opened.id,
                "kind": opened.kind,
                "job": opened.job,
                "at": format_instant(opened.at),
                "command": opened.command,
                "snapshot": snapshots.to_json(opened.snapshot),
                "digest": opened.digest,
                "waived": dict(opened.waived),
                "confirm_by": format_instant(opened.confirm_by) if opened.confirm_by else None,
                "now": opened.now,
                "of": opened.of,
            }
        )
    )


def line(record: Record) -> bytes:
    """Return the line of a step."""
    said = {"step": record.step.value, "phase": record.phase, "at": format_instant(record.at)}
    return _line({**said, "note": record.note, "data": dict(record.data)})


def closing(outcome: Outcome, at: datetime) -> bytes:
    """Return the last line."""
    return _line({"outcome": outcome, "at": format_instant(at)})


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read(content: bytes) -> Handover:
    """Return a journal. Raises ValueError where its beginning or its middle cannot be read.

    A torn line that another follows was left by a full disk or a kill, and is passed over, except the first.
    """
    lines = content.split(b"\n")
    opened = _opened(_object(lines[0]))
    records: list[Record] = []
    outcome: Outcome | None = None
    ended_at: datetime | None = None
    for number, text in enumerate(lines[1:], start=2):
        if not text:
            continue
        try:
            data = _object(text)
        except ValueError:
            continue
        if outcome is not None:
            raise ValueError(f"line {number} stands after the end")
        if "outcome" in data:
            outcome, ended_at = _outcome(data), _instant(data, "at")
        else:
            records.append(_record(data))
    return Handover(opened, tuple(records), outcome, ended_at)


def _object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("a line is no object")
    return data


def _opened(data: Mapping[str, Any]) -> Opened:
    if data.get("version") != VERSION:
        raise ValueError(f"version {data.get('version')!r:.40} is not {VERSION}")
    if not sealed.is_whole(data):
        raise ValueError("its checksum is another: it was damaged, or written by hand")
    kind, job, waived = data.get("kind"), data.get("job"), data.get("waived")
    if kind not in ("cutover", "rollback"):
        raise ValueError(f"kind {kind!r:.40}")
    if not isinstance(job, str) or not is_name(job):
        raise ValueError(f"job {job!r:.80}")
    if not is_run_id(str(data.get("handover"))):
        raise ValueError(f"handover {data.get('handover')!r:.40}")
    if not isinstance(waived, dict) or not all(isinstance(value, str) for value in waived.values()):
        raise ValueError("waived is no table of texts")
    for key in ("digest", "of"):
        if not isinstance(data.get(key), str | None):
            raise ValueError(f"{key} is {data.get(key)!r:.40}")
    return Opened(
        id=str(data["handover"]),
        kind="cutover" if kind == "cutover" else "rollback",
        job=job,
        at=_instant(data, "at"),
        command=str(data.get("command")),
        snapshot=snapshots.from_json(data.get("snapshot")),
        digest=data.get("digest"),
        waived=waived,
        confirm_by=_instant(data, "confirm_by") if data.get("confirm_by") is not None else None,
        now=data.get("now") is True,
        of=data.get("of"),
    )


def _record(data: Mapping[str, Any]) -> Record:
    phase, note, more = data.get("phase"), data.get("note"), data.get("data")
    if phase not in ("begun", "done", "failed", "owed") or not isinstance(note, str | None):
        raise ValueError(f"phase {phase!r:.40}")
    if not isinstance(more, dict):
        raise ValueError("data is no table")
    return Record(Step(str(data.get("step"))), phase, _instant(data, "at"), note, more)


def _outcome(data: Mapping[str, Any]) -> Outcome:
    outcome = data["outcome"]
    if outcome not in ("done", "undone", "superseded"):
        raise ValueError(f"outcome {outcome!r:.40}")
    found: Outcome = outcome
    return found


def _instant(data: Mapping[str, Any], key: str) -> datetime:
    return parse_instant(str(data.get(key)))
