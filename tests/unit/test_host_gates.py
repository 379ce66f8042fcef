"""What an install refuses before it changes anything, what it asks, and what is kept of settings that go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import host_fakes
from host_fakes import SETTINGS, STATE, Computer
from orchctl.core import env_file
from orchctl.core.doctor_facts import Requirement
from orchctl.core.installation import DATABASE, SERVER_UNIT
from orchctl.errors import GateRefused, OrchctlError
from orchctl.services import host_install, host_install_plan, host_uninstall, stack
from orchctl.services.host_install_plan import Plan

ELSEWHERE = "postgresql+asyncpg://u@h/db"


@pytest.fixture
def computer() -> Computer:
    return Computer()


class Desk:
    """Who is asked. `open`: whether the lock of the host was held at each question."""

    def __init__(self, computer: Computer) -> None:
        self.computer, self.host = computer, computer.host()
        self.held = False
        self.open: list[bool] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def ask(self, planned: Plan) -> None:
        self.open.append(self.held)
        self.meanwhile()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        self.held = True
        yield
        self.held = False

    def install(self, **words: Any) -> tuple[Plan, stack.Status | None]:
        return host_install.install(
            self.host,
            host_fakes.asked(**words),
            ask=self.ask,
            alone=self.alone,
            clock=self.computer.clock(),
            say=lambda _: None,
        )


@pytest.fixture
def desk(computer: Computer) -> Desk:
    return Desk(computer)


def refused(desk: Desk, **words: Any) -> OrchctlError:
    before = (len(desk.computer.done), dict(desk.computer.files))
    with pytest.raises(GateRefused) as caught:
        desk.install(**words)
    assert (len(desk.computer.done), desk.computer.files) == before
    return caught.value


def uninstall(computer: Computer) -> host_uninstall.Uninstalled:
    return host_uninstall.uninstall(computer.host(), computer.clock(), lambda _: None)


# --- the question


def test_no_lock_is_held_while_a_question_is_open(desk: Desk) -> None:
    planned, found = desk.install(port=0)
    assert desk.open == [False]
    assert found is not None
    assert found.ok
    assert planned.after.api_url == host_fakes.url(45678)
    assert desk.install(port=45678)[1] is None
    assert desk.open == [False]


def test_what_was_not_asked_about_is_not_done(desk: Desk) -> None:
    desk.install()
    desk.meanwhile = lambda: desk.computer.files.update({SETTINGS: ""})
    before = len(desk.computer.done)
    with pytest.raises(GateRefused, match="meanwhile this host has changed"):
        desk.install(port=4300)
    assert len(desk.computer.done) == before


# --- packages, ports


def test_packages_out_of_their_bounds_are_refused_with_what_mends_it(desk: Desk) -> None:
    desk.computer.needs = (
        Requirement("fastapi", ">=1,<2", "2.1", False),
        Requirement("prefect", ">=3.8,<4", "3.8.8", True),
        Requirement("tzdata", ">=2025", None, False),
    )
    error = refused(desk)
    assert error.message == (
        '/opt/orchctl/bin/python has fastapi 2.1, no tzdata, and orchctl needs "fastapi>=1,<2" "tzdata>=2025"'
    )
    assert error.hint is not None
    assert error.hint.startswith('/opt/orchctl/bin/python -m pip install "fastapi>=1,<2" "tzdata>=2025"')


def test_a_user_s_units_get_no_port_that_is_root_s(desk: Desk) -> None:
    assert "may not listen on port 420" in refused(desk, port=420, scope="user").message
    desk.install(port=420)
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in desk.computer.files[f"{host_fakes.FOLDER}/{SERVER_UNIT}"]


# --- another database


def test_a_database_that_cannot_be_opened_is_refused_before_the_server_stops(desk: Desk) -> None:
    desk.install()
    desk.computer.unreachable = "password authentication failed"
    error = refused(desk, database="postgresql://u@h/db")
    assert error.message == "daniel cannot open the database: password authentication failed"
    assert desk.computer.tried == [ELSEWHERE]
    assert desk.computer.state(SERVER_UNIT).runs
    assert refused(Desk(Computer(unreachable="no")), database="postgresql://u@h/db").message.endswith(": no")


def test_only_a_database_elsewhere_that_is_new_is_tried(desk: Desk) -> None:
    desk.install()
    desk.install(port=4300)
    assert desk.computer.tried == []
    desk.install(database="postgresql://u@h/db")
    desk.install(port=4400)
    desk.install(database="sqlite")
    assert desk.computer.tried == [ELSEWHERE]


def test_the_url_of_a_database_that_a_server_leaves_is_kept(desk: Desk) -> None:
    desk.install(database="postgresql://u:hushhush@h/db")
    desk.install(database="postgresql://u@elsewhere/db")
    (kept,) = (path for path in desk.computer.files if path.startswith(f"{SETTINGS}.before-"))
    assert env_file.parse(desk.computer.files[kept].encode())[DATABASE] == "postgresql+asyncpg://u:hushhush@h/db"


# --- uninstalling


@pytest.mark.parametrize("words", [{}, {"database": "postgresql://u:hushhush@h/db"}])
@pytest.mark.parametrize("line", ["", 'PREFECT_SERVER_ENCRYPTION_KEY="k3y"\n'])
def test_what_only_the_settings_held_is_kept_by_an_uninstall(desk: Desk, words: dict[str, str], line: str) -> None:
    desk.install(**words)
    desk.computer.files[SETTINGS] += line
    settings = desk.computer.files[SETTINGS]
    done = uninstall(desk.computer)
    assert SETTINGS not in desk.computer.files
    if words or line:
        assert done.kept is not None
        assert desk.computer.files == {done.kept: settings}
        (note,) = Desk(desk.computer).install()[0].notes
        assert done.kept in note
        assert "ENCRYPTION" not in desk.computer.files[SETTINGS]
    else:
        assert done.kept is None
        assert desk.computer.files == {}


def test_settings_without_a_record_are_kept_too(computer: Computer) -> None:
    computer.files[SETTINGS] = f'PREFECT_HOME="{STATE}/prefect"\n{DATABASE}="{ELSEWHERE}"\n'
    done = uninstall(computer)
    assert list(computer.files) == [done.kept]


# --- whose server it is


def status(computer: Computer) -> stack.Status:
    host, its = computer.host(), host_fakes.asked()
    after = host_install_plan.plan(host, its).after
    return host_install.parts(
        stack.status(host.stack(after), lambda _: host.connect(after), after.api_url, tuple(after.pools)),
        host.stack(after),
    )


@pytest.mark.parametrize("dead", [True, False])
def test_a_server_of_somebody_else_s_on_our_port_is_not_ours(desk: Desk, dead: bool) -> None:
    desk.install()
    assert status(desk.computer).ok
    desk.computer.foreign = not dead
    desk.computer.state(SERVER_UNIT).runs = not dead
    found = status(desk.computer)
    assert not found.ok
    assert found.version is not None
    assert (found.parts[0].ok, "another program answers at" in found.parts[0].detail) == (False, True)


def test_a_start_does_not_take_somebody_else_s_server_for_ours(desk: Desk) -> None:
    desk.install()
    its = host_install_plan.plan(desk.host, host_fakes.asked()).after
    desk.computer.foreign = True
    with pytest.raises(OrchctlError, match="another program has its port"):
        host_install.up(desk.host, its, desk.computer.clock(), lambda _: None)


def test_a_look_for_lost_runs_that_failed_is_told(desk: Desk) -> None:
    desk.install()
    desk.computer.failure = "exit-code"
    (part,) = (part for part in status(desk.computer).parts if part.name == "recover")
    assert not part.ok
    assert part.detail == "its last look for runs that a worker lost failed (exit-code): journalctl recover"
    assert not status(desk.computer).ok
