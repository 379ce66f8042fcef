"""Legacy timers switched off and put back on a real systemd, behind the fence: nothing bursts, and all is as it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from box import USER, Box
from timer_switching import LOG, STATE, Inside, Refused, Switch, job_units, photo, runs

WANTS = "/etc/systemd/system/timers.target.wants"
HOME_UNITS = f"/home/{USER}/.config/systemd/user"


@pytest.fixture
def host(box: Box) -> Iterator[Box]:
    """The sandbox, with a user, whose Python is readable, and no state of an earlier test."""
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)
    box.inside.add_user(USER)
    box.sh("rm -rf $1 $2", STATE, LOG)
    yield box
    box.sh("rm -rf $1 $2", STATE, LOG)


@pytest.fixture
def inside(host: Box) -> Iterator[Inside]:
    found = Inside(host)
    yield found
    found.close()


def folder_of(scope: str) -> str:
    return "/etc/systemd/system" if scope == "system" else HOME_UNITS


# --- as it was

SHAPES = {
    "enabled": "systemctl $M enable --quiet --now x.timer",
    "enabled-runtime": "systemctl $M enable --quiet --now --runtime x.timer",
    "enabled and stopped": "systemctl $M enable --quiet x.timer",
    "disabled and started by hand": "systemctl $M start x.timer",
    "inactive": "true",
    "linked": "mv $U/x.timer $S/x.timer; systemctl $M link --quiet $S/x.timer; systemctl $M start x.timer",
    "linked and enabled": "mv $U/x.timer $S/x.timer; systemctl $M enable --quiet --now $S/x.timer",
    "a link made by hand": (
        "sed -i '/Install/,$d' $U/x.timer; mkdir -p $U/basic.target.wants; ln -s ../x.timer $U/basic.target.wants/;"
        "systemctl $M daemon-reload; systemctl $M start x.timer"
    ),
    "required and wanted": (
        "mkdir -p $U/basic.target.requires; ln -s $U/x.timer $U/basic.target.requires/;"
        "systemctl $M enable --quiet --now x.timer"
    ),
}


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_timer_is_put_back_byte_for_byte_and_state_for_state(
    host: Box, inside: Inside, shape: str, scope: str
) -> None:
    job_units(host, "x", "OnCalendar=05:00", scope=scope)
    host.reload()
    shelf = "/srv/shelf"
    script = (
        f"set -e; U={folder_of(scope)}; S={shelf}; M={'--user' if scope == 'user' else '--system'}; {SHAPES[shape]}"
    )
    host.sh("rm -rf $1; mkdir $1; chmod 777 $1", shelf)
    if scope == "user":
        host.inside.run_as(USER, "sh", "-c", script)
    else:
        host.sh(script)
    units = [("x.timer", scope), ("x.service", scope)]
    before = photo(host, *units)
    switch = Switch(inside, [("x.timer", scope)])
    switch.cut_over()
    off = photo(host, *units)
    assert "x.timer.wants" not in off
    assert "ActiveState=active" not in host.systemctl("show", "-p", "ActiveState", "x.timer", scope=scope)
    host.systemctl("daemon-reload", scope=scope)
    assert switch.ask("are_off", switch.snap)
    assert off != before
    switch.roll_back()
    assert photo(host, *units) == before
    host.sh(
        "rm -f /run/systemd/system/timers.target.wants/x.timer /run/user/*/systemd/user/timers.target.wants/x.timer"
    )
    assert runs(host) == []


def test_a_vendors_link_is_masked_and_unmasked(host: Box, inside: Inside) -> None:
    host.sh(
        "cd /usr/lib/systemd/system; mkdir -p timers.target.wants; ln -sf ../v.timer timers.target.wants/v.timer;"
        "printf '[Timer]\\nOnCalendar=05:00\\n' > v.timer; printf '[Service]\\nExecStart=/bin/true\\n' > v.service;"
        "systemctl daemon-reload; systemctl start v.timer"
    )
    before = photo(host, ("v.timer", "system"), ("v.service", "system"))
    switch = Switch(inside, [("v.timer", "system")])
    switch.cut_over()
    assert "WantedBy=\n" in host.systemctl("show", "-p", "WantedBy", "v.timer")
    assert host.sh("readlink $1/v.timer", WANTS).strip() == "/dev/null"
    switch.roll_back()
    assert photo(host, ("v.timer", "system"), ("v.service", "system")) == before
    host.sh("systemctl stop v.timer; cd /usr/lib/systemd/system; rm -f v.* timers.target.wants/v.timer")


def test_links_of_all_users_are_masked_for_the_one(host: Box, inside: Inside) -> None:
    host.sh(
        "cd /etc/systemd/user; mkdir -p timers.target.wants; ln -sf ../w.timer timers.target.wants/w.timer;"
        "printf '[Timer]\\nOnCalendar=05:00\\n' > w.timer; printf '[Service]\\nExecStart=/bin/true\\n' > w.service"
    )
    host.systemctl("daemon-reload", scope="user")
    host.systemctl("start", "w.timer", scope="user")
    before = photo(host, ("w.timer", "user"), ("w.service", "user"))
    switch = Switch(inside, [("w.timer", "user")])
    switch.cut_over()
    assert host.sh("readlink $1/timers.target.wants/w.timer", HOME_UNITS).strip() == "/dev/null"
    assert host.sh("readlink /etc/systemd/user/timers.target.wants/w.timer").strip() == "../w.timer"
    switch.roll_back()
    assert photo(host, ("w.timer", "user"), ("w.service", "user")) == before
    host.systemctl("stop", "w.timer", scope="user")
    host.sh("cd /etc/systemd/user; rm -f w.* timers.target.wants/w.timer")


def test_an_instance_is_switched_and_its_siblings_are_not(host: Box, inside: Inside) -> None:
    job_units(host, "t@", "OnCalendar=05:00")
    host.start("t@a.timer", "t@b.timer")
    units = [(f"t@{name}.{kind}", "system") for name in "ab" for kind in ("timer", "service")]
    before = photo(host, *units)
    switch = Switch(inside, [("t@a.timer", "system")])
    switch.cut_over()
    assert host.systemctl("is-active", "t@a.timer", "t@b.timer", check=False).split() == ["inactive", "active"]
    switch.own(prefect=True)
    host.systemctl("start", "t@a.service", "t@b.service")
    assert runs(host) == ["t@b.service system"]
    switch.roll_back()
    host.systemctl("reset-failed")
    assert photo(host, *units) == before


def test_a_timer_is_off_by_each_of_its_names(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.sh("cd /etc/systemd/system; ln -s x.timer also.timer; mkdir -p basic.target.wants")
    host.sh("ln -s ../also.timer /etc/systemd/system/basic.target.wants/also.timer")
    host.start("x.timer")
    before = photo(host, ("x.timer", "system"))
    switch = Switch(inside, [("also.timer", "system")])
    switch.cut_over()
    assert {each["timer"] for each in switch.snap["timers"]} == {"x.timer", "also.timer"}
    assert "WantedBy=\n" in host.systemctl("show", "-p", "WantedBy", "x.timer")
    switch.roll_back()
    assert photo(host, ("x.timer", "system")) == before


def test_what_also_names_is_not_touched(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    job_units(host, "y", "OnCalendar=05:00")
    host.sh("echo Also=y.timer >> /etc/systemd/system/x.timer")
    host.start("x.timer", "y.timer")
    switch = Switch(inside, [("x.timer", "system")])
    switch.cut_over()
    assert host.systemctl("is-active", "x.timer", "y.timer", check=False).split() == ["inactive", "active"]
    assert host.systemctl("is-enabled", "x.timer", "y.timer", check=False).split() == ["disabled", "enabled"]
    switch.roll_back()
    assert host.systemctl("is-active", "x.timer", "y.timer").split() == ["active", "active"]


def test_an_upheld_timer_stays_off(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.sh(
        "cd /etc/systemd/system; mkdir -p timers.target.upholds; cd timers.target.upholds; ln -s ../x.timer x.timer"
    )
    host.start("x.timer", enable=False)
    switch = Switch(inside, [("x.timer", "system")])
    switch.cut_over()
    time.sleep(0.5)
    assert switch.ask("are_off", switch.snap)
    switch.roll_back()
    assert host.systemctl("is-active", "x.timer").strip() == "active"


def test_a_timer_that_somebody_enabled_again_is_off_again_and_put_back_as_it_was(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.reload()
    before = photo(host, ("x.timer", "system"), ("x.service", "system"))
    switch = Switch(inside, [("x.timer", "system")])
    switch.cut_over()
    host.systemctl("enable", "--quiet", "--now", "x.timer")
    assert not switch.ask("are_off", switch.snap)
    switch.ask("turn_off", switch.snap)
    assert switch.ask("are_off", switch.snap)
    host.systemctl("enable", "--quiet", "--now", "x.timer")
    assert not switch.ask("are_back", switch.snap)
    switch.roll_back()
    host.sh("rmdir --ignore-fail-on-non-empty $1 || true", WANTS)
    after = photo(host, ("x.timer", "system"), ("x.service", "system"))
    assert [line for line in after.splitlines() if "x.timer" in line] == [
        line for line in before.splitlines() if "x.timer" in line
    ]


def test_after_another_boot_only_what_links_start_is_expected_active(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    job_units(host, "y", "OnCalendar=05:00")
    host.start("x.timer")
    host.start("y.timer", enable=False)
    switch = Switch(inside, [("x.timer", "system"), ("y.timer", "system")])
    switch.cut_over()
    for each in switch.snap["timers"]:
        each["boot_id"] = "another"
    switch.roll_back()
    assert host.systemctl("is-active", "x.timer", "y.timer", check=False).split() == ["active", "inactive"]


@pytest.mark.parametrize("scope", ["system", "user"])
def test_without_a_snapshot_a_timer_is_put_back_by_its_own_install_section(
    host: Box, inside: Inside, scope: str
) -> None:
    job_units(host, "x", "OnCalendar=05:00", scope=scope)
    host.reload()
    switch = Switch(inside, [("x.timer", scope)])
    switch.snap = switch.ask("assumed", switch.described)
    assert not switch.ask("are_back", switch.snap)
    switch.ask("put_back", switch.snap)
    assert switch.ask("are_back", switch.snap)
    assert host.systemctl("is-enabled", "x.timer", scope=scope).strip() == "enabled"
    assert host.systemctl("is-active", "x.timer", scope=scope).strip() == "active"
    mine = host.sh("readlink $1/timers.target.wants/x.timer", folder_of(scope))
    host.systemctl("reenable", "--quiet", "x.timer", scope=scope)
    assert host.sh("readlink $1/timers.target.wants/x.timer", folder_of(scope)) == mine


# --- the fence, by its effect

HARD = {
    "plain": "",
    "another user": f"User={USER}\nNoNewPrivileges=yes\nCapabilityBoundingSet=",
    "namespaces": "ProtectHome=yes\nPrivateTmp=yes\nProtectSystem=full\nInaccessiblePaths=/srv/state",
    "no files at all": "TemporaryFileSystem=/srv",
    "a dynamic user": "DynamicUser=yes\nReadWritePaths=/var/ran.log",
    "a root of its own": "RootDirectory=/srv/jail\nBindReadOnlyPaths=/bin /lib /lib64 /usr\nBindPaths=/var/ran.log",
    "a root for its start alone": "RootDirectory=/\nRootDirectoryStartOnly=yes",
    "it restarts": "Restart=on-failure\nRestartSec=100ms",
}


@pytest.mark.parametrize("way", HARD)
def test_the_fence_holds_a_hardened_service_while_the_owner_file_exists_and_no_longer(
    host: Box, inside: Inside, way: str
) -> None:
    host.sh("mkdir -p /srv/jail")
    job_units(host, "x", "OnCalendar=05:00", service=HARD[way])
    host.reload()
    state = "/srv/a b/%n $x \"'\\s" if way in {"plain", "another user"} else STATE
    switch = Switch(inside, [("x.timer", "system")], state=state)
    host.sh('chmod 700 "$1"', state)
    switch.photograph()
    switch.ask("fence", "j", switch.snap)
    assert switch.ask("is_fenced", "j", switch.snap)
    host.systemctl("start", "x.service")
    assert runs(host) == ["x.service system"]
    switch.own(prefect=True)
    host.systemctl("start", "x.service")
    host.systemctl("restart", "x.service")
    assert runs(host) == ["x.service system"]
    switch.own(prefect=False)
    host.systemctl("start", "x.service")
    assert runs(host) == ["x.service system"] * 2
    switch.ask("unfence", "j", switch.snap)
    assert not switch.ask("has_fence", "j", switch.snap)


@pytest.mark.parametrize("who", [None, USER])
@pytest.mark.parametrize("service", ["", "PrivateTmp=yes", "User=root"])
def test_a_users_service_is_fenced_by_a_file_that_is_not_the_users(
    host: Box, inside: Inside, service: str, who: str | None
) -> None:
    job_units(host, "x", "OnCalendar=05:00", scope="user", service=service.replace("User=root", "Nice=1"))
    host.reload()
    state = f"/home/{USER}/state" if who else STATE
    switch = Switch(inside, [("x.timer", "user")], user=who, state=state)
    if who:
        host.sh("chown -R $1: $2", USER, state)
    else:
        switch.own(prefect=True)
        switch.own(prefect=False)  # the folder is there, and is root's alone
    assert switch.ask("obstacles", switch.described) == []
    switch.photograph()
    switch.ask("fence", "j", switch.snap)
    assert switch.ask("is_fenced", "j", switch.snap)
    assert host.sh("stat -c %U $1/x.service.d/zz-orchctl-j.conf", HOME_UNITS).strip() == USER
    switch.own(prefect=True)
    host.systemctl("start", "x.service", scope="user")
    assert runs(host) == []
    if not who:
        assert host.inside.run_as(USER, "sh", "-c", f"ls {STATE}/owners 2>&1 || true").startswith("ls: cannot open")
        host.sh("chmod 700 $1/owners", STATE)
        assert not switch.ask("is_fenced", "j", switch.snap)
        host.systemctl("start", "x.service", scope="user")
        assert len(runs(host)) == 1  # what is_fenced is there to find out
    switch.own(prefect=False)
    switch.ask("unfence", "j", switch.snap)
    assert not switch.ask("has_fence", "j", switch.snap)


@pytest.mark.parametrize(
    "damage",
    [
        "echo >> $D/zz-orchctl-j.conf",
        "rm $D/zz-orchctl-j.conf",
        "rm $D/zz-orchctl-j.conf; systemctl daemon-reload",
        "printf '[Service]\\nExecCondition=\\n' > $D/zzz.conf; systemctl daemon-reload",
        "printf '[Unit]\\nConditionUser=\\n' > $D/zzz.conf; systemctl daemon-reload",
        "printf '[Service]\\nNice=3\\n' > $D/aaa.conf",
    ],
)
def test_a_fence_that_is_not_as_it_should_be_counts_as_none(host: Box, inside: Inside, damage: str) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.start("x.timer")
    switch = Switch(inside, [("x.timer", "system")])
    switch.photograph()
    switch.ask("fence", "j", switch.snap)
    assert switch.ask("is_fenced", "j", switch.snap)
    host.sh(f"D=/etc/systemd/system/x.service.d; {damage}")
    assert not switch.ask("is_fenced", "j", switch.snap)
    assert switch.ask("has_fence", "j", switch.snap)
    if "zzz" in damage:
        (said,) = switch.ask("obstacles", switch.described)
        assert "would take the fence out of x.service (system)" in said
    else:
        switch.ask("fence", "j", switch.snap)
        assert switch.ask("is_fenced", "j", switch.snap)


def test_two_jobs_fence_one_service_and_the_folder_goes_with_the_last(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.start("x.timer")
    before = photo(host, ("x.timer", "system"), ("x.service", "system"))
    one, other = Switch(inside, [("x.timer", "system")]), Switch(inside, [("x.timer", "system")], job="k")
    for switch in (one, other):
        switch.photograph()
        switch.ask("fence", switch.job, switch.snap)
    other.own(prefect=True)
    host.systemctl("start", "x.service")
    assert runs(host) == []
    one.ask("unfence", "j", one.snap)
    assert not one.ask("has_fence", "j", one.snap)
    assert other.ask("is_fenced", "k", other.snap)
    other.own(prefect=False)
    other.ask("unfence", "k", other.snap)
    assert photo(host, ("x.timer", "system"), ("x.service", "system")) == before


def test_a_fence_that_a_kill_left_half_made_is_found_and_taken_away(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    host.start("x.timer")
    before = photo(host, ("x.timer", "system"), ("x.service", "system"))
    switch = Switch(inside, [("x.timer", "system")])
    switch.photograph()
    drop_ins = "/etc/systemd/system/x.service.d"
    for left in ("mkdir $1", "mkdir -p $1; echo > $1/.zz-orchctl-j.conf.1a2b3c4d.tmp"):
        host.sh(left, drop_ins)
        assert switch.ask("has_fence", "j", switch.snap)
        switch.ask("unfence", "j", switch.snap)
        assert not switch.ask("has_fence", "j", switch.snap)
    assert photo(host, ("x.timer", "system"), ("x.service", "system")) == before


KILLS = """
ln -s ../x.timer /usr/lib/systemd/system/timers.target.wants/x.timer
mkdir -p /etc/systemd/system/basic.target.requires
ln -s ../x.timer /etc/systemd/system/basic.target.requires/x.timer
"""


@pytest.mark.parametrize("again", ["from there", "from the start"])
def test_killed_between_any_two_changes_it_is_completed_by_doing_it_again(
    host: Box, inside: Inside, again: str
) -> None:
    """`from there`: each attempt goes on from what the one before left; else each begins with the whole undone."""
    scopes = ["system", "user"] if again == "from there" else ["system"]
    for scope in scopes:
        job_units(host, "x", "OnCalendar=hourly\nPersistent=yes", scope=scope)
        host.start("x.timer", scope=scope)
    host.sh(KILLS)
    units = [(f"x.{kind}", scope) for kind in ("timer", "service") for scope in scopes]
    host.reload()
    before = photo(host, *units)
    switch = Switch(inside, [("x.timer", scope) for scope in scopes])
    switch.photograph()
    job, snap = ["j"], [switch.snap]
    steps = [("fence", job, "is_fenced"), ("turn_off", [], "are_off"), ("put_back", [], "are_back")]
    undo = {"fence": ("unfence", job), "turn_off": ("put_back", []), "put_back": ("turn_off", [])}
    kills = 0
    for name, words, look in steps:
        switch.own(prefect=name != "fence")
        if again == "from there":
            kills += switch.ask_dying(name, *words, *snap)
        else:
            dies_at = 0
            while switch.ask(name, *words, *snap, dies_at=dies_at) == "killed":
                switch.ask(name, *words, *snap)
                assert switch.ask(look, *words, *snap)
                undone, its = undo[name]
                switch.ask(undone, *its, *snap)
                dies_at, kills = dies_at + 1, kills + 1
        assert switch.ask(look, *words, *snap)
    switch.own(prefect=False)
    kills += switch.ask_dying("unfence", *job, *snap)
    assert not switch.ask("has_fence", *job, *snap)
    assert photo(host, *units) == before
    assert kills >= 12
    assert runs(host) == []
    host.sh("rm /usr/lib/systemd/system/timers.target.wants/x.timer")


# --- nothing bursts

BURSTS = {
    "Persistent": "OnCalendar=hourly\nPersistent=yes",
    "Persistent and late": "OnCalendar=hourly\nPersistent=yes\nRandomizedDelaySec=3h",
    "Requires": "OnCalendar=05:00",
    "OnBootSec": "OnBootSec=1\nOnUnitActiveSec=1h",
    "OnStartupSec": "OnStartupSec=1",
}


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("trap", BURSTS)
def test_nothing_that_is_put_back_fires_for_the_past(host: Box, inside: Inside, trap: str, scope: str) -> None:
    unit = "[Unit]\nRequires=x.service\n" if trap == "Requires" else ""
    job_units(host, "x", BURSTS[trap], unit=unit, scope=scope)
    host.start("x.timer", scope=scope)
    time.sleep(0.5)
    switch = Switch(inside, [("x.timer", scope)])
    switch.cut_over()
    stamp = (
        "/var/lib/systemd/timers/stamp-x.timer"
        if scope == "system"
        else f"/home/{USER}/.local/share/systemd/timers/stamp-x.timer"
    )
    if trap.startswith("Persistent"):
        host.sh("touch -d '5 hours ago' $1", stamp)
    host.sh(": > $1", LOG)
    switch.roll_back()
    time.sleep(1.5)
    assert runs(host) == []
    assert trap.startswith("On") or not waits_for_the_past(host, scope)
    if trap.startswith("Persistent"):
        age = float(host.sh("echo $(($(date +%s) - $(stat -c %Y $1)))", stamp))
        assert age < 10
        assert host.sh("stat -c %U $1", stamp).strip() == ("root" if scope == "system" else USER)


def waits_for_the_past(host: Box, scope: str = "system") -> bool:
    """Whether the timer is yet to fire for an instant that has passed."""
    shown = host.systemctl("show", "-p", "TimersCalendar", "x.timer", scope=scope)
    nominal = shown.partition("next_elapse=")[2].partition(" }")[0]
    return int(host.sh('date -d "$1" +%s', nominal)) < int(host.sh("date +%s")) - 1


def test_without_its_stamp_set_a_timer_would_fire_late(host: Box) -> None:
    job_units(host, "x", BURSTS["Persistent and late"])
    host.sh("mkdir -p /var/lib/systemd/timers; touch -d '5 hours ago' /var/lib/systemd/timers/stamp-x.timer")
    host.start("x.timer")
    assert waits_for_the_past(host)


@pytest.mark.parametrize("trap", ["Persistent", "Requires", "OnBootSec"])
def test_without_the_fence_the_same_timers_do_fire(host: Box, trap: str) -> None:
    unit = "[Unit]\nRequires=x.service\n" if trap == "Requires" else ""
    job_units(host, "x", BURSTS[trap], unit=unit)
    host.sh("mkdir -p /var/lib/systemd/timers; touch -d '5 hours ago' /var/lib/systemd/timers/stamp-x.timer")
    host.start("x.timer")
    deadline = time.monotonic() + 6
    while not runs(host) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs(host) == ["x.service system"]


def test_a_timer_that_systemd_still_remembers_does_not_fire_late(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=*:*:0/2\nRandomizedDelaySec=3h")
    host.unit("keeps.service", "[Unit]\nAfter=x.timer\n[Service]\nExecStart=/bin/sleep infinity\n")
    host.start("x.timer")
    host.systemctl("start", "keeps.service")
    switch = Switch(inside, [("x.timer", "system")])
    switch.cut_over()
    time.sleep(2.5)
    switch.ask("put_back", switch.snap)
    assert not waits_for_the_past(host)
    switch.roll_back()
    host.systemctl("stop", "keeps.service")


def test_a_start_that_waits_for_another_unit_does_not_outlive_the_fence(host: Box, inside: Inside) -> None:
    host.unit("slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 4\n")
    job_units(host, "x", "OnCalendar=05:00", unit="[Unit]\nRequires=x.service\n")
    host.sh("sed -i '1i [Unit]\\nAfter=slow.service' /etc/systemd/system/x.service")
    host.start("x.timer")
    switch = Switch(inside, [("x.timer", "system")])
    switch.cut_over()
    host.sh(": > $1", LOG)
    host.systemctl("start", "--no-block", "slow.service")
    switch.roll_back()
    assert host.systemctl("is-active", "slow.service", check=False).strip() == "activating"
    while host.systemctl("is-active", "slow.service", check=False).strip() == "activating":
        time.sleep(0.2)
    time.sleep(0.5)
    assert runs(host) == []


# --- what the services do


def test_the_last_start_outlives_starts_that_the_fence_held(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=*:*:*")
    host.start("x.timer")
    switch = Switch(inside, [("x.timer", "system")])
    switch.photograph()
    switch.ask("fence", "j", switch.snap)
    time.sleep(2.2)
    switch.own(prefect=True)
    ran = len(runs(host))
    committed = float(host.sh("date +%s.%N"))
    time.sleep(3.1)
    assert len(runs(host)) == ran >= 2
    last = switch.ask("last_start", switch.snap)
    assert committed - 2.2 < last <= committed
    assert not switch.ask("is_running", switch.snap)
    switch.own(prefect=False)
    time.sleep(1.5)
    assert len(runs(host)) > ran
    switch.ask("unfence", "j", switch.snap)


def test_a_start_whose_conditions_are_looked_at_is_waited_for(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00", service="ExecCondition=/bin/sleep 1.5\nExecStartPost=/bin/sleep 1")
    host.start("x.timer")
    switch = Switch(inside, [("x.timer", "system")])
    switch.photograph()
    assert switch.ask("last_start", switch.snap) is None
    began = float(host.sh("date +%s"))
    assert switch.ask("run_once", switch.snap) == "x.service"
    assert switch.ask("last_start", switch.snap) >= began + 1
    assert switch.ask("is_running", switch.snap) == ["x.service (system)"]


def test_a_timer_that_waits_for_its_delay_will_run(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=*:*:0/2\nRandomizedDelaySec=3h")
    job_units(host, "y", "OnCalendar=05:00")
    host.start("x.timer", "y.timer")
    late, early = Switch(inside, [("x.timer", "system")]), Switch(inside, [("y.timer", "system")])
    late.photograph()
    early.photograph()
    soon = float(host.sh("date +%s")) + 3
    assert late.ask("will_run", late.snap, f"@{soon}")
    assert not early.ask("will_run", early.snap, f"@{soon}")
    assert early.ask("will_run", early.snap, f"@{soon + 86400}")
    host.systemctl("stop", "x.timer")
    assert not late.ask("will_run", late.snap, f"@{soon}")


@pytest.mark.parametrize(("scope", "overdue"), [("system", True), ("user", False)])
def test_a_timer_that_counts_from_the_last_run_is_woken(host: Box, inside: Inside, scope: str, overdue: bool) -> None:
    job_units(host, "x", "OnUnitActiveSec=2", scope=scope)
    host.start("x.timer", scope=scope)
    host.systemctl("start", "x.service", scope=scope)
    switch = Switch(inside, [("x.timer", scope)])
    switch.cut_over()
    time.sleep(2.5)
    host.sh(": > $1", LOG)
    switch.ask("put_back", switch.snap)
    switch.own(prefect=False)
    now = float(host.sh("date +%s.%N"))
    (said,) = switch.ask("wake", switch.snap, f"@{now - 10 if overdue else now}")
    assert said.startswith("x.service was started" if overdue else "x.service starts in ")
    if not overdue:
        assert runs(host) == []
        switch.ask("wake", switch.snap, f"@{now}")
    time.sleep(5.5)
    assert 2 <= len(runs(host)) <= 4
    assert "orchctl-wake" not in host.systemctl("list-units", "--all", "--no-legend", "orchctl-wake*", scope=scope)
    assert switch.ask("wake", switch.snap, None) == []
    switch.ask("unfence", "j", switch.snap)


@pytest.mark.parametrize("seconds", [3])
def test_no_second_is_run_by_a_timer_of_each_second_while_prefect_owns_it(
    host: Box, inside: Inside, seconds: int
) -> None:
    for scope in ("system", "user"):
        job_units(host, "x", "OnCalendar=*:*:*", scope=scope)
        host.start("x.timer", scope=scope)
    switch = Switch(inside, [("x.timer", "system"), ("x.timer", "user")])
    switch.photograph()
    switch.ask("fence", "j", switch.snap)
    time.sleep(2)
    assert set(runs(host)) == {"x.service system", "x.service user"}
    switch.own(prefect=True)
    time.sleep(0.3)
    ran = len(runs(host))
    time.sleep(seconds)
    switch.ask("turn_off", switch.snap)
    assert switch.ask("are_off", switch.snap)
    switch.ask("put_back", switch.snap)
    assert switch.ask("are_back", switch.snap)
    time.sleep(seconds)
    assert len(runs(host)) == ran
    switch.own(prefect=False)
    switch.ask("unfence", "j", switch.snap)
    time.sleep(2.5)
    assert set(runs(host)[ran:]) == {"x.service system", "x.service user"}
    for scope in ("system", "user"):
        host.systemctl("stop", "x.timer", scope=scope)


# --- obstacles


def test_what_is_in_the_way_is_said(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    job_units(host, "masked", "OnCalendar=05:00")
    job_units(host, "edited", "OnCalendar=05:00")
    job_units(host, "target", "OnCalendar=05:00\nUnit=basic.target")
    job_units(host, "wanted", "OnCalendar=05:00")
    host.unit("wants.service", "[Unit]\nWants=wanted.timer\n[Service]\nExecStart=/bin/sleep infinity\n")
    host.start("x.timer", "edited.timer", "target.timer", "wanted.timer")
    host.systemctl("start", "wants.service")
    host.sh("systemd-run --quiet --unit=passing --on-calendar=05:00 /bin/true")
    host.sh("rm /etc/systemd/system/masked.timer; ln -s /dev/null /etc/systemd/system/masked.timer")
    host.systemctl("daemon-reload")

    def said(*timers: str) -> list[str]:
        switch = Switch(inside, [(timer, "system") for timer in timers])
        found: list[str] = switch.ask("obstacles", switch.described)
        return found

    assert said("x.timer") == []
    assert said("masked.timer", "none.timer", "t@.timer") == [
        "masked.timer (system) is masked: there is nothing to switch off",
        "none.timer (system) is not-found: there is nothing to switch off",
        "t@.timer (system) is template: there is nothing to switch off",
    ]
    assert "passing.timer (system) is transient: it would be gone for ever once it is stopped" in said("passing.timer")
    assert said("target.timer")[0].startswith("basic.target (system), which target.timer starts, is no service")
    assert said("wanted.timer") == [
        "wanted.timer (system) is started by wants.service too, in whose own text that stands: take it out there"
    ]
    host.sh("sleep 0.01; echo '# edited' >> /etc/systemd/system/edited.timer")
    assert said("edited.timer")[0].startswith("edited.timer (system) changed on disk since systemd loaded it")
    assert said("x.timer") == [
        "edited.timer (system) changed on disk, and a reload would apply that: run `daemon-reload` yourself"
    ]
    host.systemctl("stop", "passing.timer", "wants.service")


def test_who_may_not_switch_is_told(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00")
    job_units(host, "x", "OnCalendar=05:00", scope="user")
    host.start("x.timer")
    host.start("x.timer", scope="user")
    as_user = Switch(inside, [("x.timer", "system"), ("x.timer", "user")], user=USER, state=f"/home/{USER}/state")
    said = as_user.ask("obstacles", as_user.described)
    assert "no right to write into /etc/systemd/system: use sudo" in said
    assert any(each.startswith(f"{WANTS}/x.timer, which starts x.timer (system), may not be removed") for each in said)
    as_user.photograph()
    with pytest.raises(Refused, match="cannot write"):
        as_user.ask("fence", "j", as_user.snap)
    hidden = Switch(inside, [("x.timer", "user")])
    host.sh("chmod 700 $1", STATE)
    (told,) = hidden.ask("obstacles", hidden.described)
    assert told.startswith(f"{USER}, whose systemd starts the job, may not search {STATE}: the fence could not see")


def test_a_manager_of_a_user_that_does_not_run_holds_nothing_up(host: Box, inside: Inside) -> None:
    job_units(host, "x", "OnCalendar=05:00", scope="user")
    host.start("x.timer", scope="user")
    host.systemctl("enable", "--quiet", "--runtime", "x.timer", scope="user")
    switch = Switch(inside, [("x.timer", "user")])
    switch.cut_over()
    assert len(switch.snap["timers"][0]["links"]) == 2
    uid = host.sh("id -u $1", USER).strip()
    host.sh('systemctl stop "user@$1" "user-runtime-dir@$1"', uid)
    (said,) = switch.ask("obstacles", switch.described)
    assert f"the systemd of user {USER} does not run" in said
    assert switch.ask("are_off", switch.snap)
    assert not switch.ask("are_back", switch.snap)
    switch.roll_back()
    host.inside.add_user(USER)
    assert host.systemctl("is-active", "x.timer", scope="user").strip() == "active"
    assert "zz-orchctl" not in host.sh("find $1", HOME_UNITS)
