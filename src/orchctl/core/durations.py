"""Durations as the catalog writes them: `90s`, `5m`, `2h`, `1d`."""

from __future__ import annotations

import re

PATTERN = r"^[0-9]{1,9}(s|m|h|d)$"
_FORM = re.compile(r"([0-9]{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SECONDS = 366 * 86400


def parse(text: str, *, most: int = MAX_SECONDS) -> int:
    """Return the seconds in `text`. Raises ValueError; more than `most` seconds is taken for a slip of the pen."""
    match = _FORM.match(text)
    if match is None:
        raise ValueError(f'{text!r} is not a duration like "90s", "5m", "2h" or "1d"')
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > most:
        raise ValueError(f"{text!r} is longer than {most // 86400} days")
    return seconds


def canonical(seconds: int) -> str:
    """Write seconds with the largest unit that divides them: `parse(canonical(x)) == x`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def human(seconds: float | None) -> str:
    """Write a measured duration for people: `0.4s`, `42s`, `2m30s`, `1h02m`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
