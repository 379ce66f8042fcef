"""Catalog entries in the making: what `import` found, before it becomes TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ScheduleDraft:
    """A cadence: the keys of a schedule's table (`on_calendar`, `cron` or `every`, `timezone` where it is needed)."""

    name: str
    keys: Mapping[str, Any]
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A job: the keys of its table but `schedules` and `legacy`, which follow from `schedule` and `triggers`.

    `schedule` None: nothing can say its cadence, `comments` say why. `comments` are what could not be carried over
    exactly, one sentence each; they become comments above the table. `warnings` go to the operator as well.
    """

    name: str
    keys: Mapping[str, Any]
    schedule: ScheduleDraft | None
    triggers: tuple[Mapping[str, Any], ...]
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A unit or line that did not become a job, and the true reason."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import found: the jobs it can add, and what it cannot."""

    jobs: tuple[JobDraft, ...] = ()
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = field(default=())
