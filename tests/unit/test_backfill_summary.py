"""The summary of a backfill: what was counted, how long it took, and which failures have the same cause."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from orchctl.core.backfill_summary import Counts, Ending, normalised, summary

FIRST = date(2025, 12, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def run(number: int, outcome: Any, *steps: dict[str, Any], **more: Any) -> Ending:
    """Return the ending of a date. `steps`: the step's name and status, its error, inputs and seconds."""
    rows = [
        {
            "name": each["name"],
            "status": each["status"],
            "reason": each.get("reason"),
            "duration_s": each.get("seconds"),
        }
        for each in steps
    ]
    made = [
        {"step": each["name"], "error": each.get("error"), "inputs": each.get("inputs", [])}
        for each in steps
        if each["status"] not in {"skipped", "waiting"}
    ]
    manifest = {
        "status": outcome,
        "attempt": 1,
        "timing": {"duration_s": 9.0},
        "error": more.get("error"),
        "steps": rows,
    }
    return Ending(day(number), outcome, more.get("reason"), f"run-{number}", manifest=manifest, steps=made)


def ok(name: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "status": "success", "seconds": seconds, **more}


def bad(name: str, message: str, *, kind: str = "other", **more: Any) -> dict[str, Any]:
    error = {
        "class": kind,
        "type": more.pop("type", "NonZeroExit"),
        "message": message,
        "snippet": more.pop("tail", None),
    }
    return {"name": name, "status": more.pop("status", "failed"), "seconds": 1.0, "error": error, **more}


def skipped(name: str) -> dict[str, Any]:
    return {"name": name, "status": "skipped", "reason": "upstream failed: x"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no data for 2025-12-01", "no data for 2025-12-02"),
        ("run 20251219T020143Z-3f9a1c is gone", "run 20251220T020143Z-aaaaaa is gone"),
        ("3 of 412 rows have p50 > 48", "7 of 9 rows have p50 > 48.5"),
        ("stale: 93.9h old at 2025-12-19T05:00:00Z", "stale: 18h old at 2025-12-20 06:00:00.123+00:00"),
        ("cannot read /srv/20251201/x.parquet", "cannot read /srv/20251202/x.parquet"),
        (
            "object 0x7f3a at 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "object 0xff at 00000000-0000-4000-8000-000000000000",
        ),
        ("commit 1a2b3c4 is not there", "commit 9f8e7d6c5 is not there"),
        ("two\nlines", "two\nother lines"),
        ("  blanks   here ", "blanks here"),
    ],
)
def test_the_same_cause_on_two_dates_reads_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exit code 1", "exit code 75"),
        ("HTTP 503 for /x", "HTTP 404 for /x"),
        ("[Errno 13] no", "[Errno 28] no"),
        ("missing column season_fg2_pct", "missing column season_fg3_pct"),
        ("column p50", "column p90"),
        ("killed by SIGKILL", "killed by SIGTERM"),
        ("no data for the roster", "no data for the slate"),
    ],
)
def test_different_causes_stay_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_a_message_without_words_is_none() -> None:
    assert normalised("") == normalised("\n\n") == ""


def test_errors_are_grouped_by_step_class_and_what_was_said_the_most_frequent_first() -> None:
    endings = [
        run(0, "failed", ok("a", 1.0), bad("b", "no data for 2025-12-01", kind="input"), skipped("c")),
        run(1, "failed", ok("a", 2.0), bad("b", "no data for 2025-12-02", kind="input"), skipped("c")),
        run(2, "failed", bad("a", "exit code 1", tail="ReadTimeout: after 30 s\n"), skipped("b"), skipped("c")),
        run(3, "success", ok("a", 3.0), ok("b", 1.0), bad("c", "exit code 1", tail="oh", status="warned")),
        Ending(day(4), "failed", "crashed: its process is gone"),
    ]
    errors = summary(endings, {})["errors"]
    assert [(each["step"], each["class"], each["message"], each["count"]) for each in errors] == [
        ("b", "input", "no data for <date>", 2),
        ("a", "other", "exit code 1: ReadTimeout: after <n> s", 1),
        ("c", "other", "exit code 1: oh", 1),
        (None, None, "crashed: its process is gone", 1),
    ]
    assert errors[0]["game_dates"] == ["2025-12-01", "2025-12-02"]
    assert errors[0]["example"] == "no data for 2025-12-01"


def test_a_command_is_grouped_by_its_exit_and_its_last_words() -> None:
    def failed(number: int, said: str) -> Ending:
        error = {"type": "NonZeroExit", "message": "exit code 3", "snippet": f"begun\n{said}\n"}
        return run(number, "failed", error=error)

    found = summary([failed(0, "no rows for 2025-12-01"), failed(1, "no rows for 2025-12-02"), failed(2, "other")], {})
    assert [(each["message"], each["count"]) for each in found["errors"]] == [
        ("exit code 3: no rows for <date>", 2),
        ("exit code 3: other", 1),
    ]
    (row,) = found["steps"]
    assert (row["step"], row["runs"], row["failed"], row["total_s"]) == (None, 3, 3, 27.0)


def test_durations_are_those_of_what_ran() -> None:
    endings = [
        run(0, "success", ok("a", 1.0), ok("b", 10.0)),
        run(1, "success", ok("a", 3.0), {"name": "b", "status": "kept", "seconds": 99.0}),
        run(2, "failed", bad("a", "exit code 1", seconds=8.0), skipped("b")),
        Ending(day(3), "skipped", "there is one"),
    ]
    rows = summary(endings, {})["steps"]
    assert [(row["step"], row["runs"], row["kept"], row["failed"], row["skipped"]) for row in rows] == [
        ("a", 3, 0, 1, 0),
        ("b", 1, 1, 0, 1),
    ]
    assert (rows[0]["min_s"], rows[0]["median_s"], rows[0]["max_s"], rows[0]["total_s"]) == (1.0, 3.0, 8.0, 12.0)
    none = summary([run(0, "failed", skipped("a"))], {})["steps"][0]
    assert (none["runs"], none["median_s"], none["total_s"]) == (0, None, 0)


def test_gaps_of_inputs_are_told_by_step_and_input() -> None:
    gap = {"name": "roster", "gap": "no snapshot at or before 2025-12-01T05:00:00Z at /x/run_ts=*"}
    later = {"name": "roster", "gap": "no snapshot at or before 2025-12-02T05:00:00Z at /x/run_ts=*"}
    fine = {"name": "odds", "gap": None}
    endings = [
        run(0, "success", ok("a", 1.0, inputs=[gap, fine])),
        run(1, "success", ok("a", 1.0, inputs=[later])),
        run(2, "success", ok("a", 1.0, inputs=[fine])),
    ]
    (row,) = summary(endings, {})["input_gaps"]
    assert (row["step"], row["input"], row["count"]) == ("a", "roster", 2)
    assert row["game_dates"] == ["2025-12-01", "2025-12-02"]


def test_it_counts_and_names_every_date() -> None:
    endings = [
        run(0, "success", ok("a", 1.0)),
        run(1, "failed", bad("a", "exit code 1"), reason="exit code 1"),
        Ending(day(2), "skipped", "there is one"),
    ]
    assert Counts.of(endings) == Counts(partitions=3, attempted=2, succeeded=1, failed=1, skipped=1)
    found = summary(endings, {"backfill": "x"})
    assert found["backfill"] == "x"
    assert [(row["game_date"], row["outcome"], row["reason"]) for row in found["runs"]] == [
        ("2025-12-01", "success", None),
        ("2025-12-02", "failed", "exit code 1"),
        ("2025-12-03", "skipped", "there is one"),
    ]
