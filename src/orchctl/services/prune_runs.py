"""What runs left on the disk: manifests, and logs. Which of it may go, and what makes it go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from orchctl.core import retention
from orchctl.core.catalog import Job
from orchctl.core.retention import Kind
from orchctl.errors import OrchctlError
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
        self._newest: dict[Kind, str | None] = {}

    def manifests(self) -> Iterator[Act]:
        """Yield the runs whose whole folder may go. What fails for a run is noted, and the next one is told.

        Raises OrchctlError where it cannot be known which runs there are.
        """
        cutoff = self.cutoffs["manifests"]
        for run in self._folders.before(self.job.asset, cutoff, last=self._last_date(cutoff)):
            try:
                if self._kept("manifests", run) is not None:
                    continue
                folders = self._folders.folders(run)
                size = sum(self._folders.size(each) for each in folders)
            except OrchctlError as error:
                self.notes.failed("manifests", self.job.name, error)
                continue
            self.doomed.add(run.run_id)
            yield Act("manifests", self.job.name, 1, size, partial(self._remove, folders))

    def sweep(self) -> Iterator[Act]:
        """Yield what removals left that were killed or failed: of no run any more, and so it counts as none."""
        for left in self._folders.half_removed(self.job.asset, self._last_date(self.cutoffs["manifests"])):
            yield Act("manifests", self.job.name, 0, 0, partial(self._remove, [left], count=0))

    def logs(self, kind: Kind) -> Iterator[Act]:
        """Yield the logs that may go, or be compressed. What an earlier look was done with is not looked at again.

        `settle` is to be called at its end, where all of it was done.
        """
        done = self.world.marks.read(self.job.data_root, self.job.name, kind)
        first = done - retention.LONGEST_RUN if done is not None else None
        left: list[datetime] = []
        for run in self._folders.between(self.job.asset, first, self.cutoffs[kind]):
            if run.run_id in self.doomed:
                continue
            try:
                logs = self._logs(kind, run)
                why = self._kept(kind, run) if logs else None
            except OrchctlError as error:
                self.notes.failed(kind, self.job.name, error)
                left.append(run.at)
                continue
            if why in _FOR_NOW:
                left.append(run.at)
            elif why is None:
                for log in logs:
                    yield Act(kind, self.job.name, 1, self._folders.size(log), partial(self._do, kind, log, run, left))
        self._until[kind] = retention.mark(self.cutoffs[kind], left)

    def settle(self, kind: Kind) -> None:
        """Write down that the logs were dealt with, up to the first run that was left for a later look."""
        self.world.marks.write(self.job.data_root, self.job.name, kind, self._until[kind])

    def _logs(self, kind: Kind, run: RunFolder) -> list[Path]:
        plain_only = kind == "compress_logs"
        return [log for each in self._folders.folders(run) for log in self._folders.logs(each, plain_only=plain_only)]

    def _remove(self, folders: Sequence[Path], *, count: int = 1) -> int:
        """Remove the folders of a run, its own last; return `count` where that one went."""
        gone = False
        try:
            for each in folders:
                gone = self._folders.remove(each)
        except OrchctlError as error:
            self.notes.failed("manifests", self.job.name, error)
            return 0
        return count if gone else 0

    def _do(self, kind: Kind, log: Path, run: RunFolder, left: list[datetime]) -> int:
        """Compress or remove a log; a run of which one stays is `left` for a later look."""
        do = self._folders.compress if kind == "compress_logs" else self._folders.remove
        try:
            if do(log):
                return 1
        except OrchctlError as error:
            self.notes.failed(kind, self.job.name, error)
        left.append(run.at)
        return 0

    def _last_date(self, cutoff: datetime) -> date:
        return (cutoff + _AHEAD + timedelta(days=max(0, self.job.game_date_offset_days))).date()

    def _kept(self, kind: Kind, run: RunFolder) -> str | None:
        """Return why something of a run is kept, None where it may go; what is not old enough is not noted."""
        why = self._why(kind, run)
        if why not in {None, _YOUNG}:
            self.notes.kept[kind, self.job.name, str(why)] += 1
        return why

    def _why(self, kind: Kind, run: RunFolder) -> str | None:
        manifest = self._folders.manifest(run)
        ended = retention.ended_at(manifest) if manifest is not None else None
        if manifest is None or ended is None:
            return "its manifest cannot be read"
        why = None
        if manifest["job"] != self.job.name:
            why = "it is another job's"
        elif run.run_id == self._newest_before(kind):
            why = _NEWEST
        elif self._folders.is_going(manifest):
            why = _GOING
        elif ended >= self.cutoffs[kind]:
            why = _YOUNG
        elif kind == "manifests":
            why = self._referred_to(run, manifest)
        return why

    def _newest_before(self, kind: Kind) -> str | None:
        """Return the newest run of the job, or one that is too young to go anyway: looked for once it is asked for."""
        if kind not in self._newest:
            self._newest[kind] = self._folders.newest(self.job.asset, self.job.name, after=self.cutoffs[kind])
        return self._newest[kind]

    def _referred_to(self, run: RunFolder, manifest: Mapping[str, Any]) -> str | None:
        backfill = manifest.get("backfill")
        summary = self._folders.summary(str(backfill)) if backfill else None
        if self._folders.published(run):
            return "what it published is still there"
        return retention.of_a_backfill(manifest, summary)
