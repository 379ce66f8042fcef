"""What ran: lists, one run whole, its log. Reads the events of the days asked for, never the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from orchctl.core import durations, manifest, step_events, timeline
from orchctl.core.manifest import Run, Skipped
from orchctl.core.names import is_run_id, parse_date, parse_instant
from orchctl.core.timeline import Timeline
from orchctl.errors import OrchctlError, UsageError
from orchctl.services.ports import ManifestTree

FOLLOW_POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Window:
    """Instants from `start` up to, and without, `end` (UTC)."""

    start: datetime
    end: datetime

    def utc_dates(self) -> Iterator[date]:
        """Yield the UTC dates whose event files may tell of runs that started in the window."""
        day = self.start.date()
        while day <= self.end.date():
            yield day
            day += timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Listing:
    """Runs by start, oldest first; `totals` counts all that matched by status, also those that `limit` hid."""

    window: Window
    runs: tuple[Run, ...]
    totals: dict[str, int]
    hidden: int
    skipped: tuple[Skipped, ...]


def window_of(day: str | None, since: str | None, *, timezone: str, now: datetime) -> Window:
    """Return the window of `--date` (default: today in `timezone`) or of `--since` (a duration, date or instant).

    Raises UsageError with what may stand there.
    """
    if day is not None and since is not None:
        raise UsageError("--date and --since exclude each other")
    zone = ZoneInfo(timezone)
    if since is not None:
        return Window(_since(since, zone, now), now + timedelta(seconds=1))
    try:
        on = parse_date(day) if day is not None else now.astimezone(zone).date()
        return Window(_midnight(on, zone), _midnight(on + timedelta(days=1), zone))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--date: {error}") from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock_time(), zone).astimezone(UTC)


def _since(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    try:
        return now - timedelta(seconds=durations.parse(text))
    except ValueError:
        pass
    try:
        return parse_instant(text) if "T" in text else _midnight(parse_date(text), zone)
    except ValueError as error:
        raise UsageError(f"--since: {text!r} is not a duration (2h), a date (2025-12-19) or an instant") from error


def listing(
    trees: Sequence[ManifestTree],
    window: Window,
    *,
    job: str | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the runs that started in `window`; those shown as running are looked at one by one."""
    skipped: list[Skipped] = []
    found: list[Run] = []
    for tree in trees:
        newest = manifest.fold(run for day in window.utc_dates() for run in tree.events(day, skipped=skipped))
        for run in newest.values():
            if not window.start <= run.started_at < window.end or job not in {None, run.job}:
                continue
            now = tree.current(run, skipped=skipped) if run.status == "running" else run
            if status in {None, now.status}:
                found.append(now)
    found.sort(key=lambda run: (run.started_at, run.run_id))
    shown = found if limit is None else found[-limit:] if limit else []
    return Listing(
        window,
        tuple(shown),
        dict(Counter(run.status for run in found)),
        len(found) - len(shown),
        tuple(skipped),
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """One run whole. `manifest` is None where only its events are left; `ui_url` where Prefect's id is unknown;
    `timeline` for a run without steps. `seen_at` is the instant up to which it tells.
    """

    run: Run
    manifest: dict[str, Any] | None
    directory: Path
    logs: tuple[Path, ...]
    ui_url: str | None
    timeline: Timeline | None
    seen_at: datetime


def find(trees: Sequence[ManifestTree], reference: str, *, timezone: str, now: datetime) -> tuple[ManifestTree, Run]:
    """Return the run that `reference` names: a whole id, or a part that is unique among the last two days' ids.

    Raises UsageError where it names none or several.
    """
    skipped: list[Skipped] = []
    if is_run_id(reference):
        for tree in trees:
            run = tree.find(reference, skipped=skipped)
            if run is not None:
                return tree, tree.current(run, skipped=skipped) if run.status == "running" else run
        hint = "one that was just asked for shows once a worker has begun it; for others see `orchctl runs --since 7d`"
        raise UsageError(f"there is no run {reference}", hint=hint)
    window = Window(window_of(None, "1d", timezone=timezone, now=now).start, now + timedelta(seconds=1))
    matches = [
        (tree, run)
        for tree in trees
        for run in listing([tree], window).runs
        if len(reference) >= 3 and reference in run.run_id
    ]
    if len(matches) != 1:
        shown = reference.encode("unicode_escape").decode()[:60]
        several = ", ".join(run.run_id for _, run in matches[:5])
        reason = f"{len(matches)} runs: {several}" if matches else "no run of the last day"
        raise UsageError(f"{shown!r} names {reason}", hint="give the whole run id, as `orchctl runs` prints it")
    return matches[0]


def wait_for(
    look: Callable[[], tuple[ManifestTree, Run]],
    reference: str,
    *,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
    patience_s: float,
) -> tuple[ManifestTree, Run]:
    """Return what `look` finds, waiting where a whole run id is not there yet: a worker takes seconds to begin."""
    waited = 0.0
    while True:
        try:
            return look()
        except UsageError:
            if not is_run_id(reference) or waited >= patience_s:
                raise
        if not waited:
            say(f"waiting for run {reference} to begin")
        sleep(FOLLOW_POLL_S)
        waited += FOLLOW_POLL_S


def show(tree: ManifestTree, run: Run, run_url: Callable[[str], str], *, now: datetime) -> Shown:
    """Return everything about a run. Asks no server."""
    try:
        data = tree.read(run)
    except ValueError as error:
        raise OrchctlError(
            f"the manifest of run {run.run_id} is torn: {error}", hint=f"see {tree.directory_of(run)}"
        ) from error
    flow_run = ((data or {}).get("environment") or {}).get("orchestrator_run_id")
    return Shown(
        run,
        data,
        tree.directory_of(run),
        tuple(tree.logs_in(tree.directory_of(run))),
        run_url(flow_run) if flow_run else None,
        None if data is None else _timeline(tree, run, data, now),
        now,
    )


def _timeline(tree: ManifestTree, run: Run, data: dict[str, Any], now: datetime) -> Timeline | None:
    """Return the timeline of a run of steps: from the events of its own days, and from its steps' manifests."""
    if data.get("execution") != "steps":
        return None
    tries = [one["started_at"] for one in data.get("attempts") or [] if isinstance(one.get("started_at"), str)]
    start = min([run.started_at, *(parse_instant(text) for text in tries)])
    skipped: list[Skipped] = []
    days = Window(start, run.finished_at or now).utc_dates()
    events = [each for day in days for each in tree.step_events(day, run_id=run.run_id, skipped=skipped)]
    return timeline.of(data, tree.steps_of(data), events, now=now)


@dataclass(frozen=True, slots=True)
class Reindexed:
    """How many manifests were read and how many events were missing and are there now."""

    manifests: int
    added: int
    skipped: tuple[Skipped, ...]


def reindex(trees: Sequence[ManifestTree]) -> Reindexed:
    """Add to the events what the manifests know and the events do not. Reads all history. Repeatable."""
    skipped: list[Skipped] = []
    read = added = 0
    for tree in trees:
        known: dict[date, set[_Key]] = {}
        for path, data in tree.all_manifests(skipped=skipped):
            read += 1
            try:
                events = list(manifest.events_of(data))
            except (KeyError, TypeError, ValueError) as error:
                skipped.append(Skipped(str(path), f"its attempts cannot be read: {error!r}"))
                continue
            added += _add_missing(tree, events, known)
    return Reindexed(read, added, tuple(skipped))


_Key = tuple[str, str | None, int, bool]
"""What tells events apart: run, step, attempt, and whether it is the start."""


def _add_missing(tree: ManifestTree, events: list[tuple[str, dict[str, Any]]], known: dict[date, set[_Key]]) -> int:
    added = 0
    for at, event in events:
        day = parse_instant(at).date()
        if day not in known:
            runs = tree.events(day, skipped=[])
            known[day] = {(run.run_id, None, run.attempt, run.status == "running") for run in runs}
            ends = {step_events.STARTED, step_events.FINISHED}
            known[day] |= {_step_key(one) for one in tree.step_events(day, skipped=[]) if one["event"] in ends}
        step = manifest.is_step(event)
        key = _step_key(event) if step else (event["run_id"], None, event["attempt"], event["status"] == "running")
        if key not in known[day]:
            tree.append(event)
            known[day].add(key)
            added += 1
    return added


def _step_key(event: dict[str, Any]) -> _Key:
    return event["run_id"], event["step"], event["attempt"], event["event"] == step_events.STARTED
