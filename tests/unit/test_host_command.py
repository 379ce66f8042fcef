"""The words of `orchctl host`: what is refused while something is half done, and what a look that fails says."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from host_fakes import Computer
from orchctl.adapters import host_lock
from orchctl.adapters.installed import Installed
from orchctl.adapters.upgrades import Upgrades
from orchctl.cli import render
from orchctl.cli.app import app
from orchctl.core import host_units
from orchctl.core.backup import RESTORING
from orchctl.core.installation import Installation
from orchctl.core.upgrade import Journal
from orchctl.errors import OrchctlError, PrefectUnreachable
from orchctl.services.strays import Stray
from orchctl.wiring import host as wiring

UPGRADE = Journal("20260101T000000Z", "starting", "/v", "/v.before-20260101T000000Z", "3.8.8", "3.9.1", 0)
JOBS = 'version = 1\n[jobs.job]\ncommand = ["true"]\ndata_root = "/d"\nworking_directory = "/"\nwork_pool = "local"\n'


class Desk:
    """A project whose host is in memory."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.computer = root, root / "state", Computer()
        (root / "config").mkdir()
        (root / "config/jobs.toml").write_text(JOBS)
        (root / "config/schedules.toml").write_text('version = 1\ntimezone = "UTC"\n')
        (self.state / "host").mkdir(parents=True, mode=0o700)

    def installed(self, *pools: str) -> None:
        its = Installation(
            scope="system",
            user="root",
            api_url="http://127.0.0.1:9/api",
            python="/p",
            config_dir=str(self.root / "config"),
            state_dir=str(self.state),
            home=str(self.state / "prefect"),
            settings=str(self.state / "host/settings.env"),
            units=(),
            pools=dict.fromkeys(pools, 1),
            hostname=socket.gethostname(),
        )
        Installed(self.state).write(its)
        Installed(self.state).write_settings('PREFECT_API_URL="http://127.0.0.1:9/api"\n')

    def half_restored(self) -> None:
        path = self.state / "host" / RESTORING
        path.write_text(json.dumps({"archive": "/b/one.tar.gz"}))
        path.chmod(0o600)

    def host(self, *words: str, check: int) -> str:
        env = {"ORCHCTL_CONFIG": str(self.root / "config"), "ORCHCTL_STATE_DIR": str(self.state), "SUDO_USER": ""}
        done = CliRunner().invoke(app, ["host", *words], env=env)
        assert done.exit_code == check, done.output
        return done.output


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path)
    monkeypatch.setattr(wiring, "host", lambda _app, _manager: made.computer.host())
    monkeypatch.setattr(wiring, "clock", lambda _app: made.computer.clock())
    return made


INSTALL = ("install", "--user", "root", "--scope", "system", "--yes")


@pytest.mark.parametrize("words", [("up",), ("up", "--port", "0"), ("restart",), INSTALL])
@pytest.mark.parametrize("installed", [True, False])
def test_nothing_is_started_on_a_host_that_is_half_restored(
    desk: Desk, words: tuple[str, ...], installed: bool
) -> None:
    if installed or words[0] == "restart":
        desk.installed("local")
    desk.half_restored()
    assert "a restore was interrupted: /b/one.tar.gz" in desk.host(*words, check=5)
    assert desk.computer.done == []
    assert not (desk.state / "host/server.json").exists()


def test_what_a_unit_s_condition_looks_for_is_what_a_restore_writes(desk: Desk) -> None:
    desk.installed("local")
    its = Installed(desk.state).read()
    assert its is not None
    texts = host_units.texts(its, systemd=252)
    found = {name: re.findall(r"^ConditionPathExists=!(.*)$", text, re.MULTILINE) for name, text in texts.items()}
    assert [name for name, paths in found.items() if paths] == ["prefect-server.service", "prefect-worker.service"]
    assert not any(Path(path).exists() for paths in found.values() for path in paths)
    desk.half_restored()
    assert all(Path(path).exists() for paths in found.values() for path in paths)


def test_where_something_is_down_it_is_said_what_helps(desk: Desk) -> None:
    assert "hint: `orchctl host up` starts what does not run" in desk.host("status", check=1)
    desk.half_restored()
    said = desk.host("status", check=1)
    assert "`orchctl host restore /b/one.tar.gz` goes on with it" in said
    assert "orchctl host up" not in said


@pytest.mark.parametrize("words", [INSTALL, ("uninstall", "--yes")])
def test_units_are_left_alone_while_an_upgrade_is_unfinished(desk: Desk, words: tuple[str, ...]) -> None:
    desk.installed("local")
    Upgrades(desk.state).write(UPGRADE)
    assert "`orchctl host upgrade` finishes it" in desk.host(*words, check=5)
    assert desk.computer.done == []


def test_a_rollback_gets_the_lock_while_an_install_waits_for_its_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []

    def confirm(question: str, *, yes: bool) -> None:
        with host_lock.held(desk.state, "rollback"):
            answers.append(question)

    monkeypatch.setattr(render, "confirm", confirm)
    said = desk.host(*INSTALL[:-1], check=0)
    assert answers == ["Do this?"]
    assert "ok   server" in said


# --- recover


def look(desk: Desk, monkeypatch: pytest.MonkeyPatch, broken: dict[str, OrchctlError], *, check: int) -> list[str]:
    """Look in the pools a, b and c, and return where strays were looked for."""
    asked: list[str] = []

    def put_back(_app: Any, pool: str, **_: Any) -> tuple[Stray, ...]:
        asked.append(pool)
        if pool in broken:
            raise broken[pool]
        return (Stray(f"id-{pool}", f"run-{pool}", "job", "Pending", "SCHEDULED"),)

    monkeypatch.setattr(wiring, "put_back", put_back)
    desk.installed("a", "b", "c")
    said = desk.host("unit", "recover", check=check)
    assert [pool for pool in asked if f"run run-{pool} of job was Pending" in said] == [
        pool for pool in asked if pool not in broken
    ]
    for pool, error in broken.items():
        assert pool not in asked or error.message in said
    return asked


def test_a_pool_that_cannot_be_asked_keeps_no_other_waiting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = OrchctlError("there is no such pool")
    assert look(desk, monkeypatch, {"a": gone}, check=4) == ["a", "b", "c"]
    assert look(desk, monkeypatch, {"a": gone, "b": gone, "c": gone}, check=1) == ["a", "b", "c"]
    assert look(desk, monkeypatch, {}, check=0) == ["a", "b", "c"]


def test_a_server_that_is_away_is_no_failure_of_the_look(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(desk, monkeypatch, {"a": PrefectUnreachable("cannot reach it")}, check=13) == ["a"]


def test_nothing_is_put_back_on_a_host_that_is_half_restored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.half_restored()
    assert look(desk, monkeypatch, {}, check=5) == []


# --- the server's unit


def test_a_unit_is_not_ready_while_another_program_answers_on_its_port() -> None:
    answering: Any = SimpleNamespace(
        api_url="http://127.0.0.1:9/api", connect=lambda _url, attempts: SimpleNamespace(version=lambda: "3.8.8")
    )
    asked = iter([False, False, True])
    wiring.wait_for_server(answering, patience_s=60, still=lambda: True, ours=lambda: next(asked))
    assert next(asked, None) is None
    for ends in ({"patience_s": 60.0, "still": lambda: False}, {"patience_s": 0.0, "still": lambda: True}):
        with pytest.raises(PrefectUnreachable, match="another program has the port"):
            wiring.wait_for_server(answering, ours=lambda: False, **ends)  # type: ignore[arg-type]
