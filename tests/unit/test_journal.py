"""Legacy runs, folded from recordings of a real journal and from made-up entries."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.core import journal
from orchctl.core.journal import LOST, REBOOTED, Entry, Folded, LegacyRun, entry_of, fold, settled
from orchctl.core.legacy import SYSTEM, Manager, Service

DATA = Path(__file__).parents[1] / "data"
DANIEL = Manager("user", "daniel")
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def recorded(name: str) -> list[Entry]:
    lines = [json.loads(line) for line in (DATA / f"journal_{name}.jsonl").read_text().splitlines()]
    return [entry for line in lines if (entry := entry_of(line, {"1001": DANIEL})) is not None]


def of(folded: Folded, unit: str) -> list[LegacyRun]:
    return [run for run in folded.runs if run.unit == f"{unit}.service"]


SYSTEM_RUNS: dict[str, list[tuple[Any, ...]]] = {
    "ok": [("success", 0, None, None)],
    "fail": [("exit-code", 3, None, "ExecStart")] * 2,
    "success3": [("success", 0, None, None)],
    "slow": [("timeout", None, "SIGTERM", "ExecStart")],
    "noenv": [("resources", None, None, None)],
    "noprog": [("exit-code", 203, None, "ExecStart")],
    "simple": [("success", 0, None, None)],
    "simplefail": [("exit-code", 4, None, "ExecStart")],
    "remain": [("success", 0, None, None)],
    "pre": [("exit-code", 5, None, "ExecStartPre")],
    "multi": [("success", 0, None, None)],
    "runtimemax": [("timeout", None, None, None)],
    "restart": [("exit-code", 2, None, "ExecStart")] * 3,
    "stopped": [("signal", None, "SIGTERM", "ExecStart")],
    "stoppeds": [("success", None, None, None)],
    "notify": [("success", 0, None, None)],
    "long": [(None, None, None, None)],
    "cond": [],
    "assert": [],
    "dep": [],
}


@pytest.mark.parametrize("unit", SYSTEM_RUNS)
def test_how_a_run_ended_is_read_as_systemd_says_it(unit: str) -> None:
    found = of(fold(recorded("system")), unit)
    assert [(run.result, run.exit_code, run.signal, run.command) for run in found] == SYSTEM_RUNS[unit]
    assert all(run.manager == SYSTEM and run.ran for run in found)
    assert len({run.invocation for run in found}) == len(found)


def test_a_kill_from_outside_names_its_signal() -> None:
    folded = fold(recorded("system"))
    assert [of(folded, unit)[1].signal for unit in ("killed", "dump", "termed")] == ["SIGKILL", "SIGABRT", "SIGTERM"]


def test_a_start_that_was_held_back_is_no_run() -> None:
    folded = fold(recorded("system"))
    held = {one.unit.removesuffix(".service"): one.reason for one in folded.held}
    assert held == {
        "cond": "a condition of the unit does not hold",
        "condl": "a condition of the unit does not hold",
        "fenced": "its ExecCondition= does not hold",
        "fencel": "its ExecCondition= does not hold",
        "assert": "an assertion of the unit does not hold",
        "dep": "a unit that it requires failed",
    }
    assert len(folded.held) == len(held)
    # The condition of `condl` failed between two runs, and systemd told of it with the invocation of the first.
    assert [(run.result, run.ran) for run in of(folded, "condl")] == [("success", True)] * 2
    assert [run.ran for run in of(folded, "fencel")] == [True, False]


def test_a_remaining_service_has_ended_when_its_work_is_done() -> None:
    (run,) = of(fold(recorded("system")), "remain")
    assert run.ended_at is not None
    assert run.ended_at - run.started_at < timedelta(seconds=1)


USER_RUNS: dict[str, list[tuple[Any, ...]]] = {
    "uok": [("success", 0, None, True)] * 2,
    "ufail": [("exit-code", 9, None, True)] * 2,
    # The users' managers say nothing of a good end: the second run shows that the first ended well, not when.
    "usimple": [("success", 0, None, False), (None, None, None, False)],
    "usimplebad": [("exit-code", 4, None, True)],
    "ustopped": [("success", None, None, True)],
    "unotify": [(None, None, None, False)],
}


@pytest.mark.parametrize("unit", USER_RUNS)
def test_what_a_users_manager_says(unit: str) -> None:
    found = of(fold(recorded("user")), unit)
    assert [(run.result, run.exit_code, run.signal, run.ended_at is not None) for run in found] == USER_RUNS[unit]
    assert {run.manager for run in found} == {DANIEL}


def test_another_users_messages_are_not_read() -> None:
    line = json.loads((DATA / "journal_user.jsonl").read_text().splitlines()[0])
    assert entry_of(line, {"1002": DANIEL}) is None
    with pytest.raises(ValueError, match="__CURSOR"):
        entry_of({key: value for key, value in line.items() if key != "__CURSOR"}, {"1001": DANIEL})


@pytest.mark.parametrize("name", ["system", "user"])
@given(cuts=st.lists(st.integers(0, 130), max_size=6), overlap=st.integers(0, 8))
def test_looks_that_end_anywhere_and_read_again_find_the_same_runs(name: str, cuts: list[int], overlap: int) -> None:
    entries = recorded(name)
    whole = {run.key: run for run in fold(entries).runs}
    found: dict[str, LegacyRun] = {}
    going: tuple[LegacyRun, ...] = ()
    at = 0
    for cut in sorted({min(one, len(entries)) for one in (*cuts, len(entries))}):
        folded = fold(entries[at:cut], going)
        for run in folded.runs:
            found.setdefault(run.key, run) if not run.is_open else None
        keep = max(at, cut - overlap)
        before = {run.key for run in fold(entries[at:keep], going).runs if run.is_open}
        going = tuple(run for run in folded.runs if run.is_open and run.key in before)
        at = keep
    assert found == {key: run for key, run in whole.items() if not run.is_open}


def test_reading_everything_twice_changes_nothing() -> None:
    entries = recorded("system")
    once = fold(entries)
    again = fold([*entries], [run for run in once.runs if run.is_open])
    assert {run.key: run for run in again.runs} == {run.key: run for run in once.runs}


# --- made-up entries


def said(kind: str, seconds: float, invocation: str = "a", message: str = "", **more: Any) -> Entry:
    text = message or {"started": "Started x", "starting": "Starting x"}.get(kind, "x")
    return Entry(
        f"c{seconds}", NOON + timedelta(seconds=seconds), "boot", SYSTEM, "x.service", invocation, kind, text, **more
    )


def test_a_run_whose_start_was_not_read_is_passed_over() -> None:
    ends = [
        said("exit", 1, code="exited", status=1),
        said("failed", 1, result="exit-code"),
        said("started", 2, message="Finished x"),
    ]
    assert fold(ends) == Folded((), ())


def test_another_start_shows_that_the_run_before_has_ended() -> None:
    first, second = fold([said("starting", 0), said("starting", 9, "b")]).runs
    assert (first.result, first.ended_at, second.is_open) == (LOST, None, True)
    other_boot = replace(said("starting", 9, "b"), boot_id="later")
    assert fold([said("starting", 0), other_boot]).runs[0].result == REBOOTED


def test_a_start_limit_is_no_run_and_a_restart_keeps_its_end() -> None:
    entries = [
        said("starting", 0),
        said("failed", 1, result="exit-code"),
        said("stopped", 2),
        said("failed", 2, result="start-limit-hit"),
        said("start-failed", 2, result="failed"),
    ]
    folded = fold(entries)
    (run,) = folded.runs
    assert (run.result, run.ended_at) == ("exit-code", NOON + timedelta(seconds=1))
    assert [one.reason for one in folded.held] == ["it was started too often (its start limit)"]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("exited", 7, (7, None)),
        ("killed", 9, (None, "SIGKILL")),
        ("dumped", 11, (None, "SIGSEGV")),
        ("killed", 40, (None, "SIGRTMIN+6")),
        ("killed", None, (None, None)),
        (None, 3, (None, None)),
    ],
)
def test_an_exit_is_a_code_or_a_signal(code: str | None, status: int | None, expected: tuple[Any, Any]) -> None:
    assert journal.exit_of(code, status) == expected


@pytest.mark.parametrize(("message", "expected"), [("é", "é".encode()), ([104, 255], b"h\xff"), (None, b"")])
def test_a_message_may_be_no_text(message: object, expected: bytes) -> None:
    assert journal.text_of(message) == expected


# --- what the service itself still knows


def shown(**fields: Any) -> Service:
    nothing: dict[str, Any] = dict.fromkeys(Service.__dataclass_fields__)
    given = {"active": "inactive", "invocation_id": "a", "result": "success", "main_code": 1, "main_status": 0}
    return Service(**{**nothing, **given, "ended_at": NOON + timedelta(seconds=3), **fields})


OPEN = LegacyRun("x.service", DANIEL, "a", "boot", NOON, ready=True)
SHOWN: Iterable[tuple[Service | None, float, tuple[Any, ...]]] = [
    (None, 900, (None, None, None)),
    (shown(active="active"), 900, (None, None, None)),
    (shown(), 5, ("success", 0, 3.0)),
    (shown(), 4, (None, None, None)),  # the journal may still tell
    (shown(result="exit-code", main_status=4), 9, ("exit-code", 4, 3.0)),
    (shown(ended_at=NOON - timedelta(seconds=1)), 900, (None, None, None)),  # the end of the run before
    (shown(ended_at=NOON - timedelta(seconds=0.9)), 900, ("success", 0, 0.0)),  # whole seconds are shown
    (shown(invocation_id="b"), 59, (None, None, None)),
    (shown(invocation_id="b"), 61, ("success", 0, None)),
    (shown(invocation_id=None, ended_at=None), 61, ("success", 0, None)),
]


@pytest.mark.parametrize(("service", "after", "expected"), SHOWN)
def test_an_end_that_no_journal_holds_is_taken_from_the_service(
    service: Service | None, after: float, expected: tuple[Any, ...]
) -> None:
    run = settled(OPEN, service, shown_at=NOON + timedelta(seconds=after))
    took = (run.ended_at - run.started_at).total_seconds() if run.ended_at else None
    assert (run.result, run.exit_code, took) == expected
