"""Calendar expressions beyond the corpus, made up and judged by `systemd-analyze calendar` of this host."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import calendar_oracle as oracle
import prefect_dates
from orchctl.core import calendar, calendar_walk
from orchctl.core.calendar_elapse import open_hours, read
from orchctl.core.calendar_parse import Expression, parse

needs_systemd = pytest.mark.skipif(oracle.PROGRAM is None, reason="there is no systemd-analyze on this host")
STEPS = 24
# Clocks change by an hour and by half of one, at two, at one and at midnight; or not at all.
MIDNIGHT = ("America/Santiago", "Africa/Cairo", "Asia/Beirut", "Atlantic/Azores")
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Europe/London", "Australia/Lord_Howe", "Asia/Kolkata", *MIDNIGHT)
# Two days before changes of clocks, before a year's and a February's end, and days like any other.
DAYS = ["02-26", "03-06", "03-27", "04-03", "04-22", "06-10", "09-04", "10-02", "10-23", "10-30", "12-30"]
YEARS = ["*", "*", "*", "*", "2026", "2026..2028", "2027", "2026/2", "26,2029"]
WEEKDAYS = ["Mon", "sat,Sun", "Mon..Fri", "Tue-Thursday,Sun", "Fri,", "Fri..Mon", "Sun..Sun"]
NAMED = ["UTC", "utc", "Europe/Berlin", "America/New_York"]


def elements(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    step = st.integers(1, max(2, (high - low) // 2 + 2))
    pair = st.tuples(number, number).map(sorted)
    return st.one_of(
        number.map(lambda n: f"{n:02}"),
        pair.map(lambda ends: f"{ends[0]}..{ends[1]}"),
        st.builds(lambda n, s: f"{n}/{s}", st.integers(low, (low + high) // 2), step),
        st.builds(lambda ends, s: f"{ends[0]}..{ends[1]}/{s}", pair, step),
    )


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    listed = st.lists(elements(low, high), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), elements(low, high), listed)


@st.composite
def expressions(draw: Callable[..., Any]) -> str:
    """Make an expression by the grammar; what systemd refuses (repetitions that never repeat) among them."""
    parts = [draw(st.sampled_from(WEEKDAYS))] if draw(st.booleans()) else []
    if draw(st.booleans()):
        separator = draw(st.sampled_from(["-", "-", "-", "~"]))
        days = draw(fields(1, 31 if separator == "-" else 28))
        parts.append(f"{draw(st.sampled_from(YEARS))}-{draw(st.one_of(st.just('*'), fields(1, 12)))}{separator}{days}")
    seconds = draw(st.one_of(st.just(""), st.just(":00"), fields(0, 59).map(lambda text: f":{text}")))
    parts.append(f"{draw(fields(0, 23))}:{draw(fields(0, 59))}{seconds}")
    if draw(st.integers(0, 5)) == 0:
        parts.append(draw(st.sampled_from(NAMED)))
    return " ".join(parts)


bases = st.builds(
    lambda day, minutes: int(
        (datetime.fromisoformat(f"2026-{day}T00:00:00Z") + timedelta(minutes=minutes)).timestamp()
    ),
    st.sampled_from(DAYS),
    st.integers(0, 2 * 24 * 60),
)
fixed = settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])


def refusal(text: str) -> str | None:
    """Return why we refuse an expression, None where we take it."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


def of_second_hour(base: int, zone: ZoneInfo) -> bool:
    """Whether the base lies in the second of an hour that comes twice: asked there, systemd goes on in it."""
    return any(datetime.fromtimestamp(base + ahead, zone).fold == 1 for ahead in (0, 1))


def without_midnight(spec: Expression, zone: ZoneInfo, at: int) -> bool:
    """Whether the day of an instant, or the next one, has no midnight: what mktime(3) makes of it is its own."""
    days = (datetime.fromtimestamp(at, zone).date() + timedelta(days=ahead) for ahead in (0, 1))
    midnights = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in days)
    return any(each != each.astimezone(UTC).astimezone(zone) for each in midnights)


def accounted(spec: Expression, zone: ZoneInfo, at: int) -> bool:
    """Whether systemd and we may differ at an instant, for a reason that docs/calendar.md names."""
    local = datetime.fromtimestamp(at, zone)
    if spec.from_end and local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
        return True
    if calendar_walk.runs_over(spec) and oracle.version() >= 257 and local.month == 1:
        return True
    return (calendar_walk.runs_over(spec) or open_hours(spec)) and without_midnight(spec, zone, at)


def steps(spec: Expression, zone: ZoneInfo, base: int) -> tuple[list[int], bool]:
    """Go from elapse to elapse as systemd does; return what is found, and whether it got stuck."""
    at = base
    found: list[int] = []
    while len(found) < STEPS:
        try:
            step = calendar_walk.after(spec, zone, at)
        except calendar_walk.Stall:
            return found, True
        if step is None:
            return found, False
        found.append(at := step)
    return found, False


@needs_systemd
@given(text=expressions(), zone=st.sampled_from(ZONES), base=bases)
@fixed
def test_validity_and_instants_are_those_of_systemd(text: str, zone: str, base: int) -> None:
    answer = oracle.ask(text, zone, base, STEPS)
    refused = refusal(text)
    assert answer.valid == (refused is None), f"{text}: systemd {answer.valid}, we {refused}"
    if refused is not None:
        event("refused by both")
        return
    spec, info = read(text, zone)
    assume(not of_second_hour(base, info))
    found, stuck = steps(spec, info, base)
    if answer.stuck or stuck:
        event("systemd gets stuck")
        reached = found[-1] if found else base
        assert answer.stuck == stuck or accounted(spec, info, reached), f"{text}: stuck {answer.stuck}, ours {stuck}"
        return
    event("runs over" if calendar_walk.runs_over(spec) else "plain")
    end = answer.elapses[-1] + 1 if len(answer.elapses) == STEPS else base + 400 * 86_400
    assert not unaccounted(spec, info, found, answer.elapses, end), f"{text} in {zone} after {base}: step by step"
    # Where something is lost on the way, a timer that comes from before the base may lose it; not a day later.
    begin = base + 1 if not calendar_walk.runs_over(spec) or not found else found[0] + 86_400
    start, until = (datetime.fromtimestamp(at, UTC) for at in (begin, max(begin, end)))
    listed = calendar.instants(text, zone, start, until)
    assert not unaccounted(spec, info, listed, [at for at in answer.elapses if at >= begin], end)


def unaccounted(spec: Expression, zone: ZoneInfo, ours: list[int], systemd: list[int], end: int) -> set[int]:
    return {at for at in set(ours) ^ set(systemd) if at < end and not accounted(spec, zone, at)}


@given(text=expressions(), zone=st.sampled_from(ZONES), base=bases)
@fixed
def test_prefects_own_instants_are_ours_or_a_note_says_why_not(text: str, zone: str, base: int) -> None:
    try:
        conversion = calendar.convert(text, zone)
    except ValueError:
        event("refused")
        return
    event(conversion.kind)
    prefect = prefect_dates.due(conversion.schedule, base, count=STEPS)
    end = prefect[-1] + 1 if len(prefect) == STEPS else base + 400 * 86_400
    start, until = (datetime.fromtimestamp(at, UTC) for at in (base + 1, end))
    ours = calendar.instants(text, zone, start, until)
    if set(ours) ^ {at for at in prefect if at < end}:
        assert conversion.notes, f"{text} in {zone} after {base}: {sorted(set(ours) ^ set(prefect))[:3]} and no note"
        assert set(ours) <= set(prefect), f"{text}: Prefect leaves something out"


@needs_systemd
@given(text=st.text(alphabet="0123456789*/.,:-~@ MonTueUTC", max_size=14))
@settings(max_examples=400)
def test_any_text_is_taken_or_refused_as_systemd_does(text: str) -> None:
    refused = refusal(text)
    assert (refused is None) == oracle.ask(text, "Asia/Kolkata", 1772323200, 1).valid, f"{text}: {refused}"
    assert (refused or "said").isprintable()
