"""What `orchctl host backup|verify|restore` show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchctl.cli import render

if TYPE_CHECKING:
    from orchctl.core.backup import Archive, Part
    from orchctl.services.backup import Made
    from orchctl.services.restore import Restored, Verified
    from orchctl.wiring import Settings

_SOME = 20


def made(found: Made, settings: Settings) -> None:
    """Show a backup that was made."""
    data = {**_archive_json(found.archive), "removed": list(found.removed), "left_out": list(found.left_out)}

    def text() -> None:
        render.line(found.archive.path)
        render.line(f"  {_held(found.archive)}")
        for path in found.removed:
            render.line(f"  removed {path}")
        for said in found.left_out:
            render.note(f"note: not in it: {said}")

    render.emit("host backup", data, text, settings)


def verified(found: Verified, settings: Settings) -> None:
    """Show an archive that was tried."""
    data = {**_archive_json(found.archive), "verified_at": found.at, "found": found.counts}

    def text() -> None:
        render.line(f"{found.archive.path} is whole")
        render.line(f"  {_held(found.archive)}")
        render.line(f"  a server on its database counts the same; {found.blocks} blocks could be read")

    render.emit("host verify", data, text, settings)


def would_restore(archive: Archive, parts: Sequence[Part], settings: Settings) -> None:
    """Show what a restore would put in place."""
    data = {**_archive_json(archive), "parts": list(parts), "dry_run": True}

    def text() -> None:
        render.line(f"{archive.path} would replace {', '.join(parts)}")
        render.line(f"  {_held(archive)}")

    render.emit("host restore", data, text, settings)


def restored(found: Restored, settings: Settings) -> None:
    """Show what was put in place, what was there, and which runs were ended."""
    data = {
        **_archive_json(found.archive),
        "parts": list(found.parts),
        "dry_run": False,
        "moved": [{"path": each.path, "aside": each.aside} for each in found.moved],
        "ended_runs": [{"id": each.run.id, "name": each.run.name, "why": each.why} for each in found.settled],
    }

    def text() -> None:
        render.line(f"restored {', '.join(found.parts)} from {found.archive.path}")
        render.line(f"  {_held(found.archive)}")
        for moved in found.moved:
            render.line(f"  {moved.path}" + ("" if moved.aside is None else f" (what was there: {moved.aside})"))
        for each in found.settled[:_SOME]:
            render.line(f"  run {each.run.name} was ended: {each.why}")
        if len(found.settled) > _SOME:
            render.line(f"  and {len(found.settled) - _SOME} more runs")
        render.note("next: start the server, then `orchctl status --check`, and `orchctl recover` where it says so")

    render.emit("host restore", data, text, settings)


def _held(archive: Archive) -> str:
    manifest = archive.manifest
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in manifest.database.counts.items())
    return (
        f"of {manifest.hostname}, {render.jsonable(manifest.created_at)}, {render.size(archive.size_bytes)}, "
        f"{len(manifest.members)} files, {manifest.database.kind} of Prefect {manifest.prefect}: {counts}"
    )


def _archive_json(archive: Archive) -> dict[str, Any]:
    manifest = archive.manifest
    return {
        "path": archive.path,
        "size_bytes": archive.size_bytes,
        "created_at": manifest.created_at,
        "hostname": manifest.hostname,
        "orchctl": manifest.orchctl,
        "prefect": manifest.prefect,
        "database": manifest.database.kind,
        "counts": dict(manifest.database.counts),
        "files": len(manifest.members),
        "unpacked_bytes": manifest.size_bytes,
    }
