"""What starts jobs today: systemd's timers and services, and crontab lines, as they are on a host.

Names are systemd's. Instants are UTC, durations seconds; None means that systemd says nothing, or "infinity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Scope = Literal["system", "user"]


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """One systemd. `user` is whose manager it is: None for the system's, and for that of who runs orchctl."""

    scope: Scope
    user: str | None = None

    def __str__(self) -> str:
        return f"{self.scope} of {self.user}" if self.user else self.scope


SYSTEM = Manager("system")


@dataclass(frozen=True, slots=True)
class Unit:
    """What every unit has. `load` is loaded, not-found, masked, bad-setting or error, and `template` for a template,
    which starts nothing by itself; `enabled` is UnitFileState (enabled, enabled-runtime, disabled, static, linked,
    generated, transient, masked, …; "" where there is no file). `aliases` are its other names.
    """

    name: str
    manager: Manager
    load: str
    load_error: str | None
    active: str
    sub: str
    result: str
    enabled: str
    fragment: str | None
    source: str | None
    drop_ins: tuple[str, ...]
    needs_reload: bool
    transient: bool
    requires: tuple[str, ...]
    wanted_by: tuple[str, ...]
    on_failure: tuple[str, ...]
    triggered_by: tuple[str, ...]
    invocation_id: str | None
    aliases: tuple[str, ...] = field(default=(), kw_only=True)
    wants: tuple[str, ...] = field(default=(), kw_only=True)
    binds_to: tuple[str, ...] = field(default=(), kw_only=True)
    upholds: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def generated(self) -> bool:
        """Whether a generator made it (systemd-cron, fstab): it comes back at each reload."""
        return self.enabled == "generated"

    @property
    def template_instance(self) -> bool:
        """Whether it is an instance of a template (`name@instance`)."""
        return "@" in self.name and not self.name.partition("@")[2].startswith(".")


@dataclass(frozen=True, slots=True)
class Monotonic:
    """A monotonic trigger: `base` is OnBootSec, OnUnitActiveSec and so on."""

    base: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Timer(Unit):
    """A timer. `calendars` are its OnCalendar= lines as systemd normalises them; `unit` is what it starts.

    `next_fire` None: it will not fire as things are. `next_monotonic_s` are the seconds of the monotonic clock at
    which it next fires, None where no OnBootSec= and the like is due. `next_nominal` is the instant of its calendar
    that it next fires for, before RandomizedDelaySec= and AccuracySec=: it may have passed. `random_offset_s` is
    RandomizedOffsetSec= (systemd 258 and newer).
    """

    unit: str
    calendars: tuple[str, ...]
    monotonic: tuple[Monotonic, ...]
    next_fire: datetime | None
    last_fire: datetime | None
    persistent: bool
    accuracy_s: float
    random_delay_s: float
    fixed_random_delay: bool
    wake_system: bool
    next_monotonic_s: float | None = field(default=None, kw_only=True)
    next_nominal: datetime | None = field(default=None, kw_only=True)
    random_offset_s: float = field(default=0.0, kw_only=True)

    @property
    def pulls_by(self) -> str | None:
        """The setting by which starting the timer starts its job at once: `Requires` of its own service, …; or None."""
        named = {"Requires": self.requires, "BindsTo": self.binds_to, "Wants": self.wants, "Upholds": self.upholds}
        return next((setting for setting, units in named.items() if self.unit in units), None)

    @property
    def tolerance_s(self) -> float:
        """How long after the instant it says it may start: RandomizedDelaySec, RandomizedOffsetSec and AccuracySec."""
        return self.random_delay_s + self.random_offset_s + self.accuracy_s


@dataclass(frozen=True, slots=True)
class Service(Unit):
    """A service. `environment` is that of Environment= alone; `environment_files` begin with `-` where optional,
    `working_directory` with `!`.

    `exec_start` is systemd's own line, joined by blanks, quotes lost: for showing and comparing only.
    `main_code` is the CLD_ number (1 exited, 2 killed, 3 dumped), 0 where it never ran; `main_status` the exit
    code or the signal. `remains` is RemainAfterExit=.
    """

    type: str
    exec_start: tuple[str, ...]
    user: str | None
    group: str | None
    working_directory: str | None
    environment: Mapping[str, str]
    environment_files: tuple[str, ...]
    nice: int
    timeout_start_s: float | None
    timeout_stop_s: float | None
    runtime_max_s: float | None
    remains: bool
    success_statuses: str
    started_at: datetime | None
    ended_at: datetime | None
    main_code: int
    main_status: int

    @property
    def is_active(self) -> bool:
        """Whether it runs now, or is about to, or is about to end."""
        return self.active in {"active", "activating", "deactivating", "reloading"}

    @property
    def enabled_by_itself(self) -> bool:
        """Whether something starts it besides its timer, at boot for instance (an [Install] link of its own)."""
        return self.enabled.startswith("enabled")


@dataclass(frozen=True, slots=True)
class Units:
    """What one systemd answered. A unit that was asked for and does not exist is there, `load` not-found.

    `others` are the load states of units that are neither timer nor service (OnFailure= targets of other kinds).
    """

    manager: Manager
    timers: Mapping[str, Timer] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)

    def missing_handlers(self, unit: Unit) -> tuple[str, ...]:
        """Return the OnFailure= targets of `unit` that do not exist; only judged where they were asked for."""
        loads = {**{name: each.load for name, each in self.services.items()}, **self.others}
        return tuple(name for name in unit.on_failure if loads.get(name) == "not-found")
