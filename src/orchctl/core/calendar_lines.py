"""Several calendar expressions of one schedule: each instant by one of them only.

systemd starts a unit once however many of its lines elapse at an instant. Prefect makes a run for each schedule
(the key of a run holds the schedule's id): so no two may name the same instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from orchctl.core import calendar_elapse
from orchctl.core.calendar_parse import BOUNDS, MICRO, Element, Expression, parse

_FIELDS = ("year", "month", "day", "hour", "minute", "second")
# After 28 years weekdays and leap days fall alike again.
_CYCLE = (date(2026, 1, 1), date(2053, 12, 31))
_SPAN = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 2, 5, tzinfo=UTC))


def disjoint(lines: Sequence[str], timezone: str) -> tuple[str, ...]:
    """Return expressions with the instants of `lines` together, none of which two of them have.

    Lines that meet no other stay as they are; what an earlier line has is taken out of a later one, which may
    vanish or become several. Raises ValueError where that cannot be said, and as `calendar_elapse.read`.
    """
    if len(lines) == 1:
        return tuple(lines)
    kept: list[Expression] = []
    written: list[str] = []
    for line in lines:
        spec, zone = calendar_elapse.read(line, timezone)
        spec = replace(spec, zone=zone.key)
        pieces = [spec]
        for other in kept:
            pieces = [rest for piece in pieces for rest in _without(piece, other)]
        kept += pieces
        written += [line] if pieces == [spec] else _texts(pieces, line, timezone)
    return tuple(written)


def _texts(pieces: Sequence[Expression], line: str, timezone: str) -> list[str]:
    found = [_text(piece, timezone) for piece in pieces]
    try:
        return [text for text in found if parse(text)]
    except ValueError as error:
        # systemd's odd limit on lists of days from the month's end.
        raise ValueError(f'"{line}" meets another line, and what is left of it cannot be said: {error}') from error


def _without(spec: Expression, other: Expression) -> list[Expression]:
    """Return expressions with the instants of `spec` that `other` has not."""
    if spec.zone != other.zone:
        return _apart(spec, other)
    # Where the days count from one end in both, every field is a set of numbers, and sets can be subtracted.
    alike = spec.from_end == other.from_end or other.day is None
    fields = _FIELDS if alike else tuple(name for name in _FIELDS if name != "day")
    if any(_numbers(spec, name).isdisjoint(_numbers(other, name)) for name in fields):
        return [spec]
    if _weekdays(spec).isdisjoint(_weekdays(other)):
        return [spec]
    if alike:
        return list(_cut(spec, other)) if calendar_elapse.fires(_common(spec, other)) else [spec]
    return _by_days(spec, other)


def _by_days(spec: Expression, other: Expression) -> list[Expression]:
    """The same where days count from different ends of the month: all, or nothing."""
    days, others = (set(calendar_elapse.dates(each, *_CYCLE)) for each in (spec, other))
    if days.isdisjoint(others):
        return [spec]
    if days <= others and set(calendar_elapse.times(spec)) <= set(calendar_elapse.times(other)):
        return []
    raise ValueError(
        f"{_said(spec, other)} both elapse on {min(days & others)}, and Prefect would start two runs; "
        "count the days of both from the same end of the month"
    )


def _apart(spec: Expression, other: Expression) -> list[Expression]:
    """Two zones: the instants themselves show it, those of a year and a month."""
    first, second = (set(calendar_elapse.instants(_text(each, ""), "UTC", *_SPAN)) for each in (spec, other))
    if common := first & second:
        at = datetime.fromtimestamp(min(common), UTC)
        raise ValueError(
            f"{_said(spec, other)} both elapse at {at:%Y-%m-%dT%H:%M:%SZ}, and Prefect would start two runs; "
            "say both in one zone"
        )
    return [spec]


def _said(spec: Expression, other: Expression) -> str:
    return f'"{_text(other, "")}" and "{_text(spec, "")}"'


def _numbers(spec: Expression, name: str) -> frozenset[int]:
    low, high = BOUNDS[name]
    return spec.numbers(name) or frozenset(range(low, high + 1, MICRO if name == "second" else 1))


def _weekdays(spec: Expression) -> frozenset[int]:
    return spec.weekdays or frozenset(range(1, 8))


def _common(spec: Expression, other: Expression) -> Expression:
    """Return what both have, neither field being empty."""
    found = replace(spec, weekdays=_narrowed(_weekdays(spec) & _weekdays(other)))
    for name in _FIELDS:
        found = _with(found, name, _numbers(spec, name) & _numbers(other, name))
    return found


def _with(spec: Expression, name: str, numbers: frozenset[int]) -> Expression:
    low, high = BOUNDS[name]
    everything = len(numbers) == len(range(low, high + 1)) and name != "second"
    field: dict[str, Any] = {name: None if everything else tuple(Element(number) for number in sorted(numbers))}
    return replace(spec, **field)


def _cut(spec: Expression, other: Expression) -> Iterator[Expression]:
    """Yield what is left of `spec`: for each field what `other` has not there, and has in the fields before it."""
    rest = _weekdays(spec) - _weekdays(other)
    if rest and calendar_elapse.fires(piece := replace(spec, weekdays=rest)):
        yield piece
    left = replace(spec, weekdays=_narrowed(_weekdays(spec) & _weekdays(other)))
    for name in _FIELDS:
        mine, others = _numbers(spec, name), _numbers(other, name)
        if mine - others and calendar_elapse.fires(piece := _with(left, name, mine - others)):
            yield piece
        left = _with(left, name, mine & others)


def _narrowed(weekdays: frozenset[int]) -> frozenset[int] | None:
    return None if len(weekdays) == len(range(1, 8)) else weekdays


def _text(spec: Expression, timezone: str) -> str:
    zone = "" if spec.zone == timezone else f" {spec.zone}"
    return f"{calendar_elapse.text(spec)}{zone}"
