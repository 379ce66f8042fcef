"""`doctor` on a host that is well, with a real server and worker, and what it says when that changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.deliveries import Answer
from orchctl.core.doctor import CHECKS
from orchctl.core.names import format_instant
from support import Live, Project, eventually

ALERTS = """
version = 1
[watchdog]
min_free_percent = 1
[channels.ops]
kind = "webhook"
url_env = "OPS_URL"
[routes.all]
events = ["failed"]
channels = ["ops"]
"""


@pytest.fixture
def kept(live: Live, project: Project, tmp_path: Path) -> Iterator[None]:
    """A backup that was verified, and an alert that arrived, in the state directory of server and worker."""
    now, archive = datetime.now(UTC), tmp_path / "backup.tar.gz"
    archive.write_bytes(b"")
    noted = {"path": str(archive), "size_bytes": 0, "created_at": format_instant(now), "at": format_instant(now)}
    folder = StateFolder(live.state_dir, "host")
    folder.write("backups.json", {"version": 1, "backup": noted, "verified": noted})
    Deliveries(live.state_dir).note(project.name, "ops", Answer(ok=True, said="200"), now, waiting=0)
    StateFolder(live.state_dir, "alerts").write("watch.json", {"at": format_instant(now)})
    yield
    folder.remove("backups.json")
    shutil.rmtree(live.state_dir / "alerts")


def doctor(project: Project, live: Live, *words: str, check: int | None = None) -> Any:
    done = project.orchctl("doctor", "--json", "--state-dir", str(live.state_dir), *words, check=check)
    return json.loads(done.stdout)["data"]


def levels(found: Any) -> dict[str, str]:
    return {each["check"]: each["level"] for each in found["findings"] if each["level"] != "ok"}


@pytest.mark.usefixtures("kept")
def test_a_healthy_host_is_all_ok_and_what_is_done_to_it_is_found(project: Project, live: Live) -> None:
    project.schedules["hourly"] = {"cron": "0 * * * *"}
    project.jobs["hello"] = {"command": [project.script("hello.sh", "echo hello")], "schedules": ["hourly"]}
    project.write()
    (project.root / "config" / "alerts.toml").write_text(ALERTS)
    assert levels(doctor(project, live))["deployments"] == "warning"
    project.orchctl("sync", "--state-dir", str(live.state_dir))
    project.orchctl("alerts", "apply", "--state-dir", str(live.state_dir))
    # The scheduler looks at new deployments every few seconds.
    eventually(lambda: levels(doctor(project, live)) == {}, within=90)
    before = snapshot(live.state_dir), snapshot(project.root)
    well = doctor(project, live, "--strict", check=0)
    assert well["ok"]
    assert well["first"] is None
    assert {each["check"] for each in well["findings"]} == {check.name for check in CHECKS}
    # It looks and changes nothing, on disk or in Prefect.
    assert (snapshot(live.state_dir), snapshot(project.root)) == before
    with live.api() as api:
        deployment = api.deployment("hello", "hello")
        assert deployment is not None
        api.pause_deployment(deployment.id)
    (project.data_root / "theirs").mkdir(mode=0o777)
    (project.data_root / "theirs").chmod(0o777)
    (live.state_dir / "prefect" / "prefect.db").chmod(0o644)
    try:
        ill = doctor(project, live, check=3)
    finally:
        (live.state_dir / "prefect" / "prefect.db").chmod(0o600)
    assert levels(ill) == {"deployments": "failure", "permissions": "warning", "database": "warning"}
    assert ill["first"]["check"] == "deployments"


def snapshot(root: Path) -> dict[str, int]:
    """Return when what orchctl itself writes under a folder was changed; server and worker write their own all the
    time.
    """
    theirs = {"prefect", "host"}
    return {
        str(path): path.lstat().st_mtime_ns for path in root.rglob("*") if path.relative_to(root).parts[0] not in theirs
    }
