"""The manifest tree and what is read from it: foreign files, the present, windows, parts of ids, the index."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.adapters import host_facts
from orchctl.adapters.manifests import Manifests
from orchctl.core import manifest as form
from orchctl.core.manifest import Identity, Place, Run, RunError, Skipped
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteRun
from orchctl.errors import UsageError
from orchctl.services import run_logs, runs, trigger

START = datetime(2025, 12, 19, 5, 0, tzinfo=UTC)
GONE = Place("elsewhere", "boot", 1, 1)


class Tree(Manifests):
    """A tree that a test fills with runs."""

    def begin(self, at: datetime = START, *, flow: str = "one", attempt: int = 1, **fields: Any) -> dict[str, Any]:
        place = fields.pop("place", GONE)
        slot = START if attempt > 1 else at
        who = Identity(
            **{
                "job": "job",
                "asset": "job",
                "run_id": run_id(slot, flow),
                "game_date": slot.date(),
                "as_of": slot,
                "slot": slot,
                "trigger": "schedule",
                "mode": "live",
                "attempt": attempt,
                **fields,
            }
        )
        manifest = form.started(who, place, {"catalog_digest": "sha256:x"}, at=at)
        if attempt > 1:
            path = self.run_directory(who.asset, slot.date(), who.run_id) / "manifest.json"
            manifest["attempts"] = json.loads(path.read_text())["attempts"]
        self.append(form.event("run_started", manifest, at=at))
        self.write(manifest)
        return manifest

    def end(self, manifest: dict[str, Any], status: form.Status = "success", *, after: float = 60) -> dict[str, Any]:
        at = datetime.fromisoformat(manifest["timing"]["started_at"]) + timedelta(seconds=after)
        error = RunError("NonZeroExit", "exit code 3") if status == "failed" else None
        done = form.finished(manifest, status, at=at, duration_s=after, exit_code=3 if error else 0, error=error)
        self.write(done)
        self.append(form.event(form.final_event_name(status), done, at=at))
        return done

    def index(self) -> list[str]:
        return sorted(line for path in self.event_files() for line in path.read_text().splitlines())

    def event_files(self) -> list[Path]:
        return sorted(Path(self.data_root).glob("manifests/events/*.jsonl"))

    def run(self, manifest: dict[str, Any]) -> Run:
        return form.run_of_manifest(manifest, data_root=self.data_root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def whole_day(tree: Tree, **options: Any) -> runs.Listing:
    return runs.listing([tree], runs.Window(START - timedelta(days=1), START + timedelta(days=1)), **options)


# --- files of others, and torn ones

FOREIGN = [
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"event": "run_started", "run_id": "../../etc"}',
    b'{"event": "run_started", "run_id": "20251219T050000Z-abcdef", "job": "job"}',
    b"9" * 5000,
]


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_line_hides_no_other(tree: Tree, line: bytes) -> None:
    done = tree.end(tree.begin())
    (path,) = tree.event_files()
    path.write_bytes(line + b"\n" + path.read_bytes() + line[: len(line) // 2])
    found = whole_day(tree)
    assert [run.run_id for run in found.runs] == [done["partition"]["run_id"]]
    assert found.skipped[0].path == f"{path}:1"


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": float("inf")},
        {"attempt": None},
        {"status": "odd"},
        {"job": "../x"},
        {"timing": None},
        {"partition": {"run_id": "x"}},
        {"slot": "0001-01-01T00:00:00+23:00"},
        {"manifest_version": "v2"},
    ],
    ids=str,
)
def test_a_foreign_manifest_is_named_and_skipped(tree: Tree, change: dict[str, Any]) -> None:
    good = tree.end(tree.begin())
    path = tree.write({**good, "partition": {**good["partition"], "run_id": run_id(START, "two")}})
    path.write_text(json.dumps({**good, **change}))
    skipped: list[Skipped] = []
    assert [data["partition"]["run_id"] for _, data in tree.all_manifests(skipped=skipped)] == [
        good["partition"]["run_id"]
    ]
    assert [one.path for one in skipped] == [str(path)]


def test_an_error_that_is_no_table(tree: Tree) -> None:
    manifest = {**tree.end(tree.begin()), "error": "text", "extra": 1}
    assert tree.run(manifest).reason is None


@given(st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_whatever_is_read_is_a_run_or_a_value_error(data: Any) -> None:
    for value in (data, {"manifest_version": "v1", "partition": {}, "environment": {}, "timing": {}, "error": data}):
        if isinstance(value, dict):
            with pytest.raises(ValueError):
                form.run_of_manifest(value, data_root="/")


# --- folding

ORDERS = [random.Random(seed) for seed in range(20)]


@pytest.mark.parametrize("order", ORDERS, ids=range(20))
def test_the_newest_state_wins_in_any_order(tree: Tree, order: random.Random) -> None:
    tree.end(tree.begin(), "failed")
    last = tree.end(tree.begin(START + timedelta(minutes=5), attempt=2))
    told = list(tree.events(START.date(), skipped=[]))
    order.shuffle(told)
    (newest,) = form.fold(told).values()
    assert newest == tree.run(last)


# --- the present


def test_a_running_run_is_running_while_its_process_lives(tree: Tree) -> None:
    here = host_facts.here()
    gone = [
        replace(here, pid_started=here.pid_started + 1),
        replace(here, boot_id="the boot before"),
        replace(here, pid=2**22 + 1),
    ]
    for number, place in enumerate([here, replace(here, hostname="elsewhere", pid=2**22 + 1), *gone]):
        tree.begin(START + timedelta(seconds=number), place=place)
    statuses = [run.status for run in whole_day(tree).runs]
    assert statuses == ["running", "running", "crashed", "crashed", "crashed"]
    assert whole_day(tree).totals == {"running": 2, "crashed": 3}


def test_a_lost_last_event_is_made_up_for_by_the_manifest(tree: Tree) -> None:
    tree.end(tree.begin(place=host_facts.here()))
    (path,) = tree.event_files()
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert whole_day(tree).runs[0].status == "success"


# --- windows

ZONE = "America/New_York"
DAYS = [("2025-12-19", 24), ("2025-03-09", 23), ("2025-11-02", 25)]


@pytest.mark.parametrize(("day", "hours"), DAYS)
def test_a_local_day_has_its_own_length(tree: Tree, day: str, hours: int) -> None:
    window = runs.window_of(day, None, timezone=ZONE, now=START)
    assert window.end - window.start == timedelta(hours=hours)
    before, first, last, after = (
        tree.end(tree.begin(at))["partition"]["run_id"]
        for at in (
            window.start - timedelta(seconds=1),
            window.start,
            window.end - timedelta(seconds=1),
            window.end,
        )
    )
    assert [run.run_id for run in runs.listing([tree], window).runs] == [first, last]
    assert before < first < last < after


def test_a_run_over_midnight_is_in_the_day_it_began(tree: Tree) -> None:
    window = runs.window_of("2025-12-18", None, timezone="UTC", now=START)
    tree.end(tree.begin(window.end - timedelta(seconds=1)), after=3600)
    (run,) = runs.listing([tree], window).runs
    assert run.status == "success"


def test_words_for_windows() -> None:
    def since(text: str) -> datetime:
        return runs.window_of(None, text, timezone=ZONE, now=START).start

    assert since("2h") == START - timedelta(hours=2)
    assert since("2025-12-18") == datetime(2025, 12, 18, 5, tzinfo=UTC)
    assert since("2025-12-18T00:00:00Z") == datetime(2025, 12, 18, tzinfo=UTC)
    for words in (("2025-12-18", "1d"), ("yesterday", None), (None, "soon"), (None, "T"), ("20251218", None)):
        with pytest.raises(UsageError):
            runs.window_of(*words, timezone=ZONE, now=START)


def test_limits_and_totals(tree: Tree) -> None:
    for number in range(5):
        tree.end(tree.begin(START + timedelta(minutes=number)), "failed" if number % 2 else "success")
    tree.end(tree.begin(START, flow="x", job="other"), "failed")
    found = whole_day(tree, job="job", limit=2)
    assert [run.started_at.minute for run in found.runs] == [3, 4]
    assert (found.totals, found.hidden) == ({"success": 3, "failed": 2}, 3)
    assert whole_day(tree, status="failed", limit=0).hidden == 3
    assert whole_day(tree, status="crashed").runs == ()


# --- one run


def found(tree: Tree, reference: str) -> str:
    return runs.find([tree], reference, timezone="UTC", now=START + timedelta(hours=1))[1].run_id


def test_a_run_is_found_by_its_id_or_a_part(tree: Tree) -> None:
    one, two = (tree.end(tree.begin(flow=flow))["partition"]["run_id"] for flow in ("one", "two"))
    assert found(tree, one) == found(tree, one[-6:]) == found(tree, one[-3:]) == one
    for part in ("20251219", one[-2:], "zzz", "", "../x", run_id(START, "three"), "99999999T999999Z-abcdef"):
        with pytest.raises(UsageError):
            found(tree, part)
    assert one != two


def test_a_run_of_another_date_is_found_by_its_events(tree: Tree) -> None:
    done = tree.end(tree.begin(game_date=date(2020, 1, 1)))
    assert found(tree, done["partition"]["run_id"]) == done["partition"]["run_id"]


def test_a_run_without_events_is_found_by_its_folder(tree: Tree) -> None:
    done = tree.end(tree.begin())
    tree.event_files()[0].unlink()
    assert found(tree, done["partition"]["run_id"]) == done["partition"]["run_id"]


def test_a_run_without_its_manifest_is_what_its_last_event_says(tree: Tree) -> None:
    done = tree.end(tree.begin())
    (tree.directory_of(tree.run(done)) / "manifest.json").unlink()
    run = tree.find(done["partition"]["run_id"], skipped=[])
    assert run is not None
    assert run.status == "success"


@pytest.mark.parametrize("name", ["00010101T000000Z-abcdef", "99991231T235959Z-abcdef", "20251399T000000Z-abcdef"])
def test_ids_of_days_at_the_edge_and_of_none(tree: Tree, name: str) -> None:
    assert tree.find(name, skipped=[]) is None


# --- the log


def test_following_a_log_ends_with_the_run(tree: Tree) -> None:
    manifest = tree.begin(place=host_facts.here())
    run = tree.run(manifest)
    log = tree.directory_of(run) / "attempt-1.log"
    log.write_bytes(b"one\n")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            log.write_bytes(b"one\ntwo\n")
            tree.end(manifest)
        assert len(slept) < 5

    assert b"".join(run_logs.chunks(tree, run, follow=True, sleep=sleep)) == b"one\ntwo\n"
    assert len(slept) == 2


def test_following_a_crashed_run_ends(tree: Tree) -> None:
    run = tree.run(tree.begin(place=replace(host_facts.here(), boot_id="the boot before")))
    assert list(run_logs.chunks(tree, run, follow=True, sleep=lambda _: pytest.fail("it waits"))) == []


def test_the_logs_of_all_attempts_in_order(tree: Tree) -> None:
    run = tree.run(tree.end(tree.begin()))
    for number in (10, 2, 1):
        (tree.directory_of(run) / f"attempt-{number}.log").write_text(f"{number}\n")
    for other in ("attempt-x.log", "attempt-.log", "attempt-1.txt"):
        (tree.directory_of(run) / other).write_text("other")
    assert b"".join(run_logs.chunks(tree, run, follow=False, sleep=lambda _: None)) == b"1\n2\n10\n"


# --- the index


def test_reindex_rebuilds_what_was_written(tree: Tree) -> None:
    tree.end(tree.begin(), "failed")
    again = tree.begin(START + timedelta(hours=20), attempt=2)
    tree.end(again)
    tree.end(tree.begin(flow="two"), "cancelled", after=86400)
    tree.begin(flow="three")
    tree.write({**tree.end(tree.begin(flow="four"), "skipped")})
    before = [json.loads(line) for line in tree.index()]
    for path in tree.event_files():
        path.unlink()
    read = runs.reindex([tree])
    assert read.manifests == 4
    after = [json.loads(line) for line in tree.index()]
    # No manifest keeps the reason of an earlier attempt, and what was skipped never began.
    expected = [
        {**one, "reason": None} if (one["status"], one["attempt"]) == ("failed", 1) else one
        for one in before
        if not (one["event"] == "run_started" and one["run_id"] == run_id(START, "four"))
    ]
    assert sorted(after, key=str) == sorted(expected, key=str)
    assert read.added == len(after)
    assert runs.reindex([tree]).added == 0


@pytest.mark.parametrize("lost", range(6))
def test_reindex_adds_only_what_is_missing(tree: Tree, lost: int) -> None:
    for number in range(3):
        tree.end(tree.begin(START + timedelta(minutes=number)))
    before = tree.index()
    (path,) = tree.event_files()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:lost] + lines[lost + 1 :]))
    assert runs.reindex([tree]).added == 1
    assert tree.index() == before


# --- exit codes


@pytest.mark.parametrize(
    ("status", "exit_code", "signal", "expected"),
    [
        ("success", 0, None, 0),
        ("failed", 3, None, 3),
        ("failed", None, "SIGKILL", 137),
        ("failed", None, "SIGRTMIN+6", 168),
        ("cancelled", None, "SIGTERM", 143),
        ("skipped", None, None, 1),
    ],
)
def test_the_exit_code_of_a_run(
    tree: Tree, status: str, exit_code: int | None, signal: str | None, expected: int
) -> None:
    remote = RemoteRun("id", "name", None, "COMPLETED", "Completed", None, None, False, None, 1)
    run = replace(tree.run(tree.begin()), status=status, exit_code=exit_code, signal=signal)
    assert trigger.Ended(remote, run).exit_code == expected
    assert trigger.Ended(remote, None).exit_code == 0
