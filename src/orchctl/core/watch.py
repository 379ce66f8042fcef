"""What the watchdog makes of what it saw: which troubles are new, which go on, which are over, and whom to tell. Pure.

A trouble is told once, again after `repeat_after`, and once when it is over. What could not be looked at is neither:
it stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from orchctl.core import alerts as model
from orchctl.core.alerts import EVENTS, Alerts, Event, Message
from orchctl.core.names import format_instant, parse_instant

RECENT = timedelta(seconds=150)
"""Where all was well so long ago at most, a trouble is counted from there; else from when it was first seen."""
UNSTEADY = timedelta(hours=1)
"""A trouble that comes back within this is the same one, which comes and goes."""
CALM = timedelta(minutes=10)
"""One that comes and goes counts as over after so long without it, so that it is not told at each turn."""
UNSEEN = "unseen"
"""The area of what could not be looked at."""
UNSEEN_AFTER_S = 600.0
"""For so long a check may not be possible before that is told: a busy host is no blind one."""
_LINES = 20
MOST_OPEN = 2000
"""Troubles that are remembered. More than a catalog has jobs means that something else is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now. `key` says what it is, whatever is said of it: `area` or `area:which`.

    `about` as in `Message`; `job` None for what is the host's. `after_s`: how long it may last before it is told.
    `since`: from when on it is known to be so, None: as far as the looks tell. `command` is what shows more.
    """

    key: str
    event: Event
    reason: str
    about: str | None = None
    job: str | None = None
    tags: tuple[str, ...] = ()
    after_s: float = 0.0
    since: datetime | None = None
    command: str | None = None

    @property
    def area(self) -> str:
        """What was looked at to see it."""
        return area_of(self.key)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found. `areas` are those that it could look at: of the others it says nothing, nor of the keys in
    `unseen`, which are the part of an area that could not be looked at.
    """

    problems: tuple[Problem, ...]
    areas: frozenset[str]
    unseen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Trouble:
    """One that is open, or was within the last hour. `told` is when it was told last, None: not yet; to `channels`.

    `well`: since when it has not been seen; `over`: when its end was told. `times`: how often it came.
    """

    event: Event
    since: datetime
    about: str | None = None
    job: str | None = None
    tags: tuple[str, ...] = ()
    told: datetime | None = None
    channels: tuple[str, ...] = ()
    well: datetime | None = None
    over: datetime | None = None
    times: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        moments = {name: getattr(self, name) for name in ("told", "well", "over")}
        return {
            "event": self.event,
            "since": format_instant(self.since),
            "about": self.about,
            "job": self.job,
            "tags": list(self.tags),
            "channels": list(self.channels),
            "times": self.times,
            **{name: format_instant(at) if at is not None else None for name, at in moments.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trouble:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        if data["event"] not in EVENTS:
            raise ValueError(f"there is no event {data['event']!r:.40}")
        moments = {name: data.get(name) for name in ("told", "well", "over")}
        return cls(
            event=data["event"],
            since=parse_instant(data["since"]),
            about=data.get("about"),
            job=data.get("job"),
            tags=tuple(data.get("tags", ())),
            channels=tuple(data.get("channels", ())),
            times=int(data.get("times", 1)),
            **{name: parse_instant(at) if at is not None else None for name, at in moments.items()},
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """What is to be told: `letters` are the messages of each channel. `open` is what to remember of the troubles.

    `new`, `again` and `over` are the keys of those that are told for the first time, once more, and as ended.
    """

    letters: Mapping[str, tuple[Message, ...]] = field(default_factory=dict)
    open: Mapping[str, Trouble] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


def area_of(key: str) -> str:
    """Return the area of a key."""
    return key.partition(":")[0]


def unseen(key: str, event: Event, why: str, *, job: str | None = None, tags: tuple[str, ...] = ()) -> Problem:
    """Return that an area, or the part of it that `key` names, could not be looked at, and `why`.

    It is told as `event`: to those who would be told, could it be seen.
    """
    return Problem(
        f"{UNSEEN}:{key}",
        event,
        f"it could not be looked at, so nobody knows: {why}",
        about=f"the look at {area_of(key)}",
        job=job,
        tags=tags,
        after_s=UNSEEN_AFTER_S,
        command="orchctl watchdog --dry-run",
    )


def blind(troubles: Mapping[str, Trouble], now: datetime) -> dict[str, datetime]:
    """Return what of the watchdog's memory could not be looked at for too long, and since when, by area or key."""
    return {
        key.partition(":")[2]: trouble.since
        for key, trouble in troubles.items()
        if area_of(key) == UNSEEN and trouble.well is None and now - trouble.since >= timedelta(seconds=UNSEEN_AFTER_S)
    }


def decide(
    looked: Looked,
    before: Mapping[str, Trouble],
    well_at: Mapping[str, datetime],
    alerts: Alerts,
    *,
    host: str,
    now: datetime,
    mask: Callable[[str], str] = str,
) -> Decided:
    """Return what to tell whom, and what to remember.

    `before` is what was remembered; `well_at` says when nothing was wrong in each area last. Deciding again with what
    it returns, from the same look at the same instant, tells nothing.
    """
    seen = {problem.key: problem for problem in looked.problems[:MOST_OPEN]}
    opened: dict[str, Trouble] = {}
    sent: list[tuple[Message, Sequence[str]]] = []
    new, again, over = list[str](), list[str](), list[str]()
    for key, problem in seen.items():
        trouble = _now(problem, before.get(key), well_at.get(problem.area), now)
        first = trouble.told is None
        due = now if trouble.told is None else trouble.told + timedelta(seconds=alerts.repeat_after)
        ways = [each.name for each in alerts.ways(problem.event, job=problem.job, tags=problem.tags)]
        if ways and due <= now and now - trouble.since >= timedelta(seconds=problem.after_s):
            sent.append((_message(problem, trouble, host, now), ways))
            trouble = replace(trouble, told=now, channels=tuple(sorted({*trouble.channels, *ways})))
            (new if first else again).append(key)
        opened[key] = trouble
    for key, left, message in _ending(before, seen, looked, host, now):
        if left is not None:
            opened[key] = left
        if message is not None:
            over.append(key)
            told = before[key]
            ways = [each.name for each in alerts.ways("recovered", job=told.job, tags=told.tags)]
            sent.append((message, [name for name in ways if name in told.channels]))
    letters = {
        name: _held(tuple(message.masked(mask) for message, ways in sent if name in ways), alerts.burst)
        for name in alerts.channels
    }
    kept = {name: messages for name, messages in letters.items() if messages}
    return Decided(kept, opened, tuple(new), tuple(again), tuple(over))


def well_now(looked: Looked, well_at: Mapping[str, datetime], now: datetime) -> dict[str, datetime]:
    """Return when nothing was wrong in each area last."""
    wrong = {problem.area for problem in looked.problems} | {area_of(key) for key in looked.unseen}
    return {**well_at, **dict.fromkeys(looked.areas - wrong, now)}


def _now(problem: Problem, had: Trouble | None, well_at: datetime | None, now: datetime) -> Trouble:
    """Return the trouble that a problem is: the one that is open, or a new one."""
    if had is not None and had.over is None:
        return replace(had, event=problem.event, about=problem.about, job=problem.job, tags=problem.tags, well=None)
    if had is not None and had.over is not None and now - had.over >= UNSTEADY:
        had = None
    recent = well_at if well_at is not None and now - well_at <= RECENT else now
    since = problem.since or (now if had is not None else recent)
    times = had.times + 1 if had is not None else 1
    return Trouble(problem.event, since, problem.about, problem.job, problem.tags, times=times)


def _ending(
    before: Mapping[str, Trouble], seen: Iterable[str], looked: Looked, host: str, now: datetime
) -> Iterator[tuple[str, Trouble | None, Message | None]]:
    """Yield what is left of each trouble that is not seen now, and the message of its end, if it has ended."""
    for key, trouble in before.items():
        if key in seen:
            continue
        if trouble.over is not None:
            yield key, trouble if now - trouble.over < UNSTEADY else None, None
        elif area_of(key) not in looked.areas or key in looked.unseen:
            yield key, trouble, None
        elif trouble.told is None:
            yield key, None, None
        else:
            well = trouble.well or now
            calm = trouble.times == 1 or now - well >= CALM
            left = replace(trouble, well=well, over=now if calm else None)
            yield key, left, _end(trouble, host, now) if calm else None


def _message(problem: Problem, trouble: Trouble, host: str, now: datetime) -> Message:
    lasting = f"since {format_instant(trouble.since)}" if now - trouble.since >= timedelta(minutes=1) else ""
    still = f"still so, {lasting}" if trouble.told is not None else lasting
    often = f"the {trouble.times}. time, it comes and goes" if trouble.times > 1 and trouble.told is None else ""
    reason = "; ".join(filter(None, (problem.reason, still, often)))
    return Message(
        problem.event, now, host, job=problem.job, about=problem.about, reason=reason, command=problem.command
    )


def _end(trouble: Trouble, host: str, now: datetime) -> Message:
    was = model.words(trouble.event)
    reason = f"it was: {was}, from {format_instant(trouble.since)} until {format_instant(trouble.well or now)}"
    return Message("recovered", now, host, job=trouble.job, about=trouble.about or was, reason=reason)


def _held(messages: tuple[Message, ...], burst: int) -> tuple[Message, ...]:
    """Return the messages of one channel: more than `burst` held together as one, with what each says."""
    if len(messages) <= burst:
        return messages
    lines = [
        f"{message.subject.removeprefix('[orchctl] ')}: {message.reason}" if message.reason else message.subject
        for message in messages
    ]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"and {len(lines) - _LINES + 1} more"]
    return (replace(model.held_together(messages), held=tuple(lines), command="orchctl watchdog --dry-run"),)
