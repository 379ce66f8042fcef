"""The timer that rolls a job back by itself, on a real systemd: it fires once, outlives a boot, and goes for good."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from box import USER, Box
from orchctl.adapters import sandbox
from timer_switching import Inside

DONE = "/var/confirmed.log"
TIMER, SERVICE = "orchctl-confirm-j.timer", "orchctl-confirm-j.service"
SCRIPT = "/srv/roll back"
Ask = Callable[..., Any]


@pytest.fixture(params=["system", "user"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(box: Box, scope: str) -> Iterator[Box]:
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)
    box.inside.add_user(USER)
    box.sh("mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/$1; touch $2; chmod 666 $2", USER, DONE)
    box.inside.write(SCRIPT, f'#!/bin/sh\necho "$*|$STATE|$(id -un)" >> {DONE}\n', mode="755")
    yield box
    box.sh("rm -rf /var/lib/systemd/linger $1", DONE)


@pytest.fixture
def ask(host: Box, scope: str) -> Iterator[Ask]:
    inside = Inside(host)
    environment = {"STATE": 'a b%n "c" $HOME \\d'}

    def asked(name: str, *words: Any) -> Any:
        return inside.ask(["", "confirm", name, [SCRIPT, "100%", "$X", '"q"'], environment, *words], user=user(scope))

    yield asked
    asked("disarm", "j")
    inside.close()


def user(scope: str) -> str | None:
    return USER if scope == "user" else None


def clock(box: Box) -> float:
    return float(box.sh("date +%s.%N"))


def done(box: Box) -> list[str]:
    return box.sh('cat "$1"', DONE).splitlines()


def until(box: Box, count: int, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while len(done(box)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return done(box)


def units(box: Box) -> str:
    return box.sh(
        "find /etc/systemd /var/lib/systemd/timers /home/$1 -name '*orchctl-confirm*' 2> /dev/null || true",
        USER,
    )


def test_it_fires_once_at_its_instant_with_its_command_as_it_was_given(host: Box, scope: str, ask: Ask) -> None:
    assert ask("obstacles") == []
    assert not ask("is_armed", "j")
    at = int(clock(host)) + 3
    ask("arm", "j", f"@{at}")
    assert ask("is_armed", "j")
    assert host.systemctl("is-enabled", TIMER, scope=scope).strip() == "enabled"
    assert done(host) == []
    who = USER if scope == "user" else "root"
    assert until(host, 1, 30) == [f'100% $X "q" j|a b%n "c" $HOME \\d|{who}']
    assert at <= clock(host) < at + 3
    time.sleep(2)
    assert len(done(host)) == 1


def test_it_is_armed_anew_for_another_time(host: Box, ask: Ask) -> None:
    soon = int(clock(host)) + 6
    ask("arm", "j", f"@{soon}")
    ask("arm", "j", f"@{soon + 3600}")
    time.sleep(max(0.0, soon + 1.5 - clock(host)))
    assert done(host) == []
    ask("arm", "j", f"@{int(clock(host)) - 60}")
    assert len(until(host, 1, 30)) == 1


def test_disarmed_nothing_of_it_is_left(host: Box, scope: str, ask: Ask) -> None:
    soon = int(clock(host)) + 6
    ask("arm", "j", f"@{soon}")
    ask("disarm", "j")
    assert not ask("is_armed", "j")
    assert not ask("has_trace", "j")
    assert units(host) == ""
    time.sleep(max(0.0, soon + 1.5 - clock(host)))
    assert done(host) == []
    assert "orchctl-confirm" not in host.systemctl("list-units", "--all", "--no-legend", scope=scope)


@pytest.mark.parametrize("left", ["", ".{name}.1a2b3c4d.tmp", "{name}"])
def test_half_of_it_is_a_trace_and_is_not_armed(host: Box, scope: str, ask: Ask, left: str) -> None:
    folder = f"/home/{USER}/.config/systemd/user" if scope == "user" else "/etc/systemd/system"
    if left:
        host.inside.write(f"{folder}/{left.format(name=SERVICE)}", "[Service]\nExecStart=/bin/true\n")
        host.sh("chown -R $1: /home/$1", USER)
    assert ask("has_trace", "j") == bool(left)
    assert not ask("is_armed", "j")
    ask("disarm", "j")
    assert not ask("has_trace", "j")


def test_the_command_may_disarm_it_and_goes_on(host: Box, scope: str, ask: Ask) -> None:
    manager = "--user" if scope == "user" else "--system"
    folder = f"/home/{USER}/.config/systemd/user" if scope == "user" else "/etc/systemd/system"
    disarming = (
        f"cd {folder}; rm timers.target.wants/{TIMER}; systemctl {manager} stop {TIMER}; rm {TIMER} {SERVICE};"
        f"systemctl {manager} daemon-reload"
    )
    host.inside.write(SCRIPT, f"#!/bin/sh\n{disarming}\nsleep 1\necho went on >> {DONE}\n", mode="755")
    ask("arm", "j", f"@{int(clock(host)) + 1}")
    assert until(host, 1, 30) == ["went on"]
    time.sleep(0.5)
    assert not ask("is_armed", "j")
    ask("disarm", "j")
    assert units(host) == ""


def test_it_is_tried_again_until_it_succeeds(host: Box, scope: str, ask: Ask) -> None:
    host.inside.write(SCRIPT, f"#!/bin/sh\necho tried >> {DONE}\n[ $(wc -l < {DONE}) -ge 2 ]\n", mode="755")
    ask("arm", "j", f"@{int(clock(host)) + 1}")
    assert until(host, 2, 40) == ["tried", "tried"]
    shown = host.systemctl("show", "-p", "StartLimitIntervalUSec,RestartUSec,TimeoutStartUSec", SERVICE, scope=scope)
    assert set(shown.split()) == {"StartLimitIntervalUSec=0", "RestartUSec=10s", "TimeoutStartUSec=infinity"}


def test_a_users_timer_needs_linger(host: Box, scope: str, ask: Ask) -> None:
    host.sh("rm /var/lib/systemd/linger/$1", USER)
    found = ask("obstacles")
    assert found == [] if scope == "system" else "enable-linger" in found[0]


def test_it_outlives_a_boot_over_its_instant(box: Box, tmp_path: Path, scope: str) -> None:
    """A sandbox ends with its first process; what it had on disk is carried into the next one."""
    places = "etc/systemd/system var/lib/systemd/timers var/lib/systemd/linger home/daniel srv"
    for folder in list(tmp_path.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "share").mkdir()
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    command: list[Any] = [[SCRIPT], {}]
    with sandbox.booted(tmp_path / "first", [tmp_path / "share"]) as first:
        box = Box(first, tmp_path / "share")
        readable(box)
        box.inside.write(SCRIPT, f"#!/bin/sh\necho done >> {DONE}\n", mode="755")
        inside = Inside(box)
        at = int(clock(box)) + 12
        inside.ask(["", "confirm", "arm", *command, "j", f"@{at}"], user=user(scope))
        inside.close()
        box.sh(f"cd /; tar cf {tmp_path}/share/kept.tar $(ls -d {places} 2> /dev/null); [ ! -e {DONE} ]")
        assert clock(box) < at, "this machine is too busy: the timer fired before the boot"
        kept = tmp_path / "share" / "kept.tar"
    time.sleep(max(0.0, at + 1 - time.time()))
    with sandbox.booted(tmp_path / "second", [tmp_path / "share"]) as second:
        box = Box(second, tmp_path / "share")
        readable(box)
        box.sh(f"touch {DONE}; chmod 666 {DONE}; cd /; tar xf {kept}")
        # What a boot does: the units are read anew, and what timers.target wants is started.
        manager = "--user" if scope == "user" else "--system"
        script = f"systemctl {manager} daemon-reload; systemctl {manager} restart timers.target"
        box.inside.run_as(USER, "sh", "-c", script) if scope == "user" else box.sh(script)
        assert until(box, 1, 10) == ["done"]


def readable(box: Box) -> None:
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)
    box.inside.add_user(USER)
