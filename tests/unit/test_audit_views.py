"""What an audit looks like: lines that fit, neighbours together, and JSON that holds every slot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchctl.cli import audit_views, render
from orchctl.core.audit import Extra, Gap, JobAudit, Slot
from orchctl.core.manifest import Skipped
from orchctl.services.audit import Audited
from orchctl.services.runs import Window, window_of
from orchctl.wiring import Settings

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ZONE = "America/New_York"


def settings(*, as_json: bool = False) -> Settings:
    return Settings(Path("/c"), Path("/s"), None, as_json=as_json, color=False)


def window(day: str = "2025-12-19") -> Window:
    return window_of(day, None, timezone=ZONE, now=NOW)


def missed(at: int) -> Slot:
    return Slot(at, "legacy", ("t",), "missed", "nothing ran it")


def text(capsys: pytest.CaptureFixture[str], *jobs: JobAudit, day: str = "2025-12-19") -> list[str]:
    audit_views.audited(Audited(window(day), NOW, jobs), ZONE, settings(), one_day=True)
    return capsys.readouterr().out.splitlines()


def first(day: str = "2025-12-19") -> int:
    return int(window(day).start.timestamp())


def test_neighbours_of_one_kind_are_one_line_and_ok_ones_none(capsys: pytest.CaptureFixture[str]) -> None:
    begun = first()
    slots = [Slot(begun, "legacy", ("t",), "ok", runs=("a",))] + [missed(begun + 5 * n) for n in range(1, 721)]
    lines = text(capsys, JobAudit("live-score", tuple(slots)), JobAudit("quiet", ()))
    assert lines == [
        "live-score  721 slots: 1 ok, 720 missed",
        "  00:00:05 … 01:00:00    missed   720 slots: nothing ran it",
        "quiet       0 slots",
        "721 slots: 1 ok, 720 missed on 2025-12-19 (America/New_York)",
    ]


def test_no_line_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "width", lambda: 80)
    both = "live-score.service (system) and live-score.service (user of daniel) both ran it"
    runs = tuple(f"20251219T05000{n}Z-00000{n}" for n in range(9))
    slot = Slot(first(), "legacy", ("t",), "double", both, runs=runs)
    extra = Extra("live-score.service (system)", runs[:2])
    lines = text(capsys, JobAudit("live-score", (slot,), extra=(extra,)))
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    assert both in said
    assert f"9 runs: {', '.join(runs[:3])} and 6 more" in said
    assert f"2 runs: {runs[0]}, {runs[1]} of live-score.service (system) belong to no slot" in said


def test_the_repeated_hour_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    begun = first("2026-11-01")
    slots = (missed(begun + 3600), Slot(begun + 5400, "legacy", (), "ok"), missed(begun + 7200))
    lines = text(capsys, JobAudit("job", slots), day="2026-11-01")
    assert [line.split()[:2] for line in lines[1:3]] == [["01:00:00", "EDT"], ["01:00:00", "EST"]]


def test_a_gap_says_what_it_spans(capsys: pytest.CaptureFixture[str]) -> None:
    start, end = window().start.timestamp(), window().end.timestamp()
    gaps = (Gap(start, end, "no timer"), Gap(start, start + 7200, "early"), Gap(start + 7200, end, "later"))
    lines = text(capsys, JobAudit("job", (), gaps))
    assert lines[1:4] == [
        "  all the time           unknown  the slots are not known: no timer",
        "  until 02:00:00         unknown  the slots are not known: early",
        "  from 02:00:00          unknown  the slots are not known: later",
    ]
    assert lines[-1].endswith("; of 1 job not all slots are known")


def test_very_many_lines_are_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    slots = []
    for number in range(60):
        slots += [missed(first() + 600 * number), Slot(first() + 600 * number + 300, "legacy", ("t",), "ok")]
    lines = text(capsys, JobAudit("job", tuple(slots)))
    assert sum("missed  " in line for line in lines) == 50
    assert lines[-2].split() == ["…", "10", "more;", "--json", "has", "all"]


def test_json_holds_every_slot_and_what_could_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    job = JobAudit("job", tuple(missed(first() + 5 * number) for number in range(720)))
    result = Audited(window(), NOW, (job,), ("job: no permission",), (Skipped("events/x.jsonl:1", "torn"),))
    audit_views.audited(result, ZONE, settings(as_json=True), one_day=True)
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["command"], envelope["status"]) == ("runs audit", "partial")
    assert [error["code"] for error in envelope["errors"]] == ["skipped", "not-brought-in"]
    data = envelope["data"]
    assert set(data) == {"timezone", "start", "end", "wrong", "totals", "jobs"}
    assert set(data["jobs"][0]) == {"job", "wrong", "counts", "slots", "gaps", "extra"}
    assert len(data["jobs"][0]["slots"]) == 720
    assert set(data["jobs"][0]["slots"][0]) == {
        "slot", "side", "due", "verdict", "why", "detail", "runs", "coalesced",
    }  # fmt: skip
    assert data["jobs"][0]["slots"][0]["slot"] == "2025-12-19T05:00:00Z"
