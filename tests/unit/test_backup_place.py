"""Whose database is backed up, and what keeps a restore away."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchctl.core.database_url import Postgres, Sqlite
from orchctl.core.installation import Installation
from orchctl.core.legacy import Manager, Units
from orchctl.errors import (
    GateRefused,
    OrchctlError,
    PrefectUnauthorized,
    PrefectUnreachable,
    StateBroken,
    SystemdUnavailable,
)
from orchctl.services import in_use
from orchctl.services.backup import Here, database_of

URL = "http://127.0.0.1:4200/api"
INSTALLED = Installation(
    scope="system",
    user="daniel",
    api_url=URL,
    python="/venv/bin/python",
    config_dir="/config",
    state_dir="/state",
    home="/home/prefect",
    settings="/etc/settings.env",
    units=("/etc/systemd/system/prefect-server.service", "/etc/systemd/system/prefect-worker.service"),
    pools={"p": 2},
)
POSTGRES = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://u:planted-secret@db/prefect"}


def here(tmp_path: Path, **changes: Any) -> Here:
    own = tmp_path / "prefect.db"
    own.touch()
    return replace(Here(installation=None, settings={}, named=None, started=None, own=own), **changes)


def test_the_one_of_the_installation_is_in_its_settings_or_in_its_home(tmp_path: Path) -> None:
    assert database_of(here(tmp_path, installation=INSTALLED)) == Sqlite("/home/prefect/prefect.db")
    found = database_of(here(tmp_path, installation=INSTALLED, settings=POSTGRES, named="http://localhost:4200/api/"))
    assert isinstance(found, Postgres)
    assert found.name == "prefect"


@pytest.mark.parametrize(
    ("named", "started"),
    [(None, None), (None, URL), (URL, URL), ("http://localhost:4200/api", URL), ("http://127.0.0.1:9/api", None)],
)
def test_else_it_is_that_of_host_up(tmp_path: Path, named: str | None, started: str | None) -> None:
    found = here(tmp_path, named=named, started=started)
    assert database_of(found) == Sqlite(str(found.own))


@pytest.mark.parametrize(
    ("named", "started"),
    [
        ("https://u:planted-secret@prefect.example/api", None),
        ("https://prefect.example/api", URL),
        ("http://127.0.0.1:9/api", URL),
    ],
)
def test_a_server_elsewhere_is_refused(tmp_path: Path, named: str, started: str | None) -> None:
    with pytest.raises(GateRefused, match="is not one of this host's") as refused:
        database_of(here(tmp_path, named=named, started=started))
    assert "planted-secret" not in refused.value.message


def test_a_host_that_only_has_workers_is_refused(tmp_path: Path) -> None:
    worker = replace(INSTALLED, server=False, api_url="http://big.example:4200/api")
    with pytest.raises(GateRefused, match=r"the server at big\.example:4200 is not"):
        database_of(here(tmp_path, installation=worker))


def test_settings_that_name_no_such_database_are_broken_and_not_quoted(tmp_path: Path) -> None:
    wrong = {"PREFECT_API_DATABASE_CONNECTION_URL": "mysql://u:planted-secret@h/db"}
    with pytest.raises(StateBroken, match="neither") as broken:
        database_of(here(tmp_path, installation=INSTALLED, settings=wrong))
    assert "planted-secret" not in broken.value.message


def test_a_host_with_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="no installation, and no database"):
        database_of(here(tmp_path, own=tmp_path / "gone.db"))
    # What is not there may have been moved aside.
    assert database_of(here(tmp_path, own=tmp_path / "gone.db", half_restored=True)) == Sqlite(f"{tmp_path}/gone.db")


@dataclass(frozen=True)
class Stack:
    pids: dict[str, int | None]
    going: int = 0
    url: str | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(self.pids)

    def pid(self, name: str) -> int | None:
        return self.pids[name]

    def guards(self) -> int:
        return self.going

    def api_url(self) -> str | None:
        return self.url


@dataclass(frozen=True)
class Service:
    active: str


@dataclass(frozen=True)
class Systemd:
    states: dict[str, str]
    error: OrchctlError | None = None

    def read(self, manager: Manager, names: Collection[str] = (), *, everything: bool = False) -> Units:
        if self.error is not None:
            raise self.error
        found: Any = {name: Service(self.states[name]) for name in names if name in self.states}
        return Units(manager, {}, found, {})


class Api:
    shown = URL

    def __init__(self, error: OrchctlError | None) -> None:
        self._error = error

    def version(self) -> str:
        if self._error is not None:
            raise self._error
        return "3.8.8"


DOWN = PrefectUnreachable("down")


def looked(
    stack: Stack, systemd: Systemd = Systemd({}), installed: Installation | None = None, api: OrchctlError | None = DOWN
) -> tuple[str, ...]:
    connect: Callable[[str], Any] = lambda _url: Api(api)  # noqa: E731 - one line says it
    return in_use.running(stack, systemd, installed, connect)  # type: ignore[arg-type]


def test_a_host_at_rest() -> None:
    rest = {"prefect-server.service": "inactive", "prefect-worker.service": "failed"}
    assert looked(Stack({})) == ()
    assert looked(Stack({"server": None}, url=URL)) == ()
    assert looked(Stack({}), Systemd(rest), INSTALLED) == ()
    assert looked(Stack({}), Systemd({}, SystemdUnavailable("none", absent=True)), INSTALLED) == ()


def test_what_runs_is_named() -> None:
    assert looked(Stack({"server": 7, "worker-p": None}, 2)) == (
        "server runs (pid 7)",
        "2 of this host's runs are going",
    )
    states = {"prefect-server.service": "inactive", "prefect-worker.service": "deactivating"}
    assert looked(Stack({}), Systemd(states), INSTALLED) == ("prefect-worker.service is deactivating",)


@pytest.mark.parametrize("answer", [None, PrefectUnauthorized("who are you")])
def test_whoever_answers_is_a_server(answer: OrchctlError | None) -> None:
    assert looked(Stack({}, url=URL), api=answer) == (f"a server answers at {URL}",)
    assert looked(Stack({}), installed=INSTALLED, api=answer) == (f"a server answers at {URL}",)


def test_where_systemd_cannot_be_asked_nothing_is_said_to_rest() -> None:
    with pytest.raises(SystemdUnavailable):
        looked(Stack({}), Systemd({}, SystemdUnavailable("no answer")), INSTALLED)
