"""An installed host whose server, worker and database are killed again and again: each slot runs, and once."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import postgres
from box import USER, Box
from host_stage import DEFAULTS, Stage, disk
from orchctl.adapters import local_stack, sandbox
from orchctl.core.names import parse_instant
from support import eventually

KILLS = 20
AT_WORK = (3, 8, 11, 16)
"""The turns in which the worker is killed while a command is at work."""
WHOLE = 11
"""The one of these in which not the worker alone is killed: all that runs in its unit's group is."""
EVERY_S = 45
LONG_S = 110
"""How long the database is away: longer than a slot counts as on time, and a schedule's period, together."""
ON_TIME = timedelta(seconds=60)
JUST = timedelta(minutes=5)
"""More than a busy machine needs from the start of a run to the end of its command."""
SERVER, WORKER = "prefect-server.service", "prefect-worker.service"
LATEST = "tack"
JOBS = (
    DEFAULTS
    + """
schedules = ["often"]
overlap = "queue"
catchup_window = "6h"
[jobs.tick]
catchup = "all"
command = ["/bin/sh", "{root}/job.sh", "0"]
[jobs.tock]
catchup = "all"
command = ["/bin/sh", "{root}/job.sh", "4"]
[jobs.tack]
catchup = "latest"
command = ["/bin/sh", "{root}/job.sh", "1"]
"""
)
SCHEDULES = f"""
version = 1
timezone = "UTC"
[schedules.often]
every = "{EVERY_S}s"
anchor = 2025-01-01T00:00:00Z
"""
# What was cut off shows too, and that it began a second time: nothing is asked of orchctl.
JOB = """
echo "$ORCHCTL_JOB $ORCHCTL_SLOT begun" >> data/log
sleep "$1"
echo "$ORCHCTL_JOB $ORCHCTL_SLOT ended" >> data/log
"""


@dataclass(frozen=True)
class Line:
    """What a command wrote: its job, its slot, and `begun` or `ended`."""

    job: str
    slot: datetime
    what: str


def log(stage: Stage) -> list[Line]:
    """Return what the commands wrote, in the order in which it happened."""
    file = stage.root / "data/log"
    words = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [Line(job, parse_instant(slot), what) for job, slot, what in words]


def slots(stage: Stage, job: str, what: str = "ended") -> set[datetime]:
    return {line.slot for line in log(stage) if (line.job, line.what) == (job, what)}


def cut_off(stage: Stage) -> set[tuple[str, datetime]]:
    """Return the jobs and slots that have begun and not ended: also those that are at work."""
    return {(job, slot) for job in ("tick", "tock", LATEST) for slot in slots(stage, job, "begun") - slots(stage, job)}


def due(since: datetime, until: datetime) -> set[datetime]:
    """Return the slots of each job from `since`, which is one, to `until`."""
    return {since + timedelta(seconds=EVERY_S * n) for n in range(int((until - since).total_seconds()) // EVERY_S + 1)}


def recorded(stage: Stage, status: str) -> dict[tuple[str, datetime], dict[str, Any]]:
    """Return the runs for slots that orchctl lists with a status."""
    said = stage.plain("runs", "--since", "1d", "--status", status, "--json").stdout
    return {(run["job"], parse_instant(run["slot"])): run for run in json.loads(said)["data"]["runs"]}


def main_process(stage: Stage, unit: str) -> str:
    return stage.box.systemctl("show", "--property=MainPID", "--value", unit).strip()


def kill(stage: Stage, unit: str, whom: str = "main") -> str:
    """Kill a unit's main process (`all`: everything in its group) as soon as there is one; return that one's id."""
    script = 'systemctl kill --signal=SIGKILL "--kill-whom=$2" "$1" 2> /dev/null && echo killed || true'
    before = ["0"]

    def done() -> bool:
        before.append(main_process(stage, unit))
        return before[-1] != "0" and stage.box.sh(script, unit, whom) == "killed\n"

    eventually(done, within=120)
    return before[-1]


def killed(stage: Stage, turn: int, cut: dict[tuple[str, datetime], datetime]) -> None:
    """Kill server and worker, one soon after the other, and wait until systemd has both up again.

    Now and then the worker goes while a command is at work, once with all that runs in its group: what that has cut off
    is added to `cut`, with the instant.
    """
    before = {SERVER: kill(stage, SERVER)}
    time.sleep(turn * 7 % 9)
    if turn in AT_WORK:
        eventually(lambda: cut_off(stage) - cut.keys(), within=120, poll=0.1)
    before[WORKER] = kill(stage, WORKER, "all" if turn == WHOLE else "main")
    if turn == WHOLE:
        cut |= dict.fromkeys(cut_off(stage), datetime.now(UTC))
    eventually(lambda: all(main_process(stage, unit) not in {pid, "0"} for unit, pid in before.items()), within=120)
    time.sleep(turn * 11 % 9)


def judged(lines: list[Line], cut: Collection[tuple[str, datetime]]) -> None:
    """Fail where a slot began twice, or a job while it went. `cut`: what was killed in the middle."""
    begun = [(line.job, line.slot) for line in lines if line.what == "begun"]
    assert len(begun) == len(set(begun)), sorted({each for each in begun if begun.count(each) > 1})
    going: dict[str, tuple[str, datetime]] = {}
    for line in lines:
        if line.what == "begun":
            before = going.get(line.job)
            assert before is None or before in cut, (before, line)
            going[line.job] = line.job, line.slot
        else:
            going.pop(line.job, None)


def served(stage: Stage, wanted: set[datetime]) -> bool:
    """Whether each slot of each job has come to its end: what was cut off is known to be crashed, none is awaited."""
    done = {(line.job, line.slot) for line in log(stage) if line.what == "ended"}
    missing = {(job, slot) for job in ("tick", "tock", LATEST) for slot in wanted} - done
    return not missing or not missing - recorded(stage, "crashed").keys() - recorded(stage, "skipped").keys()


@pytest.mark.campaign
def test_whatever_is_killed_no_slot_is_lost_and_none_runs_twice(tmp_path: Path) -> None:
    if missing := postgres.missing():
        pytest.skip(f"without {', '.join(missing)}")
    with postgres.cluster() as cluster, disk(tmp_path) as (base, share), sandbox.booted(base, [share]) as inside:
        stage = Stage(Box(inside, share), share / "one")
        (stage.root / "job.sh").write_text(JOB)
        (stage.root / "config/jobs.toml").write_text(JOBS.format(root=stage.root))
        (stage.root / "config/schedules.toml").write_text(SCHEDULES)
        url = share / "database-url"
        made = cluster.make("prefect")
        url.write_text(made.url.replace("+asyncpg", ""))
        url.chmod(0o600)
        port = str(local_stack.free_port())
        stage.sudo("host", "install", "--port", port, "--database-file", str(url), "--yes")
        stage.plain("sync")
        eventually(lambda: all(slots(stage, job) for job in ("tick", "tock", LATEST)), within=120)
        first = max(min(slots(stage, job)) for job in ("tick", "tock", LATEST))
        cut: dict[tuple[str, datetime], datetime] = {}
        for turn in range(KILLS):
            killed(stage, turn, cut)
        assert cut, "nothing was at work when all was killed"
        cluster.stop()
        time.sleep(LONG_S)
        cluster.start()
        eventually(lambda: stage.box.orchctl("host", "status", user=USER).returncode == 0, within=120)
        wanted = due(first, datetime.now(UTC))
        eventually(lambda: served(stage, wanted), within=600, poll=2)
        judged(log(stage), cut)
        _lost_is_only_what_was_cut_off(stage, wanted, cut)
        _given_up_is_only_what_is_too_late(stage, wanted)
        assert stage.status()["ok"]
        stage.sudo("host", "uninstall", "--yes")


def _lost_is_only_what_was_cut_off(
    stage: Stage, wanted: set[datetime], cut: dict[tuple[str, datetime], datetime]
) -> None:
    """With `catchup = "all"` each slot has run to its end, but one of a job for which a run went when all was killed.

    Of such a run the command may not have come to its first line.
    """
    crashed, at = recorded(stage, "crashed"), max(cut.values())
    assert cut.keys() <= crashed.keys()
    for job in ("tick", "tock"):
        lost = wanted - slots(stage, job)
        assert len(lost) <= 1, (job, lost)
        for slot in lost:
            began = parse_instant(crashed[job, slot]["started_at"])
            assert timedelta(0) <= at - began <= JUST, (job, slot, began, at)


def _given_up_is_only_what_is_too_late(stage: Stage, wanted: set[datetime]) -> None:
    """With `catchup = "latest"` a slot that has not run was more than a minute late, and a later one ran."""
    skipped, crashed, ran = recorded(stage, "skipped"), recorded(stage, "crashed"), slots(stage, LATEST)
    given_up = {slot for slot in wanted - ran if (LATEST, slot) not in crashed}
    assert given_up, "the database was away, and no slot was late"
    for slot in given_up:
        run = skipped[LATEST, slot]
        assert run["reason"].startswith("stale: a later slot"), run
        assert parse_instant(run["started_at"]) - slot > ON_TIME, run
        assert any(later > slot for later in ran), run
    assert not {job for job, _ in skipped} - {LATEST}
