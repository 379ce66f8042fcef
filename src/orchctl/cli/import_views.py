"""What `import` shows: the TOML on stdout, what could not be carried over on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchctl.cli import render

if TYPE_CHECKING:
    from orchctl.core.catalog_edit import Addition, Texts
    from orchctl.wiring import Settings


def imported(addition: Addition, before: Texts, settings: Settings, *, written: tuple[str, ...]) -> None:
    """Show what was, or would be, added to the catalog. `written` are the files that were."""
    found = addition.imported
    data: dict[str, Any] = {
        "directory": settings.config_dir,
        "written": list(written),
        "jobs": [
            {
                "name": job.name,
                "schedule": job.schedule.name if job.schedule else None,
                "legacy": [dict(trigger) for trigger in job.triggers],
                "comments": job.comments,
                "warnings": job.warnings,
            }
            for job in found.jobs
        ],
        "refused": [{"what": each.what, "reason": each.reason} for each in found.refused],
        "notes": found.notes,
        "schedules_toml": addition.schedules,
        "jobs_toml": addition.jobs,
    }
    errors = [{"code": "refused", "message": f"{each.what}: {each.reason}", "hint": None} for each in found.refused]
    failed = bool(errors) and not found.jobs
    render.emit(
        "import", data, lambda: _text(addition, before, settings, written), settings, errors=errors, failed=failed
    )


def _text(addition: Addition, before: Texts, settings: Settings, written: tuple[str, ...]) -> None:
    found = addition.imported
    for each in found.notes:
        render.note(f"note: {each}")
    for job in found.jobs:
        for text in job.warnings:
            render.note(f"warning: {job.name}: {text}")
    for refusal in found.refused:
        render.note(f"refused: {refusal.what}: {refusal.reason}")
    if not found.jobs:
        render.note("nothing to import")
    elif written:
        for job in found.jobs:
            render.line(f"+ {job.name}  {_triggers(job.triggers)}")
        files = " and ".join(str(settings.config_dir / name) for name in written)
        render.note(f"{len(found.jobs)} added to {files}; `orchctl check` and read the comments in them")
    else:
        _toml(addition, before, settings)


def _triggers(triggers: Any) -> str:
    return ", ".join(
        str(each.get("timer") or each.get("cron")) + f" ({each.get('scope', 'cron')})" for each in triggers
    )


def _toml(addition: Addition, before: Texts, settings: Settings) -> None:
    parts = (
        ("schedules.toml", before.schedules, addition.schedules, addition.after.schedules),
        ("jobs.toml", before.jobs, addition.jobs, addition.after.jobs),
    )
    for number, (name, old, added, whole) in enumerate(parts):
        if not added:
            continue
        blank = "\n" if number and parts[0][2] else ""
        head = f", a new file that begins with: {', '.join(_head(whole))}" if old is None else ""
        render.raw([f"{blank}# ---- {settings.config_dir / name}{head} ----\n{added}".encode()])
    render.note(
        "nothing was written: --write adds it to the catalog; `orchctl schedule compare JOB` then shows how the"
    )
    render.note("schedule differs from what starts the job today, also when clocks change")


def _head(text: str | None) -> list[str]:
    """Return the lines of a new file before its first table."""
    lines = (text or "").split("\n")
    end = next((number for number, line in enumerate(lines) if line.startswith("[")), len(lines))
    return [line for line in lines[:end] if line]
