"""systemd's calendar expressions, as far as one five-field cron line can say the same.

Grammar: systemd.time(7), "Calendar events". Fields become sets of numbers, the sets become cron lists. What
cron cannot say (seconds, years, days counted from the month's end) is refused with the reason, never rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "biannually": "*-01,07-01 00:00:00",
    "bi-annually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "anually": "*-01-01 00:00:00",
}
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKDAYS = re.compile(r"[A-Za-z]{3,9}(?:(?:\.\.|-|,)[A-Za-z]{3,9})*,?\Z")
_DATE = re.compile(r"(?:(?P<year>[0-9*,./]+)-)?(?P<month>[0-9*,./]+)(?P<sep>[-~])(?P<day>[0-9*,./]+)\Z")
_TIME = re.compile(r"(?P<hour>[0-9*,./]+):(?P<minute>[0-9*,./]+)(?::(?P<second>[0-9*,./]+))?\Z")
_ELEMENT = re.compile(r"(?P<low>[0-9]+)(?:\.\.(?P<high>[0-9]+))?(?:/(?P<step>[0-9]+))?\Z")


@dataclass(frozen=True, slots=True)
class Cron:
    """A five-field cron line. `day_or` False: day of month *and* day of week must match (systemd's meaning).

    `timezone` is the zone named in the expression, None where it names none.
    """

    expression: str
    day_or: bool
    timezone: str | None


def to_cron(expression: str) -> Cron:
    """Return the cron line with the same instants as `expression`. Raises ValueError with the reason."""
    if expression.startswith("@"):
        raise ValueError("a single instant (@) cannot be said in cron")
    # Blanks at the ends belong to the unit file, not to the expression: systemd refuses them too.
    words = expression.split(" ") if expression.isascii() and expression == expression.strip() else []
    if len(words) > 1 and words[-2] == "" and _is_zone(words[-1]):
        raise ValueError("not a calendar expression of systemd: two blanks before the zone")
    words = [word for word in words if word]
    if words and words[0].lower() in _SHORTHANDS:
        words = _SHORTHANDS[words[0].lower()].split() + words[1:]
    weekdays = _weekdays(words.pop(0)) if words and _WEEKDAYS.match(words[0]) and not _is_zone(words[0]) else None
    date = _DATE.match(words[0]) if words else None
    if date is not None:
        words.pop(0)
    time = _TIME.match(words[0]) if words else None
    if time is not None:
        words.pop(0)
    if len(words) > 1 or (date is None and time is None and weekdays is None) or (words and not _is_zone(words[0])):
        raise ValueError(_why_not(words))
    months, days = _date_fields(date)
    hours, minutes = _time_fields(time)
    both = days is not None and weekdays is not None
    fields = (
        _cron(minutes, 0, 59),
        _cron(hours, 0, 23),
        _cron(days, 1, 31),
        _cron(months, 1, 12),
        _cron(weekdays, 1, 7),
    )
    zone = words[0] if words else None
    return Cron(" ".join(fields), day_or=not both, timezone="UTC" if zone and zone.upper() == "UTC" else zone)


def _is_zone(word: str) -> bool:
    return word.upper() == "UTC" or re.match(r"[A-Za-z][A-Za-z0-9_+-]*/[A-Za-z]", word) is not None


def _why_not(words: list[str]) -> str:
    if len(words) == 1 and re.fullmatch(r"[A-Z]{3,4}|[A-Z]{3}[0-9][A-Z]{3}", words[0]):
        return f"the zone {words[0]} is an abbreviation; name it like Europe/Berlin, or UTC"
    return "not a calendar expression of systemd"


def _date_fields(date: re.Match[str] | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    if date is None:
        return None, None
    if date["year"] not in {None, "*"}:
        raise ValueError("a year cannot be said in cron")
    if date["sep"] == "~":
        raise ValueError("a day counted from the end of the month (~) cannot be said in five-field cron; use an rrule")
    months, days = _numbers(date["month"], 1, 12), _numbers(date["day"], 1, 31)
    if days is not None and all(min(days) > _LONGEST_MONTH[month - 1] for month in months or range(1, 13)):
        raise ValueError("never fires: no such month has that day")
    return months, days


def _time_fields(time: re.Match[str] | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    if time is None:
        return frozenset({0}), frozenset({0})
    second = time["second"] or "00"
    if not re.fullmatch(r"0+(,0+)*", second):
        raise ValueError(
            f"seconds ({second}) cannot be said in cron; the nearest is {time['hour']}:{time['minute']}:00, "
            'or use every = "…" for a cadence below a minute'
        )
    return _numbers(time["hour"], 0, 23), _numbers(time["minute"], 0, 59)


def _numbers(text: str, lowest: int, highest: int) -> frozenset[int] | None:
    """Return the numbers a field matches; None for all of them."""
    if text == "*":
        return None
    found: set[int] = set()
    for part in text.split(","):
        element = _ELEMENT.match(part)
        if element is None:
            raise ValueError(f"{part!r} is not a number, a range like 8..23 or a repetition like 0/5")
        low, step = int(element["low"]), int(element["step"] or 0)
        high = int(element["high"]) if element["high"] else (highest if element["step"] else low)
        if not lowest <= low <= high <= highest:
            raise ValueError(f"{part!r} is outside {lowest}..{highest}")
        if element["step"] and (step == 0 or (not element["high"] and low + step > highest)):
            raise ValueError(f"{part!r} never repeats within {lowest}..{highest}")
        found.update(range(low, high + 1, step or 1))
    return frozenset(found)


def _weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        ends = [_weekday(name) for name in re.split(r"\.\.|-", part)]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise ValueError(f"{part!r} is not a range of weekdays (a week starts on Monday and does not wrap)")
        found.update(range(ends[0], ends[-1] + 1))
    return frozenset(found)


def _weekday(name: str) -> int:
    for names in (_DAYS, _LONG_DAYS):
        if name.lower() in names:
            return names.index(name.lower()) + 1
    raise ValueError(f"{name!r} is not a day of the week")


def _cron(numbers: frozenset[int] | None, lowest: int, highest: int) -> str:
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


def instants(expression: str, timezone: str, start: datetime, end: datetime) -> list[int]:
    """Return systemd's own instants (epoch seconds) from `start` up to, and without, `end`, sorted.

    `timezone` is the zone where the expression names none. Raises ValueError where it is not one of systemd's.
    """
    from oncalendar import OnCalendarError, TzIterator

    try:
        found = []
        for moment in TzIterator(expression, datetime.fromtimestamp(start.timestamp() - 1, ZoneInfo(timezone))):
            if moment.timestamp() >= end.timestamp():
                break
            found.append(int(moment.timestamp()))
        return found
    except OnCalendarError as error:
        raise ValueError(str(error)) from error
