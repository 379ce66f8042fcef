"""The instants of a cron line, counted here: what conversions are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim

from orchctl.core.calendar import Cron


def instants(cron: Cron, base: datetime, count: int) -> list[int]:
    """Return the first `count` instants after `base` (UTC), in epoch seconds, in the zone of the cron line or UTC.

    cronsim counts where it can: it knows neither `day_or` nor what systemd does when clocks change.
    """
    zone = ZoneInfo(cron.timezone or "UTC")
    if cron.day_or and zone.key == "UTC":
        return [int(moment.timestamp()) for moment in islice(CronSim(cron.expression, base), count)]
    return list(islice(_by_days(cron, base, zone), count))


def in_zone(cron: Cron, zone: ZoneInfo, base: datetime, count: int) -> list[int]:
    """Return the same in another zone, with systemd's rule for the days on which clocks change."""
    return list(islice(_by_days(cron, base, zone), count))


def _by_days(cron: Cron, base: datetime, zone: ZoneInfo) -> Iterator[int]:
    """Every local time once: one that does not exist is left out, of one that is twice the first is taken."""
    minutes, hours, days, months, weekdays = cron.expression.split()
    sets = _set(minutes, 0, 59), _set(hours, 0, 23)
    midnight = base.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    for offset in range(90 * 366):
        day = midnight + timedelta(days=offset)
        of_month = day.day in _set(days, 1, 31)
        of_week = day.isoweekday() in {number or 7 for number in _set(weekdays, 0, 7)}
        if "*" in {days, weekdays} or not cron.day_or:
            right = of_month and of_week
        else:
            right = of_month or of_week
        if right and day.month in _set(months, 1, 12):
            yield from _of_day(day, sets, base, zone)


def _of_day(day: datetime, sets: tuple[set[int], set[int]], base: datetime, zone: ZoneInfo) -> Iterator[int]:
    for hour in sorted(sets[1]):
        for minute in sorted(sets[0]):
            local = day.replace(hour=hour, minute=minute, tzinfo=zone)
            moment = local.astimezone(UTC)
            if moment > base and moment.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
                yield int(moment.timestamp())


def _set(text: str, low: int, high: int) -> set[int]:
    if text == "*":
        return set(range(low, high + 1))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
