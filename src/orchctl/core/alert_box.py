"""What one channel was told, and what it still has to be: no alert twice, no storm, none lost. Pure.

A trouble is told once for each way it shows, again only after a while, and its end once. More messages than people
can read one by one are held together. What could not be sent waits and is tried again; one that is refused for good is
set aside, so that it keeps no other back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from orchctl.core.alerts import Alerts, Message, held_together
from orchctl.core.deliveries import LONGEST_SILENCE, Answer
from orchctl.core.names import format_exact, parse_instant

HOLD_S = 15
"""Seconds that the oldest of many messages waits for others to be sent with it."""
GIVEN_UP_AFTER = timedelta(hours=24)
"""A message that could not be sent for so long is dropped."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30, 900
_LOGIN_PAUSE_S = 3600
"""After a login that was refused: enough of them would lock the account."""
_ASIDE_FIRST_S = 3600
"""How long a message that was refused for good is set aside, at first."""
_QUEUE_MOST = 500
_TROUBLES_MOST = 1000

Heard = Literal["queued", "repeated", "not in trouble"]


@dataclass(frozen=True, slots=True)
class Told:
    """One way in which a trouble showed: when it was told last, how often it came up since, and in which run."""

    at: datetime
    since: int = 0
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is yet to be sent; `number` grows, `since` is when it was queued.

    `aside`: not before this, and after all others, for it was refused, or may have arrived; None: as the others.
    `tries`: how often that was.
    """

    number: int
    since: datetime
    message: Message
    aside: datetime | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """The memory of one channel. Instants are UTC, None: never.

    `troubles` holds by trouble and kind what was told. `sent` are the instants of what was sent lately. `failures` is
    how many attempts in a row failed, or were begun and nobody knows their end; `not_before` when the next may be made.
    `last_error` belongs to the last attempt where that failed, else it is None. `dropped` counts what was given up.
    """

    troubles: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    next_number: int = 1
    sent: tuple[datetime, ...] = ()
    failures: int = 0
    not_before: datetime | None = None
    last_error: str | None = None
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        return {
            "version": 1,
            "troubles": {
                trouble: {kind: [_text(told.at), told.since, told.run_id] for kind, told in kinds.items()}
                for trouble, kinds in self.troubles.items()
            },
            "waiting": [
                [each.number, _text(each.since), each.message.to_json(), _text(each.aside), each.tries]
                for each in self.waiting
            ],
            "next_number": self.next_number,
            "sent": [_text(each) for each in self.sent],
            "failures": self.failures,
            "not_before": _text(self.not_before),
            "last_error": self.last_error,
            "dropped": self.dropped,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Box:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            troubles={
                trouble: {kind: Told(parse_instant(at), int(since), run) for kind, (at, since, run) in kinds.items()}
                for trouble, kinds in data["troubles"].items()
            },
            waiting=tuple(_waiting(*each) for each in data["waiting"]),
            next_number=int(data["next_number"]),
            sent=tuple(parse_instant(each) for each in data["sent"]),
            failures=int(data["failures"]),
            not_before=_instant(data["not_before"]),
            last_error=data["last_error"],
            dropped=int(data["dropped"]),
        )


@dataclass(frozen=True, slots=True)
class Due:
    """What to do next: send `message`, which stands for the waiting ones of these `numbers`; or wait `wait_s` seconds.

    `message` None: nothing is due now. `wait_s` None: nothing waits at all.
    """

    message: Message | None
    numbers: tuple[int, ...] = ()
    wait_s: float | None = None


def hear(box: Box, message: Message, alerts: Alerts, *, now: datetime) -> tuple[Box, Heard]:
    """Return the box after an alert, and whether it is to be sent."""
    trouble, kind = message.trouble, _kind(message)
    known = box.troubles.get(trouble, {})
    if message.event == "recovered":
        if not known:
            return box, "not in trouble"
        left = {key: value for key, value in box.troubles.items() if key != trouble}
        return _queued(replace(box, troubles=left), message, now), "queued"
    told = known.get(kind)
    if told is not None and now - told.at < timedelta(seconds=alerts.repeat_after):
        # The same run again: Prefect repeats itself, or two routes lead here.
        again = (
            told if told.run_id is not None and told.run_id == message.run_id else replace(told, since=told.since + 1)
        )
        again = replace(again, run_id=message.run_id)
        return replace(box, troubles={**box.troubles, trouble: {**known, kind: again}}), "repeated"
    count = message.count + (told.since if told is not None else 0)
    new = {**box.troubles, trouble: {**known, kind: Told(now, 0, message.run_id)}}
    while len(new) > _TROUBLES_MOST:
        del new[next(iter(new))]
    return _queued(replace(box, troubles=new), replace(message, count=count), now), "queued"


def due(box: Box, alerts: Alerts, *, now: datetime) -> Due:
    """Return what to do next."""
    if not box.waiting:
        return Due(None)
    if box.not_before is not None and now < box.not_before:
        return Due(None, wait_s=(box.not_before - now).total_seconds())
    ready = [each for each in box.waiting if each.aside is None or each.aside <= now]
    if not ready:
        first_s = min((each.aside - now).total_seconds() for each in box.waiting if each.aside is not None)
        return Due(None, wait_s=first_s)
    ready.sort(key=lambda each: (each.aside is not None, each.number))
    within = timedelta(seconds=alerts.burst_within)
    if sum(now - each < within for each in box.sent) < alerts.burst:
        return Due(ready[0].message, (ready[0].number,))
    held = (ready[0].since + timedelta(seconds=HOLD_S) - now).total_seconds()
    if held > 0:
        return Due(None, wait_s=held)
    # One that was refused would have those refused that go with it.
    some = [each for each in ready if (each.aside is None) == (ready[0].aside is None)]
    messages = tuple(each.message for each in some)
    message = messages[0] if len(messages) == 1 else held_together(messages)
    return Due(message, tuple(each.number for each in some))


def begun(box: Box, *, now: datetime) -> Box:
    """Return the box with an attempt that begins. Whoever finds it so cannot tell whether the message went out, and
    does not send it again at once.
    """
    return replace(box, failures=box.failures + 1, not_before=now + _pause(box.failures + 1))


def sent(box: Box, numbers: tuple[int, ...], alerts: Alerts, *, now: datetime) -> Box:
    """Return the box after these were sent. Where one was taken that was set aside before, the others may be too."""
    within = timedelta(seconds=alerts.burst_within)
    back = any(each.aside is not None for each in box.waiting if each.number in numbers)
    left = (each for each in box.waiting if each.number not in numbers)
    return replace(
        box,
        waiting=tuple(replace(each, aside=now) if back and each.aside is not None else each for each in left),
        sent=(*(each for each in box.sent if now - each < within), now),
        failures=0,
        not_before=None,
        last_error=None,
    )


def failed(box: Box, numbers: tuple[int, ...], answer: Answer, *, now: datetime) -> Box:
    """Return the box after an attempt, that had `begun`, to send these failed: the next one is later.

    A message that is refused, or may have arrived, is set aside. What waited for a day is dropped.
    """
    pause = timedelta(seconds=_LOGIN_PAUSE_S) if answer.fault == "login" else _pause(box.failures)
    kept = tuple(each for each in box.waiting if now - each.since < GIVEN_UP_AFTER)
    return replace(
        box,
        waiting=tuple(_aside(each, answer, now) if each.number in numbers else each for each in kept),
        not_before=now + pause,
        last_error=answer.said,
        dropped=box.dropped + len(box.waiting) - len(kept),
    )


def _pause(failures: int) -> timedelta:
    """Return how long to leave a channel alone after so many failures."""
    return timedelta(seconds=min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10)))


def _aside(waiting: Waiting, answer: Answer, now: datetime) -> Waiting:
    first = {"message": _ASIDE_FIRST_S, "silence": _FIRST_PAUSE_S}.get(answer.fault or "")
    if first is None:
        return waiting
    wait = min(LONGEST_SILENCE, timedelta(seconds=first * 2 ** min(waiting.tries, 10)))
    return replace(waiting, aside=now + wait, tries=waiting.tries + 1)


def _queued(box: Box, message: Message, now: datetime) -> Box:
    queue = (*box.waiting, Waiting(box.next_number, now, message))
    over = max(0, len(queue) - _QUEUE_MOST)
    return replace(box, waiting=queue[over:], next_number=box.next_number + 1, dropped=box.dropped + over)


def _kind(message: Message) -> str:
    """Return the way in which a trouble shows: another exit code is news."""
    return message.event if message.exit_code is None else f"{message.event} {message.exit_code}"


def _waiting(number: Any, since: str, message: Mapping[str, Any], aside: str | None = None, tries: Any = 0) -> Waiting:
    return Waiting(int(number), parse_instant(since), Message.from_json(message), _instant(aside), int(tries))


def _text(instant: datetime | None) -> str | None:
    return format_exact(instant) if instant is not None else None


def _instant(text: str | None) -> datetime | None:
    return parse_instant(text) if text is not None else None
