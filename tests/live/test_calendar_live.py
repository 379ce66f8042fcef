"""What a real Prefect server makes of converted calendar expressions: the runs it creates are systemd's elapses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import calendar_corpus as corpus
import calendar_server
from orchctl.core import calendar
from support import Live

NEW_YORK = "America/New_York"
NAME = "calendars"
RUNS = 30
# A day like any other, and before clocks go forward (07:00Z) and back (06:00Z) in New York. Asked within the hour
# before they go forward, Prefect would count runs of that hour again: it moves what the gap leaves out there.
STARTS = [datetime(2027, 2, 26, 10, tzinfo=UTC), datetime(2027, 3, 14, 5, 58, tzinfo=UTC),
          datetime(2027, 11, 7, 5, 58, tzinfo=UTC)]  # fmt: skip
EXPRESSIONS = {
    "cron": ["*-*-* 08..23:05,35:00", "hourly", "*:0/5", "Mon..Fri 16..23:00/10", "*-*-1/2 01:30", "Sun 12:00 UTC"],
    "noted": ["02:30", "0/2:15", "*-*-* 02:00:00 America/New_York"],
    "both": ["Fri *-*-13 12:00", "Mon..Wed *-*-1..7 01,03:30"],
    "last": ["*-*~01 23:00", "Mon *-*~07/1 01:00", "Sat,Sun *-*~07/1 00:30"],
    "seconds": ["*-*-* 08..23:*:00/5", "*:*:*", "*:0/15:30", "Sun 10:00:30", "Sun *-03,11-07..14 *:*:0/20"],
    "interval": ["*:*:0/30 UTC", "*:*:* UTC", "*:*:07..59/20 UTC"],
    "rrule": ["*-*~03 10:00", "*-*-1/5 18:00", "Mon *-*~01..10 01:30", "2027-11-07 12:00", "2027..2028-*-07 *:0/30",
              "@1825563600", "2027/2-3,11-14 06:00:20", "2027,2028,2031-3-14 12:00"],
}  # fmt: skip
NOTED = set(EXPRESSIONS["noted"])
# Those of the corpus, before clocks go forward and back.
BASES = [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC)]
THE_END = datetime.fromtimestamp(corpus.THE_END, UTC)
AT_ONCE = 40
Runs = dict[str, list[int]]


@pytest.fixture(scope="module")
def materialised(live: Live) -> Iterator[dict[datetime, Runs]]:
    """The runs of one deployment with all schedules, asked for from each start: instants by expression."""
    texts = [text for listed in EXPRESSIONS.values() for text in listed]
    schedules = {text: calendar.convert(text, NEW_YORK).schedule for text in texts}
    with calendar_server.deployed(live, NAME, schedules) as deployed:
        yield {start: deployed.runs(start, start + timedelta(days=500), most=RUNS) for start in STARTS}


def elapses(text: str, start: datetime) -> list[int]:
    """Return the first elapses of systemd's from `start` on."""
    for days in (1, 31, 500):
        found = calendar.instants(text, NEW_YORK, start, start + timedelta(days=days))
        if len(found) >= RUNS:
            break
    return found[:RUNS]


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_the_runs_of_a_real_server_are_the_elapses_of_systemd(
    materialised: dict[datetime, Runs], start: datetime
) -> None:
    for text, runs in materialised[start].items():
        if text not in NOTED:
            assert runs == elapses(text, start), text
            assert calendar.convert(text, NEW_YORK).notes == (), text


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_where_the_server_does_otherwise_a_note_has_said_so(
    materialised: dict[datetime, Runs], start: datetime
) -> None:
    """What clocks leave out runs an hour early there, or an hour late where it is 3.9 or has Python 3.13."""
    skipped = int(datetime(2027, 3, 14, 7, tzinfo=UTC).timestamp())
    around = range(skipped - 3600, skipped + 3600)
    for text in NOTED:
        assert "2026-03-08 in America/New_York" in calendar.convert(text, NEW_YORK).notes[0]
        runs = materialised[start][text]
        extra = [at for at in runs if at not in elapses(text, start)]
        assert all(at in around for at in extra)
        # Thirty runs of every two hours do not reach from February to that day.
        assert len(extra) == (start == STARTS[1] or (start == STARTS[0] and text != "0/2:15"))


def test_each_kind_of_schedule_is_among_them() -> None:
    for kind, texts in EXPRESSIONS.items():
        for text in texts:
            found = calendar.convert(text, NEW_YORK)
            cron = found.schedule.get("cron", "")
            assert found.kind == (kind if kind in {"rrule", "interval"} else "cron"), text
            assert (len(cron.split()) == 6) == (kind == "seconds")
            assert ("L" in cron) == (kind == "last")
            assert kind != "both" or not found.schedule["day_or"]


@pytest.mark.campaign
@pytest.mark.parametrize(
    "base", [BASES[0], *(pytest.param(each, marks=pytest.mark.stress) for each in BASES[1:])], ids=str
)
def test_a_real_server_makes_of_the_whole_corpus_the_elapses_of_systemd_or_a_note_says_why_not(
    live: Live, base: datetime
) -> None:
    """In New York, the next twenty of each from before a change of clocks."""
    known = {
        case.text: (conversion, elapses, end)
        for case, at, elapses, end in corpus.asked(NEW_YORK)
        if at == base.timestamp() and (conversion := corpus.converted(case.text, NEW_YORK)) is not None
    }
    assert len(known) >= 470
    texts = list(known)
    for some in (texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE)):
        with calendar_server.deployed(live, "corpus", {text: known[text][0].schedule for text in some}) as deployed:
            # What elapses less often than twenty times has ended long before.
            runs = deployed.runs(base + timedelta(seconds=1), THE_END, most=20)
        for text in some:
            conversion, elapses, end = known[text]
            corpus.check(conversion, elapses, [at for at in runs[text] if at < end])
