"""What the watchdog needs of the outside. The adapters fulfil these by shape; tests bring fakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchctl.core.alerts import Alerts, Channel, Secret
from orchctl.core.catalog import UNNAMED, Catalog
from orchctl.core.deliveries import Answer, Letter
from orchctl.core.doctor_facts import Backup, Disk
from orchctl.core.handover_journal import Handover
from orchctl.core.watch_memory import Known, Memory, Written
from orchctl.services.alert_delivery import Round
from orchctl.services.ports import Claims, ManifestTree, Owners, Prefect, PrefectRule


class Post(Protocol):
    """What sends. It never raises, and takes no longer than it may. See `adapters/senders.py`."""

    def send_all(  # noqa: D102
        self, letters: Mapping[str, Sequence[Letter]], channels: Mapping[str, Channel], *, within_s: float
    ) -> dict[str, tuple[Answer, ...]]: ...
    def ping(self, url: Secret, *, within_s: float) -> Answer: ...  # noqa: D102


class Store(Protocol):
    """What is remembered; where it cannot be written these say why, and do not raise. See `adapters/deliveries.py`."""

    def memory(self) -> tuple[Memory, str | None]: ...  # noqa: D102
    def remember(self, memory: Memory, at: datetime) -> Written: ...  # noqa: D102
    def slots(self) -> Known | None: ...  # noqa: D102
    def keep_slots(self, known: Known) -> str | None: ...  # noqa: D102
    def note(  # noqa: D102
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int
    ) -> str | None: ...


class OpenHandovers(Protocol):
    """The unfinished handovers; both may raise StateBroken. See `adapters/handovers.py`."""

    def unfinished(self) -> tuple[str, ...]: ...  # noqa: D102
    def open_of(self, job: str) -> Handover | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Clock:
    """Time: `monotonic` in seconds, a way to wait, `now` in UTC, and for how many seconds this host is up."""

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    now: Callable[[], datetime]
    uptime: Callable[[], float]


@dataclass(frozen=True, slots=True)
class InForce:
    """The catalog that counts: what was applied on this host, None where nothing was, or it cannot be read.

    `problem` is what is wrong with the catalog's files, None where they are valid or there are none. `named` is the
    name in the files, None where they cannot be read.
    """

    catalog: Catalog | None
    problem: str | None = None
    named: str | None = None

    @property
    def name(self) -> str:
        """Under which name the answers of its channels are written down."""
        return self.named or (self.catalog.name if self.catalog is not None else UNNAMED)


@dataclass(frozen=True, slots=True)
class World:
    """What the watchdog works with.

    `in_force` is asked with the digest that was in force last. `prefect` gives a client that waits no longer than it
    is told, in seconds; it may raise OrchctlError. `places` are what must not fill up, by what lies there. `backup`
    gives the last one. `alerts_problem`: what is wrong with alerts.toml, where `alerts` is the last that was valid;
    `state_place`: where the watchdog's own state lies. `others` sends what Prefect's automations told, of every catalog
    of this host, and could not be delivered, in the seconds that are left; it never raises.
    """

    alerts: Alerts
    alerts_problem: str | None
    state_place: str
    in_force: Callable[[str | None], InForce]
    prefect: Callable[[float], Prefect]
    api_url: str
    owners: Owners
    handovers: OpenHandovers
    claims: Claims
    tree: Callable[[str], ManifestTree]
    rule: PrefectRule
    disk: Callable[[str], Disk]
    places: Callable[[Catalog | None], Mapping[str, str]]
    backup: Callable[[], Backup | None]
    post: Post
    others: Callable[[Callable[[], float]], Round]
    store: Store
    clock: Clock
    host: str
    mask: Callable[[str], str]
    new_id: Callable[[], str]
