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


def counted(cases: Iterable[calendar_corpus.Case], zone: str) -> Counter[tuple[str, bool]]:
    """Count by row, and whether all instants are equal (no note)."""
    found: Counter[tuple[str, bool]] = Counter()
    for case in cases:
        try:
            conversion = calendar.convert(case.text, zone)
        except ValueError:
            found[_REFUSED, True] += 1
        else:
            found.update((kind, not conversion.notes) for kind in kinds(conversion))
    return found


def table(zone: str) -> str:
    """Return the table of a host zone as Markdown: the expressions that systemd takes, real ones and all."""
    taken = calendar_corpus.valid()
    real = counted((case for case in taken if case.origin == "real"), zone)
    every = counted(taken, zone)
    rows = [f"| in {zone} | real: equal | real: with a note | all: equal | all: with a note |", "|---|---|---|---|---|"]
    for kind in _KINDS:
        numbers = (str(each[kind, exact]) for each in (real, every) for exact in (True, False))
        rows += [f"| {kind} | {' | '.join(numbers)} |"]
    rows.append(f"| {_REFUSED} | {real[_REFUSED, True]} | | {every[_REFUSED, True]} | |")
    return "\n".join(rows)


if __name__ == "__main__":
    print("\n\n".join(table(zone) for zone in ZONES))
