"""What starts jobs on a host, put beside what the catalog names: the rows of `orchctl legacy`. Pure.

What may be secret is masked here already: nothing of this may reach a terminal or a file unmasked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from orchctl.core import cadence
from orchctl.core.catalog import CronTrigger, Job
from orchctl.core.crontab import CronEntry
from orchctl.core.legacy import Manager, Service, Timer, Units
from orchctl.core.mask import STARS, Masker, looks_secret

Kind = Literal["timer", "cron"]
Group = Literal["job", "unnamed", "distribution", "off"]

_VENDOR = ("/usr/lib/systemd/", "/lib/systemd/")
# Debian's packages bring a crontab line for hosts without systemd, which does nothing where it runs.
_VENDOR_CRON = ("run-parts", "/run/systemd/system")
_FLAG = re.compile(r"(--[A-Za-z][\w-]*)(=|\s+)('[^']*'|\"[^\"]*\"|[^\s-]\S*)")
_ASSIGNED = re.compile(r"(?<![\w-])([A-Za-z_]\w*)=('[^']*'|\"[^\"]*\"|\S+)")
_HEADER = re.compile(r"\b((?:authorization|cookie|x-api-key):\s*)[^'\"]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Heard:
    """What this host answered. `silent` says why a systemd did not; `owners` are the users of the users' systemds.

    `lingers`: whether a user's systemd runs without a login too. `crontab` are the lines of this host that may be
    read, `found` how often each line that jobs name stands where it should (None: that cannot be read).
    """

    units: Mapping[Manager, Units]
    silent: Mapping[Manager, str]
    owners: Mapping[Manager, str]
    lingers: Mapping[Manager, bool]
    crontab: tuple[CronEntry, ...]
    found: Mapping[CronTrigger, int | None]
    host_zone: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Something that starts a job, or is meant to. `job` is None where the catalog names none.

    `name` is the timer, or the crontab line. `user` is whose systemd or crontab it is, None for the system's.
    `missing` says why it is not as the catalog has it, None where it is. `on` is whether it starts things now.
    Instants are UTC; `last_fire` of a cron line is not known.
    """

    job: str | None
    kind: Kind
    group: Group
    manager: Manager | None
    user: str | None
    name: str
    file: str | None = None
    missing: str | None = None
    on: bool = False
    timer: Timer | None = None
    service: Service | None = None
    next_fire: datetime | None = None

    @property
    def scope(self) -> str:
        """`system`, `user` or `cron`."""
        return self.manager.scope if self.manager else "cron"

    @property
    def label(self) -> str:
        """The trigger in a sentence."""
        if self.manager is not None:
            return f"{self.name} ({self.manager})"
        return f"the cron line of {self.user}" + (f" in {self.file}" if self.file else "")

    @property
    def last_fire(self) -> datetime | None:
        """When systemd last started the service because of it; a stamp file may say more than really ran."""
        return self.timer.last_fire if self.timer else None

    @property
    def command(self) -> str | None:
        """What it starts, secrets masked; None where that is not known."""
        if self.service is None or not self.service.exec_start:
            return None
        return masked(" ; ".join(self.service.exec_start), self.service.environment)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something an operator should know. `code` is stable; `job` is None for what no job names; `unit` is what it is
    about.
    """

    code: str
    job: str | None
    unit: str
    message: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Two copies of one job differ in `key` (`env NAME`, `command`, …). A value is None where a copy has none."""

    job: str
    key: str
    first: str
    first_value: str | None
    second: str
    second_value: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What starts jobs on this host. `silent` are the systemds and crontabs that could not be read, and are needed;
    `hints` what can be done about some of those; `notes` name those that nothing here needs.
    """

    triggers: tuple[Trigger, ...]
    findings: tuple[Finding, ...]
    differences: tuple[Difference, ...]
    host_zone: str
    now: datetime
    notes: tuple[str, ...] = field(default=())
    silent: tuple[str, ...] = field(default=())
    hints: Mapping[str, str] = field(default_factory=dict)

    def of(self, group: Group) -> tuple[Trigger, ...]:
        """Return the triggers of one group, in order."""
        return tuple(each for each in self.triggers if each.group == group)


def triggers(jobs: Mapping[str, Job], heard: Heard, *, others: bool) -> tuple[Trigger, ...]:
    """Return the triggers that the jobs name, in their order; with `others` then all else that this host has."""
    named = [each for job in jobs.values() for each in _of_job(job, heard)]
    return (*named, *(_others(named, heard) if others else ()))


def _of_job(job: Job, heard: Heard) -> Iterator[Trigger]:
    for source in cadence.sources(job, heard.units, heard.host_zone, unread=heard.silent):
        if isinstance(source.trigger, CronTrigger):
            yield _named_cron(job, source.trigger, heard)
            continue
        manager = cadence.manager_of(source.trigger)
        units = heard.units.get(manager)
        yield Trigger(
            job=job.name,
            kind="timer",
            group="job",
            manager=manager,
            user=heard.owners.get(manager),
            name=source.trigger.timer,
            missing=source.missing,
            on=source.counts,
            timer=units.timers.get(source.trigger.timer) if units else None,
            service=units.services.get(source.service) if units and source.service else None,
            next_fire=source.timer.next_fire if source.timer else None,
        )


def _named_cron(job: Job, trigger: CronTrigger, heard: Heard) -> Trigger:
    times = heard.found.get(trigger)
    missing = "that crontab cannot be read" if times is None else None if times else "there is no such line in it"
    return _cron(trigger, heard, job=job.name, group="job", missing=missing)


def _cron(trigger: CronTrigger, heard: Heard, *, job: str | None, group: Group, missing: str | None = None) -> Trigger:
    where = (trigger.user, trigger.file, trigger.cron)
    runs = missing is None and not any(
        entry.ignored for entry in heard.crontab if (entry.user, entry.file, entry.line) == where
    )
    return Trigger(
        job=job,
        kind="cron",
        group=group,
        manager=None,
        user=trigger.user,
        file=trigger.file,
        name=masked(trigger.cron.strip(), {}),
        missing=missing,
        on=runs,
        next_fire=_cron_next(trigger, heard) if runs else None,
    )


def _cron_next(trigger: CronTrigger, heard: Heard) -> datetime | None:
    try:
        source = cadence.cron_source(trigger, heard.host_zone)
        return cadence.following(source, heard.now) if source.missing is None else None
    except ValueError:
        return None


def _as_trigger(entry: CronEntry) -> CronTrigger:
    """Return a crontab line as the catalog would name it; not validated, for the host has it all the same.

    CRON_TZ means nothing to Debian's cron.
    """
    zone = entry.entry.variables.get("CRON_TZ") if entry.cronie else None
    return CronTrigger.model_construct(cron=entry.line, user=entry.user, file=entry.file, timezone=zone)


def _others(named: Sequence[Trigger], heard: Heard) -> Iterator[Trigger]:
    """Yield what no job names: systemd by systemd, then the crontabs."""
    taken = {(_identity(each.manager, heard), each.timer.name) for each in named if each.manager and each.timer}
    seen = set()
    for manager, units in heard.units.items():
        if _identity(manager, heard) in seen:
            continue
        seen.add(_identity(manager, heard))
        for timer in sorted({timer.name: timer for timer in units.timers.values()}.values(), key=lambda one: one.name):
            if timer.load not in {"not-found", "template"} and (_identity(manager, heard), timer.name) not in taken:
                yield _unnamed(timer, units, heard)
    lines = {(trigger.user, trigger.file, trigger.cron) for trigger in heard.found}
    for entry in heard.crontab:
        if (entry.user, entry.file, entry.line) not in lines:
            vendor = entry.file is not None and any(word in entry.line for word in _VENDOR_CRON)
            yield _cron(_as_trigger(entry), heard, job=None, group="distribution" if vendor else "unnamed")


def _identity(manager: Manager, heard: Heard) -> tuple[str, str | None]:
    """Return what is equal for two names of one systemd: `user`, and `user of daniel` where daniel asks."""
    return manager.scope, heard.owners.get(manager)


def _unnamed(timer: Timer, units: Units, heard: Heard) -> Trigger:
    service = units.services.get(timer.unit)
    on = timer.load == "loaded" and (timer.active == "active" or timer.enabled.startswith("enabled"))
    group: Group = "unnamed" if on else "off"
    if not timer.transient and (timer.fragment or "").startswith(_VENDOR):
        group = "distribution"
    elif service is not None and service.enabled_by_itself:
        group = "unnamed"  # off, and yet its service is started
    return Trigger(
        job=None,
        kind="timer",
        group=group,
        manager=units.manager,
        user=heard.owners.get(units.manager),
        name=timer.name,
        missing=None if timer.load == "loaded" else timer.load,
        on=timer.load == "loaded" and timer.active == "active",
        timer=timer,
        service=service,
        next_fire=timer.next_fire,
    )


def nearest_unit(name: str, units: Units) -> str | None:
    """Return the timer of this systemd whose name is most like `name`, None where none is near."""
    there = sorted({timer.name for timer in units.timers.values() if timer.load not in {"not-found", "template"}})
    return next(iter(difflib.get_close_matches(name, there, n=1, cutoff=0.75)), None)


def nearest_line(line: str, entries: Iterable[CronEntry]) -> str | None:
    """Return the crontab line most like `line`, secrets masked; None where none is near."""
    lines = [entry.line.strip() for entry in entries]
    found = difflib.get_close_matches(line.strip(), lines, n=1, cutoff=0.75)
    return masked(found[0], {}) if found else None


def masked(text: str, environment: Mapping[str, str]) -> str:
    """Return a command line without the secrets of its environment, and without what follows a secret's name."""
    text = Masker.of(environment).mask(text)
    text = _FLAG.sub(lambda match: match[1] + match[2] + _hidden(match[1][2:], match[3]), text)
    text = _ASSIGNED.sub(lambda match: f"{match[1]}={_hidden(match[1], match[2])}", text)
    return _HEADER.sub(rf"\g<1>{STARS}", text)


def masked_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment as it may be shown."""
    masker = Masker.of(environment)
    return {key: _hidden(key, masker.mask(value)) for key, value in environment.items()}


def _hidden(name: str, value: str) -> str:
    return STARS if value and looks_secret(name.replace("-", "_").upper()) else value
