"""Every expression of the corpus: our instants, and those of Prefect's own code, against the ones of systemd."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

import calendar_corpus as corpus
import calendar_counts
import prefect_dates
from orchctl.core import calendar, calendar_walk
from orchctl.core.calendar_elapse import read
from orchctl.core.calendar_parse import parse

DOCS = Path(__file__).parents[2] / "docs" / "calendar.md"
ZONES = ("UTC", "America/New_York", "Europe/Berlin")
# The corpus holds that of a zone file; a host in Berlin would only run it in winter.
ABBREVIATED = {"*-*-* 10:00 CET"}


converted = corpus.converted


def ours(text: str, zone: str, start: int, end: int) -> list[int]:
    return calendar.instants(text, zone, datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))


def test_what_systemd_takes_is_taken_and_what_it_refuses_is_refused() -> None:
    def taken(text: str) -> bool:
        try:
            return bool(parse(text))
        except ValueError:
            return False

    wrong = {case.text for case in corpus.cases() if taken(case.text) != case.valid}
    assert wrong == ABBREVIATED
    assert (len(corpus.valid()), len(corpus.cases())) == (487, 560)


def test_what_is_refused_for_prefect_is_what_it_cannot_say() -> None:
    """Never rounded, and never refused without need: nothing but parts of seconds, days that never come, and CET."""
    refused = [case for case in corpus.valid() if converted(case.text, "America/New_York") is None]
    elapsing = [case for case in refused if any(any(bases.values()) for bases in case.next20.values())]
    assert {case.text for case in elapsing if not case.subsecond} == ABBREVIATED
    assert {case.text for case in corpus.valid() if case.subsecond} <= {case.text for case in refused}


@pytest.mark.parametrize("zone", ZONES)
def test_our_instants_are_those_of_systemd(zone: str) -> None:
    wrong, right = [], 0
    for case, base, elapses, end in corpus.asked(zone):
        if case.subsecond or case.text in ABBREVIATED:
            continue
        found = ours(case.text, zone, base + 1, end)
        if found != elapses and not asked_afresh(case.text, zone, base, elapses, found):
            wrong.append(f"{case.text} {base}")
        right += found == elapses
    assert not wrong
    assert right >= 950


def asked_afresh(text: str, zone: str, base: int, elapses: list[int], found: list[int]) -> bool:
    """Whether the corpus only has more because systemd was asked at the base.

    A timer comes there from the elapse before, and loses what a repetition that runs over loses. Step by step from
    the base our instants must be the same, and differ only on the first day.
    """
    spec, info = read(text, zone)
    at = base
    steps: list[int] = []
    while calendar_walk.runs_over(spec) and len(steps) < len(elapses):
        step = calendar_walk.after(spec, info, at)
        assert step is not None
        steps.append(at := step)
    return steps == elapses and set(found) < set(elapses) and max(set(elapses) - set(found)) < base + 86_400


def test_our_instants_around_each_change_of_clocks_are_those_of_systemd() -> None:
    wrong, right = [], 0
    for window in corpus.windows():
        if window.text in ABBREVIATED or parts_of_seconds(window.text):
            continue
        found = ours(window.text, window.local, window.start, window.end)
        wrong += [f"{window.text} {window.local} {window.start}"] if found != window.elapses else []
        right += found == window.elapses
    assert not wrong
    assert right == 1456


@cache
def parts_of_seconds(text: str) -> bool:
    return any(case.subsecond for case in corpus.valid() if case.text == text)


@pytest.mark.parametrize("zone", ZONES)
def test_prefects_own_instants_are_those_of_systemd_or_a_note_says_why_not(zone: str) -> None:
    compared = 0
    for case, base, elapses, end in corpus.asked(zone):
        if (conversion := converted(case.text, zone)) is None:
            continue
        enough = len(elapses) == 20
        found = prefect_dates.due(
            conversion.schedule, base, count=20 if enough else None, until=None if enough else end
        )
        corpus.check(conversion, elapses, [at for at in found if at < end])
        compared += 1
    assert compared >= 940


@pytest.mark.campaign
def test_prefects_own_instants_around_each_change_of_clocks_are_those_of_systemd_or_a_note_says_why_not() -> None:
    compared = 0
    for window in corpus.windows():
        if (conversion := converted(window.text, window.local)) is None:
            continue
        found = prefect_dates.due(conversion.schedule, window.start - 1, until=window.end)
        corpus.check(conversion, window.elapses, found)
        compared += 1
    assert compared == 1444


def test_the_counts_in_the_documentation_are_true() -> None:
    """`python tests/calendar_counts.py` prints the table."""
    text = DOCS.read_text(encoding="utf-8")
    assert all(calendar_counts.table(zone) in text for zone in calendar_counts.ZONES)
