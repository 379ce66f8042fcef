"""The legacy triggers of many jobs at once: each systemd is asked once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchctl.core import cadence, legacy_runs
from orchctl.core.cadence import Source
from orchctl.core.catalog import Job
from orchctl.core.legacy import Manager, Units
from orchctl.core.observed import Looked
from orchctl.errors import OrchctlError, SystemdUnavailable


class TimerReader(Protocol):
    """The systemds of this host. See `adapters/systemd.py`."""

    def read(  # noqa: D102
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units: ...


@dataclass(frozen=True, slots=True)
class Read:
    """What the managers answered at `at` (UTC), and why those that did not, did not.

    `looked` is what the last look at each job's history left, where that was asked for: it remembers which service a
    timer started that is masked or gone by now.
    """

    units: Mapping[Manager, Units]
    errors: Mapping[Manager, OrchctlError]
    host_zone: str
    at: datetime
    looked: Mapping[str, Looked | None]

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
        found = cadence.sources(job, self.units, self.host_zone, unread=said)
        return legacy_runs.with_remembered(found, self.looked.get(job.name))


def read(
    reader: TimerReader,
    jobs: Mapping[str, Job],
    *,
    host_zone: str,
    now: datetime,
    look: Callable[[str], Looked | None] = lambda _job: None,
) -> Read:
    """Ask each systemd that holds a timer of the jobs, once: one systemctl call, two where a service is named
    otherwise than its timer. An error of one does not hide the answer of another.

    `look` returns what the last look at a job's history left; its services are asked for too.
    """
    looked = {name: look(name) for name in jobs}
    units: dict[Manager, Units] = {}
    errors: dict[Manager, OrchctlError] = {}
    for manager, names in sorted(cadence.managers_of(jobs).items(), key=lambda item: str(item[0])):
        known = {name for one in looked.values() for name in legacy_runs.remembered(one, manager)}
        try:
            units[manager] = reader.read(manager, sorted(names | known), handlers=False)
        except OrchctlError as error:
            errors[manager] = error
    return Read(units, errors, host_zone, now, looked)


def _is_absent(error: OrchctlError) -> bool:
    return isinstance(error, SystemdUnavailable) and error.absent
