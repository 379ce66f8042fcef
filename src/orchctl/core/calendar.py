"""systemd's calendar expressions as schedules of Prefect with the same instants.

Which kind can say what was measured against Prefect 3.8.8, whose croniter is an old one of its own: cron where it
can (five fields, or six with the seconds last), a fixed interval for an even beat below a minute in UTC, else a
recurrence rule. What none of them can say is refused, never rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from orchctl.core import calendar_elapse
from orchctl.core.calendar_elapse import defects, instants
from orchctl.core.calendar_parse import BOUNDS, DAYS, MICRO, Expression

__all__ = ["Conversion", "convert", "defects", "instants"]

_FIRST_YEAR, _LAST_YEAR = BOUNDS["year"]
# Rules begin here where the expression names no year: nothing before is asked for any more.
RULE_YEAR = 2026
# Prefect counts a rule from its start at each look, measured 7 us an instant: with more it takes seconds.
MOST_COUNTED = 250_000
# RDATE lines are limited by the length that Prefect allows to a rule (6500 characters).
_MOST_DATES = 350
_LAST_DAY = frozenset({1})
_LAST_WEEK = frozenset(range(1, 8))


@dataclass(frozen=True)
class Conversion:
    """The Prefect schedule (`schedule`: JSON of Prefect's API) with the instants of `expression` in `timezone`."""

    expression: str
    timezone: str
    kind: Literal["cron", "interval", "rrule"]
    schedule: Mapping[str, Any]

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What differs all the same, one sentence each: days on which clocks change, and systemd's own defects."""
        from orchctl.core import calendar_notes

        return calendar_notes.differences(self.expression, self.timezone, self.kind)


def convert(expression: str, timezone: str) -> Conversion:
    """Return the Prefect schedule with the instants of `expression`. `timezone`: the zone where it names none.

    Raises ValueError with the reason where systemd refuses the expression, or Prefect cannot say it; with the
    nearest that can be said, where there is one.
    """
    spec, _ = calendar_elapse.read(expression, timezone)
    zone = spec.zone or timezone
    if not calendar_elapse.fires(spec):
        raise ValueError("never fires: there is no such day")
    if rule := _rule(spec):
        return Conversion(expression, timezone, "rrule", {"rrule": rule, "timezone": zone})
    if beat := _beat(spec, zone):
        seconds, anchor = beat
        schedule = {"interval": float(seconds), "anchor_date": f"2020-01-01T00:00:{anchor:02}Z", "timezone": zone}
        return Conversion(expression, timezone, "interval", schedule)
    both = spec.day is not None and spec.weekdays is not None and not spec.from_end
    schedule = {"cron": _cron(spec), "timezone": zone, "day_or": not both}
    return Conversion(expression, timezone, "cron", schedule)


def _cron(spec: Expression) -> str:
    """Write the five fields of cron, and the seconds behind them where they are not zero."""
    seconds = _seconds(spec)
    fields = [_list(spec.numbers(name), name) for name in ("minute", "hour", "day", "month")]
    fields[2] = "*" if _last_weekdays(spec) else "L" if spec.from_end else fields[2]
    weekdays = spec.weekdays
    if _last_weekdays(spec):
        fields.append(",".join(f"L{day % 7}" for day in sorted(weekdays or ())))
    elif seconds == {0}:
        fields.append(_ranges(weekdays, 1, 7))
    else:
        # With six fields, Prefect's croniter takes 0 for a Sunday and refuses 7.
        fields.append(_ranges(frozenset(day % 7 for day in weekdays) if weekdays else None, 0, 6))
    return " ".join(fields if seconds == {0} else [*fields, _ranges(seconds, 0, 59)])


def _list(numbers: frozenset[int] | None, name: str) -> str:
    return _ranges(numbers, *BOUNDS[name])


def _ranges(numbers: frozenset[int] | None, lowest: int, highest: int) -> str:
    """Write a set as a cron field: `*`, ranges and single numbers."""
    if numbers is None or len(numbers) == highest - lowest + 1:
        return "*"
    parts, ordered = [], sorted(numbers)
    start = previous = ordered[0]
    for number in [*ordered[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        if number is not None:
            start = previous = number
    return ",".join(parts)


def _seconds(spec: Expression) -> frozenset[int]:
    return frozenset(number // MICRO for number in spec.numbers("second") or ())


def _last_weekdays(spec: Expression) -> bool:
    """Whether the days are certain weekdays in the last week of a month: `Mon *-*~07/1`."""
    return spec.from_end and spec.weekdays is not None and spec.numbers("day") == _LAST_WEEK


def _beat(spec: Expression, zone: str) -> tuple[int, int] | None:
    """Return the even distance and the first of the seconds, where the beat never stops and clocks never change.

    In a zone whose clocks are set back systemd pauses for that hour, and an interval does not.
    """
    seconds = sorted(_seconds(spec))
    always = not any((spec.weekdays, spec.year, spec.month, spec.day))
    always = always and all(len(spec.numbers(name) or range(high)) == high for name, high in _HANDS)
    if not always or zone not in {"UTC", "Etc/UTC"} or len(seconds) == 1 or 60 % len(seconds):
        return None
    distance = 60 // len(seconds)
    return (distance, seconds[0]) if seconds == list(range(seconds[0], 60, distance)) else None


_HANDS = (("hour", 24), ("minute", 60))


def _rule(spec: Expression) -> str | None:
    """Return a recurrence rule where cron cannot say the days, else None."""
    if spec.year is not None:
        return _of_years(spec)
    plain = not spec.from_end or _last_weekdays(spec) or (spec.numbers("day") == _LAST_DAY and spec.weekdays is None)
    if plain and not _skips_march(spec):
        return None
    _check_density(spec)
    return f"DTSTART:{RULE_YEAR}0101T000000\nRRULE:FREQ=MONTHLY;{_parts(spec)}"


def _skips_march(spec: Expression) -> bool:
    """Whether Prefect's croniter would leave out a day at the start of March (measured, 3.8.8).

    From the end of February it counts on to the 30th or 31st, which makes it the 2nd or 3rd of March.
    """
    days, months = spec.numbers("day"), spec.numbers("month")
    if days is None or spec.from_end or (months is not None and not {2, 3} <= months):
        return False
    beyond = min((day for day in days if day > 28), default=None)
    return (beyond == 30 and 1 in days) or (beyond == 31 and not days.isdisjoint({1, 2}))


def _of_years(spec: Expression) -> str:
    years = sorted(spec.numbers("year") or range(_FIRST_YEAR, _LAST_YEAR + 1))
    step = years[1] - years[0] if len(years) > 1 else 1
    # Nothing that is past needs to be counted.
    begin = next((year for year in years if year >= RULE_YEAR), years[0])
    listed = _instants(spec, years, begin)
    if len(listed) == 1:
        return f"DTSTART:{listed[0]:%Y%m%dT%H%M%S}\nRRULE:FREQ=DAILY;COUNT=1"
    if years == list(range(years[0], years[-1] + 1, step)):
        _check_density(spec, begin)
        until = "" if years[-1] + step > _LAST_YEAR else f";UNTIL={years[-1]}1231T235959"
        return f"DTSTART:{begin}0101T000000\nRRULE:FREQ=YEARLY;INTERVAL={step};{_parts(spec)}{until}"
    if len(listed) > _MOST_DATES:
        raise ValueError(
            "Prefect has no rule for years that lie unevenly apart; write a line for each run of years, like 2026..2028"
        )
    return f"DTSTART:{begin}0101T000000\nRDATE:" + ",".join(f"{moment:%Y%m%dT%H%M%S}" for moment in listed)


def _instants(spec: Expression, years: list[int], begin: int) -> list[datetime]:
    """Return the local times from the year `begin` on, but not many more than can be listed."""
    found: list[datetime] = []
    for day in calendar_elapse.dates(spec, date(begin, 1, 1), date(years[-1], 12, 31)):
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 (rules are in local time)
        found += [midnight + timedelta(seconds=second) for second in calendar_elapse.times(spec)[: _MOST_DATES + 1]]
        if len(found) > _MOST_DATES:
            break
    return found


def _parts(spec: Expression) -> str:
    """Write the parts of a rule that say the days and the times."""
    sign = "-" if spec.from_end else ""
    days = spec.numbers("day")
    parts = [f"BYMONTH={_joined(spec.numbers('month') or range(1, 13))}"]
    if days is not None or spec.weekdays is None:
        listed = sorted(days or range(1, 32), reverse=spec.from_end)
        parts.append("BYMONTHDAY=" + ",".join(f"{sign}{day}" for day in listed))
    if spec.weekdays is not None:
        parts.append("BYDAY=" + ",".join(DAYS[day - 1][:2].upper() for day in sorted(spec.weekdays)))
    hours, minutes = spec.numbers("hour") or range(24), spec.numbers("minute") or range(60)
    parts += [f"BYHOUR={_joined(hours)}", f"BYMINUTE={_joined(minutes)}", f"BYSECOND={_joined(_seconds(spec))}"]
    return ";".join(parts)


def _joined(numbers: Collection[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def _check_density(spec: Expression, begin: int = RULE_YEAR) -> None:
    """Refuse a rule that Prefect would count for seconds: the instants of its first ten years."""
    days = calendar_elapse.dates(spec, date(begin, 1, 1), date(begin + 9, 12, 31))
    counted = sum(1 for _ in days) * len(calendar_elapse.times(spec))
    if counted <= MOST_COUNTED:
        return
    nearest = (
        "write the days up to the 28th and those after it as two lines of a list"
        if not spec.from_end and spec.year is None
        else "the nearest has fewer times a day"
    )
    raise ValueError(
        f"Prefect can say these days only by a rule, which it counts from its start at each look: {counted} instants "
        f"in ten years are too many, more than {MOST_COUNTED}; {nearest}"
    )
