"""Legacy runs of a real systemd, brought in from its real journal: each exactly once."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from box import USER, Box
from orchctl.adapters.manifests import Manifests
from orchctl.core.manifest import fold

SOURCE = Path(__file__).parents[2] / "src" / "orchctl"
OBSERVER = """
import json, os, sys, time
from pathlib import Path
from orchctl import wiring
from orchctl.core.catalog import Job
from orchctl.services import observe

root, legacy, looks = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
job = Job(name="job", asset="job", work_pool="pool", command=("true",), data_root=str(root / "data"),
          working_directory="/", legacy=legacy, env={"DB_PASSWORD": "hunter2-of-the-job"})
environment = dict(os.environ) | {"ORCHCTL_STATE_DIR": str(root / "state")}
eyes = wiring.App(wiring.Settings.of(environment), environment).eyes
print(os.getpid(), flush=True)
while looks:
    brought = observe.bring_in(job, "America/New_York", eyes)
    looks -= 1
    print(json.dumps({"new": brought.new, "going": len(brought.going), "held": len(brought.held),
                      "note": brought.note, "spans": len(brought.looked.spans) if brought.looked else 0}), flush=True)
    if looks:
        time.sleep(0.3)
"""
SLOW, FAST = "[Timer]\nOnCalendar=2199-01-01\n", "[Timer]\nOnCalendar=*:*:0/2\nAccuracySec=1us\n"


def oneshot(script: str, more: str = "") -> str:
    # systemd takes $ and % for its own.
    return f"[Service]\nType=oneshot\n{more}ExecStart=/bin/sh -c '{script.replace('$', '$$').replace('%', '%%')}'\n"


def timers(*names: str, scope: str = "system") -> list[dict[str, str]]:
    user = {"user": USER} if scope == "user" else {}
    return [{"timer": f"{name}.timer", "scope": scope, **user} for name in names]


def look(box: Box, root: Path, legacy: list[dict[str, str]]) -> dict[str, Any]:
    """Look once and say what came of it."""
    time.sleep(0.2)  # the journal takes what it is told a moment later
    with box.python(OBSERVER, str(root), json.dumps(legacy), "1") as process:
        out, _ = process.communicate()
    found: dict[str, Any] = json.loads(out.splitlines()[1])
    return found


def manifests(root: Path) -> list[dict[str, Any]]:
    """All manifests, by start."""
    found = [json.loads(path.read_bytes()) for path in root.glob("data/manifests/job/game_date=*/run=*/manifest.json")]
    return sorted(found, key=lambda one: one["timing"]["started_at"])


def events(root: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in root.glob("data/manifests/events/*.jsonl")
        for line in path.read_text().splitlines()
    ]


@pytest.fixture
def root(box: Box, request: pytest.FixtureRequest) -> Path:
    """A data root and a state directory of this test."""
    folder: Path = box.share / request.node.name.replace("[", "-").rstrip("]")
    folder.mkdir()
    return folder


# --- how each kind of run ends

KINDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "good": (oneshot("echo fine"), ("success", 0, None, None)),
    "loose": (oneshot("exit 3", "SuccessExitStatus=3\n"), ("success", None, None, None)),
    "bad": (
        oneshot("echo $DB_PASSWORD; exit 3", "Environment=DB_PASSWORD=hunter2\n"),
        ("failed", 3, None, "exit code 3"),
    ),
    "killed": (oneshot("kill -9 $$"), ("failed", None, "SIGKILL", "killed by SIGKILL")),
    "slow": (
        oneshot("sleep 30", "TimeoutStartSec=1\n"),
        ("failed", None, "SIGTERM", "stopped by systemd after its time-out"),
    ),
    "noenv": (
        oneshot("true", "EnvironmentFile=/nonexistent\n"),
        ("failed", None, None, "systemd could not start it (result: resources)"),
    ),
    "noprog": ("[Service]\nType=oneshot\nExecStart=/nonexistent\n", ("failed", 203, None, "exit code 203")),
    "before": (oneshot("true", "ExecStartPre=/bin/sh -c 'exit 5'\n"), ("failed", 5, None, "ExecStartPre: exit code 5")),
    "simple": (oneshot("sleep 0.2").replace("oneshot", "simple"), ("success", 0, None, None)),
    "simplebad": (oneshot("exit 4").replace("oneshot", "simple"), ("failed", 4, None, "exit code 4")),
    "remains": (oneshot("true", "RemainAfterExit=yes\n"), ("success", 0, None, None)),
    "held": ("[Unit]\nConditionPathExists=/nonexistent\n" + oneshot("true"), ()),
    "fenced": (oneshot("true", "ExecCondition=/bin/sh -c '! test -e /etc/passwd'\n"), ()),
    "loud": (
        oneshot('head -c 20000 /dev/zero | tr "\\\\0" y; echo; sleep 0.2; exit 1'),
        ("failed", 1, None, "exit code 1"),
    ),
}


@pytest.mark.parametrize("scope", ["system", "user"])
def test_each_kind_of_end_is_told_as_it_was(box: Box, root: Path, scope: str) -> None:
    for name, (service, _) in KINDS.items():
        box.unit(f"{name}.service", service, scope=scope)
        box.unit(f"{name}.timer", SLOW, scope=scope)
    box.start(*(f"{name}.timer" for name in KINDS), scope=scope)
    for name in KINDS:
        box.systemctl("start", f"{name}.service", scope=scope, check=False)
    time.sleep(2.5)  # a unit of type simple in user scope is known to have ended once systemd has shown it
    brought = look(box, root, timers(*KINDS, scope=scope))
    assert (brought["going"], brought["held"], brought["note"]) == (0, 2, None)
    found = {one["environment"]["unit"].removesuffix(".service"): one for one in manifests(root)}
    for name, (_, ending) in KINDS.items():
        one = found.pop(name, None)
        if not ending:
            assert one is None, name
            continue
        assert one is not None, name
        message = one["error"]["message"] if one["error"] else None
        assert (one["status"], one["exit_code"], one["signal"], message) == ending, name
        assert (one["origin"], one["trigger"], one["mode"], one["slot"]) == ("systemd", "manual", "live", None)
        assert one["environment"]["scope"] == scope
        assert one["timing"]["finished_at"] is not None
        if name == "bad":
            assert "hunter2" not in one["error"]["snippet"]
        # In user scope journald loses what a process wrote that has ended when it gets to the line.
        if name == "loud" and scope == "system":
            assert len(one["error"]["snippet"]) == 8192
    assert not found
    assert look(box, root, timers(*KINDS, scope=scope))["new"] == []


CATALOG = """
version = 1
[jobs.job]
command = ["true"]
data_root = "{root}/data"
working_directory = "/"
work_pool = "pool"
env = {{ DB_PASSWORD = "hunter2-of-the-job" }}
legacy = [{{ timer = "talk.timer" }}]
"""


def test_runs_show_and_logs_reach_into_the_journal(box: Box, root: Path) -> None:
    talk = "echo one; echo hunter2-of-the-job and $API_TOKEN >&2; printf %b \\\\377"
    box.unit("talk.service", oneshot(talk, "Environment=API_TOKEN=hunter2-of-the-unit\n"))
    box.unit("talk.timer", SLOW)
    box.start("talk.timer")
    box.systemctl("start", "talk.service")
    (run,) = look(box, root, timers("talk"))["new"]
    config = root / "config"
    config.mkdir()
    (config / "jobs.toml").write_text(CATALOG.format(root=root))
    (config / "schedules.toml").write_text("version = 1\n")
    words = ["--config", str(config), "--state-dir", str(root / "state"), "runs"]
    done = box.orchctl(*words, "show", run)
    assert done.returncode == 0, done.stderr
    assert "unit       talk.service (system)\n" in done.stdout
    assert "invocation " in done.stdout
    assert "trigger    manual (systemd, live)\n" in done.stdout
    for follow in ([], ["--follow"]):
        done = box.orchctl(*words, "logs", *follow, run)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[:2] == ["one", "*** and ***"]
        assert len(done.stdout.splitlines()) == 3
    rotate(box)
    done = box.orchctl(*words, "logs", run)
    assert done.returncode == 1
    assert f"the journal no longer holds what run {run} wrote" in done.stderr


def test_each_failure_has_the_end_of_its_own_output_also_where_journald_came_too_late(box: Box, root: Path) -> None:
    box.unit("brief.service", oneshot("echo run $INVOCATION_ID; exit 1", "StartLimitIntervalSec=0\n"))
    box.unit("brief.timer", SLOW)
    box.start("brief.timer")
    box.sh("for i in $(seq 40); do systemctl start brief 2> /dev/null || systemctl reset-failed brief; sleep 0.1; done")
    look(box, root, timers("brief"))
    found = manifests(root)
    assert len(found) == 40
    # A line that journald can ascribe to no unit at all is lost; that it ascribes one to the wrong run is not allowed.
    snippets = Counter(one["error"]["snippet"] == f"run {one['environment']['invocation_id']}" for one in found)
    others = [one["error"]["snippet"] for one in found if one["error"]["snippet"].startswith("run ")]
    assert snippets[True] == len(others) >= 38


# --- runs that go on, boots, and what the journal lost


def test_a_run_that_goes_on_is_brought_in_when_it_has_ended_though_its_start_was_rotated_away(
    box: Box, root: Path
) -> None:
    box.unit("long.service", oneshot("while test ! -e /run/end; do sleep 0.1; done; exit 6"))
    box.unit("long.timer", SLOW)
    box.start("long.timer")
    box.systemctl("start", "--no-block", "long.service")
    time.sleep(6)  # only what is older than the overlap is kept as going on
    assert look(box, root, timers("long"))["going"] == 1
    box.unit("noise.service", oneshot("true"))
    box.reload()
    box.systemctl("start", "noise.service")
    assert look(box, root, timers("long"))["going"] == 1
    rotate(box)
    box.sh("touch /run/end")
    time.sleep(0.5)
    brought = look(box, root, timers("long"))
    box.sh("rm /run/end")
    assert (len(brought["new"]), brought["going"]) == (1, 0)
    (one,) = manifests(root)
    assert (one["status"], one["exit_code"]) == ("failed", 6)
    assert one["timing"]["duration_s"] > 6
    time.sleep(2.5)
    assert look(box, root, timers("long"))["spans"] == 2  # what was rotated away is a gap


def test_a_run_that_a_reboot_ended_is_crashed(box: Box, root: Path) -> None:
    box.unit("long.service", oneshot("sleep 100"))
    box.unit("long.timer", SLOW)
    box.start("long.timer")
    looked = {
        "units": ["system:long.service"],
        "cursor": None,
        "open": [
            {
                "unit": "long.service",
                "scope": "system",
                "user": None,
                "invocation": "a" * 32,
                "boot_id": "b" * 32,
                "started_at": "2026-01-01T12:00:00.000001Z",
                "exit_code": None,
                "signal": None,
                "command": None,
                "stopped": False,
                "ready": False,
            }
        ],
        "done": [],
        "spans": [],
        "dirty": False,
    }
    path = root / "state" / "observed" / "job.json"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(json.dumps(looked))
    path.chmod(0o600)
    for expected in (1, 0):
        assert len(look(box, root, timers("long"))["new"]) == expected
    (one,) = manifests(root)
    assert (one["status"], one["reason"]) == ("crashed", "the machine went down while it ran")
    assert one["timing"]["finished_at"] is None


def test_silence_of_a_unit_whose_messages_are_kept_out_of_the_journal_is_not_taken_for_knowledge(
    box: Box, root: Path
) -> None:
    box.unit("mute.service", oneshot("true", "LogLevelMax=warning\n"))
    box.unit("mute.timer", SLOW)
    box.start("mute.timer")
    look(box, root, timers("mute"))
    time.sleep(2.5)
    box.systemctl("start", "mute.service")
    time.sleep(2.5)
    brought = look(box, root, timers("mute"))
    assert (brought["new"], brought["note"]) == (
        [],
        "the journal does not hold the last run of mute.service (system); see its LogLevelMax=",
    )


def rotate(box: Box) -> None:
    """Make the journal lose all it has."""
    box.sh("journalctl --sync; journalctl --rotate; sleep 1.1; journalctl --quiet --vacuum-time=1s")


ASK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from orchctl.adapters.journald import Journald
from orchctl.core.legacy import SYSTEM
from orchctl.errors import NotAllowed
try:
    print(len(Journald(os.environ).entries({SYSTEM: ["x.service"]}).entries))
except NotAllowed as error:
    print(error.message, "|", error.hint)
"""


def test_a_user_who_may_not_read_the_journal_is_told_so(box: Box, root: Path) -> None:
    # This project's own Python may lie where such a user cannot go.
    shutil.copytree(SOURCE, root / "orchctl", ignore=shutil.ignore_patterns("__pycache__"))
    box.sh("chmod -R a+rX $1", root)
    for name, groups, expected in (
        ("plain", [], "plain may not read the journal | `sudo usermod -aG"),
        (USER, ["systemd-journal"], "0"),
    ):
        box.inside.add_user(name, groups=groups)
        assert box.inside.run_as(name, "/usr/bin/python3", "-c", ASK, str(root)).startswith(expected)


SEE = (
    OBSERVER.partition("print(os.getpid()")[0]
    + """
from datetime import UTC, datetime, timedelta
from orchctl.runner import observe as watch
slot = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=looks)
while (ahead := (slot - datetime.now(UTC)).total_seconds()) > 0:
    time.sleep(ahead)
begun = time.monotonic()
print(watch.seen(job, slot, "UTC", eyes, time.sleep))
print(time.monotonic() - begun < 30, observe.legacy_running(job, eyes))
"""
)


def see(box: Box, root: Path, legacy: list[dict[str, str]], ahead: int) -> list[str]:
    """Return what a run in observe mode says of a slot `ahead` seconds from now, and that it took little time."""
    with box.python(SEE, str(root), json.dumps(legacy), str(ahead)) as process:
        return process.communicate()[0].splitlines()


def test_a_run_in_observe_mode_says_what_systemd_did(box: Box, root: Path) -> None:
    for scope in ("system", "user"):
        box.unit("tick.timer", FAST, scope=scope)
        box.unit("tick.service", oneshot("sleep 0.5; exit 3"), scope=scope)
        box.start("tick.timer", scope=scope)
    said, quick = see(box, root, timers("tick") + timers("tick", scope="user"), 1)
    one = r"\d\d:\d\d:\d\d, exit 3, \d\.\ds"
    both = rf"tick.service \(system\) {one}; tick.service \(user of daniel\) {one}"
    swapped = rf"tick.service \(user of daniel\) {one}; tick.service \(system\) {one}"
    assert re.match(rf"systemd ran it 2 times: ({both}|{swapped})", said), said
    assert quick.startswith("True")
    assert manifests(root)
    for scope in ("system", "user"):
        box.systemctl("stop", "tick.timer", scope=scope)
    said, quick = see(box, root, timers("tick"), 3)
    assert (said, quick) == ("systemd did not run it: tick.timer (system) is not active", "True ()")
    box.unit("long.service", oneshot("sleep 60"))
    box.unit("long.timer", SLOW)
    box.start("long.timer")
    box.systemctl("start", "--no-block", "long.service")
    said, quick = see(box, root, timers("long"), 1)
    assert said.startswith("systemd did not run it: no timer of it was due at ")
    assert said.endswith("; long.service (system) was still running")
    assert quick == "True ('long.service (system)',)"


# --- a minute of a timer, two observers, one killed again and again


@contextlib.contextmanager
def observing(box: Box, root: Path, legacy: list[dict[str, str]]) -> Iterator[None]:
    """Look again and again beside the body, at the end of which the observer is killed."""
    with box.python(OBSERVER, str(root), json.dumps(legacy), "-1") as process:
        assert process.stdout is not None
        inside = process.stdout.readline().strip()
        try:
            yield
        finally:
            box.inside.run("kill", "-KILL", inside)
            process.stdout.read()


@pytest.mark.campaign
def test_a_minute_of_a_timer_is_told_once_by_two_observers_one_of_which_is_killed(box: Box, root: Path) -> None:
    ran = root / "ran"
    for scope in ("system", "user"):
        box.unit(f"tick-{scope}.timer", FAST, scope=scope)
        (root / f"ran-{scope}").touch()
        (root / f"ran-{scope}").chmod(0o666)
        script = f"echo $INVOCATION_ID >> {ran}-{scope}; sleep 0.4"
        box.unit(f"tick-{scope}.service", oneshot(script), scope=scope)
    legacy = timers("tick-system") + timers("tick-user", scope="user")
    dice = random.Random(1)
    for scope in ("system", "user"):
        box.start(f"tick-{scope}.timer", scope=scope)
    end = time.monotonic() + 60
    kills = 0
    with observing(box, root, legacy):
        while time.monotonic() < end or kills <= 20:
            with observing(box, root, legacy):
                time.sleep(dice.uniform(0, 0.6))
            kills += 1
            if kills == 8:
                box.sh("mv $1/state/observed $1/lost; rm -rf $1/lost", root)
            if kills == 16:
                # Between two ticks, when both runs have ended and the first observer has had a second to see them.
                time.sleep((1.6 - time.time()) % 2)
                box.sh("journalctl --rotate; journalctl --quiet --vacuum-time=1s")
        for scope in ("system", "user"):
            box.systemctl("stop", f"tick-{scope}.timer", scope=scope)
        time.sleep(2)
    assert look(box, root, legacy)["spans"] > 1  # the journal did lose what it had
    told = Counter(one["environment"]["invocation_id"] for one in manifests(root))
    really = Counter(line for path in root.glob("ran-*") for line in path.read_text().split())
    assert told == really
    assert len(really) >= 50
    assert set(told.values()) == {1}
    runs = [run for path in root.glob("data/manifests/events/*") for run in _runs(root, path.stem)]
    assert fold(runs).keys() == {one["partition"]["run_id"] for one in manifests(root)}
    assert {run.status for run in fold(runs).values()} == {"success"}
    twice = Counter((one["run_id"], one["event"]) for one in events(root))
    assert set(twice.values()) == {1}
    assert len(twice) == 2 * len(really)
    assert {one["trigger"] for one in manifests(root)} == {"schedule"}


def _runs(root: Path, day: str) -> Iterator[Any]:
    from orchctl.core.names import parse_date

    return Manifests(str(root / "data")).events(parse_date(day), skipped=[])
