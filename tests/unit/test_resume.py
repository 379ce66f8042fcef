"""A further attempt at a run: what has succeeded and is still there is kept, everything else runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dag import StepsDesk, chain
from desk import SLOT
from orchctl.adapters import pointers
from orchctl.core.catalog import Job
from orchctl.core.names import run_id
from orchctl.errors import PublishError
from orchctl.runner.shapes import Outcome

PLACE = "{data_root}/gold/{step}/{game_date}/run={run_id}"


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    return StepsDesk(tmp_path)


def again(desk: StepsDesk, job: Job, attempt: int = 2, **fields: Any) -> tuple[Outcome, list[str]]:
    """Run the same run once more; return what came of it, and which steps ran."""
    before = len(desk.began())
    outcome = desk.go(job, attempt=attempt, **fields)
    return outcome, desk.began()[before:]


def mended(desk: StepsDesk) -> Job:
    """A chain whose middle step fails until a file is there, with a sibling; each publishes a file of its own."""
    for name in ("a", "b", "c", "side"):
        desk.lines[name] = f"echo {name} > $ORCHCTL_STAGING/it"
    desk.lines["b"] = f"test -e {desk.root}/mended && {desk.lines['b']}"
    place = {"publish": {"to": PLACE}}
    return desk.steps_job(
        desk.step("a", **place),
        desk.step("b", inputs=({"name": "a", "step": "a"},), **place),
        desk.step("c", "b", **place),
        desk.step("side", "a", **place),
    )


def test_a_retry_runs_what_failed_and_what_it_skipped_and_nothing_else(desk: StepsDesk) -> None:
    job = mended(desk)
    assert desk.go(job).status == "failed"
    (desk.root / "mended").touch()
    outcome, ran = again(desk, job)
    assert (outcome.status, ran) == ("success", ["b", "c"])
    assert desk.statuses() == {"a": "kept", "b": "success", "c": "success", "side": "kept"}
    assert desk.reasons()["a"] == "the success of attempt 1 still stands"
    assert [row["attempts"] for row in desk.manifest()["steps"]] == [1, 2, 1, 1]
    assert [one["status"] for one in desk.step_manifest("b")["attempts"]] == ["failed", "success"]
    assert desk.step_manifest("a")["attempt"] == 1
    assert desk.told_of("a")[-1] == "step_kept"
    # And once more there is nothing left to do.
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran, set(desk.statuses().values())) == ("success", [], {"kept"})


def test_from_a_step_on_all_that_needs_it_runs_again(desk: StepsDesk) -> None:
    (desk.root / "mended").touch()
    job = mended(desk)
    assert desk.go(job).status == "success"
    outcome, ran = again(desk, job, from_step="b")
    assert (outcome.status, ran) == ("success", ["b", "c"])
    assert desk.statuses() == {"a": "kept", "b": "success", "c": "success", "side": "kept"}


def published(desk: StepsDesk, step: str) -> Path:
    return desk.data / f"gold/{step}/2025-12-19/run={run_id(SLOT, 'one')}/it"


def test_what_was_published_and_is_gone_is_made_again(desk: StepsDesk) -> None:
    (desk.root / "mended").touch()
    job = mended(desk)
    assert desk.go(job).status == "success"
    place = published(desk, "a")
    place.unlink()
    place.parent.rmdir()
    # Byte for byte the same, so that what has read it stands.
    assert again(desk, job)[1] == ["a"]
    assert place.read_text() == "a\n"


def test_what_was_published_and_is_changed_is_not_kept(desk: StepsDesk) -> None:
    (desk.root / "mended").touch()
    job = mended(desk)
    assert desk.go(job).status == "success"
    published(desk, "side").write_text("else\n")
    outcome, ran = again(desk, job)
    assert (outcome.status, ran) == ("failed", ["side"])
    assert desk.step_manifest("side")["error"]["class"] == "publish"
    assert published(desk, "side").read_text() == "else\n"


@pytest.mark.parametrize("what", ["changed", "gone", "touched", "kept"])
def test_declared_outputs_must_be_unchanged(desk: StepsDesk, what: str) -> None:
    desk.lines["a"] = f"echo one > {desk.data}/out"
    job = desk.steps_job(desk.step("a", outputs=("{data_root}/out",)), desk.step("b", "a"))
    assert desk.go(job).status == "success"
    path = desk.data / "out"
    if what == "changed":
        path.write_text("another\n")
    elif what == "gone":
        path.unlink()
    elif what == "touched":
        path.touch()
    assert again(desk, job)[1] == ([] if what == "kept" else ["a"])


def test_an_optional_step_that_failed_is_tried_again_and_who_reads_it_runs_anew(desk: StepsDesk) -> None:
    desk.lines["sim"] = f"test -e {desk.root}/mended && echo 1 > $ORCHCTL_STAGING/it"
    job = desk.steps_job(
        desk.step("sim", optional=True, publish={"to": PLACE}),
        desk.step("reads", inputs=({"name": "sim", "step": "sim", "missing": "warn"},)),
        desk.step("after", "sim"),
    )
    assert desk.go(job).status == "success"
    assert desk.statuses()["sim"] == "warned"
    (desk.root / "mended").touch()
    assert again(desk, job)[1] == ["sim", "reads"]


def test_a_step_that_was_left_running_runs_again(desk: StepsDesk) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b", "c"]))
    assert desk.go(job).status == "success"
    path = desk.step_folder("b") / "manifest.json"
    # As kill -9 of the run's process leaves it.
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running", "attempts": []}))
    assert again(desk, job)[1] == ["b"]
    assert (desk.step_manifest("b")["attempt"], desk.step_manifest("b")["status"]) == (2, "success")


def test_a_torn_manifest_is_no_success(desk: StepsDesk) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b"]))
    assert desk.go(job).status == "success"
    (desk.step_folder("a") / "manifest.json").write_text("{")
    assert again(desk, job)[1] == ["a"]


def test_a_success_that_a_later_attempt_does_not_come_to_is_not_lost(desk: StepsDesk) -> None:
    """`late` succeeds at once; then what it needs runs again and fails, and so it is skipped."""
    (desk.root / "mended").touch()
    job = mended(desk)
    assert desk.go(job).status == "success"
    (published(desk, "b").parent / "more").touch()
    (desk.root / "mended").unlink()
    outcome, _ = again(desk, job)
    assert (outcome.status, desk.statuses()["c"]) == ("failed", "skipped")
    assert (desk.step_manifest("c")["status"], desk.told_of("c")[-1]) == ("success", "step_finished")
    (desk.root / "mended").touch()
    (published(desk, "b").parent / "more").unlink()
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran) == ("success", ["b"])
    assert desk.statuses()["c"] == "kept"


def test_who_asks_for_a_step_again_can_go_back_to_what_it_published(desk: StepsDesk) -> None:
    desk.lines["a"] = "cat /proc/sys/kernel/random/uuid > $ORCHCTL_STAGING/it"
    job = desk.steps_job(desk.step("a", publish={"to": PLACE}))
    desk.go(job)
    before = published(desk, "a").read_text()
    outcome, ran = again(desk, job, from_step="a")
    assert (outcome.status, ran) == ("failed", ["a"])
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran, published(desk, "a").read_text()) == ("success", [], before)


def test_a_success_whose_outputs_were_not_looked_at_yet_stands(desk: StepsDesk) -> None:
    job = desk.steps_job(desk.step("a", outputs=("{data_root}/a",)))
    desk.go(job)
    path = desk.step_folder("a") / "manifest.json"
    path.write_text(json.dumps({**desk.step_manifest("a"), "outputs": None}))
    assert again(desk, job)[1] == []


def stopped_before_its_pointers(desk: StepsDesk, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run a step whose bytes differ each time, and which fails once its files are in their place."""
    desk.lines["a"] = "cat /proc/sys/kernel/random/uuid > $ORCHCTL_STAGING/it"
    job = desk.steps_job(desk.step("a", publish={"to": PLACE}))

    def broken(*_: Any, **__: Any) -> Any:
        raise PublishError("no pointer can be written")

    with monkeypatch.context() as patch:
        patch.setattr(pointers, "move", broken)
        assert desk.go(job).status == "failed"
    assert desk.step_manifest("a")["promoting"]["to"] == str(published(desk, "a").parent)
    return job


def test_what_was_promoted_and_not_finished_is_taken_as_it_is(desk: StepsDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stopped_before_its_pointers(desk, monkeypatch)
    before = published(desk, "a").read_text()
    outcome, ran = again(desk, job)
    assert (outcome.status, ran) == ("success", [])
    assert published(desk, "a").read_text() == before
    made = desk.step_manifest("a")
    assert (made["publish"]["latest"], "promoting" in made) == ("moved", False)
    assert json.loads((published(desk, "a").parents[1] / "latest_run.json").read_text())["run_id"] == outcome.run_id
    assert again(desk, job, 3)[1] == []


def test_what_is_not_what_was_announced_is_not_taken(desk: StepsDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stopped_before_its_pointers(desk, monkeypatch)
    published(desk, "a").write_text("other")
    outcome, ran = again(desk, job)
    assert (outcome.status, ran) == ("failed", ["a"])
    assert "is there with other files" in (outcome.reason or "")
    assert published(desk, "a").read_text() == "other"


def test_reindex_knows_the_events_of_steps(desk: StepsDesk) -> None:
    from orchctl.services import runs

    desk.lines["b"] = f"test -e {desk.root}/again || (touch {desk.root}/again; exit 4)"
    job = desk.steps_job(desk.step("a"), desk.step("b", retries=1))
    desk.go(job)
    told = [(one.get("step"), one["event"], one["attempt"]) for one in desk.all_events()]
    assert runs.reindex([desk.tree]).added == 0
    for path in desk.data.glob("manifests/events/*"):
        path.unlink()
    found = runs.reindex([desk.tree])
    assert (found.manifests, found.added, found.skipped) == (3, len(told) - 1, ())
    rebuilt = [(one.get("step"), one["event"], one["attempt"]) for one in desk.all_events()]
    assert sorted(rebuilt, key=str) == sorted((one for one in told if one[1] != "step_retry"), key=str)
    assert runs.reindex([desk.tree]).added == 0


# What cannot be read is neither there nor gone: it is an error of the run, and nothing is made over it.


def unreadable(path: Path) -> bytes:
    """Put a symlink to itself in a file's place, which not even root can read; return what was there."""
    before = path.read_bytes()
    path.unlink()
    path.symlink_to(path.name)
    return before


def readable(path: Path, before: bytes) -> None:
    path.unlink()
    path.write_bytes(before)


@pytest.mark.parametrize("from_step", [None, "a"])
def test_a_manifest_that_cannot_be_read_is_no_step_that_was_never_run(desk: StepsDesk, from_step: str | None) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b"]))
    assert desk.go(job).status == "success"
    path = desk.step_folder("a") / "manifest.json"
    before = unreadable(path)
    outcome, ran = again(desk, job, from_step=from_step)
    assert (outcome.status, ran, desk.statuses()) == ("failed", [], {"a": "failed", "b": "skipped"})
    assert f"{path} cannot be read: Too many levels of symbolic links" in (outcome.reason or "")
    assert path.is_symlink()
    readable(path, before)
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran) == ("success", [])


def test_a_manifest_that_may_not_be_read_is_of_class_permission(
    desk: StepsDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b"]))
    assert desk.go(job).status == "success"
    path = desk.step_folder("a") / "manifest.json"
    whole = Path.read_bytes

    def read(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        outcome, ran = again(desk, job)
    assert (outcome.status, ran, desk.manifest()["error"]["class"]) == ("failed", [], "permission")
    assert desk.step_manifest("a")["status"] == "success"


def test_published_files_that_may_not_be_read_have_not_changed(desk: StepsDesk) -> None:
    desk.lines["a"] = "echo a > $ORCHCTL_STAGING/it"
    job = desk.steps_job(desk.step("a", publish={"to": PLACE}))
    assert desk.go(job).status == "success"
    published(desk, "a").chmod(0)
    outcome, ran = again(desk, job)
    assert (outcome.status, ran, desk.manifest()["error"]["class"]) == ("failed", [], "permission")
    assert desk.step_manifest("a")["status"] == "success"
    published(desk, "a").chmod(0o644)
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran) == ("success", [])


def test_outputs_that_cannot_be_looked_at_have_not_changed(desk: StepsDesk) -> None:
    desk.lines["a"] = f"mkdir -p {desk.data}/raw; echo one > {desk.data}/raw/x"
    job = desk.steps_job(desk.step("a", outputs=("{data_root}/raw/*",)))
    assert desk.go(job).status == "success"
    (desk.data / "raw").rename(desk.data / "was")
    (desk.data / "raw").symlink_to("raw")
    outcome, ran = again(desk, job)
    assert (outcome.status, ran) == ("failed", [])
    assert "Too many levels of symbolic links" in (outcome.reason or "")
    (desk.data / "raw").unlink()
    (desk.data / "was").rename(desk.data / "raw")
    assert again(desk, job, 3)[1] == []


def test_what_was_announced_and_cannot_be_read_is_still_announced(
    desk: StepsDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = stopped_before_its_pointers(desk, monkeypatch)
    before = published(desk, "a").read_text()
    published(desk, "a").chmod(0)
    outcome, ran = again(desk, job)
    assert (outcome.status, ran, desk.step_manifest("a")["error"]["class"]) == ("failed", [], "permission")
    published(desk, "a").chmod(0o644)
    outcome, ran = again(desk, job, 3)
    assert (outcome.status, ran, published(desk, "a").read_text()) == ("success", [], before)


def test_an_input_whose_manifest_cannot_be_read_is_no_gap(desk: StepsDesk) -> None:
    job = mended(desk)
    (desk.root / "mended").touch()
    assert desk.go(job).status == "success"
    unreadable(desk.step_folder("a") / "manifest.json")
    outcome = desk.go(job, "other", slot=None, steps=("b",))
    assert outcome.status == "failed"
    assert desk.step_manifest("b", "other")["error"]["type"] == "InputUnreadable"
