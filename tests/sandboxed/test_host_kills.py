"""An installed host whose server, worker and database are killed again and again: each slot runs, and once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import postgres
from box import USER, Box
from host_stage import JOBS, Stage, disk
from orchctl.adapters import local_stack, sandbox
from orchctl.core.names import format_instant, parse_instant
from support import STRESS, eventually

KILLS = 20 if STRESS else 3
EVERY_S = 30
SECOND = """
[jobs.tock]
command = ["/bin/sh", "-c", 'sleep 3; echo "$ORCHCTL_SLOT" >> {root}/data/tocks']
schedules = ["often"]
catchup = "all"
overlap = "queue"
"""
SCHEDULES = f"""
version = 1
timezone = "UTC"
[schedules.often]
every = "{EVERY_S}s"
anchor = 2025-01-01T00:00:00Z
"""


def slots(stage: Stage, name: str) -> list[datetime]:
    """Return the slots that a job has run for, oldest first."""
    file = stage.root / "data" / name
    return sorted(map(parse_instant, file.read_text().split())) if file.exists() else []


def due(since: datetime, until: datetime) -> set[datetime]:
    """Return the slots of both jobs from `since`, which is one, to `until`."""
    return {since + timedelta(seconds=EVERY_S * n) for n in range(int((until - since).total_seconds()) // EVERY_S + 1)}


def killed(stage: Stage, unit: str) -> None:
    """Kill all of a unit's processes that a power cut would not spare, and wait until systemd has it up again."""
    before = stage.box.systemctl("show", "--property=MainPID", "--value", unit)
    stage.box.systemctl("kill", "--signal=SIGKILL", "--kill-whom=main", unit)
    eventually(lambda: stage.box.systemctl("show", "--property=MainPID", "--value", unit) not in {before, "0\n"})


@pytest.mark.campaign
def test_whatever_is_killed_no_slot_is_lost_and_none_runs_twice(tmp_path: Path) -> None:
    if missing := postgres.missing():
        pytest.skip(f"without {', '.join(missing)}")
    with postgres.cluster() as cluster, disk(tmp_path) as (base, share), sandbox.booted(base, [share]) as inside:
        stage = Stage(Box(inside, share), share / "one")
        (stage.root / "config/jobs.toml").write_text((JOBS + SECOND).format(root=stage.root))
        (stage.root / "config/schedules.toml").write_text(SCHEDULES)
        url = share / "database-url"
        made = cluster.make("prefect")
        url.write_text(made.url.replace("+asyncpg", ""))
        url.chmod(0o600)
        port = str(local_stack.free_port())
        stage.sudo("host", "install", "--port", port, "--database-file", str(url), "--yes")
        stage.plain("sync")
        first = eventually(lambda: slots(stage, "ticks") and slots(stage, "tocks") and slots(stage, "tocks"))[-1]
        for turn in range(KILLS):
            killed(stage, "prefect-server.service")
            time.sleep(turn * 7 % 20)
            killed(stage, "prefect-worker.service")
            time.sleep(turn * 11 % 20)
        cluster.stop()
        time.sleep(EVERY_S)
        cluster.start()
        eventually(lambda: stage.box.orchctl("host", "status", user=USER).returncode == 0, within=120)
        last = datetime.now(UTC)
        wanted = due(first, last)
        eventually(lambda: wanted <= set(slots(stage, "ticks")) & set(slots(stage, "tocks")), within=240, poll=2)
        for ran in (slots(stage, "ticks"), slots(stage, "tocks")):
            assert len(ran) == len(set(ran)), [format_instant(slot) for slot in ran]
        assert stage.status()["ok"]
        stage.sudo("host", "uninstall", "--yes")
