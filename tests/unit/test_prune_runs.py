"""Folders of runs: which go, which stay whatever their age, and what is left when it is stopped halfway."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl.adapters import host_facts
from orchctl.adapters.run_folders import RunFolders
from orchctl.core.names import run_id
from orchctl.errors import Interrupted, NotAllowed
from orchctl.services import prune, runs
from orchctl.services.runs import Window
from pruning import GONE, NOW, Host, ago, files_below, kept, seconds, spied


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_is_older_goes_and_the_rest_stays(host: Host) -> None:
    host.ran(ago(100))
    host.ran(ago(91))
    young = [host.ran(ago(89)).name, host.ran(ago(1)).name]
    before = list(files_below(host.root))
    assert host.look(manifests=90) == {("manifests", "job"): 2}
    assert list(files_below(host.root)) == before
    assert host.prune(manifests=90) == {("manifests", "job"): 2}
    assert host.runs() == sorted(young)
    assert len(list((host.data / "manifests" / "job").iterdir())) == 2
    assert host.prune(manifests=90) == {}


def test_what_counts_is_the_end_of_a_run_and_not_its_partition(host: Host) -> None:
    host.ran(ago(1), day=ago(900).date())
    host.ran(ago(2), day=ago(900).date(), flow="two")
    long = host.ran(ago(95), took=10 * 86_400)
    assert host.prune(manifests=90) == {}
    assert long.is_dir()


def test_a_run_for_a_later_date_goes_too(host: Host) -> None:
    host.ran(ago(100), day=ago(99).date())
    host.ran(ago(1))
    assert host.prune(manifests=90) == {("manifests", "job"): 1}


def test_the_newest_run_of_each_job_stays(host: Host) -> None:
    host.ran(ago(300), day=ago(100).date())
    newest = host.ran(ago(200), day=ago(900).date())
    other = host.ran(ago(400), job="other")
    found = prune.prune(host.world(), seconds({"manifests": 90}))
    assert (newest.is_dir(), other.is_dir(), host.runs()) == (True, True, [newest.name])
    assert kept(found) == {"the newest of its job": 1}


def test_a_run_that_goes_on_stays(host: Host) -> None:
    going = host.ran(ago(100), status="running", place=host_facts.here())
    host.ran(ago(101), status="running", place=host_facts.here().__class__(host_facts.here().hostname, "old", 1, 1))
    host.ran(ago(1))
    assert host.prune(manifests=90) == {("manifests", "job"): 1}
    assert going.is_dir()


def test_a_run_of_another_host_may_still_go_on(host: Host) -> None:
    host.ran(ago(100), status="running", place=GONE)
    host.ran(ago(1))
    assert kept(prune.look(host.world(), seconds({"manifests": 90}))) == {"still going": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifest_version": "v9"}', b'{"manifest_version": "v1"}'])
def test_what_cannot_be_read_stays(host: Host, content: bytes) -> None:
    torn = host.ran(ago(100))
    (torn / "manifest.json").write_bytes(content)
    host.ran(ago(1))
    found = prune.prune(host.world(), seconds({"manifests": 90, "logs": 30}))
    assert (found.rows, torn.is_dir(), (torn / "attempt-1.log").exists()) == ((), True, True)


def test_a_folder_without_a_manifest_stays(host: Host) -> None:
    bare = host.ran(ago(100))
    (bare / "manifest.json").unlink()
    host.ran(ago(1))
    assert host.prune(manifests=90) == {}


def test_links_lead_nowhere(host: Host, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "game_date=2025-11-21"
    elsewhere.mkdir(parents=True)
    host.ran(ago(1))
    old = host.ran(ago(100))
    shutil.move(str(old), elsewhere / old.name)
    old.symlink_to(elsewhere / old.name)
    (host.data / "manifests" / "job" / "game_date=2025-11-20").symlink_to(elsewhere)
    host.prune(manifests=90, logs=30)
    assert sorted(path.name for path in (elsewhere / old.name).iterdir()) == ["attempt-1.log", "manifest.json"]


def test_runs_of_a_job_that_the_catalog_does_not_have_stay(host: Host) -> None:
    host.ran(ago(100), job="gone")
    host.ran(ago(1), job="gone")
    assert host.prune(manifests=90) == {}


# --- steps, what they published, backfills


def with_steps(host: Host, publish: Path | None, *, at: float = 100) -> tuple[Path, Path]:
    record = None if publish is None else {"to": str(publish), "digest": "x"}
    step = host.ran(ago(at), step="a.b", publish=record)
    whole = host.ran(ago(at), execution="steps", steps=[{"name": "a.b", "status": "success"}])
    return whole, step


def test_a_run_goes_with_its_steps(host: Host) -> None:
    whole, step = with_steps(host, None)
    host.ran(ago(1))
    assert host.prune(manifests=90) == {("manifests", "job"): 1}
    assert (whole.exists(), step.exists()) == (False, False)


def test_a_run_stays_while_what_it_published_is_there(host: Host) -> None:
    place = host.root / "gold" / "run=1"
    place.mkdir(parents=True)
    whole, step = with_steps(host, place)
    host.ran(ago(1))
    found = prune.prune(host.world(), seconds({"manifests": 90}))
    assert (kept(found), whole.is_dir(), step.is_dir()) == ({"what it published is still there": 1}, True, True)
    place.rmdir()
    assert host.prune(manifests=90) == {("manifests", "job"): 1}
    assert not step.exists()


def summary(host: Host, *run_ids: str) -> None:
    folder = host.data / "manifests" / "backfills" / "b"
    folder.mkdir(parents=True)
    rows = [{"run_id": each} for each in run_ids]
    (folder / "summary.json").write_text(json.dumps({"finished_at": "2025-12-01T00:00:00Z", "runs": rows}))


def test_a_run_of_a_backfill_stays_while_that_is_not_over_or_names_it(host: Host) -> None:
    named = host.ran(ago(100), trigger="backfill", backfill="b")
    other = host.ran(ago(101), trigger="backfill", backfill="b")
    host.ran(ago(1))
    assert host.prune(manifests=90) == {}
    summary(host, run_id(ago(100), "one"))
    assert host.prune(manifests=90) == {("manifests", "job"): 1}
    assert (named.is_dir(), other.is_dir()) == (True, False)


# --- what is left


def test_the_list_of_what_ran_is_as_it_was(host: Host) -> None:
    host.ran(ago(100))
    host.ran(ago(1))
    window = Window(ago(200), NOW)
    before = runs.listing([host.tree], window)
    host.prune(manifests=90)
    after = runs.listing([host.tree], window)
    assert (after.runs, after.skipped) == (before.runs, ())
    gone = host.tree.find(run_id(ago(100), "one"), skipped=[])
    assert gone is not None
    assert gone.status == "success"
    assert runs.show(host.tree, gone, str, now=NOW).manifest is None
    assert runs.reindex([host.tree]).skipped == ()


@pytest.mark.parametrize("at", range(4))
def test_killed_at_any_removal_the_next_one_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    with_steps(host, None, at=100)
    with_steps(host, None, at=101)
    host.ran(ago(1))
    real, seen = RunFolders.remove, []

    def remove(path: Path) -> None:
        seen.append(path)
        if len(seen) > at:
            path.rename(path.with_name(f".removed-{path.name}"))  # as far as a kill lets it come
            raise KeyboardInterrupt
        real(path)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolders, "remove", staticmethod(remove))
        with pytest.raises(Interrupted, match="done until then"):
            host.prune(manifests=90)
    for manifest in host.data.glob("manifests/job/game_date=*/run=*/manifest.json"):
        assert json.loads(manifest.read_bytes())["job"] == "job"
    host.prune(manifests=90)
    assert len(host.runs()) == 1
    assert [path for path in host.data.rglob("*") if path.name.startswith(".removed-")] == []
    assert list(host.data.glob("manifests/a.b/game_date=*/run=*")) == []


def test_what_may_not_be_removed_is_said_and_the_others_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = host.ran(ago(100))
    host.ran(ago(1))
    host.ran(ago(100), job="other")
    host.ran(ago(1), job="other")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    found = prune.prune(host.world(), seconds({"manifests": 90}))
    (problem,) = found.problems
    assert (problem.job, type(problem.error)) == ("job", NotAllowed)
    assert [row.job for row in found.rows] == ["other"]


def test_of_two_jobs_that_make_one_asset_the_newest_of_each_stays(host: Host) -> None:
    jobs = {name: job.model_copy(update={"asset": "job"}) for name, job in host.catalog.jobs.items()}
    host.catalog = host.catalog.model_copy(update={"jobs": jobs})
    host.ran(ago(120), job="other", asset="job", flow="two")
    host.ran(ago(115))
    newest = [host.ran(ago(100)).name, host.ran(ago(110), job="other", asset="job", flow="two").name]
    expected = {("manifests", "job"): 1, ("manifests", "other"): 1}
    assert host.look(manifests=90) == host.prune(manifests=90) == expected
    assert host.runs() == sorted(newest)


@contextlib.contextmanager
def nobody(host: Host) -> Iterator[None]:
    """Be a user of no rights, to whom all of the host belongs; whoever is not root has no rights already."""
    if os.geteuid() != 0:
        yield
        return
    for folder in list(host.root.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    for path in (host.root, *host.root.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def read_only(run: Path, mode: int, elsewhere: Path) -> None:
    """Leave what a command may: folders that nobody may write, the outer one last, and a link to another place."""
    inner = run / "out" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "link").symlink_to(elsewhere)
    for folder in (inner, inner.parent):
        folder.chmod(mode)


@pytest.mark.parametrize("mode", [0o555, 0])
def test_folders_that_a_command_made_read_only_go_too(host: Host, mode: int) -> None:
    whole, step = with_steps(host, None)
    killed, elsewhere = host.ran(ago(102)), host.root / "elsewhere"
    elsewhere.mkdir(mode=0o555)
    for folder in (whole, step, killed):
        read_only(folder, mode, elsewhere)
    killed.rename(killed.with_name(f".removed-{killed.name}"))
    host.ran(ago(1))
    with nobody(host):
        assert host.prune(manifests=90) == {("manifests", "job"): 1}
    assert [path for path in host.data.rglob("*") if path.name.startswith(".removed-")] == []
    assert (whole.exists(), step.exists(), elsewhere.stat().st_mode & 0o777) == (False, False, 0o555)


def stuck(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let no folder be emptied in whose path one of these names stands."""
    real = shutil.rmtree

    def rmtree(path: Path) -> None:
        if any(name in str(path) for name in names):
            raise PermissionError(1, "Operation not permitted", str(path))
        real(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)


def test_a_run_that_cannot_be_removed_keeps_no_other_from_going(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = with_steps(host, None)
    host.ran(ago(101))
    host.ran(ago(99))
    host.ran(ago(1))
    with monkeypatch.context() as patched:
        stuck(patched, "/a.b/")
        for count in (2, 1):
            found = prune.prune(host.world(), seconds({"manifests": 90}))
            (problem,) = found.problems
            assert (problem.kind, problem.job, type(problem.error)) == ("manifests", "job", NotAllowed)
            assert "a.b" in problem.error.message
            assert [row.count for row in found.rows] == [count]
            assert whole.is_dir()
            host.ran(ago(98))
    assert host.prune(manifests=90) == {("manifests", "job"): 2}
    assert not whole.exists()


def test_what_a_removal_left_and_cannot_be_emptied_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (102, 101):
        old = host.ran(ago(days))
        old.rename(old.with_name(f".removed-{old.name}"))
    host.ran(ago(100))
    host.ran(ago(1))
    stuck(monkeypatch, ".removed-run=20251119", ".removed-run=20251120")
    found = prune.prune(host.world(), seconds({"manifests": 90}))
    assert [(row.kind, row.count) for row in found.rows] == [("manifests", 1)]
    (problem,) = found.problems
    assert (problem.job, type(problem.error), problem.more) == ("job", NotAllowed, 1)


def test_a_run_that_cannot_be_looked_at_keeps_no_other_from_going(host: Host) -> None:
    shut = host.ran(ago(100))
    host.ran(ago(101))
    host.ran(ago(99))
    host.ran(ago(1))
    newest = host.ran(ago(0.5))
    for folder in (shut, newest):
        folder.chmod(0)
    with nobody(host):
        found = prune.prune(host.world(), seconds({"manifests": 90}))
    assert ([row.count for row in found.rows], [each.job for each in found.problems]) == ([2], ["job"])
    assert (shut.is_dir(), newest.is_dir()) == (True, True)


def test_only_dates_that_can_hold_old_runs_are_looked_into(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in range(1, 60):
        host.ran(ago(days))
    asked: list[object] = []
    monkeypatch.setattr(os, "scandir", spied(os.scandir, asked))
    host.prune(manifests=55)
    dates = {path.name for path in asked if isinstance(path, Path) and path.parent.name == "job"}
    # Those that are old, the two days after, and the newest, which says what the newest run is.
    assert 5 <= len(dates) <= 5 + 3 + 1
