"""What became of messages: the answer of a receiver, and the outbox of what is yet to be delivered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from orchctl.core.alerts import Alerts, Message
from orchctl.core.names import format_instant, parse_instant
from orchctl.core.words import counted

KEPT_FOR = timedelta(days=3)
"""What could not be delivered for so long is given up: nobody can act on it any more."""
MOST_A_CHANNEL = 20
"""Letters that wait for one channel. Beyond them the oldest go; how many is told with the next that stays."""
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=30)
LONGEST_SILENCE = timedelta(hours=8)
"""The longest wait before a message is sent again that may have arrived."""

Fault = Literal["message", "login", "silence"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a message: `said` is the receiver's word, or ours where it said nothing; no secret is in it.

    `attempts`: how often it was sent. `again`: whether it is worth sending again later as things are; a wrong password
    or a certificate that is not trusted stays wrong until somebody puts it right.

    `fault` says more where that matters, else it is None. `message`: this one is refused, another may be taken.
    `login`: the login is refused, and each attempt counts against the account. `silence`: all of it was sent and there
    was no answer, so that it may well have arrived.
    """

    ok: bool
    said: str
    attempts: int = 0
    again: bool = False
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The last attempt to deliver through a channel, at `at` (UTC). `ok_at`: the last one that worked, None: none yet.

    `waiting`: how many messages wait for it, the watchdog's and those in its box; `boxed`: how many of them are in the
    box. `dropped`: how many the box has given up, ever.
    """

    channel: str
    at: datetime
    ok: bool
    said: str
    ok_at: datetime | None = None
    waiting: int = 0
    boxed: int = 0
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        return {
            "channel": self.channel,
            "at": format_instant(self.at),
            "ok": self.ok,
            "said": self.said,
            "ok_at": format_instant(self.ok_at) if self.ok_at is not None else None,
            "waiting": self.waiting,
            "boxed": self.boxed,
            "dropped": self.dropped,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Delivery:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        ok_at = data.get("ok_at")
        return cls(
            channel=str(data["channel"]),
            at=parse_instant(data["at"]),
            ok=data["ok"] is True,
            said=str(data["said"]),
            ok_at=parse_instant(ok_at) if ok_at is not None else None,
            waiting=int(data.get("waiting", 0)),
            boxed=int(data.get("boxed", 0)),
            dropped=int(data.get("dropped", 0)),
        )


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way through one channel. `id` is the same in every attempt, so that a receiver can tell.

    `due`: not before this is it sent again. `held`: not by itself, for its channel refused for good; it goes with the
    next message that the channel takes. `lost`: how many before it were given up, which is told with it.
    """

    id: str
    channel: str
    message: Message
    queued: datetime
    due: datetime
    tries: int = 0
    held: bool = False
    lost: int = 0

    @property
    def told(self) -> Message:
        """The message as it is sent: it says how many before it could never be delivered."""
        if not self.lost:
            return self.message
        some = counted(self.lost, "earlier message")
        said = f"{self.message.reason or ''} (and {some} that could not be delivered)".strip()
        return replace(self.message, reason=said, count=self.message.count + self.lost)

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        return {
            "id": self.id,
            "channel": self.channel,
            "message": self.message.to_json(),
            "queued": format_instant(self.queued),
            "due": format_instant(self.due),
            "tries": self.tries,
            "held": self.held,
            "lost": self.lost,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Letter:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            id=str(data["id"]),
            channel=str(data["channel"]),
            message=Message.from_json(data["message"]),
            queued=parse_instant(data["queued"]),
            due=parse_instant(data["due"]),
            tries=int(data["tries"]),
            held=data["held"] is True,
            lost=int(data.get("lost", 0)),
        )


def kept(letters: Iterable[Letter], alerts: Alerts, now: datetime) -> tuple[Letter, ...]:
    """Return the letters that stay, oldest first: those of channels that are gone, and what is too old, go.

    Of more than `MOST_A_CHANNEL` for a channel the oldest go. The oldest that stays counts those that went before it.
    """
    known, found = list(letters), list[Letter]()
    for name in alerts.channels:
        own = [each for each in known if each.channel == name]
        stays = [each for each in own if now - each.queued < KEPT_FOR][-MOST_A_CHANNEL:]
        lost = sum(1 + each.lost for each in own if each not in stays)
        if lost and stays:
            stays[0] = replace(stays[0], lost=stays[0].lost + lost)
        found += stays
    return tuple(sorted(found, key=lambda each: each.queued))


def to_send(letters: Sequence[Letter], now: datetime) -> dict[str, tuple[Letter, ...]]:
    """Return what is to be sent now, by channel, in order.

    A channel with nothing due is left alone. Where something is due all that waits for it goes, what is held last:
    whether the channel takes messages again shows with the first.
    """
    found: dict[str, tuple[Letter, ...]] = {}
    for name in dict.fromkeys(each.channel for each in letters):
        own = [each for each in letters if each.channel == name]
        if any(each.due <= now and not each.held for each in own):
            found[name] = tuple(sorted(own, key=lambda each: (each.held, each.queued)))
    return found


def after(letter: Letter, answer: Answer, now: datetime) -> Letter | None:
    """Return what is left of a letter: None where it was delivered, else when it is tried again.

    What may have arrived is repeated ever more rarely.
    """
    if answer.ok:
        return None
    longest = LONGEST_SILENCE if answer.fault == "silence" else _LONGEST_WAIT
    wait = min(longest, _FIRST_WAIT * 2 ** min(letter.tries, 10))
    return replace(letter, tries=letter.tries + 1, due=now + wait, held=not answer.again)
