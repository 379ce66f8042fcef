"""Numbers and lists as words of a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def several(names: Sequence[str], *, shown: int = 3) -> str:
    """Write names for a sentence: the first ones, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, word: str) -> str:
    """Write a number of things: `1 job`, `3 jobs`."""
    return f"{number} {word}{'' if number == 1 else 's'}"
