"""What `backfill` shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.durations import human
from orchctl.core.words import counted, several

if TYPE_CHECKING:
    from datetime import date

    from orchctl.services.backfill import Prepared
    from orchctl.services.backfill_preview import Previewed, Selected
    from orchctl.services.backfill_run import Ended, Progress, Submitted
    from orchctl.wiring import Settings

_DATES_SHOWN = 4
_WORDS = {"create": "run", "retry": "run again", "leave": "waits or runs", "kept": "kept", "skip": "skipped"}
_NO_INSTANT = "no instant"


def previewed(prepared: Prepared, found: Sequence[Previewed], settings: Settings) -> None:
    """Show what a backfill would do and read."""
    data = {
        **prepared.about,
        "queue_limit": prepared.limit,
        "notes": list(prepared.notes),
        "partitions": [_previewed_json(each) for each in found],
    }

    def text() -> None:
        for note in prepared.notes:
            render.line(f"note: {note}")
        if settings.verbose:
            _previewed_whole(found)
        else:
            _previewed_table(found, settings)
        counts = {word: sum(_what(each) == word for each in found) for word in (*_WORDS.values(), _NO_INSTANT)}
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        render.line(f"backfill {prepared.id}: {said}; nothing was changed")
        if not settings.verbose and any(each.inputs for each in found):
            render.line("    each input, and where it is: --verbose")

    render.emit("backfill", data, text, settings)


def _previewed_json(each: Previewed) -> dict[str, Any]:
    part = each.partition
    return {
        "game_date": part.game_date,
        "action": part.action,
        "why": part.why,
        "run_as_of_ts": each.as_of,
        "problem": each.problem,
        "inputs": list(each.inputs),
    }


def _previewed_table(found: Sequence[Previewed], settings: Settings) -> None:
    """Show a line for each date, and the gaps of all together."""
    from orchctl.core.backfill_summary import normalised

    rows = []
    for each in found:
        as_of = f"{each.as_of:%Y-%m-%dT%H:%M:%SZ}" if each.as_of else "-"
        rows.append((str(each.partition.game_date), _what(each), as_of, _reads(each)))
    render.table(("DATE", "WHAT", "AS OF", "READS"), rows, settings, flexible="READS")
    problems: dict[str, list[date]] = {}
    gaps: dict[tuple[str, str], list[date]] = {}
    for each in found:
        if each.problem:
            problems.setdefault(normalised(each.problem), []).append(each.partition.game_date)
        for selected in each.inputs:
            if selected.gap:
                gaps.setdefault((selected.step, selected.input), []).append(each.partition.game_date)
    render.line()
    for problem, dates in problems.items():
        render.line(f"{_NO_INSTANT}: {problem} ({_dates(dates)})")
    if gaps:
        cells = [(str(len(dates)), step, name, _dates(dates)) for (step, name), dates in gaps.items()]
        render.table(("GAPS", "STEP", "INPUT", "DATES"), cells, settings, right=("GAPS",), flexible="DATES")
        render.line()


def _what(each: Previewed) -> str:
    return _NO_INSTANT if each.problem else _WORDS[each.partition.action]


def _reads(each: Previewed) -> str:
    """Say in a line what a date would read, and what is not plain about it."""
    part = each.partition
    if not part.is_work:
        return part.why
    if each.problem:
        return "-"
    told = [f"again after: {part.why}"] if part.action == "retry" else []
    if each.inputs:
        told.append(counted(sum(selected.path is not None for selected in each.inputs), "input"))
        gaps = [selected for selected in each.inputs if selected.gap]
        told += [f"GAP {gap.step} {gap.input}" for gap in gaps] if len(gaps) == 1 else []
        told += [f"{len(gaps)} GAPS: {', '.join(gap.input for gap in gaps)}"] if len(gaps) > 1 else []
    return ", ".join(told) or "-"


def _previewed_whole(found: Sequence[Previewed]) -> None:
    for each in found:
        render.line(_previewed_line(each))
        for selected in each.inputs:
            render.line(f"    {selected.step} {selected.input}: {_selected(selected)}")


def _previewed_line(each: Previewed) -> str:
    part = each.partition
    told = f"  as of {each.as_of:%Y-%m-%dT%H:%M:%SZ}" if each.as_of else ""
    problem = f"  PROBLEM: {each.problem}" if each.problem else ""
    return f"{part.game_date}  {_WORDS[part.action]:<14}({part.why}){told}{problem}"


def _selected(selected: Selected) -> str:
    if selected.path is None:
        return f"GAP: {selected.note}" if selected.gap else str(selected.note)
    return selected.path + (f" ({selected.note})" if selected.note else "")


def begun(prepared: Prepared, at_a_time: int | None, settings: Settings) -> None:
    """Say, on stderr, what begins."""
    if settings.as_json:
        return
    for note in prepared.notes:
        render.note(f"note: {note}")
    work = sum(each.is_work for each in prepared.partitions)
    how = f", at most {at_a_time} at a time" if at_a_time is not None else ""
    render.note(f"backfill {prepared.id}: {counted(len(prepared.partitions), 'date')}, {work} to run{how}")


@contextlib.contextmanager
def follower(prepared: Prepared, settings: Settings) -> Iterator[Callable[[Progress], None]]:
    """Show how a backfill goes: what runs, what failed, what remains."""
    with render.bar(len(prepared.partitions), settings) as show:

        def step(progress: Progress) -> None:
            news = [
                f"{each.game_date}: {each.outcome}{f': {each.why}' if each.why else ''}"
                f" ({progress.ended} of {progress.total})"
                for each in progress.news
            ]
            show(progress.ended, _now(progress), news)

        yield step


def _now(progress: Progress) -> str:
    running = f"running {_dates(progress.running)}" if progress.running else "nothing runs"
    parts = [running, f"{progress.waiting} wait", f"{progress.failed} failed", f"{progress.left} left"]
    return ", ".join(parts)


def so_far(progress: Progress | None) -> str:
    """Say what goes on without us."""
    if progress is None:
        return "nothing was submitted"
    going = len(progress.running) + progress.waiting
    return (
        f"{progress.ended} of {progress.total} dates have ended, {going} wait or run in Prefect and go on, "
        f"{progress.left} are left to submit"
    )


def ended(prepared: Prepared, done: Ended | Submitted, settings: Settings) -> None:
    """Show what came of it."""
    from orchctl.services.backfill_run import Submitted

    if isinstance(done, Submitted):
        _submitted(prepared, done, settings)
    else:
        _summed_up(done, settings)


def _submitted(prepared: Prepared, done: Submitted, settings: Settings) -> None:
    parallel, limit = prepared.job.backfill.parallel, prepared.limit
    data = {
        **prepared.about,
        "submitted": done.created + done.again,
        "new": done.created,
        "again": done.again,
        "already_going": done.going,
        "kept": done.kept,
        "skipped": done.skipped,
        "failed": list(done.failed),
        "queue_limit": limit,
        "notes": list(prepared.notes),
    }

    def text() -> None:
        parts = [
            (done.created, "new"),
            (done.again, "again"),
            (done.going, "waiting or running already"),
            (done.kept, "kept"),
            (done.skipped, "skipped"),
            (len(done.failed), "failed"),
        ]
        render.line(f"backfill {prepared.id}: " + ", ".join(f"{count} {word}" for count, word in parts if count))
        bound = "as many as the worker takes" if limit is None else f"at most {limit}"
        render.line(f"    at a time: {bound} of all backfills of work pool {prepared.job.work_pool}")
        if limit is None or parallel < limit:
            render.line(f"    only --wait keeps to this job's own {parallel} at a time")
        render.line("    follow it: the same command with --wait; it sums up at the end")
        render.line(f"    in Prefect: the flow runs with the tag {prepared.tag}")

    errors = [
        {"code": "not-submitted", "message": f"{each.game_date}: {each.why}", "hint": None} for each in done.failed
    ]
    render.emit("backfill", data, text, settings, errors=errors)


def _summed_up(done: Ended, settings: Settings) -> None:
    found = done.summary
    failed = [row for row in found["runs"] if row["outcome"] == "failed"]
    errors = [
        {"code": "partition-failed", "message": f"{row['game_date']}: {row['reason']}", "hint": _hint(row)}
        for row in failed
    ]

    def text() -> None:
        _steps(found["steps"], settings)
        _groups("ERROR", found["errors"], settings)
        _groups("INPUT GAP", found["input_gaps"], settings)
        render.line(
            f"backfill {found['backfill']}: {found['attempted']} attempted, {found['succeeded']} succeeded, "
            f"{found['failed']} failed, {found['skipped']} skipped"
        )
        render.line(f"    summary: {done.path}")
        if failed:
            render.line(f"    one of them: {failed[0]['game_date']}, {_hint(failed[0]) or 'it has no run'}")

    everything = bool(failed) and not found["succeeded"]
    render.emit("backfill", {**found, "path": done.path}, text, settings, errors=errors, failed=everything)


def _hint(row: Mapping[str, Any]) -> str | None:
    return f"orchctl runs show {row['run_id']}" if row["run_id"] else None


def _steps(rows: Sequence[Mapping[str, Any]], settings: Settings) -> None:
    if not rows:
        return
    headings = ("STEP", "RUNS", "KEPT", "FAILED", "SKIPPED", "MEDIAN", "MOST", "TOTAL")
    cells = [
        (
            row["step"] or "(command)",
            str(row["runs"]),
            str(row["kept"]),
            str(row["failed"]),
            str(row["skipped"]),
            _seconds(row["median_s"]),
            _seconds(row["max_s"]),
            _seconds(row["total_s"]),
        )
        for row in rows
    ]
    render.table(headings, cells, settings, right=headings[1:])
    render.line()


def _groups(heading: str, rows: Sequence[Mapping[str, Any]], settings: Settings) -> None:
    if not rows:
        return
    cells = [
        (
            str(row["count"]),
            row["step"] or "-",
            row.get("class") or row.get("input") or row.get("type") or "-",
            row.get("message") or row.get("gap") or "",
            _dates(row["game_dates"]),
        )
        for row in rows
    ]
    render.table(("COUNT", "STEP", "KIND", heading, "DATES"), cells, settings, right=("COUNT",), flexible=heading)
    render.line()


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else human(seconds)


def _dates(dates: Sequence[date | str]) -> str:
    return several([str(each) for each in dates], shown=_DATES_SHOWN)
