"""Adds imported jobs to the catalog's text: what stands there stays, byte for byte. Pure.

New tables go to the end of each file. Whatever is added is judged by the catalog's own check, job by job, before
anything is returned.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tomlkit

from orchctl.core import catalog_build
from orchctl.core.catalog_rules import RESERVED_ASSETS
from orchctl.core.drafts import Imported, JobDraft, Refused, ScheduleDraft
from orchctl.core.names import visible
from orchctl.errors import CatalogInvalid, ProblemLike

_WIDTH = 110
_LONGEST = 63
# A default that an imported job must not inherit: it would make it do something else. `user` has no neutral value.
_NEUTRAL: Mapping[str, Any] = {
    "nice": 0,
    "env_files": [],
    "outputs": [],
    "schedules": [],
    "game_date_offset_days": 0,
    "execution": "command",
}
_UNDENIABLE = ("env", "user", "dry_run_command", "accept_cadence", "asset")
_VERSION = "version = 1\n"


@dataclass(frozen=True, slots=True)
class Texts:
    """The files as they are; None where one does not exist. Contracts are only read: nothing is added to them."""

    jobs: str | None = None
    schedules: str | None = None
    contracts: str | None = None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The table `[defaults]`."""
        found = tomllib.loads(self.jobs or "").get("defaults", {})
        return found if isinstance(found, dict) else {}

    @property
    def timezone(self) -> str | None:
        """The zone of schedules that name none; None where there is no such file."""
        return None if self.schedules is None else str(tomllib.loads(self.schedules).get("timezone", "UTC"))

    def names(self, table: str) -> Mapping[str, Any]:
        """Return the tables of `jobs` or `schedules`, by name."""
        found = tomllib.loads((self.jobs if table == "jobs" else self.schedules) or "").get(table, {})
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Addition:
    """What to add. `jobs` and `schedules` are the new tables alone, `after` the files with them.

    `imported` are the drafts as they were added: renamed where a name was taken, refused where the catalog refuses
    them, with notes on both.
    """

    jobs: str
    schedules: str
    after: Texts
    imported: Imported


def add(texts: Texts, imported: Imported, *, zone: str, new_defaults: Mapping[str, Any]) -> Addition:
    """Return what to add to the files for `imported`.

    `zone` becomes that of a new `schedules.toml`, `new_defaults` the `[defaults]` of a new `jobs.toml`; both are
    ignored where the file exists. Raises CatalogInvalid where the files themselves cannot be added to.
    """
    placed, notes = _placed(texts, imported.jobs)
    refused: list[Refused] = []
    while True:
        addition = _addition(texts, placed, zone, new_defaults)
        problems = _problems(addition.after)
        bad = {job.name: reason for job in placed if (reason := _reason(job, problems))}
        if not bad:
            break
        refused += [Refused(what(job), f"the catalog refuses it: {bad[job.name]}") for job in placed if job.name in bad]
        placed = [job for job in placed if job.name not in bad]
    if problems:
        raise CatalogInvalid("the catalog cannot be added to", problems=problems, hint="add what is printed by hand")
    result = Imported(tuple(placed), (*imported.refused, *refused), (*imported.notes, *notes))
    return replace(addition, imported=result)


def what(job: JobDraft) -> str:
    """Return what a job was made from: its triggers."""
    names = [str(trigger.get("timer") or trigger.get("cron")) for trigger in job.triggers]
    return ", ".join(dict.fromkeys(names)) or job.name


def _placed(texts: Texts, jobs: Sequence[JobDraft]) -> tuple[list[JobDraft], list[str]]:
    """Return the jobs under names that are free, and what is said about those that changed."""
    names = {*texts.names("jobs"), *RESERVED_ASSETS}
    schedules = dict(texts.names("schedules"))
    placed, notes = [], []
    for job in jobs:
        name = free_name(job.name, names)
        schedule = job.schedule and _schedule(schedules, job.schedule)
        if name != job.name:
            notes.append(f"{what(job)} becomes {name}: the name {job.name} is taken")
        names.add(name)
        if schedule is not None:
            schedules[schedule.name] = schedule.keys
        inherited = _inherited(texts.defaults, job.keys)
        placed.append(replace(job, name=name, schedule=schedule, warnings=(*job.warnings, *inherited)))
    return placed, notes


def _addition(texts: Texts, placed: Sequence[JobDraft], zone: str, new_defaults: Mapping[str, Any]) -> Addition:
    jobs = [job_table(job, texts.defaults) for job in placed]
    known = texts.names("schedules")
    drafts = {job.schedule.name: job.schedule for job in placed if job.schedule is not None}
    schedules = [
        _comments(draft.comments) + _table(f"schedules.{name}", draft.keys)
        for name, draft in drafts.items()
        if name not in known
    ]
    defaults = _table("defaults", new_defaults) if texts.jobs is None else ""
    after = Texts(
        _appended(texts.jobs, f"{_VERSION}\n{defaults}", jobs),
        _appended(texts.schedules, f"{_VERSION}timezone = {_value(zone)}\n", schedules),
        texts.contracts,
    )
    return Addition("\n".join([*([defaults] if defaults else []), *jobs]), "\n".join(schedules), after, Imported())


def _reason(job: JobDraft, problems: Sequence[ProblemLike]) -> str | None:
    """Return what the catalog's check holds against a job or its schedule, None where nothing."""
    tables = {f"jobs.{job.name}", *([f"schedules.{job.schedule.name}"] if job.schedule else [])}
    found = next((problem for problem in problems if problem.table in tables), None)
    return None if found is None else f"{found.key}: {found.message}" if found.key else found.message


def schedule_problem(keys: Mapping[str, Any], zone: str) -> str | None:
    """Return what the catalog's check holds against the keys of a schedule, None where nothing."""
    text = f"{_VERSION}timezone = {_value(zone)}\n{_table('schedules.imported', keys)}"
    found = _problems(Texts(_VERSION, text))
    return found[0].message if found else None


def _schedule(taken: Mapping[str, Any], draft: ScheduleDraft) -> ScheduleDraft:
    """Return the schedule under a free name; one of that name that says the same is used again."""
    # The lines of a list become schedules of their own: NAME-2, NAME-3, …
    lines = draft.keys.get("on_calendar")
    room = _LONGEST - (len(f"-{len(lines)}") if isinstance(lines, list) else 0)
    base = draft.name[:room]
    return replace(draft, name=base if taken.get(base) == draft.keys else free_name(base, taken, room=room))


def free_name(name: str, taken: Collection[str], *, room: int = _LONGEST) -> str:
    """Return `name`, or `name-2`, `name-3`, … where it is taken; never longer than `room` characters."""
    number, found = 1, name[:room]
    while found in taken:
        number += 1
        suffix = f"-{number}"
        found = name[: room - len(suffix)] + suffix
    return found


def _inherited(defaults: Mapping[str, Any], keys: Mapping[str, Any]) -> list[str]:
    """Say which defaults reach a job that must not have them, and cannot be kept from it."""
    found = []
    for key in _UNDENIABLE:
        if key == "env" and isinstance(defaults.get("env"), dict):
            more = sorted({*defaults["env"]} - {*keys.get("env", {})})
            found += [f"it also has {', '.join(more)} from the env of [defaults]"] if more else []
        elif key in defaults and key not in keys and key != "env":
            found.append(f"it inherits {key} from [defaults]")
    return found


def job_table(job: JobDraft, defaults: Mapping[str, Any]) -> str:
    """Return a job's table as TOML, comments above it, its environment in a table of its own."""
    keys = {key: value for key, value in job.keys.items() if key != "env" and not _is_usual(key, value, defaults)}
    neutral = {key: value for key, value in _NEUTRAL.items() if key in defaults and key not in job.keys}
    ordered: dict[str, Any] = {}
    if "description" in keys:
        ordered["description"] = keys.pop("description")
    if job.schedule is not None:
        ordered["schedules"] = [job.schedule.name]
    ordered |= {key: value for key, value in {**neutral, **keys}.items() if key not in ordered}
    ordered["legacy"] = [dict(trigger) for trigger in job.triggers]
    text = _comments((*job.warnings, *job.comments)) + _table(f"jobs.{job.name}", ordered)
    env = job.keys.get("env")
    return text + (f"\n{_table(f'jobs.{job.name}.env', env)}" if env else "")


def _is_usual(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a key says what holds without it."""
    return key == "nice" and value == defaults.get("nice", 0)


def _comments(sentences: Sequence[str]) -> str:
    lines: list[str] = []
    for sentence in sentences:
        lines += textwrap.wrap(
            visible(sentence),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="#   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "".join(f"{line}\n" for line in lines)


def _table(name: str, keys: Mapping[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{_key(key)} = {_value(value)}\n" for key, value in keys.items())


def _key(key: str) -> str:
    return tomlkit.key(key).as_string()


def _value(value: Any) -> str:
    """Return a value as TOML; a long list has an element a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if not isinstance(value, (list, tuple)):
        return str(tomlkit.item(value).as_string())
    parts = [_value(item) for item in value]
    short = f"[{', '.join(parts)}]"
    if len(short) <= _WIDTH and not (len(parts) > 1 and isinstance(value[0], dict)):
        return short
    return "[\n" + "".join(f"  {part},\n" for part in parts) + "]"


def _appended(text: str | None, head: str, tables: Sequence[str]) -> str:
    """Return `text` (a new file's `head`) with tables after it, in the line endings that it has."""
    before = head if text is None else text
    if not tables:
        return before
    added = "".join(f"\n{table}" for table in tables)
    if before and not before.endswith("\n"):
        added = f"\n{added}"
    return before + (added.replace("\n", "\r\n") if "\r\n" in before else added)


def _problems(texts: Texts) -> tuple[ProblemLike, ...]:
    try:
        catalog_build.build(
            ("jobs.toml", texts.jobs), ("schedules.toml", texts.schedules), ("contracts.toml", texts.contracts)
        )
    except CatalogInvalid as invalid:
        return invalid.problems
    return ()
