"""The jobs of `jobs.toml` as they were written, also the broken ones: what the rules that span tables look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from orchctl.core.catalog_steps import StepTable
from orchctl.core.toml_lines import Path

# Tables of a job whose keys stand beside those of the same table in `[defaults]`; any other key replaces its default.
_MERGED = ("env", "partition", "as_of")


@dataclass(frozen=True, slots=True)
class WrittenStep:
    """A step: where it stands, as it was written, and as a table without the keys that are wrong.

    `whole`: no key is wrong, so that what the table does not say is not there.
    """

    path: Path
    raw: Mapping[str, Any]
    table: StepTable
    whole: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.table.name


@dataclass(frozen=True, slots=True)
class WrittenJob:
    """A job: where it stands, its own table, that table over `[defaults]`, and those of its steps that have a name.

    `whole`: each of its steps has a name and no wrong key.
    """

    name: str
    path: Path
    raw: Mapping[str, Any]
    table: Mapping[str, Any]
    steps: tuple[WrittenStep, ...]
    whole: bool

    def names(self, key: str) -> tuple[str, ...]:
        """Return the keys of a table of the job, such as `partition`, with those of `[defaults]`."""
        found = self.table.get(key)
        return tuple(found) if isinstance(found, dict) else ()

    def text(self, key: str) -> str | None:
        """Return a text of the job, such as `data_root`; None where there is none, or it is no text."""
        found = self.table.get(key)
        return found if isinstance(found, str) else None

    def place(self, key: str) -> Path:
        """Return where a key of the job stands: its own, else, for one of `[defaults]`, the job."""
        return (*self.path, key) if key in self.raw else self.path


def merged(defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's table over `[defaults]`."""
    found = {**defaults, **raw}
    for key in _MERGED:
        if isinstance(raw.get(key), dict) and isinstance(defaults.get(key), dict):
            found[key] = {**defaults[key], **raw[key]}
    return found


def written(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[WrittenJob, ...]:
    """Return the jobs of a parsed `jobs.toml`, in its order. `defaults` are the keys of `[defaults]` that are right."""
    tables = data.get("jobs", {})
    return tuple(
        _job(name, raw, defaults)
        for name, raw in (tables if isinstance(tables, dict) else {}).items()
        if isinstance(raw, dict)
    )


def _job(name: str, raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> WrittenJob:
    path: Path = ("jobs", name)
    listed = raw.get("steps", [])
    steps = tuple(_steps(path, listed if isinstance(listed, list) else []))
    whole = isinstance(listed, list) and len(steps) == len(listed) and all(step.whole for step in steps)
    return WrittenJob(name, path, raw, merged(defaults, raw), steps, whole)


def _steps(job: Path, listed: list[Any]) -> Iterator[WrittenStep]:
    for index, raw in enumerate(listed):
        if not isinstance(raw, dict):
            continue
        found = _readable(raw)
        if found is not None:
            yield WrittenStep((*job, "steps", index), raw, *found)


def _readable(raw: Mapping[str, Any]) -> tuple[StepTable, bool] | None:
    """Return what can be read of a step, and whether that is all of it; None where it has no name."""
    try:
        return StepTable.model_validate(raw), True
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False) if detail["loc"]}
    right = {key: value for key, value in raw.items() if key not in wrong}
    try:
        return StepTable.model_validate({"command": ["-"], **right}), False
    except ValidationError:
        return None
