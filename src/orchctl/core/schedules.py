"""Schedules: a named cadence with a time zone, and how Prefect writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchctl.core import calendar, durations
from orchctl.core.catalog import Schedule

# Prefect counts an interval from its anchor, and a rule without DTSTART from "now" or from 2020: a fixed one
# of our own makes both the same on every machine and at every sync.
EPOCH = "2020-01-01T00:00:00Z"
_RRULE_START = "DTSTART:20200101T000000"


def to_prefect(schedule: Schedule) -> dict[str, Any]:
    """Return the JSON of the Prefect schedule with the same instants.

    Raises ValueError where an `on_calendar` expression cannot be said; a loaded catalog has been asked before.
    """
    if schedule.cron is not None:
        return {"cron": schedule.cron, "timezone": schedule.timezone, "day_or": True}
    if schedule.every is not None:
        anchor = schedule.anchor or EPOCH
        return {"interval": float(schedule.every), "anchor_date": anchor, "timezone": schedule.timezone}
    if schedule.rrule is not None:
        return {"rrule": with_start(schedule.rrule), "timezone": schedule.timezone}
    return dict(calendar.convert(schedule.on_calendar[0], schedule.timezone).schedule)


def with_start(rrule: str) -> str:
    """Return `rrule` with a DTSTART line, as Prefect wants it: two lines, the rule's with its name."""
    rule = rrule.strip()
    # RFC 5545 reads names in any case.
    if "RRULE:" not in rule.upper() and "\n" not in rule:
        rule = f"RRULE:{rule}"
    return rule if "DTSTART" in rule.upper() else f"{_RRULE_START}\n{rule}"


def canonical(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Prefect schedule's JSON with only what says when it fires, written in one way.

    Prefect's own objects cannot be compared (`Cron("0 3 * * *") == Cron("0 3 * * *")` is False: the anchor is
    "now"), and its answers spell the same instant in several ways.
    """
    if "cron" in schedule:
        return {
            "cron": schedule["cron"],
            "timezone": schedule.get("timezone") or "UTC",
            "day_or": schedule.get("day_or", True),
        }
    if "interval" in schedule:
        return {
            "interval": float(schedule["interval"]),
            "anchor_date": _utc(str(schedule.get("anchor_date"))),
            "timezone": schedule.get("timezone") or "UTC",
        }
    return {"rrule": schedule.get("rrule"), "timezone": schedule.get("timezone") or "UTC"}


def words(schedule: Mapping[str, Any]) -> str:
    """Say a Prefect schedule in one line: `cron */5 8-23 * * * America/New_York`."""
    zone = schedule.get("timezone") or "UTC"
    if "cron" in schedule:
        both = "" if schedule.get("day_or", True) else " (day of month and of week)"
        return f"cron {schedule['cron']} {zone}{both}"
    if "interval" in schedule:
        return f"every {durations.canonical(int(schedule['interval']))} from {schedule['anchor_date']} {zone}"
    return f"rrule {str(schedule.get('rrule')).replace(chr(10), ' ')} {zone}"


def _utc(instant: str) -> str:
    try:
        moment = datetime.fromisoformat(instant)
    except ValueError:
        return instant
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
