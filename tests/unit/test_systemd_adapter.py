"""The systemd adapter against programs that answer, fail and hang as a real one cannot be made to."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import eventually
from orchctl.adapters import systemd
from orchctl.adapters.systemd import Systemd
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

DATA = Path(__file__).parents[1] / "data" / "systemd"
ME = pwd.getpwuid(os.geteuid()).pw_name
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="speaks to other users' managers")


class Fake:
    """A `systemctl` first on PATH: the script that is its body logs its words, and answers."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "log"
        (root / "bin").mkdir()

    def says(self, body: str, *, mode: int = 0o755, **environment: str) -> Systemd:
        program = self.root / "bin" / "systemctl"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{self.log}"\n{body}\n')
        program.chmod(mode)
        path = f"{self.root / 'bin'}:/usr/bin:/bin"
        return Systemd({"PATH": path, **environment}, timeout_s=10.0)

    def fails(self, stderr: str, status: int = 1) -> Systemd:
        (self.root / "stderr").write_text(stderr)
        return self.says(f'cat "{self.root / "stderr"}" >&2; exit {status}')

    def knows(self, **units: str) -> Systemd:
        """Answer with these blocks, each for its name, and with `not-found` for what it does not know."""
        for name, block in units.items():
            kind = name.rpartition("_")[2]
            file = self.root / f"{name.removesuffix(f'_{kind}')}.{kind}"
            file.write_text(f"Id={file.name}\nLoadState=loaded\n{block}\n")
        return self.says(
            f'for name; do case "$name" in -*|show) continue;; esac\n'
            f'if [ -e "{self.root}/$name" ]; then cat "{self.root}/$name"; echo\n'
            'else printf "Id=%s\\nLoadState=not-found\\n\\n" "$name"; fi; done'
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def asked(self) -> list[list[str]]:
        """The names of each `show`."""
        return [call.partition(" -- ")[2].split() for call in self.calls]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_one_call_for_timers_and_the_services_of_their_names(fake: Fake) -> None:
    found = fake.knows(a_timer="", a_service="", b_timer="", b_service="").read(SYSTEM, ["a.timer", "b.timer"])
    assert sorted(found.timers) == ["a.timer", "b.timer"]
    assert sorted(found.services) == ["a.service", "b.service"]
    assert fake.asked == [["a.service", "a.timer", "b.service", "b.timer"]]


def test_a_second_call_for_a_service_of_another_name_a_third_for_its_handler(fake: Fake) -> None:
    reader = fake.knows(a_timer="Unit=b.service", b_service="OnFailure=c.service d.target")
    found = reader.read(SYSTEM, ["a.timer"])
    assert fake.asked == [["a.service", "a.timer"], ["b.service"], ["c.service", "d.target"]]
    assert found.missing_handlers(found.services["b.service"]) == ("c.service", "d.target")


def test_handlers_that_nobody_needs_cost_no_call(fake: Fake) -> None:
    reader = fake.knows(a_timer="", a_service="OnFailure=c.service")
    reader.read(SYSTEM, ["a.timer"], handlers=False)
    assert fake.asked == [["a.service", "a.timer"]]


def test_units_that_name_each_other_end(fake: Fake) -> None:
    reader = fake.knows(
        a_timer="", a_service="OnFailure=b.service", b_service="OnFailure=c.service", c_service="OnFailure=a.service"
    )
    reader.read(SYSTEM, ["a.timer"])
    assert len(fake.calls) == 3
    assert len(set(map(tuple, fake.asked))) == 3


def test_a_systemd_that_leaves_units_out_is_not_asked_for_ever(fake: Fake) -> None:
    found = fake.says('printf "Id=a.timer\\nLoadState=loaded\\nUnit=b.service\\n"').read(SYSTEM, ["a.timer"])
    assert len(fake.calls) == 2
    assert "b.service" not in found.services


def test_everything_is_a_list_and_one_call(fake: Fake) -> None:
    reader = fake.says(
        'case "$*" in list-unit-files*) printf "a.timer disabled enabled\\nb@.timer static -\\n";;'
        ' *) printf "Id=a.timer\\n\\nId=a.service\\n\\nId=b@x.timer\\nUnit=a.service\\n";; esac'
    )
    found = reader.read(SYSTEM, everything=True)
    assert fake.asked[1] == ["*.service", "*.timer", "a.service", "a.timer"]
    assert " --all " in fake.calls[1]
    assert len(fake.calls) == 2
    assert sorted(found.timers) == ["a.timer", "b@x.timer"]


def test_many_names_go_in_several_calls(fake: Fake) -> None:
    found = fake.knows().read(SYSTEM, [f"t{number}.timer" for number in range(1100)])
    assert len(fake.calls) == 3
    assert len(found.timers) == 1100


def test_a_template_and_what_is_no_name_do_not_spoil_the_call(fake: Fake) -> None:
    names = ["a.timer", "b@.timer", "c d.timer", "@e.timer"]
    found = fake.knows(a_timer="", a_service="").read(SYSTEM, names)
    assert fake.asked == [["a.service", "a.timer"]]
    loads = {name: found.timers[name].load for name in names}
    assert loads == {
        "a.timer": "loaded",
        "b@.timer": "template",
        "c d.timer": "not-found",
        "@e.timer": "not-found",
    }
    assert found.timers["b@.timer"].load_error == "a template starts nothing: its instances do"


def test_nothing_asked_is_no_call(fake: Fake) -> None:
    assert fake.knows().read(SYSTEM).timers == {}
    assert fake.calls == []


def test_a_unit_is_found_by_another_of_its_names(fake: Fake) -> None:
    reader = fake.says('printf "Id=real.timer\\nNames=real.timer other.timer third.timer\\nUnit=real.service\\n"')
    found = reader.read(SYSTEM, ["other.timer"])
    assert found.timers["other.timer"].name == "real.timer"
    assert "third.timer" not in found.timers


def test_systemd_is_asked_in_english_and_in_utc(fake: Fake, tmp_path: Path) -> None:
    reader = fake.says(f'env > "{tmp_path}/env"; echo Id=a.timer', LC_ALL="de_DE.UTF-8", TZ="Asia/Tokyo", HOME="/h")
    reader.read(SYSTEM, ["a.timer"])
    environment = (tmp_path / "env").read_text().splitlines()
    assert {"LC_ALL=C", "TZ=UTC", "SYSTEMD_COLORS=0", "HOME=/h"} <= set(environment)


def test_a_value_with_any_bytes_is_read(fake: Fake) -> None:
    body = r"""printf 'Id=a.timer\n\nId=a.service\nEnvironment="A=\303\274\377\r" B=1\n'"""
    found = fake.says(body).read(SYSTEM, ["a.timer"])
    assert found.services["a.service"].environment == {"A": "ü\ufffd\r", "B": "1"}


def test_a_recording_is_read_as_it_is(fake: Fake) -> None:
    found = fake.says(f'cat "{DATA / "show-262.txt"}"').read(SYSTEM, ["zoo-plain.timer"])
    assert found.timers["zoo-plain.timer"].persistent


def test_an_elapse_on_the_monotonic_clock_is_an_instant(fake: Fake) -> None:
    ahead = time.clock_gettime(time.CLOCK_MONOTONIC) + 3600
    reader = fake.says(f'printf "Id=a.timer\\nNextElapseUSecMonotonic={ahead:.0f}s\\n"')
    due = reader.read(SYSTEM, ["a.timer"]).timers["a.timer"].next_fire
    assert due is not None
    assert due.timestamp() == pytest.approx(time.time() + 3600, abs=10)


def test_what_cannot_be_read_is_said(fake: Fake) -> None:
    with pytest.raises(OrchctlError, match=r"cannot be read .system.: systemd printed 'morgen'"):
        fake.says('printf "Id=a.timer\\nLastTriggerUSec=morgen\\n"').read(SYSTEM, ["a.timer"])


NOT_BOOTED = (
    "System has not been booted with systemd as init system (PID 1). Can't operate.\n"
    "Failed to connect to bus: Host is down\n"
)


@pytest.mark.parametrize(
    "stderr",
    [
        NOT_BOOTED,
        "Failed to connect to bus: No such file or directory\n",
        "Failed to connect to system scope bus via local transport: No such file or directory\n",
        "Failed to connect to system scope bus via local transport: Connection refused\n",
    ],
)
def test_no_systemd(fake: Fake, stderr: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "missing")
    with pytest.raises(SystemdUnavailable, match="systemd does not run on this host") as caught:
        fake.fails(stderr).read(SYSTEM, ["a.timer"])
    assert caught.value.absent
    assert caught.value.hint == "run orchctl on the host whose timers are meant"


def test_a_systemd_that_runs_without_a_bus_is_not_absent(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path)
    with pytest.raises(SystemdUnavailable, match=r"systemd runs, and cannot be asked: .*Connection refused") as caught:
        fake.fails("warning: x\nFailed to connect to bus: Connection refused\n").read(SYSTEM, ["a.timer"])
    assert not caught.value.absent
    assert "sudo" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "stderr",
    [
        "Failed to get properties: Access denied\n",
        "Failed to get properties: Interactive authentication required.\nSee system logs for details.\n",
        "Failed to connect to bus: Permission denied\n",
        "Failed to connect to system scope bus via local transport: Operation not permitted\n",
    ],
)
def test_no_permission(fake: Fake, stderr: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        fake.fails(stderr, 4).read(SYSTEM, ["a.timer"])
    assert caught.value.message == f"systemd refuses (system): {stderr.splitlines()[0]}"
    assert "`sudo systemctl show -- " in (caught.value.hint or "")
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("said", ["Transport endpoint is not connected", "Connection reset by peer", "timed out"])
def test_a_systemd_that_breaks_off_may_still_run(fake: Fake, said: str) -> None:
    with pytest.raises(SystemdUnavailable, match=f"systemd broke off .system.: Failed.*{said}") as caught:
        fake.fails(f"Failed to get properties: {said}\n").read(SYSTEM, ["a.timer"])
    assert not caught.value.absent


def test_any_other_failure_keeps_its_words(fake: Fake) -> None:
    with pytest.raises(
        OrchctlError, match=r"`systemctl show --all` failed \(system\): Failed to get it: No such"
    ) as caught:
        fake.fails("note\nFailed to get it: No such thing\n").read(SYSTEM, ["a.timer"])
    assert not isinstance(caught.value, SystemdUnavailable)


def test_a_failure_without_words(fake: Fake) -> None:
    with pytest.raises(OrchctlError, match="no message"):
        fake.fails("").read(SYSTEM, ["a.timer"])


def test_in_a_chroot_no_answer_is_not_taken_for_none(fake: Fake) -> None:
    with pytest.raises(SystemdUnavailable, match="Running in chroot, ignoring command 'show'") as caught:
        fake.fails("Running in chroot, ignoring command 'show'\n", 0).read(SYSTEM, ["a.timer"])
    assert not caught.value.absent


def test_not_installed(tmp_path: Path) -> None:
    with pytest.raises(SystemdUnavailable, match="systemctl is not installed") as caught:
        Systemd({"PATH": str(tmp_path)}).read(SYSTEM, ["a.timer"])
    assert caught.value.absent


def test_not_executable(fake: Fake) -> None:
    fake.says("", mode=0o644)
    with pytest.raises(NotAllowed, match="systemctl may not be run"):
        Systemd({"PATH": str(fake.root / "bin")}).read(SYSTEM, ["a.timer"])


def test_a_program_that_hangs_is_ended_with_what_it_started(fake: Fake, tmp_path: Path) -> None:
    fake.says(f'sleep 77.5 & echo $! > "{tmp_path}/pid"; wait')
    slow = Systemd({"PATH": f"{fake.root / 'bin'}:/usr/bin:/bin"}, timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(SystemdUnavailable, match=r"systemctl did not answer within 0.5 s \(system\)") as caught:
        slow.read(SYSTEM, ["a.timer"])
    assert time.monotonic() - began < 5
    assert not caught.value.absent
    assert caught.value.hint == "try it by hand: systemctl show -- a.service"
    assert eventually(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


def test_own_user_the_runtime_folder_that_is_named(fake: Fake, tmp_path: Path) -> None:
    body = f'echo "$XDG_RUNTIME_DIR $DBUS_SESSION_BUS_ADDRESS" > "{tmp_path}/env"; echo Id=a.timer'
    reader = fake.says(body, XDG_RUNTIME_DIR=str(tmp_path), DBUS_SESSION_BUS_ADDRESS="unix:path=/x")
    reader.read(Manager("user"), ["a.timer"])
    assert fake.calls[0].startswith("--user show ")
    assert (tmp_path / "env").read_text() == f"{tmp_path} unix:path=/x\n"


@root_only
def test_a_runtime_folder_of_somebody_else_is_not_taken(fake: Fake, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    nobody = fake.says("exit 1", XDG_RUNTIME_DIR=str(foreign))
    with pytest.raises(
        SystemdUnavailable, match=rf"systemd of user {ME} does not run \(looked for it in /run/user/0\)"
    ):
        nobody.read(Manager("user"), ["a.timer"])


@root_only
def test_a_user_without_a_manager(fake: Fake) -> None:
    with pytest.raises(SystemdUnavailable, match="the systemd of user nobody does not run") as caught:
        fake.says("exit 1").read(Manager("user", "nobody"), ["a.timer"])
    assert caught.value.absent
    assert "sudo loginctl enable-linger nobody" in (caught.value.hint or "")
    assert fake.calls == []


@root_only
def test_a_users_manager_whose_socket_is_there_may_run(fake: Fake, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    (runtime / "systemd").mkdir(parents=True)
    (runtime / "systemd" / "private").touch()
    reader = fake.says("echo 'Failed to connect to bus: Connection refused' >&2; exit 1", XDG_RUNTIME_DIR=str(runtime))
    with pytest.raises(SystemdUnavailable) as caught:
        reader.read(Manager("user"), ["a.timer"])
    assert not caught.value.absent


def test_no_such_user(fake: Fake) -> None:
    reader = fake.says("exit 1")
    asks: list[Callable[[], object]] = [
        lambda: reader.read(Manager("user", "nobody-of-that-name"), ["a.timer"]),
        lambda: reader.owner(Manager("user", "nobody-of-that-name")),
        lambda: reader.lingers(Manager("user", "nobody-of-that-name")),
    ]
    for ask in asks:
        with pytest.raises(OrchctlError, match="there is no user nobody-of-that-name on this host"):
            ask()


def test_owners_and_linger() -> None:
    reader = Systemd({}, "nobody")
    assert reader.owner(SYSTEM) is None
    assert reader.lingers(SYSTEM) is None
    assert reader.owner(Manager("user")) == "nobody"
    assert Systemd({}).owner(Manager("user")) == ME


def test_linger_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "_LINGER", tmp_path)
    assert Systemd({}).lingers(Manager("user")) is False
    (tmp_path / ME).touch()
    assert Systemd({}).lingers(Manager("user")) is True
