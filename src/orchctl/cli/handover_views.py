"""What `cutover`, `confirm`, `rollback` and `recover` show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.durations import human
from orchctl.core.handover import WORDS, Step
from orchctl.core.words import several

if TYPE_CHECKING:
    from orchctl.core.gates import Gate, Seam
    from orchctl.errors import OrchctlError
    from orchctl.services import switching
    from orchctl.services.gates import Table
    from orchctl.services.handover import Switched
    from orchctl.services.recovery import Recovered
    from orchctl.services.switching import Done
    from orchctl.wiring import Settings

_WIDTH = 80
_SLOTS = 5
_GATE = 19
_LABEL = 22


class Cutover:
    """The story of a cutover of several jobs; with --json, only its end."""

    def __init__(self, timezone: str, settings: Settings, *, dry_run: bool) -> None:
        self._local = _clock(timezone)
        self._settings, self._dry_run = settings, dry_run

    def table(self, table: Table) -> None:
        """Show the gates of a job, and the steps where they come next."""
        if self._settings.as_json:
            return
        render.line(f"{table.job}: the gates of its cutover")
        for gate in table.gates:
            _gate(gate)
        if self._dry_run or table.passes:
            render.line(f"{table.job}: the steps of its cutover")
            _steps(table.steps)

    def ended(self, done: Done) -> Done:
        """Show what became of a job."""
        if not self._settings.as_json:
            if done.switched is not None:
                _print(self._switched(done.switched))
            _error(done, self._settings)
        return done

    def all(self, found: Sequence[Done], *, ui: Callable[[], str]) -> None:
        """Print the end, or with --json all of it."""
        switched = any(done.switched is not None for done in found)

        def text() -> None:
            if switched:
                render.line(f"Prefect shows the runs: {ui()}")
            if self._dry_run:
                render.note("nothing was changed (--dry-run)")

        data = {"dry_run": self._dry_run, "jobs": [_done(done) for done in found]}
        _emit("cutover", data, text, found, self._settings)

    def _switched(self, switched: Switched) -> Iterator[tuple[str, str | None]]:
        local = self._local
        if switched.outcome == "undone":
            yield "", f"{switched.job}: the cutover was taken back; legacy owns it"
        else:
            yield "", f"{switched.job}: Prefect owns it" + (f" since {local(switched.since)}" if switched.since else "")
        yield "last legacy run", local(switched.last_legacy) if switched.last_legacy else "not known"
        yield "first Prefect slot", local(switched.first_slot) if switched.first_slot else "not known"
        yield "seam", _seam(switched)
        yield "caught up with", _slots(switched.granted, local)
        yield "given up", _slots(switched.dropped, local)
        yield from _common(switched)
        if switched.confirm_by is not None:
            yield "rolled back", f"by itself at {local(switched.confirm_by)}, unless `orchctl confirm {switched.job}`"
        yield "see", f"`orchctl status {switched.job}`; back again: `orchctl rollback {switched.job}`"


class Rollback:
    """The story of a rollback of several jobs; with --json, only its end."""

    def __init__(self, timezone: str, settings: Settings) -> None:
        self._local, self._settings = _clock(timezone), settings

    def ended(self, done: Done) -> Done:
        """Show what became of a job."""
        if not self._settings.as_json:
            if done.switched is not None:
                _print(_rolled_back(done.switched, self._local))
            _error(done, self._settings)
        return done

    def all(self, found: Sequence[Done]) -> None:
        """With --json, print all of it."""
        _emit(
            "rollback", {"dry_run": False, "jobs": [_done(done) for done in found]}, lambda: None, found, self._settings
        )


def would_roll_back(found: Sequence[switching.Rollback], timezone: str, settings: Settings) -> None:
    """Show what a rollback would do."""
    local = _clock(timezone)

    def text() -> None:
        if not found:
            render.line("Prefect owns no job: there is nothing to roll back")
        for each in found:
            if not each.steps:
                render.line(f"{each.job}: legacy owns it already")
                continue
            owner = f" (Prefect owns it since {local(each.owner.since)})" if each.owner is not None else ""
            render.line(f"{each.job}: the steps of its rollback{owner}")
            _steps(each.steps)

    data = {
        "dry_run": True,
        "jobs": [
            {"job": each.job, "since": each.owner.since if each.owner else None, "steps": _steps_json(each.steps)}
            for each in found
        ],
    }
    render.emit("rollback", data, text, settings)


def confirmed(job: str, armed: bool, settings: Settings) -> None:
    """Show that a cutover stays."""
    said = "nothing rolls it back by itself any more" if armed else "nothing would have rolled it back by itself"
    render.emit("confirm", {"job": job, "was_armed": armed}, lambda: render.line(f"{job}: {said}"), settings)


def recovered(found: Sequence[Recovered], timezone: str, settings: Settings) -> None:
    """Show what was found of each job and done."""
    local = _clock(timezone)

    def text() -> None:
        if not found:
            render.line("nothing to recover")
        for each in found:
            if each.switched is not None:
                _print(_resumed(each.switched, local))
            for repaired in each.repaired:
                _wrapped(f"{each.job}: {repaired.what} [{repaired.code}]", "", "  ")
            if each.error is not None:
                render.error(each.error, command="recover", settings=settings)

    errors = [_error_json(each.job, each.error) for each in found if each.error is not None]
    errors += [_owed_json(each.switched) for each in found if each.switched is not None and each.switched.owed]
    errors += [
        {"code": repaired.code, "message": f"{each.job}: {repaired.what}", "hint": None}
        for each in found
        for repaired in each.repaired
        if not repaired.done
    ]
    data = {
        "jobs": [
            {
                "job": each.job,
                "result": _switched_json(each.switched),
                "repaired": list(each.repaired),
                "in_order": each.is_in_order,
            }
            for each in found
        ]
    }
    failed = bool(found) and all(each.error is not None for each in found)
    render.emit("recover", data, text, settings, errors=errors, failed=failed)


# --- text


def _gate(gate: Gate) -> None:
    mark = "ok" if gate.state == "ok" else gate.state.upper()
    head = f"  {mark:<8} {gate.id:<{_GATE - 12}}"
    _wrapped(f"{gate.seen}", f"{head:<{_GATE}} ", " " * (_GATE + 1))
    if gate.state == "waived":
        _wrapped(f"waived: {gate.reason}", " " * (_GATE + 1), " " * (_GATE + 1))
    elif gate.fix is not None:
        _wrapped(f"-> {gate.fix}", " " * (_GATE + 1), " " * (_GATE + 4))


def _steps(steps: Iterable[Step]) -> None:
    for number, step in enumerate(steps, start=1):
        _wrapped(WORDS[step], f"  {number}. {step.value:<{_GATE - 5}} ", " " * (_GATE + 1))


def _print(rows: Iterable[tuple[str, str | None]]) -> None:
    for label, value in rows:
        if value is not None:
            _wrapped(value, f"  {label:<{_LABEL - 2}}" if label else "", " " * _LABEL if label else "  ")


def _wrapped(text: str, first: str, rest: str) -> None:
    columns = render.width()
    if columns is None:
        render.line(first + text)
        return
    lines = textwrap.wrap(
        text,
        max(_WIDTH // 2, columns),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    for line in lines:
        render.line(line)


def _rolled_back(switched: Switched, local: Callable[[datetime], str]) -> Iterator[tuple[str, str | None]]:
    if switched.id is None:
        yield "", f"{switched.job}: legacy owns it, and nothing was to do"
        return
    yield "", f"{switched.job}: legacy owns it"
    yield "last legacy run", local(switched.last_legacy) if switched.last_legacy else None
    yield "run once for", _slots(switched.granted, local)
    yield "given up", _slots(switched.dropped, local)
    yield from _common(switched)
    yield "see", f"`orchctl status {switched.job}`"


def _resumed(switched: Switched, local: Callable[[datetime], str]) -> Iterator[tuple[str, str | None]]:
    how = {"done": "was finished", "undone": "was taken back", "superseded": "was taken over by a rollback"}
    said = how[switched.outcome] if switched.outcome is not None else "is done but for Prefect's part"
    prefects = switched.kind == "cutover" and switched.outcome == "done"
    yield "", f"{switched.job}: its {switched.kind} {said}; {'Prefect' if prefects else 'legacy'} owns it"
    yield "first Prefect slot", local(switched.first_slot) if switched.first_slot else None
    yield "caught up with", _slots(switched.granted, local)
    yield "given up", _slots(switched.dropped, local)
    yield from _common(switched)


def _common(switched: Switched) -> Iterator[tuple[str, str | None]]:
    yield (
        "held",
        f"{human(switched.held_s)}, in which nothing could begin a run" if switched.held_s is not None else None,
    )
    for step in switched.owed:
        yield "owed", f"{WORDS[step]}; `orchctl recover` does it when Prefect answers"
    for note in switched.notes:
        yield "note", note


def _seam(switched: Switched) -> str:
    seam = _seam_of(switched)
    return "not known: nobody says when legacy ran last" if seam is None else f"gap {seam.gap}, overlap {seam.overlap}"


def _seam_of(switched: Switched) -> Seam | None:
    from orchctl.core.gates import seam

    return seam(since=switched.since, last_legacy=switched.last_legacy, dropped=switched.dropped)


def _slots(slots: Sequence[datetime], local: Callable[[datetime], str]) -> str | None:
    if not slots:
        return None
    return several([local(slot) for slot in slots], shown=_SLOTS)


def _clock(timezone: str) -> Callable[[datetime], str]:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(timezone)

    def local(instant: datetime) -> str:
        here = instant.astimezone(zone)
        return f"{here:%Y-%m-%d %H:%M:%S} {here.tzname()}"

    return local


def _error(done: Done, settings: Settings) -> None:
    if done.error is not None:
        render.error(done.error, command="", settings=settings)


# --- JSON


def _emit(
    command: str, data: dict[str, Any], text: Callable[[], None], found: Sequence[Done], settings: Settings
) -> None:
    errors = [_error_json(done.job, done.error) for done in found if done.error is not None]
    failed = bool(found) and len(errors) == len(found)
    errors += [_owed_json(done.switched) for done in found if done.switched is not None and done.switched.owed]
    render.emit(command, data, text, settings, errors=errors, failed=failed)


def _done(done: Done) -> dict[str, Any]:
    table = done.table
    return {
        "job": done.job,
        "passes": None if table is None else table.passes,
        "gates": [] if table is None else list(table.gates),
        "steps": [] if table is None else _steps_json(table.steps),
        "result": _switched_json(done.switched),
    }


def _steps_json(steps: Iterable[Step]) -> list[dict[str, str]]:
    return [{"step": step.value, "does": WORDS[step]} for step in steps]


def _switched_json(switched: Switched | None) -> dict[str, Any] | None:
    if switched is None:
        return None
    seam = _seam_of(switched)
    found: dict[str, Any] = render.jsonable(switched)
    return {**found, "gap": seam.gap if seam else None, "overlap": seam.overlap if seam else None}


def _error_json(job: str, error: OrchctlError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "job": job}


def _owed_json(switched: Switched) -> dict[str, Any]:
    owed = ", ".join(step.value for step in switched.owed)
    return {
        "code": "owed",
        "message": f"{switched.job}: Prefect's part is owed: {owed}",
        "hint": "`orchctl recover` does it when Prefect answers",
        "job": switched.job,
    }
