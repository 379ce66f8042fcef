"""A systemd that cannot be asked, for every reason that a real one can be given; and what it says of odd units."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline_units
import systemd_zoo
from box import USER, Box

CONFIG = Path(__file__).parents[2] / "config"
GHOST = "ghost"
READ = (
    "import json, os, sys\n"
    "from orchctl.adapters.systemd import Systemd\n"
    "from orchctl.core.legacy import Manager\n"
    "from orchctl.errors import OrchctlError\n"
    "scope, patience, *names = sys.argv[1:]\n"
    "try:\n"
    "    found = Systemd(os.environ, timeout_s=float(patience)).read(Manager(scope), names)\n"
    "    loads = {each.name: each.load for each in (*found.timers.values(), *found.services.values())}\n"
    "    environment = {each.name: dict(each.environment) for each in found.services.values()}\n"
    "    print(json.dumps([loads, environment]))\n"
    "except OrchctlError as error:\n"
    "    print(json.dumps([type(error).__name__, error.message, getattr(error, 'absent', None)]))\n"
)


def read(box: Box, *names: str, scope: str = "system", patience: float = 20.0, **environment: str) -> list[object]:
    out, _ = box.python(READ, scope, str(patience), *names, **environment).communicate()
    answer: list[object] = json.loads(out)
    return answer


@pytest.fixture
def ghost(box: Box) -> Iterator[Box]:
    """A box with a user who has no systemd, and whom this Python lets in."""
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)
    box.sh("id $1 > /dev/null 2>&1 || useradd -m $1", GHOST)
    yield box
    box.sh("loginctl terminate-user $1 2> /dev/null || true", GHOST)


def as_ghost(box: Box, *words: str) -> tuple[int, str, str]:
    """Run orchctl as a user who came over ssh: nothing of a session is in the environment."""
    command = ["env", "-i", f"HOME=/home/{GHOST}", "PATH=/usr/bin:/bin", "NO_COLOR=1", sys.executable, "-m", "orchctl"]
    argv = box.inside.argv("runuser", "-u", GHOST, "--", *command, *words)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_an_ordinary_user_reads_the_systems_units(ghost: Box) -> None:
    pipeline_units.install(ghost)
    status, out, err = as_ghost(ghost, "--config", str(ghost.share / "none"), "legacy", "--json")
    assert status == 0, err
    data = json.loads(out)["data"]
    assert "freeze-slates.timer" in {each["name"] for each in data["unnamed"]}
    assert any(f"the systemd of user {GHOST} does not run" in note for note in data["notes"])


def test_a_users_systemd_that_the_catalog_names_and_does_not_run(ghost: Box) -> None:
    pipeline_units.install(ghost)
    status, out, err = as_ghost(ghost, "--config", str(CONFIG), "legacy", "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["status"] == "partial"
    assert [each["code"] for each in answer["errors"]] == ["not-asked"]
    assert f"user: the systemd of user {GHOST} does not run" in answer["errors"][0]["message"]
    assert f"`sudo loginctl enable-linger {GHOST}` starts it" in answer["errors"][0]["hint"]
    _, _, told = as_ghost(ghost, "--config", str(CONFIG), "legacy")
    assert f"hint: `sudo loginctl enable-linger {GHOST}` starts it" in told
    status, _, told = as_ghost(ghost, "--config", str(ghost.share / "none"), "import", "systemd")
    assert status == 0
    left_out = next(line for line in told.splitlines() if line.startswith("note: left out: the systemd of user"))
    assert f"; `sudo loginctl enable-linger {GHOST}` starts it" in left_out
    missing = [each["name"] for each in answer["data"]["triggers"] if each["missing"]]
    assert missing == ["live-score.timer", "live-scrape.timer"]


def test_over_ssh_the_users_systemd_is_found_where_it_is(ghost: Box) -> None:
    ghost.inside.add_user(GHOST)
    status, out, err = as_ghost(ghost, "--config", str(ghost.share / "none"), "legacy", "--json")
    assert status == 0, err
    assert not [note for note in json.loads(out)["data"]["notes"] if "systemd of user" in note]


def test_without_a_bus_root_can_ask_and_others_are_told_how(ghost: Box) -> None:
    pipeline_units.install(ghost, start=False)
    ghost.systemctl("stop", "dbus.socket", "dbus.service")
    try:
        loads, _ = read(ghost, "freeze-slates.timer")
        assert loads == {"freeze-slates.timer": "loaded", "freeze-slates.service": "loaded"}
        status, _, err = as_ghost(ghost, "--config", str(CONFIG), "legacy", "freeze-slates")
        assert status == 1
        assert "error: systemd runs, and cannot be asked: Failed to connect to" in err
        assert "hint: D-Bus does not run (`systemctl status dbus` as root); root can ask without it: use sudo" in err
    finally:
        ghost.systemctl("start", "dbus.socket", "dbus.service")


def test_a_systemd_that_does_not_answer(box: Box) -> None:
    os.kill(box.inside.init, signal.SIGSTOP)
    try:
        kind, message, absent = read(box, "a.timer", patience=1.0)
    finally:
        os.kill(box.inside.init, signal.SIGCONT)
    assert (kind, message, absent) == (
        "SystemdUnavailable",
        "systemctl did not answer within 1 s (system)",
        False,
    )


def test_roots_own_systemd_does_not_run(box: Box) -> None:
    kind, message, absent = read(box, "a.timer", scope="user")
    assert (kind, absent) == ("SystemdUnavailable", True)
    assert "the systemd of user root does not run" in str(message)


def test_unknown_units_templates_and_no_names(box: Box) -> None:
    box.unit("at@.timer", "[Timer]\nOnCalendar=daily\n")
    box.unit("real.timer", "[Timer]\nOnCalendar=daily\n")
    box.reload()
    loads, _ = read(box, "real.timer", "none.timer", "at@.timer", "@x.timer", "a b.timer")
    assert loads == {
        "real.timer": "loaded",
        "real.service": "not-found",
        "none.timer": "not-found",
        "none.service": "not-found",
        "at@.timer": "template",
        "@x.timer": "not-found",
        "a b.timer": "not-found",
    }


def test_a_timer_under_its_other_name(box: Box) -> None:
    box.unit("real.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\nAlias=other.timer\n")
    box.unit("real.service", "[Service]\nExecStart=/bin/true\n")
    box.start("real.timer")
    loads, _ = read(box, "other.timer")
    assert isinstance(loads, dict)
    assert loads["real.timer"] == "loaded"


def test_the_environment_of_every_unit_is_what_the_bus_says(box: Box) -> None:
    names = []
    for name, text in systemd_zoo.FILES.items():
        box.unit(name, text)
        names += [name] if name.endswith(".service") and "@." not in name else []
    box.reload()
    _, environments = read(box, *names)
    assert isinstance(environments, dict)
    for name in names:
        escaped = "".join(char if char.isalnum() else f"_{ord(char):02x}" for char in name)
        path = f"/org/freedesktop/systemd1/unit/{escaped}"
        words = ("org.freedesktop.systemd1", path, "org.freedesktop.systemd1.Service", "Environment")
        said = json.loads(box.inside.run("busctl", "--json=short", "get-property", *words))["data"]
        assert environments[name] == dict(item.split("=", 1) for item in said)
    assert environments["zoo-quotes.service"]["TWO_LINES"] == "a\n\nId=evil.service"
    assert USER not in environments
