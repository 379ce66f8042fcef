"""`host install` and `uninstall` on a host in memory: what they change, refuse, and leave when they are killed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import host_fakes
from host_fakes import FOLDER, SETTINGS, STATE, Computer, Killed, State
from orchctl.core import env_file
from orchctl.core.installation import AUTH_CLIENT, AUTH_SERVER, DATABASE, RECOVER_TIMER, SERVER_UNIT, WORKER_UNIT
from orchctl.errors import GateRefused, NotAllowed, OrchctlError, PrefectApiError, UsageError
from orchctl.services import host_install, host_install_plan, host_uninstall, stack
from orchctl.services.host_install_plan import Plan
from orchctl.services.host_uninstall import Uninstalled

ENABLED = [SERVER_UNIT, WORKER_UNIT, RECOVER_TIMER]
SERVER, WORKER = f"{FOLDER}/{SERVER_UNIT}", f"{FOLDER}/{WORKER_UNIT}"


def plan(computer: Computer, **words: Any) -> Plan:
    return host_install_plan.plan(computer.host(), host_fakes.asked(**words))


def install(computer: Computer, **words: Any) -> list[str]:
    """Install, and return what was done to the host."""
    before = len(computer.done)
    host_install.apply(computer.host(), plan(computer, **words), computer.clock(), lambda _: None)
    return computer.done[before:]


def uninstall(computer: Computer) -> Uninstalled:
    return host_uninstall.uninstall(computer.host(), computer.clock(), lambda _: None)


def settings(computer: Computer) -> dict[str, str]:
    return env_file.parse(computer.files[SETTINGS].encode())


@pytest.fixture
def computer() -> Computer:
    return Computer()


def is_installed(computer: Computer) -> bool:
    states = [computer.state(name) for name in ENABLED]
    return all(state.runs and state.enabled == "enabled" for state in states) and plan(computer).is_empty


def is_clean(computer: Computer) -> bool:
    there = {name for name, state in computer.states.items() if state.runs or state.enabled}
    return not (computer.files or there or computer.record or computer.folders or computer.lingering)


def test_an_install_writes_enables_and_starts(computer: Computer) -> None:
    install(computer)
    assert is_installed(computer)
    assert computer.pools == {"local"}
    assert settings(computer)[AUTH_CLIENT] == settings(computer)[AUTH_SERVER] != ""
    assert settings(computer)[DATABASE] == f"sqlite+aiosqlite:///{STATE}/prefect/prefect.db"


def test_planning_changes_nothing(computer: Computer) -> None:
    assert not plan(computer).is_empty
    assert computer.done == []


def test_a_second_install_has_nothing_to_do_and_keeps_what_it_was_told_before(computer: Computer) -> None:
    install(computer, port=4321, database="postgresql://u@h/db")
    assert plan(computer).is_empty
    assert plan(computer, port=4321, database="postgresql://u@h/db").is_empty


def test_another_port_restarts_server_and_worker_and_another_database_only_the_server(computer: Computer) -> None:
    install(computer)
    moved = plan(computer, port=4300)
    assert set(moved.restart) == {SERVER_UNIT, WORKER_UNIT}
    done = install(computer, port=4300)
    assert [each for each in done if WORKER_UNIT in each] == [f"restart {WORKER_UNIT}"]
    elsewhere = plan(computer, database="postgresql://u@h/db")
    assert elsewhere.restart == (SERVER_UNIT,)
    assert elsewhere.notes == ("the history stays in the database that the server leaves",)


def test_a_worker_with_more_places_restarts_alone(computer: Computer) -> None:
    install(computer)
    done = install(computer, pools={"local": 12})
    assert f"restart {WORKER_UNIT}" in done
    assert not [each for each in done if SERVER_UNIT in each]


def test_what_was_stopped_is_started_again(computer: Computer) -> None:
    install(computer)
    computer.state(WORKER_UNIT).runs = False
    assert plan(computer).start == (WORKER_UNIT,)
    install(computer)
    assert is_installed(computer)


def test_a_second_pool_gives_each_worker_a_unit_and_takes_the_first_away(computer: Computer) -> None:
    install(computer)
    install(computer, pools={"a": 1, "b": 2})
    assert WORKER not in computer.files
    assert not computer.state(WORKER_UNIT).runs
    assert not computer.state(WORKER_UNIT).enabled
    assert computer.state("prefect-worker-a.service").runs
    assert computer.state("prefect-worker-b.service").runs


@pytest.mark.parametrize("before", [False, True])
def test_a_user_s_units_make_the_manager_linger_and_an_uninstall_takes_only_that_back(before: bool) -> None:
    computer = Computer(lingering=before)
    install(computer, scope="user")
    lingered = [computer.lingering]
    uninstall(computer)
    assert [*lingered, computer.lingering] == [True, before]


def test_an_uninstall_takes_back_what_was_added_and_keeps_the_database(computer: Computer) -> None:
    install(computer)
    done = uninstall(computer)
    assert is_clean(computer)
    assert done.database == f"{STATE}/prefect/prefect.db"
    assert set(done.removed) >= {SERVER, WORKER, SETTINGS}
    assert uninstall(computer).removed == ()


def test_a_database_elsewhere_is_named_without_its_password(computer: Computer) -> None:
    install(computer, database="postgresql://u:hushhush@h/db")
    assert "hushhush" not in repr(computer.record)
    assert "hushhush" not in "".join(change.diff() for change in plan(computer, port=1).files)
    assert not any("hushhush" in text for path, text in computer.files.items() if path != SETTINGS)
    assert uninstall(computer).database == "postgresql://u@h:5432/db"


def test_a_unit_that_somebody_replaced_is_left(computer: Computer) -> None:
    install(computer)
    computer.files[SERVER] = "[Unit]\n# somebody else's\n"
    uninstall(computer)
    assert computer.files == {SERVER: "[Unit]\n# somebody else's\n"}


def steps_of(scope: str) -> int:
    computer = Computer(lingering=False if scope == "user" else None)
    install(computer, scope=scope)
    return len(computer.done)


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("then", ["install", "uninstall"])
def test_an_install_that_is_killed_anywhere_can_be_repeated_and_taken_back(scope: str, then: str) -> None:
    for crash in range(steps_of(scope)):
        computer = Computer(lingering=False if scope == "user" else None, dies_at=crash)
        with pytest.raises(Killed):
            install(computer, scope=scope)
        computer.dies_at = None
        secret = computer.files.get(SETTINGS)
        if then == "install":
            install(computer, scope=scope)
            assert is_installed_as(computer, scope), f"killed before change {crash}"
            assert secret is None or computer.files[SETTINGS] == secret
            uninstall(computer)
        else:
            uninstall(computer)
        assert is_clean(computer), f"killed before change {crash}: {computer.files} {computer.states}"


def is_installed_as(computer: Computer, scope: str) -> bool:
    return plan(computer, scope=scope).is_empty and all(computer.state(name).runs for name in ENABLED)


def test_an_uninstall_that_is_killed_anywhere_can_be_repeated() -> None:
    for crash in itertools.count():
        computer = Computer(lingering=False)
        install(computer, scope="user")
        computer.done.clear()
        computer.dies_at = crash
        try:
            uninstall(computer)
        except Killed:
            computer.dies_at = None
            uninstall(computer)
            assert is_clean(computer), f"killed before change {crash}"
        else:
            break
    assert crash > 10


def test_a_changed_setting_is_not_forgotten_by_a_kill_before_the_restart() -> None:
    for crash in itertools.count():
        computer = Computer()
        install(computer)
        computer.done.clear()
        computer.dies_at = crash
        try:
            install(computer, port=4300)
        except Killed:
            computer.dies_at = None
            already = [each for each in computer.done if WORKER_UNIT in each]
            done = [*already, *install(computer, port=4300)]
            assert f"restart {WORKER_UNIT}" in done, f"killed before change {crash}"
            assert f"stop {SERVER_UNIT}" in computer.done
        else:
            break
    assert plan(computer, port=4300).is_empty


def test_units_that_are_not_wanted_any_more_go_also_after_a_kill() -> None:
    for crash in itertools.count():
        computer = Computer()
        install(computer)
        computer.done.clear()
        computer.dies_at = crash
        try:
            install(computer, pools={"a": 1, "b": 2})
        except Killed:
            computer.dies_at = None
            install(computer, pools={"a": 1, "b": 2})
            assert WORKER not in computer.files, f"killed before change {crash}"
            uninstall(computer)
            assert is_clean(computer), f"killed before change {crash}"
        else:
            break


def refused(computer: Computer, kind: type[OrchctlError], **words: Any) -> OrchctlError:
    with pytest.raises(kind) as caught:
        plan(computer, **words)
    assert computer.done == []
    return caught.value


def test_a_port_of_somebody_else_is_refused_and_ours_is_not(computer: Computer) -> None:
    computer.taken = {4200}
    assert "port 4200 of 127.0.0.1 is taken" in refused(computer, GateRefused).message
    assert host_fakes.url(45678) == plan(computer, port=0).after.api_url
    computer.taken = set()
    install(computer)
    computer.taken = {4200}
    assert plan(computer).is_empty


@pytest.mark.parametrize(
    "spoil",
    [
        lambda computer: computer.files.update({SERVER: "[Unit]\n"}),
        lambda computer: computer.files.update({WORKER: "# orchctl\n"}),
        lambda computer: computer.states.update({SERVER_UNIT: State("loaded", "static", "/lib/systemd/system/x")}),
    ],
)
def test_a_unit_of_the_same_name_is_refused(computer: Computer, spoil: Callable[[Computer], None]) -> None:
    spoil(computer)
    assert "is not of this installation" in refused(computer, GateRefused).message


def test_a_masked_unit_is_refused(computer: Computer) -> None:
    computer.states[WORKER_UNIT] = State("masked", "masked")
    assert "is masked" in refused(computer, GateRefused).message


def test_without_root_the_system_s_units_are_refused_with_the_command(computer: Computer) -> None:
    computer.writable = False
    error = refused(computer, NotAllowed)
    assert error.exit_code == 12
    assert error.hint == "run: sudo orchctl host install"


@pytest.mark.parametrize(
    ("words", "field", "kind", "says"),
    [
        ({}, {"background": ["server"]}, GateRefused, "run in the background"),
        ({}, {"readable": False}, GateRefused, "may not run"),
        ({}, {"ours_to_keep": False}, GateRefused, "may not write into the state directory"),
        ({"pools": {}}, {}, UsageError, "no work pool"),
        ({"server": False}, {}, UsageError, "needs to know one"),
        ({"api_url": "http://elsewhere/api"}, {}, UsageError, "is named"),
        ({"database": "mysql://u:hush@h/db"}, {}, UsageError, "neither sqlite nor"),
        ({"state_dir": "/srv/a\nb"}, {}, UsageError, "cannot be"),
    ],
)
def test_what_cannot_be_is_refused(
    words: dict[str, Any], field: dict[str, Any], kind: type[OrchctlError], says: str
) -> None:
    error = refused(Computer(**field), kind, **words)
    assert says in error.message
    assert "hush" not in f"{error.message}{error.hint}"


def test_another_scope_or_user_wants_an_uninstall_first(computer: Computer) -> None:
    install(computer)
    for words in ({"scope": "user"}, {"user": "ann"}):
        with pytest.raises(GateRefused, match="there is an installation"):
            plan(computer, **words)


def test_a_host_with_workers_only_knows_no_database(computer: Computer) -> None:
    install(computer, server=False, api_url="http://10.0.0.5:4200/api", auth="orchctl:remote-secret")
    assert set(settings(computer)) == {"PREFECT_API_URL", "PREFECT_HOME", AUTH_CLIENT}
    assert SERVER not in computer.files
    assert plan(computer, api_url="http://10.0.0.5:4200/api").is_empty
    assert uninstall(computer).database is None
    assert is_clean(computer)


def test_what_does_not_come_up_says_how_to_go_on(computer: Computer) -> None:
    class Deaf(host_fakes.Server):
        def workers(self, pool: str) -> tuple[Any, ...]:
            return ()

    host = computer.host(lambda its: Deaf(computer, its))
    with pytest.raises(OrchctlError) as failed:
        host_install.apply(host, plan(computer), computer.clock(), lambda _: None)
    assert "does not poll" in failed.value.message
    assert "`orchctl host install` goes on with it" in (failed.value.hint or "")


def test_a_status_of_a_server_that_knows_nothing_is_told_and_not_raised(computer: Computer) -> None:
    class Lost(host_fakes.Server):
        def pool(self, name: str) -> Any:
            raise PrefectApiError("the Prefect API failed")

    install(computer)
    host, its = computer.host(), plan(computer).after
    found = stack.status(host.stack(its), lambda _: Lost(computer, its), its.api_url, tuple(its.pools))
    assert [(part.ok, part.detail) for part in found.parts][1:] == [(False, "the Prefect API failed")]
    assert not found.ok


def test_only_the_pools_that_were_named_get_workers_and_they_are_remembered(computer: Computer) -> None:
    pools = {"local": 10, "far": 4, "near": 2}
    install(computer, pools=pools, only=("local", "near"))
    assert computer.pools == {"local", "near"}
    assert plan(computer, pools=pools).is_empty
    install(computer, pools=pools, only=("far",))
    assert {name for name, state in computer.states.items() if "worker" in name and state.runs} == {WORKER_UNIT}
    with pytest.raises(UsageError, match="no work pool 'else' in the catalog"):
        plan(computer, pools=pools, only=("else",))


def test_a_state_directory_with_another_host_s_installation_is_refused_and_left(computer: Computer) -> None:
    install(computer)
    assert computer.record is not None
    for path in computer.record["units"]:
        computer.files.pop(path)  # the other host's are on its own disk
    before = (dict(computer.files), dict(computer.record))
    computer.hostname = "second"
    for act in (lambda: plan(computer, server=False, api_url="http://first:4200/api"), lambda: uninstall(computer)):
        with pytest.raises(GateRefused, match="holds the installation of host, and this host is second"):
            act()
    assert (computer.files, computer.record) == before


@pytest.mark.parametrize("scope", ["system", "user"])
def test_a_host_that_was_renamed_is_known_by_its_units_where_they_cannot_be_another_s(scope: str) -> None:
    computer = Computer(lingering=True if scope == "user" else None)
    install(computer, scope=scope)
    computer.hostname = "renamed"
    if scope == "system":
        install(computer, scope=scope)
        assert computer.record is not None
        assert computer.record["hostname"] == "renamed"
    else:
        with pytest.raises(GateRefused, match="this host is renamed"):
            plan(computer, scope=scope)


def test_an_installation_of_an_orchctl_that_wrote_down_no_name_is_this_host_s(computer: Computer) -> None:
    install(computer)
    assert computer.record is not None
    computer.record = {key: value for key, value in computer.record.items() if key not in {"hostname", "only"}}
    computer.hostname = "renamed"
    install(computer)
    assert computer.record["hostname"] == "renamed"


ELSEWHERE = {"server": False, "api_url": "http://first:4200/api"}


def test_a_worker_of_our_name_that_another_host_has_is_refused_before_ours_starts(computer: Computer) -> None:
    computer.pools.add("local")
    computer.namesake = timedelta(seconds=30)
    with pytest.raises(GateRefused, match="another host has a worker host-local"):
        install(computer, **ELSEWHERE)
    assert not any(state.runs or state.enabled for state in computer.states.values())


def test_a_worker_of_our_name_that_is_not_heard_of_any_more_was_ours(computer: Computer) -> None:
    computer.pools.add("local")
    computer.namesake = timedelta(days=1)
    install(computer, **ELSEWHERE)
    assert computer.state(WORKER_UNIT).runs
    assert plan(computer, **ELSEWHERE).is_empty
