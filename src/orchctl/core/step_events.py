"""The events of steps: what happened in a run, in order. Each has a `step` key; docs/formats.md shows them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from orchctl.core.names import format_instant, parse_instant

STARTED, FINISHED, RETRY, KEPT = "step_started", "step_finished", "step_retry", "step_kept"
CHECKED = "contract_checked"
PROMOTED, MOVED, STAYED = "promoted", "pointer_moved", "pointer_kept"
_REASON_LIMIT = 300


def of(name: str, manifest: Mapping[str, Any], *, at: datetime, reason: str | None, **more: Any) -> dict[str, Any]:
    """Return the event `name` of the step whose manifest this is. `more` are what only this kind of event has."""
    return {
        "ts": format_instant(at),
        "event": name,
        "run_id": manifest["partition"]["run_id"],
        "job": manifest["job"],
        "asset": manifest["asset"],
        "step": manifest["step"],
        "game_date": manifest["partition"]["game_date"],
        "attempt": manifest["attempt"],
        "reason": reason[:_REASON_LIMIT] if reason else None,
        **more,
    }


def finished(manifest: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """Return the event that tells how a step's attempt ended, from its manifest."""
    error = manifest["error"] or {}
    return of(
        FINISHED,
        manifest,
        at=at,
        reason=manifest["reason"] or error.get("message"),
        status=manifest["status"],
        error_class=error.get("class"),
        exit_code=manifest["exit_code"],
        signal=manifest["signal"],
        **manifest["timing"],
    )


def known_by(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the start and the end of each attempt of a step that its manifest knows, oldest first, with its instant.

    What happened in between (contracts, pointers) stays in the events alone; the reasons of earlier attempts too.
    """
    attempts = [one for one in manifest.get("attempts") or [] if one["attempt"] < manifest["attempt"]]
    last = {key: manifest[key] for key in ("attempt", "status", "exit_code", "signal")} | manifest["timing"]
    for one in (*attempts, last):
        timing = {key: one[key] for key in ("started_at", "finished_at", "duration_s")}
        about = {key: one[key] for key in ("attempt", "status", "exit_code", "signal")}
        same = one is last
        content = {**manifest, **about, "timing": timing} | ({} if same else {"reason": None, "error": None})
        if one["status"] != "skipped":
            begun = parse_instant(one["started_at"])
            yield one["started_at"], of(STARTED, content, at=begun, reason=None)
        if one["status"] != "running":
            ended = one["finished_at"] or one["started_at"]
            yield ended, finished(content, at=parse_instant(ended))
