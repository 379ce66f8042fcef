"""Where steps publish and what they read: no two in one place, and nothing that nobody makes before."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase

from orchctl.core import steps, templates
from orchctl.core.catalog_rules import unknown
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_steps import PublishTable
from orchctl.core.catalog_written import WrittenJob, WrittenStep
from orchctl.core.names import is_name, parse_instant
from orchctl.core.toml_lines import Path

Place = tuple[str, ...]
"""A template of a path, part by part, with the job's own words filled in."""

_RUN = "{run_id}"
_OF_ONE_RUN = (_RUN, "{run_as_of_ts}", "{slot}")
_BEGINNINGS = ("/", "{data_root}", "{run_dir}")


def check(source: Source, jobs: Sequence[WrittenJob]) -> None:
    """Check each step's `publish` against all others, its `outputs`, and the inputs that it reads of its own run."""
    placed: dict[Place, str] = {}
    folders: dict[Place, str] = {}
    for job in jobs:
        for step in job.steps:
            for index, text in enumerate(step.table.outputs):
                if not is_absolute(text):
                    not_absolute(source, (*step.path, "outputs", index), text)
            publish = step.table.publish
            if publish is None:
                continue
            _check_policy(source, (*step.path, "publish"), job, publish)
            _check_from(source, (*step.path, "publish", "from"), publish.source)
            path: Path = (*step.path, "publish", "to")
            if _check_to(source, path, publish.to):
                place = _place(publish.to, job, step)
                _check_place(source, path, folders.get(place[:-1]))
                folders.setdefault(place[:-1], step.name)
                placed.setdefault(place, step.name)
    for job in jobs:
        _check_outputs(source, job, placed)
        if job.whole and all(is_right(text, job) for step in job.steps for text in _made_by(step)):
            _check_reads(source, job)


def _check_outputs(source: Source, job: WrittenJob, placed: Mapping[Place, str]) -> None:
    """No step writes into what another one publishes: that never changes."""
    for step in job.steps:
        for index, text in enumerate(step.table.outputs):
            place = _place(text, job, step)
            above = (placed.get(place[:length], step.name) for length in range(1, len(place) + 1))
            other = next((name for name in above if name != step.name), None)
            if other is not None:
                source.wrong((*step.path, "outputs", index), f"is in what {other} publishes, which never changes")


def _made_by(step: WrittenStep) -> tuple[str, ...]:
    return (*step.table.outputs, *_published(step))


def is_right(text: str, job: WrittenJob) -> bool:
    """Whether a place can be compared with others; what is wrong with one is noted elsewhere."""
    return is_absolute(text) and not templates.problems(text, (*templates.WORDS, *job.names("partition")))


def is_absolute(text: str) -> bool:
    """Whether a template is an absolute path without `..`."""
    return text.startswith(_BEGINNINGS) and ".." not in text.split("/")


def is_below(text: str) -> bool:
    """Whether a template is a relative path without `..`."""
    return not text.startswith(_BEGINNINGS) and ".." not in text.split("/")


def not_absolute(source: Source, path: Path, text: str) -> None:
    """Note that a template must be an absolute path."""
    source.wrong(path, f'"{text}" is no absolute path', allowed="begins with / or {data_root}, and has no ..")


def _check_policy(source: Source, path: Path, job: WrittenJob, publish: PublishTable) -> None:
    if publish.policy != "window":
        if publish.until is not None:
            source.wrong(
                (*path, "until"), f'means something only with policy = "window", and this is "{publish.policy}"'
            )
        return
    if publish.until is None:
        source.wrong((*path, "until"), "is missing", allowed="an instant, or an as_of mode of the job: until when")
    elif is_name(publish.until):
        modes, none = job.names("as_of"), f"no mode is defined in [jobs.{job.name}.as_of]"
        if publish.until not in modes:
            unknown(source, (*path, "until"), "as_of mode", publish.until, known=modes, none=none)
    elif not _is_instant(publish.until, job):
        source.wrong(
            (*path, "until"),
            f'"{publish.until}" is no instant',
            allowed="such as {game_date}T19:00:00-05:00, or the name of an as_of mode",
        )


def _is_instant(text: str, job: WrittenJob) -> bool:
    """Whether a template will give an instant; True for one that nobody can tell before a run, or that is wrong."""
    words = templates.words_in(text)
    if templates.problems(text, (*templates.WORDS, *job.names("partition"))) or words & set(job.names("partition")):
        return True
    example = "2025-12-19T00:00:00Z"
    values = {"game_date": date(2025, 12, 19).isoformat(), "run_as_of_ts": example, "slot": example}
    try:
        parse_instant(templates.render(text, values))
    except ValueError:
        return False
    return True


def _check_from(source: Source, path: Path, text: str) -> None:
    if not is_below(text):
        source.wrong(path, f'"{text}" is not below the staging directory', allowed="a relative path without ..")


def _check_to(source: Source, path: Path, text: str) -> bool:
    """Whether a place is one: absolute, of one run by its last part alone, of one date by a part before."""
    before = len(source.problems)
    *parents, last = parts(text) or ("",)
    if not is_absolute(text):
        not_absolute(source, path, text)
    if _RUN not in last:
        source.wrong(
            path,
            f'the last part, "{last}", does not name {_RUN}: runs would overwrite each other',
            allowed=f"such as …/run={_RUN}",
        )
    for word in _OF_ONE_RUN:
        if any(word in part for part in parents):
            source.wrong(path, f"{word} stands before the last part: the pointers beside the runs would be of one run")
    if not any("{game_date}" in part for part in parents):
        source.wrong(
            path,
            "no part before the last names {game_date}: the pointers beside the runs would be of all dates",
            allowed=f"such as {{data_root}}/gold/x/{{game_date}}/run={_RUN}",
        )
    if parents[:2] == ["{data_root}", "manifests"]:
        source.wrong(path, "is inside the manifest tree, which is orchctl's own")
    return len(source.problems) == before


def parts(text: str) -> Place:
    """Return the parts of a template of a path."""
    return tuple(part for part in text.split("/") if part not in {"", "."})


def _place(text: str, job: WrittenJob, step: WrittenStep) -> Place:
    root = job.text("data_root")
    known = {"job": job.name, "step": step.name, **({} if root is None else {"data_root": root.rstrip("/")})}
    run_dir = "{data_root}/manifests/{step}/game_date={game_date}/run={run_id}"
    return parts(templates.fill(templates.fill(text, {"run_dir": run_dir}), known))


def _check_place(source: Source, path: Path, other: str | None) -> None:
    """Two steps may not share a folder; `other` publishes there already, None: nobody does."""
    if other is not None:
        source.wrong(path, f"is where {other} publishes: the pointers beside the runs would be of both")


def _check_reads(source: Source, job: WrittenJob) -> None:
    """What is read of the run itself must be made by a step that comes before."""
    tables = [step.table for step in job.steps]
    places = {step.name: tuple(_made(job, step)) for step in job.steps}
    for step in job.steps:
        above = steps.ancestors(tables, step.name)
        for index, each in enumerate(step.table.inputs):
            if each.path is None or _RUN not in each.path:
                continue
            path: Path = (*step.path, "inputs", index, "path")
            wanted = _place(each.path, job, step)
            others = [other for other in job.steps if other.name != step.name]
            makers = [other.name for other in others if any(_makes(*made, wanted) for made in places[other.name])]
            if not makers:
                below = steps.descendants(tables, step.name)
                made = [text for other in others if other.name not in below for text in _made_by(other)]
                close = difflib.get_close_matches(each.path, made, n=1, cutoff=0.6)
                source.wrong(
                    path,
                    "no step of this job publishes this or lists it in outputs",
                    allowed="what an earlier step does, or step = its name",
                    nearest=close[0] if close else None,
                )
            elif not above & set(makers) and all(name in places for name in steps.needs(step.table)):
                message = f"{makers[0]} makes this, and this step does not wait for it"
                source.wrong(path, message, allowed=f'after = ["{makers[0]}"]')


def _published(step: WrittenStep) -> tuple[str, ...]:
    return () if step.table.publish is None else (step.table.publish.to,)


def _made(job: WrittenJob, step: WrittenStep) -> Iterator[tuple[Place, bool]]:
    """Yield the places that a step makes, and whether it is all that is there (so that nothing above it counts)."""
    yield from ((_place(text, job, step), True) for text in _published(step))
    yield from ((_place(text, job, step), False) for text in step.table.outputs)


def _makes(made: Place, whole: bool, wanted: Place) -> bool:
    """Whether `wanted` is `made` or below it; for an output also a folder above it. `*` matches as in a shell."""
    if whole and len(wanted) < len(made):
        return False
    for have, want in zip(made, wanted, strict=False):
        if have == "**":
            return True
        if not fnmatchcase(want, have):
            return False
    return True
