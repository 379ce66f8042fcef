"""`import`: what starts jobs on this host becomes entries of the catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from orchctl.core import catalog_build, catalog_edit, import_choice, import_jobs, import_units
from orchctl.core.catalog import Catalog, TimerTrigger
from orchctl.core.catalog_edit import Addition, Texts
from orchctl.core.drafts import Imported, JobDraft, Refused
from orchctl.core.import_choice import Candidate, Choice
from orchctl.core.import_units import Carried
from orchctl.core.legacy import SYSTEM, Manager, Units
from orchctl.core.names import nearest
from orchctl.core.unit_text import Setting
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable, UsageError
from orchctl.services.ports import LegacyDetails, LegacyUnits

JOBS, SCHEDULES, CONTRACTS = "jobs.toml", "schedules.toml", "contracts.toml"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,200}\.(timer|service)\Z")
_KINDS = re.compile(r".*\.(timer|service|socket|path|target|mount|automount|swap|slice|scope|device)\Z")
_INHERITED = "the commands inherit the worker's environment (PATH, HOME, …), not that of systemd"


def existing(texts: Texts, *, files: tuple[str, str, str] = (JOBS, SCHEDULES, CONTRACTS)) -> Catalog:
    """Return the catalog that is there; one of no jobs where there is none. `files` are its files as shown.

    A file that is missing counts as an empty one, so that an import that was cut off can be repeated. Raises
    CatalogInvalid.
    """
    empty = "version = 1\n"
    jobs, schedules = texts.jobs, texts.schedules
    return catalog_build.build(
        (files[0], empty if jobs is None else jobs),
        (files[1], empty if schedules is None else schedules),
        (files[2], texts.contracts),
    )


def systemd(
    systemds: LegacyUnits,
    details: LegacyDetails,
    catalog: Catalog,
    *,
    scope: str,
    names: Sequence[str],
    host_zone: str,
    default_zone: str,
) -> Imported:
    """Return what the timers of this host become: jobs, refusals, and notes on what was left out.

    `names` are timers or services; none means every timer that is on and came with no package. `scope` is system,
    user or all. `default_zone` is that of a schedule that names none. Raises UsageError for a name that no systemd
    knows, SystemdUnavailable and NotAllowed where none of them answers.
    """
    units, refused = _unit_names(names)
    answers, silent = _read(systemds, scope, units, everything=not names)
    strangers = [name for name in units if name.endswith(".timer") and name in import_choice.unknown(units, answers)]
    strangers += _unknown_services(units, answers)
    if strangers:
        raise _unknown(systemds, strangers, answers)
    choice = import_choice.choose(answers, _taken(catalog, details), named=bool(names))
    refused += choice.refused + _untimed(units, answers)
    jobs, failed = _drafts(choice, details, host_zone, default_zone)
    notes = [*silent, *choice.notes, *([_INHERITED] if jobs else [])]
    return Imported(tuple(jobs), (*refused, *failed), tuple(notes))


def add(texts: Texts, imported: Imported, *, zone: str, data_root: str, work_pool: str) -> Addition:
    """Return what to add to the catalog. The last three are for files that do not exist yet: the zone of schedules,
    and defaults of jobs. Raises CatalogInvalid.
    """
    defaults = {"data_root": data_root, "work_pool": work_pool}
    if texts.jobs is None and imported.jobs:
        said = f"a new catalog: its data_root is {data_root} (--data-root), its work_pool {work_pool} (--work-pool)"
        imported = replace(imported, notes=(*imported.notes, said))
    return catalog_edit.add(texts, imported, zone=zone, new_defaults=defaults)


def write(addition: Addition, before: Texts, put: Callable[[Mapping[str, str]], None]) -> tuple[str, ...]:
    """Write the files that changed, and return their names. Schedules first: no job then ever names one that is
    not there.
    """
    after = addition.after
    pairs = ((SCHEDULES, before.schedules, after.schedules), (JOBS, before.jobs, after.jobs))
    changed = {name: text for name, old, text in pairs if text is not None and text != old}
    put(changed)
    return tuple(changed)


def _unit_names(names: Sequence[str]) -> tuple[list[str], list[Refused]]:
    """Return the units that are meant, and the templates among them. Raises UsageError for what names no unit."""
    found, refused = [], []
    for name in names:
        unit = name if _KINDS.match(name) else f"{name}.timer"
        if unit.startswith("-") or _UNIT.match(unit) is None:
            raise UsageError(f"{name!r} names neither a timer nor a service")
        if "@." in unit:
            refused.append(Refused(unit, "it is a template, which starts nothing: name an instance of it"))
        else:
            found.append(unit)
    return list(dict.fromkeys(found)), refused


def _managers(scope: str) -> list[Manager]:
    return [manager for manager in (SYSTEM, Manager("user")) if scope in {manager.scope, "all"}]


def _read(
    systemds: LegacyUnits, scope: str, names: Sequence[str], *, everything: bool
) -> tuple[list[Units], list[str]]:
    """Return what each systemd answers, and what is said of those that do not."""
    answers: list[Units] = []
    silent: list[OrchctlError] = []
    for manager in _managers(scope):
        try:
            # What starts a service is known of loaded timers only: one that is off is found by asking for all.
            by_service = {name for name in names if name.endswith(".service")}
            units = systemds.read(manager, names, everything=everything or bool(by_service))
            kept = {
                name: timer
                for name, timer in units.timers.items()
                if everything or name in names or timer.unit in by_service
            }
            answers.append(replace(units, timers=kept))
        except (SystemdUnavailable, NotAllowed) as error:
            silent.append(error)
    if not answers:
        raise silent[0]
    return answers, [f"left out: {'; '.join(filter(None, (error.message, error.hint)))}" for error in silent]


def _unknown_services(names: Iterable[str], answers: Sequence[Units]) -> list[str]:
    def missing(name: str, units: Units) -> bool:
        return name in units.services and units.services[name].load == "not-found"

    return [name for name in names if name.endswith(".service") and all(missing(name, units) for units in answers)]


def _untimed(names: Iterable[str], answers: Sequence[Units]) -> list[Refused]:
    """Return the services that were named and that no timer starts."""
    started = {timer.unit for units in answers for timer in units.timers.values() if timer.load != "not-found"}
    services = [name for name in names if name.endswith(".service") and name not in started]
    return [Refused(name, "no timer starts it") for name in services]


def _unknown(systemds: LegacyUnits, names: Sequence[str], answers: Sequence[Units]) -> UsageError:
    known = {name for units in answers for name in systemds.read(units.manager, everything=True).timers}
    near = nearest(names[0], known)
    hint = f"did you mean {near}?" if near else "`systemctl list-timers --all` shows the timers of this host"
    return UsageError(f"there is no {' and no '.join(names)} on this host", hint=hint)


def _taken(catalog: Catalog, details: LegacyDetails) -> dict[tuple[str, str], str]:
    """Return the jobs that name a timer already, by scope and timer."""
    owner = details.owner(Manager("user"))
    return {
        (trigger.scope, trigger.timer): job.name
        for job in catalog.jobs.values()
        for trigger in job.legacy
        if isinstance(trigger, TimerTrigger) and (trigger.scope == "system" or trigger.user in {None, owner})
    }


def _drafts(
    choice: Choice, details: LegacyDetails, host_zone: str, default_zone: str
) -> tuple[list[JobDraft], list[Refused]]:
    carried: dict[tuple[Manager, str], Carried | str] = {}
    files: dict[tuple[Manager, str], tuple[Setting, ...]] = {}
    refused = []
    able: list[Candidate] = []
    for each in choice.candidates:
        manager, key = each.timer.manager, (each.timer.manager, each.service.name)
        if key not in carried:
            carried[key] = _carried(each, details)
        found = carried[key]
        if isinstance(found, str):
            refused.append(Refused(each.label, found))
        else:
            files[manager, each.timer.name] = details.settings(manager, each.timer.name)
            able.append(each)
    jobs = []
    for group in import_choice.groups(able):
        kept = [carried[each.timer.manager, each.service.name] for each in group]
        jobs.append(
            import_jobs.draft(
                group,
                [one for one in kept if isinstance(one, Carried)],
                [{each.timer.name: files[each.timer.manager, each.timer.name]} for each in group],
                lambda keys: catalog_edit.schedule_problem(keys, default_zone),
                owners=[_foreign(each.timer.manager, details) for each in group],
                host_zone=host_zone,
                default_zone=default_zone,
            )
        )
    return jobs, refused


def _carried(each: Candidate, details: LegacyDetails) -> Carried | str:
    try:
        return import_units.carry(each.service, details.of(each.service), me=details.me)
    except ValueError as error:
        return str(error)
    except OrchctlError as error:
        return error.message


def _foreign(manager: Manager, details: LegacyDetails) -> str | None:
    """Return the user to name in a trigger: None where it goes without saying."""
    owner = details.owner(manager)
    return owner if owner != details.me else None
