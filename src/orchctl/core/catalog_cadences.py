"""Whether a cron line or a recurrence rule can be read, by us and by Prefect, and ever fires."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from dateutil.rrule import rrule

_START = datetime(2020, 1, 1)  # noqa: DTZ001 (floating, as RFC 5545 has it)
# 40 years and more before 9999: so far apart two Fridays on a 29 February can be.
_LATE_YEAR = 9950
_LINE = re.compile(r"(?:DTSTART:[0-9]{8}(?:T[0-9]{6}Z?)?|(?:EXDATE|RDATE):[0-9TZ,]+|(?P<rule>(?:RRULE:)?FREQ=.*))\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,4}\Z")


def cron_problem(expression: str) -> str | None:
    """Return what is wrong with a five-field cron line, None where nothing is."""
    from cronsim import CronSim, CronSimError

    if len(expression.split()) != 5:
        return "not five fields: minute hour day-of-month month day-of-week"
    if re.search(r"LW|[0-9]L", expression.upper()):
        return "Prefect knows neither LW nor an L after a day"
    weekdays = expression.split()[4].split(",")
    if len({"#" in day for day in weekdays}) > 1:
        return "Prefect takes a day with # only among others with #"
    try:
        # An expression may be well-formed and never fire (30 February): the first instant shows it.
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        return str(error).lower() or "not a cron expression"
    except StopIteration:
        return "never fires"
    return None


def rrule_problem(text: str) -> str | None:
    """Return what is wrong with a recurrence rule of RFC 5545, None where nothing is.

    One rule is allowed, beside it DTSTART (no TZID: a schedule has a `timezone`), EXDATE and RDATE.
    """
    lines = [_LINE.match(line.upper()) for line in text.strip().split("\n")]
    rules = [line["rule"] for line in lines if line is not None and line["rule"]]
    if None in lines or len(rules) != 1:
        return "not one rule that begins with FREQ= (beside it only DTSTART, EXDATE and RDATE, each on its line)"
    parts = dict(part.partition("=")[::2] for part in rules[0].removeprefix("RRULE:").split(";"))
    return _part_problem(parts) or _reading_problem(rules[0], text)


def _part_problem(parts: dict[str, str]) -> str | None:
    """Refuse what dateutil would take and then count for ever, or only warn about."""
    if parts["FREQ"] == "SECONDLY":
        return "a cadence below a minute is said with every"
    for key in ("INTERVAL", "COUNT"):
        if not _NUMBER.match(parts.get(key, "1")):
            return f"{key} is not a number from 1 to 99999"
    if "COUNT" in parts and "UNTIL" in parts:
        return "COUNT and UNTIL exclude each other"
    if "BYSETPOS" in parts and parts["FREQ"] in {"HOURLY", "MINUTELY"}:
        return f"BYSETPOS means nothing in {parts['FREQ']}"
    return None


def _reading_problem(rule: str, text: str) -> str | None:
    from dateutil.rrule import rrulestr

    try:
        rrulestr(text, dtstart=_START)
        start = re.search(r"DTSTART:\S+", text.upper())
        whole = f"{start[0]}\n{rule}" if start else rule
        return None if _fires(cast("rrule", rrulestr(whole, dtstart=_START))) else "never fires"
    except ValueError as error:
        return "not a recurrence rule of RFC 5545" if "unpack" in str(error) else str(error)
    except (TypeError, KeyError, AttributeError, IndexError, OverflowError):
        return "not a recurrence rule of RFC 5545"


def _fires(rule: rrule) -> bool:
    """Whether the rule has an instant; by days, for minutes would take minutes to count."""
    from dateutil.rrule import DAILY

    start, until = rule._dtstart, rule._until  # type: ignore[attr-defined]
    if until is not None and until < start:
        return False
    # Where nothing matches, dateutil counts on to the year 9999. The calendar repeats itself every 400 years:
    # a start late in that time says the same after at most 449 years, not 8000.
    late = start.replace(year=start.year + (_LATE_YEAR - start.year) // 400 * 400)
    bounded = rule.replace(dtstart=late, until=None, count=None)
    if rule._freq > DAILY:  # type: ignore[attr-defined]
        bounded = bounded.replace(freq=DAILY, interval=1, byhour=0, byminute=0, bysecond=0)
    return next(iter(bounded), None) is not None
