"""`[retention]` of jobs.toml: how long `orchctl host prune` keeps what runs leave. What it does not name is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, WithJsonSchema

from orchctl.core import durations
from orchctl.core.catalog_fields import Table

if TYPE_CHECKING:
    from orchctl.core.catalog_source import Source

NEVER = "never"
DAY_S = 86_400
LEAST_S, MOST_S = DAY_S, 3_660 * DAY_S
"""What is younger than a day is still looked at where lost runs are put back; more than ten years is a typing error."""
# Of two, the first may not be longer than the second: what it is about is gone by then.
_ORDER = (("compress_logs", "logs"), ("compress_logs", "manifests"), ("logs", "manifests"))


def age(text: str) -> int:
    """Return the seconds in an age such as "90d". Raises ValueError, also for less than a day."""
    seconds = durations.parse(text, most=MOST_S)
    if seconds < LEAST_S:
        raise ValueError(f"{text!r} is less than a day")
    return seconds


def _age_or_never(value: object) -> int | None:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is neither an age like "90d" nor "never"')
    return None if value == NEVER else age(value)


Age = Annotated[
    int | None,
    BeforeValidator(_age_or_never),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{NEVER}$|{durations.PATTERN}", "examples": ["7d", "90d", "800d", NEVER]}
    ),
]


class RetentionTable(Table):
    """How long `orchctl host prune` keeps what runs leave; "never", or no key: it removes nothing of it."""

    history: Age = None
    """Runs in Prefect that have ended, with their task runs and logs there."""
    compress_logs: Age = None
    """From then on the logs of a run are compressed (gzip)."""
    logs: Age = None
    """The logs of a run."""
    manifests: Age = None
    """The whole folder of a run: manifest and logs, and those of its steps."""
    state: Age = None
    """Claims on slots, and journals of handovers that have ended."""


def check(source: Source) -> None:
    """Note what no single key shows: an age that nothing would be left for."""
    table = source.data.get("retention")
    if not isinstance(table, Mapping):
        return
    known: dict[str, int] = {}
    for key, value in table.items():
        try:
            seconds = _age_or_never(value)
        except ValueError:
            continue  # noted where the table was read
        if seconds is not None:
            known[key] = seconds
    for first, second in _ORDER:
        if first in known and second in known and known[first] >= known[second]:
            message = f'found "{table[first]}", and {second} removes all that at "{table[second]}"'
            source.wrong(("retention", first), message, allowed=f"less than {second}")
