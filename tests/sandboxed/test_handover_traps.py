"""Handovers where systemd sets traps: what fires late or at once, what reboots, what comes back by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import invariants
import pipeline_units
import switching
from box import USER, Box
from orchctl.adapters import sandbox
from support import eventually
from switching import SERVER, WORKER, Stage

CONFIG = Path(__file__).resolve().parents[2] / "config"
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def url(booted: Box) -> Iterator[str]:
    with switching.prefect(booted, booted.share / "prefect-traps") as found:
        yield found


@pytest.fixture
def stage(box: Box, url: str) -> Iterator[Stage]:
    number = next(_NUMBERS)
    made = Stage(box, box.share / f"trap{number}", url, job=f"trap{number}")
    yield made
    box.systemctl("start", SERVER, WORKER)
    eventually(lambda: switching.answers(url), within=60)
    made.close()


def _begin(stage: Stage, **units: Any) -> float:
    stage.write(**units)
    stage.start_timers()
    stage.deploy()
    stage.quiet()
    return time.time()


def _judge(stage: Stage, first: float, last: float) -> None:
    log = stage.history(first, last)
    assert invariants.check(log, policy="all") == []
    assert switching.doubled(log) == []
    lost = set(switching.missed(log)) - stage.given_up() - stage.skipped()
    assert lost == set(), sorted(map(switching.at, lost))


def _settle(stage: Stage) -> float:
    stage.quiet()
    stage.quiet()
    return time.time() - stage.every


# --- slots in doubt


@pytest.mark.campaign
def test_a_timer_of_each_second_and_a_slower_schedule_double_and_lose_nothing(stage: Stage) -> None:
    """Up to the cutover every second is run, from its `since` on each slot of Prefect's, after it every second.

    Where the host is busy systemd starts a service once for several seconds: those before a run are served by it.
    """
    stage.write(on_calendar="*:*:*", seconds=0.05, before_service="[Unit]\nStartLimitIntervalSec=0\n")
    stage.start_timers()
    stage.deploy()
    seams = []
    for _ in range(2):
        done = stage.cutover()
        granted = {switching.seconds(slot) for slot in done["granted"]}
        stage.wait_for(granted)
        time.sleep(stage.every)
        stage.rollback()
        seams.append((switching.seconds(done["since"]), switching.seconds(stage.facts()[-1]["released_at"])))
        time.sleep(4)
    lines = stage.lines()
    legacy = [line.start for line in lines if line.by == "legacy"]
    prefects = [int(line.slot) for line in lines if line.by == "prefect"]
    assert len(set(prefects)) == len(prefects)
    for since, released in seams:
        last = max(start for start in legacy if start < since)
        mine = [slot for slot in prefects if since - 10 < slot < released]
        assert set(range(int(last) + 1, math.ceil(since))) == {slot for slot in mine if slot < since}, (last, since)
        assert set(map(int, stage.slots(since, released - 1))) <= set(mine)
        assert not [start for start in legacy if since < start < released]
        assert [start for start in legacy if released <= start < released + 4]


@pytest.mark.campaign
def test_a_timer_with_a_random_delay_is_switched_while_it_waits_and_no_slot_is_doubled_or_lost(stage: Stage) -> None:
    first = _begin(stage, timer="RandomizedDelaySec=4")
    for _ in range(2):
        time.sleep(stage.every - time.time() % stage.every + 0.05)  # due, and not yet fired
        stage.cutover()
        time.sleep(stage.every)
        stage.rollback()
        time.sleep(stage.every)
    time.sleep(4)
    _judge(stage, first, _settle(stage) - 4)


@pytest.mark.campaign
def test_a_legacy_run_that_is_going_is_waited_for_or_refused(stage: Stage) -> None:
    first = _begin(stage, seconds=4)
    _go(stage)
    for _ in range(5):
        refused = stage.orchctl("cutover", stage.job, "--yes", f"--waive=cadence={switching.WHY}", check=None)
        if refused.returncode != 0:
            break
        stage.rollback()  # the server took so long that the run was over
        _go(stage)
    assert refused.returncode == 5, refused.stderr
    assert f"{stage.job}.service (system)" in refused.stdout
    assert not stage.owner.exists()
    _go(stage)
    stage.cutover()
    # Nobody waits for a run of Prefect's but the rollback itself.
    eventually(lambda: any(line.by == "prefect" and line.end is None for line in stage.lines()), within=60)
    stage.rollback()
    _judge(stage, first, _settle(stage))


@pytest.mark.campaign
def test_a_cutover_beside_a_legacy_run_runs_nothing_beside_it(stage: Stage) -> None:
    first = _begin(stage, seconds=6, overlap="queue")
    _go(stage)
    stage.cutover(f"--waive=idle={switching.WHY}", wait=False)
    time.sleep(2 * stage.every)
    stage.rollback()
    _judge(stage, first, _settle(stage))


def _go(stage: Stage) -> None:
    """Wait until a legacy run has just begun."""
    eventually(lambda: any(line.end is None for line in stage.lines()), within=20, poll=0.02)


@pytest.mark.campaign
def test_slots_whose_late_runs_a_rollback_takes_away_are_run_or_named(stage: Stage) -> None:
    first = _begin(stage)
    stage.cutover()
    _hold_back(stage, True)
    time.sleep(2 * stage.every)
    _hold_back(stage, False)
    late = time.time()
    eventually(lambda: stage.ran_by("prefect", before=late) >= 1, within=90)
    stopped = _hold_back(stage, True)
    time.sleep(stage.every * 1.5)
    done = stage.rollback()
    _hold_back(stage, False)
    _judge(stage, first, _settle(stage))
    # Legacy catches up with the last one, or its own next run, begun meanwhile, serves it; those before it are named.
    told = {*map(switching.seconds, done["granted"]), *stage.given_up()}
    released = switching.seconds(stage.facts()[-1]["released_at"])
    ran = {slot for line, slot in stage.served() if line.by == "prefect"}
    waiting = [slot for slot in stage.slots(first, released) if slot > stopped and slot not in ran]
    assert waiting
    assert set(waiting) <= told


def _hold_back(stage: Stage, held: bool) -> float:
    """Let the work pool give out no runs, or all again; return when. A worker that is stopped loses what it has."""

    def told() -> bool:
        with contextlib.suppress(OSError):  # 503, where SQLite is busy
            switching.ask(stage.api_url, f"work_pools/{switching.POOL}", {"is_paused": held}, method="PATCH")
            return True
        return False

    eventually(told)
    return time.time()


# --- the three traps of the pipeline


def test_the_pipeline_is_cut_over_and_rolled_back_and_its_units_are_as_before(box: Box, url: str) -> None:
    names = ("live-score", "dk-salaries", "freeze-slates")
    root = box.share / "pipeline"
    stage = Stage(box, root, url, job=names[0])
    pipeline_units.install(box)
    stage.make_folders()
    _logging(box, root / "ran")
    (root / "config").mkdir()
    jobs = (CONFIG / "jobs.toml").read_text().replace("projections-local", switching.POOL)
    jobs = jobs.replace('scope = "user" }', f'scope = "user", user = "{USER}" }}')
    (root / "config" / "jobs.toml").write_text(jobs)
    for name in ("schedules.toml", "contracts.toml"):
        (root / "config" / name).write_text((CONFIG / name).read_text())
    stage.orchctl("sync", *names)
    for stage.job in reversed(names):
        eventually(stage.is_ready, within=60, poll=0.5)
    units = [(f"{name}.timer", scope) for name, scope in (*((name, "system") for name in names), (names[0], "user"))]
    before = _photo(box, units)
    waive = [f"--waive={gate}={switching.WHY}" for gate in ("runs", "cadence")]
    done = stage.json("cutover", *names, "--yes", "--wait", *waive)
    assert [each["result"]["outcome"] for each in done["jobs"]] == ["done"] * 3
    held = time.time()
    for name, scope in units:
        assert box.systemctl("is-active", name, scope=scope, check=False).strip() != "active"
    # As if days had gone by: each of these timers would start its service at once.
    stamps = "/var/lib/systemd/timers /home/daniel/.local/share/systemd/timers"
    box.sh(f"find {stamps} -name 'stamp-*' -exec touch -d '-3 days' {{}} +")
    time.sleep(3)
    begun = time.time()
    done = stage.json("rollback", *names, "--yes")
    assert [each["result"]["outcome"] for each in done["jobs"]] == ["done"] * 3
    released = {facts["released_at"] for facts in stage.facts() if "released_at" in facts}
    after = _photo(box, units)
    assert after == before
    time.sleep(6)
    ran = [line.split() for line in (root / "ran").read_text().splitlines()]
    legacy = [(float(at), what) for what, user, at in ran if user == USER]
    assert not [what for _, what in legacy if "salaries" in what], "starting its timer must not start it"
    assert not [each for each in legacy if held < each[0] < begun], "the fence let something through"
    for what, first in itertools.product({what for _, what in legacy}, map(switching.seconds, released)):
        burst = [at for at, name in legacy if name == what and first <= at < first + 6]
        assert len(burst) <= 2, f"{what} was started {len(burst)} times within 6 s of a rollback"
    for name in names:
        stage.job = name
        stage.close()


def _logging(box: Box, log: Path) -> None:
    """Let the scripts of the pipeline write down when and by whom they are run."""
    log.touch()
    log.chmod(0o666)
    log.parent.chmod(0o755)
    line = f'#!/bin/sh\necho "$0-$(echo "$*" | tr -s " /" "--") $(id -un) $(date +%s.%N)" >> {log}\n'
    scripts = {each.command.split()[0] for each in pipeline_units.JOBS}
    for script in scripts:
        box.inside.write(script, line, mode="755", owner=USER)


_PLACES = "/etc/systemd /home/daniel/.config/systemd /run/systemd/system /run/user/*/systemd"
_STATE = "Id,LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload,WantedBy,Persistent,Unit"


def _photo(box: Box, units: list[tuple[str, str]]) -> list[str]:
    """Return all files where units may be, byte for byte, and the state of timers and their services."""
    find = "find {} -type {} ! -name '*.scope*' ! -path '*/transient/*' ! -path '*/units/*'"
    kinds = [f"{find.format(_PLACES, 'd,f,l')} -printf '%p %y %m %u:%g %l\\n'"]
    kinds += [f"{find.format(_PLACES, 'f')} -exec sha256sum {{}} +"]
    files = [line for kind in kinds for line in sorted(box.sh(f"{kind} 2> /dev/null || true").splitlines())]
    states = [box.systemctl("show", f"--property={_STATE}", name, scope=scope) for name, scope in units]
    services = [
        box.systemctl("show", "--property=Id,DropInPaths,ExecCondition,Conditions,NeedDaemonReload", name, scope=scope)
        for name, scope in [(name.replace(".timer", ".service"), scope) for name, scope in units]
    ]
    return [*files, *states, *services]


# --- reboots, and rollbacks that come by themselves


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["cutover", "rollback"])
def test_a_reboot_in_the_middle_is_recovered_from_and_no_slot_is_run_twice(tmp_path: Path, kind: str) -> None:
    if (reason := sandbox.why_not()) is not None:
        pytest.skip(reason)
    base, share = tmp_path / "box", tmp_path / "share"
    (base / "store").mkdir(parents=True)
    share.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(base / "store")], check=True)
    try:
        with sandbox.booted(base, [share]) as inside:
            box = Box(inside, share)
            found = switching.start_prefect(box, share / "prefect", units="/etc/systemd/system")
            box.systemctl("enable", "--quiet", SERVER, WORKER)
            stage = Stage(box, share / "one", found)
            first = _begin(stage)
            if kind == "rollback":
                stage.cutover()
                time.sleep(stage.every)
            step = "timers-off" if kind == "cutover" else "release"
            waive = [f"--waive=cadence={switching.WHY}", "--wait"] if kind == "cutover" else []
            assert stage.killed(stage.begins(step), kind, stage.job, "--yes", *waive)
        down = time.time()
        with sandbox.booted(base, [share]) as inside:
            up = time.time()
            stage.box = Box(inside, share)
            told = stage.orchctl("recover").stdout
            # With the server still coming up, a rollback may owe Prefect's part for a while.
            assert f"{stage.job}: its {kind} " in told
            assert stage.owner.exists() == (kind == "cutover")
            assert stage.is_on("system") == (kind == "rollback")
            eventually(lambda: switching.answers(found), within=90)
            eventually(lambda: stage.json("recover")["jobs"] == [], within=90)
            if kind == "cutover":
                stage.wait_for_worker()
                eventually(lambda: any(line.by == "prefect" and line.start > up for line in stage.lines()), within=90)
                stage.rollback()
            last = _settle(stage)
            log = stage.history(first, last)
            assert switching.doubled(log) == []
            assert [each for each in invariants.check(log, policy="all") if each.invariant != "I4"] == []
            lost = set(switching.missed(log)) - stage.given_up()
            assert {slot for slot in lost if not down - stage.every <= slot <= up + 2 * stage.every} == set()
    finally:
        subprocess.run(["umount", str(base / "store")], check=True)


@pytest.mark.campaign
def test_a_cutover_that_nobody_confirms_is_rolled_back_by_itself_without_a_server(stage: Stage) -> None:
    _begin(stage)
    stage.cutover("--confirm-within", "20s")
    deadline = switching.seconds(json.loads(stage.owner.read_text())["confirm_by"])
    assert stage.box.systemctl("is-active", f"orchctl-confirm-{stage.job}.timer").strip() == "active"
    stage.box.systemctl("stop", SERVER)
    eventually(lambda: not stage.owner.exists(), within=60)
    assert time.time() >= deadline
    assert time.time() - deadline < 15
    assert stage.is_on("system")
    eventually(lambda: not stage.is_fenced(), within=20)
    stage.box.systemctl("start", SERVER)
    eventually(lambda: switching.answers(stage.api_url), within=60)
    stage.orchctl("recover")
    assert stage.json("recover")["jobs"] == []
    assert stage.box.sh("ls /etc/systemd/system | grep -c orchctl-confirm || true").strip() == "0"


@pytest.mark.campaign
def test_a_cutover_that_is_confirmed_stays(stage: Stage) -> None:
    _begin(stage)
    stage.cutover("--confirm-within", "40s")
    deadline = switching.seconds(json.loads(stage.owner.read_text())["confirm_by"])
    assert stage.json("confirm", stage.job)["was_armed"]
    time.sleep(max(0.0, deadline - time.time()) + 5)
    assert stage.owner.exists()
    assert not stage.is_on("system")
    assert stage.problems() == []
    stage.rollback()


# --- drift


@pytest.mark.campaign
def test_drift_of_ownership_is_found_and_recover_puts_each_right(stage: Stage) -> None:
    first = _begin(stage)
    stage.cutover()
    assert stage.problems() == []
    drop_in = f"/etc/systemd/system/{stage.job}.service.d/zz-orchctl-{stage.job}.conf"

    stage.start_timers()
    assert stage.problems(check=3) == ["trigger-came-back"]
    _put_right(stage, "trigger-came-back")
    assert not stage.is_on("system")

    stage.box.sh(f"rm {drop_in}")
    stage.box.reload()
    assert stage.problems(check=3) == ["fence-gone"]
    _put_right(stage, "fence-gone")
    assert stage.is_fenced()

    owner = json.loads(stage.owner.read_text())
    (stage.state / "handovers" / f"{owner['handover']}.jsonl").unlink()
    assert stage.problems(check=3) == ["no-journal"]
    _put_right(stage, "no-journal")
    stage.rollback()
    assert stage.is_on("system")
    assert not stage.is_fenced()

    found = switching.ask(stage.api_url, f"deployments/name/{stage.job}/{stage.job}")
    switching.ask(stage.api_url, f"deployments/{found['id']}/resume_deployment", {})
    assert "unpaused-by-hand" in stage.problems(check=3)  # and no run ahead, until the scheduler's next round
    _put_right(stage, "unpaused-by-hand")
    _judge(stage, first, _settle(stage))


def _put_right(stage: Stage, code: str) -> None:
    told = stage.json("recover")
    repaired = [each["code"] for job in told["jobs"] for each in job["repaired"]]
    assert repaired == [code]
    assert stage.problems() == []
    assert stage.json("recover")["jobs"] == []
