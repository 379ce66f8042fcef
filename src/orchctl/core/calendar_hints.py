"""Why systemd refuses a calendar expression, and what was probably meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchctl.core.calendar_parse import Element

_NOT = "not a calendar expression of systemd"
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)(?:day|sday|nesday|rsday|urday)?\b", re.IGNORECASE)
# Files of the time zone database that are no zones, and trees that hold each zone again.
_NO_ZONES = ("localtime", "posixrules", "Factory")
_OTHER_TREES = ("posix/", "right/")
# These are names of the time zone database as well as abbreviations.
_ABBREVIATIONS = frozenset({"CET", "EET", "EST", "HST", "MET", "MST", "WET"})
_WORDS = {f"@{word}": word for word in ("hourly", "daily", "weekly", "monthly", "yearly", "annually")} | {
    "secondly": "*:*:*",
    "midnight": "daily",
    "noon": "12:00",
    "weekdays": "Mon..Fri",
    "weekends": "Sat,Sun",
}


def abbreviation(zone: str, *, local: str | None = None) -> str:
    """Say why the zone of an expression cannot be taken: it is an abbreviation (of the zone `local`)."""
    whose = f" of {local}" if local else ""
    return (
        f"{zone} is an abbreviation{whose}: systemd then fires only in that half of the year, and elsewhere takes "
        "a zone of that name; name a place like Europe/Berlin, or UTC"
    )


def zone_problem(word: str) -> str | None:
    """Return why `word` at the end of an expression is no zone, None where it is one."""
    import zoneinfo

    if word in _ABBREVIATIONS:
        return abbreviation(word)
    if _DAY.match(word):
        return f"{_NOT}: the day of the week comes first"
    try:
        zoneinfo.ZoneInfo(word)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return _no_zone(word)
    if word in _NO_ZONES or word.startswith(_OTHER_TREES):
        return f"{word} is not a name of the time zone database"
    return None


def _no_zone(word: str) -> str:
    import zoneinfo

    from orchctl.core.names import nearest

    if re.fullmatch(r"[A-Z]{3,4}", word):
        return abbreviation(word)
    zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    near = nearest(word.lower(), zones) if "/" in word or word.lower() in zones else None
    if near is None:
        return f"{_NOT}: {word} is not a time zone"
    return f"{word} is not a time zone; the nearest is {zones[near]}"


def not_an_expression(text: str) -> str:
    """Say why a text has not the form of an expression."""
    if not text.isascii():
        return f"{_NOT}: only ASCII is"
    if not text.strip():
        return f"{_NOT}: it is empty"
    return f"{_NOT}{_form(text)}"


def _form(text: str) -> str:
    word = text.strip().lower()
    if "#" in text:
        return ": a value has no comment behind it"
    if text != text.strip():
        return ": a blank stands before or behind it"
    if meant := _WORDS.get(word):
        return f"; write {meant}"
    return next((reason for form, reason in _FORMS if re.search(form, text)), "")


_FORMS = (
    (r"\A[-0-9*/,A-Za-z?]+(?: [-0-9*/,A-Za-z?]+){4,5}\Z", ": that is a cron line, say it with cron"),
    (r"\A[0-9]+ ?(?:us|ms|s|sec|m|min|h|hr|d|days?|w|weeks?)\Z", ': that is a time span, say it with every = "…"'),
    (r"\A[0-9*-]+T[0-9:]+Z?\Z", ": a blank stands between date and time"),
    (r"  [A-Za-z/_]+\Z", ": two blanks before the zone"),
    (r"[0-9]:[0-9]+(?:,|-)[0-9]+:[0-9]", ": several times are several lines of a list"),
    (r"(?:[+-][0-9]{2}:?[0-9]{2}|Z)\Z", ": a zone has a name, like UTC or Europe/Berlin"),
)
"""Other ways to write times, and what to do about each."""


def not_an_element(text: str, name: str) -> str:
    """Say why a part of a field cannot be read."""
    if step := re.fullmatch(r"\*/([0-9]+)", text):
        first = "01" if name in {"month", "day"} else "00"
        return f"{text!r} in the {name} is cron's; systemd writes {first}/{step[1]}"
    return f"{text!r} in the {name} is not a number, a range like 8..23 or a repetition like 0/5"


def wrapped(text: str, first: int, last: int) -> str:
    """Say that a range of weekdays wraps, and how it can be written."""
    days = [*range(1, last + 1), *range(first, 8)]
    write = ",".join(_DAY_NAMES[day - 1] for day in days) if len(days) < len(_DAY_NAMES) else "it without weekdays"
    return f"{text!r} is not a range of weekdays: a week starts on Monday and does not wrap; write {write}"


def outside(said: str, name: str, lowest: int, highest: int, *, from_end: bool, place: int) -> str:
    """Say that an element lies outside its field."""
    if from_end:
        nth = f" as element {place + 1} of a list" if place else ""
        return f"{said} in the day is outside {lowest}..{highest}{nth}, counted from the end of the month"
    return f"{said} in the {name} is outside {lowest}..{highest if name != 'second' else 59}"


def shown(element: Element, unit: int) -> str:
    """Write an element as systemd does."""

    def number(value: int) -> str:
        whole, part = divmod(value, unit)
        return f"{whole:02}" + (f".{part:06}" if part else "")

    stop = "" if element.stop is None else f"..{number(element.stop)}"
    step = f"/{number(element.step)}" if element.step and (element.stop is None or element.step != unit) else ""
    return f"{number(element.start)}{stop}{step}"
