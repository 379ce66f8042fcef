"""What a catalog must satisfy beyond the form of its tables."""

from __future__ import annotations

import re
import warnings
import zoneinfo
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from orchctl.core import calendar, calendar_lines
from orchctl.core.catalog import Schedule, ScheduleTable
from orchctl.core.catalog_cadences import cron_problem, rrule_problem
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_written import WrittenJob
from orchctl.core.names import ENV_KEY_PATTERN, NAME_PATTERN, is_env_key, is_name, nearest
from orchctl.core.toml_lines import Path

# Folders of the manifest tree that hold something else than runs.
RESERVED_ASSETS = ("events", "backfills")
_CADENCES = ("cron", "on_calendar", "every", "rrule")


def check_name(source: Source, path: Path, name: str) -> None:
    """A job or schedule must have a name that can be a file, a flow and an argument."""
    if not is_name(name):
        source.wrong(path, f'the name "{name}" is not allowed', allowed=NAME_PATTERN)


def regex_problem(pattern: str) -> str | None:
    """Return why a regular expression cannot be used, None where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error) or "is nested too deeply"
    return None


def unknown(source: Source, path: Path, what: str, name: str, *, known: Collection[str], none: str) -> None:
    """Note that there is no `what` of this name. `none` is what to say where there is not one to choose from."""
    source.wrong(
        path,
        f'there is no {what} "{name}"',
        allowed=", ".join(sorted(known)) or none,
        nearest=nearest(name, known),
    )


def is_timezone(name: str) -> bool:
    """Whether the IANA database has `name`."""
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return bool(name)


def bad_timezone(name: str) -> dict[str, Any]:
    """Say that `name` is not a zone, with the nearest one."""
    zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    near = nearest(name, zones)
    return {
        "message": f'"{name}" is not a time zone',
        "allowed": "an IANA name like America/New_York or UTC",
        "nearest": zones[near] if near else None,
    }


def check_cadence(source: Source, path: Path, raw: object) -> bool:
    """Exactly one key must say when; checked on the raw table, so that a broken value counts as said."""
    given = [key for key in _CADENCES if isinstance(raw, dict) and key in raw]
    if len(given) != 1 and isinstance(raw, dict):
        found = " and ".join(given) or "none of them"
        source.wrong(path, f"found {found}", allowed="exactly one of cron, on_calendar, every, rrule")
    return len(given) == 1


def check_schedule(source: Source, path: Path, table: ScheduleTable, timezone: str) -> bool:
    """Check one cadence, in the zone in force; return whether it is right."""
    before = len(source.problems)
    if table.anchor is not None and table.every is None:
        source.wrong((*path, "anchor"), "an anchor means something only beside every")
    if table.timezone is not None and not is_timezone(table.timezone):
        source.wrong((*path, "timezone"), **bad_timezone(table.timezone))
    for key, value, reason in _unreadable(table, timezone if is_timezone(timezone) else "UTC"):
        source.wrong((*path, key), f'"{value}": {reason}')
    return len(source.problems) == before


def _unreadable(table: ScheduleTable, timezone: str) -> Iterator[tuple[str, str, str]]:
    if table.cron is not None and (reason := cron_problem(table.cron)):
        yield "cron", table.cron, reason
    if table.rrule is not None and (reason := rrule_problem(table.rrule)):
        yield "rrule", table.rrule, reason
    yield from _unreadable_lines(table.on_calendar, timezone)


def _unreadable_lines(lines: Sequence[str], timezone: str) -> Iterator[tuple[str, str, str]]:
    broken = False
    for line in lines:
        try:
            calendar.convert(line, timezone)
        except ValueError as error:
            broken = True
            yield "on_calendar", line, str(error)
    if broken or len(lines) < 2:
        return
    try:
        for line in calendar_lines.disjoint(lines, timezone):
            calendar.convert(line, timezone)
    except ValueError as error:
        yield "on_calendar", " | ".join(lines), str(error)


def check_schedule_names(
    source: Source,
    path: Path,
    raw: Mapping[str, Any],
    known: frozenset[str] | None,
) -> None:
    """Each name in `schedules` must be a schedule. `known` is None where the schedules could not be read."""
    names = raw.get("schedules")
    if known is None or not isinstance(names, (list, tuple)):
        return
    for index, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            where: Path = (*path, "schedules", index)
            unknown(source, where, "schedule", name, known=known, none="no schedule is defined")


def check(source: Source, schedules: Mapping[str, tuple[Schedule, ...]], jobs: Sequence[WrittenJob]) -> None:
    """Check what spans several keys or jobs, on the tables as they were written: also those of broken jobs."""
    owners: dict[object, str] = {}
    defaults = source.data.get("defaults")
    if isinstance(defaults, dict):
        _check_table(source, ("defaults",), defaults, schedules)
    inherited = defaults.get("legacy") if isinstance(defaults, dict) else None
    for job in jobs:
        _check_table(source, job.path, job.raw, schedules)
        _check_legacy(source, job.path, job.raw.get("legacy", inherited), owners)
        if job.name in RESERVED_ASSETS and "asset" not in job.raw:
            source.wrong(job.path, reserved(job.name), allowed="asset = another name")


def _check_table(
    source: Source, path: Path, raw: Mapping[str, Any], schedules: Mapping[str, tuple[Schedule, ...]]
) -> None:
    check_env(source, (*path, "env"), raw.get("env"))
    if raw.get("asset") in RESERVED_ASSETS:
        source.wrong((*path, "asset"), reserved(raw["asset"]))
    _check_slugs(source, path, raw.get("schedules"), schedules)


def reserved(name: str) -> str:
    """Say that an asset may not have this name."""
    return f'"{name}" is a folder of orchctl itself in the manifest tree'


def _check_slugs(source: Source, path: Path, names: object, schedules: Mapping[str, tuple[Schedule, ...]]) -> None:
    if not isinstance(names, list):
        return
    slugs = [schedule.name for name in names if isinstance(name, str) for schedule in schedules.get(name, ())]
    for twice in sorted({slug for slug in slugs if slugs.count(slug) > 1}):
        source.wrong((*path, "schedules"), f'"{twice}" stands for two cadences of this job')


def _check_legacy(source: Source, path: Path, triggers: object, owners: dict[object, str]) -> None:
    """A trigger belongs to one job, or a cutover of one would take it from the other."""
    if not isinstance(triggers, list):
        return
    for index, trigger in enumerate(triggers):
        if not isinstance(trigger, dict):
            continue
        timer = trigger.get("timer")
        line = (trigger.get("cron"), trigger.get("user"), trigger.get("file"))
        key = (timer, trigger.get("scope", "system")) if timer else line
        what = f"{timer} ({trigger.get('scope', 'system')})" if timer else "this crontab line"
        owner = str(path[-1])
        if repr(key) in owners:
            source.wrong((*path, "legacy", index), f"{what} is already a trigger of {owners[repr(key)]}")
        owners.setdefault(repr(key), owner)


def check_env(source: Source, path: Path, env: object) -> None:
    """The keys of an environment must be names of variables, and not those that the runner sets."""
    for key in env if isinstance(env, dict) else ():
        if not is_env_key(key):
            source.wrong((*path, key), "is not the name of a variable", allowed=ENV_KEY_PATTERN)
        elif key.startswith(("ORCHCTL_", "PREFECT__")):
            source.wrong((*path, key), "is set by the runner itself")
