"""What `publish` shows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.names import format_instant
from orchctl.core.publish import CURRENT

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from orchctl.core.publish import Pointer
    from orchctl.services.publish import Held, Proposal, PublishedRun, Shown
    from orchctl.wiring import Settings


def shown(found: Shown, timezone: str, settings: Settings) -> None:
    """Show the published runs of a date, and what the pointers hold."""
    from zoneinfo import ZoneInfo

    data = {
        "asset": found.asset,
        "game_date": found.game_date.isoformat(),
        "runs": [_run_json(run) for run in found.runs],
        "pointers": [
            {"pointer": one.name, "folder": str(one.folder), **one.pointer.to_json()} for one in found.pointers
        ],
    }
    render.emit("publish show", data, lambda: _text(found, ZoneInfo(timezone), settings), settings)


def _run_json(run: PublishedRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "job": run.job,
        "status": run.status,
        "good": run.good,
        "promoted_at": format_instant(run.target.promoted_at),
        "run_as_of_ts": format_instant(run.target.as_of),
        "digest": run.target.digest,
        "path": str(run.place),
        "manifest": run.target.manifest,
        "pointers": list(run.pointers),
    }


def _text(found: Shown, zone: ZoneInfo, settings: Settings) -> None:
    if not found.runs:
        render.line(f"nothing is published of {found.asset} for {found.game_date}")
        return
    rows = [
        (run.status or "-", run.run_id, _local(run.target.promoted_at, zone), run.target.digest[7:19], _marks(run))
        for run in found.runs
    ]
    render.table(("STATUS", "RUN", "PROMOTED", "DIGEST", "POINTERS"), rows, settings)
    folders = {run.folder for run in found.runs}
    for folder in sorted(folders):
        render.line(f"in {folder}")
        for one in found.pointers:
            if one.folder == folder:
                render.line(f"    {_held(one, zone)}")


def _marks(run: PublishedRun) -> str:
    return ", ".join(name.removesuffix("_run.json") for name in run.pointers) or "-"


def _held(one: Held, zone: ZoneInfo) -> str:
    pointer = one.pointer
    came = f", before it {pointer.previous}" if pointer.previous else ""
    by = " by hand" if pointer.moved_by == "hand" else ""
    return f"{one.name} -> {pointer.run_id} since {_local(pointer.moved_at, zone)}{by} ({pointer.reason}){came}"


def _local(instant: datetime, zone: ZoneInfo) -> str:
    return f"{instant.astimezone(zone):%m-%d %H:%M:%S}"


def question(proposal: Proposal) -> str:
    """Return what is asked before a pointer is moved."""
    return f"{_place(proposal.run.folder)} from {_name(proposal.held)} to {proposal.run.run_id}: move it?"


def moved(proposal: Proposal, reason: str, settings: Settings, *, command: str) -> None:
    """Say what moved from where to where."""
    run, held = proposal.run, proposal.held
    data = {
        "asset": proposal.asset,
        "game_date": run.target.game_date.isoformat(),
        "pointer": str(run.folder / CURRENT),
        "from": held.run_id if held is not None else None,
        "to": run.run_id,
        "moved": not proposal.nothing_to_do,
        "reason": reason,
        "digest": run.target.digest,
        "path": str(run.place),
    }
    text = (
        f"{_place(run.folder)} holds {run.run_id} already"
        if proposal.nothing_to_do
        else f"{_place(run.folder)} moved from {_name(held)} to {run.run_id}"
    )
    render.emit(command, data, lambda: render.line(text), settings)


def _place(folder: Path) -> str:
    return str(folder / CURRENT)


def _name(pointer: Pointer | None) -> str:
    return pointer.run_id if pointer is not None else "nothing"
