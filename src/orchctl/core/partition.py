"""The keys of a run's partition beside the date: by a rule from the date, or given. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from orchctl.core.catalog import Job
from orchctl.core.catalog_steps import PartitionKey
from orchctl.core.names import parse_date

VALUE_PATTERN = r"^[A-Za-z0-9._][A-Za-z0-9._-]{0,63}$"
"""What the value of a key may be: it becomes part of paths, and words of a command, where a `-` begins an option."""
_VALUE = re.compile(VALUE_PATTERN.replace("$", r"\Z"))


def is_value(text: str) -> bool:
    """Whether `text` may be the value of a key; `.` and `..` would be folders of another kind."""
    return _VALUE.match(text) is not None and text not in {".", ".."}


def keys(job: Job, game_date: date, given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of each of the job's partition keys, sorted by key.

    `given` goes before a rule and before a default. Raises ValueError for a key that the job does not have, that
    nothing gives a value, or whose value may not be part of a path.
    """
    if unknown := sorted(set(given) - set(job.partition)):
        known = ", ".join(sorted(job.partition)) or "none"
        raise ValueError(f"{job.name} has no partition key {unknown[0]!r}; its keys: {known}")
    found: dict[str, str] = {}
    for name, key in sorted(job.partition.items()):
        value = given.get(name, _by_rule(key, game_date))
        if value is None:
            raise ValueError(f"the partition key {name} of {job.name} has no rule and no default, and was not given")
        if not is_value(value):
            raise ValueError(f"the partition key {name} is {value!r}, which does not match {VALUE_PATTERN}")
        found[name] = value
    return found


def hint(job: Job, given: Mapping[str, str]) -> str:
    """Say what to do where `keys` raises ValueError."""
    unknown = set(given) - set(job.partition)
    return f"see `orchctl jobs {job.name}`" if unknown else "give it with --param KEY=VALUE"


def is_of(told: Mapping[str, Any], job: Job, wanted: Mapping[str, str]) -> bool:
    """Return whether what a manifest tells of its partition is that of these keys.

    A manifest that lacks a key was written before the job had it. It is of the value that the key has where nobody
    gives one, by the rule or by default; where there is no such value, it is of none.
    """
    try:
        game_date = parse_date(told["game_date"])
    except (KeyError, TypeError, ValueError):
        return False
    return all(told.get(name, _by_rule(job.partition[name], game_date)) == value for name, value in wanted.items())


def _by_rule(key: PartitionKey, game_date: date) -> str | None:
    if key.format is None:
        return key.default
    months = game_date.year * 12 + game_date.month - 1 + key.shift_months
    # The day matters to formats such as %d alone: the first is in every month.
    day = game_date.day if key.shift_months == 0 else 1
    return date(months // 12, months % 12 + 1, day).strftime(key.format)
