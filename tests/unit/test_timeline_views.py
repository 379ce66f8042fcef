"""The timeline on a terminal and as a picture."""

from __future__ import annotations

import io
import json
import sys
import xml.etree.ElementTree as ET
from datetime import timedelta
from pathlib import Path

import pytest

import stepped
from orchctl.cli import render, timeline_views
from orchctl.core import gantt_svg, timeline
from orchctl.core.timeline import Timeline
from orchctl.wiring import Settings
from stepped import START, attempt, listed, run

NOW = START + timedelta(seconds=90)
SETTINGS = Settings(Path("/c"), Path("/s"), None, as_json=False, color=False)
AT_80 = """\
STATUS  STEP                  0s                                1m00s TOOK TRY
success ingest.scrape_all     xxx···███████                            14s   2
success minutes.features_live              ██████████                  15s   1
success minutes.score                               ████              5.0s   1
warned  sim.run                                         ▒▒▒▒▒▒▒▒▒▒▒▒▒  20s   1
failed  rates.features_live                             xxxxxxxx       12s   1
skipped rates.score           upstream failed: rates.features_live       -   -
skipped finalize.unified      upstream failed: rates.features_live       -   -
"""
AT_120 = """\
STATUS  STEP                  0s                                                                        1m00s TOOK TRY
success ingest.scrape_all     xxxxx········█████████████                                                       14s   2
success minutes.features_live                           ████████████████████                                   15s   1
success minutes.score                                                       ███████                           5.0s   1
warned  sim.run                                                                   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  20s   1
failed  rates.features_live                                                       xxxxxxxxxxxxxxxx             12s   1
skipped rates.score           upstream failed: rates.features_live                                               -   -
skipped finalize.unified      upstream failed: rates.features_live                                               -   -
"""


def told() -> Timeline:
    found = timeline.of(*stepped.story(), now=NOW)
    assert found is not None
    return found


def shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int | None,
    what: Timeline | None = None,
) -> list[str]:
    monkeypatch.setattr(render, "width", lambda: columns)
    timeline_views.text(what or told(), SETTINGS, data_root="/data", now=NOW)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("columns", "expected"), [(80, AT_80), (120, AT_120)])
def test_a_run_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, expected: str
) -> None:
    lines = shown(capsys, monkeypatch, columns)
    assert "\n".join(lines[:8]) + "\n" == expected


def test_what_is_said_below_the_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(capsys, monkeypatch, None)[8:] == [
        f"ingest.scrape_all: try 1: {stepped.OUTAGE} (network); tried again after 6.0s",
        "sim.run: warned: exit code 1",
        f"rates.features_live: failed: {stepped.BROKEN}",
        "contracts: 1 held, 1 broken",
        "  rates.features_live: rates.features_live on features.parquet:",
        "    missing column season_fg2_pct",
        "    3 of 251 rows have p50 > 48",
        "published",
        "  minutes.features_live: live/features_minutes_v1/2025-12-19/run=20251219T223000Z-3f9a1c (latest)",
        "    current_run.json stays as it was: not published: after lock",
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_below_the_bars_is_wider_than_the_terminal_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = shown(capsys, monkeypatch, columns)
    assert max(map(len, lines)) < columns
    assert stepped.BROKEN in " ".join(" ".join(lines).split())


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_the_bars_fill_the_width_and_no_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = shown(capsys, monkeypatch, columns)[:8]
    assert columns - 2 <= max(map(len, lines)) < columns
    assert lines[1].count("x") == pytest.approx(lines[1].count("█") * 4 / 10, abs=1.5)


def test_a_pipe_gets_a_width_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(map(len, shown(capsys, monkeypatch, None)[:8])) <= timeline_views.PIPED_WIDTH


def test_long_names_give_way_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a-step.with-a-name.that-is-as-long-as-a-name-may-be.and-so-on12"
    found = timeline.of(run(listed(name, "success")), [], attempt(name, 0, 5), now=NOW)
    on_terminal = shown(capsys, monkeypatch, 80, found)[:2]
    assert max(map(len, on_terminal)) <= 80
    assert on_terminal[1].count("█") >= 16
    assert name in shown(capsys, monkeypatch, None, found)[1]


def test_an_encoding_without_blocks_gets_plain_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    timeline_views.text(told(), SETTINGS, data_root="/data", now=NOW)
    out.flush()
    lines = out.buffer.getvalue().decode().splitlines()
    assert "xxx" in lines[1]
    assert "####" in lines[1]
    assert "!!!!" in lines[4]


def test_bars_of_many_short_tries_stay_apart_and_inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [each for number in range(1, 200) for each in attempt("a", number * 0.001, number * 0.001, number)]
    found = timeline.of(run(listed("a", "success")), [], [*events, *attempt("b", 0, 600)], now=NOW)
    lines = shown(capsys, monkeypatch, 80, found)
    assert max(map(len, lines[:3])) < 80


def test_a_long_idle_time_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [*attempt("a", 0, 60, status="failed", reason="no"), *attempt("a", 86_400, 86_460, 2)]
    found = timeline.of(run(listed("a", "success")), [], events, now=NOW)
    assert "idle for 23h59m after 2025-12-19 22:31:00Z: cut short above" in shown(capsys, monkeypatch, 80, found)


def test_as_data() -> None:
    data = json.loads(render.to_json(render.jsonable(timeline_views.to_json(told()))))
    assert list(data) == ["start", "end", "steps"]
    first = data["steps"][0]
    assert list(first) == [
        "step", "status", "reason", "busy_s", "attempts", "contracts", "promoted_to", "digest", "pointers",
    ]  # fmt: skip
    assert list(first["attempts"][0]) == [
        "attempt", "started_at", "finished_at", "status", "reason", "error_class", "delay_s",
    ]  # fmt: skip
    assert first["attempts"][0]["started_at"] == "2025-12-19T22:30:00Z"
    assert timeline_views.to_json(None) is None


SVG = "{http://www.w3.org/2000/svg}"


def picture(what: Timeline, title: str = "live-score", subtitle: str = "") -> ET.Element:
    return ET.fromstring(gantt_svg.draw(what, title=title, subtitle=subtitle, now=NOW))


def test_the_picture_is_xml_with_a_bar_for_each_attempt() -> None:
    root = picture(told())
    bars = [each for each in root.iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    assert len(bars) == 6
    assert {bar.get("fill") for bar in bars} >= {gantt_svg._FAILED, gantt_svg._COLORS["warned"]}
    words = " ".join("".join(each.itertext()) for each in root.iter(f"{SVG}text"))
    for row in told().rows:
        assert row.step in words
    assert "upstream failed: rates.features_live" in words


def test_nothing_in_the_picture_lies_outside_or_overlaps_the_labels() -> None:
    root = picture(told())
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    longest = max(len(row.step) for row in told().rows) * 7.2
    for bar in root.iter(f"{SVG}rect"):
        assert float(bar.get("x") or 0) + float(bar.get("width") or 0) <= width
        assert float(bar.get("y") or 0) + float(bar.get("height") or 0) <= height
        if bar.find(f"{SVG}title") is not None:
            assert float(bar.get("x") or 0) > longest
    assert all(float(each.get("y") or 0) < height for each in root.iter(f"{SVG}text"))


def test_what_comes_from_outside_stays_text_in_the_picture() -> None:
    evil = "</text><script>alert(1)</script>&\x00\x1b[31m\ud800\ufffe\"'"
    events = attempt("a", 0, 5, status="failed", reason=evil)
    found = timeline.of(run(listed("a", "failed", evil), listed("b", "skipped", evil)), [], events, now=NOW)
    assert found is not None
    root = picture(found, evil, evil)
    assert not list(root.iter(f"{SVG}script"))
    assert any("<script>" in "".join(each.itertext()) for each in root.iter(f"{SVG}text"))


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    text = gantt_svg.draw(told(), title="t", subtitle="s", now=NOW).replace("http://www.w3.org/2000/svg", "")
    assert "http" not in text
    assert "href" not in text
    assert "url(" not in text


def test_the_same_run_is_the_same_picture() -> None:
    both = [gantt_svg.draw(told(), title="t", subtitle="s", now=NOW) for _ in range(2)]
    assert both[0] == both[1]
