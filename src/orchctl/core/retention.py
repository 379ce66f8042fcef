"""What is old enough to go, and what must stay whatever its age. Pure. Instants are UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from orchctl.core import catalog_retention
from orchctl.core.catalog_retention import RetentionTable
from orchctl.core.names import nearest, parse_instant
from orchctl.core.words import counted

Kind = Literal["history", "compress_logs", "logs", "manifests", "state"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WORDS: Mapping[Kind, tuple[str, str, str, str]] = {
    "history": ("run", " in Prefect", "to delete", "deleted"),
    "compress_logs": ("log", "", "to compress", "compressed"),
    "logs": ("log", "", "to remove", "removed"),
    "manifests": ("folder", " of runs", "to remove", "removed"),
    "state": ("file", " of claims and journals", "to remove", "removed"),
}
LONGEST_RUN = timedelta(days=14)
"""How long after its instant a run may end and its logs be found; of one that ends later they go with its manifest."""
MARGIN = timedelta(days=1)
"""What a claim is kept for beyond the longest time that a slot may still run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Flow runs of orchctl that ended at or before an instant: of a flow, or (None) of all that have no deployment.

    A job's flow has the runs of earlier deployments of the job too: those keep the id of a deployment that is gone.
    `queue`: only those of this work queue.
    """

    before: datetime
    flow_id: str | None
    queue: str | None = None


def told(kind: Kind, count: int | None, *, done: bool) -> str:
    """Say how much of a kind goes, or went: `1 log to compress`. None: all that there is of it, `logs to compress`."""
    word, which, would, did = _WORDS[kind]
    things = f"{word}s" if count is None else counted(count, word)
    return f"{things}{which} {did if done else would}"


def ages(policy: RetentionTable, only: str | None, older_than: str | None) -> dict[Kind, int]:
    """Return the ages, in seconds, from which on something goes: of the policy, or `older_than` for each of `only`.

    `only` are kinds with commas between them, None: all of the policy's; with `older_than` it means Prefect's history
    alone. Raises ValueError, with what may stand there.
    """
    if older_than is not None:
        seconds = catalog_retention.age(older_than)
        return dict.fromkeys(("history",) if only is None else _kinds(only), seconds)
    chosen = KINDS if only is None else _kinds(only)
    found: dict[Kind, int | None] = {kind: getattr(policy, kind) for kind in chosen}
    return {kind: seconds for kind, seconds in found.items() if seconds is not None}


def _kinds(text: str) -> tuple[Kind, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in KINDS:
            near = nearest(word, KINDS)
            raise ValueError(f"there is no {word!r:.60}; " + (f'did you mean "{near}"? ' if near else "") + _allowed())
    if not words:
        raise ValueError(f"it names nothing; {_allowed()}")
    return tuple(kind for kind in KINDS if kind in words)


def _allowed() -> str:
    return f"allowed: {', '.join(KINDS)}"


def claims_cutoff(cutoff: datetime, now: datetime, window_s: int) -> datetime:
    """Return the instant before which claims may go: older than asked, and than any slot of the job that may still run.

    `window_s` is the job's catch-up window, the longest there can be where the job is not known.
    """
    return min(cutoff, now - timedelta(seconds=window_s) - MARGIN)


def ended_at(manifest: Mapping[str, Any]) -> datetime | None:
    """Return when a run's last attempt ended, or began where nobody wrote that down; None where neither can be read."""
    timing = manifest.get("timing")
    for key in ("finished_at", "started_at"):
        try:
            return parse_instant(str(timing[key])) if isinstance(timing, Mapping) else None
        except (KeyError, ValueError):
            continue
    return None


def of_a_backfill(manifest: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str | None:
    """Return why a run's manifest is kept that a backfill asked for, None where it need not be.

    `summary` is that of the backfill, None where there is none that can be read: then it is not over.
    """
    if manifest.get("trigger") != "backfill":
        return None
    if summary is None:
        return "its backfill is not over"
    named = {row.get("run_id") for row in summary.get("runs") or () if isinstance(row, Mapping)}
    return "the summary of its backfill names it" if manifest["partition"].get("run_id") in named else None


def is_over(summary: Mapping[str, Any] | None, cutoff: datetime) -> bool:
    """Whether a backfill was summed up at or before an instant."""
    try:
        return summary is not None and parse_instant(str(summary["finished_at"])) <= cutoff
    except (KeyError, ValueError):
        return False


def mark(cutoff: datetime, kept: Iterable[datetime]) -> datetime:
    """Return up to where a look has done all: `cutoff`, or the first run before it that was left for a later look."""
    return min([cutoff, *kept])
