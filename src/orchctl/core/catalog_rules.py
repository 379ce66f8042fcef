"""What a catalog must satisfy beyond the form of its tables."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchctl.core import calendar, calendar_lines, templates
from orchctl.core.catalog import Schedule, ScheduleTable
from orchctl.core.catalog_cadences import cron_problem, rrule_problem
from orchctl.core.catalog_words import is_secret, printable
from orchctl.core.names import ENV_KEY_PATTERN, NAME_PATTERN, is_env_key, is_name, nearest
from orchctl.core.toml_lines import Path

if TYPE_CHECKING:
    from orchctl.core.catalog_build import Source

# Folders of the manifest tree that hold something else than runs.
RESERVED_ASSETS = ("events", "backfills")
_CADENCES = ("cron", "on_calendar", "every", "rrule")


def check_name(source: Source, path: Path, name: str) -> None:
    """A job or schedule must have a name that can be a file, a flow and an argument."""
    if not is_name(name):
        source.wrong(path, f'the name "{name}" is not allowed', allowed=NAME_PATTERN)


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
            source.wrong(
                (*path, "schedules", index),
                f'there is no schedule "{name}"',
                allowed=", ".join(sorted(known)) or "no schedule is defined",
                nearest=nearest(name, known),
            )


def check(source: Source, schedules: Mapping[str, tuple[Schedule, ...]]) -> None:
    """Check what spans several keys or jobs, on the tables as they were written: also those of broken jobs."""
    owners: dict[object, str] = {}
    tables, defaults = source.data.get("jobs", {}), source.data.get("defaults")
    inherited = defaults.get("legacy") if isinstance(defaults, dict) else None
    named: list[tuple[Path, Any]] = [(("defaults",), defaults)]
    named += [(("jobs", name), raw) for name, raw in tables.items()] if isinstance(tables, dict) else []
    for path, raw in named:
        if not isinstance(raw, dict):
            continue
        _check_templates(source, path, raw)
        _check_env(source, path, raw.get("env"))
        if raw.get("asset") in RESERVED_ASSETS:
            source.wrong((*path, "asset"), f'"{raw["asset"]}" is a folder of orchctl itself in the manifest tree')
        _check_slugs(source, path, raw.get("schedules"), schedules)
        if path[0] == "jobs":
            _check_legacy(source, path, raw.get("legacy", inherited), owners)
    for name in RESERVED_ASSETS:
        if isinstance(tables, dict) and isinstance(tables.get(name), dict) and "asset" not in tables[name]:
            source.wrong(
                ("jobs", name),
                f'"{name}" is a folder of orchctl itself in the manifest tree',
                allowed="asset = another name",
            )


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


def _check_env(source: Source, path: Path, env: object) -> None:
    for key in env if isinstance(env, dict) else ():
        if not is_env_key(key):
            source.wrong((*path, "env", key), "is not the name of a variable", allowed=ENV_KEY_PATTERN)
        elif key.startswith(("ORCHCTL_", "PREFECT__")):
            source.wrong((*path, "env", key), "is set by the runner itself")


def _check_templates(source: Source, path: Path, raw: Mapping[str, Any]) -> None:
    for where, text in _templates_of(raw):
        bad = templates.problems(text)
        if bad:
            # A token may be a piece of a password: it is shown only where it can be seen in the masked text.
            secret = is_secret(where) or any(token not in printable(text) for token in bad)
            source.wrong(
                (*path, *where),
                f"{'a brace' if secret else ', '.join(bad)} means nothing in a template",
                allowed=" ".join(f"{{{word}}}" for word in templates.WORDS) + ", {{ and }} for braces",
                nearest=None if secret else nearest(bad[0].strip("{}"), templates.WORDS),
            )


def _templates_of(raw: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for key in ("command", "dry_run_command", "outputs"):
        values = raw.get(key)
        for index, text in enumerate(values if isinstance(values, list) else ()):
            if isinstance(text, str):
                yield (key, index), text
    env = raw.get("env")
    for name, text in env.items() if isinstance(env, dict) else ():
        if isinstance(text, str):
            yield ("env", name), text
