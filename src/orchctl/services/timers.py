"""The legacy triggers of many jobs at once: each systemd is asked once for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchctl.core import cadence
from orchctl.core.cadence import Source
from orchctl.core.catalog import Job
from orchctl.core.legacy import Manager, Units
from orchctl.errors import OrchctlError, SystemdUnavailable


class TimerReader(Protocol):
    """The systemds of this host. See `adapters/systemd.py`."""

    def read(  # noqa: D102
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units: ...


@dataclass(frozen=True, slots=True)
class Read:
    """What the managers answered at `at` (UTC), and why those that did not, did not."""

    units: Mapping[Manager, Units]
    errors: Mapping[Manager, OrchctlError]
    host_zone: str
    at: datetime

    @property
    def absent(self) -> dict[Manager, str]:
        """Why the managers that certainly do not run do not."""
        return {key: error.message for key, error in self.errors.items() if _is_absent(error)}

    @property
    def unread(self) -> dict[Manager, str]:
        """Why the managers that may well run could not be asked."""
        return {key: error.message for key, error in self.errors.items() if not _is_absent(error)}

    def sources(self, job: Job) -> tuple[Source, ...]:
        """Return the legacy triggers of one of the jobs."""
        said = {manager: error.message for manager, error in self.errors.items()}
        return cadence.sources(job, self.units, self.host_zone, unread=said)


def read(reader: TimerReader, jobs: Mapping[str, Job], *, host_zone: str, now: datetime) -> Read:
    """Ask each systemd that holds a timer of the jobs, once: one systemctl call, two where a service is named
    otherwise than its timer. An error of one does not hide the answer of another.
    """
    units: dict[Manager, Units] = {}
    errors: dict[Manager, OrchctlError] = {}
    for manager, names in sorted(cadence.managers_of(jobs).items(), key=lambda item: str(item[0])):
        try:
            units[manager] = reader.read(manager, sorted(names), handlers=False)
        except OrchctlError as error:
            errors[manager] = error
    return Read(units, errors, host_zone, now)


def _is_absent(error: OrchctlError) -> bool:
    return isinstance(error, SystemdUnavailable) and error.absent
