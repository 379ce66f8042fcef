"""Publishing that is killed, or whose calls fail, at each call that changes something; and many who read meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

import publish_cases
from kills import Fault
from orchctl.adapters.pointers import read_pointer
from orchctl.core.publish import CURRENT, LATEST
from orchctl.runner import publish
from publish_cases import DAY, REFUSED, STEP_FAILED, Attempts, faults, folder_of, reader, run_id, torn
from support import STRESS

READS = 100_000
A_DAY_LATER = timedelta(hours=25)
SCENES: dict[str, Sequence[str]] = {
    "a later": publish_cases.ERRORS,
    "the first": publish_cases.ERRORS if STRESS else (),
    "a rerun": publish_cases.ERRORS if STRESS else ("EIO",),
}
"""What a run of a date finds (another run before it; none; its own files promoted, by an attempt that was killed), and
what is tried there beside kills."""


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Callable[[], Attempts]]:
    """Return what starts a process that attempts to publish; all are ended."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    made: list[Attempts] = []

    def start() -> Attempts:
        base = tmp_path / str(len(made))
        base.mkdir()
        made.append(Attempts(base))
        return made[-1]

    yield start
    for each in made:
        each.close()


def prime(lane: Attempts, data_root: Path, how: str = "") -> None:
    """Publish something for another date, so that a data root has the folders that every one has."""
    assert lane.run(data_root, run_id(1), day=DAY - timedelta(days=1), how=how).code == 0


def prepare(lane: Attempts, data_root: Path, scene: str, day: date) -> None:
    if scene != "the first":
        assert lane.run(data_root, run_id(1), day=day).code == 0
    if scene == "a rerun":
        assert lane.run(data_root, run_id(2), day=day, fault=Fault("flock", 1, None, "the lock")).code == -9
        assert (folder_of(data_root, day) / f"run={run_id(2)}").is_dir()


def held(data_root: Path, day: date) -> set[str | None]:
    pointers = [read_pointer(folder_of(data_root, day), name) for name in (CURRENT, LATEST)]
    return {pointer.run_id if pointer is not None else None for pointer in pointers}


def judge(lane: Attempts, data_root: Path, scene: str, day: date, fault: Fault) -> list[str]:
    """Let an attempt be hit, then rerun it; return what was not as it must be."""
    prepare(lane, data_root, scene, day)
    folder, run, before = folder_of(data_root, day), run_id(2), held(data_root, day)
    ended, wrong = lane.run(data_root, run, day=day, fault=fault), []
    if not ended.was_hit:
        wrong.append("the fault did not take place")
    if fault.error is None and ended.code != -9:
        wrong.append(f"exit code {ended.code}: {ended.said}")
    if fault.error is not None and (ended.code not in {0, REFUSED, STEP_FAILED} or ended.said.endswith("| None")):
        wrong.append(f"exit code {ended.code}: {ended.said}")
    wrong += torn(folder, all_runs=True)
    if not held(data_root, day) <= {*before, run}:
        wrong.append(f"pointers hold {held(data_root, day)}")
    again = lane.run(data_root, run, day=day)
    if again.code != 0:
        wrong.append(f"the rerun: exit code {again.code}: {again.said}")
    wrong += torn(folder, all_runs=True)
    if held(data_root, day) != {run}:
        wrong.append(f"after the rerun pointers hold {held(data_root, day)}")
    wrong += [f"left: {path}" for path in folder.iterdir() if path.name.endswith(".tmp")]
    return [f"{scene}, {fault}: {each}" for each in wrong]


def lane_of(lane: Attempts, data_root: Path, cases: Sequence[tuple[str, Fault]]) -> list[str]:
    prime(lane, data_root)
    wrong = []
    for (scene, fault), day in zip(cases, publish_cases.days(), strict=False):
        wrong += judge(lane, data_root, scene, day, fault)
    publish.sweep(str(data_root), now=datetime.now(UTC) + A_DAY_LATER)
    left = [str(path) for path in data_root.glob("manifests/**/_staging/*")]
    return wrong + [f"not swept: {path}" for path in left]


@pytest.mark.campaign
def test_killed_or_failing_anywhere_it_is_the_old_state_or_the_new_one_whole_and_the_rerun_finishes(
    attempts: Callable[[], Attempts], tmp_path: Path
) -> None:
    first = attempts()
    cases = []
    prime(first, tmp_path / "traced")
    for (scene, errors), day in zip(SCENES.items(), publish_cases.days(), strict=False):
        prepare(first, tmp_path / "traced", scene, day)
        traced = first.run(tmp_path / "traced", run_id(2), day=day, trace=True)
        assert traced.code == 0, traced.said
        cases += [(scene, fault) for fault in faults(traced.log, errors)]
    lanes = [attempts(), attempts()]
    data_roots = [tmp_path / f"data-{number}" for number in range(len(lanes))]
    with (
        reader(data_roots[0] / "gold" / "rates") as seen,
        ThreadPoolExecutor(len(lanes)) as pool,
    ):
        work = [
            pool.submit(lane_of, lane, data_root, cases[number :: len(lanes)])
            for number, (lane, data_root) in enumerate(zip(lanes, data_roots, strict=True))
        ]
        wrong = [each for one in work for each in one.result()]
    reads, bad = seen
    kills = sum(fault.error is None for _, fault in cases)
    print(f"\n{kills} kills, {len(cases) - kills} errors; {reads} reads meanwhile")
    assert not wrong, "\n".join(wrong[:10])
    assert not bad, bad
    assert kills >= 100
    assert reads >= 100


def synced(log: str) -> list[str]:
    """Return what was synced, made and renamed, in order, in an attempt with this log of strace."""
    found = re.findall(r'^(?:\d+ +)?(fsync|mkdir|renameat2|rename)\((?:\d+<|"|AT_FDCWD<[^>]*>, ")([^>"]*)', log, re.M)
    return [f"{call} {path}" for call, path in found]


def test_all_is_on_the_disk_before_it_is_pointed_at(attempts: Callable[[], Attempts], tmp_path: Path) -> None:
    lane, folder = attempts(), str(folder_of(tmp_path))
    calls = synced(lane.run(tmp_path, run_id(1), trace=True).log)
    (promoted,) = (number for number, call in enumerate(calls) if call.startswith("renameat2 "))
    staged = calls[promoted].removeprefix("renameat2 ")
    names = [*publish_cases.files_of(run_id(1)), "by_team/deep", "by_team"]
    assert {f"fsync {staged}/{name}" for name in names} | {f"fsync {staged}"} <= set(calls[:promoted])
    made = [call.removeprefix("mkdir ") for call in calls[:promoted] if f"mkdir {folder}".startswith(call)]
    assert made[-1] == folder
    pointed = [number for number, call in enumerate(calls) if call.startswith(f"rename {folder}/.")]
    assert len(pointed) == 2
    for path in made:
        assert f"fsync {Path(path).parent}" in calls[calls.index(f"mkdir {path}") : pointed[0]]
    assert f"fsync {folder}" in calls[promoted : pointed[0]]
    for number in pointed:
        assert calls[number - 1 : number + 2] == [
            calls[number].replace("rename", "fsync", 1),
            calls[number],
            f"fsync {folder}",
        ]


def test_a_rerun_puts_on_the_disk_what_the_killed_attempt_had_only_moved(
    attempts: Callable[[], Attempts], tmp_path: Path
) -> None:
    lane, folder = attempts(), str(folder_of(tmp_path))
    prepare(lane, tmp_path, "a rerun", DAY)
    calls = synced(lane.run(tmp_path, run_id(2), trace=True).log)
    pointed = next(number for number, call in enumerate(calls) if call.startswith(f"rename {folder}/."))
    names = ["", *(f"/{name}" for name in publish_cases.files_of(run_id(2)))]
    assert {f"fsync {folder}/run={run_id(2)}{name}" for name in names} | {f"fsync {folder}"} <= set(calls[:pointed])


def test_the_judge_sees_a_writer_that_was_killed_in_the_middle(
    attempts: Callable[[], Attempts], tmp_path: Path
) -> None:
    lane, found = attempts(), 0
    for data_root in (tmp_path / "traced", tmp_path):
        prime(lane, data_root, how="naive")
    traced = lane.run(tmp_path / "traced", run_id(2), trace=True, how="naive")
    kills = [fault for fault in faults(traced.log) if fault.error is None]
    for fault, day in zip(kills, publish_cases.days(), strict=False):
        assert lane.run(tmp_path, run_id(2), day=day, fault=fault, how="naive").code == -9
        found += bool(torn(folder_of(tmp_path, day), all_runs=True))
    assert found >= len(kills) // 2


def test_the_reader_sees_a_writer_that_writes_in_place(attempts: Callable[[], Attempts], tmp_path: Path) -> None:
    lane = attempts()
    with reader(tmp_path / "gold" / "rates") as seen:
        for number in range(40):
            assert lane.run(tmp_path, run_id(number), how="naive").code == 0
    assert seen[1], f"{seen[0]} reads saw nothing"


@pytest.mark.parametrize("error", ["ENOSYS", "EINVAL"])
def test_where_the_rename_that_replaces_nothing_is_not_there_the_lock_does(
    attempts: Callable[[], Attempts], tmp_path: Path, error: str
) -> None:
    lane, fault = attempts(), Fault("renameat2", 1, error, "the promotion")
    ended = lane.run(tmp_path, run_id(1), fault=fault)
    assert (ended.code, ended.was_hit, held(tmp_path, DAY)) == (0, True, {run_id(1)})
    to = folder_of(tmp_path) / f"run={run_id(2)}"
    to.mkdir()  # rename(2) would replace it
    ended = lane.run(tmp_path, run_id(2), fault=fault)
    assert (ended.code, "is there with other files" in ended.said) == (REFUSED, True)
    assert list(to.iterdir()) == []


@pytest.mark.parametrize(("error", "hint"), [("EXDEV", "one file system"), ("EROFS", "read-only"), ("EACCES", "owns")])
def test_a_rename_that_fails_says_why_and_what_to_do(
    attempts: Callable[[], Attempts], tmp_path: Path, error: str, hint: str
) -> None:
    ended = attempts().run(tmp_path, run_id(1), fault=Fault("renameat2", 1, error, "the promotion"))
    assert ended.code == REFUSED
    assert hint in ended.said.partition(" | ")[2]
    assert held(tmp_path, DAY) == {None}


@pytest.mark.campaign
def test_a_hundred_thousand_reads_under_writers_find_no_error(tmp_path: Path) -> None:
    publish_cases.publish_once(tmp_path, run_id(0))
    program = [sys.executable, publish_cases.__file__]
    folder = str(folder_of(tmp_path))
    writers = [subprocess.Popen([*program, "write", str(tmp_path), str(first)]) for first in (1, 2)]
    try:
        readers = [
            subprocess.Popen([*program, "read-many", folder, str(READS // 4)], stdout=subprocess.PIPE) for _ in range(4)
        ]
        found = [json.loads(each.communicate()[0]) for each in readers]
    finally:
        for writer in writers:
            alive = writer.poll() is None
            writer.kill()
            writer.wait()
            assert alive, "a writer failed"
    assert [bad for _, bad in found] == [[]] * 4
    assert min(runs for runs, _ in found) > 5
    assert not torn(folder_of(tmp_path), all_runs=True)
