"""`--param KEY=VALUE`: the keys of a partition on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from orchctl.errors import UsageError


def read(texts: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE` words; a later one of the same key counts. Raises UsageError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"--param: {text!r:.80} is not KEY=VALUE")
        found[key] = value
    return found
