"""Templates: `{game_date}` and seven more words, those that a job or a step adds, and nothing else.

This is not `str.format`: there are no attributes, indexes, conversions or format specifications to reach
anything with. `{{` and `}}` stand for the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

WORDS = ("game_date", "run_id", "run_as_of_ts", "data_root", "run_dir", "slot", "job", "step")
STAGING = "staging"
"""The word of a step for the directory it writes to."""
SNAPSHOT = "snapshot_ts"
"""The word of an input for the part of a path that is the instant of a snapshot."""
INPUTS = "inputs."
"""Before the name of an input: the word of a step for where that input is."""
PATTERN = r"^([^{}]|\{\{|\}\}|\{[a-z][a-z0-9_.-]*\})*$"
"""What a right template looks like, as JSON Schema writes it; which words there are depends on the job."""
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def problems(template: str, words: Collection[str] = WORDS) -> tuple[str, ...]:
    """Return the words or stray braces in `template` that mean nothing; empty where it is right."""
    found = []
    for token in _TOKEN.finditer(template):
        text = token[0]
        if text in {"{{", "}}"} or (token[1] is not None and token[1] in words):
            continue
        found.append(text)
    return tuple(found)


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill in `template`. It must have no `problems`; a word without a value becomes the empty string."""

    def fill(token: re.Match[str]) -> str:
        text = token[0]
        return {"{{": "{", "}}": "}"}.get(text) or values.get(token[1] or "", "")

    return _TOKEN.sub(fill, template)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill in the words that `values` has, and leave the others as they are: two templates can then be compared."""
    return _TOKEN.sub(lambda token: values.get(token[1] or "", token[0]), template)


def words_in(template: str) -> frozenset[str]:
    """Return the words that `template` uses, of whatever kind."""
    return frozenset(token[1] for token in _TOKEN.finditer(template) if token[1])
