"""Backfills in one process: a server in memory, a worker that takes what waits, a disk, and an operator who may die."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from fakes import FakeApplied, FakePrefect, catalog
from orchctl.adapters import inputs
from orchctl.adapters.backfills import Backfills
from orchctl.adapters.manifests import Manifests
from orchctl.core import manifest
from orchctl.core.backfill import Wish, run_id_of
from orchctl.core.catalog import Catalog, Job
from orchctl.core.manifest import Identity, Place, RunError
from orchctl.core.remote import RemoteRun, RemoteWorker
from orchctl.services import backfill
from orchctl.services.backfill import Prepared, Words, World
from orchctl.services.backfill_run import Ended, Progress, Submitted, carry_out
from syncing import Operator

TODAY = date(2025, 12, 19)
HERE = "here-nobody"
_GONE = Place(socket.gethostname(), "a boot before", 1, 1)
_ELSEWHERE = Place("elsewhere", "its boot", 1, 1)
Plays = Callable[[date, int], str]
"""How attempt n (from 1) at a date ends: success, failed, dies (nobody says so), unsaid (a success of that kind)."""


class Killed(BaseException):
    """What ends the operator's process, wherever it is: nothing of ours catches it."""


class Desk:
    """The job `job`, synced, with a worker that runs what is in the queue of backfills as `plays` says."""

    def __init__(self, folder: Path, plays: Plays = lambda _day, _attempt: "success", **job: Any) -> None:
        self.folder, self.plays = folder, plays
        self.time = datetime(2025, 12, 19, 17, 0, 0, tzinfo=UTC)
        self.catalog: Catalog = catalog({"job": {"data_root": str(folder), **job}})
        self.prefect = FakePrefect(clock=lambda: self.time)
        self.applied = FakeApplied()
        self.prefect.workers = lambda pool: (RemoteWorker(HERE, True, self.time),)  # type: ignore[method-assign]
        self.sync()
        self.prefect.writes.clear()
        self.log: list[date] = []
        self.begun: list[date] = []
        self.alive: set[str] = set()
        self.as_of: Callable[[Job, str, date, Any], datetime] = self._as_of
        self.asked_as_of: list[date] = []
        self.at_a_time: Counter[int] = Counter()

    def sync(self) -> None:
        Operator(self.prefect, self.applied, "/state", self.catalog, lambda: self.time).sync()

    @property
    def job(self) -> Job:
        return self.catalog.jobs["job"]

    @property
    def tree(self) -> Manifests:
        return Manifests(str(self.folder))

    def world(self, *, sleep: Callable[[float], None] | None = None) -> World:
        return World(
            catalog=self.catalog,
            prefect=self.prefect,
            applied=self.applied,
            tree=Backfills,
            disk=inputs,
            as_of=self.as_of,
            living=lambda: frozenset(self.alive),
            worker_name=lambda pool: f"here-{pool}",
            now=lambda: self.time,
            sleep=sleep or self.sleep,
        )

    def prepare(self, start: str, end: str, wish: Wish | None = None, **words: Any) -> Prepared:
        world = self.world()
        return backfill.prepare(world, backfill.request(world, Words("job", start, end, **words)), wish or Wish())

    def go(self, start: str, end: str, wish: Wish | None = None, *, wait: int | None = 2, **words: Any) -> Any:
        """Do the command and return its last item."""
        *progress, last = self.steps(start, end, wish, wait=wait, **words)
        assert all(isinstance(item, Progress) for item in progress)
        assert isinstance(last, Ended | Submitted)
        return last

    def steps(
        self, start: str, end: str, wish: Wish | None = None, *, wait: int | None = 2, **words: Any
    ) -> Iterator[Progress | Submitted | Ended]:
        return carry_out(self.world(), self.prepare(start, end, wish, **words), at_a_time=wait)

    def actions(self, start: str, end: str, wish: Wish | None = None, **words: Any) -> dict[str, str]:
        found = self.prepare(start, end, wish, **words)
        return {f"{each.game_date:%d}": each.action for each in found.partitions}

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.turn()

    def turn(self) -> None:
        """Let the worker end what it runs, and take what waits, as far as the queue's limit allows."""
        limit = {each.name: each for each in self.prefect.queues("nobody")}["backfill"].concurrency_limit or 99
        for run in [each for each in self.prefect.runs.values() if each.id in self.alive]:
            self._end(run)
        going = [each for each in self.prefect.runs.values() if each.state_type in {"RUNNING", "PENDING"}]
        waiting = [
            each
            for each in self.prefect.runs.values()
            if each.state_type == "SCHEDULED" and self.prefect.queue_of.get(each.id) == "backfill"
        ]
        for run in waiting[: max(0, limit - len(going))]:
            attempt = run.run_count + 1
            self.prefect.set_run(
                run.id, state_type="RUNNING", state_name="Running", run_count=attempt, state_since=self.time
            )
            self.alive.add(run.id)
            self.begun.append(day_of(run))
            self.record(run, "running", attempt)
        self.at_a_time[len(self.alive)] += 1

    def _end(self, run: RemoteRun) -> None:
        how = self.plays(day_of(run), run.run_count)
        if how == "runs":
            return
        self.alive.discard(run.id)
        if how in {"success", "unsaid"}:
            self.log.append(day_of(run))
        if how == "dies":
            return
        self.record(run, "success" if how == "unsaid" else how, run.run_count)
        if how == "unsaid":
            return
        kind, name = ("COMPLETED", "Completed") if how == "success" else ("FAILED", "Failed")
        self.prefect.set_run(run.id, state_type=kind, state_name=name, state_message="it ended", state_since=self.time)

    def record(self, run: RemoteRun, status: Any, attempt: int) -> None:
        """Leave the manifest that the runner would. Of its process only `alive` tells: that of the manifest is gone."""
        own = run_id_of(run)
        assert own is not None
        self.leave(day_of(run), own, status, attempt=attempt, place=_GONE, keys=run.parameters.get("partition"))

    def leave(
        self,
        day: date,
        run_id: str,
        status: Any,
        *,
        attempt: int = 1,
        at: datetime | None = None,
        asset: str = "job",
        place: Place = _ELSEWHERE,
        keys: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """Write the manifest of a run, whoever made it. `keys` are those of its partition beside the date."""
        moment = at or self.time
        who = Identity(
            job="job",
            asset=asset,
            run_id=run_id,
            game_date=day,
            as_of=moment,
            slot=None,
            trigger="backfill",
            mode="live",
            attempt=attempt,
            keys=keys or {},
        )
        data = manifest.started(who, place, {}, at=moment)
        if status != "running":
            error = (
                RunError("NonZeroExit", "exit code 3", f"on {day}\nno data for {day}") if status == "failed" else None
            )
            data = manifest.finished(data, status, at=moment, duration_s=1.5, error=error)
        self.tree.write({**data, **more})

    def _as_of(self, _job: Job, _mode: str, day: date, _given: Any) -> datetime:
        self.asked_as_of.append(day)
        return datetime(day.year, day.month, day.day, 23, tzinfo=UTC)

    def edit(self, **job: Any) -> None:
        """Change the job in the catalog, without a sync."""
        table = self.job.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        self.catalog = replace_job(self.catalog, {**table, **job})


def replace_job(before: Catalog, table: dict[str, Any]) -> Catalog:
    return Catalog.from_json({**before.to_json(), "jobs": {**before.to_json()["jobs"], "job": table}})


def day_of(run: RemoteRun) -> date:
    return date.fromisoformat(run.parameters["game_date"])


def state(desk: Desk, day: str) -> str | None:
    """Return Prefect's state of the newest run of a date."""
    found = [run for run in desk.prefect.runs.values() if run.parameters.get("game_date") == day]
    return found[-1].state_name if found else None
