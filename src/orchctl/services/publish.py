"""What is published of an asset and a date, and moving production to an earlier good run and back, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from orchctl.core import templates
from orchctl.core.catalog import Catalog, Job
from orchctl.core.catalog_steps import StepTable
from orchctl.core.names import format_instant, nearest, parse_date, parse_instant
from orchctl.core.publish import CURRENT, LATEST, Pointer, Target, check
from orchctl.errors import GateRefused, OrchctlError, PartialFailure, UsageError

KNOWN_BEFORE_A_RUN = frozenset({"game_date", "data_root", "job", "step"})


class Published(Protocol):
    """What was published. See `adapters/published.py`."""

    def manifests(self, data_root: str, asset: str, day: date) -> Iterator[tuple[Path, dict[str, Any]]]: ...  # noqa: D102
    def pointer(self, folder: Path, name: str) -> Pointer | None: ...  # noqa: D102
    def digest(self, folder: Path) -> str: ...  # noqa: D102
    def move(  # noqa: D102
        self, folder: Path, name: str, run: Target, *, at: datetime, reason: str, expected: Pointer | None
    ) -> None: ...


class Events(Protocol):
    """Where events go: a part of `adapters/manifests.py`."""

    def append(self, event: Mapping[str, Any]) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A run that was promoted. `folder` holds it and its pointers; `pointers` are those that hold it.

    `status` is that of the step's manifest, None where there is no manifest. `good`: production may be moved to it.
    """

    target: Target
    folder: Path
    data_root: str
    job: str
    attempt: int | None
    status: str | None
    pointers: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The run."""
        return self.target.run_id

    @property
    def place(self) -> Path:
        """Where its files are."""
        return self.folder / self.target.path

    @property
    def good(self) -> bool:
        """Whether its step succeeded: then its contracts held."""
        return self.status == "success"


@dataclass(frozen=True, slots=True)
class Held:
    """A pointer, and what it holds."""

    folder: Path
    name: str
    pointer: Pointer


@dataclass(frozen=True, slots=True)
class Shown:
    """What is published of an asset and a date. Runs by id, oldest first."""

    asset: str
    game_date: date
    runs: tuple[PublishedRun, ...]
    pointers: tuple[Held, ...]

    def held(self, folder: Path) -> Pointer | None:
        """Return what `current_run.json` in a folder holds."""
        found = (one.pointer for one in self.pointers if (one.folder, one.name) == (folder, CURRENT))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A move of `current_run.json`, from what it holds (None: it is not there) to a run; the files were looked at."""

    asset: str
    run: PublishedRun
    held: Pointer | None

    @property
    def nothing_to_do(self) -> bool:
        """Whether it holds that run already."""
        return self.held is not None and self.held.run_id == self.run.run_id


def show(catalog: Catalog, published: Published, asset: str, day: str) -> Shown:
    """Return the runs that were published of an asset and a date, and what the pointers hold. Raises UsageError."""
    try:
        game_date = parse_date(day)
    except ValueError as error:
        raise UsageError(f"--date: {error}") from error
    steps = [(job, step) for job, step in _publishing(catalog) if step.name == asset]
    if not steps:
        raise _unknown(catalog, asset)
    runs: dict[tuple[Path, str], PublishedRun] = {}
    statuses: dict[str, tuple[str | None, int | None]] = {}
    for data_root in sorted({job.data_root for job, _ in steps}):
        for path, data in published.manifests(data_root, asset, game_date):
            statuses[path.parent.name.removeprefix("run=")] = _text(data.get("status")), data.get("attempt")
            if (run := _run_of(data, path, data_root)) is not None:
                runs[run.folder, run.run_id] = run
    folders = {folder for folder, _ in runs} | _folders(steps, game_date)
    found = [
        Held(folder, name, pointer)
        for folder in sorted(folders)
        for name in (LATEST, CURRENT)
        if (pointer := published.pointer(folder, name)) is not None
    ]
    job, _ = steps[0]
    for one in found:
        # A run that was killed when it had moved a pointer left no record but that.
        status, attempt = statuses.get(one.pointer.run_id, (None, None))
        known = PublishedRun(one.pointer.run, one.folder, job.data_root, job.name, attempt, status)
        runs.setdefault((one.folder, one.pointer.run_id), known)
    return Shown(asset, game_date, tuple(_with_pointers(runs, found)), tuple(found))


def promotion(shown: Shown, published: Published, reference: str | None) -> Proposal:
    """Return the move to the newest good run, or to the one that `reference` names: its id, or a part that is unique.

    Raises UsageError where it names none, or there are several places to choose from; GateRefused where the run did not
    succeed, or its files are not those that were published.
    """
    if reference is not None:
        return _proposal(shown, published, _named(shown, reference))
    good = [run for run in shown.runs if run.good]
    if not good:
        raise GateRefused(f"there is no good run of {shown.asset} for {shown.game_date}", hint=_see(shown))
    _one_place({run.folder for run in good}, shown)
    return _proposal(shown, published, good[-1])


def rollback(shown: Shown, published: Published, reference: str | None) -> Proposal:
    """Return the move to the run that was held before the one that is, or to the one that is named. Errors as above."""
    if reference is not None:
        return _proposal(shown, published, _named(shown, reference))
    held = [one for one in shown.pointers if one.name == CURRENT]
    if not held:
        raise GateRefused(f"{CURRENT} of {shown.asset} for {shown.game_date} is not there", hint=_see(shown))
    _one_place({one.folder for one in held}, shown)
    previous = held[0].pointer.previous
    if previous is None:
        raise GateRefused(f"{CURRENT} has held no run before {held[0].pointer.run_id}", hint="--run names another run")
    return _proposal(shown, published, _named(shown, previous))


def carry_out(
    proposal: Proposal,
    published: Published,
    events_of: Callable[[str], Events],
    *,
    now: datetime,
    reason: str,
) -> None:
    """Move the pointer, and record it as an event. Raises PublishError, PartialFailure where it is not recorded."""
    run, held = proposal.run, proposal.held
    published.move(run.folder, CURRENT, run.target, at=now, reason=reason, expected=held)
    event = {
        "ts": format_instant(now),
        "event": "pointer_moved",
        "run_id": run.run_id,
        "job": run.job,
        "asset": proposal.asset,
        "step": proposal.asset,
        "game_date": run.target.game_date.isoformat(),
        "attempt": run.attempt,
        "pointer": CURRENT,
        "from": held.run_id if held is not None else None,
        "to": run.run_id,
        "by": "hand",
        "reason": reason,
    }
    try:
        events_of(run.data_root).append(event)
    except OrchctlError as error:
        raise PartialFailure(f"{CURRENT} now holds {run.run_id}, and no event tells of it: {error.message}") from error


def _publishing(catalog: Catalog) -> Iterator[tuple[Job, StepTable]]:
    for job in catalog.jobs.values():
        yield from ((job, step) for step in job.steps if step.publish is not None)


def _unknown(catalog: Catalog, asset: str) -> UsageError:
    names = sorted({step.name for _, step in _publishing(catalog)})
    near = nearest(asset, names)
    shown = asset.encode("unicode_escape").decode()[:80]
    hint = f'did you mean "{near}"?' if near else f"those that do: {', '.join(names) or 'none'}"
    return UsageError(f"there is no step {shown!r} that publishes", hint=hint)


def _run_of(data: Mapping[str, Any], path: Path, data_root: str) -> PublishedRun | None:
    """Return what a step's manifest tells of, None where it published nothing, or cannot be believed."""
    try:
        record, partition = data["publish"], data["partition"]
        to = Path(record["to"])
        target = Target(
            run_id=str(partition["run_id"]),
            as_of=parse_instant(str(partition["run_as_of_ts"])),
            promoted_at=parse_instant(str(record["promoted_at"])),
            path=to.name,
            digest=str(record["digest"]),
            asset=str(data["asset"]),
            game_date=parse_date(str(partition["game_date"])),
            manifest=str(path),
        )
        check(target)
    except (KeyError, TypeError, ValueError):
        return None
    return PublishedRun(target, to.parent, data_root, str(data.get("job")), data.get("attempt"), _text(data["status"]))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _folders(steps: list[tuple[Job, StepTable]], game_date: date) -> set[Path]:
    """Return the folders of the runs as far as the date alone tells."""
    found = set()
    for job, step in steps:
        assert step.publish is not None
        above = str(PurePosixPath(step.publish.to).parent)
        if templates.words_in(above) <= KNOWN_BEFORE_A_RUN:
            values = {
                "game_date": game_date.isoformat(),
                "data_root": job.data_root,
                "job": job.name,
                "step": step.name,
            }
            found.add(Path(templates.render(above, values)))
    return found


def _with_pointers(runs: Mapping[tuple[Path, str], PublishedRun], found: list[Held]) -> Iterator[PublishedRun]:
    for key in sorted(runs, key=lambda key: (str(key[0]), key[1])):
        run = runs[key]
        names = tuple(one.name for one in found if (one.folder, one.pointer.run_id) == key)
        yield PublishedRun(run.target, run.folder, run.data_root, run.job, run.attempt, run.status, names)


def _named(shown: Shown, reference: str) -> PublishedRun:
    matches = [run for run in shown.runs if reference in run.run_id]
    exact = [run for run in matches if run.run_id == reference]
    if len(exact or matches) != 1:
        said = reference.encode("unicode_escape").decode()[:60]
        what = f"{len(matches)} runs" if matches else "no run"
        raise UsageError(f"{said!r} names {what} of {shown.asset} for {shown.game_date}", hint=_see(shown))
    return (exact or matches)[0]


def _one_place(folders: set[Path], shown: Shown) -> None:
    if len(folders) > 1:
        said = ", ".join(sorted(map(str, folders)))
        raise UsageError(f"{shown.asset} has several places for {shown.game_date}: {said}", hint="--run names the run")


def _proposal(shown: Shown, published: Published, run: PublishedRun) -> Proposal:
    if not run.good:
        raise GateRefused(
            f"run {run.run_id} is no good run: its step is {run.status or 'not recorded'}", hint=_see(shown)
        )
    there = published.digest(run.place)
    if there != run.target.digest:
        raise GateRefused(
            f"the files in {run.place} were changed since they were published ({run.target.digest[:19]}…, now "
            f"{there[:19]}…)",
            hint="nothing was moved; start a new run for the date",
        )
    return Proposal(shown.asset, run, shown.held(run.folder))


def _see(shown: Shown) -> str:
    return f"see `orchctl publish show {shown.asset} --date {shown.game_date}`"
