"""Links, pipes, paths and modes in places where somebody could put them: nothing is written or told through them.

What is tried against single files elsewhere is not tried again here: tests/thorough/test_state_mutations.py (owner,
claim, mark and journal), test_belief.py (the catalog), test_belief_manifests.py, test_publish.py (staging, pointers).
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dag import DAY, StepsDesk, chain
from desk import DIGEST, SLOT, Desk
from orchctl.adapters import host_lock, staging
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.claims import Claims, Locks
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core.deployments import PARAMETER_SCHEMA
from orchctl.core.handover_journal import Opened
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import NotAllowed, OrchctlError, StateBroken
from orchctl.runner import guard
from orchctl.runner.job import execute, look_up
from orchctl.runner.shapes import Request

RUN = run_id(SLOT, "one")
SECRET = "root:$6$what-only-root-may-read"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(0o700)
    return made


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder that an attacker reads."""
    made = tmp_path / "theirs"
    made.mkdir()
    return made


def claim(state: Path) -> object:
    return Claims(state).take("job", SLOT, run_id=RUN, flow_run_id="one", at=SLOT)


def own(state: Path) -> object:
    return Owners(state).create("job", Owner(SLOT, draining=False), still=lambda: True)


def hand_over(state: Path) -> object:
    opened = Opened(RUN, "cutover", "job", SLOT, "cutover", Snapshot())
    Handovers(state).begin(opened)
    return opened


WRITERS = {"slots/job": claim, "owners": own, "handovers": hand_over}


# --- the state directory


@pytest.mark.parametrize("folder", WRITERS)
def test_nothing_is_written_through_a_folder_that_is_a_link(state: Path, theirs: Path, folder: str) -> None:
    (state / folder).parent.mkdir(exist_ok=True)
    (state / folder).symlink_to(theirs)
    with pytest.raises(StateBroken):
        WRITERS[folder](state)
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("folder", WRITERS)
def test_nothing_is_written_into_a_folder_that_others_may_write(state: Path, folder: str) -> None:
    (state / folder).mkdir(parents=True)
    (state / folder).chmod(0o777)
    with pytest.raises(StateBroken, match="may be written by others"):
        WRITERS[folder](state)
    assert list((state / folder).iterdir()) == []


@pytest.mark.parametrize("folder", WRITERS)
def test_a_state_directory_that_others_may_write_holds_no_truth(state: Path, folder: str) -> None:
    WRITERS[folder](state)
    state.chmod(0o777)
    with pytest.raises(StateBroken, match="the state directory cannot be believed") as caught:
        Claims(state).read("job", SLOT)
    assert caught.value.hint == f"look at what it says, then: chmod go-w {state}"
    with pytest.raises(StateBroken):
        Owners(state).read("job")
    with pytest.raises(StateBroken):
        WRITERS[folder](state)


def test_a_lock_in_a_folder_that_others_may_write_is_none(state: Path) -> None:
    (state / "locks").mkdir()
    (state / "locks").chmod(0o777)
    with pytest.raises(StateBroken, match="may be written by anybody"):
        Locks(state).try_take("job", run_id=RUN, pid=1)
    state.chmod(0o777)
    with pytest.raises(StateBroken, match="may be written by anybody"), host_lock.held(state, "sync"):
        pass


@pytest.mark.parametrize("what", ["fifo", "folder", "link", "device"])
def test_what_is_no_file_is_no_lock(state: Path, theirs: Path, what: str) -> None:
    (state / "locks").mkdir(0o700)
    path = state / "locks" / "job.lock"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if what == "device" else theirs / "file")
    with pytest.raises((StateBroken, NotAllowed)):
        Locks(state).try_take("job", run_id=RUN, pid=1)
    assert list(theirs.iterdir()) == []


# --- manifests and logs


def test_output_is_not_written_through_a_link_in_the_place_of_the_log(tmp_path: Path, theirs: Path) -> None:
    desk = Desk(tmp_path)
    victim = theirs / "victim"
    victim.write_text("before")
    folder = desk.tree.run_directory("job", DAY, RUN)
    folder.mkdir(parents=True)
    (folder / "attempt-1.log").symlink_to(victim)
    assert desk.run(desk.job("echo", "owned")).status == "success"
    assert victim.read_text() == "before"
    assert any(line.startswith("the log is not whole: cannot write") for line in desk.log)


def test_a_manifest_replaces_a_link_and_not_what_it_leads_to(tmp_path: Path, theirs: Path) -> None:
    desk = Desk(tmp_path)
    victim = theirs / "victim"
    victim.write_text("{}")
    folder = desk.tree.run_directory("job", DAY, RUN)
    folder.mkdir(parents=True)
    (folder / "manifest.json").symlink_to(victim)
    assert desk.run(desk.job("true")).status == "success"
    assert victim.read_text() == "{}"
    assert not (folder / "manifest.json").is_symlink()


def test_events_are_not_appended_through_a_link_and_then_nothing_runs(tmp_path: Path, theirs: Path) -> None:
    desk = Desk(tmp_path)
    (desk.data / "manifests" / "events").mkdir(parents=True)
    (desk.data / "manifests" / "events" / "2025-12-19.jsonl").symlink_to(theirs / "victim")
    with pytest.raises(OrchctlError):
        desk.run(desk.job())
    assert (desk.ran(), list(theirs.iterdir())) == (0, [])


@pytest.mark.parametrize("what", ["link", "fifo"])
def test_a_log_is_not_shown_or_copied_through_a_link(tmp_path: Path, theirs: Path, what: str) -> None:
    secret, log = theirs / "shadow", tmp_path / "attempt-1.log"
    secret.write_text(SECRET)
    if what == "link":
        log.symlink_to(secret)
        with pytest.raises(OrchctlError):
            Manifests.read_log(log, 0)
        assert guard._tail(log) is None
    else:
        os.mkfifo(log)
        assert not guard._tail(log)


def test_names_in_a_manifest_lead_nowhere_else(tmp_path: Path, theirs: Path) -> None:
    desk = StepsDesk(tmp_path)
    assert desk.go(desk.steps_job(*chain(desk, ["a"]))).status == "success"
    whole = desk.step_manifest("a")
    below = Path(f"game_date={DAY}") / f"run={RUN}"
    (theirs / below).mkdir(parents=True)
    (theirs / below / "manifest.json").write_text(json.dumps({**whole, "reason": SECRET}))
    forged: dict[str, Any] = {**desk.manifest(), "steps": [{"name": "../../theirs"}, {"name": str(theirs)}]}
    assert desk.tree.steps_of(forged) == []
    folder = desk.tree.run_directory("job", DAY, RUN)
    (folder / "manifest.json").write_text(json.dumps(forged))
    assert desk.tree.step_directories(folder) == {}


@pytest.mark.parametrize("field", ["run_id", "job", "asset", "game_date"])
@pytest.mark.parametrize("value", ["../../../etc", "/etc", "a/b", f"{RUN}/../../x", "..", ""])
def test_events_that_name_other_places_are_none(tmp_path: Path, field: str, value: str) -> None:
    desk = Desk(tmp_path)
    assert desk.run(desk.job("true")).status == "success"
    (path,) = (desk.data / "manifests" / "events").iterdir()
    event = json.loads(path.read_text().splitlines()[-1])
    path.write_text(json.dumps({**event, field: value}) + "\n")
    day = datetime.fromisoformat(event["ts"]).date()
    skipped: list[Any] = []
    assert list(Manifests(str(desk.data)).events(day, skipped=skipped)) == []
    assert len(skipped) == 1


def test_a_run_is_not_found_by_a_path(tmp_path: Path) -> None:
    from orchctl.errors import UsageError
    from orchctl.services import runs

    for reference in ("../../../etc/passwd", f"{RUN}/../x", "/etc/passwd", "run=*", RUN[:-1] + "/"):
        with pytest.raises(UsageError):
            runs.find([Manifests(str(tmp_path))], reference, timezone="UTC", now=SLOT)


# --- staging


@pytest.mark.parametrize("path", ["/etc", "{data}", "{data}/manifests", "{data}/manifests/_staging", "{data}/gold"])
def test_a_forged_registration_lets_nothing_be_removed(tmp_path: Path, path: str) -> None:
    data = tmp_path / "data"
    registry = data / "manifests" / "_staging"
    registry.mkdir(parents=True)
    (data / "gold").mkdir()
    name = "01234567-89ab-4def-8123-456789abcdef"
    record = {"path": path.format(data=data), "hostname": "x", "boot_id": "x", "pid": 1, "pid_started": 1}
    (registry / f"{name}.json").write_text(json.dumps({**record, "since": "2020-01-01T00:00:00Z"}))
    staging.sweep(str(data), now=datetime.now(UTC))
    assert (data / "gold").is_dir()
    assert (registry / f"{name}.json").exists()


def test_what_staging_leads_to_stays_where_a_link_is_swept(tmp_path: Path, theirs: Path) -> None:
    (theirs / "kept").write_text("kept")
    folder = tmp_path / "data" / "manifests" / "a" / "_staging" / "01234567-89ab-4def-8123-456789abcdef"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(theirs)
    staging.close_staging(folder)
    assert not folder.exists()
    assert (theirs / "kept").read_text() == "kept"


# --- the API: a flow run's parameters choose among what the catalog says, and say nothing themselves


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "latest",
        "../../theirs/x",
        "sha256:" + "b" * 64,
        "sha256:../../theirs/x",
        "sha256:" + "A" * 64,
        "/etc/passwd",
    ],
)
def test_a_digest_leads_to_what_was_applied_here_or_nowhere(state: Path, theirs: Path, digest: str) -> None:
    (theirs / "x.json").write_text("{}")
    assert AppliedCatalogs(state).read(digest) is None
    request = Request("job", digest, "one", SLOT, 1, None, "manual")
    with pytest.raises(StateBroken, match="was applied on this host"):
        look_up(request, cast("Any", SimpleNamespace(applied=AppliedCatalogs(state))))


@pytest.mark.parametrize("job", ["", "../job", "job/../job", "/bin/sh", "job;true", "other"])
def test_a_job_is_one_of_the_catalog_or_none(tmp_path: Path, job: str) -> None:
    desk = Desk(tmp_path)
    request = Request(job, DIGEST, "one", SLOT, 1, None, "manual")
    with pytest.raises(StateBroken, match="has no job"):
        execute(request, desk.host(desk.job()), desk.log.append)
    assert (desk.ran(), list(desk.data.iterdir())) == (0, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"partition": {"group": "../../etc"}},
        {"partition": {"group": "--evil"}},
        {"partition": {"group": "a b"}},
        {"partition": {"group": "$(true)"}},
        {"partition": {"group": "x\n"}},
        {"partition": {"command": "sh"}},
        {"partition": {"data_root": "/etc"}},
        {"steps": ("../a",)},
        {"steps": ("a", "/bin/sh")},
        {"from_step": "sh"},
    ],
)
def test_what_else_a_run_is_asked_with_is_refused_where_the_catalog_does_not_know_it(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    desk = StepsDesk(tmp_path)
    job = desk.steps_job(desk.step("a"), partition={"group": {"default": "all"}})
    outcome = desk.go(job, slot=None, trigger="manual", **fields)
    assert (outcome.status, desk.ran()) == ("failed", 0)
    assert {path.name for path in desk.data.iterdir()} == {"manifests"}


def test_the_parameters_of_a_flow_run_hold_no_command() -> None:
    assert set(PARAMETER_SCHEMA["properties"]) == {
        "job", "digest", "game_date", "run_as_of_ts", "slot", "execution", "steps", "from_step", "backfill",
        "as_of_mode", "partition",
    }  # fmt: skip
