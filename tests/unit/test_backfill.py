"""A backfill, decision by decision: the same command again starts nothing twice, and nothing is left undone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backfilling import HERE, TODAY, Desk, Killed, state
from fakes import failing_at
from orchctl.core import backfill as core
from orchctl.core.backfill import Asked, Wish
from orchctl.core.catalog import Job
from orchctl.core.remote import RemoteRun, RemoteWorker
from orchctl.errors import ExitCode, GateRefused, OrchctlError, PrefectUnreachable, UsageError
from orchctl.services import backfill
from orchctl.services.backfill_run import Ended, Submitted, carry_out

MONTH = ("2025-12-01", "2025-12-06")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def fails(*days: str, attempts: int = 1, how: str = "failed") -> Callable[[date, int], str]:
    """Return a play in which these days end badly in their first attempts."""
    return lambda day, attempt: how if f"{day:%d}" in days and attempt <= attempts else "success"


# What may be asked for.


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2025-12-02", "2025-12-01", "is after"),
        ("2025-12-1", "2025-12-02", "--start: '2025-12-1' is not a date"),
        ("2025-12-01", "2025-12-32", r"--end: '2025-12-32' is not a date like 2025-12-19 \(YYYY-MM-DD\)"),
        ("20251201", "2025-12-02", "--start"),
        ("2025-12-19", "2025-12-20", "is yet to come"),
        ("1900-01-01", "2025-12-01", "dates"),
    ],
)
def test_a_period_that_cannot_be(start: str, end: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        core.period(start, end, today=TODAY)
    assert raised.value.hint or "--" in raised.value.message


def test_both_ends_belong_to_it() -> None:
    first, last = core.period("2025-12-19", "2025-12-19", today=TODAY)
    assert Asked("c", "job", first, last).dates == (TODAY,)
    assert len(Asked("c", "job", date(2024, 2, 28), date(2024, 3, 1)).dates) == 3
    edge = TODAY - timedelta(days=core.MAX_PARTITIONS - 1)
    core.period(edge.isoformat(), TODAY.isoformat(), today=TODAY)
    with pytest.raises(UsageError):
        core.period((edge - timedelta(days=1)).isoformat(), TODAY.isoformat(), today=TODAY)


def test_the_same_is_the_same_backfill_and_anything_else_another() -> None:
    one = Asked("c", "job", date(2025, 12, 1), date(2025, 12, 6), ("a",), "lock", {"season": "2025", "x": "1"})
    assert one.id(0) == replace(one, partition={"x": "1", "season": "2025"}).id(0)
    others = [
        replace(one, catalog="d"),
        replace(one, job="jo"),
        replace(one, start=date(2025, 12, 2)),
        replace(one, end=date(2025, 12, 7)),
        replace(one, steps=()),
        replace(one, as_of_mode=None),
        replace(one, partition={}),
    ]
    ids = {each.id(0) for each in (one, *others)} | {one.id(1), one.id(2)}
    assert len(ids) == len(others) + 3
    assert one.id(0).startswith("job-20251201-20251206-")
    assert all(text.replace("-", "").isalnum() for text in ids)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(only_missed=True, failed=True), "exclude each other"),
        (Wish(force=True, failed=True), "leave out"),
        (Wish(force=True, only_missed=True), "leave out"),
    ],
)
def test_wishes_that_exclude_each_other(wish: Wish, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wish.check()


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["true"], **more}


STEPPED: dict[str, Any] = {"execution": "steps", "steps": [step("a"), step("b", after=["a"])]}


@pytest.mark.parametrize(
    ("job", "words", "said"),
    [
        ({}, {"steps": "a"}, "runs as one command"),
        (STEPPED, {"steps": "a,bb"}, "has no step 'bb'"),
        (STEPPED, {"steps": " , "}, "names no step"),
        ({}, {"as_of_mode": "lock"}, "has no mode 'lock'"),
        ({"partition": {"group": {}}}, {}, "group"),
        ({}, {"partition": {"group": "1"}}, "has no partition key"),
    ],
)
def test_what_the_job_does_not_have(tmp_path: Path, job: dict[str, Any], words: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        Desk(tmp_path, **job).prepare(*MONTH, **words)
    assert raised.value.hint


def test_a_job_that_there_is_not_is_named_with_the_nearest(desk: Desk) -> None:
    with pytest.raises(UsageError) as raised:
        backfill.request(desk.world(), backfill.Words("jib", *MONTH))
    assert raised.value.hint == 'did you mean "job"?'


def test_without_the_queue_nothing_is_submitted(desk: Desk) -> None:
    del desk.prefect.by_pool["nobody"]["backfill"]
    with pytest.raises(OrchctlError, match="no queue backfill") as raised:
        desk.go(*MONTH)
    assert raised.value.hint == "run `orchctl sync`"
    assert not desk.prefect.writes


# What is submitted.


def test_each_date_is_one_run_in_the_queue_of_backfills(tmp_path: Path) -> None:
    desk = Desk(tmp_path, partition={"season": {"format": "%Y"}}, as_of={"lock": {"file": "/x"}}, **STEPPED)
    done = desk.go(*MONTH, wait=None, steps="b,a", as_of_mode="lock", partition={"season": "2030"})
    assert isinstance(done, Submitted)
    assert (done.created, done.again, done.going, done.exit_code) == (6, 0, 0, ExitCode.DONE)
    runs = list(desk.prefect.runs.values())
    own = runs[0].parameters["backfill"]
    assert {desk.prefect.queue_of[run.id] for run in runs} == {"backfill"}
    assert {desk.prefect.tags[run.id] for run in runs} == {(f"orchctl-backfill:{own}",)}
    first = dict(runs[0].parameters)
    assert first.pop("digest").startswith("sha256:")
    assert first == {
        "job": "job",
        "game_date": "2025-12-01",
        "backfill": own,
        "run_as_of_ts": "2025-12-01T23:00:00Z",
        "as_of_mode": "lock",
        "steps": "a,b",
        "partition": {"season": "2030"},
    }
    assert [run.parameters["game_date"][-2:] for run in runs] == ["01", "02", "03", "04", "05", "06"]


def test_without_a_mode_the_runner_decides_about_the_instant(desk: Desk) -> None:
    desk.go(*MONTH, wait=None)
    assert all("run_as_of_ts" not in run.parameters for run in desk.prefect.runs.values())
    assert not desk.asked_as_of


def test_the_same_command_again_makes_no_second_run(desk: Desk) -> None:
    desk.go(*MONTH, wait=None)
    desk.prefect.writes.clear()
    again = desk.go(*MONTH, wait=None)
    assert (again.created, again.again, again.going) == (0, 0, 6)
    assert not desk.prefect.writes
    desk.turn()
    assert desk.actions(*MONTH) == dict.fromkeys(("01", "02", "03", "04", "05", "06"), "leave")


def test_it_ends_with_a_summary_and_then_there_is_nothing_to_do(desk: Desk) -> None:
    done = desk.go(*MONTH)
    assert isinstance(done, Ended)
    assert Counter(desk.log) == Counter(Asked("", "", date(2025, 12, 1), date(2025, 12, 6)).dates)
    assert (done.summary["attempted"], done.summary["succeeded"], done.summary["failed"]) == (6, 6, 0)
    assert done.exit_code == ExitCode.DONE
    assert done.path == desk.folder / "manifests" / "backfills" / done.summary["backfill"] / "summary.json"
    desk.prefect.writes.clear()
    again = desk.go(*MONTH, wait=None)
    assert isinstance(again, Ended)
    assert not desk.prefect.writes
    assert len(desk.log) == 6
    assert [row["kept"] for row in again.summary["runs"]] == [True] * 6


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_at_most_so_many_wait_or_run_at_a_time(tmp_path: Path, parallel: int) -> None:
    desk = Desk(tmp_path, backfill={"parallel": 50})
    unfinished = [
        sum(not run.finished for run in desk.prefect.runs.values())
        for item in desk.steps("2025-11-01", "2025-11-30", wait=parallel)
    ]
    assert max(unfinished) == parallel
    assert len(desk.log) == 30


def test_what_was_submitted_without_waiting_is_waited_for(desk: Desk) -> None:
    desk.go(*MONTH, wait=None)
    done = desk.go(*MONTH, wait=1)
    assert done.summary["succeeded"] == 6
    assert max(desk.at_a_time) == 2  # the queue's own limit


def test_progress_says_what_runs_what_failed_and_what_remains(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("02"))
    items = [item for item in desk.steps(*MONTH) if not isinstance(item, Ended)]
    assert [each.submitted for each in items if not isinstance(each, Submitted)][-1] == 6
    news = [(f"{new.game_date:%d}", new.outcome) for item in items for new in getattr(item, "news", ())]
    assert sorted(news) == [
        (day, "failed" if day == "02" else "success") for day in ("01", "02", "03", "04", "05", "06")
    ]
    for item in items:
        assert not isinstance(item, Submitted)
        assert item.ended + len(item.running) + item.waiting + item.left == item.total == 6


# What had failed.


@pytest.mark.parametrize("kind", ["FAILED", "CRASHED", "CANCELLED"])
def test_what_did_not_end_well_is_run_again_as_the_same_run(tmp_path: Path, kind: str) -> None:
    desk = Desk(tmp_path, fails("03"))
    done = desk.go(*MONTH)
    assert (done.summary["failed"], done.summary["succeeded"], done.exit_code) == (1, 5, ExitCode.PARTIAL)
    (bad,) = [run for run in desk.prefect.runs.values() if run.state_type == "FAILED"]
    desk.prefect.set_run(bad.id, state_type=kind, state_name=kind.title())
    desk.prefect.writes.clear()
    again = desk.go(*MONTH)
    assert (again.summary["failed"], again.summary["succeeded"]) == (0, 6)
    assert desk.prefect.writes == ["set_run_state"]
    assert len(desk.prefect.runs) == 6
    assert desk.begun.count(date(2025, 12, 3)) == 2
    assert Counter(desk.log).most_common(1)[0][1] == 1


def test_what_fails_while_one_waits_is_not_tried_again_by_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path, lambda _day, _attempt: "failed")
    done = desk.go(*MONTH)
    assert (done.summary["failed"], done.summary["succeeded"], done.exit_code) == (6, 0, ExitCode.FAILED)
    assert len(desk.begun) == 6


def test_a_run_that_was_tried_again_has_the_catalog_as_it_is_now(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("03"))
    desk.go(*MONTH)
    desk.edit(timeout="2m")
    desk.sync()
    done = desk.go(*MONTH)
    assert done.summary["failed"] == 0
    digests = {run.parameters["game_date"][-2:]: run.parameters["digest"] for run in desk.prefect.runs.values()}
    assert digests["03"] == desk.catalog.digest != digests["01"]


def test_changes_that_are_not_synced_are_told_of(desk: Desk) -> None:
    desk.edit(timeout="2m")
    assert any("not synced" in note for note in desk.prepare(*MONTH).notes)


def test_without_resume_a_failure_gets_a_new_run(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("03"))
    desk.go(*MONTH)
    anew = Wish(no_resume=True)
    assert desk.go(*MONTH, anew).summary["failed"] == 1
    desk.plays = lambda _day, _attempt: "success"
    done = desk.go(*MONTH, anew)
    assert done.summary["succeeded"] == 6
    assert len(desk.prefect.runs) == 8
    assert "set_run_state" not in desk.prefect.writes
    desk.prefect.writes.clear()
    desk.go(*MONTH, anew)
    assert not desk.prefect.writes


def test_a_run_that_ended_without_running_is_a_failure(desk: Desk) -> None:
    desk.go(*MONTH, wait=None)
    for run in list(desk.prefect.runs.values()):
        desk.prefect.set_run(
            run.id, state_type="COMPLETED", state_name="Skipped", state_message="the partition is locked"
        )
    assert set(desk.actions(*MONTH).values()) == {"retry"}
    assert desk.go(*MONTH).summary["succeeded"] == 6


def test_a_run_that_somebody_deletes_while_one_waits_is_a_failure_and_comes_again(desk: Desk) -> None:
    items = desk.steps("2025-12-01", "2025-12-01")
    next(items)
    desk.prefect.runs.clear()
    *_, done = items
    assert isinstance(done, Ended)
    assert done.summary["runs"][0]["reason"] == "its flow run was deleted in Prefect"
    assert desk.go("2025-12-01", "2025-12-01").summary["succeeded"] == 1


def test_a_run_that_somebody_else_has_set_going_meanwhile_is_left_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("01"))
    desk.go("2025-12-01", "2025-12-01")
    prepared = desk.prepare("2025-12-01", "2025-12-01")
    (run,) = desk.prefect.runs.values()
    desk.prefect.set_run(run.id, state_type="SCHEDULED", state_name="AwaitingRetry")
    desk.prefect.writes.clear()
    *_, done = carry_out(desk.world(), prepared, at_a_time=1)
    assert isinstance(done, Ended)
    assert done.summary["succeeded"] == 1
    assert not desk.prefect.writes


# Which dates are wanted.


def at(day: str, hour: int) -> datetime:
    return datetime(2025, 12, 18, hour, tzinfo=UTC) + timedelta(minutes=int(day))


def test_only_missed_leaves_out_what_has_a_success_whoever_ran_it(desk: Desk) -> None:
    for day, statuses in {"01": ["success"], "02": ["failed"], "03": ["success", "failed"], "04": ["skipped"]}.items():
        for hour, status in enumerate(statuses):
            desk.leave(date(2025, 12, int(day)), f"20251218T0{hour}00{day}Z-00000{hour}", status, at=at(day, hour))
    wish = Wish(only_missed=True)
    assert desk.actions("2025-12-01", "2025-12-05", wish) == {
        "01": "skip",
        "02": "create",
        "03": "skip",
        "04": "create",
        "05": "create",
    }
    done = desk.go("2025-12-01", "2025-12-05", wish)
    assert (done.summary["attempted"], done.summary["skipped"], done.summary["succeeded"]) == (3, 2, 3)
    assert sorted(f"{day:%d}" for day in desk.log) == ["02", "04", "05"]


def test_failed_takes_those_whose_newest_run_failed(desk: Desk) -> None:
    told = {
        "01": ["failed", "success"],
        "02": ["success", "failed"],
        "03": ["crashed", "skipped"],
        "04": ["cancelled", "observed"],
        "06": ["running"],
    }
    for day, statuses in told.items():
        for hour, status in enumerate(statuses):
            desk.leave(date(2025, 12, int(day)), f"20251218T0{hour}00{day}Z-00000{hour}", status, at=at(day, hour))
    found = desk.actions("2025-12-01", "2025-12-06", Wish(failed=True))
    assert {day for day, action in found.items() if action == "create"} == {"02", "03", "04"}
    assert {action for day, action in found.items() if day not in {"02", "03", "04"}} == {"skip"}


def test_a_wish_does_not_undo_what_this_backfill_has_begun(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("02"))
    desk.leave(date(2025, 12, 2), "20251218T010002Z-000001", "failed", at=at("02", 1))
    wish = Wish(failed=True)
    desk.go("2025-12-01", "2025-12-03", wish, wait=None)
    assert desk.actions("2025-12-01", "2025-12-03", wish) == {"01": "skip", "02": "leave", "03": "skip"}
    desk.go("2025-12-01", "2025-12-03", wish)
    assert desk.actions("2025-12-01", "2025-12-03", wish)["02"] == "retry"
    desk.go("2025-12-01", "2025-12-03", wish)
    assert desk.actions("2025-12-01", "2025-12-03", wish)["02"] == "kept"


def test_a_run_of_a_few_steps_is_no_success_of_the_job(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **STEPPED)
    rows = [{"name": "a", "status": "success"}]
    more: dict[str, Any] = {"execution": "steps", "steps": rows}
    desk.leave(date(2025, 12, 1), "20251218T010001Z-000001", "success", at=at("01", 1), **more)
    more = {"execution": "steps", "steps": [*rows, {"name": "b", "status": "success"}]}
    desk.leave(date(2025, 12, 2), "20251218T010002Z-000001", "success", at=at("02", 1), **more)
    assert desk.actions("2025-12-01", "2025-12-02", Wish(only_missed=True)) == {"01": "create", "02": "skip"}


def test_with_a_choice_of_steps_each_of_them_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **STEPPED)
    for day, assets in (("01", "ab"), ("02", "a")):
        for asset in assets:
            run_id = f"20251218T0100{day}Z-000001"
            desk.leave(date(2025, 12, int(day)), run_id, "success", at=at(day, 1), asset=asset, step=asset)
    wish = Wish(only_missed=True)
    assert desk.actions("2025-12-01", "2025-12-03", wish, steps="a,b") == {"01": "skip", "02": "create", "03": "create"}
    assert desk.actions("2025-12-01", "2025-12-03", wish, steps="a") == {"01": "skip", "02": "skip", "03": "create"}


# All anew.


def test_force_begins_all_anew_and_goes_on_with_that_until_it_has_ended(desk: Desk) -> None:
    desk.go(*MONTH)
    force = Wish(force=True)
    items = desk.steps(*MONTH, force)
    for _ in range(4):
        next(items)
    items.close()  # type: ignore[attr-defined]
    begun = len(desk.prefect.runs)
    assert 6 < begun < 12
    done = desk.go(*MONTH, force)
    assert len(desk.prefect.runs) == 12
    assert Counter(desk.log) == dict.fromkeys(Asked("", "", date(2025, 12, 1), date(2025, 12, 6)).dates, 2)
    assert done.summary["backfill"].endswith("-2")
    assert desk.go(*MONTH, force).summary["backfill"].endswith("-3")
    assert len(desk.log) == 18


def test_without_force_the_newest_time_is_gone_on_with(desk: Desk) -> None:
    desk.go(*MONTH, Wish(force=True))
    assert set(desk.actions(*MONTH).values()) == {"kept"}
    assert desk.prepare(*MONTH).id.endswith("-2")


def test_nothing_is_begun_anew_while_runs_of_before_go(desk: Desk) -> None:
    desk.go(*MONTH, wait=None)
    with pytest.raises(GateRefused, match=r"6 runs of backfill .* still wait or go"):
        desk.go(*MONTH, Wish(force=True))


# Where Prefect does not know what has become of a run.


def lost_worker(desk: Desk, *names: str, heard: timedelta = timedelta()) -> None:
    found = tuple(RemoteWorker(name, True, desk.time - heard) for name in names)
    desk.prefect.workers = lambda pool: found  # type: ignore[method-assign]


@pytest.mark.parametrize("how", ["dies", "unsaid"])
def test_a_run_whose_process_is_gone_is_found_out(tmp_path: Path, how: str) -> None:
    desk = Desk(tmp_path, fails("02", "04", how=how))
    done = desk.go(*MONTH)
    if how == "dies":
        assert (done.summary["succeeded"], done.summary["failed"]) == (4, 2)
        assert done.summary["runs"][1]["reason"] == "its process is gone and left no result"
        assert state(desk, "2025-12-02") == "Crashed"
        done = desk.go(*MONTH)
    assert (done.summary["succeeded"], done.summary["failed"]) == (6, 0)
    assert {run.state_type for run in desk.prefect.runs.values()} == {"COMPLETED"}
    assert Counter(desk.log).most_common(1)[0][1] == 1


def test_a_success_that_prefect_was_not_told_of_is_none_to_run_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fails("02", how="unsaid"))
    for item in desk.steps(*MONTH):
        if not isinstance(item, Ended | Submitted) and date(2025, 12, 2) in desk.log:
            break
    (run,) = [run for run in desk.prefect.runs.values() if run.state_type == "RUNNING" and run.id not in desk.alive]
    desk.prefect.set_run(run.id, state_type="CRASHED", state_name="Crashed")
    assert desk.actions(*MONTH)["02"] == "kept"
    done = desk.go(*MONTH)
    assert done.summary["succeeded"] == 6
    assert desk.log.count(date(2025, 12, 2)) == 1


@pytest.mark.parametrize(
    ("since", "workers", "lives", "lost"),
    [
        (60, (HERE,), False, True),
        (60, (), False, True),
        (10, (HERE,), False, False),
        (60, (HERE,), True, False),
        (60, (HERE, "far-nobody"), False, False),
    ],
    ids=["gone", "no worker at all", "just begun", "has a process", "may be another host's"],
)
@pytest.mark.parametrize("kind", ["PENDING", "RUNNING"])
def test_a_run_counts_as_lost_only_where_it_surely_is(
    desk: Desk, kind: str, since: int, workers: tuple[str, ...], lives: bool, lost: bool
) -> None:
    desk.go("2025-12-01", "2025-12-01", wait=None)
    (run,) = desk.prefect.runs.values()
    began = desk.time - timedelta(seconds=since)
    desk.prefect.set_run(run.id, state_type=kind, state_name=kind.title(), state_since=began)
    lost_worker(desk, *workers)
    if lives:
        desk.alive.add(run.id)
    assert desk.actions("2025-12-01", "2025-12-01") == {"01": "retry" if lost else "leave"}


def test_where_processes_of_others_cannot_be_seen_nothing_is_lost(desk: Desk) -> None:
    desk.go("2025-12-01", "2025-12-01", wait=None)
    (run,) = desk.prefect.runs.values()
    desk.prefect.set_run(run.id, state_type="RUNNING", state_since=desk.time - timedelta(hours=1))
    world = replace(desk.world(), living=lambda: None)
    wanted = backfill.request(world, backfill.Words("job", "2025-12-01", "2025-12-01"))
    assert [each.action for each in backfill.prepare(world, wanted, Wish()).partitions] == ["leave"]


# Where it breaks off.


def dates(count: int) -> tuple[str, str]:
    return (TODAY - timedelta(days=count - 1)).isoformat(), TODAY.isoformat()


def twice(desk: Desk) -> Any:
    """The second time it runs those again that had failed."""
    desk.go(*dates(7))
    return desk.go(*dates(7))


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("number", range(9))
def test_wherever_prefect_fails_the_same_command_ends_it(tmp_path: Path, lost: str, number: int) -> None:
    desk = Desk(tmp_path, fails("15", "17"))
    setattr(desk.prefect, lost, failing_at(number))
    with pytest.raises(OrchctlError) as raised:
        twice(desk)
    assert raised.value.exit_code == ExitCode.PREFECT
    assert "runs were submitted" in raised.value.message
    setattr(desk.prefect, lost, lambda _: None)
    done = twice(desk)
    assert (done.summary["succeeded"], done.summary["failed"]) == (7, 0)
    assert Counter(desk.log).most_common(1)[0][1] == 1
    assert len(desk.prefect.runs) == 7


@pytest.mark.parametrize("wait", [None, 3])
@pytest.mark.parametrize("seed", range(5))
def test_sixty_dates_killed_at_random_until_done(tmp_path: Path, seed: int, wait: int | None) -> None:
    """The client dies at any call, before or after it; runs fail, die, or end unsaid: each date has one success."""
    rng = random.Random(seed)
    bad = {(TODAY - timedelta(days=rng.randrange(60))): rng.choice(["failed", "dies", "unsaid"]) for _ in range(12)}
    desk = Desk(tmp_path, lambda day, attempt: bad.get(day, "success") if attempt == 1 else "success")

    def die(_call: int) -> None:
        if rng.random() < 0.06:
            raise Killed

    desk.prefect.before = desk.prefect.after = die
    lives = 0
    while True:
        lives += 1
        assert lives < 400
        try:
            done = desk.go(*dates(60), wait=wait)
        except Killed:
            continue
        if isinstance(done, Ended) and done.summary["succeeded"] == 60:
            break
        for _ in range(rng.randrange(25)):
            desk.sleep(2.0)
    assert Counter(desk.log) == dict.fromkeys(Asked("", "", TODAY - timedelta(days=59), TODAY).dates, 1)
    assert len(desk.prefect.runs) == 60
    assert max(desk.at_a_time) <= 2
    begun = Counter(desk.begun)
    assert {day for day, count in begun.items() if count > 1} == {
        day for day, how in bad.items() if how in {"failed", "dies"}
    }
    assert done.summary["attempted"] == 60
    assert {run.state_type for run in desk.prefect.runs.values()} == {"COMPLETED"}


@pytest.mark.parametrize("keys", [True, False], ids=["with its keys", "the control: without"])
def test_two_clients_that_begin_at_once_make_each_run_once(desk: Desk, keys: bool) -> None:
    numbers = iter(range(1000))
    real = desk.prefect.create_run

    def create(*words: Any, **more: Any) -> RemoteRun:
        return real(*words, **more) if keys else real(*words, **{**more, "idempotency_key": str(next(numbers))})

    desk.prefect.create_run = create  # type: ignore[method-assign]
    both = [desk.prepare(*MONTH), desk.prepare(*MONTH)]
    for prepared in both:
        *_, done = carry_out(desk.world(), prepared, at_a_time=2)
        assert isinstance(done, Ended)
    assert len(desk.prefect.runs) == (6 if keys else 12)
    assert Counter(desk.log).most_common(1)[0][1] == (1 if keys else 2)


def test_a_date_without_an_instant_fails_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, as_of={"lock": {"file": "/x"}})
    usual = desk.as_of

    def as_of(job: Any, mode: str, day: date, given: Any) -> datetime:
        if day.day == 3:
            raise OrchctlError(f"as-of mode {mode} has no instant for {day}")
        return usual(job, mode, day, given)

    desk.as_of = as_of
    submitted = desk.go(*MONTH, wait=None, as_of_mode="lock")
    assert (submitted.created, submitted.exit_code) == (5, ExitCode.PARTIAL)
    assert [each.why for each in submitted.failed] == ["as-of mode lock has no instant for 2025-12-03"]
    done = desk.go(*MONTH, as_of_mode="lock")
    assert (done.summary["succeeded"], done.summary["failed"], done.exit_code) == (5, 1, ExitCode.PARTIAL)
    assert [each["message"] for each in done.summary["errors"]] == ["as-of mode lock has no instant for <date>"]
    desk.as_of = usual
    assert desk.go(*MONTH, as_of_mode="lock").summary["succeeded"] == 6


def test_ctrl_c_while_it_sleeps_leaves_what_was_submitted(desk: Desk) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(carry_out(desk.world(sleep=interrupt), desk.prepare(*MONTH), at_a_time=2))
    assert len(desk.prefect.runs) == 2
    assert desk.go(*MONTH).summary["succeeded"] == 6
    assert len(desk.prefect.runs) == 6


def test_a_server_that_goes_while_it_is_followed_ends_it_with_what_to_do(desk: Desk) -> None:
    items = desk.steps(*MONTH)
    next(items)

    def gone(ids: Any) -> tuple[RemoteRun, ...]:
        raise PrefectUnreachable("cannot reach the Prefect API")

    desk.prefect.flow_runs = gone  # type: ignore[method-assign]
    with pytest.raises(OrchctlError, match="2 of 6 runs were submitted; 2 wait or run in Prefect") as raised:
        list(items)
    assert raised.value.exit_code == ExitCode.PREFECT
    assert raised.value.hint is not None


def test_a_date_without_an_instant_does_not_keep_another_force_from_beginning(tmp_path: Path) -> None:
    desk = Desk(tmp_path, as_of={"lock": {"file": "/x"}})

    def no_instant(job: Job, mode: str, day: date, given: Any) -> datetime:
        if day.day == 3:
            raise OrchctlError("no slate")
        return desk._as_of(job, mode, day, given)

    desk.as_of = no_instant
    names = [desk.go(*MONTH, Wish(force=force), as_of_mode="lock").summary["backfill"] for force in (False, True, True)]
    assert [name[-2:] for name in names[1:]] == ["-2", "-3"]
    assert len(desk.log) == 15


def test_a_success_of_another_partition_is_not_this_ones(tmp_path: Path) -> None:
    desk = Desk(tmp_path, partition={"group": {"default": "all"}})
    desk.go(*MONTH, partition={"group": "all"})
    done = desk.go(*MONTH, Wish(only_missed=True), partition={"group": "late"})
    assert (done.summary["skipped"], done.summary["succeeded"]) == (0, 6)


def test_a_success_of_before_a_key_was_declared_is_that_of_its_default(tmp_path: Path) -> None:
    desk = Desk(tmp_path, partition={"group": {"default": "all"}})
    desk.leave(date(2025, 12, 1), "20251201T000000Z-abcdef", "success")
    assert desk.actions(*MONTH, Wish(only_missed=True))["01"] == "skip"
    assert desk.actions(*MONTH, Wish(only_missed=True), partition={"group": "late"})["01"] == "create"


@pytest.mark.parametrize("wish", [Wish(only_missed=True), Wish(failed=True), Wish()])
def test_what_may_not_be_read_is_no_date_without_a_success(desk: Desk, wish: Wish) -> None:
    desk.plays = lambda _day, _attempt: "failed"
    desk.go(*MONTH)
    for path in desk.folder.glob("manifests/job/game_date=2025-12-03/run=*/manifest.json"):
        path.unlink()
        path.symlink_to(path.name)  # not even root can read it
    with pytest.raises(OrchctlError, match=r"game_date=2025-12-03/.*cannot be read"):
        desk.prepare(*MONTH, wish)
