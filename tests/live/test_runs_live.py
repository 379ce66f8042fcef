"""What runs of the worker leave behind: in their manifests, in Prefect, in the log and in `orchctl runs`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import live_runs
from orchctl.adapters.owners import Owners
from orchctl.core.names import format_instant, parse_instant
from orchctl.core.remote import RemoteRun
from orchctl.core.slots import Owner
from support import Live, Project, eventually

PASSWORD, URL_PASSWORD = "hunter2-of-the-env", "hunter2-of-the-url"


# --- one minute of schedules


@dataclass
class Minute:
    """What happened at one slot of several jobs, each due every minute."""

    project: Project
    slot: datetime
    runs: dict[str, list[RemoteRun]] = field(default_factory=dict)

    def manifest(self, run: RemoteRun) -> dict[str, Any]:
        return self.project.manifest(run.name)

    def lines(self, job: str) -> list[str]:
        path = self.project.root / f"{job}.ran"
        return path.read_text().split() if path.exists() else []


def legacy(name: str) -> list[dict[str, str]]:
    return [{"timer": f"{name}.timer", "scope": "system"}]


def own_jobs(project: Project, slot: datetime) -> None:
    note = project.script("note.sh", "echo $ORCHCTL_SLOT >> $ORCHCTL_JOB.ran; sleep ${NAP:-0}")
    talk = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    # This slot and no other one: on a busy machine its runs may begin after the next minute has come.
    cron = f"{slot:%-M %-H %-d %-m} *"
    project.schedules = {name: {"cron": cron, "timezone": "UTC"} for name in ("once", "again")}
    jobs: dict[str, dict[str, Any]] = {
        "plain": {"command": [project.script("talk.sh", talk)]},
        "observed": {"legacy": legacy("observed")},
        "owned": {"legacy": legacy("owned")},
        "owned-later": {"legacy": legacy("owned-later")},
        "twice-skip": {"schedules": ["once", "again"], "env": {"NAP": "3"}},
        "twice-queue": {"schedules": ["once", "again"], "overlap": "queue"},
    }
    for name, job in jobs.items():
        project.jobs[name] = {"command": [note], "schedules": ["once"], **job}
    for name, since in (("owned", slot), ("owned-later", slot + timedelta(seconds=1))):
        Owners(project.state_dir).replace(name, Owner(since, draining=False))


@pytest.fixture(scope="module")
def minute(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute]:
    with live_runs.project_in(tmp_path_factory.mktemp("minute"), live) as project:
        slot = live_runs.now()
        # Early enough for the scheduler: on a busy machine a sync may take longer than there is time.
        while slot - live_runs.now() < timedelta(seconds=10):
            slot = (live_runs.now() + timedelta(seconds=85)).replace(second=0, microsecond=0)
            own_jobs(project, slot)
            project.write()
            project.orchctl("sync")
        time.sleep(max(0.0, (slot - live_runs.now()).total_seconds()) + 0.5)
        found = Minute(project, slot)
        for name in project.jobs:
            rows = [row for row in live_runs.runs_of(live, name) if parse_instant(row["expected_start_time"]) == slot]
            found.runs[name] = [live_runs.finished(live, row["id"], within=90) for row in rows]
        yield found


@pytest.mark.campaign
def test_a_scheduled_run_has_its_minute_and_never_starts_before_it(minute: Minute) -> None:
    (run,) = minute.runs["plain"]
    manifest = minute.manifest(run)
    assert minute.slot <= parse_instant(manifest["timing"]["started_at"])
    assert (manifest["slot"], manifest["trigger"]) == (format_instant(minute.slot), "schedule")
    assert (manifest["status"], manifest["mode"], manifest["attempt"]) == ("success", "live", 1)
    assert manifest["partition"]["run_id"] == run.name
    assert manifest["partition"]["run_as_of_ts"] == format_instant(minute.slot)
    assert manifest["environment"]["orchestrator_run_id"] == run.id
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", manifest["environment"]["catalog_digest"])
    assert run.state_type == "COMPLETED"


def test_its_output_is_in_prefects_log_in_order(live: Live, minute: Minute) -> None:
    (run,) = minute.runs["plain"]

    def spoken() -> list[str]:
        return [line for line in live_runs.log_of(live, run.id) if line.startswith(("out ", "err "))]

    # The server takes logs in batches, and later where it is busy.
    eventually(lambda: len(spoken()) == 18, within=30)
    assert spoken() == [f"{stream} {i}" for i in range(1, 10) for stream in ("out", "err")]


def test_it_is_one_line_in_runs(minute: Minute) -> None:
    (run,) = minute.runs["plain"]
    line = live_runs.line_of(minute.project, run.name)
    assert (line["job"], line["status"], line["trigger"]) == ("plain", "success", "schedule")


def test_a_legacy_job_is_observed(minute: Minute) -> None:
    (run,) = minute.runs["observed"]
    assert minute.lines("observed") == []
    assert (run.state_type, run.state_name) == ("COMPLETED", "Observed")
    manifest = minute.manifest(run)
    assert (manifest["status"], manifest["mode"]) == ("observed", "observe")
    # Then what systemd did, which is this machine's affair (see test_observe_live.py).
    assert manifest["reason"].startswith("legacy owns the job; ")
    assert (run.state_message or "").startswith(f"{manifest['reason']}; would have run ")


def test_an_owned_job_runs_from_its_first_own_slot_on(minute: Minute) -> None:
    (run,) = minute.runs["owned"]
    assert minute.manifest(run)["status"] == "success"
    assert minute.lines("owned") == [format_instant(minute.slot)]
    (early,) = minute.runs["owned-later"]
    assert early.state_name == "Observed"
    assert minute.lines("owned-later") == []


@pytest.mark.parametrize("job", ["twice-skip", "twice-queue"])
def test_two_schedules_at_one_instant_run_once(minute: Minute, job: str) -> None:
    assert minute.lines(job) == [format_instant(minute.slot)]
    runs = {run.state_name: run for run in minute.runs[job]}
    assert set(runs) == {"Completed", "Skipped"}
    skipped = minute.manifest(runs["Skipped"])
    assert (skipped["status"], skipped["slot"]) == ("skipped", format_instant(minute.slot))
    assert skipped["reason"] == f"the slot was claimed by run {runs['Completed'].name}"


# --- runs by hand, all at once


@dataclass(frozen=True)
class Batch:
    project: Project
    runs: dict[str, RemoteRun]
    peak_kb: int

    def manifest(self, name: str) -> dict[str, Any]:
        return self.project.manifest(self.runs[name].name)


@pytest.fixture(scope="module")
def batch(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    with live_runs.project_in(tmp_path_factory.mktemp("batch"), live) as project:
        third = project.script("third.sh", 'echo "attempt"; echo x >> tries; [ $(wc -l < tries) -ge 3 ]')
        leak = project.script("leak.sh", 'echo "$DB_PASSWORD $FEED_URL"; echo "tail: $DB_PASSWORD" >&2; exit 7')
        project.jobs = {
            "flood": {"command": [project.script("flood.sh", "seq 1000000; sleep 1.5")]},
            "third-time": {"command": [third], "retries": 2, "retry_delay": "1s"},
            "leaky_job": {
                "command": [leak, f"https://me:{URL_PASSWORD}@feed.example/x"],
                "env": {"DB_PASSWORD": PASSWORD, "FEED_URL": f"https://me:{URL_PASSWORD}@feed.example/x"},
                "retries": 1,
                "retry_delay": "1s",
            },
            "crowded": {"command": [project.script("nap.sh", CROWDED)]},
            "same": {"command": [project.script("once.sh", "echo x >> once; sleep 2")], "overlap": "queue"},
            "watched": {
                "command": ["scripts/leak.sh", f"https://me:{URL_PASSWORD}@feed.example/x"],
                "legacy": legacy("watched"),
                "env": {"DB_PASSWORD": PASSWORD},
            },
            **{f"bad-{name}": {"command": ["touch", "{game_date}-{slot}-{run_as_of_ts}"]} for name in BAD},
        }
        project.write()
        project.orchctl("sync")
        asked = {name: live_runs.ask(live, name) for name in ("flood", "third-time", "leaky_job")}
        peak = peak_of_flow_process(project, asked["flood"].id)
        asked["watched"] = live_runs.ask(live, "watched", parameters={"slot": format_instant(live_runs.now())})
        crowd = {f"crowded-{number}": live_runs.ask(live, "crowded") for number in (1, 2)}
        slot = format_instant(live_runs.now())
        same = {f"same-{number}": live_runs.ask(live, "same", parameters={"slot": slot}) for number in (1, 2)}
        asked |= {**crowd, **same}
        asked |= {f"bad-{name}": live_runs.ask(live, f"bad-{name}", parameters=BAD[name]) for name in BAD}
        yield Batch(project, {name: live_runs.finished(live, run.id, within=90) for name, run in asked.items()}, peak)


# It goes on until the other run of the job has left its record.
CROWDED = """
for _ in $(seq 300); do
  [ "$(ls data/manifests/crowded/*/*/manifest.json | wc -l)" -ge 2 ] && exit
  sleep 0.2
done
exit 1
"""
BAD: dict[str, dict[str, str]] = {
    "job": {"job": "../../etc/passwd"},
    "digest": {"digest": "sha256:" + "0" * 64},
    "date": {"game_date": "../../../tmp/x"},
    "slot": {"slot": "2025-12-19T05:00:00Z\0'\"\n"},
}


def peak_of_flow_process(project: Project, flow_run_id: str) -> int:
    """Return the most memory that the process of a flow run ever held, in kB."""

    def pid() -> int | None:
        for path in project.data_root.glob("manifests/flood/*/*/manifest.json"):
            place = json.loads(path.read_text())["environment"]
            if place["orchestrator_run_id"] == flow_run_id:
                return int(place["pid"])
        return None

    status = Path(f"/proc/{eventually(pid)}/status")
    peak = 0
    with contextlib.suppress(OSError, AttributeError):
        while match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
            peak = max(peak, int(match[1]))
            time.sleep(0.05)
    return peak


def test_a_million_lines(live: Live, batch: Batch) -> None:
    manifest = batch.manifest("flood")
    assert manifest["status"] == "success"
    assert 0 < batch.peak_kb < 400_000
    log = live_runs.attempt_log(batch.project, batch.runs["flood"].name)
    assert log == "".join(f"{i}\n" for i in range(1, 1_000_001))
    lines = live_runs.log_of(live, batch.runs["flood"].id)
    numbers = [int(line) for line in lines if line.isdecimal()]
    assert numbers[:5000] == list(range(1, 5001))
    assert numbers[-200:] == list(range(999_801, 1_000_001))
    left_out = [int(line.split()[1]) for line in lines if "lines left out here" in line]
    assert sum(left_out) + len(numbers) == 1_000_000


def test_a_job_that_succeeds_the_third_time(batch: Batch) -> None:
    run = batch.runs["third-time"]
    assert (run.state_type, run.run_count) == ("COMPLETED", 3)
    manifest = batch.manifest("third-time")
    assert (manifest["status"], manifest["attempt"]) == ("success", 3)
    assert [(one["attempt"], one["status"]) for one in manifest["attempts"]] == [
        (1, "failed"),
        (2, "failed"),
        (3, "success"),
    ]
    for attempt in (1, 2, 3):
        assert live_runs.attempt_log(batch.project, run.name, attempt) == "attempt\n"
    events = events_of(batch.project, run.name)
    assert [(event["attempt"], event["status"]) for event in events] == [
        (1, "running"),
        (1, "failed"),
        (2, "running"),
        (2, "failed"),
        (3, "running"),
        (3, "success"),
    ]
    assert live_runs.line_of(batch.project, run.name)["status"] == "success"


def events_of(project: Project, run_id: str) -> list[dict[str, Any]]:
    text = "".join(path.read_text() for path in sorted(project.data_root.glob("manifests/events/*")))
    return [event for event in map(json.loads, text.splitlines()) if event["run_id"] == run_id]


def test_a_job_out_of_retries_says_why(live: Live, batch: Batch) -> None:
    run = batch.runs["leaky_job"]
    assert (run.state_type, run.run_count) == ("FAILED", 2)
    assert run.state_message is not None
    assert f"leaky_job failed: exit code 7 (run {run.name})" in run.state_message
    artifact = live_runs.artifacts(live, "leaky-job-failure")[0]
    assert artifact["type"] == "markdown"
    assert "tail: ***" in artifact["data"]
    (path,) = batch.project.data_root.glob(f"manifests/*/*/run={run.name}/manifest.json")
    assert f"`{path}`" in artifact["data"]


def test_two_runs_by_hand_for_one_slot(batch: Batch) -> None:
    assert (batch.project.root / "once").read_text() == "x\n"
    runs = {run.state_name: run for name, run in batch.runs.items() if name.startswith("same-")}
    assert set(runs) == {"Completed", "Skipped"}
    assert runs["Skipped"].state_message == f"the slot was claimed by run {runs['Completed'].name}"
    assert batch.project.manifest(runs["Completed"].name)["trigger"] == "catchup"


def test_a_run_that_finds_the_job_going_is_skipped_and_says_by_which(batch: Batch) -> None:
    runs = {run.state_name: run for name, run in batch.runs.items() if name.startswith("crowded-")}
    assert set(runs) == {"Completed", "Skipped"}
    assert (runs["Skipped"].state_message or "").startswith(f"the job is locked by run {runs['Completed'].name} ")
    assert len(list(batch.project.data_root.glob("manifests/crowded/*/*/manifest.json"))) == 2


def test_no_secret_is_kept_anywhere(live: Live, batch: Batch) -> None:
    told = [json.dumps(live_runs.artifacts(live, "leaky-job-failure"))]
    for name in ("leaky_job", "watched"):
        run = batch.runs[name]
        told += [*live_runs.log_of(live, run.id), run.state_message or ""]
    told += [
        path.read_text() for path in batch.project.data_root.rglob("*") if path.is_file() and "flood" not in str(path)
    ]
    assert any("would have run scripts/leak.sh" in text for text in told)
    assert not [text for text in told if PASSWORD in text or URL_PASSWORD in text]


def test_hostile_parameters_fail_and_touch_nothing(live: Live, batch: Batch) -> None:
    for name in BAD:
        run = batch.runs[f"bad-{name}"]
        assert run.state_type == "FAILED", name
        assert not list(batch.project.data_root.glob(f"manifests/bad-{name}")), name
    assert "has no job '../../etc/passwd'" in (batch.runs["bad-job"].state_message or "")
    assert "was applied on this host" in (batch.runs["bad-digest"].state_message or "")
    assert "is not a date" in (batch.runs["bad-date"].state_message or "")
    assert "is not an instant" in (batch.runs["bad-slot"].state_message or "")
    known = {"config", "scripts", "data", "state", "tries", "once"}
    assert {path.name for path in batch.project.root.iterdir()} <= known


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("no tmpfs may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disks(live: Live, project: Project, small_disk: Path) -> None:
    fill = "dd if=/dev/zero of=$ORCHCTL_DATA_ROOT/filler bs=1k count=128 2>/dev/null; true"
    blocked = project.root / "a-file"
    blocked.write_text("in the way")
    project.jobs = {
        "unstartable": {"command": ["touch", "started"], "data_root": str(blocked)},
        "filling": {"command": [project.script("fill.sh", fill)], "data_root": str(small_disk)},
        "full": {"command": ["touch", "started"], "data_root": str(small_disk)},
    }
    project.write()
    project.orchctl("sync")
    runs = {name: live_runs.ask(live, name) for name in ("unstartable", "filling")}
    ends = {name: live_runs.finished(live, run.id) for name, run in runs.items()}
    ends["full"] = live_runs.finished(live, live_runs.ask(live, "full").id)
    assert ends["filling"].state_type == "COMPLETED"
    assert "not recorded: cannot write" in (ends["filling"].state_message or "")
    assert "No space left" in (ends["filling"].state_message or "")
    for name in ("unstartable", "full"):
        assert ends[name].state_type == "FAILED"
        assert "cannot write" in (ends[name].state_message or "")
    assert not (project.root / "started").exists()
