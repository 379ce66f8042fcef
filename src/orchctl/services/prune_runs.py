"""What runs left on the disk: manifests, and logs. Which of it may go, and what makes it go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from orchctl.core import retention
from orchctl.core.catalog import Job
from orchctl.core.retention import Kind
from orchctl.services.prune_ports import Act, Notes, RunFolder, RunFolders, World

_AHEAD = timedelta(days=2)
"""How far a partition may lie after the instant of its run, beside the job's own offset, and be found at once."""
_NEWEST, _GOING, _YOUNG = "the newest of its job", "still going", "ended later"
# What may be another tomorrow: a later look begins at these.
_FOR_NOW = frozenset({_NEWEST, _GOING})


@dataclass
class Runs:
    """The runs of one job. `cutoffs` are the instants before which a kind goes, of the kinds that are wanted.

    What is told may be done at once, as it is told, or not at all.
    """

    world: World
    job: Job
    cutoffs: Mapping[Kind, datetime]
    notes: Notes
    doomed: set[str] = field(default_factory=set)
    """The runs whose whole folder goes: nothing of them is told a second time."""

    def __post_init__(self) -> None:
        self._folders: RunFolders = self.world.folders(self.job.data_root)
        self._until: dict[Kind, datetime] = {}

    def manifests(self) -> Iterator[Act]:
        """Yield the runs whose whole folder may go. Raises OrchctlError for what may not be read."""
        cutoff = self.cutoffs["manifests"]
        newest = self._folders.newest(self.job.asset, after=cutoff)
        for run in self._folders.before(self.job.asset, cutoff, last=self._last_date(cutoff)):
            if self._kept("manifests", run, newest) is None:
                folders = self._folders.folders(run)
                size = sum(self._folders.size(each) for each in folders)
                self.doomed.add(run.run_id)
                yield self._act("manifests", folders, self._folders.remove, 1, size)

    def sweep(self) -> None:
        """Remove what killed removals left."""
        self._folders.sweep(self.job.asset, self._last_date(self.cutoffs["manifests"]))

    def logs(self, kind: Kind) -> Iterator[Act]:
        """Yield the logs that may go, or be compressed. What an earlier look was done with is not looked at again.

        `settle` is to be called at its end, where all of it was done.
        """
        done = self.world.marks.read(self.job.data_root, self.job.asset, kind)
        first = done - retention.LONGEST_RUN if done is not None else None
        newest = self._folders.newest(self.job.asset, after=self.cutoffs[kind])
        packing = kind == "compress_logs"
        do = self._folders.compress if packing else self._folders.remove
        left = []
        for run in self._folders.between(self.job.asset, first, self.cutoffs[kind]):
            if run.run_id in self.doomed:
                continue
            logs = [log for each in self._folders.folders(run) for log in self._folders.logs(each, plain_only=packing)]
            why = self._kept(kind, run, newest) if logs else None
            if why in _FOR_NOW:
                left.append(run.at)
            elif logs and why is None:
                yield self._act(kind, logs, do, len(logs), sum(self._folders.size(log) for log in logs))
        self._until[kind] = retention.mark(self.cutoffs[kind], left)

    def settle(self, kind: Kind) -> None:
        """Write down that the logs were dealt with, up to the first run that was left for a later look."""
        self.world.marks.write(self.job.data_root, self.job.asset, kind, self._until[kind])

    def _act(self, kind: Kind, paths: Sequence[Path], do: Callable[[Path], None], count: int, size: int) -> Act:
        return Act(kind, self.job.name, count, size, partial(_each, do, tuple(paths), count))

    def _last_date(self, cutoff: datetime) -> date:
        return (cutoff + _AHEAD + timedelta(days=max(0, self.job.game_date_offset_days))).date()

    def _kept(self, kind: Kind, run: RunFolder, newest: str | None) -> str | None:
        """Return why something of a run is kept, None where it may go; what is not old enough is not noted."""
        why = self._why(kind, run, newest)
        if why not in {None, _YOUNG}:
            self.notes.kept[kind, self.job.name, str(why)] += 1
        return why

    def _why(self, kind: Kind, run: RunFolder, newest: str | None) -> str | None:
        manifest = self._folders.manifest(run)
        ended = retention.ended_at(manifest) if manifest is not None else None
        if manifest is None or ended is None:
            return "its manifest cannot be read"
        why = None
        if manifest["job"] != self.job.name:
            why = "it is another job's"
        elif run.run_id == newest:
            why = _NEWEST
        elif self._folders.is_going(manifest):
            why = _GOING
        elif ended >= self.cutoffs[kind]:
            why = _YOUNG
        elif kind == "manifests":
            why = self._referred_to(run, manifest)
        return why

    def _referred_to(self, run: RunFolder, manifest: Mapping[str, Any]) -> str | None:
        backfill = manifest.get("backfill")
        summary = self._folders.summary(str(backfill)) if backfill else None
        if self._folders.published(run):
            return "what it published is still there"
        return retention.of_a_backfill(manifest, summary)


def _each(do: Callable[[Path], None], paths: Sequence[Path], count: int) -> int:
    for path in paths:
        do(path)
    return count
