"""What came of a backfill: counts, durations step by step, errors grouped by root cause, gaps of inputs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from typing import Any, Literal

VERSION = "v1"
Outcome = Literal["success", "failed", "skipped"]
_MESSAGE_LIMIT = 200
# What differs from date to date though the cause is the same. Numbers that say what it was stay: exit and HTTP codes.
_VARYING = re.compile(
    r"""
      (?P<run>\b[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\b)
    | (?P<instant>\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T\ ][0-9]{2}:[0-9]{2}
        (?::[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?
        | \b[0-9]{8}T[0-9]{6}(?:\.[0-9]+)?Z?\b)
    | (?P<date>\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b | \b(?:19|20)[0-9]{6}\b)
    | (?P<id>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)
    | (?P<hex>\b0x[0-9a-fA-F]+\b | \b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{7,64}\b)
    | (?P<kept>\b(?:exit|status|code|HTTP|errno|signal|error)\b[\ :=(]*(?:code\b[\ :=(]*)?\[?[0-9]+\b)
    | (?P<n>(?<![\w.])[0-9]+(?:[.,][0-9]+)*(?=[A-Za-z%]{0,2}(?!\w)))
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of one date.

    `manifest` is that of the run, None where it left none; `steps` are those of its steps. `reason` is what is known
    without them. `kept`: the success is older than the command that sums up.
    """

    game_date: date
    outcome: Outcome
    reason: str | None = None
    run_id: str | None = None
    flow_run_id: str | None = None
    kept: bool = False
    manifest: Mapping[str, Any] | None = None
    steps: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Counts:
    """`attempted` are those that have had a run in this backfill: `succeeded` and `failed`."""

    partitions: int
    attempted: int
    succeeded: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, endings: Iterable[Ending]) -> Counts:
        """Count."""
        outcomes = [ending.outcome for ending in endings]
        succeeded, failed, skipped = (outcomes.count(each) for each in ("success", "failed", "skipped"))
        return cls(len(outcomes), succeeded + failed, succeeded, failed, skipped)


def normalised(message: str) -> str:
    """Return a message without what differs from one date to the next, so that the same cause reads the same."""
    lines = message.strip().splitlines()
    line = " ".join(lines[0].split()) if lines else ""
    said = _VARYING.sub(lambda found: found[0] if found.lastgroup == "kept" else f"<{found.lastgroup}>", line)
    return said[:_MESSAGE_LIMIT]


def summary(endings: Sequence[Ending], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a backfill that has ended, as JSON. `about` says which it was."""
    counts = Counts.of(endings)
    return {
        "summary_version": VERSION,
        **about,
        "partitions": counts.partitions,
        "attempted": counts.attempted,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "steps": _durations(endings),
        "errors": _grouped(_errors(endings), ("step", "class", "type", "message")),
        "input_gaps": _grouped(_gaps(endings), ("step", "input", "gap")),
        "runs": [_row(ending) for ending in endings],
    }


def _row(ending: Ending) -> dict[str, Any]:
    manifest = ending.manifest or {}
    return {
        "game_date": ending.game_date.isoformat(),
        "outcome": ending.outcome,
        "kept": ending.kept,
        "reason": ending.reason,
        "run_id": ending.run_id,
        "flow_run_id": ending.flow_run_id,
        "attempts": manifest.get("attempt"),
        "duration_s": (manifest.get("timing") or {}).get("duration_s"),
    }


def _durations(endings: Iterable[Ending]) -> list[dict[str, Any]]:
    """Return, for each step in the order of the first run that has it, how long it took; for a command the run itself.

    `kept` counts the runs in which an earlier attempt's success stood: their time is in no other number.
    """
    found: dict[str | None, list[tuple[str, float | None]]] = {}
    for ending in endings:
        manifest = ending.manifest
        if manifest is None:
            continue
        rows = manifest.get("steps") or [
            {"name": None, "status": manifest.get("status"), "duration_s": manifest["timing"].get("duration_s")}
        ]
        for row in rows:
            found.setdefault(row["name"], []).append((str(row["status"]), row.get("duration_s")))
    return [_duration_row(name, those) for name, those in found.items()]


def _duration_row(name: str | None, those: list[tuple[str, float | None]]) -> dict[str, Any]:
    statuses = [status for status, _ in those]
    took = sorted(took for status, took in those if took is not None and status not in {"kept", "skipped", "waiting"})
    return {
        "step": name,
        "runs": len(took),
        "kept": statuses.count("kept"),
        "failed": statuses.count("failed") + statuses.count("warned"),
        "skipped": statuses.count("skipped"),
        "total_s": round(sum(took), 3),
        "min_s": took[0] if took else None,
        "median_s": round(median(took), 3) if took else None,
        "max_s": took[-1] if took else None,
    }


def _errors(endings: Iterable[Ending]) -> Iterator[tuple[date, tuple[Any, ...], str]]:
    """Yield, for each failure, its date, what makes it the same as another, and what was said."""
    for ending in endings:
        roots = list(_roots(ending))
        for step, error, said in roots:
            kind, type_ = error.get("class"), error.get("type")
            yield ending.game_date, (step, kind, type_, normalised(said)), said
        if not roots and ending.outcome == "failed":
            error = (ending.manifest or {}).get("error") or {}
            said = _said(error) or ending.reason or "no reason is known"
            key = (None, error.get("class"), error.get("type"), normalised(said))
            yield ending.game_date, key, said


def _roots(ending: Ending) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield the steps that failed of themselves, also the optional ones: not those that were skipped for it."""
    by_name = {step.get("step"): step for step in ending.steps}
    for row in (ending.manifest or {}).get("steps") or []:
        if row.get("status") in {"failed", "warned"}:
            error = by_name.get(row["name"], {}).get("error") or {}
            yield row["name"], error, _said(error) or row.get("reason") or "no reason is known"


def _said(error: Mapping[str, Any]) -> str | None:
    """Return what an error says: of a program that failed, also the last line of its output, where it tells why."""
    message, lines = error.get("message"), (error.get("snippet") or "").strip().splitlines()
    if message and lines and error.get("type") in {"NonZeroExit", "Killed"}:
        return f"{message}: {lines[-1]}"
    return message


def _gaps(endings: Iterable[Ending]) -> Iterator[tuple[date, tuple[Any, ...], str]]:
    for ending in endings:
        for step in ending.steps:
            for each in step.get("inputs") or []:
                if gap := each.get("gap"):
                    yield ending.game_date, (step.get("step"), each.get("name"), normalised(gap)), gap


def _grouped(found: Iterable[tuple[date, tuple[Any, ...], str]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each key, the most frequent first, with the dates and one example of what was said."""
    groups: dict[tuple[Any, ...], list[tuple[date, str]]] = {}
    for day, key, said in found:
        groups.setdefault(key, []).append((day, said))
    rows = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0][0], str(item[0])))
    return [
        {
            **dict(zip(names, key, strict=True)),
            "count": len(those),
            "game_dates": sorted({day.isoformat() for day, _ in those}),
            "example": those[0][1],
        }
        for key, those in rows
    ]
