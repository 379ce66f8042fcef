"""The five fields of a crontab line, as cron itself reads them, and how the catalog says the same.

Two crons are meant: Debian's (Vixie's) and cronie. Where they read a field differently, or take what is no field at
all (Debian's passes over whatever follows a number), it is refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ALL_DAYS = frozenset(range(1, 32))
_ALL_WEEKDAYS = frozenset(range(7))
_SYSTEMD_DAYS = ("", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PART = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>[0-9]+))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    # 0 and 7 are both Sunday.
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Fields:
    """What a line matches. `weekdays` count from 0 for Sunday.

    `either`: the day of month *or* the day of week is enough (both fields are restricted, and neither begins with
    `*`); else both must match.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False


def read(words: Sequence[str]) -> Fields:
    """Read the five fields. Raises ValueError with the field and the reason."""
    if len(words) != 5:
        raise ValueError("not five fields of time and a command")
    minutes, hours, days, months, week = (_numbers(word, field) for word, field in zip(words, _FIELDS, strict=True))
    weekdays = frozenset(day % 7 for day in week)
    either = not words[2].startswith("*") and not words[4].startswith("*")
    found = _normal(Fields(minutes, hours, days, months, weekdays, either))
    if not _possible(found):
        raise ValueError("it never fires: no such month has that day")
    return found


def _possible(fields: Fields) -> bool:
    """Whether any of its months has one of its days."""
    return any(min(fields.days) <= _LONGEST_MONTH[month - 1] for month in fields.months)


def _normal(fields: Fields) -> Fields:
    """Return the same, `either` only where both fields matter."""
    if not fields.either:
        return fields
    if fields.days == _ALL_DAYS or fields.weekdays == _ALL_WEEKDAYS:
        return replace(fields, days=_ALL_DAYS, weekdays=_ALL_WEEKDAYS, either=False)
    # Only the weekdays are left of a day that no such month has.
    return fields if _possible(fields) else replace(fields, days=_ALL_DAYS, either=False)


def plain(words: Sequence[str]) -> str:
    """Return the fields so that every reader of cron lines understands them as cron does; they must be `read`able.

    `5-5/10` is cron's 5; others take it for `5/10`.
    """
    return " ".join(
        ",".join(_plain_part(part, _FIELDS[at]) for part in word.split(",")) for at, word in enumerate(words)
    )


def _plain_part(part: str, field: _Field) -> str:
    match = _PART.match(part)
    assert match is not None
    if match["low"] is None:
        return part
    low = _number(match["low"], field)
    high = _number(match["high"], field) if match["high"] else low
    if low == high:
        return str(low) if match["high"] or match["low"].isdecimal() else part
    return part


def _numbers(word: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.match(part)
        if match is None:
            raise ValueError(f"{field.name} {part!r} {_why(part)}")
        if match["low"] is None:
            low, high = field.low, field.high
        else:
            low = _number(match["low"], field)
            high = _number(match["high"], field) if match["high"] else low
        step = int(match["step"] or 1)
        if match["step"] and match["low"] and not match["high"]:
            raise ValueError(f"{field.name} {part!r}: a step needs a range (or *) before it")
        if step == 0:
            raise ValueError(f"{field.name} {part!r}: a step of 0")
        if low > high:
            sunday = ", cronie's reads it up to Sunday" if field.names == _DAYS and high == 0 else ""
            raise ValueError(f"{field.name} {part!r} runs backwards: Debian's cron never fires it{sunday}")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(word: str, field: _Field) -> int:
    if word.lower() in field.names:
        return field.names.index(word.lower()) + (field.low if field.names is _MONTHS else 0)
    if not word.isdecimal():
        names = f" or a name like {field.names[1]}" if field.names else ""
        raise ValueError(f"{field.name} {word!r} is not a number{names}")
    if not field.low <= int(word) <= field.high:
        raise ValueError(f"{field.name} {word!r} is outside {field.low}-{field.high}")
    return int(word)


def _why(part: str) -> str:
    if "~" in part:
        return "is drawn at random by cron each time it reads the file: no schedule says that; choose a number"
    if re.search(r"[?LW#H]", part):
        return "is no field of cron's (?, L, W, # and H are other schedulers')"
    if not part:
        return "is empty"
    return "is not a number, a range like 1-5, or * with or without a step like */5"


def cadence(lines: Sequence[tuple[Fields, str]]) -> tuple[dict[str, Any], str | None]:
    """Return what a schedule's table says for several lines of one job, and what Prefect's cron gets wrong of it.

    Each line comes with its `plain` text. They must `fit`, each with each. The keys are `cron` or `on_calendar`.
    """
    if len(lines) == 1 and (found := _as_cron(*lines[0])) is not None:
        return {"cron": found}, _lost_day(lines[0][0])
    merged = merge([fields for fields, _ in lines])
    if len(merged) == 1 and (found := _as_cron(merged[0], None)) is not None:
        return {"cron": found}, _lost_day(merged[0])
    expressions = [_as_calendar(part) for fields in merged for part in _parts(fields)]
    return {"on_calendar": expressions[0] if len(expressions) == 1 else expressions}, None


def _as_cron(fields: Fields, text: str | None) -> str | None:
    """Return a line that Prefect's cron reads alike, None where there is none. `text`: how it was written.

    Prefect's takes a restricted day of month and of week for "either", whatever they begin with.
    """
    both = fields.days != _ALL_DAYS and fields.weekdays != _ALL_WEEKDAYS
    if not fields.either and (both or _loses_march(fields)):
        return None
    words = text.split() if text else [_list(numbers, "-") for numbers in _sets(fields).values()]
    # Whether a field is a `*` goes by what it holds, not by how it is written: that is to be seen.
    full = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    said = [
        "*" if len(numbers) == high - low + 1 else word
        for word, numbers, (low, high) in zip(words, _sets(fields).values(), full, strict=True)
    ]
    return " ".join(said)


def merge(lines: Sequence[Fields]) -> list[Fields]:
    """Return fewer lines with the same instants: those that differ in one field become one."""
    found = list(dict.fromkeys(lines))
    while (pair := _joinable(found)) is not None:
        one, other, joined = pair
        found = [joined if each == one else each for each in found if each != other]
    return found


def _joinable(lines: Sequence[Fields]) -> tuple[Fields, Fields, Fields] | None:
    for at, one in enumerate(lines):
        for other in lines[at + 1 :]:
            joined = _join(one, other)
            if joined is not None:
                return one, other, joined
    return None


def _join(one: Fields, other: Fields) -> Fields | None:
    left, right = _sets(one), _sets(other)
    if one.either != other.either or sum(left[key] != right[key] for key in left) > 1:
        return None
    return _normal(Fields(**{key: numbers | right[key] for key, numbers in left.items()}, either=one.either))


def _sets(fields: Fields) -> dict[str, frozenset[int]]:
    return {
        "minutes": fields.minutes,
        "hours": fields.hours,
        "days": fields.days,
        "months": fields.months,
        "weekdays": fields.weekdays,
    }


def fit(one: Fields, other: Fields) -> bool:
    """Whether one schedule can hold both, as one line or as two that no instant belongs to."""
    return _join(one, other) is not None or not (one.either or other.either or overlap(one, other))


def overlap(one: Fields, other: Fields) -> bool:
    """Whether an instant can belong to both: cron then starts both."""
    left, right = _sets(one), _sets(other)
    days = () if one.either or other.either else ("days", "weekdays")
    return all(left[key] & right[key] for key in ("minutes", "hours", "months", *days))


def _loses_march(fields: Fields) -> bool:
    """Whether Prefect's cron passes over a day early in March: it looks for 30 February and lands behind it."""
    if not {2, 3} <= fields.months or len(fields.days) == 31:
        return False
    late = sorted(day for day in fields.days if day > 28)
    lost: set[int] = set()
    for last in (28, 29):
        after = [day for day in late if day > last]
        if after and last not in fields.days:
            lost |= set(range(1, after[0] - last))
    return bool(lost & fields.days)


def _lost_day(fields: Fields) -> str | None:
    if fields.either and _loses_march(fields):
        return "Prefect's cron passes over the first days of March in this expression"
    return None


def _parts(fields: Fields) -> Iterator[Fields]:
    """Yield the fields, the days after the 28th apart where Prefect's cron would lose a day over them."""
    if not _loses_march(fields):
        yield fields
        return
    late = frozenset(day for day in fields.days if day > 28)
    yield replace(fields, days=fields.days - late)
    yield replace(fields, days=late)


def _as_calendar(fields: Fields) -> str:
    """Return systemd's expression, where day of month and day of week must both match, as here."""
    week = [(day - 1) % 7 + 1 for day in fields.weekdays]
    weekdays = "" if len(week) == 7 else f"{_list(week, '..', _SYSTEMD_DAYS)} "
    days = "*" if fields.days == _ALL_DAYS else _list(fields.days, "..", width=2)
    months = "*" if len(fields.months) == 12 else _list(fields.months, "..", width=2)
    hours = "*" if len(fields.hours) == 24 else _list(fields.hours, "..", width=2)
    minutes = "*" if len(fields.minutes) == 60 else _list(fields.minutes, "..", width=2)
    return f"{weekdays}*-{months}-{days} {hours}:{minutes}:00"


def _list(numbers: Iterable[int], to: str, names: Sequence[str] = (), width: int = 0) -> str:
    """Write a set of numbers: `1-5,9`; with `names` by name."""
    said, ordered = [], sorted(numbers)
    while ordered:
        low = high = ordered.pop(0)
        while ordered and ordered[0] == high + 1:
            high = ordered.pop(0)
        ends = [names[number] if names else f"{number:0{width}d}" for number in (low, high)]
        said.append(ends[0] if low == high else ",".join(ends) if high == low + 1 else to.join(ends))
    return ",".join(said)
