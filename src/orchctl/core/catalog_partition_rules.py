"""What the keys of a job's partition and its `as_of` modes must satisfy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchctl.core import catalog_publish_rules, templates
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_steps import AsOfMode, PartitionKey
from orchctl.core.catalog_written import WrittenJob
from orchctl.core.partition import VALUE_PATTERN, is_value
from orchctl.core.toml_lines import Path

# Of `ORCHCTL_<KEY>`, what the runner and orchctl itself set or read.
_TAKEN = (*templates.WORDS, templates.STAGING, templates.SNAPSHOT, "inputs", "config", "state_dir", "run_token")
_RULE = re.compile(r"%[YymdjGVuwUWbBaA]|[A-Za-z0-9._-]")
_RULES = "a strftime of a date: %Y %y %m %d %j %G %V %u and the like, letters, digits, . _ -"
_KEY = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_ANY_DAY = date(2025, 12, 19)
_Kind = TypeVar("_Kind", bound=BaseModel)


def check(source: Source, jobs: Sequence[WrittenJob]) -> None:
    """Check the partition keys and the `as_of` modes, each where it was written; then those that nobody would give."""
    defaults = source.data.get("defaults")
    tables: list[tuple[Path, Mapping[str, Any]]] = [(job.path, job.raw) for job in jobs]
    for path, raw in [(("defaults",), defaults), *tables] if isinstance(defaults, dict) else tables:
        for where, key in _readable(raw, "partition", PartitionKey):
            _check_key(source, (*path, *where), raw["partition"][where[1]], key)
        for where, mode in _readable(raw, "as_of", AsOfMode):
            _check_mode(source, (*path, *where), raw["as_of"][where[1]], mode)
    for job in jobs:
        _check_given(source, job)
        _check_places(source, job)


def _readable(raw: Mapping[str, Any], key: str, kind: type[_Kind]) -> Iterator[tuple[tuple[str, str], _Kind]]:
    """Yield the tables of a table that have the right form."""
    tables = raw.get(key)
    for name, each in tables.items() if isinstance(tables, dict) else ():
        try:
            yield (key, name), kind.model_validate(each)
        except ValidationError:
            continue


def _check_key(source: Source, path: Path, raw: Mapping[str, Any], key: PartitionKey) -> None:
    name = str(path[-1])
    if _is_taken(name):
        source.wrong(path, f'"{name}" is a word of templates or a variable of orchctl already')
    if key.format is None:
        if "shift_months" in raw:
            source.wrong((*path, "shift_months"), "means something only beside format")
        if key.default is not None and not is_value(key.default):
            source.wrong((*path, "default"), f'"{key.default}" may not be part of a path', allowed=VALUE_PATTERN)
        return
    if key.default is not None:
        source.wrong((*path, "default"), "means nothing beside format: the rule always gives a value")
    if _RULE.sub("", key.format) or not is_value(_ANY_DAY.strftime(key.format)):
        source.wrong((*path, "format"), f'"{key.format}" gives no value that may be part of a path', allowed=_RULES)


def _check_mode(source: Source, path: Path, raw: Mapping[str, Any], mode: AsOfMode) -> None:
    given = [key for key in ("command", "file") if key in raw]
    if len(given) != 1:
        source.wrong(path, f"found {' and '.join(given) or 'neither'}", allowed="exactly one of command, file")
    if "command" in raw and not (mode.command and mode.command[0].strip()):
        source.wrong((*path, "command"), "names no program")
    if mode.key is not None and "file" not in raw:
        source.wrong((*path, "key"), "means something only beside file")
    if mode.file is not None and not catalog_publish_rules.is_absolute(mode.file):
        catalog_publish_rules.not_absolute(source, (*path, "file"), mode.file)


def _check_given(source: Source, job: WrittenJob) -> None:
    """A run that a schedule starts has nobody who could give a value."""
    if not job.table.get("schedules"):
        return
    for (_, name), key in _readable(job.table, "partition", PartitionKey):
        if key.format is None and key.default is None:
            own = isinstance(job.raw.get("partition"), dict) and name in job.raw["partition"]
            source.wrong(
                (*job.path, "partition", name) if own else job.path,
                f"nothing gives the partition key {name} a value in a run that a schedule starts",
                allowed="format or default in it, or a job without schedules",
            )


def _check_places(source: Source, job: WrittenJob) -> None:
    """Runs of one date that differ in a key move pointers of their own. What a rule gives differs with the date."""
    free = [
        name
        for (_, name), key in _readable(job.table, "partition", PartitionKey)
        if key.format is None and not key.shift_months and _KEY.match(name) and not _is_taken(name)
    ]
    for step in job.steps:
        if step.table.publish is None or not catalog_publish_rules.is_right(step.table.publish.to, job):
            continue
        folder = "/".join(catalog_publish_rules.parts(step.table.publish.to)[:-1])
        missing = [f"{{{name}}}" for name in free if f"{{{name}}}" not in folder]
        if missing:
            source.wrong(
                (*step.path, "publish", "to"),
                f"no part before the last names {', '.join(missing)}, which --param may set: "
                "the pointers beside the runs would be of all values",
                allowed=f"such as {{data_root}}/gold/x/{'/'.join(missing)}/{{game_date}}/run={{run_id}}",
            )


def _is_taken(name: str) -> bool:
    """Whether a key's name, or its variable, is something else already."""
    return name in _TAKEN or name.startswith("input_")
