"""What a run has written: its own log and, for a run of steps, those of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchctl.core.manifest import Run, Skipped
from orchctl.errors import UsageError
from orchctl.services.ports import ManifestTree

FOLLOW_POLL_S = 0.3


@dataclass
class Logs:
    """The logs of one run, read on from where they were left. `step`: only that step's; None: all, side by side.

    The lines of steps have the step's name before them; only whole lines are given, until nothing more comes.
    """

    tree: ManifestTree
    directory: Path
    step: str | None = None
    _offsets: dict[str, int] = field(default_factory=dict)
    _rests: dict[str, bytes] = field(default_factory=dict)

    def new(self, *, last: bool) -> Iterator[bytes]:
        """Yield what is new since the last call. `last`: nothing more will come."""
        steps = self.tree.step_directories(self.directory)
        if self.step is not None:
            if self.step in steps:
                yield from self._plain(steps[self.step])
            return
        yield from self._plain(self.directory)
        for name, directory in steps.items():
            yield from self._named(name, directory, last=last)

    def pass_over(self) -> None:
        """Pass over what is there: only what comes from now on is new."""
        for _ in self.new(last=True):
            pass

    def _plain(self, directory: Path) -> Iterator[bytes]:
        for path in self.tree.logs_in(directory):
            yield from self._chunks(path)

    def _named(self, name: str, directory: Path, *, last: bool) -> Iterator[bytes]:
        before = f"{name} | ".encode()
        for path in self.tree.logs_in(directory):
            log = _name_of(path)
            for chunk in self._chunks(path):
                *lines, self._rests[log] = (self._rests.get(log, b"") + chunk).split(b"\n")
                if lines:
                    yield b"".join(before + line + b"\n" for line in lines)
            if last and (rest := self._rests.pop(log, b"")):
                yield before + rest + b"\n"

    def _chunks(self, path: Path) -> Iterator[bytes]:
        log = _name_of(path)
        for chunk in self.tree.read_log(path, self._offsets.get(log, 0)):
            self._offsets[log] = self._offsets.get(log, 0) + len(chunk)
            yield chunk


def _name_of(log: Path) -> str:
    """Return what a log is known by, whether it was compressed since it was looked at or not."""
    return str(log).removesuffix(".gz")


def chunks(
    tree: ManifestTree,
    run: Run,
    *,
    step: str | None = None,
    follow: bool,
    sleep: Callable[[float], None],
) -> Iterator[bytes]:
    """Yield the log of a run, every attempt's; with `follow` until the run has ended. `step`: only that step's.

    Raises UsageError where the run has no such step.
    """
    directory = tree.directory_of(run)
    if step is not None and step not in (names := tree.step_directories(directory)):
        hint = f"its steps: {', '.join(names)}" if names else "it was no run of steps"
        raise UsageError(f"run {run.run_id} has no step {step!r:.80}", hint=hint)
    logs = Logs(tree, directory, step)
    skipped: list[Skipped] = []
    while True:
        # Asked before the read: what was written before the end is then surely read after it.
        ended = not follow or tree.current(run, skipped=skipped).status != "running"
        yield from logs.new(last=ended)
        if ended:
            return
        sleep(FOLLOW_POLL_S)


def note(tree: ManifestTree, run: Run) -> str | None:
    """Return what to tell who asked for the log of a run that has none any more; None where there is one, or may be."""
    directory = tree.directory_of(run)
    every = [directory, *tree.step_directories(directory).values()]
    if run.status in {"running", "skipped", "observed"} or any(tree.logs_in(each) for each in every):
        return None
    return f"run {run.run_id} has no log: it left none, or `orchctl host prune` removed it"
