"""Backups of a real server: while runs are written, from a schedule's job, and put back."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backup_load
from orchctl.adapters import backup_archive, backups
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from support import STRESS, Live, Project, eventually


class OfLive(Project):
    """An operator with the state directory of the session's server."""

    stack_state: Path

    def env(self) -> dict[str, str]:
        return {**super().env(), "ORCHCTL_STATE_DIR": str(self.stack_state)}


def make_secret(live: Live, value: str) -> None:
    """Make one of Prefect's Secret blocks."""
    kind = live.request("GET", "/block_types/slug/secret")["id"]
    (schema, *_) = live.request("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    body = {"block_type_id": kind, "block_schema_id": schema["id"], "name": "backup-secret", "data": {"value": value}}
    live.request("POST", "/block_documents/", body)


@pytest.mark.live
@pytest.mark.campaign
def test_backups_while_runs_are_written_are_whole(live: Live, tmp_path: Path) -> None:
    host = OfLive(tmp_path, live.api_url)
    host.stack_state = live.state_dir
    made: list[dict[str, Any]] = []
    make_secret(live, "planted")
    with backup_load.flow_runs(live.api_url) as load:
        for _ in range(50 if STRESS else 2):
            eventually(lambda: load.made > len(made))
            before = load.made
            made.append(host.json("host", "backup", "--to", str(tmp_path / "b")))
            assert made[-1]["counts"]["flow_runs"] >= before
            tried = json.loads(host.orchctl("host", "verify", made[-1]["path"], "--json", timeout=300).stdout)["data"]
            assert tried["found"] == made[-1]["counts"]
            # The server on trial had to decrypt it, with the key that the database holds.
            assert tried["found"]["blocks"] >= 1
    for each in made:
        assert backup_archive.check(Path(each["path"])).database.counts == each["counts"]
    counts = [each["counts"]["flow_runs"] for each in made]
    assert counts == sorted(counts)
    last = backups.last(live.state_dir)
    assert last.verified is not None
    assert last.verified.path == made[-1]["path"]
    assert not [path for path in (live.state_dir / "host").iterdir() if path.name.startswith("backup-")]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Project]:
    """A project with a server of its own; whatever `host up` starts in it is stopped."""
    project = Project(tmp_path, "")
    places = ["--config", str(tmp_path / "config"), "--state-dir", str(tmp_path / "state")]
    words = [*places, "host", "backup", "--to", str(tmp_path / "b"), "--keep", "3"]
    project.schedules["often"] = {"every": "15s"}
    project.jobs["tick"] = {
        "command": [project.script("tick.sh", "echo tick")],
        "schedules": ["often"],
        "work_pool": "alone",
        # Each slot, however late a busy machine comes to it.
        "catchup": "all",
        "catchup_window": "1h",
        "overlap": "queue",
    }
    project.jobs["backup"] = {"command": [sys.executable, "-m", "orchctl", *words], "work_pool": "alone"}
    project.write()
    yield project
    stack = LocalStack(project.state_dir, {})
    for name in stack.names():
        stack.stop(name, patience_s=5)


def ran(project: Project) -> list[str]:
    """Return the slots of `tick` that ran, one for each attempt."""
    paths = project.data_root.glob("manifests/tick/game_date=*/run=*/manifest.json")
    runs = [json.loads(path.read_text()) for path in paths]
    return [run["slot"] for run in runs if run["status"] == "success" for _ in range(run["attempt"])]


def api(project: Project) -> PrefectApi:
    return PrefectApi(url=project.json("host", "status")["api_url"])


@pytest.mark.campaign
@pytest.mark.live
def test_a_restored_server_schedules_again_and_no_slot_runs_twice(alone: Project) -> None:
    alone.orchctl("host", "up", "--port", "0", timeout=280)
    alone.orchctl("sync")
    with api(alone) as prefect:
        prefect.create_limit("places", limit=1)
        prefect.update_limit("places", {"active_slots": 1})
    eventually(lambda: ran(alone))
    alone.orchctl("run", "backup", "--wait", timeout=280)
    (archive,) = (alone.root / "b").glob("*.tar.gz")
    then = len(ran(alone))
    eventually(lambda: len(ran(alone)) > then)
    refused = alone.orchctl("host", "restore", str(archive), "--yes", check=5)
    assert "nothing is restored while it is in use" in refused.stderr
    alone.orchctl("host", "down")
    asked = alone.orchctl("host", "restore", str(archive), check=5)
    assert "this needs an answer" in asked.stderr
    before = set(ran(alone))
    done = alone.json("host", "restore", str(archive), "--yes")
    assert done["counts"]["deployments"] == 2
    # The backup's own run was going when it was made.
    assert "it was going when the backup was made" in {run["why"] for run in done["ended_runs"]}
    assert Path(next(each["aside"] for each in done["moved"] if each["path"].endswith("prefect.db"))).is_dir()
    alone.orchctl("host", "up", "--port", "0", timeout=280)
    eventually(lambda: max(ran(alone)) > max(before), within=120)
    with api(alone) as prefect:
        assert prefect.request("GET", "/v2/concurrency_limits/places")["active_slots"] == 0
    assert [slot for slot, count in Counter(ran(alone)).items() if count > 1] == []
