"""Names, dates and run ids: what may become part of a path, and how it is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DOTTED_NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
ENV_KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
RUN_ID_PATTERN = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"

# `\Z`, not `$`: `$` also matches before a final newline.
_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_DOTTED = re.compile(DOTTED_NAME_PATTERN.replace("$", r"\Z"))
_ENV_KEY = re.compile(ENV_KEY_PATTERN.replace("$", r"\Z"))
_RUN_ID = re.compile(RUN_ID_PATTERN.replace("$", r"\Z"))
_SLOT = re.compile(r"[0-9]{8}T[0-9]{6}(?:\.[0-9]{6})?Z\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


def visible(text: str) -> str:
    """Return `text` without anything that a terminal would obey: control characters are written out.

    What comes from Prefect, from scripts and from files ends up on an operator's terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_name(text: str) -> bool:
    """Whether `text` may name a job, schedule or work pool (and so a file)."""
    return _NAME.match(text) is not None


def is_dotted_name(text: str) -> bool:
    """Whether `text` may name an asset or a step; `..` is refused although each dot alone is allowed."""
    return _DOTTED.match(text) is not None and ".." not in text


def is_env_key(text: str) -> bool:
    """Whether `text` may be the name of an environment variable."""
    return _ENV_KEY.match(text) is not None


def is_run_id(text: str) -> bool:
    """Whether `text` is a whole run id such as `20251219T020143Z-3f9a1c`."""
    return _RUN_ID.match(text) is not None


def nearest(found: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed word most like `found`, or None where none is near."""
    close = difflib.get_close_matches(found.lower(), list(allowed), n=1, cutoff=0.6)
    return close[0] if close else None


def parse_date(text: str) -> date:
    """Read `YYYY-MM-DD`.

    Raises ValueError on anything else, also on what `date.fromisoformat` would take (`20251219`, `2025-W51`).
    """
    if not _DATE.match(text):
        raise ValueError(f"{text!r:.60} is not a date like 2025-12-19 (YYYY-MM-DD)")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date like 2025-12-19 (YYYY-MM-DD): {error}") from error


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 instant with a zone (`2025-12-19T05:00:00Z`); the answer is in UTC.

    Raises ValueError on anything else; an instant without a zone is refused, for it would be a guess.
    """
    if not _INSTANT.match(text):
        raise ValueError(f"{text!r:.60} is not an instant like 2025-12-19T05:00:00Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 in UTC") from error
    except ValueError as error:
        raise ValueError(f"{text!r} is not an instant like 2025-12-19T05:00:00Z: {error}") from error


def format_instant(instant: datetime) -> str:
    """Write an instant in UTC: whole seconds as `2025-12-19T05:00:00Z`, others with three decimals."""
    moment = instant.astimezone(UTC)
    precision = "milliseconds" if moment.microsecond >= 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def format_exact(instant: datetime) -> str:
    """Write an instant in UTC with its microseconds, so that reading it gives the same instant."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def slot_name(slot: datetime) -> str:
    """Write a slot so that it can be a file name and sorts by time: `20251219T050000Z`, with microseconds if any."""
    moment = slot.astimezone(UTC)
    fraction = f".{moment.microsecond:06d}" if moment.microsecond else ""
    return _compact(moment) + fraction + "Z"


def parse_slot_name(text: str) -> datetime:
    """Read what `slot_name` wrote. Raises ValueError on anything else."""
    if not _SLOT.match(text):
        raise ValueError(f"{text!r:.60} is not the name of a slot")
    form = "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=UTC)


def run_id(started_for: datetime, flow_run_id: str) -> str:
    """Return the id of the run that serves `flow_run_id`.

    It is derived, not drawn: every attempt of one flow run, and whoever asked for the run, compute the same
    id without asking each other. It sorts by `started_for`, the instant the flow run was scheduled for.
    """
    import hashlib  # here: it loads OpenSSL, and every command loads this module

    digest = hashlib.sha256(flow_run_id.encode()).hexdigest()[:6]
    return f"{_compact(started_for.astimezone(UTC))}Z-{digest}"


def _compact(moment: datetime) -> str:
    # Not strftime alone: its %Y writes the year 999 with three digits.
    return f"{moment.year:04d}{moment:%m%dT%H%M%S}"


def run_instant(run: str) -> datetime:
    """Return the instant in a run id (UTC, whole seconds). The id must be a whole one."""
    return datetime.strptime(run[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
