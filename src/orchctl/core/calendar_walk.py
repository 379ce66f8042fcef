"""systemd's own way from one elapse to the next, with its defects.

Only repetitions that run past the end of their field need it (`0/35` minutes, `6/12` hours, `1/7` days): there
systemd 252 to 262 lose instants, or give up with "Infinite loop in calendar calculation". Measured with
`systemd-analyze calendar` of systemd 252; systemd 257.13 has repaired what is lost on 1 January.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Final

from orchctl.core.calendar_parse import BOUNDS, MICRO, Element, Expression, Field

# systemd gives up after as many attempts.
_ATTEMPTS = 1000
_LAST_YEAR: Final = BOUNDS["year"][1]
_NAMES: Final = ("year", "month", "day", "hour", "minute")
_LOWEST: Final = (0, 1, 1, 0, 0, 0)
# glibc looks for the other state of summer time in steps of about a week.
_STRIDE = timedelta(seconds=601_200)


class Stall(Exception):
    """systemd finds no next elapse although there is one."""


@dataclass(slots=True)
class _Time:
    """A broken-down local time. Fields may lie outside their range. `summer` as tm_isdst: None is not known."""

    fields: list[int]
    summer: bool | None

    def reset_below(self, index: int) -> None:
        """Set what is smaller than field `index` to its lowest."""
        self.fields[index + 1 :] = _LOWEST[index + 1 :]


def runs_over(spec: Expression) -> bool:
    """Whether a repetition of `spec` runs past the end of its field, to something else than the field's start."""
    checked = ((spec.month, 13), (spec.hour, 24), (spec.minute, 60), (spec.second, 60 * MICRO))
    if any(_over(element, end) for field, end in checked for element in field or ()):
        return True
    return any(element.step > 1 and element.stop is None for element in spec.day or ())


def _over(element: Element, end: int) -> bool:
    return bool(element.step) and element.stop is None and (end - element.start) % element.step != 0


def after(spec: Expression, zone: tzinfo, instant: int) -> int | None:
    """Return the elapse after `instant` (whole epoch seconds), None where there is none.

    Raises Stall where systemd answers "Infinite loop in calendar calculation".
    """
    local = datetime.fromtimestamp(instant + 1, UTC).astimezone(zone)
    time = _Time([local.year, local.month, local.day, local.hour, local.minute, local.second], summer=_summer(local))
    for _ in range(_ATTEMPTS):
        time = _normal(time, zone)
        time.summer = None
        if time.fields[0] > _LAST_YEAR:
            return None
        index = _advance(spec, time, zone)
        if index is None:
            return int(_instant(time, zone).timestamp())
        if index < 0:
            return None
    raise Stall


def _advance(spec: Expression, time: _Time, zone: tzinfo) -> int | None:
    """Move each field to what `spec` wants; return None when all are there, -1 when there is nothing more.

    Otherwise the time has moved, and all is to be looked at again.
    """
    for index, name in enumerate((*_NAMES, "second")):
        wanted = _next(spec, name, time)
        if wanted is None and index == 0:
            return -1
        if wanted == time.fields[index] and (name != "day" or _right_weekday(spec, time)):
            continue
        if wanted is not None and wanted != time.fields[index]:
            time.fields[index] = wanted
            time.reset_below(index)
        within = None if wanted is None else _within(time, zone)
        if within is None:
            time.fields[index - 1 if index else 0] += 1
            time.reset_below(index - 1 if index else 0)
            return index
        if not within:
            return index
        if name == "day" and not _right_weekday(spec, time):
            time.fields[2] += 1
            time.reset_below(2)
            return index
    return None


def _right_weekday(spec: Expression, time: _Time) -> bool:
    year, month, day = time.fields[:3]
    return spec.weekdays is None or datetime(year, month, day).isoweekday() in spec.weekdays  # noqa: DTZ001


def _next(spec: Expression, name: str, time: _Time) -> int | None:
    """Return the smallest number of a field that is not below the time's, which may lie past the field's end."""
    index = 5 if name == "second" else _NAMES.index(name)
    field: Field = getattr(spec, name)
    value = time.fields[index]
    if field is None:
        return value
    unit = MICRO if name == "second" else 1
    found = [
        number
        for element in field
        if (number := _of_element(element, value * unit, _length(time) if spec.from_end and name == "day" else None))
        is not None
    ]
    return min(found) // unit if found else None


def _of_element(element: Element, value: int, length: int | None) -> int | None:
    start, stop = element.start, element.stop
    if length is not None:
        # Days from the end: the first is the larger number.
        start = length + 1 - (element.start if stop is None else stop)
        stop = None if stop is None else length + 1 - element.start
    if start >= value:
        return start
    if not element.step:
        return None
    number = start + -(-(value - start) // element.step) * element.step
    return None if stop is not None and number > stop else number


def _length(time: _Time) -> int:
    year, month = time.fields[:2]
    following = datetime(year + month // 12, month % 12 + 1, 1)  # noqa: DTZ001
    return (following - timedelta(days=1)).day


def _within(time: _Time, zone: tzinfo) -> bool | None:
    """Whether the time exists. Where it does not (False) it becomes the one that mktime(3) makes of it.

    None where that lies before it, or after the last year: systemd then goes on with the next larger unit.
    """
    if time.fields[0] > _LAST_YEAR:
        return None
    normal = _normal(time, zone)
    for index in range(5):
        if normal.fields[index] == time.fields[index]:
            continue
        if normal.fields[index] < time.fields[index]:
            return None
        # Only the next smaller unit is put back: this is what loses instants.
        normal.fields[index + 1] = _LOWEST[index + 1]
        time.fields, time.summer = normal.fields, normal.summer
        return False
    return True


def _instant(time: _Time, zone: tzinfo) -> datetime:
    """Return mktime(3)'s answer as an aware datetime of the zone."""
    year, month, day, hour, minute, second = time.fields
    years, month = divmod(month - 1, 12)
    naive = datetime(year + years, month + 1, 1) + timedelta(  # noqa: DTZ001
        days=day - 1, hours=hour, minutes=minute, seconds=second
    )
    local = naive.replace(tzinfo=zone)
    if time.summer is not None and _summer(local) != time.summer:
        local = naive.replace(tzinfo=zone, fold=1)
        if _summer(local) != time.summer:
            offset = _other_offset(zone, naive, summer=time.summer)
            return (naive.replace(tzinfo=UTC) - offset).astimezone(zone)
    return local.astimezone(UTC).astimezone(zone)


def _normal(time: _Time, zone: tzinfo) -> _Time:
    local = _instant(time, zone)
    return _Time([local.year, local.month, local.day, local.hour, local.minute, local.second], summer=_summer(local))


def _summer(local: datetime) -> bool:
    return bool(local.dst())


@cache
def _other_offset(zone: tzinfo, naive: datetime, *, summer: bool) -> timedelta:
    """Return the offset of the nearest time that has the wanted state of summer time; as mktime(3) looks for it."""
    for step in range(1, 450):
        for sign in (-1, 1):
            near = (naive + sign * step * _STRIDE).replace(tzinfo=zone)
            if _summer(near) == summer:
                return near.utcoffset() or timedelta(0)
    return naive.replace(tzinfo=zone).utcoffset() or timedelta(0)
