"""Templates: `{game_date}` and seven more words, and nothing else.

This is not `str.format`: there are no attributes, indexes, conversions or format specifications to reach
anything with. `{{` and `}}` stand for the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

WORDS = ("game_date", "run_id", "run_as_of_ts", "data_root", "run_dir", "slot", "job", "step")
PATTERN = r"^([^{}]|\{\{|\}\}|\{(" + "|".join(WORDS) + r")\})*$"
"""What a right template matches, as JSON Schema writes it."""
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def problems(template: str) -> tuple[str, ...]:
    """Return the words or stray braces in `template` that mean nothing; empty where it is right."""
    found = []
    for token in _TOKEN.finditer(template):
        text = token[0]
        if text in {"{{", "}}"} or (token[1] is not None and token[1] in WORDS):
            continue
        found.append(text)
    return tuple(found)


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill in `template`. It must have no `problems`; a word without a value becomes the empty string."""

    def fill(token: re.Match[str]) -> str:
        text = token[0]
        return {"{{": "{", "}}": "}"}.get(text) or values.get(token[1] or "", "")

    return _TOKEN.sub(fill, template)


def words_in(template: str) -> frozenset[str]:
    """Return the words that `template` uses."""
    return frozenset(token[1] for token in _TOKEN.finditer(template) if token[1] in WORDS)
