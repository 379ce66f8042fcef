"""A backfill: its dates, its id, and what is to be done about each date by what Prefect and the manifests say. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from orchctl.core.manifest import Run
from orchctl.core.names import format_instant, parse_date, run_id
from orchctl.core.remote import RemoteRun
from orchctl.errors import UsageError

MAX_PARTITIONS = 3_700
"""Ten years of dates: more is a typing error."""
TAG = "orchctl-backfill:"
"""Before the id: the tag of every flow run of a backfill."""
LOST_AFTER = timedelta(seconds=30)
"""A flow run whose process is nowhere is one that has not begun, until this has passed."""
_NOT_RUN = frozenset({"Skipped", "Observed"})

State = Literal["waiting", "running", "success", "failed"]
Action = Literal["create", "retry", "leave", "kept", "skip"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a backfill is of: who asks for the same gets the same backfill. `start` and `end` are inclusive."""

    catalog: str
    job: str
    start: date
    end: date
    steps: tuple[str, ...] = ()
    as_of_mode: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)

    @property
    def dates(self) -> tuple[date, ...]:
        """The game dates, oldest first."""
        return tuple(self.start + timedelta(days=number) for number in range((self.end - self.start).days + 1))

    def id(self, generation: int) -> str:
        """Return the id: it may be part of a path. `generation` counts the times that all of it was begun anew."""
        import hashlib  # here: it loads OpenSSL

        said = [self.catalog, self.job, self.start.isoformat(), self.end.isoformat(), list(self.steps)]
        whole = json.dumps([*said, self.as_of_mode, dict(sorted(self.partition.items()))])
        digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
        again = f"-{generation + 1}" if generation else ""
        return f"{self.job}-{self.start:%Y%m%d}-{self.end:%Y%m%d}-{digest}{again}"


def period(start: str, end: str, *, today: date) -> tuple[date, date]:
    """Read the first and the last date, both included. Raises UsageError for what no backfill can be of."""
    found = []
    for option, text in (("--start", start), ("--end", end)):
        try:
            found.append(parse_date(text))
        except ValueError as error:
            raise UsageError(f"{option}: {error}") from error
    first, last = found
    if first > last:
        raise UsageError(
            f"--start {first} is after --end {last}", hint="both are included: one date is --start D --end D"
        )
    if last > today:
        hint = f"today is {today}; `orchctl run JOB --date {last}` runs a single one"
        raise UsageError(f"--end {last} is yet to come: a backfill is of dates that have been", hint=hint)
    count = (last - first).days + 1
    if count > MAX_PARTITIONS:
        hint = f"at most {MAX_PARTITIONS} at once: give a nearer --start or --end"
        raise UsageError(f"{first} to {last} are {count} dates", hint=hint)
    return first, last


@dataclass(frozen=True, slots=True)
class Wish:
    """Which dates are wanted, and how.

    `only_missed`: those without any success. `failed`: those whose newest run failed. `no_resume`: what failed gets a
    new run, which knows nothing of the old one. `force`: all of it anew, whatever there is.
    """

    only_missed: bool = False
    failed: bool = False
    no_resume: bool = False
    force: bool = False

    def check(self) -> None:
        """Raise UsageError for wishes that exclude each other."""
        if self.only_missed and self.failed:
            raise UsageError("--only-missed and --failed exclude each other")
        if self.force and (self.only_missed or self.failed):
            raise UsageError("--force runs every date: leave out --only-missed and --failed")


@dataclass(frozen=True, slots=True)
class History:
    """What the manifests say of one date, whoever ran it: the newest success, and the newest run that did anything."""

    success: Run | None = None
    newest: Run | None = None

    @classmethod
    def of(cls, runs: Sequence[Run]) -> History:
        """Sort out the runs of a date; those that were skipped or only observed did nothing."""
        real = sorted((run for run in runs if run.status not in {"skipped", "observed"}), key=_age)
        good = [run for run in real if run.status == "success"]
        return cls(good[-1] if good else None, real[-1] if real else None)


def _age(run: Run) -> tuple[datetime, str]:
    return run.started_at, run.run_id


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest flow run of a backfill for one date, and the manifest it has left, None where there is none.

    `lost`: Prefect takes it for one that is going, and its process is surely gone.
    """

    flow_run: RemoteRun
    run: Run | None = None
    lost: bool = False

    @property
    def state(self) -> State:
        """What has become of it. A success that Prefect was not told of is a success."""
        done = self.run is not None and self.run.status == "success"
        kind = self.flow_run.state_type
        if kind == "COMPLETED":
            return "failed" if self.flow_run.state_name in _NOT_RUN else "success"
        if self.flow_run.finished or self.lost:
            return "success" if done else "failed"
        return "running" if kind in {"PENDING", "RUNNING", "CANCELLING"} else "waiting"

    @property
    def why(self) -> str:
        """Say in what state it is, and why, in a few words."""
        if self.lost:
            return "its process is gone and left no result"
        said = (self.run.reason if self.run else None) or self.flow_run.state_message
        state = (self.flow_run.state_name or self.flow_run.state_type or "no state").lower()
        text = " ".join((said or "").split())
        return text if text and state == "failed" else f"{state}: {text}" if text else state


@dataclass(frozen=True, slots=True)
class Partition:
    """One date and what is to be done. `seen` is its newest run in this backfill, `tries` how many it has had."""

    game_date: date
    action: Action
    why: str
    seen: Seen | None = None
    tries: int = 0

    @property
    def is_work(self) -> bool:
        """Whether something is to be submitted."""
        return self.action in {"create", "retry"}


def decide(game_date: date, seen: Seen | None, tries: int, history: History, wish: Wish) -> Partition:
    """Return what is to be done about a date. Asked again after that was done, nothing is."""
    if seen is not None and seen.state == "success":
        return Partition(game_date, "kept", "succeeded in this backfill", seen, tries)
    if seen is not None and seen.state in {"waiting", "running"}:
        return Partition(game_date, "leave", seen.why, seen, tries)
    if wish.only_missed and history.success is not None:
        return Partition(game_date, "skip", f"run {history.success.run_id} succeeded", seen, tries)
    if wish.failed and (history.newest is None or history.newest.status not in {"failed", "crashed", "cancelled"}):
        newest = history.newest
        why = f"its newest run, {newest.run_id}, is {newest.status}" if newest else "it has no run that failed"
        return Partition(game_date, "skip", why, seen, tries)
    if seen is None:
        return Partition(game_date, "create", "no run yet", None, tries)
    return Partition(game_date, "create" if wish.no_resume else "retry", seen.why, seen, tries)


def newest_of(runs: Sequence[RemoteRun]) -> dict[str, list[RemoteRun]]:
    """Return the flow runs of a backfill by their game date, each date's oldest first."""
    found: dict[str, list[RemoteRun]] = {}
    for run in sorted(runs, key=lambda run: (run.expected_start is not None, run.expected_start, run.id)):
        day = run.parameters.get("game_date")
        if isinstance(day, str):
            found.setdefault(day, []).append(run)
    return found


def run_id_of(flow_run: RemoteRun) -> str | None:
    """Return the run id of a flow run, as the runner derives it; None for one without a start."""
    return run_id(flow_run.expected_start, flow_run.id) if flow_run.expected_start is not None else None


def key_of(backfill: str, game_date: date, number: int) -> str:
    """Return the idempotency key of the run number `number` (from 1) of a date: the same key makes no second run."""
    return f"backfill {backfill} {game_date}" + (f" {number}" if number > 1 else "")


def parameters_of(asked: Asked, backfill: str, game_date: date, as_of: datetime | None) -> dict[str, Any]:
    """Return the parameters of the flow run of a date; `as_of` None: the runner's own rule."""
    found: dict[str, Any] = {"game_date": game_date.isoformat(), "backfill": backfill}
    if as_of is not None:
        found["run_as_of_ts"] = format_instant(as_of)
    if asked.as_of_mode is not None:
        found["as_of_mode"] = asked.as_of_mode
    if asked.steps:
        found["steps"] = ",".join(asked.steps)
    if asked.partition:
        found["partition"] = dict(asked.partition)
    return found
