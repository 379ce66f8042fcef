"""The texts of the units and of the settings, and what a change of them concerns."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from orchctl.core import env_file, host_settings, host_units
from orchctl.core.host_units import FileChange
from orchctl.core.installation import (
    API_URL,
    AUTH_CLIENT,
    AUTH_SERVER,
    DATABASE,
    DATABASES,
    RECOVER_TIMER,
    SERVER_UNIT,
    WORKER_UNIT,
    Installation,
)
from orchctl.core.unit_text import settings as assigned

HOME = "/home/daniel/.local/state/orchctl/prefect"
SETTINGS = "/home/daniel/.local/state/orchctl/host/settings.env"
AUTH = "orchctl:Zq8vX2n7Rk4wLm1pTq8vX2n7"
ITS = Installation(
    scope="system",
    user="daniel",
    api_url="http://127.0.0.1:4200/api",
    python="/opt/orchctl/bin/python",
    config_dir="/srv/config",
    state_dir="/home/daniel/.local/state/orchctl",
    home=HOME,
    settings=SETTINGS,
    units=(),
    pools={"local": 10},
)


def values(text: str, key: str) -> list[str]:
    return [setting.value for setting in assigned(text) if setting.key == key]


def settings_text(**changed: str) -> str:
    made = host_settings.settings(
        ITS.api_url, HOME, auth=AUTH, database_url=host_settings.database("sqlite", HOME), before={}
    )
    return host_settings.text(made | changed)


def test_a_record_survives_the_way_to_the_disk_and_back() -> None:
    its = replace(ITS, units=("/etc/a", "/etc/b"), folders=("/x",), lingering=True, owed=(WORKER_UNIT,))
    assert Installation.from_json(its.to_json()) == its
    old = {key: value for key, value in ITS.to_json().items() if key not in {"folders", "lingering", "owed"}}
    assert Installation.from_json(old) == ITS


def test_the_server_listens_on_loopback_and_goes_with_all_its_children() -> None:
    text = host_units.texts(ITS, systemd=252)[SERVER_UNIT]
    (start,) = values(text, "ExecStart")
    assert '"--host" "127.0.0.1" "--port" "4200"' in start
    assert values(text, "KillMode") == ["mixed"]
    assert values(text, "UMask") == ["0077"]
    assert values(text, "User") == ["daniel"]
    assert values(text, "NoNewPrivileges") == ["yes"]
    assert values(text, "WantedBy") == ["multi-user.target"]
    assert values(text, "EnvironmentFile") == [SETTINGS]
    assert "unit" in values(text, "ExecStartPost")[0]


def test_the_worker_s_runs_and_their_guards_outlive_it() -> None:
    """With KillMode=mixed, systemd would kill guards before they have ended a command and told the server."""
    text = host_units.texts(ITS, systemd=252)[WORKER_UNIT]
    assert values(text, "KillMode") == ["process"]
    assert values(text, "RestartKillSignal") == ["SIGKILL"]
    assert values(text, "OOMPolicy") == ["continue"]
    assert values(text, "UMask") == []
    assert values(text, "After") == [SERVER_UNIT, "network-online.target"]
    assert values(text, "Requires") == []


def test_a_worker_gets_neither_the_database_nor_the_server_s_key() -> None:
    for name in (WORKER_UNIT, "prefect-recover.service"):
        (unset,) = values(host_units.texts(ITS, systemd=252)[name], "UnsetEnvironment")
        assert set(unset.split()) == {
            DATABASE,
            AUTH_SERVER,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL",
            "PREFECT_SERVER_ENCRYPTION_KEY",
            "ORION_ENCRYPTION_KEY",
        }


@pytest.mark.parametrize(("systemd", "steps"), [(252, []), (253, []), (254, ["5"]), (257, ["5"])])
def test_restarts_grow_rarer_where_systemd_knows_how(systemd: int, steps: list[str]) -> None:
    for name in (SERVER_UNIT, WORKER_UNIT):
        text = host_units.texts(ITS, systemd=systemd)[name]
        assert values(text, "Restart") == ["always"]
        assert values(text, "RestartSteps") == steps


def test_its_own_restarts_never_come_to_the_start_limit() -> None:
    text = host_units.texts(ITS, systemd=252)[WORKER_UNIT]
    (pause,), (span,), (burst,) = (
        values(text, key) for key in ("RestartSec", "StartLimitIntervalSec", "StartLimitBurst")
    )
    assert int(span) / int(pause) < int(burst)


def test_a_look_that_fails_is_a_failed_unit_and_what_it_says_is_kept_by_the_journal() -> None:
    """LogLevelMax= drops what is less than that of a process's own words too, which are `info` by default."""
    text = host_units.texts(ITS, systemd=252)["prefect-recover.service"]
    (start,) = values(text, "ExecStart")
    assert start.startswith(':"')
    assert values(text, "LogLevelMax") == values(text, "SyslogLevel") == ["notice"]
    assert values(text, "SuccessExitStatus") == ["13"]
    others = [each for name, each in host_units.texts(ITS, systemd=252).items() if name != "prefect-recover.service"]
    assert not any("prefect-recover" in each for each in others)


def test_nothing_that_a_boot_starts_starts_on_a_host_that_is_half_restored() -> None:
    odd = replace(ITS, state_dir="/srv/50% of it")
    for its, path in ((ITS, f"{ITS.state_dir}/host/restore.json"), (odd, "/srv/50%% of it/host/restore.json")):
        for name, text in host_units.texts(its, systemd=252).items():
            wanted = [f"!{path}"] if name in {SERVER_UNIT, WORKER_UNIT} else []
            assert values(text, "ConditionPathExists") == wanted, name


@pytest.mark.parametrize(
    ("scope", "port", "may"), [("system", 420, True), ("system", 1024, False), ("user", 420, False)]
)
def test_only_a_server_on_a_port_of_root_s_gets_the_right_to_it(scope: Any, port: int, may: bool) -> None:
    its = replace(ITS, scope=scope, api_url=host_settings.api_url(port))
    found = {name: values(text, "AmbientCapabilities") for name, text in host_units.texts(its, systemd=252).items()}
    assert found.pop(SERVER_UNIT) == (["CAP_NET_BIND_SERVICE"] if may else [])
    assert not any(found.values())


def test_no_unit_holds_a_secret() -> None:
    for text in host_units.texts(ITS, systemd=252).values():
        assert AUTH not in text
        assert "postgresql" not in text.replace("postgresql.service", "")


def test_a_user_s_units_name_no_user_and_nothing_that_only_root_can() -> None:
    for name, text in host_units.texts(replace(ITS, scope="user"), systemd=252).items():
        assert values(text, "User") == []
        assert values(text, "ProtectSystem") == []
        assert values(text, "WantedBy") in ([], ["default.target"], ["timers.target"]), name


def test_a_host_without_server_has_workers_only() -> None:
    its = replace(ITS, server=False, pools={"a": 1, "b": 2})
    texts = host_units.texts(its, systemd=252)
    assert list(texts)[:2] == ["prefect-worker-a.service", "prefect-worker-b.service"]
    assert host_units.enabled(its) == ("prefect-worker-a.service", "prefect-worker-b.service", RECOVER_TIMER)
    assert SERVER_UNIT not in texts["prefect-worker-a.service"]
    assert '"--limit" "2"' in values(texts["prefect-worker-b.service"], "ExecStart")[0]


def test_percent_signs_and_spaces_in_paths_are_only_characters() -> None:
    odd = replace(ITS, state_dir="/srv/50% of it", settings="/srv/50% of it/host/settings.env")
    text = host_units.texts(odd, systemd=252)[WORKER_UNIT]
    assert values(text, "EnvironmentFile") == ["/srv/50%% of it/host/settings.env"]
    assert '"ORCHCTL_STATE_DIR=/srv/50%% of it"' in text


@pytest.mark.parametrize("path", ["/srv/a\nUser=root", "/srv/[x]", "/srv/a*"])
def test_a_path_that_a_unit_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be written|pattern"):
        host_units.texts(replace(ITS, settings=path), systemd=252)


def test_ours_are_told_from_those_of_another_installation() -> None:
    text = host_units.texts(ITS, systemd=252)[SERVER_UNIT]
    assert host_units.is_ours(text, ITS.state_dir)
    assert not host_units.is_ours(text, "/home/daniel/.local/state/orch")
    assert not host_units.is_ours("[Unit]\n", ITS.state_dir)


@pytest.mark.parametrize("value", ['a"b\\c$d`e', " blank ", "#;'x'", "p%40ss", "ünïcode", ""])
def test_systemd_reads_from_the_settings_what_was_written(value: str) -> None:
    assert env_file.parse(host_settings.text({"KEY": value}).encode()) == {"KEY": value}


def test_a_setting_with_a_line_break_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError) as refused:
        host_settings.text({"KEY": "hush\nOTHER=1"})
    assert "hush" not in str(refused.value)


def test_what_somebody_added_to_the_settings_stays() -> None:
    made = host_settings.settings(
        ITS.api_url, HOME, auth=AUTH, database_url=None, before={"PREFECT_X": "1", DATABASE: "old", API_URL: "old"}
    )
    assert made == {API_URL: ITS.api_url, "PREFECT_HOME": HOME, AUTH_CLIENT: AUTH, "PREFECT_X": "1"}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("sqlite", f"sqlite+aiosqlite:///{HOME}/prefect.db"),
        ("postgresql://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgres://u:p%2F@h:5433/db?ssl=require", "postgresql+asyncpg://u:p%2F@h:5433/db?ssl=require"),
        ("postgresql+asyncpg://u@/db?host=/run/postgresql", "postgresql+asyncpg://u@/db?host=/run/postgresql"),
    ],
)
def test_a_database_is_named_as_prefect_wants_it(asked: str, meant: str) -> None:
    assert host_settings.database(asked, HOME) == meant


@pytest.mark.parametrize(
    "asked", ["mysql://u:hush@h/db", "postgresql://u:hush@h", "postgresql://u:hush@h:x/db", "hush"]
)
def test_what_is_no_database_is_refused_without_being_shown(asked: str) -> None:
    with pytest.raises(ValueError, match="neither sqlite nor") as refused:
        host_settings.database(asked, HOME)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("sqlite", False),
        ("postgresql://u@h/db", False),
        ("postgresql://u:p@h/db", True),
        ("postgresql://u@h/db?password=p", True),
        ("postgresql://u@h/db?ssl=1&sslpassword=p", True),
        ("postgresql://[::1/db", True),
    ],
)
def test_a_password_in_a_url_is_seen(url: str, has: bool) -> None:
    assert host_settings.has_password(url) is has


def test_a_diff_of_the_settings_shows_no_secret() -> None:
    other = "orchctl:aN0therSecretOfTheServer99"
    before = settings_text()
    after = settings_text(**{AUTH_CLIENT: other, DATABASE: "postgresql+asyncpg://u:hushhush@h/db"})
    shown = FileChange(SETTINGS, before, after, private=True).diff()
    assert '+PREFECT_API_DATABASE_CONNECTION_URL="postgresql+asyncpg://u:***@h/db"' in shown
    for secret in (AUTH, other, "hushhush"):
        assert secret not in shown
    assert (
        "a secret changes" in FileChange(SETTINGS, before, settings_text(**{AUTH_CLIENT: other}), private=True).diff()
    )


def test_a_diff_of_nothing_is_empty() -> None:
    assert FileChange("/x", "a\n", "a\n").diff() == ""
    assert FileChange("/x", None, "a\n").diff().startswith("--- /dev/null\n+++ /x\n")


@pytest.mark.parametrize(
    ("changed", "restarted"),
    [
        ({DATABASE: "sqlite+aiosqlite:////other"}, {SERVER_UNIT}),
        ({AUTH_SERVER: "a:b"}, {SERVER_UNIT}),
        ({API_URL: "http://127.0.0.1:4201/api"}, {SERVER_UNIT, WORKER_UNIT}),
        ({}, set()),
    ],
)
def test_a_setting_restarts_only_what_it_reaches(changed: dict[str, str], restarted: set[str]) -> None:
    change = FileChange(SETTINGS, settings_text(), settings_text(**changed), private=True)
    assert host_units.to_restart(ITS, [change]) == restarted


def test_a_unit_restarts_itself_only_and_a_new_one_nothing() -> None:
    texts = host_units.texts(ITS, systemd=252)
    changes = [FileChange(f"/etc/{name}", text + "#", text) for name, text in texts.items() if name == WORKER_UNIT]
    assert host_units.to_restart(ITS, changes) == {WORKER_UNIT}
    assert host_units.to_restart(ITS, [dataclasses.replace(change, before=None) for change in changes]) == set()


def test_a_move_to_another_database_is_seen() -> None:
    moved = settings_text(**{DATABASE: "postgresql+asyncpg://u@h/db"})
    assert host_units.moves([FileChange(SETTINGS, settings_text(), moved, private=True)])
    assert not host_units.moves([FileChange(SETTINGS, None, moved, private=True)])
    assert not host_units.moves([FileChange(SETTINGS, moved, moved, private=True)])


def test_a_database_under_prefect_s_newer_name_is_the_one_that_counts() -> None:
    newer, url = DATABASES[0], "postgresql+asyncpg://u@h/db"
    before = host_settings.text({DATABASE: "sqlite+aiosqlite:////x/prefect.db", newer: url})
    assert host_units.moves([FileChange(SETTINGS, before, settings_text(), private=True)])
    assert not host_units.moves([FileChange(SETTINGS, before, settings_text(**{DATABASE: url}), private=True)])
    made = host_settings.settings(ITS.api_url, HOME, auth=AUTH, database_url=url, before={newer: "other", "X": "1"})
    assert (made[DATABASE], made.get(newer), made["X"]) == (url, None, "1")


@pytest.mark.parametrize("key", host_settings.SERVER_ONLY)
def test_a_change_of_what_only_the_server_gets_restarts_no_worker(key: str) -> None:
    assert not host_settings.concerns_worker(key)
