"""Manifests and events that somebody else could have written: no decision depends on them, and they are shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dag import DAY, StepsDesk, chain
from desk import SLOT
from orchctl.adapters.backfills import Backfills
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.published import Published
from orchctl.core.names import run_id
from orchctl.errors import ExitCode, NotBelieved

ROOT = os.geteuid() == 0
SOMEBODY = 54321


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    desk = StepsDesk(tmp_path)
    desk.changes["manifests"] = partial(Manifests, trust=())
    return desk


def file_open(folder: Path) -> None:
    (folder / "manifest.json").chmod(0o666)


def folder_open(folder: Path) -> None:
    folder.chmod(0o777)


def asset_open(folder: Path) -> None:
    folder.parents[1].chmod(0o777)


def tree_open(folder: Path) -> None:
    folder.parents[2].chmod(0o777)


def a_link(folder: Path) -> None:
    (folder / "manifest.json").rename(folder / "real.json")
    (folder / "manifest.json").symlink_to("real.json")


def a_folder_is_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real")


def anothers(folder: Path) -> None:
    os.chown(folder / "manifest.json", SOMEBODY, SOMEBODY)


SPOILT = [file_open, folder_open, asset_open, tree_open, a_link, a_folder_is_a_link, *([anothers] if ROOT else [])]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_success_that_somebody_else_could_have_written_keeps_nothing_and_hides_nothing(
    desk: StepsDesk, spoil: Callable[[Path], None]
) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b"]))
    assert desk.go(job).status == "success"
    spoil(desk.step_folder("a"))
    before = len(desk.began())
    outcome = desk.go(job, attempt=2)
    assert (outcome.status, desk.began()[before:]) == ("failed", [])
    assert "could have been written by somebody else" in (outcome.reason or "")
    assert desk.manifest()["error"]["class"] == "permission"
    # It is shown all the same.
    shown = Manifests(str(desk.data)).existing("a", DAY, run_id(SLOT, "one"))
    assert shown is not None
    assert shown["status"] == "success"


def test_the_record_is_nobody_elses_to_write_whatever_the_umask(desk: StepsDesk) -> None:
    before = os.umask(0)
    try:
        assert desk.go(desk.steps_job(*chain(desk, ["a", "b"]))).status == "success"
    finally:
        os.umask(before)
    tree = desk.data / "manifests"
    made = [path for path in (tree, *tree.rglob("*")) if path.lstat().st_mode & 0o022 and "_staging" not in path.parts]
    assert made == []


def test_what_feeds_a_step_is_believed_only_where_nobody_else_could_have_written_it(desk: StepsDesk) -> None:
    desk.lines["a"] = "echo a > $ORCHCTL_STAGING/it"
    place = {"publish": {"to": "{data_root}/gold/{step}/{game_date}/run={run_id}"}}
    job = desk.steps_job(desk.step("a", **place), desk.step("b", inputs=({"name": "a", "step": "a"},)))
    assert desk.go(job).status == "success"
    file_open(desk.step_folder("a"))
    outcome = desk.go(job, "two", steps=("b",), slot=None, trigger="manual")
    assert outcome.status == "failed"
    assert "could have been written by somebody else" in (outcome.reason or "")


def test_neither_a_backfill_nor_publishing_by_hand_goes_by_it(desk: StepsDesk) -> None:
    assert desk.go(desk.steps_job(*chain(desk, ["a"]))).status == "success"
    root = str(desk.data)
    assert len(list(Backfills(root, trust=()).runs_on("job", DAY))) == 1
    assert len(list(Published(()).manifests(root, "a", DAY))) == 1
    file_open(desk.step_folder("job"))
    file_open(desk.step_folder("a"))
    with pytest.raises(NotBelieved) as caught:
        list(Backfills(root, trust=()).runs_on("job", DAY))
    assert caught.value.exit_code is ExitCode.NOT_ALLOWED
    assert caught.value.hint == f"look at what it says, then: chmod go-w {desk.step_folder('job') / 'manifest.json'}"
    with pytest.raises(NotBelieved):
        list(Published(()).manifests(root, "a", DAY))
    assert len(list(Published().manifests(root, "a", DAY))) == 1


def test_a_pipe_in_the_place_of_a_manifest_or_of_events_holds_nobody(desk: StepsDesk) -> None:
    assert desk.go(desk.steps_job(*chain(desk, ["a"]))).status == "success"
    for path in (desk.step_folder("a") / "manifest.json", *(desk.data / "manifests" / "events").iterdir()):
        path.unlink()
        os.mkfifo(path)
    tree = Manifests(str(desk.data))
    skipped: list[object] = []
    assert tree.find(run_id(SLOT, "one"), skipped=skipped) is not None  # type: ignore[arg-type]
    assert any("not a plain file" in str(each) for each in skipped)
