"""No alert twice, no storm, none lost: what a channel is told."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from alert_cases import T0, alerts, message
from orchctl.core import alert_box
from orchctl.core.alert_box import HOLD_S, Box
from orchctl.core.alerts import Message

ALERTS = alerts(repeat_after=3600, burst=3, burst_within=60)


def at(seconds: float) -> Any:
    return T0 + timedelta(seconds=seconds)


def heard(box: Box, *messages: Message, seconds: float = 0) -> tuple[Box, list[str]]:
    said = list[str]()
    for each in messages:
        box, word = alert_box.hear(box, each, ALERTS, now=at(seconds))
        said.append(word)
    return box, said


def drained(box: Box, *, seconds: float = 0) -> tuple[Box, list[Message], float]:
    """Send all there is, as a receiver that takes everything lets us; return when the last one went."""
    found: list[Message] = []
    while True:
        due = alert_box.due(box, ALERTS, now=at(seconds))
        if due.message is not None:
            found.append(due.message)
            box = alert_box.sent(box, due.numbers, ALERTS, now=at(seconds))
        elif due.wait_s is None:
            return box, found, seconds
        else:
            seconds += due.wait_s


def test_the_same_trouble_is_told_once() -> None:
    _, said = heard(Box(), *(message(run_id=str(number)) for number in range(40)))
    assert said == ["queued", *["repeated"] * 39]


def test_it_is_told_again_after_a_while_with_how_often() -> None:
    box, _ = heard(Box(), message(run_id="1"), message(run_id="2"), message(run_id="3"))
    box, said = heard(box, message(run_id="4"), seconds=3600)
    assert said == ["queued"]
    assert [each.message.count for each in box.waiting] == [1, 3]


def test_the_same_run_twice_is_one_failure() -> None:
    box, _ = heard(Box(), message(run_id="1"), message(run_id="1"), message(run_id="2"), message(run_id="2"))
    box, _ = heard(box, message(run_id="3"), seconds=3600)
    assert box.waiting[-1].message.count == 2


def test_another_way_to_fail_is_news() -> None:
    _, said = heard(
        Box(),
        message(exit_code=1),
        message(exit_code=2),
        message("timed_out"),
        message("crashed"),
        message(exit_code=1),
    )
    assert said == ["queued"] * 4 + ["repeated"]


def test_recovered_is_told_once_and_only_after_trouble() -> None:
    _, said = heard(Box(), message("recovered"), message(), message("recovered"), message("recovered"), message())
    assert said == ["not in trouble", "queued", "queued", "not in trouble", "queued"]


def test_the_trouble_of_one_job_is_not_that_of_another() -> None:
    _, said = heard(Box(), message(), message(job="other"), message("recovered", job="third"))
    assert said == ["queued", "queued", "not in trouble"]


def test_fifty_at_once_are_a_few_messages_that_stand_for_all() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(50)))
    _, sent, seconds = drained(box)
    assert [each.count for each in sent] == [1, 1, 1, 47]
    assert len(sent[-1].held) == 47
    assert seconds <= HOLD_S


def test_one_that_is_over_the_burst_alone_is_sent_as_it_is() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(4)))
    _, sent, _ = drained(box)
    assert [each.held for each in sent] == [(), (), (), ()]


def test_after_the_burst_messages_go_one_by_one_again() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(50)))
    box, _, seconds = drained(box)
    box, _ = heard(box, message(job="later"), seconds=seconds + 61)
    _, sent, _ = drained(box, seconds=seconds + 61)
    assert [each.job for each in sent] == ["later"]


def test_what_cannot_be_sent_waits_longer_each_time_and_is_dropped_after_a_day() -> None:
    box, _ = heard(Box(), message())
    waits, seconds = [], 0.0
    while box.waiting:
        due = alert_box.due(box, ALERTS, now=at(seconds))
        if due.message is None:
            assert due.wait_s is not None
            waits.append(due.wait_s)
            seconds += due.wait_s
        else:
            box = alert_box.failed(box, "500 broken", now=at(seconds))
    assert waits[:6] == [30, 60, 120, 240, 480, 900]
    assert 86400 <= seconds <= 86400 + 900
    assert (box.dropped, box.last_error) == (1, "500 broken")


def test_a_receiver_that_is_back_gets_what_waited() -> None:
    box, _ = heard(Box(), message(job="a"), message(job="b"))
    box = alert_box.failed(box, "refused", now=at(0))
    box, sent, _ = drained(box, seconds=1)
    assert [each.job for each in sent] == ["a", "b"]
    assert (box.failures, box.last_error, box.not_before) == (0, None, None)


def test_a_box_does_not_grow_without_end() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(1500)))
    assert len(box.troubles) == 1000
    assert (len(box.waiting), box.dropped) == (500, 1000)
    assert box.waiting[-1].message.job == "job-1499"


def test_a_box_survives_the_disk() -> None:
    box, _ = heard(Box(), message(run_id="1"), message(exit_code=3), message(job="b"))
    box = alert_box.failed(box, "no", now=at(1))
    assert Box.from_json(json.loads(json.dumps(box.to_json()))) == box
    with pytest.raises(KeyError):
        Box.from_json({})
