"""Which troubles the watchdog tells, to whom, and how often: a table of situations, and what must hold of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchctl.core import watch
from orchctl.core.alerts import BY_WATCHDOG, Alerts, Channel, Event, Route
from orchctl.core.watch import Decided, Looked, Problem, Trouble

NOW = datetime(2025, 12, 19, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALL = frozenset({"server", "worker", "missed", "disk"})
CHANNELS = {name: Channel(name, "slack") for name in ("ops", "quiet")}
ALERTS = Alerts(CHANNELS, (Route("all", BY_WATCHDOG, ("ops",)),), burst=5)
SERVER = Problem("server", "server_gone", "refused", about="http://here/api", after_s=60)
DISK = Problem("disk:/srv", "disk_full", "3 % are free", about="/srv")


def missed(job: str) -> Problem:
    return Problem(f"missed:{job}", "missed_slots", "1 slot", job=job)


class Story:
    """Looks, one after another, each with what was remembered of the one before."""

    def __init__(self, alerts: Alerts = ALERTS) -> None:
        self.alerts = alerts
        self.open: Mapping[str, Trouble] = {}
        self.well_at: dict[str, datetime] = {}
        self.at = NOW

    def look(self, *problems: Problem, areas: frozenset[str] = ALL, after: timedelta = MINUTE) -> Decided:
        self.at += after
        looked = Looked(problems, areas)
        decided = watch.decide(looked, self.open, self.well_at, self.alerts, host="box", now=self.at)
        again = watch.decide(looked, decided.open, self.well_at, self.alerts, host="box", now=self.at)
        assert (again.letters, again.open) == ({}, decided.open), "deciding again tells something"
        self.open, self.well_at = decided.open, watch.well_now(looked, self.well_at, self.at)
        return decided

    def told(self, *problems: Problem, areas: frozenset[str] = ALL, after: timedelta = MINUTE) -> list[str]:
        decided = self.look(*problems, areas=areas, after=after)
        return [message.event for message in decided.letters.get("ops", ())]


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([()], [[]]),
        ([(DISK,)], [["disk_full"]]),
        ([(DISK,), (DISK,), (DISK,)], [["disk_full"], [], []]),
        ([(DISK,), (), ()], [["disk_full"], ["recovered"], []]),
        # What was never told has no end to be told.
        ([(SERVER,), ()], [[], []]),
        # Seen for the first time now, since when nobody knows.
        ([(SERVER,), (SERVER,), (SERVER,)], [[], ["server_gone"], []]),
        # All was well a minute ago: it has been away for that long.
        ([(), (SERVER,), (SERVER,), ()], [[], ["server_gone"], [], ["recovered"]]),
        ([(SERVER, DISK), (DISK,)], [["disk_full"], []]),
        ([(DISK,), (SERVER, DISK), ()], [["disk_full"], ["server_gone"], ["recovered", "recovered"]]),
    ],
)
def test_what_is_told_in_a_row_of_looks(looks: Sequence[tuple[Problem, ...]], told: Sequence[list[str]]) -> None:
    story = Story()
    assert [story.told(*problems) for problems in looks] == told


def test_it_is_told_again_after_a_while_and_says_since_when() -> None:
    story = Story()
    story.look(DISK)
    assert story.told(DISK, after=timedelta(hours=5)) == []
    decided = story.look(DISK, after=timedelta(hours=1))
    assert decided.again == ("disk:/srv",)
    assert "still so, since 2025-12-19T12:01:00Z" in str(decided.letters["ops"][0].reason)
    assert story.told(DISK) == []


def test_what_could_not_be_looked_at_is_neither_new_nor_over() -> None:
    story = Story()
    story.look(SERVER, Problem("worker:p", "worker_gone", "gone", about="work pool p"))
    assert story.told(SERVER, areas=ALL - {"worker"}) == ["server_gone"]
    assert "worker:p" in story.open
    assert story.told() == ["recovered", "recovered"]


def test_one_that_comes_and_goes_is_told_once_and_its_end_only_when_it_stays_away() -> None:
    story = Story()
    assert [story.told(DISK), story.told()] == [["disk_full"], ["recovered"]]
    (message,) = story.look(DISK).letters["ops"]
    assert "the 2. time, it comes and goes" in str(message.reason)
    flapping = [story.told(*([DISK] if turn % 2 else [])) for turn in range(20)]
    assert flapping == [[]] * 20
    story.look()
    assert [story.told() for _ in range(10)].count(["recovered"]) == 1
    assert story.told(DISK, after=timedelta(hours=2)) == ["disk_full"]
    assert story.open["disk:/srv"].times == 1


def test_fifty_at_once_are_one_message_a_channel_and_so_is_their_end() -> None:
    story = Story(replace(ALERTS, routes=(Route("all", BY_WATCHDOG, ("ops", "quiet")),)))
    problems = [missed(f"job-{number:02}") for number in range(50)]
    letters = story.look(*problems).letters
    assert {name: len(messages) for name, messages in letters.items()} == {"ops": 1, "quiet": 1}
    (message,) = letters["ops"]
    assert message.count == 50
    assert message.subject == "[orchctl] 50 alerts on box"
    assert "job-00 missed slots on box: 1 slot" in message.text
    assert "and 31 more" in message.text
    assert len(story.look(*problems).letters) == 0
    (message,) = story.look().letters["ops"]
    assert "job-00 recovered on box" in message.text


def test_up_to_a_burst_they_are_told_one_by_one() -> None:
    assert len(Story().look(*map(missed, "abcde")).letters["ops"]) == 5
    assert len(Story().look(*map(missed, "abcdef")).letters["ops"]) == 1


def test_a_route_takes_its_events_and_jobs_alone_and_an_end_goes_where_the_trouble_went() -> None:
    routes = (Route("one", ("missed_slots",), ("ops",), jobs=("a",)), Route("end", ("recovered",), ("ops", "quiet")))
    story = Story(replace(ALERTS, routes=routes))
    letters = story.look(missed("a"), missed("b"), DISK).letters
    assert [(name, message.job) for name, messages in letters.items() for message in messages] == [("ops", "a")]
    letters = story.look().letters
    assert [(name, message.job) for name, messages in letters.items() for message in messages] == [("ops", "a")]


def test_what_nobody_was_told_is_told_when_a_route_takes_it() -> None:
    story = Story(replace(ALERTS, routes=()))
    assert story.told(DISK) == []
    story.alerts = ALERTS
    assert story.told(DISK) == ["disk_full"]


@pytest.mark.parametrize("event", [event for event in BY_WATCHDOG if event != "recovered"])
def test_each_event_has_words_of_its_own_and_an_end(event: Event) -> None:
    story = Story()
    problem = Problem("disk:x", event, "because", about="the thing", command="orchctl look")
    (message,) = story.look(problem).letters["ops"]
    assert "because" in message.text
    assert "orchctl look" in message.text
    assert "the thing" in message.subject
    (end,) = story.look().letters["ops"]
    assert end.subject == "[orchctl] the thing recovered on box"
    assert "2025-12-19T12:01:00Z until 2025-12-19T12:02:00Z" in end.text


def test_secrets_are_masked() -> None:
    problem = replace(DISK, reason="cannot open hunter2", about="/hunter2")
    decided = watch.decide(
        Looked((problem,), ALL), {}, {}, ALERTS, host="box", now=NOW, mask=lambda text: text.replace("hunter2", "***")
    )
    assert "hunter2" not in decided.letters["ops"][0].text + decided.letters["ops"][0].subject


def test_a_trouble_is_read_as_it_was_written() -> None:
    story = Story()
    story.look(DISK, SERVER)
    for trouble in story.open.values():
        assert Trouble.from_json(trouble.to_json()) == trouble


def test_the_page_says_of_each_event_when_it_is_told() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "watchdog.md").read_text()
    told = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(BY_WATCHDOG) - {"recovered"} <= told
