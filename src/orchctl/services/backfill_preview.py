"""What a backfill would read, date by date: for `--dry-run`. Nothing is changed, in Prefect or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

from orchctl.core import partition, snapshots, templates
from orchctl.core.backfill import Partition
from orchctl.core.catalog import Job
from orchctl.core.catalog_steps import InputTable, StepTable
from orchctl.core.names import format_instant, parse_instant
from orchctl.errors import OrchctlError
from orchctl.services.backfill import Prepared, World

_OF_A_RUN = frozenset({"run_id", "run_dir", "slot"})


@dataclass(frozen=True, slots=True)
class Selected:
    """An input of a step, and what a run would read now. `path` None: a gap, or not known yet; `note` says which."""

    step: str
    input: str
    path: str | None = None
    snapshot: datetime | None = None
    note: str | None = None
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Previewed:
    """A date. `as_of` None where the mode gives no instant: `problem` says why; without a mode it is about now."""

    partition: Partition
    as_of: datetime | None
    problem: str | None
    inputs: tuple[Selected, ...]


def preview(world: World, prepared: Prepared) -> Iterator[Previewed]:
    """Yield each date, with the inputs of those that would run. A mode's own command is run to know its instant."""
    for each in prepared.partitions:
        if not each.is_work:
            yield Previewed(each, None, None, ())
            continue
        try:
            as_of = _as_of(world, prepared, each)
        except OrchctlError as error:
            yield Previewed(each, None, error.message, ())
            continue
        yield Previewed(each, as_of, None, tuple(_inputs(world, prepared, each.game_date, as_of)))


def _as_of(world: World, prepared: Prepared, each: Partition) -> datetime:
    """Return the instant of a date. A run that is tried again keeps the one that it has."""
    if each.seen is not None and each.action == "retry":
        flow_run = each.seen.flow_run
        held = flow_run.parameters.get("run_as_of_ts")
        return parse_instant(held) if held else flow_run.expected_start or world.now()
    mode = prepared.asked.as_of_mode
    if mode is None:
        return world.now()
    return world.as_of(prepared.job, mode, each.game_date, prepared.asked.partition)


def _inputs(world: World, prepared: Prepared, day: date, as_of: datetime) -> Iterator[Selected]:
    job = prepared.job
    if job.execution != "steps":
        return
    chosen = [step for step in job.steps if step.name in prepared.asked.steps or not prepared.asked.steps]
    names = {step.name for step in chosen}
    keys = partition.keys(job, day, prepared.asked.partition)
    for step in chosen:
        for table in step.inputs:
            try:
                yield _input(world, prepared, step, table, _Now(day, as_of, names, keys))
            except (OSError, OrchctlError) as error:
                yield Selected(step.name, table.name, note=f"cannot be looked at: {error}", gap=True)


@dataclass(frozen=True, slots=True)
class _Now:
    day: date
    as_of: datetime
    chosen: set[str]
    keys: Mapping[str, str]


def _input(world: World, prepared: Prepared, step: StepTable, table: InputTable, now: _Now) -> Selected:
    found = partial(Selected, step.name, table.name)
    if table.step is not None:
        if table.step in now.chosen:
            return found(note=f"made by step {table.step} of the same run")
        return _published(world, prepared.job, step, table, now)
    text = table.path or ""
    if templates.words_in(text) & _OF_A_RUN:
        return found(note="its path is known when the run begins")
    path = templates.render(text, _values(prepared, step, now))
    read = snapshots.choose(path, as_of=now.as_of, names_in=world.disk.names_in, is_there=world.disk.is_there)
    return found(note=read.gap, gap=True) if read.gap is not None else found(read.path, read.at)


def _values(prepared: Prepared, step: StepTable, now: _Now) -> Mapping[str, str]:
    job = prepared.job
    return {
        "game_date": now.day.isoformat(),
        "run_as_of_ts": format_instant(now.as_of),
        "data_root": job.data_root,
        "job": job.name,
        "step": step.name,
        templates.SNAPSHOT: snapshots.MARK,
        **now.keys,
    }


def _published(world: World, job: Job, step: StepTable, table: InputTable, now: _Now) -> Selected:
    """Return what another run of a step that is not chosen has published, the newest as of then."""
    selected = partial(Selected, step.name, table.name)
    manifests = world.tree(job.data_root).published(table.step or "", now.day)
    for each in snapshots.earlier(manifests, job=job, keys=now.keys, as_of=now.as_of):
        if world.disk.is_there(each.path):
            return selected(each.path, each.as_of, f"of run {each.run_id}")
    return selected(note=f"step {table.step} has published nothing for {now.day}", gap=True)
