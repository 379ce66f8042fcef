"""From the text of the two TOML files to one `Catalog`, or to every problem in them at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from orchctl.core import calendar_lines, catalog_rules
from orchctl.core.catalog import Catalog, Job, JobsFile, JobTable, Schedule, SchedulesFile, ScheduleTable
from orchctl.core.catalog_words import describe, found_words, printable
from orchctl.core.names import NAME_PATTERN, is_name
from orchctl.core.problems import Problem
from orchctl.core.toml_lines import Path, dotted, lines_of
from orchctl.errors import CatalogInvalid

_AT = re.compile(r"\(at line (\d+), column \d+\)")
# Far more than a catalog needs, far less than what exhausts the stack of whoever walks through it.
_DEEPEST = 30
_REQUIRED = ("command", "data_root", "working_directory", "work_pool")


@dataclass
class Source:
    """One file: its name as shown, its text, its form, what it says, and what is wrong with it."""

    file: str
    text: str
    model: type[BaseModel]
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _lines: Mapping[Path, int] | None = None

    def line(self, path: Path) -> int | None:
        """Return the line of `path` or of the nearest parent that has one."""
        if self._lines is None:
            self._lines = lines_of(self.text)
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None

    def wrong(self, path: Path, message: str, *, allowed: str | None = None, nearest: str | None = None) -> None:
        """Note a problem at `path`, e.g. `("jobs", "live-score", "overlap")`."""
        depth = 2 if path and path[0] in {"jobs", "schedules"} else 1 if path and path[0] == "defaults" else 0
        table, rest = path[:depth], path[depth:]
        problem = Problem(
            self.file,
            self.line(path),
            printable(dotted(table)),
            printable(dotted(rest)) or None,
            printable(message),
            printable(allowed) if allowed else None,
            printable(nearest) if nearest else None,
        )
        self.problems.append(problem)


Content = str | bytes | None
"""What a file holds: its text, its bytes (UTF-8, or a problem), or None where it does not exist."""


def build(jobs: tuple[str, Content], schedules: tuple[str, Content]) -> Catalog:
    """Return the catalog in (file name, content) of `jobs.toml` and `schedules.toml`.

    Raises CatalogInvalid with every problem of both files, in file order.
    """
    jobs_source, schedules_source = _source(*jobs, JobsFile), _source(*schedules, SchedulesFile)
    head = _schedules_file(schedules_source) if _parse(schedules_source) else None
    found = _schedules(schedules_source, head) if head is not None else {}
    known = _names(schedules_source) if head is not None else None
    jobs_ok = _parse(jobs_source)
    name = _jobs_head(jobs_source) if jobs_ok else "default"
    resolved = _jobs(jobs_source, known) if jobs_ok else {}
    if jobs_ok:
        catalog_rules.check(jobs_source, found)
    problems = tuple(sorted({*jobs_source.problems, *schedules_source.problems}, key=Problem.order))
    if problems or head is None:
        count = len(problems)
        raise CatalogInvalid(f"the catalog has {count} problem{'' if count == 1 else 's'}", problems=problems)
    return Catalog(
        name=name,
        timezone=head.timezone,
        schedules=dict(sorted(found.items())),
        jobs=dict(sorted(resolved.items())),
    )


def _source(file: str, content: Content, model: type[BaseModel]) -> Source:
    if isinstance(content, str):
        return Source(file, content, model)
    if content is None:
        return Source(file, "", model, problems=[Problem(file, None, "", None, "the file does not exist")])
    try:
        return Source(file, content.decode("utf-8"), model)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Source(file, "", model, problems=[Problem(file, line, "", None, f"not UTF-8 (byte {error.start})")])


def _parse(source: Source) -> bool:
    if source.problems:
        return False
    try:
        source.data = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        message = _AT.sub("", str(error)).strip()
        line = int(at[1]) if at else source.text.rstrip("\n").count("\n") + 1
        source.problems.append(Problem(source.file, line, "", None, printable(f"not TOML: {message}")))
        return False
    except ValueError:  # Python reads no more than 4300 digits
        source.problems.append(Problem(source.file, None, "", None, "holds a number with too many digits"))
        return False
    except RecursionError:
        return _too_deep(source)
    return _too_deep(source) if _depth(source.data) > _DEEPEST else _numbers_fit(source)


def _too_deep(source: Source) -> bool:
    source.data = {}
    source.problems.append(Problem(source.file, None, "", None, "nested too deeply"))
    return False


def _depth(data: object) -> int:
    """Return how deep tables and lists stand in each other; it does not recurse."""
    depth, level = 0, [data]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


def _numbers_fit(source: Source) -> bool:
    """Refuse integers beyond TOML's 64 bits: Python reads hexadecimal ones of any length, and cannot show them."""
    huge = [path for path, value in _leaves(source.data) if isinstance(value, int) and not -(2**63) <= value < 2**63]
    for path in huge:
        source.wrong(path, "is a number beyond 64 bits")
    return not huge


def _leaves(data: object, at: Path = ()) -> Iterator[tuple[Path, object]]:
    if isinstance(data, (dict, list)):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _leaves(value, (*at, key))
    else:
        yield at, data


def _pydantic(source: Source, error: ValidationError, prefix: Path, *, only: Iterable[str] | None = None) -> None:
    """Note what pydantic found below `prefix`; `only` limits it to these first keys."""
    wanted = None if only is None else set(only)
    for detail in error.errors(include_url=False):
        said = describe(detail, prefix, source.model)
        if wanted is None or (said.path[len(prefix) :] or (None,))[0] in wanted:
            source.wrong(said.path, said.message, allowed=said.allowed, nearest=said.nearest)


def _schedules_file(source: Source) -> SchedulesFile | None:
    """Check everything but the schedules' own tables. None where the file has no usable form."""
    tables = source.data.get("schedules", {})
    shell = {**source.data, "schedules": {}} if isinstance(tables, dict) else source.data
    try:
        head = SchedulesFile.model_validate(shell)
    except ValidationError as error:
        _pydantic(source, error, ())
        return None if not isinstance(tables, dict) else SchedulesFile(version=1)
    if not catalog_rules.is_timezone(head.timezone):
        source.wrong(("timezone",), **catalog_rules.bad_timezone(head.timezone))
    return head


def _names(source: Source) -> frozenset[str]:
    return frozenset(source.data.get("schedules", {}))


def _schedules(source: Source, head: SchedulesFile) -> dict[str, tuple[Schedule, ...]]:
    found: dict[str, tuple[Schedule, ...]] = {}
    for name, raw in source.data.get("schedules", {}).items():
        path: Path = ("schedules", name)
        catalog_rules.check_name(source, path, name)
        one = catalog_rules.check_cadence(source, path, raw)
        try:
            table = ScheduleTable.model_validate(raw)
        except ValidationError as error:
            _pydantic(source, error, path)
            continue
        timezone = table.timezone or head.timezone
        if catalog_rules.check_schedule(source, path, table, timezone) and one:
            found[name] = _resolve(name, table, timezone)
            slug = found[name][-1].name
            if is_name(name) and not is_name(slug):
                source.wrong(
                    (*path, "on_calendar"), f'"{slug}", the name of its last line, is too long', allowed=NAME_PATTERN
                )
    return found


def _resolve(name: str, table: ScheduleTable, timezone: str) -> tuple[Schedule, ...]:
    # model_construct: the table has been validated, and a Schedule's own validators read the applied form.
    def one(slug: str, on_calendar: tuple[str, ...] = ()) -> Schedule:
        return Schedule.model_construct(
            name=slug,
            cron=table.cron,
            on_calendar=on_calendar,
            every=table.every,
            anchor=table.anchor,
            rrule=table.rrule,
            timezone=timezone,
        )

    if not table.on_calendar:
        return (one(name),)
    # Where two lines name one instant, Prefect would make a run for each. A broken zone has been noted before.
    parted = calendar_lines.disjoint(table.on_calendar, timezone) if catalog_rules.is_timezone(timezone) else ()
    lines = enumerate(parted or table.on_calendar, start=1)
    return tuple(one(name if number == 1 else f"{name}-{number}", (line,)) for number, line in lines)


def _jobs_head(source: Source) -> str:
    """Check the top of `jobs.toml`; return the catalog's name."""
    tables = source.data.get("jobs", {})
    shell = {**source.data, "jobs": {}, "defaults": {}} if isinstance(tables, dict) else {**source.data, "defaults": {}}
    try:
        return JobsFile.model_validate(shell).name
    except ValidationError as error:
        _pydantic(source, error, ())
        return "default"


def _jobs(source: Source, schedules: frozenset[str] | None) -> dict[str, Job]:
    defaults = _defaults(source)
    catalog_rules.check_schedule_names(source, ("defaults",), defaults, schedules)
    tables = source.data.get("jobs", {})
    found: dict[str, Job] = {}
    for name, raw in (tables if isinstance(tables, dict) else {}).items():
        path: Path = ("jobs", name)
        catalog_rules.check_name(source, path, name)
        if not isinstance(raw, dict):
            source.wrong(path, found_words(path, raw), allowed="a table [jobs.NAME]")
            continue
        job = _job(source, name, raw, defaults)
        catalog_rules.check_schedule_names(source, path, raw, schedules)
        if job is not None:
            found[name] = job
    return found


def _defaults(source: Source) -> dict[str, Any]:
    """Return the keys of `[defaults]` that are right; note the others, once and not again for each job."""
    raw = source.data.get("defaults", {})
    if not isinstance(raw, dict):
        source.wrong(("defaults",), found_words((), raw), allowed="a table [defaults]")
        return {}
    try:
        JobTable.model_validate(raw)
    except ValidationError as error:
        _pydantic(source, error, ("defaults",))
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False) if detail["loc"]}
        return {key: value for key, value in raw.items() if key not in wrong}
    return dict(raw)


def _job(source: Source, name: str, raw: dict[str, Any], defaults: dict[str, Any]) -> Job | None:
    path: Path = ("jobs", name)
    merged = {**defaults, **raw}
    if isinstance(raw.get("env"), dict) and isinstance(defaults.get("env"), dict):
        merged["env"] = {**defaults["env"], **raw["env"]}
    merged.setdefault("asset", name)
    inherited = source.data.get("defaults", {})
    for key in _REQUIRED:
        # A default that is wrong has been noted already, and is not missing.
        if isinstance(inherited, dict) and key not in merged and key not in inherited:
            source.wrong((*path, key), "is missing", allowed=f"{key} here or in [defaults]")
    try:
        JobTable.model_validate(merged)
    except ValidationError as error:
        _pydantic(source, error, path, only=raw)
        return None
    if any(merged.get(key) is None for key in _REQUIRED):
        return None
    try:
        return Job.model_validate({**merged, "name": name})
    except ValidationError:  # a bad name of the job, which is its asset too: noted by its own check
        return None
