"""`status` on a real systemd: what it asks, and how 200 jobs look on a terminal of 80 columns."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest
import tomli_w

from box import USER, Box
from orchctl.adapters.owners import Owners
from orchctl.core.slots import Owner

MANY = 200
NOBODY = "http://127.0.0.1:9/api"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def install(box: Box, names: list[str], *, scope: str = "system") -> None:
    for name in names:
        timer = "[Timer]\nOnCalendar=*-*-* 03:30:00\n[Install]\nWantedBy=timers.target\n"
        handler = "[Unit]\nOnFailure=nobody-there.service\n"
        box.unit(f"{name}.timer", timer, scope=scope)
        box.unit(f"{name}.service", f"{handler}[Service]\nType=oneshot\nExecStart=/bin/true\n", scope=scope)
    box.start(*(f"{name}.timer" for name in names), scope=scope)


def catalog(box: Box, jobs: dict[str, Any]) -> list[str]:
    config = Path(box.share, "config")
    config.mkdir(exist_ok=True)
    base = {"data_root": f"{box.share}/data", "working_directory": "/tmp", "work_pool": "p", "command": ["true"]}
    tables = {name: {**base, **job} for name, job in jobs.items()}
    (config / "jobs.toml").write_text(tomli_w.dumps({"version": 1, "jobs": tables}))
    (config / "schedules.toml").write_text("version = 1\n")
    return ["--config", str(config), "--state-dir", f"{box.share}/state", "--api-url", NOBODY]


def counted(box: Box) -> tuple[str, Path]:
    """Return a PATH on which `systemctl` writes down each call, and where."""
    log, folder = Path(box.share, "calls"), Path(box.share, "bin")
    folder.mkdir(exist_ok=True)
    log.write_text("")
    log.chmod(0o666)  # the user's manager is asked as the user
    wrapper = folder / "systemctl"
    wrapper.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec /usr/bin/systemctl "$@"\n')
    wrapper.chmod(0o755)
    return f"{folder}:/usr/bin:/bin", log


@pytest.fixture
def many(box: Box) -> list[str]:
    """Two hundred jobs with long names, all on timers that fire, one in both scopes."""
    names = [f"a-job-with-quite-a-name-{number:03}" for number in range(MANY)]
    install(box, names)
    install(box, names[:1], scope="user")
    legacy = {name: [{"timer": f"{name}.timer"}] for name in names}
    legacy[names[0]].append({"timer": f"{names[0]}.timer", "scope": "user", "user": USER})
    return catalog(box, {name: {"legacy": triggers} for name, triggers in legacy.items()})


def terminal(box: Box, *words: str) -> pexpect.spawn[str]:
    argv = box.inside.argv("env", "TERM=xterm", "COLUMNS=80", "LINES=24", sys.executable, "-m", "orchctl", *words)
    return pexpect.spawn(argv[0], argv[1:], encoding="utf-8", dimensions=(24, 80), timeout=60)


def test_two_hundred_jobs_in_one_call_a_manager_and_eighty_columns(box: Box, many: list[str]) -> None:
    path, log = counted(box)
    done = box.orchctl(*many, "status", "--json", PATH=path)
    jobs = json.loads(done.stdout)["data"]["jobs"]
    assert [each["state"] for job in jobs for each in job["triggers"]] == ["on"] * (MANY + 1)
    assert all(job["next"] == job["next_legacy"] != None for job in jobs)  # noqa: E711
    assert log.read_text().split() == ["show", "--user"]
    shown = terminal(box, *many, "status")
    shown.expect(pexpect.EOF)
    assert shown.before is not None
    lines = _ESCAPE.sub("", shown.before).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "a-job-with" in line]
    assert len(rows) == MANY
    assert all(re.search(r" legacy +on +unknown ", row) for row in rows)
    assert lines[-1].startswith("200 jobs: 200 legacy")


def test_what_is_wrong_on_a_real_host_is_found(box: Box) -> None:
    install(box, ["back", "stopped", "fine"])
    box.systemctl("disable", "--quiet", "--now", "stopped.timer")
    names = ("back", "stopped", "fine", "gone")
    places = catalog(box, {name: {"legacy": [{"timer": f"{name}.timer"}]} for name in names})
    Owners(Path(box.share, "state")).replace("back", Owner(datetime(2026, 1, 1, tzinfo=UTC), draining=False))
    done = box.orchctl(*places, "status", "--check", "--json")
    data = json.loads(done.stdout)["data"]
    found = {job["job"]: [each["code"] for each in job["problems"]] for job in data["jobs"]}
    assert found == {
        "back": ["no-journal", "fence-gone", "trigger-came-back"],
        "fine": [],
        "gone": ["trigger-missing", "nobody-runs-it"],
        "stopped": ["nobody-runs-it"],
    }
    assert [each["code"] for each in data["problems"]] == ["prefect-unreachable"]
    assert done.returncode == 3
    block = box.orchctl(*places, "status", "back")
    assert block.returncode == 0
    assert "back.timer (system) is on although Prefect owns the job" in block.stdout
    assert re.search(r"trigger +back\.timer \(system\): on, enabled, next \d{4}-", block.stdout)
    Owners(Path(box.share, "state")).remove("back")
