"""What `doctor` looks at on a host, and what it says of it. Pure.

A check asks one question. Its answer is one finding or more, each ok, a warning, a failure, or unknown where it could
not be looked at: nothing that was not seen passes for ok. The order of the checks is that in which to mend things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchctl.core.names import nearest
from orchctl.errors import NotBelieved, OrchctlError, StateBroken, UsageError

Level = Literal["ok", "warning", "failure", "unknown"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "failure", "unknown")
_WORST: tuple[Level, ...] = ("failure", "warning", "unknown")


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `asks` is its question, answered by yes where all is well."""

    name: str
    group: str
    asks: str


CHECKS = (
    Check("catalog", "configuration", "is there a catalog that is valid, and that nobody else could have written?"),
    Check("versions", "software", "are the installed packages within the bounds that orchctl was tried with?"),
    Check("server-version", "software", "does the server run the Prefect that its clients have?"),
    Check("state", "host", "can the state directory be used, and believed?"),
    Check("units", "host", "are the units of `host install` there, enabled and running?"),
    Check("ports", "host", "does one Prefect server hold the API's port, and nothing else?"),
    Check("clock", "host", "is this host's clock synchronised, and that of Prefect's server the same?"),
    Check("zone", "host", "do timers and crontabs mean the catalog's time zone?"),
    Check("disk", "host", "is there room, in bytes and in inodes?"),
    Check("permissions", "host", "can the worker's user write what is under the data roots, and nobody else?"),
    Check("secrets", "host", "can only their owner read the files that hold secrets?"),
    Check("leftovers", "host", "did nothing that is dead leave anything behind?"),
    Check("api", "server", "does Prefect's API answer?"),
    Check("auth", "server", "does it ask for credentials where it should, and take ours?"),
    Check("exposed", "server", "can only those reach the server who should?"),
    Check("database", "server", "is Prefect's database for its owner alone, and its log short?"),
    Check("pools", "scheduling", "are work pools and queues there, and not paused?"),
    Check("limits", "scheduling", "are the global limits as the catalog has them?"),
    Check("worker", "scheduling", "does a worker poll each pool?"),
    Check("hosts", "scheduling", "does this host share with others what it must, and only that?"),
    Check("deployments", "scheduling", "has Prefect what the catalog says, and is nothing of it paused?"),
    Check("scheduler", "scheduling", "are runs scheduled ahead?"),
    Check("late", "scheduling", "does no run wait past its time?"),
    Check("handover", "legacy", "is every handover finished, and every owner file to be believed?"),
    Check("triggers", "legacy", "are timers, crontab lines and fences as their owner has them?"),
    Check("handlers", "legacy", "do the failure handlers of legacy units exist?"),
    Check("linger", "legacy", "do users' timers and units run without a login?"),
    Check("backups", "safekeeping", "is there a backup that is young, and was verified?"),
    Check("alerts", "safekeeping", "is somebody told when something fails, and did the last alert arrive?"),
)
"""All checks, those of a group side by side; the first failure in this order is to be mended first."""

GROUPS = tuple(dict.fromkeys(check.group for check in CHECKS))
_BY_NAME = {check.name: check for check in CHECKS}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `check` is its name; `fix` says what to do, None where there is nothing to do."""

    check: str
    level: Level
    seen: str
    fix: str | None = None

    @property
    def group(self) -> str:
        """The group of its check."""
        return _BY_NAME[self.check].group


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found at `at` (UTC), in the order of the checks; every check that was made has a finding or more."""

    at: datetime
    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        """Return how many findings there are of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def checks(self) -> int:
        """How many checks were made."""
        return len({finding.check for finding in self.findings})

    @property
    def first(self) -> Finding | None:
        """What to do something about first: a failure before a warning before what is unknown; None where all is ok."""
        for level in _WORST:
            for finding in self.findings:
                if finding.level == level:
                    return finding
        return None

    def wrong(self, *, strict: bool) -> bool:
        """Whether anything failed; `strict`: whether anything is not ok."""
        return any(finding.level == "failure" or (strict and finding.level != "ok") for finding in self.findings)


def ok(check: str, seen: str) -> Finding:
    """Return what a check saw that has nothing against it."""
    return Finding(check, "ok", seen)


def warning(check: str, seen: str, fix: str) -> Finding:
    """Return something that is to be put right before it does harm."""
    return Finding(check, "warning", seen, fix)


def failure(check: str, seen: str, fix: str) -> Finding:
    """Return something that does harm now."""
    return Finding(check, "failure", seen, fix)


def unknown(check: str, seen: str, fix: str | None = None) -> Finding:
    """Return why something could not be looked at."""
    return Finding(check, "unknown", seen, fix)


def failed_look(check: str, error: OrchctlError) -> Finding:
    """Return what an error says that kept a check from looking.

    What cannot be believed is wrong in itself; everything else leaves the answer open.
    """
    if isinstance(error, (StateBroken, NotBelieved)):
        return failure(check, error.message, error.hint or "look at it, and at who wrote it")
    return unknown(check, error.message, error.hint)


def or_ok(found: Iterable[Finding], check: str, seen: str) -> Iterator[Finding]:
    """Yield the findings, or where there are none that all is ok."""
    there = False
    for finding in found:
        there = True
        yield finding
    if not there:
        yield ok(check, seen)


def chosen(words: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks that these names of checks and groups mean, in their order; without words all.

    Raises UsageError for a word that is neither.
    """
    for word in words:
        if word not in _BY_NAME and word not in GROUPS:
            near = nearest(word, (*_BY_NAME, *GROUPS))
            hint = (f'did you mean "{near}"? ' if near else "") + "see `orchctl doctor --list`"
            raise UsageError(f"there is no check {word!r:.80}", hint=hint)
    return tuple(check for check in CHECKS if not words or check.name in words or check.group in words)


def report(at: datetime, looks: Iterable[tuple[Check, Callable[[], Iterable[Finding]]]]) -> Report:
    """Make each check, whatever becomes of the others, and return what all of them found."""
    return Report(at, tuple(finding for check, look in looks for finding in _looked(check.name, look)))


def _looked(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        # What was seen before the error stays.
        found.extend(look())
    except OrchctlError as error:
        found.append(failed_look(check, error))
    except Exception as error:  # noqa: BLE001 - a bug in one check must not hide what the others see
        found.append(unknown(check, f"unexpected {type(error).__name__} in {_place(error)}", _BUG))
    return found or [unknown(check, "nothing was looked at", _BUG)]


_BUG = "this is a bug in orchctl: report it"


def _place(error: BaseException) -> str:
    """Return where an error was raised. What it says may hold a secret."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_name}, line {at.tb_lineno}" if at is not None else "an unknown place"
