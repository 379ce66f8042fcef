"""Carry out a backfill: submit its runs, follow them, sum up. Whatever stops it, the same command goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from orchctl.core import backfill as core
from orchctl.core.backfill import Partition, Seen
from orchctl.core.backfill_summary import Counts, Ending, summary
from orchctl.core.limits import QUEUE
from orchctl.core.names import format_instant
from orchctl.core.remote import RemoteRun
from orchctl.errors import ExitCode, OrchctlError, PartialFailure
from orchctl.services.backfill import Prepared, Watch, World
from orchctl.services.retry import Rest, set_again

POLL_S = 2.0
_AGAIN = "the same command goes on from what is there; nothing is started twice"


@dataclass(frozen=True, slots=True)
class News:
    """A date that has ended, or could not be submitted. `why` is None for a success."""

    game_date: date
    outcome: str
    why: str | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come. `ended` are those with a success or a failure, `failed` among them; `left` to submit."""

    total: int
    ended: int
    failed: int
    running: tuple[date, ...]
    waiting: int
    left: int
    submitted: int
    news: tuple[News, ...] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    """All is submitted, and nobody waits. `created` are new runs, `again` those that had failed."""

    created: int
    again: int
    going: int
    kept: int
    skipped: int
    failed: tuple[News, ...]

    @property
    def exit_code(self) -> ExitCode:
        """0, or that some or all could not be submitted."""
        if not self.failed:
            return ExitCode.DONE
        return ExitCode.PARTIAL if self.created + self.again + self.going + self.kept else ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class Ended:
    """Every date has ended. `summary` is what is at `path`."""

    summary: dict[str, Any]
    path: Path

    @property
    def exit_code(self) -> ExitCode:
        """0 for success, 4 where some failed, 1 where all did."""
        if not self.summary["failed"]:
            return ExitCode.DONE
        return ExitCode.PARTIAL if self.summary["succeeded"] else ExitCode.FAILED


def carry_out(world: World, prepared: Prepared, *, at_a_time: int | None) -> Iterator[Progress | Submitted | Ended]:
    """Submit what is to be done and yield how it goes; the last item is an `Ended`, or a `Submitted`.

    `at_a_time`: at most so many unfinished runs, and wait for all; None: submit all and do not wait.
    Raises OrchctlError, with the exit code of its cause, where Prefect fails on the way.
    """
    drive = _Drive(world, prepared)
    try:
        drive.mend()
        while True:
            while drive.pending and (at_a_time is None or len(drive.going) < at_a_time):
                drive.submit(drive.pending.pop(0))
                yield drive.progress()
            if at_a_time is None or not (drive.going or drive.pending):
                break
            yield drive.progress()
            world.sleep(POLL_S)
            drive.look()
        yield drive.progress()
        if drive.going:
            yield drive.submitted()
            return
        yield drive.sum_up()
    except OrchctlError as error:
        raise _stopped(error, drive) from error


def _stopped(error: OrchctlError, drive: _Drive) -> OrchctlError:
    found = PartialFailure(f"{error.message}; {drive.so_far}", hint=_AGAIN)
    found.exit_code, found.code = error.exit_code, error.code
    return found


@dataclass
class _Drive:
    """What is known of each date while it goes. `going` holds the dates by the id of their unfinished flow run."""

    world: World
    prepared: Prepared
    pending: list[Partition] = field(default_factory=list)
    going: dict[str, date] = field(default_factory=dict)
    seen: dict[date, Seen] = field(default_factory=dict)
    endings: dict[date, Ending] = field(default_factory=dict)
    created: int = 0
    again: int = 0
    _news: list[News] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = Watch(self.world, self.prepared.job)
        self.tree = self.world.tree(self.prepared.job.data_root)
        for each in self.prepared.partitions:
            if each.seen is not None:
                self.seen[each.game_date] = each.seen
            if each.is_work:
                self.pending.append(each)
            elif each.action == "leave" and each.seen is not None:
                self.going[each.seen.flow_run.id] = each.game_date
            elif each.action == "skip":
                self.endings[each.game_date] = Ending(each.game_date, "skipped", each.why)
            elif each.seen is not None:
                self.endings[each.game_date] = self._ending(each.game_date, each.seen, kept=True)

    @property
    def so_far(self) -> str:
        """How much was submitted, and what goes on without us."""
        work = sum(each.is_work for each in self.prepared.partitions)
        goes_on = f"; {len(self.going)} wait or run in Prefect and go on" if self.going else ""
        return f"{self.created + self.again} of {work} runs were submitted{goes_on}"

    def mend(self) -> None:
        """Tell Prefect of successes that it still takes for running: they hold places of the queue."""
        for each in self.prepared.partitions:
            if each.action == "kept" and each.seen is not None and each.seen.lost:
                self._tell_of_lost(each.seen)

    def submit(self, partition: Partition) -> None:
        """Start the run of a date, or start it again. Where that was done already, nothing happens."""
        seen = partition.seen
        retried = seen if partition.action == "retry" else None
        fresh = self.world.prefect.flow_run(retried.flow_run.id) if retried is not None else None
        if fresh is not None:
            self._retry(partition.game_date, fresh)
            return
        if seen is not None and seen.lost:
            self._tell_of_lost(seen)
        self._create(partition)

    def _create(self, partition: Partition) -> None:
        prepared, day = self.prepared, partition.game_date
        asked = prepared.asked
        try:
            mode = asked.as_of_mode
            instant = None if mode is None else self.world.as_of(prepared.job, mode, day, asked.partition)
        except OrchctlError as error:
            self._end(Ending(day, "failed", error.message))
            return
        number = partition.tries + 1
        while True:
            run = self.world.prefect.create_run(
                prepared.deployment_id,
                parameters=core.parameters_of(asked, prepared.id, day, instant),
                idempotency_key=core.key_of(prepared.id, day, number),
                tags=(prepared.tag,),
                name=f"{prepared.id} {day}",
                work_queue=QUEUE,
            )
            # Where a run of this date was deleted in Prefect, the next number may be one that there is.
            if partition.seen is None or run.id != partition.seen.flow_run.id:
                break
            number += 1
        self.created += 1
        self.seen[day] = Seen(run)
        self.going[run.id] = day

    def _retry(self, day: date, fresh: RemoteRun) -> None:
        """Set a run that failed to be run again: the same run, so that what it has done stands."""
        seen = self.watch.seen(fresh, day)
        if seen.state in {"waiting", "running"}:  # somebody was faster
            self.seen[day], self.going[fresh.id] = seen, day
            return
        if seen.lost:
            self._tell_of_lost(seen)
        if seen.state == "success":
            self._end(self._ending(day, seen))
            return
        # The catalog may have been synced since: what it says now is what is to be tried.
        message = f"again, by backfill {self.prepared.id}"
        rest = Rest(self.world.living, self.world.now, self.world.sleep)
        set_again(self.world.prefect, fresh, rest, digest=self.prepared.digest, from_step="", message=message)
        self.again += 1
        self.going[fresh.id] = day

    def look(self) -> None:
        """Ask Prefect for the runs that had not ended."""
        found = {run.id: run for run in self.world.prefect.flow_runs(tuple(self.going))}
        for key, day in list(self.going.items()):
            if key not in found:
                del self.going[key]
                self._end(Ending(day, "failed", "its flow run was deleted in Prefect", flow_run_id=key))
                continue
            seen = self.seen[day] = self.watch.seen(found[key], day)
            if seen.state in {"success", "failed"}:
                if seen.lost:
                    self._tell_of_lost(seen)
                del self.going[key]
                self._end(self._ending(day, seen))

    def _tell_of_lost(self, seen: Seen) -> None:
        """End a run in Prefect whose process is gone: it would hold its place of the queue for ever."""
        kind, why = "CRASHED", seen.why
        if seen.state == "success":
            kind, why = "COMPLETED", "it succeeded, and its process was gone before it could say so"
        self.world.prefect.set_run_state(seen.flow_run.id, type=kind, message=why, force=True)

    def _end(self, ending: Ending) -> None:
        self.endings[ending.game_date] = ending
        why = None if ending.outcome == "success" else ending.reason
        self._news.append(News(ending.game_date, ending.outcome, why, ending.run_id))

    def _ending(self, day: date, seen: Seen, *, kept: bool = False) -> Ending:
        good = seen.state == "success"
        return Ending(
            day,
            "success" if good else "failed",
            None if good else seen.why,
            run_id=core.run_id_of(seen.flow_run),
            flow_run_id=seen.flow_run.id,
            kept=kept,
        )

    def progress(self) -> Progress:
        """Return how far it has come; news are told once."""
        news, self._news = tuple(self._news), []
        counts = Counts.of(self.endings.values())
        running = tuple(sorted(day for day in self.going.values() if self.seen[day].state == "running"))
        return Progress(
            total=len(self.prepared.partitions),
            ended=counts.attempted + counts.skipped,
            failed=counts.failed,
            running=running,
            waiting=len(self.going) - len(running),
            left=len(self.pending),
            submitted=self.created + self.again,
            news=news,
        )

    def submitted(self) -> Submitted:
        """Return what was submitted."""
        failed = [each for each in self.endings.values() if each.outcome == "failed"]
        return Submitted(
            created=self.created,
            again=self.again,
            going=len(self.going) - self.created - self.again,
            kept=sum(each.outcome == "success" for each in self.endings.values()),
            skipped=sum(each.outcome == "skipped" for each in self.endings.values()),
            failed=tuple(News(each.game_date, each.outcome, each.reason, each.run_id) for each in failed),
        )

    def sum_up(self) -> Ended:
        """Read what the runs left, and write the summary."""
        endings = [self._with_manifests(self.endings[day]) for day in self.prepared.asked.dates]
        about = {**self.prepared.about, "finished_at": format_instant(self.world.now())}
        found = summary(endings, about)
        return Ended(found, self.tree.write(self.prepared.id, found))

    def _with_manifests(self, ending: Ending) -> Ending:
        if ending.run_id is None:
            return ending
        manifest = self.tree.manifest(self.prepared.job.asset, ending.game_date, ending.run_id)
        if manifest is None:
            return ending
        return replace(ending, manifest=manifest, steps=tuple(self.tree.steps_of(manifest)))
