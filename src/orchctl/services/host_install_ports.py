"""What an installation needs of the outside, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchctl.core.doctor_facts import Requirement
from orchctl.core.installation import Installation, Scope
from orchctl.services.ports import Prefect, StackHost


class UnitState(Protocol):
    """A unit as systemd has it. See `adapters/host_units.py`."""

    @property
    def load(self) -> str: ...  # noqa: D102
    @property
    def enabled(self) -> str: ...  # noqa: D102
    @property
    def fragment(self) -> str: ...  # noqa: D102
    @property
    def runs(self) -> bool: ...  # noqa: D102


class Units(Protocol):
    """The units of a manager. See `adapters/host_units.py`."""

    def version(self) -> int: ...  # noqa: D102
    def path(self, name: str) -> str: ...  # noqa: D102
    def state(self, name: str) -> UnitState: ...  # noqa: D102
    def read(self, path: str) -> str | None: ...  # noqa: D102
    def new_folders(self, path: str) -> tuple[str, ...]: ...  # noqa: D102
    def write(self, path: str, text: str) -> None: ...  # noqa: D102
    def remove(self, path: str) -> None: ...  # noqa: D102
    def remove_folders(self, folders: tuple[str, ...]) -> None: ...  # noqa: D102
    def may_write(self) -> bool: ...  # noqa: D102
    def reload(self) -> None: ...  # noqa: D102
    def enable(self, name: str) -> None: ...  # noqa: D102
    def disable(self, name: str) -> None: ...  # noqa: D102
    def start(self, name: str) -> None: ...  # noqa: D102
    def restart(self, name: str) -> None: ...  # noqa: D102
    def stop(self, name: str, *, patience_s: float) -> bool: ...  # noqa: D102
    def forget(self, name: str) -> None: ...  # noqa: D102
    def lingers(self) -> bool | None: ...  # noqa: D102
    def linger(self, on: bool) -> None: ...  # noqa: D102


class UnitHost(StackHost, Protocol):
    """Server and workers of an installation. See `adapters/unit_stack.py`."""

    def failure(self) -> str | None: ...  # noqa: D102


class Records(Protocol):
    """What is remembered of an installation. See `adapters/installed.py`."""

    @property
    def settings_path(self) -> str: ...  # noqa: D102
    def read(self) -> Installation | None: ...  # noqa: D102
    def write(self, installation: Installation) -> None: ...  # noqa: D102
    def remove(self) -> None: ...  # noqa: D102
    def settings_text(self) -> str | None: ...  # noqa: D102
    def write_settings(self, text: str) -> None: ...  # noqa: D102
    def remove_settings(self) -> None: ...  # noqa: D102
    def keep_settings(self, at: datetime) -> str: ...  # noqa: D102
    def kept_settings(self) -> str | None: ...  # noqa: D102
    def make_home(self, path: str) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Host:
    """This host, as an installation needs it.

    `hostname` is its name. `stack` returns what acts on the units of an installation, `connect` a client for its API.
    `background` are the processes that `host up` has started and that run. `may_run` and `may_keep` say whether a user
    may run a program, and write into a folder. `needs` is what orchctl needs of an interpreter's packages, with what is
    there. `no_way_to_database` says why a server with these settings would not reach its database, of an interpreter
    and as a user; None: it would. `new_auth` and `free_port` are the same each time: what was shown is what is done.
    """

    units: Units
    records: Records
    stack: Callable[[Installation], UnitHost]
    connect: Callable[[Installation], Prefect]
    background: Callable[[], Collection[str]]
    port_is_free: Callable[[int], bool]
    free_port: Callable[[], int]
    may_run: Callable[[str, str], bool]
    may_keep: Callable[[str, str], bool]
    needs: Callable[[str], Sequence[Requirement]]
    no_way_to_database: Callable[[Mapping[str, str], str, str], str | None]
    new_auth: Callable[[], str]
    hostname: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What an installation is to be. None for `port`, `database` and `server` leaves it as it is, or to the default.

    `database` is `sqlite` or a URL of Postgres, password included; `api_url` and `auth` are of a server elsewhere.
    `pools` are those of the catalog; `only` names some of them, empty: as it is, or all. `by_hand` is the command that
    does the same as root.
    """

    scope: Scope
    user: str
    python: str
    config_dir: str
    state_dir: str
    pools: Mapping[str, int]
    port: int | None
    database: str | None
    server: bool | None
    api_url: str | None
    auth: str | None
    by_hand: str
    only: tuple[str, ...] = ()
