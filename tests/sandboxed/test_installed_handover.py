"""A handover on an installed host, whose API wants a key: nobody names a server, a state directory or a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from box import Box
from host_stage import JOBS, Stage, disk
from orchctl.adapters import local_stack, sandbox
from support import eventually

LEGACY = """
[jobs.old]
command = ["/bin/sh", "-c", 'echo "prefect $ORCHCTL_SLOT" >> {root}/data/old']
schedules = ["often"]
catchup = "all"
legacy = [{{ timer = "old.timer", scope = "system" }}]
"""
SERVICE = "[Service]\nType=oneshot\nUser=daniel\nExecStart=/bin/sh -c 'echo legacy $(date +%%s) >> {root}/data/old'\n"
TIMER = "[Timer]\nOnCalendar=*:*:0/30\nAccuracySec=1us\n[Install]\nWantedBy=timers.target\n"
GATES = ("runs", "cadence")
"""Gates that want days of history."""


def lines(stage: Stage) -> list[list[str]]:
    file = stage.root / "data/old"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def of(stage: Stage, side: str) -> int:
    """Return how often a side has run the job."""
    return sum(line[0] == side for line in lines(stage))


def owner(stage: Stage) -> Any:
    (job,) = json.loads(stage.plain("status", "old", "--json").stdout)["data"]["jobs"]
    return job["owner"]


@pytest.mark.campaign
def test_a_job_goes_over_and_back_with_the_key_on(tmp_path: Path) -> None:
    with disk(tmp_path) as (base, share), sandbox.booted(base, [share]) as inside:
        stage = Stage(Box(inside, share), share / "one")
        box = stage.box
        (stage.root / "config/jobs.toml").write_text((JOBS + LEGACY).format(root=stage.root))
        calendar = stage.root / "config/schedules.toml"
        calendar.write_text(calendar.read_text().replace("10s", "30s"))
        box.unit("old.service", SERVICE.format(root=stage.root))
        box.unit("old.timer", TIMER)
        stage.sudo("host", "install", "--port", str(local_stack.free_port()), "--yes")
        box.start("old.timer")
        stage.plain("sync")
        eventually(lambda: of(stage, "legacy"))
        bare = box.sh('curl -s -o /dev/null -w "%{http_code}" "$1/admin/version"', stage.status()["api_url"])
        assert bare == "401"
        assert owner(stage) == "legacy"
        waived = [f"--waive={gate}=the test is minutes old" for gate in GATES]
        stage.sudo("cutover", "old", "--yes", "--wait", "--confirm-within", "1h", *waived)
        eventually(lambda: of(stage, "prefect"))
        assert owner(stage) == "prefect"
        stage.sudo("confirm", "old")
        stage.sudo("recover")
        assert owner(stage) == "prefect"
        stage.sudo("rollback", "old", "--yes")
        assert owner(stage) == "legacy"
        count = of(stage, "legacy")
        eventually(lambda: of(stage, "legacy") > count)
        slots = [line[1] for line in lines(stage) if line[0] == "prefect"]
        assert len(slots) == len(set(slots))
        stage.plain("status", "old", "--check")
