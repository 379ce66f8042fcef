"""What root does for somebody is about that one's state and catalog, and what it leaves there is that one's."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from orchctl.adapters import host_facts
from orchctl.adapters.observed import Observed
from orchctl.core.observed import Looked
from orchctl.wiring import App, Settings
from orchctl.wiring.acting import acting

NOBODY = pwd.getpwnam("nobody")


def app(environment: dict[str, str], **named: Path) -> App:
    return App(Settings.of(environment, **named), environment)  # type: ignore[arg-type]


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The environment of a command that a user called by sudo, in a folder without a catalog."""
    theirs = tmp_path / "home"
    catalog = theirs / ".config" / "orchctl"
    catalog.mkdir(parents=True)
    account = pwd.struct_passwd([*NOBODY[:5], str(theirs), NOBODY[6]])
    monkeypatch.setattr(host_facts, "account", lambda _name: account)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environment = {"HOME": str(tmp_path / "root"), "SUDO_USER": "nobody"}
    for name in [name for name in os.environ if name.startswith(("ORCHCTL_", "XDG_", "SUDO_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return environment


def test_under_sudo_state_and_catalog_are_those_of_who_called_it(sudo: dict[str, str], tmp_path: Path) -> None:
    found = acting(app(sudo)).settings
    assert found.state_dir == tmp_path / "home/.local/state/orchctl"
    assert found.config_dir == tmp_path / "home/.config/orchctl"


def test_what_the_command_line_names_stays(sudo: dict[str, str], tmp_path: Path) -> None:
    named = acting(app(sudo, state_dir=tmp_path / "named")).settings
    assert named.state_dir == tmp_path / "named"


def test_it_stays_also_where_it_is_what_would_have_been_taken_anyway(sudo: dict[str, str], tmp_path: Path) -> None:
    default = tmp_path / "root/.local/state/orchctl"
    assert acting(app(sudo, state_dir=default)).settings.state_dir == default
    assert acting(app({**sudo, "ORCHCTL_STATE_DIR": str(default)})).settings.state_dir == default


def test_a_catalog_in_the_folder_where_it_was_called_stays(sudo: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/jobs.toml").write_text("version = 1\n")
    assert acting(app(sudo)).settings.config_dir == tmp_path / "config"


def test_acting_twice_is_acting_once(sudo: dict[str, str]) -> None:
    once = acting(app(sudo))
    assert acting(once).settings == once.settings


def test_a_user_that_is_named_goes_before_who_called_sudo(
    sudo: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = acting(app(sudo))
    other = pwd.struct_passwd([*NOBODY[:5], str(tmp_path / "other"), NOBODY[6]])
    monkeypatch.setattr(host_facts, "account", lambda name: other if name == "other" else NOBODY)
    assert acting(once, "other").settings.state_dir == tmp_path / "other/.local/state/orchctl"


def test_nobody_acts_for_anybody_but_root(sudo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    one = app(sudo)
    assert acting(one) is one


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_looked_at_is_left_to_whom_the_state_directory_belongs_to(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(0o755)
    os.chown(state, NOBODY.pw_uid, NOBODY.pw_gid)
    Observed(state).write("job", Looked(()))
    for path in (state / "observed", state / "observed/job.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid), path
