"""`runs audit` on a real systemd: timers that fire, one in both scopes, one that stood still."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from box import USER, Box

TIMER = "[Timer]\nOnCalendar=*:*:0/3\nAccuracySec=10ms\n[Install]\nWantedBy=timers.target\n"
SERVICE = "[Service]\nType=oneshot\nExecStart=/bin/true\n"


def install(box: Box, name: str, *, scope: str = "system") -> None:
    box.unit(f"{name}.timer", TIMER, scope=scope)
    box.unit(f"{name}.service", SERVICE, scope=scope)
    box.start(f"{name}.timer", scope=scope)


def catalog(box: Box, jobs: dict[str, list[dict[str, str]]]) -> tuple[str, ...]:
    config = Path(box.share, "config")
    config.mkdir(exist_ok=True)
    base = {"data_root": f"{box.share}/data", "working_directory": "/tmp", "work_pool": "p", "command": ["true"]}
    tables = {name: {**base, "legacy": legacy} for name, legacy in jobs.items()}
    (config / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "jobs": tables}))
    (config / "schedules.toml").write_text("version = 1\n")
    return ("--config", str(config), "--state-dir", f"{box.share}/state")


def by_job(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {job["job"]: job for job in json.loads(done.stdout)["data"]["jobs"]}


@pytest.fixture
def places(box: Box) -> tuple[str, ...]:
    legacy = {
        "clean": [{"timer": "clean.timer"}],
        "paused": [{"timer": "paused.timer"}],
        "both": [{"timer": "both.timer"}, {"timer": "both.timer", "scope": "user", "user": USER}],
    }
    for name in legacy:
        install(box, name)
    install(box, "both", scope="user")
    return catalog(box, legacy)


def test_a_missed_slot_a_double_and_a_clean_timer_are_told_apart(box: Box, places: tuple[str, ...]) -> None:
    time.sleep(3)
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    time.sleep(7)
    box.systemctl("stop", "paused.timer")
    time.sleep(7)
    box.systemctl("start", "paused.timer")
    time.sleep(7)
    done = box.orchctl(*places, "runs", "audit", "--since", since, "--json")
    found = by_job(done)
    assert done.returncode == 3, done.stderr
    assert set(found["clean"]["counts"]) <= {"ok", "unknown"}
    assert found["clean"]["counts"]["ok"] >= 5
    assert found["paused"]["counts"]["missed"] in {1, 2}
    assert found["both"]["counts"]["double"] >= 5
    assert "ok" not in found["both"]["counts"]
    whys = {slot["why"] for slot in found["both"]["slots"] if slot["verdict"] == "double"}
    assert whys == {f"both.service (system) and both.service (user of {USER}) both ran it"}
    unknown = [slot for job in found.values() for slot in job["slots"] if slot["verdict"] == "unknown"]
    assert all(slot["why"].startswith("too recent") for slot in unknown)
    assert all(job["gaps"] == [] and job["extra"] == [] for job in found.values())
    text = box.orchctl(*places, "runs", "audit", "--since", since)
    assert text.returncode == 3
    assert "missed" in text.stdout


def let_others_run_python(box: Box) -> None:
    """Where the interpreter lies in a home that is its owner's alone: the sandbox is a copy, the host keeps its own."""
    for folder in reversed(Path(sys.executable).resolve().parents):
        box.sh('chmod a+x "$1"', folder)


def test_who_may_not_read_the_journal_is_told_and_nothing_is_called_ok(box: Box, places: tuple[str, ...]) -> None:
    let_others_run_python(box)
    box.sh("id stranger 2>/dev/null || useradd -m stranger")
    time.sleep(5)
    mine = ("--config", places[1], "--state-dir", "/tmp/strangers-state")
    done = box.orchctl(*mine, "runs", "audit", "--since", "4s", "--job", "clean", "--json", user="stranger")
    assert done.returncode == 0, done.stderr
    envelope = json.loads(done.stdout)
    (job,) = envelope["data"]["jobs"]
    assert set(job["counts"]) == {"unknown"}
    assert envelope["errors"][0]["code"] == "not-brought-in"
