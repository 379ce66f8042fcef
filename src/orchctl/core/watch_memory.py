"""What the watchdog remembers from one look to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchctl.core.deliveries import Letter
from orchctl.core.names import format_instant, parse_instant
from orchctl.core.watch import Trouble

VERSION = 1


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing it down: `problem` None where it is on the disk; `kept`: there, or at least in memory."""

    problem: str | None = None
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Missed:
    """Slots of a job that nobody took, and that no later run has made good: how many, the first and the last."""

    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Watched:
    """How far the slots of a job were looked at. `rules` stands for its schedules: with others it begins anew."""

    rules: str
    until: datetime
    missed: Missed | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it. `well_at` says when nothing was wrong in each area last; `digest` which catalog was in force."""

    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    well_at: Mapping[str, datetime] = field(default_factory=dict)
    slots: Mapping[str, Watched] = field(default_factory=dict)
    outbox: tuple[Letter, ...] = ()
    digest: str | None = None

    def to_json(self, at: datetime) -> dict[str, Any]:
        """Return it as `from_json` reads it, as of `at`."""
        return {
            "version": VERSION,
            "at": format_instant(at),
            "troubles": {key: trouble.to_json() for key, trouble in self.troubles.items()},
            "well_at": {area: format_instant(moment) for area, moment in self.well_at.items()},
            "slots": {job: _watched_json(watched) for job, watched in self.slots.items()},
            "outbox": [letter.to_json() for letter in self.outbox],
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, data: Any) -> tuple[datetime, Memory]:
        """Return as of when it is, and the memory. Raises ValueError on anything else."""
        try:
            if data["version"] != VERSION:
                raise ValueError(f"it is of version {data['version']!r:.20}")
            return parse_instant(data["at"]), cls(
                troubles={str(key): Trouble.from_json(each) for key, each in data["troubles"].items()},
                well_at={str(area): parse_instant(moment) for area, moment in data["well_at"].items()},
                slots={str(job): _watched(each) for job, each in data["slots"].items()},
                outbox=tuple(Letter.from_json(each) for each in data["outbox"]),
                digest=data.get("digest"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not what the watchdog writes: {error!r:.80}") from error


@dataclass(frozen=True, slots=True)
class Known:
    """The instants of schedules from `start` up to, and without, `end`: epoch seconds by what stands for the rules."""

    start: datetime
    end: datetime
    instants: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        held = {rules: list(found) for rules, found in self.instants.items()}
        return {
            "version": VERSION,
            "start": format_instant(self.start),
            "end": format_instant(self.end),
            "instants": held,
        }

    @classmethod
    def from_json(cls, data: Any) -> Known:
        """Read it. Raises ValueError on anything else."""
        try:
            found = {str(rules): [int(each) for each in instants] for rules, instants in data["instants"].items()}
            if data["version"] != VERSION:
                raise ValueError(f"it is of version {data['version']!r:.20}")
            return cls(parse_instant(data["start"]), parse_instant(data["end"]), found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not what the watchdog writes: {error!r:.80}") from error

    def of(self, rules: str, after: datetime, until: datetime) -> list[datetime]:
        """Return the instants of rules after `after`, up to and with `until`."""
        first, last = after.timestamp(), until.timestamp()
        return [datetime.fromtimestamp(at, UTC) for at in self.instants.get(rules, ()) if first < at <= last]


def _watched_json(watched: Watched) -> dict[str, Any]:
    missed = watched.missed
    return {
        "rules": watched.rules,
        "until": format_instant(watched.until),
        "missed": None
        if missed is None
        else {"count": missed.count, "first": format_instant(missed.first), "last": format_instant(missed.last)},
    }


def _watched(data: Any) -> Watched:
    missed = data.get("missed")
    return Watched(
        str(data["rules"]),
        parse_instant(data["until"]),
        None
        if missed is None
        else Missed(int(missed["count"]), parse_instant(missed["first"]), parse_instant(missed["last"])),
    )
