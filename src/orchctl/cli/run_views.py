"""What `run`, `runs` and `host` show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchctl.cli import render, timeline_views
from orchctl.core.durations import human
from orchctl.core.names import format_instant
from orchctl.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from orchctl.core.manifest import Run
    from orchctl.services.demo_play import Done
    from orchctl.services.retry import Retried
    from orchctl.services.runs import Listing, Reindexed, Shown
    from orchctl.services.stack import Part, Status
    from orchctl.services.trigger import Ended, Progress, Started
    from orchctl.wiring import Settings

_NARROW = 110
_SHORT_TRIGGERS = {"schedule": "sched", "manual": "hand", "backfill": "backf", "catchup": "catch"}


def run_json(run: Run) -> dict[str, Any]:
    """Return a run as data; the keys are those of the events."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "asset": run.asset,
        "game_date": run.game_date.isoformat(),
        "status": run.status,
        "slot": format_instant(run.slot) if run.slot else None,
        "origin": run.origin,
        "trigger": run.trigger,
        "mode": run.mode,
        "attempt": run.attempt,
        "started_at": format_instant(run.started_at),
        "finished_at": format_instant(run.finished_at) if run.finished_at else None,
        "duration_s": run.duration_s,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "reason": run.reason,
        "data_root": run.data_root,
    }


def runs(listing: Listing, timezone: str, settings: Settings, *, one_day: bool) -> None:
    """List runs, with a line of totals; what was passed over goes to stderr."""
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(timezone)
    data = {
        "timezone": timezone,
        "start": listing.window.start,
        "end": listing.window.end,
        "runs": [run_json(run) for run in listing.runs],
        "totals": listing.totals,
        "hidden": listing.hidden,
    }
    errors = [
        {"code": "skipped", "message": f"{item.path}: {item.reason}", "hint": "orchctl runs reindex"}
        for item in listing.skipped
    ]
    if not settings.as_json:
        for item in listing.skipped:
            render.note(f"passed over {item.path}: {item.reason}")
    render.emit("runs", data, lambda: _runs_text(listing, zone, settings, one_day=one_day), settings, errors=errors)


def _runs_text(listing: Listing, zone: ZoneInfo, settings: Settings, *, one_day: bool) -> None:
    columns = render.width()
    narrow = columns is not None and columns < _NARROW
    day = f"{listing.window.start.astimezone(zone):%Y-%m-%d}"
    if listing.runs:
        headings = (
            "STATUS",
            "JOB",
            "SLOT",
            "TRIG" if narrow else "TRIGGER",
            "TRY",
            "START",
            "TOOK",
            "EXIT",
            "RUN",
        )
        rows = [_row(run, zone, narrow=narrow, one_day=one_day) for run in listing.runs]
        render.table(headings, rows, settings, right=("TRY", "TOOK", "EXIT"), flexible="JOB")
    totals = ", ".join(f"{number} {status}" for status, number in sorted(listing.totals.items())) or "no runs"
    hidden = f" ({listing.hidden} older not shown)" if listing.hidden else ""
    span = f"on {day}" if one_day else f"since {listing.window.start.astimezone(zone):%Y-%m-%d %H:%M}"
    render.line(f"{totals} {span} ({zone.key}){hidden}")


def _row(run: Run, zone: ZoneInfo, *, narrow: bool, one_day: bool) -> tuple[str, ...]:
    return (
        run.status,
        run.job,
        _clock(run.slot, zone, one_day=one_day, seconds=run.slot is not None and run.slot.second != 0),
        _trigger(run, narrow=narrow),
        str(run.attempt),
        _clock(run.started_at, zone, one_day=one_day, seconds=True),
        human(run.duration_s),
        _exit(run),
        # A part of a run id that is unique is enough to name it: on a narrow terminal the date goes.
        run.run_id[9:] if narrow and one_day else run.run_id,
    )


def _trigger(run: Run, *, narrow: bool) -> str:
    """Say what started a run: of a legacy one that it was systemd or cron is what matters."""
    if run.origin != "prefect":
        return run.origin
    return _SHORT_TRIGGERS.get(run.trigger, run.trigger) if narrow else run.trigger


def _clock(instant: datetime | None, zone: ZoneInfo, *, one_day: bool, seconds: bool) -> str:
    if instant is None:
        return "-"
    form = ("" if one_day else "%m-%d ") + ("%H:%M:%S" if seconds else "%H:%M")
    return instant.astimezone(zone).strftime(form)


def _exit(run: Run) -> str:
    if run.signal:
        return run.signal.removeprefix("SIG")
    return "-" if run.exit_code is None else str(run.exit_code)


def run(shown: Shown, timezone: str, settings: Settings) -> None:
    """Show one run whole."""
    data = {
        "run": run_json(shown.run),
        "manifest": shown.manifest,
        "directory": shown.directory,
        "logs": list(shown.logs),
        "ui_url": shown.ui_url,
        "timeline": timeline_views.to_json(shown.timeline),
    }
    from zoneinfo import ZoneInfo

    render.emit("runs show", data, lambda: _run_text(shown, ZoneInfo(timezone), settings), settings)


def run_picture(shown: Shown, path: Path) -> None:
    """Write the timeline of a run as SVG. Raises UsageError where it has none, or where it cannot be written."""
    from orchctl.core import gantt_svg

    one = shown.run
    if shown.timeline is None:
        raise UsageError(f"--svg: run {one.run_id} has no steps to draw", hint='a run of `execution = "steps"` has')
    as_of = ((shown.manifest or {}).get("partition") or {}).get("run_as_of_ts")
    about = f"{one.game_date}, as of {as_of}, {one.status}" + (f": {one.reason}" if one.reason else "")
    title = f"{one.job} {one.run_id}"
    render.save("--svg", path, gantt_svg.draw(shown.timeline, title=title, subtitle=about, now=shown.seen_at))


def _run_text(shown: Shown, zone: ZoneInfo, settings: Settings) -> None:
    one, manifest = shown.run, shown.manifest or {}
    partition, environment = manifest.get("partition") or {}, manifest.get("environment") or {}
    rows: list[tuple[str, object]] = [
        ("run", one.run_id),
        ("job", one.job),
        ("status", one.status + (f": {one.reason}" if one.reason else "")),
        ("game date", one.game_date),
        ("as of", partition.get("run_as_of_ts")),
        ("slot", _local(one.slot, zone)),
        ("trigger", f"{one.trigger} ({one.origin}, {one.mode})"),
        ("attempt", one.attempt),
        ("started", _local(one.started_at, zone)),
        ("finished", _local(one.finished_at, zone)),
        ("took", human(one.duration_s)),
        ("exit", _exit(one)),
        ("host", _host(environment)),
        ("unit", _unit(environment)),
        ("invocation", environment.get("invocation_id")),
        ("commit", environment.get("git_sha")),
        ("catalog", environment.get("catalog_digest")),
    ]
    for label, value in rows:
        if value not in (None, "-", ""):
            render.line(f"{label:<11}{value}")
    for attempt in (manifest.get("attempts") or [])[:-1]:
        ended = f"{attempt.get('status')}, exit {attempt.get('exit_code')}, started {attempt.get('started_at')}"
        render.line(f"{'earlier':<11}attempt {attempt.get('attempt')}: {ended}")
    for output in manifest.get("outputs") or []:
        newest = f", newest {output['newest_mtime']}" if output.get("newest_mtime") else ""
        files = f"{output.get('file_count')} file{'' if output.get('file_count') == 1 else 's'}"
        render.line(f"{'output':<11}{output.get('name')}: {files}, {output.get('size_bytes')} bytes{newest}")
    if shown.timeline is not None:
        timeline_views.text(shown.timeline, settings, data_root=one.data_root, now=shown.seen_at)
    snippet = (manifest.get("error") or {}).get("snippet")
    if snippet:
        render.line("last lines")
        for text in snippet.splitlines():
            render.line(f"    {text}")
    for log in shown.logs:
        render.line(f"{'log':<11}{log}")
    render.line(f"{'manifest':<11}{shown.directory / 'manifest.json'}")
    if shown.ui_url:
        render.line(f"{'prefect':<11}{shown.ui_url}")


def _host(environment: dict[str, Any]) -> str | None:
    pid = environment.get("pid")
    return environment.get("hostname") if pid is None else f"{environment.get('hostname')} pid {pid}"


def _unit(environment: dict[str, Any]) -> str | None:
    """Return what systemd ran, as `live-score.service (user of daniel)`; None where it was not systemd's."""
    user = f" of {environment['user']}" if environment.get("user") else ""
    return f"{environment['unit']} ({environment.get('scope')}{user})" if environment.get("unit") else None


def _local(instant: datetime | None, zone: ZoneInfo) -> str | None:
    if instant is None:
        return None
    local = instant.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()} ({format_instant(instant)})"


def run_started(started: Started, settings: Settings) -> None:
    """Say that a run was asked for."""
    data = {
        "job": started.job.name,
        "run_id": started.run_id,
        "flow_run_id": started.flow_run_id,
        "directory": started.directory,
        "ui_url": started.ui_url,
        "notes": list(started.notes),
    }
    if not settings.as_json:
        _notes(started)

    def text() -> None:
        render.line(f"{started.job.name}: run {started.run_id} asked for")
        render.line(f"    follow it: orchctl runs logs --follow {started.run_id}")
        render.line(f"    in Prefect: {started.ui_url}")

    render.emit("run", data, text, settings)


def retried(done: Retried, settings: Settings) -> None:
    """Say that a run will be run again, and which of its steps."""
    started = done.started
    data = {
        "job": started.job.name,
        "run_id": started.run_id,
        "flow_run_id": started.flow_run_id,
        "attempt": done.attempt,
        "kept": list(done.kept),
        "again": list(done.again),
        "ui_url": started.ui_url,
        "notes": list(started.notes),
    }
    if not settings.as_json:
        _notes(started)

    def text() -> None:
        for line in _retried_lines(done):
            render.line(line)
        render.line(f"    follow it: orchctl runs logs --follow {started.run_id}")
        render.line(f"    in Prefect: {started.ui_url}")

    render.emit("runs retry", data, text, settings)


def retried_waiting(done: Retried, settings: Settings) -> None:
    """Say the same on stderr, while the run is waited for."""
    if not settings.as_json:
        _notes(done.started)
        for line in (*_retried_lines(done), f"    in Prefect: {done.started.ui_url}"):
            render.note(line)


def _retried_lines(done: Retried) -> Iterator[str]:
    yield f"{done.started.job.name}: run {done.started.run_id} is run again (attempt {done.attempt})"
    if done.again or done.kept:
        yield f"    kept, if unchanged: {', '.join(done.kept) or 'none'}"
        yield f"    run: {', '.join(done.again) or 'none'}"


def run_waiting(started: Started, settings: Settings) -> None:
    """Say, on stderr, what is being waited for."""
    if not settings.as_json:
        _notes(started)
        render.note(f"{started.job.name}: run {started.run_id}, in Prefect: {started.ui_url}")


def _notes(started: Started) -> None:
    for text in started.notes:
        render.note(f"note: {text}")


@contextlib.contextmanager
def follower(started: Started, settings: Settings) -> Iterator[Callable[[Progress], None]]:
    """Show the log of a run as it comes, and a line with its state and time below."""
    begun = time.monotonic()
    with render.status_line(settings) as show:

        def step(progress: Progress) -> None:
            took = human(time.monotonic() - begun)
            show(
                f"{started.job.name} {started.run_id}  {progress.state or 'Scheduled'}  {took}",
                progress.output,
            )

        yield step


def run_ended(started: Started, ended: Ended, settings: Settings, *, command: str) -> None:
    """Say how a run ended."""
    one = ended.run
    status = one.status if one else (ended.flow_run.state_name or "gone").lower()
    reason = (one.reason if one else None) or (ended.flow_run.state_message if not one else None)
    data = {
        "job": started.job.name,
        "run_id": one.run_id if one else started.run_id,
        "flow_run_id": started.flow_run_id,
        "status": status,
        "reason": reason,
        "exit_code": ended.exit_code,
        "run": run_json(one) if one else None,
        "ui_url": started.ui_url,
    }
    took = f" after {human(one.duration_s)}" if one and one.duration_s is not None else ""
    text = f"{started.job.name}: {status}{took}" + (f": {reason}" if reason else "") + f" (run {data['run_id']})"
    failed = ended.exit_code != 0
    errors = [{"code": "run-failed", "message": text, "hint": f"orchctl runs show {data['run_id']}"}] if failed else []
    render.emit(command, data, lambda: render.note(text), settings, errors=errors, failed=failed)


def reindexed(result: Reindexed, settings: Settings) -> None:
    """Say what a reindex did."""
    for item in result.skipped:
        render.note(f"passed over {item.path}: {item.reason}")
    text = f"{result.manifests} manifests read, {result.added} events added"
    render.emit(
        "runs reindex",
        {"manifests": result.manifests, "added": result.added},
        lambda: render.line(text),
        settings,
    )


def stack(found: Status, settings: Settings, *, command: str) -> None:
    """Show server and workers."""
    data = {
        "ok": found.ok,
        "api_url": found.api_url,
        "ui_url": found.ui_url,
        "version": found.version,
        "schedules": found.schedules,
        "parts": list(found.parts),
    }

    def text() -> None:
        for part in found.parts:
            render.line(f"{'ok' if part.ok else 'DOWN':<5}{part.name}: {part.detail}{_process_of(part)}")
        render.line(f"ui   {found.ui_url}")

    render.emit(command, data, text, settings)


def _process_of(part: Part) -> str:
    if part.pid is not None:
        return f" (pid {part.pid})"
    if not part.ok:
        return " (not running)"
    return " (not started from this state directory)" if part.log is None else ""


def stack_down(stopped: tuple[str, ...], settings: Settings) -> None:
    """Say what was stopped."""
    text = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    render.emit("host down", {"stopped": list(stopped)}, lambda: render.line(text), settings)


def demo_step(words: Sequence[str], done: Done) -> None:
    """Show a command of the demo and what came of it."""
    render.line(f"$ orchctl {' '.join(words)}")
    for text in (done.err + done.out).splitlines():
        render.line(f"  {text}")
    if done.code:
        render.line(f"  (exit code {done.code})")


def demo_kept(root: str, ui_url: str | None, command: str, ending: str) -> None:
    """Say what the demo left, and how to end it."""
    render.heading(f"Left running: {ui_url}, folder {root}")
    render.line(f"look on:  {command} runs")
    render.line(f"end it:   {ending}")
