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
from orchctl.core.deliveries import Answer

ALERTS = alerts(repeat_after=3600, burst=3, burst_within=60)
BROKEN = Answer(False, "500 broken", 4, again=True)
REFUSED = Answer(False, "400 no", 1, fault="message")
NO_LOGIN = Answer(False, "the login is refused: 535", 1, fault="login")
SILENT = Answer(False, "no answer within 10 s", 1, again=True, fault="silence")


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


def failed(box: Box, answer: Answer, *numbers: int, seconds: float = 0) -> Box:
    return alert_box.failed(alert_box.begun(box, now=at(seconds)), numbers, answer, now=at(seconds))


def tried(box: Box, answer: Answer, *, until: float) -> list[tuple[float, str | None]]:
    """Answer every attempt the same; return when each was made, and for which job."""
    found, seconds = list[tuple[float, str | None]](), 0.0
    while True:
        due = alert_box.due(box, ALERTS, now=at(seconds))
        if due.message is not None:
            found.append((seconds, due.message.job))
            box = failed(box, answer, *due.numbers, seconds=seconds)
        else:
            seconds += due.wait_s if due.wait_s is not None else until
            if seconds >= until:
                return found


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
            box = failed(box, BROKEN, *due.numbers, seconds=seconds)
    assert waits[:6] == [30, 60, 120, 240, 480, 900]
    assert 86400 <= seconds <= 86400 + 900
    assert (box.dropped, box.last_error) == (1, "500 broken")


def test_a_receiver_that_is_back_gets_what_waited() -> None:
    box, _ = heard(Box(), message(job="a"), message(job="b"))
    box = failed(box, BROKEN, 1)
    assert alert_box.due(box, ALERTS, now=at(1)).message is None
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
    box = failed(box, REFUSED, 1, seconds=1)
    assert box.waiting[0].aside is not None
    assert Box.from_json(json.loads(json.dumps(box.to_json()))) == box
    with pytest.raises(KeyError):
        Box.from_json({})


def test_a_box_of_an_orchctl_that_set_nothing_aside_is_read() -> None:
    box, _ = heard(Box(), message())
    data = box.to_json()
    data["waiting"] = [each[:3] for each in data["waiting"]]
    assert Box.from_json(data) == box


def test_one_that_is_refused_for_good_keeps_no_other_back() -> None:
    box, _ = heard(Box(), message(job="bad"), message(job="b"), message(job="c"))
    box = failed(box, REFUSED, 1)
    _, sent, _ = drained(box, seconds=30)
    assert [each.job for each in sent[:2]] == ["b", "c"]


def test_one_that_is_refused_for_good_is_tried_last_and_rarely() -> None:
    box, _ = heard(Box(), message(job="bad"), message(job="b"))
    attempts = tried(box, REFUSED, until=86400)
    assert [job for _, job in attempts[:2]] == ["bad", "b"]
    assert 2 <= sum(job == "bad" for _, job in attempts) <= 6
    box = failed(box, REFUSED, 1)
    box = alert_box.sent(box, (2,), ALERTS, now=at(60))
    assert alert_box.due(box, ALERTS, now=at(3599)).message is None
    assert alert_box.due(box, ALERTS, now=at(3600)).numbers == (1,)


def test_where_one_that_was_refused_is_taken_the_others_may_be_too() -> None:
    box, _ = heard(Box(), message(job="a"), message(job="b"))
    box = failed(failed(box, REFUSED, 1), REFUSED, 2, seconds=1800)
    assert alert_box.due(box, ALERTS, now=at(3600)).numbers == (1,)
    box = alert_box.sent(box, (1,), ALERTS, now=at(3600))
    assert alert_box.due(box, ALERTS, now=at(3600)).numbers == (2,)


def test_those_that_were_refused_are_not_held_together_with_others() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(6)))
    box = failed(box, REFUSED, 1)
    for number in (2, 3, 4):
        box = alert_box.sent(box, (number,), ALERTS, now=at(3595))
    assert alert_box.due(box, ALERTS, now=at(3601)).numbers == (5, 6)


def test_a_refused_login_is_not_tried_until_the_account_is_locked() -> None:
    box, _ = heard(Box(), *(message(job=f"job-{number}") for number in range(3)))
    attempts = tried(box, NO_LOGIN, until=86399)
    assert len(attempts) == 24
    assert {job for _, job in attempts} == {"job-0"}, "it is not the message's fault"


def test_what_may_have_arrived_is_repeated_ever_more_rarely() -> None:
    box, _ = heard(Box(), message(job="a"))
    attempts = [seconds for seconds, _ in tried(box, SILENT, until=86399)]
    assert attempts[:4] == [0, 30, 90, 210]
    assert len(attempts) <= 13


def test_an_attempt_whose_end_nobody_knows_is_not_repeated_at_once() -> None:
    box, _ = heard(Box(), message(job="a"))
    box = alert_box.begun(box, now=at(0))
    assert alert_box.due(box, ALERTS, now=at(29)).message is None
    assert alert_box.due(box, ALERTS, now=at(30)).numbers == (1,)
