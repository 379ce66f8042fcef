"""`legacy`: what starts jobs on this host now, beside what the catalog names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from orchctl.core import cadence, legacy_findings, legacy_report
from orchctl.core.catalog import CronTrigger, Job
from orchctl.core.crontab import CronEntry
from orchctl.core.legacy import SYSTEM, Manager, Units
from orchctl.core.legacy_report import Heard, Report
from orchctl.errors import OrchctlError
from orchctl.services.ports import LegacyHost

_OWN = Manager("user")


class CronReader(Protocol):
    """The crontabs of this host: a part of `adapters/cron.py`."""

    def entries(self) -> tuple[tuple[CronEntry, ...], tuple[str, ...]]: ...  # noqa: D102
    def find(self, trigger: CronTrigger) -> int | None: ...  # noqa: D102


def survey(
    host: LegacyHost, crontabs: CronReader, jobs: Mapping[str, Job], *, whole: bool, host_zone: str, now: datetime
) -> Report:
    """Return what starts these jobs; with `whole`, also what else starts things on this host.

    Two systemctl calls a systemd with `whole`, one without; one more where units name others that nobody knew of.
    A systemd that does not answer is told in the report. Raises its error where nothing at all answered.
    """
    asked = _Asked(host)
    named = cadence.managers_of(jobs)
    for manager in _managers(named, whole=whole):
        asked.read(manager, named.get(manager, set()), everything=whole)
    if not whole:
        asked.look_for_missing(named)
    found = {trigger: crontabs.find(trigger) for trigger in _cron_triggers(jobs)}
    lines, unread = crontabs.entries() if whole or not all(found.values()) else ((), ())
    if asked.errors and not asked.units and not lines and not any(found.values()):
        raise next(iter(asked.errors.values()))
    heard = asked.heard(lines, found, host_zone, now)
    triggers = legacy_report.triggers(jobs, heard, others=whole)
    silent = {f"{manager}: {error.message}": error.hint for manager, error in asked.errors.items() if manager in named}
    return Report(
        triggers,
        legacy_findings.findings(triggers, heard),
        legacy_findings.differences(triggers),
        host_zone,
        now,
        notes=(*(error.message for manager, error in asked.errors.items() if manager not in named), *unread),
        silent=tuple(silent),
        hints={text: hint for text, hint in silent.items() if hint},
    )


def _managers(named: Iterable[Manager], *, whole: bool) -> list[Manager]:
    wanted = {*named, *((SYSTEM, _OWN) if whole else ())}
    return sorted(wanted, key=lambda manager: (manager.scope, manager.user or ""))


def _cron_triggers(jobs: Mapping[str, Job]) -> list[CronTrigger]:
    return [trigger for job in jobs.values() for trigger in job.legacy if isinstance(trigger, CronTrigger)]


class _Asked:
    """What the systemds answered so far. One that has two names (a user's, and the caller's) is asked once."""

    def __init__(self, host: LegacyHost) -> None:
        self._host = host
        self.units: dict[Manager, Units] = {}
        self.errors: dict[Manager, OrchctlError] = {}
        self._owners: dict[Manager, str] = {}

    def read(self, manager: Manager, names: Iterable[str], *, everything: bool) -> None:
        try:
            owner = self._host.owner(manager)
            if owner is not None:
                self._owners[manager] = owner
            same = [one for one in self.units if owner is not None and self._owners.get(one) == owner]
            if same and everything and manager not in self.units:
                self.units[manager] = self.units[same[0]]
                return
            self.units[manager] = self._host.read(manager, sorted(names), everything=everything)
        except OrchctlError as error:
            self.errors[manager] = error

    def look_for_missing(self, named: Mapping[Manager, Iterable[str]]) -> None:
        """Ask for everything where a timer does not exist: only then is its nearest name of use."""
        for manager, names in named.items():
            timers = self.units[manager].timers if manager in self.units else {}
            if any(name not in timers or timers[name].load == "not-found" for name in names) and timers:
                self.read(manager, names, everything=True)

    def heard(
        self,
        lines: tuple[CronEntry, ...],
        found: Mapping[CronTrigger, int | None],
        host_zone: str,
        now: datetime,
    ) -> Heard:
        lingers = {manager: self._host.lingers(manager) for manager in self.units if manager.scope == "user"}
        return Heard(
            units=self.units,
            silent={manager: error.message for manager, error in self.errors.items()},
            owners=self._owners,
            lingers={manager: bool(answer) for manager, answer in lingers.items()},
            crontab=lines,
            found=found,
            host_zone=host_zone,
            now=now,
        )
