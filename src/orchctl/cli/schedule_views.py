"""What `schedule next` and `schedule compare` show."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

from orchctl.cli import render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from orchctl.core.compare import ChangedDay, Comparison, Shifts, Some
    from orchctl.services.compare import Compared, ScheduleSide, TriggerSide
    from orchctl.services.upcoming import NextOfSchedule, NextOfTrigger, Upcoming
    from orchctl.wiring import Settings

_WIDTH = 80
_CODE = re.compile(r"`[^`]*`")
# A blank at which textwrap breaks no line.
_HARD = "\u00a0"
_HEADS = {
    "equal": "what starts it today and its schedules are equal",
    "different": "what starts it today and its schedules differ",
    "incomplete": "what could be read is equal; not everything could be read",
}


def upcoming(found: Upcoming, settings: Settings) -> None:
    """Show the next instants of each schedule, and the next start of each legacy trigger."""

    def text() -> None:
        for schedule in found.schedules:
            render.line(f"{schedule.name}: {schedule.rule}")
            _instants(schedule, found, settings)
            for note in schedule.notes:
                _wrapped(note, "- ")
            render.line()
        if found.legacy:
            render.line("what starts it today:")
        for trigger in found.legacy:
            _wrapped(_next_of_trigger(trigger, found), "- ")

    render.emit("schedule next", found, text, settings)


def _instants(schedule: NextOfSchedule, found: Upcoming, settings: Settings) -> None:
    local = _local(schedule.zone)
    rows = [
        (f"{local(instant):%a %Y-%m-%d %H:%M:%S %Z}", f"{instant:%Y-%m-%d %H:%M:%SZ}", _ahead(instant, found.now))
        for instant in schedule.instants
    ]
    if rows:
        render.table(("LOCAL", "UTC", "IN"), rows, settings, right=("IN",))
    else:
        render.line("never again")


def _ahead(instant: datetime, now: datetime) -> str:
    from orchctl.core.cadence_words import short

    return short(round(max(0.0, (instant - now).total_seconds())))


def _next_of_trigger(trigger: NextOfTrigger, found: Upcoming) -> str:
    if trigger.problem is not None:
        return f"{trigger.label}: {trigger.problem}"
    label = f"{trigger.label}{'' if trigger.on else ' (switched off)'}"
    if trigger.instant is None:
        return f"{label}: nothing says when it is next due"
    local = _local(found.schedules[0].zone)(trigger.instant)
    return f"{label}: {local:%a %Y-%m-%d %H:%M:%S %Z}, in {_ahead(trigger.instant, found.now)}"


def compared(found: Compared, settings: Settings) -> None:
    """Show a comparison: both cadences in words, the counts, examples, and what there is to know."""
    errors = [
        {"code": "trigger", "message": f"{each.label}: {each.problem}", "hint": each.hint} for each in found.unknown
    ]
    render.emit("schedule compare", _compared_json(found), lambda: _compared_text(found), settings, errors=errors)


def _compared_text(found: Compared) -> None:
    local = _local(found.zone)
    render.line(f"{found.job}: {_HEADS[found.verdict]}")
    window = f"{local(found.start):%Y-%m-%d %H:%M} to {local(found.end):%Y-%m-%d %H:%M}"
    render.line(f"{window} ({(found.end - found.start).days} days), {found.zone}")
    render.line()
    _wrapped(found.legacy_cadence, "legacy   ")
    for trigger in found.triggers:
        _wrapped(_trigger_text(trigger), "  ")
        if trigger.hint is not None:
            _wrapped(f"hint: {trigger.hint}", "    ")
    _wrapped(found.schedule_cadence, "Prefect  ")
    for schedule in found.schedules:
        _wrapped(f"{schedule.name}: {schedule.rule}", "  ")
    render.line()
    if found.comparison is not None:
        _counts(found.comparison, local)
    for finding in found.findings:
        _wrapped(finding, "- ")
    if found.accepted is not None and found.differs:
        _wrapped(f"accepted in the catalog (accept_cadence): {found.accepted}", "")


def _trigger_text(trigger: TriggerSide) -> str:
    if trigger.problem is not None:
        return f"{trigger.label}: not known: {trigger.problem}"
    says = ", ".join((*trigger.expressions, *trigger.monotonic))
    return f"{trigger.label}: {says}{'' if trigger.on else ' (switched off)'}"


def _counts(comparison: Comparison, local: Callable[[datetime], datetime]) -> None:
    render.line(f"{comparison.same:>11,}  on both sides at the same instant")
    for some, name in ((comparison.only_old, "legacy"), (comparison.only_new, "Prefect")):
        render.line(f"{some.count:>11,}  only on the {name} side{_first(some, local)}")
    render.line(f"{comparison.shifted.count:>11,}  moved{_moved(comparison.shifted)}")
    render.line()


def _first(some: Some, local: Callable[[datetime], datetime]) -> str:
    if not some.count:
        return ""
    first, *rest = (local(_moment(instant)) for instant in some.first[:3])
    shown = [f"{first:%Y-%m-%d %H:%M:%S}"]
    shown += [f"{each:%H:%M:%S}" if each.date() == first.date() else f"{each:%m-%d %H:%M}" for each in rest]
    return f": {', '.join(shown[:2])}{', …' if some.count > 2 else ''}"


def _moved(shifts: Shifts) -> str:
    if not shifts.count:
        return ""
    from orchctl.core.cadence_words import short

    ends = sorted({shifts.least_s, shifts.most_s})
    words = [f"{short(abs(seconds))} {'later' if seconds > 0 else 'earlier'}" for seconds in ends]
    return f": the Prefect side {' to '.join(words)}"


def _wrapped(text: str, head: str) -> None:
    """Print a paragraph; lines after the first are indented like its head, and no `expression` is torn apart."""
    whole = _CODE.sub(lambda match: match[0].replace(" ", _HARD), text)
    rest = " " * len(head)
    for line in textwrap.wrap(whole, _WIDTH, initial_indent=head, subsequent_indent=rest, break_on_hyphens=False):
        render.line(line.replace(_HARD, " "))


def _compared_json(found: Compared) -> dict[str, Any]:
    comparison = found.comparison
    return {
        "job": found.job,
        "start": found.start,
        "end": found.end,
        "timezone": found.zone,
        "verdict": found.verdict,
        "accepted": found.accepted,
        "cadence": {"legacy": found.legacy_cadence, "schedule": found.schedule_cadence},
        "triggers": [_trigger_json(each) for each in found.triggers],
        "schedules": [_schedule_json(each) for each in found.schedules],
        "counts": None if comparison is None else _counts_json(comparison),
        "examples": None if comparison is None else _examples_json(comparison),
        "clock_changes": [] if comparison is None else [_day_json(day) for day in comparison.changed_days],
        "findings": list(found.findings),
    }


def _trigger_json(each: TriggerSide) -> dict[str, Any]:
    return {
        "label": each.label,
        "kind": each.kind,
        "expressions": each.expressions,
        "monotonic": each.monotonic,
        "timezones": each.zones,
        "on": each.on,
        "cadence": each.cadence,
        "fires": each.fires,
        "tolerance_s": each.tolerance_s,
        "problem": each.problem,
    }


def _schedule_json(each: ScheduleSide) -> dict[str, Any]:
    return {
        "name": each.name,
        "rule": each.rule,
        "timezone": each.zone,
        "cadence": each.cadence,
        "fires": each.fires,
    }


def _counts_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "legacy": comparison.old,
        "schedule": comparison.new,
        "same": comparison.same,
        "only_legacy": comparison.only_old.count,
        "only_schedule": comparison.only_new.count,
        "shifted": comparison.shifted.count,
        "shifted_within_tolerance": comparison.shifted.tolerated,
    }


def _examples_json(comparison: Comparison) -> dict[str, Any]:
    pairs = comparison.shifted.first
    return {
        "only_legacy": _moments(comparison.only_old.first),
        "only_schedule": _moments(comparison.only_new.first),
        "shifted": [
            {"legacy": _moment(pair.old), "schedule": _moment(pair.new), "seconds": pair.seconds} for pair in pairs
        ],
    }


def _day_json(day: ChangedDay) -> dict[str, Any]:
    return {
        "date": day.day,
        "timezone": day.change.zone,
        "at": _moment(day.change.at),
        "forward": day.change.forward,
        "differs": day.differs,
        "legacy": day.old,
        "schedule": day.new,
        "only_legacy": _moments(day.only_old.first),
        "only_schedule": _moments(day.only_new.first),
    }


def _moments(instants: Sequence[int]) -> list[datetime]:
    return [_moment(instant) for instant in instants]


def _moment(instant: int) -> datetime:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(instant, UTC)


def _local(zone: str) -> Callable[[datetime], datetime]:
    from zoneinfo import ZoneInfo

    info = ZoneInfo(zone)
    return lambda moment: moment.astimezone(info)
