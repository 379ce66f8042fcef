"""How the expressions of the corpus become Prefect schedules: `python tests/calendar_counts.py` prints the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import calendar_corpus
from orchctl.core import calendar

ZONES = ("America/New_York", "UTC")
_KINDS = ("cron, 5 fields", "of these day of month and of week", "of these L", "cron, 6 fields", "rrule", "interval")
_REFUSED = "refused"


def kinds(conversion: calendar.Conversion) -> Iterable[str]:
    """Yield the rows of the table in which a conversion is counted."""
    if conversion.kind != "cron":
        yield conversion.kind
        return
    fields = conversion.schedule["cron"].split()
    yield f"cron, {len(fields)} fields"
    if len(fields) == 5 and not conversion.schedule["day_or"]:
        yield _KINDS[1]
    if len(fields) == 5 and "L" in conversion.schedule["cron"]:
        yield _KINDS[2]


def rows_of(case: calendar_corpus.Case, zone: str) -> list[tuple[str, bool]]:
    """Return the rows in which an expression is counted, and whether all its instants are equal (no note)."""
    conversion = calendar_corpus.converted(case.text, zone)
    if conversion is None:
        return [(_REFUSED, True)]
    exact = not conversion.notes
    return [(kind, exact) for kind in kinds(conversion)]


def table(zone: str) -> str:
    """Return the table of a host zone as Markdown: the expressions that systemd takes, real ones and all."""
    real, every = Counter[tuple[str, bool]](), Counter[tuple[str, bool]]()
    for case in calendar_corpus.valid():
        found = rows_of(case, zone)
        every.update(found)
        real.update(found if case.origin == "real" else ())
    rows = [f"| in {zone} | real: equal | real: with a note | all: equal | all: with a note |", "|---|---|---|---|---|"]
    for kind in _KINDS:
        numbers = (str(each[kind, exact]) for each in (real, every) for exact in (True, False))
        rows += [f"| {kind} | {' | '.join(numbers)} |"]
    rows.append(f"| {_REFUSED} | {real[_REFUSED, True]} | | {every[_REFUSED, True]} | |")
    return "\n".join(rows)


if __name__ == "__main__":
    print("\n\n".join(table(zone) for zone in ZONES))
