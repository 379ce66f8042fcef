"""Inputs of steps: as of the run, recorded, and a gap is never passed over in silence."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dag import StepsDesk
from desk import SLOT
from orchctl.adapters import inputs as disk
from orchctl.core.names import format_instant, run_id


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    return StepsDesk(tmp_path)


def snapshot(desk: StepsDesk, text: str, *, content: str = "x", mtime: float | None = None) -> Path:
    path = desk.data / "rosters" / f"run_ts={text}" / "roster.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


ROSTER = {"name": "roster", "path": "{data_root}/rosters/run_ts={snapshot_ts}/roster.csv"}


def read(desk: StepsDesk, **fields: Any) -> Any:
    desk.lines["a"] = "cat $ORCHCTL_INPUT_ROSTER"
    return desk.go(desk.steps_job(desk.step("a", inputs=({**ROSTER, **fields},))))


def test_the_newest_snapshot_as_of_the_run_is_read_and_recorded(desk: StepsDesk) -> None:
    snapshot(desk, "20251219T030000Z", content="old", mtime=2e9)
    chosen = snapshot(desk, "2025-12-19T05:00:00Z", content="right", mtime=1e9)
    snapshot(desk, "20251219T050001Z", content="from the future", mtime=0)
    pointer = desk.data / "rosters" / "latest_run.json"
    pointer.write_text("{}")
    assert read(desk).status == "success"
    assert (desk.step_folder("a") / "attempt-1.log").read_text().strip() == "right"
    (recorded,) = desk.step_manifest("a")["inputs"]
    assert recorded["path"] == str(chosen)
    assert (recorded["snapshot_ts"], recorded["file_count"], recorded["size_bytes"]) == ("2025-12-19T05:00:00Z", 1, 5)
    assert (recorded["mtime"], recorded["row_count"], recorded["gap"]) == ("2001-09-09T01:46:40Z", None, None)
    assert recorded["pointer_sha256"] == "sha256:" + hashlib.sha256(b"{}").hexdigest()


def test_a_snapshot_without_its_file_is_passed_over(desk: StepsDesk) -> None:
    snapshot(desk, "20251219T030000Z", content="whole")
    (desk.data / "rosters" / "run_ts=20251219T040000Z").mkdir()
    assert read(desk).status == "success"
    assert desk.step_manifest("a")["inputs"][0]["snapshot_ts"] == "2025-12-19T03:00:00Z"


@pytest.mark.parametrize(
    ("missing", "status", "step"),
    [("fail", "failed", "failed"), ("warn", "success", "success"), ("skip", "success", "skipped")],
)
def test_a_gap_follows_missing(desk: StepsDesk, missing: str, status: str, step: str) -> None:
    snapshot(desk, "20251219T050001Z")
    desk.lines = {"a": 'test -z "$ORCHCTL_INPUT_ROSTER"'}
    job = desk.steps_job(
        desk.step("a", retries=2, inputs=({**ROSTER, "missing": missing},)), desk.step("child", "a"), desk.step("apart")
    )
    outcome = desk.go(job)
    manifest = desk.step_manifest("a")
    assert (outcome.status, manifest["status"], manifest["attempt"]) == (status, step, 1)
    assert manifest["inputs"][0]["gap"].startswith("no snapshot at or before 2025-12-19T05:00:00Z at ")
    children = {
        "fail": ("skipped", "upstream failed: a"),
        "warn": ("success", None),
        "skip": ("skipped", "upstream skipped: a"),
    }
    assert (desk.statuses()["child"], desk.reasons()["child"]) == children[missing]
    assert desk.statuses()["apart"] == "success"
    if missing == "fail":
        assert manifest["error"]["class"] == "input"
        assert manifest["error"]["message"].startswith("missing input roster: no snapshot")


def test_a_plain_path_and_its_words(desk: StepsDesk) -> None:
    (desk.data / "x").mkdir()
    (desk.data / "x" / "2025-12-19").write_text("1")
    job = desk.steps_job(
        desk.step("a", command=("cat", "{inputs.x-y}"), inputs=({"name": "x-y", "path": "{data_root}/x/{game_date}"},))
    )
    assert desk.go(job).status == "success"


def test_a_folder_that_may_not_be_read_is_no_gap(desk: StepsDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(desk, "20251219T030000Z")
    (desk.data / "rosters").chmod(0)
    if os.geteuid() == 0:  # who may look everywhere

        def denied(folder: str) -> list[str]:
            raise PermissionError(13, "Permission denied", folder)

        monkeypatch.setattr(disk, "names_in", denied)
    outcome = read(desk, missing="skip")
    (desk.data / "rosters").chmod(0o755)
    assert outcome.status == "failed"
    assert desk.step_manifest("a")["error"]["class"] == "permission"


# --- what a step reads of another

PLACE = "{data_root}/gold/{step}/{game_date}/run={run_id}"


def two_steps(desk: StepsDesk, **fields: Any) -> Any:
    desk.lines["make"] = desk.lines.get("make", "echo $ORCHCTL_RUN_ID > $ORCHCTL_STAGING/it")
    desk.lines["read"] = "cat $ORCHCTL_INPUT_MADE/it"
    return desk.steps_job(
        desk.step("make", publish={"to": PLACE}, **fields),
        desk.step("read", inputs=({"name": "made", "step": "make"},)),
    )


def test_an_input_of_a_step_is_what_it_published_in_this_run(desk: StepsDesk) -> None:
    assert desk.go(two_steps(desk)).status == "success"
    own = run_id(SLOT, "one")
    assert (desk.step_folder("read") / "attempt-1.log").read_text() == f"{own}\n"
    (recorded,) = desk.step_manifest("read")["inputs"]
    made = desk.step_manifest("make")["publish"]
    assert (recorded["step"], recorded["run_id"], recorded["digest"]) == ("make", own, made["digest"])
    assert recorded["path"] == made["to"] == str(desk.data / f"gold/make/2025-12-19/run={own}")
    assert recorded["pointer_sha256"] is not None
    assert desk.told_of("make") == ["step_started", "promoted", "pointer_moved", "pointer_moved", "step_finished"]
    assert not list(desk.step_folder("make").glob("_staging/*"))


def test_an_optional_step_that_failed_leaves_a_gap(desk: StepsDesk) -> None:
    desk.lines["make"] = "exit 1"
    outcome = desk.go(two_steps(desk, optional=True))
    assert outcome.status == "failed"
    assert desk.reasons()["read"] == "missing input made: step make published nothing in this run"


def test_a_step_that_is_not_run_is_read_as_of_the_run(desk: StepsDesk) -> None:
    job = two_steps(desk)
    for number, as_of in enumerate([-2, -1, 1]):
        assert desk.go(job, f"r{number}", slot=None, as_of=SLOT + timedelta(hours=as_of)).status == "success"
    assert desk.go(job, "last", slot=None, as_of=SLOT, steps=("read",)).status == "success"
    (recorded,) = desk.step_manifest("read", "last")["inputs"]
    assert recorded["run_id"] == run_id(SLOT, "r1")
    assert recorded["snapshot_ts"] == format_instant(SLOT - timedelta(hours=1))
    outcome = desk.go(job, "before all", slot=None, as_of=SLOT - timedelta(days=1), steps=("read",))
    assert outcome.reason == (
        "step read failed: missing input made: step make has no success for 2025-12-19 "
        "as of 2025-12-18T05:00:00Z or before"
    )


# --- what is published, and when production reads it

POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"policy": "always"}, "moved"),
    ({"policy": "manual"}, "not published: moved by hand only"),
    ({"policy": "window", "until": "2025-12-19T06:00:00Z"}, "moved"),
    ({"policy": "window", "until": "2025-12-19T04:00:00Z"}, "not published: after 2025-12-19T04:00:00Z"),
    ({"policy": "window", "until": "lock"}, "not published: after lock (2025-12-19T05:00:00Z)"),
]


@pytest.mark.parametrize(("rule", "current"), POLICIES)
def test_the_policy_of_publishing(desk: StepsDesk, rule: dict[str, Any], current: str) -> None:
    desk.lines["make"] = "echo 1 > $ORCHCTL_STAGING/it"
    desk.changes["as_of"] = lambda *_: SLOT
    job = desk.steps_job(desk.step("make", publish={"to": PLACE, **rule}), as_of={"lock": {"command": ("date",)}})
    assert desk.go(job).status == "success"
    assert desk.step_manifest("make")["publish"]["current"] == current
    assert (desk.data / "gold/make/2025-12-19/current_run.json").exists() is (current == "moved")
    assert (desk.data / "gold/make/2025-12-19/latest_run.json").exists()


def test_a_step_that_makes_nothing_fails_to_publish_and_is_not_tried_again(desk: StepsDesk) -> None:
    desk.lines["make"] = "true"
    outcome = desk.go(desk.steps_job(desk.step("make", publish={"to": PLACE}, retries=3)))
    error = desk.step_manifest("make")["error"]
    assert (outcome.status, error["class"], desk.step_manifest("make")["attempt"]) == ("failed", "publish", 1)
    assert not (desk.data / "gold/make/2025-12-19/latest_run.json").exists()


CONTRACT = {"columns": {"p50": {"dtype": "number", "max": 48}, "name": {"dtype": "string"}}, "strict": True}


def csv_to_parquet(text: str, path: str) -> str:
    return f"{os.sys.executable} -c \"import polars as p; p.read_csv(b'''{text}''').write_parquet('{path}')\""  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "status"), [("p50,name\\n48,a\\n", "success"), ("p50,name\\n49,a\\n", "failed")])
def test_a_broken_contract_publishes_nothing_and_is_not_tried_again(desk: StepsDesk, rows: str, status: str) -> None:
    pytest.importorskip("pandera")
    from orchctl.core.contracts import ContractTable

    desk.contracts["rates"] = ContractTable.model_validate(CONTRACT)
    desk.lines["make"] = csv_to_parquet(rows, "'+__import__('os').environ['ORCHCTL_STAGING']+'/r.parquet")
    job = desk.steps_job(
        desk.step("make", publish={"to": PLACE}, contracts=({"contract": "rates"},), retries=2),
        desk.step(
            "read", inputs=({"name": "made", "step": "make"},), contracts=({"contract": "rates", "input": "made"},)
        ),
    )
    assert desk.go(job).status == status
    manifest = desk.step_manifest("make")
    (checked,) = manifest["checks"]
    assert manifest["attempt"] == 1
    published = desk.data / f"gold/make/2025-12-19/run={run_id(SLOT, 'one')}"
    assert published.exists() is (status == "success")
    if status == "success":
        assert checked["status"] == "ok"
        assert desk.step_manifest("read")["inputs"][0]["row_count"] == 1
        assert len(desk.step_manifest("read")["checks"]) == 1
    else:
        assert manifest["error"]["type"] == "ContractBroken"
        assert manifest["error"]["class"] == "contract"
        assert manifest["error"]["message"].startswith("contract broken: rates: ")
        assert "contract_checked" in desk.told_of("make")
        assert desk.reasons()["read"] == "upstream failed: make"
