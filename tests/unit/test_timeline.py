"""What the events and manifests of a run say, put in order of time."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepped
from orchctl.core import timeline
from orchctl.core.timeline import Row, Timeline
from stepped import BROKEN, OUTAGE, START, at, attempt, event, listed, run, step_manifest

NOW = START + timedelta(seconds=90)


def of(manifest: dict[str, Any], steps: list[dict[str, Any]], events: list[dict[str, Any]], now: Any = NOW) -> Timeline:
    found = timeline.of(manifest, steps, events, now=now)
    assert found is not None
    return found


def only(*events: dict[str, Any], steps: tuple[dict[str, Any], ...] = (), listed_as: Any = None) -> Row:
    rows = [listed_as] if listed_as else []
    (row,) = of(run(*rows), list(steps), list(events)).rows
    return row


def test_a_story_is_told_in_the_order_of_the_run() -> None:
    told = of(*stepped.story())
    assert [(row.step, row.status, len(row.bars)) for row in told.rows] == [
        ("ingest.scrape_all", "success", 2),
        ("minutes.features_live", "success", 1),
        ("minutes.score", "success", 1),
        ("sim.run", "warned", 1),
        ("rates.features_live", "failed", 1),
        ("rates.score", "skipped", 0),
        ("finalize.unified", "skipped", 0),
    ]
    assert (told.start, told.end) == (START, START + timedelta(seconds=60))


def test_the_order_of_lines_in_the_files_does_not_matter() -> None:
    manifest, steps, events = stepped.story()
    mixed = [*events]
    random.Random(7).shuffle(mixed)
    starts_last = sorted(events, key=lambda each: (each["ts"], each["event"] == "step_started"))
    assert (
        of(manifest, steps, sorted(mixed, key=lambda each: each["ts"])).rows[0] == of(manifest, steps, events).rows[0]
    )
    assert of(manifest, steps, starts_last) == of(manifest, steps, events)


def test_each_attempt_is_a_bar_with_why_it_failed_and_how_long_was_waited() -> None:
    first, second = of(*stepped.story()).rows[0].bars
    assert (first.status, first.reason, first.error_class, first.delay_s) == ("failed", OUTAGE, "network", 6.0)
    assert (second.attempt, second.status, second.delay_s) == (2, "success", None)
    assert (second.started_at - (first.finished_at or START)).total_seconds() == 6


def test_a_retry_alone_ends_the_attempt_too() -> None:
    row = only(
        event("step_started", "a", 1), event("step_retry", "a", 3, reason="no", delay_s=2), *attempt("a", 5, 6, 2)
    )
    assert [bar.status for bar in row.bars] == ["failed", "success"]
    assert (row.status, row.busy_s) == ("success", 3.0)


def test_a_step_that_waits_to_be_run_again_is_not_what_it_was_before() -> None:
    rows = [listed("a", "waiting"), listed("b", "waiting"), listed("c", "waiting")]
    before = [*attempt("a", 0, 1), *attempt("b", 1, 2, status="failed")]
    skipped = event("step_finished", "c", 2, status="skipped", reason="upstream failed: b")
    again = {**run(*rows), "status": "running", "timing": {"started_at": at(10)}}
    told = of(again, [], [*before, skipped])
    assert [(row.status, row.reason) for row in told.rows] == [("success", None), (None, None), (None, None)]
    told = of(again, [], [*before, skipped, event("step_started", "b", 11)])
    assert [row.status for row in told.rows] == ["success", "running", None]


def test_findings_stand_in_the_steps_manifest_and_their_number_in_the_events() -> None:
    manifest, steps, events = stepped.story()
    (with_findings,) = of(manifest, steps, events).rows[4].contracts
    (counted,) = of(manifest, [], events).rows[4].contracts
    assert with_findings.findings == ("missing column season_fg2_pct", "3 of 251 rows have p50 > 48")
    assert (counted.findings, counted.count, counted.holds) == (None, 2, False)


def test_pointers_and_promotion_are_told() -> None:
    row = of(*stepped.story()).rows[1]
    assert row.promoted_to == "/data/live/features_minutes_v1/2025-12-19/run=" + stepped.RUN
    assert [(one.pointer, one.moved, one.reason) for one in row.pointers] == [
        ("latest_run.json", True, None),
        ("current_run.json", False, "not published: after lock"),
    ]


def test_a_step_that_runs_has_a_bar_up_to_now() -> None:
    told = of(run(listed("a", "running")), [], [event("step_started", "a", 30)])
    (row,) = told.rows
    assert (row.status, row.bars[0].finished_at, row.busy_s) == ("running", None, None)
    assert told.end == NOW


def test_an_attempt_that_nobody_ended_has_crashed_where_another_began() -> None:
    row = only(event("step_started", "a", 1), *attempt("a", 20, 25, 2))
    assert [bar.status for bar in row.bars] == ["crashed", "success"]


def test_a_manifest_that_is_crashed_ends_the_bar() -> None:
    crashed = step_manifest("a", status="crashed", reason="the process is gone")
    row = only(event("step_started", "a", 1), steps=(crashed,))
    assert (row.status, row.bars[-1].status, row.reason) == ("crashed", "crashed", "the process is gone")


def test_kept_steps_say_why_and_keep_their_bars() -> None:
    row = only(*attempt("a", 0, 5), event("step_kept", "a", 50, attempt=2, reason="a success of attempt 1 stands"))
    assert (row.status, len(row.bars), row.reason) == ("kept", 1, "a success of attempt 1 stands")


def test_lost_events_come_from_the_manifest() -> None:
    manifest = step_manifest("a", publish={"to": "/data/x", "digest": "sha256:1"})
    row = only(steps=(manifest,), listed_as=listed("a", "success"))
    assert [(bar.started_at, bar.finished_at) for bar in row.bars] == [(START, START + timedelta(seconds=5))]
    assert row.promoted_to == "/data/x"


def test_a_run_whose_steps_have_not_begun_lists_them() -> None:
    told = of(run(listed("a", "waiting")), [], [])
    assert told.rows == (Row("a"),)


def test_what_a_manifest_says_of_a_run_that_goes_on_is_older_than_the_events() -> None:
    assert only(*attempt("a", 0, 5), listed_as=listed("a", "waiting")).status == "success"


def test_a_command_has_no_timeline() -> None:
    assert timeline.of({"execution": "command", "timing": {}}, [], [], now=NOW) is None


@pytest.mark.parametrize(
    "foreign",
    [
        {"ts": "yesterday", "event": "step_started", "step": "a"},
        {"ts": at(1), "event": "step_dreamt", "step": "a"},
        {"ts": at(1), "event": "contract_checked", "step": "a", "findings": "many"},
        {"event": "step_started", "step": "a"},
    ],
)
def test_what_cannot_be_read_is_left_out(foreign: dict[str, Any]) -> None:
    assert only(foreign, *attempt("a", 0, 5)).bars == only(*attempt("a", 0, 5)).bars


WORDS = st.sampled_from(sorted(timeline._TELLERS))
KEYS = ["event", "attempt", "reason", "status", "started_at", "finished_at", "delay_s", "pointer", "findings"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.sampled_from([at(1), at(2.5), "no instant"]) | JSON, "step": st.sampled_from(["a", "b"]) | JSON},
        optional=dict.fromkeys(KEYS, WORDS | JSON),
    ),
    max_size=8,
)


MANIFESTS = st.lists(
    st.builds(
        lambda own, more: {**own, **more},
        st.sampled_from([step_manifest("a"), {"step": "a"}, {}]),
        st.dictionaries(
            st.sampled_from(["step", "attempt", "attempts", "checks", "publish", "status", "timing"]), JSON
        ),
    ),
    max_size=2,
)


@given(events=EVENTS, steps=MANIFESTS)
def test_whatever_stands_in_the_files_there_is_a_timeline(events: list[dict[str, Any]], steps: list[Any]) -> None:
    found = timeline.of(run(listed("a", "success")), steps, [*events, *attempt("a", 0, 5)], now=NOW)
    assert found is not None
    assert found.rows[0].step == "a"
    assert timeline.axis(found, now=NOW).shown_s >= 0


def test_no_idle_time_is_cut_within_a_run() -> None:
    told = of(*stepped.story())
    axis = timeline.axis(told, now=NOW)
    assert axis.cuts == ()
    assert [axis.place(START + timedelta(seconds=second)) for second in (-5, 0, 30, 60, 99)] == [0, 0, 0.5, 1, 1]


def test_a_run_that_was_tried_again_the_next_day_still_fits() -> None:
    day = 86_400
    told = of(run(), [], [*attempt("a", 0, 60, status="failed", reason=BROKEN), *attempt("a", day, day + 60, 2)])
    axis = timeline.axis(told, now=NOW)
    ((begin, end),) = axis.cuts
    assert (end - begin).total_seconds() == day - 60
    assert axis.shown_s == 126
    assert axis.place(begin) == pytest.approx(60 / 126)
    assert axis.place(end) == pytest.approx(66 / 126)


def test_the_axis_never_turns_back() -> None:
    draw = random.Random(3)
    events = []
    for number in range(40):
        begun = draw.uniform(0, 100_000)
        events += attempt(f"s{number}", begun, begun + draw.expovariate(0.01))
    told = of(run(), [], events)
    axis = timeline.axis(told, now=NOW)
    places = [axis.place(told.start + timedelta(seconds=second)) for second in range(-100, 110_000, 500)]
    assert places == sorted(places)
    assert axis.cuts
    assert (places[0], places[-1]) == (0.0, 1.0)
