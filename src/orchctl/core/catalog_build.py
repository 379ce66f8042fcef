"""From the text of the three TOML files to one `Catalog`, or to every problem in them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchctl.core import (
    calendar_lines,
    catalog_contracts,
    catalog_logs,
    catalog_retention,
    catalog_rules,
    catalog_step_rules,
)
from orchctl.core.catalog import Catalog, Job, JobsFile, JobTable, Schedule, SchedulesFile, ScheduleTable
from orchctl.core.catalog_source import Content, Source, parse, source_of
from orchctl.core.catalog_words import found_words
from orchctl.core.catalog_written import merged, written
from orchctl.core.contracts import ContractsFile, ContractTable
from orchctl.core.names import NAME_PATTERN, is_name
from orchctl.core.problems import Problem
from orchctl.core.toml_lines import Path
from orchctl.errors import CatalogInvalid

_REQUIRED = ("command", "data_root", "working_directory", "work_pool")
_NO_CONTRACTS = ("contracts.toml", None)


def build(
    jobs: tuple[str, Content],
    schedules: tuple[str, Content],
    contracts: tuple[str, Content] = _NO_CONTRACTS,
) -> Catalog:
    """Return the catalog in (file name, content) of `jobs.toml`, `schedules.toml` and `contracts.toml`.

    The last may be missing: then there are no contracts. Raises CatalogInvalid with every problem of all of them, in
    file order.
    """
    jobs_source, schedules_source = source_of(*jobs, JobsFile), source_of(*schedules, SchedulesFile)
    head = _schedules_file(schedules_source) if parse(schedules_source) else None
    found = _schedules(schedules_source, head) if head is not None else {}
    sources = [jobs_source, schedules_source]
    promised: dict[str, ContractTable] | None = {}
    if contracts[1] is not None:
        sources.append(source_of(*contracts, ContractsFile))
        promised = catalog_contracts.read(sources[-1]) if parse(sources[-1]) else None
    top = JobsFile(version=1)
    resolved: dict[str, Job] = {}
    if parse(jobs_source):
        known = _names(schedules_source) if head is not None else None
        top, resolved = _jobs_file(jobs_source, known, found, promised)
    problems = tuple(sorted({problem for source in sources for problem in source.problems}, key=Problem.order))
    if problems or head is None:
        count = len(problems)
        raise CatalogInvalid(f"the catalog has {count} problem{'' if count == 1 else 's'}", problems=problems)
    return Catalog(
        name=top.name,
        timezone=head.timezone,
        schedules=dict(sorted(found.items())),
        jobs=dict(sorted(resolved.items())),
        limits=dict(sorted(top.limits.items())),
        contracts=dict(sorted((promised or {}).items())),
        logs=top.logs,
        retention=top.retention,
    )


def _schedules_file(source: Source) -> SchedulesFile | None:
    """Check everything but the schedules' own tables. None where the file has no usable form."""
    tables = source.data.get("schedules", {})
    shell = {**source.data, "schedules": {}} if isinstance(tables, dict) else source.data
    try:
        head = SchedulesFile.model_validate(shell)
    except ValidationError as error:
        source.refused(error, ())
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
            source.refused(error, path)
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


def _jobs_file(
    source: Source,
    names: frozenset[str] | None,
    schedules: Mapping[str, tuple[Schedule, ...]],
    contracts: Mapping[str, ContractTable] | None,
) -> tuple[JobsFile, dict[str, Job]]:
    """Return the top of `jobs.toml`, without its jobs, and the jobs.

    `names` are those of schedules, None where they could not be read; so `contracts`.
    """
    top, defaults = _jobs_head(source), _defaults(source)
    resolved = _jobs(source, defaults, names)
    jobs = written(source.data, defaults)
    catalog_logs.check(source)
    catalog_retention.check(source)
    catalog_rules.check(source, schedules, jobs)
    catalog_step_rules.check(source, jobs, contracts)
    return top, resolved


def _jobs_head(source: Source) -> JobsFile:
    """Check the top of `jobs.toml`: everything but `[defaults]` and the jobs."""
    tables = source.data.get("jobs", {})
    shell = {**source.data, "jobs": {}, "defaults": {}} if isinstance(tables, dict) else {**source.data, "defaults": {}}
    try:
        return JobsFile.model_validate(shell)
    except ValidationError as error:
        source.refused(error, ())
        return JobsFile(version=1)


def _jobs(source: Source, defaults: dict[str, Any], schedules: frozenset[str] | None) -> dict[str, Job]:
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
    wrong = {"steps"}
    if "steps" in raw:
        source.wrong(
            ("defaults", "steps"),
            "steps are those of one job: each is an asset, and an asset is made in one place",
            allowed="[[jobs.NAME.steps]]",
        )
    try:
        JobTable.model_validate({key: value for key, value in raw.items() if key != "steps"})
    except ValidationError as error:
        source.refused(error, ("defaults",))
        wrong |= {str(detail["loc"][0]) for detail in error.errors(include_url=False) if detail["loc"]}
    return {key: value for key, value in raw.items() if key not in wrong}


def _job(source: Source, name: str, raw: dict[str, Any], defaults: dict[str, Any]) -> Job | None:
    path: Path = ("jobs", name)
    whole = merged(defaults, raw)
    whole.setdefault("asset", name)
    inherited = source.data.get("defaults", {})
    needed = _REQUIRED if _needs_command(whole, inherited) else _REQUIRED[1:]
    for key in needed:
        # A default that is wrong has been noted already, and is not missing.
        if isinstance(inherited, dict) and key not in whole and key not in inherited:
            steps = ', or execution = "steps"' if key == "command" and whole.get("steps") else ""
            source.wrong((*path, key), "is missing", allowed=f"{key} here or in [defaults]{steps}")
    try:
        JobTable.model_validate(whole)
    except ValidationError as error:
        source.refused(error, path, only=raw)
        return None
    if any(whole.get(key) is None for key in needed):
        return None
    try:
        return Job.model_validate({**whole, "name": name})
    except ValidationError:  # a bad name of the job, which is its asset too: noted by its own check
        return None


def _needs_command(table: Mapping[str, Any], inherited: object) -> bool:
    """Whether a job must say its command: not one that has steps and runs as them, or whose default is wrong there."""
    unknown = "execution" not in table and isinstance(inherited, dict) and "execution" in inherited
    return not table.get("steps") or not (unknown or table.get("execution") == "steps")
