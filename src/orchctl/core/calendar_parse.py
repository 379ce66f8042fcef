"""The grammar of systemd's calendar expressions: text to sets of numbers, exactly where systemd says so.

Sources: systemd.time(7), "Calendar events"; what it leaves open was measured with `systemd-analyze calendar` of
systemd 252. Years run from 1970 to 2199, weekdays from 1 (Monday) to 7, seconds are kept in microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchctl.core import calendar_hints as hints

MICRO = 1_000_000
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HALF_YEARLY = "*-01,07-01 00:00:00"
_YEARLY = "*-01-01 00:00:00"
_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": _HALF_YEARLY,
    "semi-annually": _HALF_YEARLY,
    "biannually": _HALF_YEARLY,
    "bi-annually": _HALF_YEARLY,
    "yearly": _YEARLY,
    "annually": _YEARLY,
    "anually": _YEARLY,
}
BOUNDS = {
    "year": (1970, 2199),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 60 * MICRO - 1),
}
_NUMBER = r"[0-9]+"
_ELEMENT = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER}))?(?:/({_NUMBER}))?\Z")
_DECIMAL = r"[0-9]+(?:\.(?!\.)[0-9]+)?"
_DECIMAL_ELEMENT = re.compile(rf"({_DECIMAL})(?:\.\.({_DECIMAL}))?(?:/({_DECIMAL}))?\Z")
_DATE = re.compile(r"(?:(?P<year>[0-9*,./]+)-)?(?P<month>[0-9*,./]+)(?P<sep>[-~])(?P<day>[0-9*,./]+)(?: +|\Z)")
_TIME = re.compile(r"(?P<hour>[0-9*,./]+):(?P<minute>[0-9*,./]+)(?::(?P<second>[0-9*,./]+))?\Z")
_LONGEST_LIST = 240
# systemd counts in the C type int.
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a field: `start`, `start..stop`, `start/step` or `start..stop/step`; step 0: `start` alone.

    Without `stop` (None) a repetition goes on to the field's end. Counted from the month's end (`~`), `start` is the
    earlier day, with the larger number.
    """

    start: int
    stop: int | None = None
    step: int = 0

    def numbers(self, highest: int, *, from_end: bool = False) -> range:
        """Return what the element matches, at most `highest` (1 is the end where days are counted from it)."""
        if not self.step:
            return range(self.start, self.start + 1)
        if from_end:
            first, last = (self.start, 1) if self.stop is None else (self.stop, self.start)
            return range(first, last - 1, -self.step)
        return range(self.start, (highest if self.stop is None else self.stop) + 1, self.step)


Field = tuple[Element, ...] | None
"""The elements of a field, sorted; None for `*`."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A calendar expression that systemd accepts. `weekdays` is None for all of them, `zone` where none is named."""

    weekdays: frozenset[int] | None = None
    year: Field = None
    month: Field = None
    day: Field = None
    from_end: bool = False
    hour: Field = (Element(0),)
    minute: Field = (Element(0),)
    second: Field = (Element(0),)
    zone: str | None = None

    def numbers(self, name: str) -> frozenset[int] | None:
        """Return the numbers that the field `name` (`year` … `second`) matches, None for all of them."""
        field: Field = getattr(self, name)
        if field is None:
            return None
        from_end = self.from_end and name == "day"
        return frozenset(n for element in field for n in element.numbers(BOUNDS[name][1], from_end=from_end))

    def listed(self) -> Expression:
        """Return the same without repetitions: each number for itself."""
        found: dict[str, Any] = {
            name: None if numbers is None else tuple(Element(number) for number in sorted(numbers))
            for name in BOUNDS
            for numbers in [self.numbers(name)]
        }
        return replace(self, **found)

    def any_day(self) -> Expression:
        """Return the same times on every day."""
        return replace(self, weekdays=None, year=None, month=None, day=None, from_end=False)


def parse(text: str) -> Expression:
    """Read an expression. Raises ValueError with the reason, and the nearest right form where it is obvious."""
    if not text.isascii() or not text.isprintable() or text[:1] in {"", " "} or "#" in text:
        raise ValueError(hints.not_an_expression(text))
    rest, zone = _split_zone(text)
    rest = _SHORTHANDS.get(rest.lower(), rest)
    weekdays, rest = _weekdays(rest)
    if rest.startswith("@"):
        return _epoch(rest, weekdays)
    date = _DATE.match(rest)
    rest = rest[date.end() :] if date else rest
    time = _TIME.match(rest)
    if (time is None and rest) or (date is None and time is None and weekdays is None):
        raise ValueError(hints.not_an_expression(text))
    from_end = date is not None and date["sep"] == "~" and date["day"] != "*"
    return Expression(
        weekdays=weekdays if weekdays and len(weekdays) < len(DAYS) else None,
        year=_field(date["year"] or "*", "year") if date else None,
        month=_field(date["month"], "month") if date else None,
        day=_field(date["day"], "day", from_end=from_end) if date else None,
        from_end=from_end,
        hour=_field(time["hour"] if time else "0", "hour"),
        minute=_field(time["minute"] if time else "0", "minute"),
        second=_field((time["second"] if time else None) or "0", "second"),
        zone=zone,
    )


def _split_zone(text: str) -> tuple[str, str | None]:
    """Take the zone off the end, with the one blank before it."""
    head, blank, word = text.rpartition(" ")
    if not blank or not word[:1].isalpha():
        return text, None
    if word.upper() == "UTC":
        return head, "UTC"
    if problem := hints.zone_problem(word):
        raise ValueError(problem)
    return head, word


def _weekdays(text: str) -> tuple[frozenset[int] | None, str]:
    """Take the weekdays off the front. A comma may end them, several blanks may follow."""
    if not text[:1].isalpha():
        return None, text
    word, _, rest = text.partition(" ")
    found: set[int] = set()
    for part in word.removesuffix(",").split(","):
        ends = [_weekday(name, text) for name in re.split(r"\.\.|-", part)]
        if len(ends) > 2:
            raise ValueError(hints.not_an_expression(text))
        if ends[0] > ends[-1]:
            raise ValueError(hints.wrapped(part, ends[0], ends[-1]))
        found.update(range(ends[0], ends[-1] + 1))
    return frozenset(found), rest.lstrip(" ")


def _weekday(name: str, text: str) -> int:
    for names in (DAYS, _LONG_DAYS):
        if name.title() in names:
            return names.index(name.title()) + 1
    raise ValueError(hints.not_an_expression(text))


def _epoch(text: str, weekdays: frozenset[int] | None) -> Expression:
    """Read `@SECONDS`: one instant, in UTC whatever zone is named."""
    found = re.fullmatch(r"@ *\+?([0-9]+)", text)
    last = int(datetime(BOUNDS["year"][1] + 1, 1, 1, tzinfo=UTC).timestamp())
    if found is None and (hint := hints.not_an_expression(text)).endswith("ly"):
        raise ValueError(hint)
    if found is None or len(found[1]) > 20 or int(found[1]) >= last:
        raise ValueError(f"{text} is not a whole number of seconds since 1970, before the year 2200")
    at = datetime.fromtimestamp(int(found[1]), UTC)
    year, month, day, hour, minute, second = (
        (Element(n),) for n in (at.year, at.month, at.day, at.hour, at.minute, at.second * MICRO)
    )
    return Expression(weekdays, year, month, day, hour=hour, minute=minute, second=second, zone="UTC")


def _field(text: str, name: str, *, from_end: bool = False) -> Field:
    if text == "*":
        return (Element(0, None, MICRO),) if name == "second" else None
    parts = text.split(",")
    if len(parts) > _LONGEST_LIST:
        raise ValueError(f"a list has at most {_LONGEST_LIST} elements")
    elements = sorted({_element(part, name) for part in parts}, key=_order)
    for place, element in enumerate(elements):
        _check(element, name, from_end=from_end, place=place)
    return tuple(elements)


def _order(element: Element) -> tuple[int, int, int]:
    return element.start, -1 if element.stop is None else element.stop, element.step


def _element(text: str, name: str) -> Element:
    found = (_DECIMAL_ELEMENT if name == "second" else _ELEMENT).match(text)
    if found is None:
        raise ValueError(hints.not_an_element(text, name))
    if any(len(number or "") > 30 for number in found.groups()):
        raise ValueError(f"{text[:30]}… in the {name} is too large")
    start = _number(found[1], name)
    stop = None if found[2] is None else _number(found[2], name)
    step = None if found[3] is None else _number(found[3], "step of a year" if name == "year" else name)
    unit = MICRO if name == "second" else 1
    if step == 0:
        raise ValueError(f"{text!r} in the {name} repeats by nothing")
    if max(start, stop or 0, step or 0) > _LARGEST:
        raise ValueError(f"{text!r} in the {name} is too large")
    if step is None and stop is not None and name == "second" and start + unit > stop:
        raise ValueError(f"{text!r} in the second is no range of a second or more")
    if stop is None:
        return Element(start, None, step or 0)
    # systemd shortens a range to a multiple of its step, and forgets a step that does not fit in.
    step = step or unit
    whole = stop - (stop - start) % step if stop > start else stop
    return Element(start) if whole == start else Element(start, whole, step)


def _number(text: str, name: str) -> int:
    if name == "second":
        whole, _, decimals = text.partition(".")
        # Six decimals count, and the seventh rounds.
        digits = decimals[:7].ljust(7, "0")
        return int(whole) * MICRO + (int(digits) + 5) // 10
    number = int(text)
    if name == "year" and number < 100:
        return number + (2000 if number < 70 else 1900)
    return number


def _check(element: Element, name: str, *, from_end: bool, place: int) -> None:
    """Refuse what lies outside the field, or repeats only there."""
    lowest, highest = BOUNDS[name]
    # Days from the end: 28 at most. systemd takes off three more for each further element of a list.
    highest -= 3 * (place + 1) if from_end else 0
    unit = MICRO if name == "second" else 1
    said = hints.shown(element, unit)
    ends = (element.start, element.start if element.stop is None else element.stop)
    if not all(lowest <= end <= highest for end in ends) or ends[0] > ends[1]:
        raise ValueError(hints.outside(said, name, lowest, highest, from_end=from_end, place=place))
    if not element.step or element.stop is not None:
        return
    beyond = element.start - element.step < lowest if from_end else element.start + element.step > highest
    if beyond:
        raise ValueError(f"{said} in the {name} never repeats within {lowest}..{highest // unit}")
