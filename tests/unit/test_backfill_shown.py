"""What a backfill shows, and that looking changes nothing: neither in Prefect, seen at the transport, nor on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pexpect
import pytest

from backfilling import HERE, Desk
from orchctl.adapters import inputs
from orchctl.adapters.backfills import Backfills
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.cli import backfill_views
from orchctl.core.backfill import Wish
from orchctl.services import backfill
from orchctl.services.backfill import Words, World
from orchctl.services.backfill_preview import Previewed, preview
from orchctl.services.backfill_run import Progress
from orchctl.wiring import Settings

DAYS = ("2025-12-01", "2025-12-03")


def settings(*, as_json: bool = False, verbose: bool = False) -> Settings:
    return Settings(Path("/c"), Path("/s"), None, as_json=as_json, color=False, verbose=verbose)


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["true"], **more}


def looked(desk: Desk, *, wish: Wish | None = None, **more: Any) -> dict[str, Previewed]:
    prepared = desk.prepare(*DAYS, wish, **more)
    return {f"{each.partition.game_date:%d}": each for each in preview(desk.world(), prepared)}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Which snapshots would be read.


@pytest.fixture
def roster(tmp_path: Path) -> Desk:
    """A job of two steps with snapshots of a roster on disk, and an as-of mode: 23:00 of the date."""
    path = "{data_root}/roster/{game_date}/run_ts={snapshot_ts}/r.csv"
    desk = Desk(
        tmp_path,
        execution="steps",
        as_of={"lock": {"file": "/x"}},
        steps=[
            step("a", inputs=[{"name": "roster", "path": path}], publish={"to": "{data_root}/a/run={run_id}"}),
            step("b", after=["a"], inputs=[{"name": "scores", "step": "a"}]),
        ],
    )
    for day, names in {"01": ("20251201T220000Z", "20251201T230001Z"), "02": ("20251202T230001Z",)}.items():
        for name in names:
            folder = tmp_path / "roster" / f"2025-12-{day}" / f"run_ts={name}"
            folder.mkdir(parents=True)
            (folder / "r.csv").write_text("x")
    return desk


def test_the_newest_snapshot_as_of_each_date_is_told(roster: Desk) -> None:
    found = looked(roster, as_of_mode="lock")
    first, second = found["01"].inputs
    assert found["01"].as_of == datetime(2025, 12, 1, 23, tzinfo=UTC)
    assert first.path == str(roster.folder / "roster/2025-12-01/run_ts=20251201T220000Z/r.csv")
    assert first.snapshot == datetime(2025, 12, 1, 22, tzinfo=UTC)
    assert (second.step, second.path, second.note) == ("b", None, "made by step a of the same run")
    gap = found["02"].inputs[0]
    assert gap.gap
    assert "no snapshot at or before 2025-12-02T23:00:00Z" in (gap.note or "")


def test_without_a_mode_it_is_what_is_there_now(roster: Desk) -> None:
    found = looked(roster)
    assert "run_ts=20251201T230001Z" in (found["01"].inputs[0].path or "")


def test_a_step_that_is_not_chosen_has_what_it_published_before(roster: Desk) -> None:
    (gap,) = looked(roster, steps="b")["01"].inputs
    assert gap.gap
    for number, hour in enumerate((2, 1)):
        to = roster.folder / "a" / f"run={number}"
        to.mkdir(parents=True)
        run_id, at = f"20251218T0{hour}0001Z-00000{number}", datetime(2025, 12, 18, hour, tzinfo=UTC)
        more: dict[str, Any] = {"step": "a", "publish": {"to": str(to)}}
        roster.leave(date(2025, 12, 1), run_id, "success", at=at, asset="a", **more)
    (found,) = looked(roster, steps="b")["01"].inputs
    assert found.path == str(roster.folder / "a" / "run=0")
    (late,) = looked(roster, steps="b", as_of_mode="lock")["01"].inputs
    assert late.gap  # both were made after the instant of that date


def test_a_date_without_an_instant_is_told_and_the_others_are_looked_at(roster: Desk) -> None:
    from orchctl.errors import OrchctlError

    def as_of(_job: Any, _mode: str, day: date, _given: Any) -> datetime:
        if day.day == 2:
            raise OrchctlError("no tip-off is known")
        return datetime(2025, 12, day.day, 23, tzinfo=UTC)

    roster.as_of = as_of
    found = looked(roster, as_of_mode="lock")
    assert (found["02"].problem, found["02"].inputs) == ("no tip-off is known", ())
    assert found["03"].inputs


def test_what_would_not_run_is_not_looked_at(roster: Desk) -> None:
    roster.go(*DAYS)
    found = looked(roster, as_of_mode=None)
    assert [(each.partition.action, each.inputs) for each in found.values()] == [("kept", ())] * 3


def test_a_run_that_would_be_tried_again_keeps_its_instant(roster: Desk) -> None:
    roster.plays = lambda _day, _attempt: "failed"
    roster.go(*DAYS, as_of_mode="lock")
    roster.asked_as_of.clear()
    found = looked(roster, as_of_mode="lock")
    assert found["01"].as_of == datetime(2025, 12, 1, 23, tzinfo=UTC)
    assert not roster.asked_as_of


def test_looking_writes_nothing(roster: Desk) -> None:
    before = everything(roster.folder)
    roster.prefect.writes.clear()
    looked(roster, as_of_mode="lock", wish=Wish(only_missed=True))
    assert not roster.prefect.writes
    assert everything(roster.folder) == before


# At the transport.


class Recorded:
    """Prefect's answers to what a backfill reads. Anything else is an error of the test."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.asked = desk, list[str]()

    def serve(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api")
        self.asked.append(f"{request.method} {path}")
        if path == "/deployments/name/job/job":
            return httpx.Response(200, json=self._deployment())
        if path == "/work_pools/nobody/queues/filter":
            row = {"name": "backfill", "priority": 2, "concurrency_limit": 2, "is_paused": False}
            return httpx.Response(200, json=[row])
        if path == "/work_pools/nobody/workers/filter":
            return httpx.Response(200, json=[{"name": HERE, "status": "ONLINE"}])
        if path == "/flow_runs/paginate":
            return httpx.Response(200, json={"results": [], "count": 0, "pages": 0, "page": 1, "limit": 200})
        return httpx.Response(500, json={"detail": f"not asked for: {path}"})

    def _deployment(self) -> dict[str, Any]:
        found = self.desk.prefect.deployment("job", "job")
        assert found is not None
        return {
            "id": found.id,
            "name": "job",
            "flow_id": found.flow_id,
            "paused": False,
            "tags": list(found.tags),
            "labels": dict(found.labels),
            "parameters": dict(found.parameters),
            "enforce_parameter_schema": True,
            "schedules": [],
        }


@contextmanager
def over_the_wire(desk: Desk) -> Iterator[tuple[World, Recorded]]:
    recorded = Recorded(desk)
    with PrefectApi(url="http://127.0.0.1:1/api", transport=httpx.MockTransport(recorded.serve)) as api:
        yield (
            World(
                catalog=desk.catalog,
                prefect=api,
                applied=desk.applied,
                tree=Backfills,
                disk=inputs,
                as_of=desk.as_of,
                living=frozenset,
                worker_name=lambda pool: f"here-{pool}",
                now=lambda: desk.time,
                sleep=lambda _: pytest.fail("slept"),
            ),
            recorded,
        )


def test_a_dry_run_asks_five_times_and_changes_nothing(roster: Desk) -> None:
    with over_the_wire(roster) as (world, recorded):
        wanted = backfill.request(world, Words("job", "2025-01-01", "2025-12-18", as_of_mode="lock"))
        prepared = backfill.prepare(world, wanted, Wish())
        found = list(preview(world, prepared))
    assert len(found) == 352
    assert recorded.asked == [
        "GET /deployments/name/job/job",
        "POST /work_pools/nobody/queues/filter",
        "POST /work_pools/nobody/workers/filter",
        "POST /flow_runs/paginate",
        "POST /flow_runs/paginate",
    ]


def test_a_run_in_the_queue_is_one_request(roster: Desk) -> None:
    seen: list[Any] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(422, json={"detail": "no"})

    with PrefectApi(url="http://127.0.0.1:1/api", transport=httpx.MockTransport(serve)) as api:
        for call in (
            lambda: api.create_run("d", parameters={"a": 1}, idempotency_key="k", tags=("t",), work_queue="backfill"),
            lambda: api.set_run_parameters("r", {"a": 2}),
        ):
            with pytest.raises(Exception, match="refused"):
                call()
    assert seen == [
        (
            "POST",
            "/api/deployments/d/create_flow_run",
            {"parameters": {"a": 1}, "idempotency_key": "k", "tags": ["t"], "work_queue_name": "backfill"},
        ),
        ("PATCH", "/api/flow_runs/r", {"parameters": {"a": 2}}),
    ]


# What is shown.


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_is_a_line_for_each_date_and_its_gaps(roster: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = roster.prepare(*DAYS, as_of_mode="lock")
    backfill_views.previewed(prepared, list(preview(roster.world(), prepared)), settings())
    assert capsys.readouterr().out.splitlines() == [
        "DATE       WHAT AS OF                READS",
        "2025-12-01 run  2025-12-01T23:00:00Z 1 input",
        "2025-12-02 run  2025-12-02T23:00:00Z 0 inputs, GAP a roster",
        "2025-12-03 run  2025-12-03T23:00:00Z 0 inputs, GAP a roster",
        "",
        "GAPS STEP INPUT  DATES",
        "   2 a    roster 2025-12-02, 2025-12-03",
        "",
        f"backfill {prepared.id}: 3 run; nothing was changed",
        "    each input, and where it is: --verbose",
    ]


def test_a_dry_run_says_once_why_dates_have_no_instant(roster: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    from orchctl.errors import OrchctlError

    def as_of(_job: Any, _mode: str, day: date, _given: Any) -> datetime:
        if day.day > 1:
            raise OrchctlError(f"as-of mode lock of job has no instant for {day}: /x has no {day}")
        return datetime(2025, 12, day.day, 23, tzinfo=UTC)

    roster.as_of = as_of
    prepared = roster.prepare(*DAYS, as_of_mode="lock")
    backfill_views.previewed(prepared, list(preview(roster.world(), prepared)), settings())
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["2025-12-02", "no", "instant", "-", "-"]
    why = "as-of mode lock of job has no instant for <date>: /x has no <date>"
    assert f"no instant: {why} (2025-12-02, 2025-12-03)" in lines
    assert f"backfill {prepared.id}: 1 run, 2 no instant; nothing was changed" in lines


def test_a_dry_run_says_what_is_not_plain_about_a_date(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.plays = lambda day, _attempt: "failed" if day.day == 2 else "success"
    desk.go(*DAYS)
    prepared = desk.prepare(*DAYS)
    backfill_views.previewed(prepared, list(preview(desk.world(), prepared)), settings())
    rows = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert rows[0].split() == ["kept", "-", "succeeded", "in", "this", "backfill"]
    assert rows[1].startswith("run again 2025-12-")
    assert rows[1].endswith("again after: exit code 3")


def test_a_wordy_dry_run_shows_each_input(roster: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = roster.prepare(*DAYS, as_of_mode="lock")
    found = list(preview(roster.world(), prepared))
    backfill_views.previewed(prepared, found, settings(verbose=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2025-12-01  run           (no run yet)  as of 2025-12-01T23:00:00Z"
    assert lines[1].endswith("run_ts=20251201T220000Z/r.csv")
    assert "GAP: no snapshot" in lines[4]
    assert lines[-1] == f"backfill {prepared.id}: 3 run; nothing was changed"
    backfill_views.previewed(prepared, found, settings(as_json=True))
    data = shown(capsys)["data"]
    assert [each["action"] for each in data["partitions"]] == ["create"] * 3
    assert data["partitions"][0]["inputs"][0]["snapshot"] == "2025-12-01T22:00:00Z"


def test_what_was_submitted_is_shown_with_how_to_go_on(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = desk.prepare(*DAYS)
    done = desk.go(*DAYS, wait=None)
    backfill_views.begun(prepared, None, settings())
    backfill_views.ended(prepared, done, settings())
    captured = capsys.readouterr()
    assert captured.err == f"backfill {prepared.id}: 3 dates, 3 to run\n"
    assert captured.out.splitlines() == [
        f"backfill {prepared.id}: 3 new",
        "    at a time: at most 4 of all backfills of work pool nobody",
        "    only --wait keeps to this job's own 2 at a time",
        "    follow it: the same command with --wait; it sums up at the end",
        f"    in Prefect: the flow runs with the tag orchctl-backfill:{prepared.id}",
    ]
    backfill_views.ended(prepared, done, settings(as_json=True))
    found = shown(capsys)
    assert (found["status"], found["data"]["submitted"], found["data"]["backfill"]) == ("success", 3, prepared.id)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A job that allows two at a time, in a pool where another allows four."""
    desk = Desk(tmp_path)
    other = {**desk.catalog.to_json()["jobs"]["job"], "name": "other", "asset": "other", "backfill": {"parallel": 4}}
    table = desk.catalog.to_json()
    desk.catalog = type(desk.catalog).from_json({**table, "jobs": {**table["jobs"], "other": other}})
    desk.sync()
    desk.prefect.writes.clear()
    return desk


@pytest.mark.parametrize("all_of_them", [False, True])
def test_the_end_shows_times_causes_and_counts(
    desk: Desk, capsys: pytest.CaptureFixture[str], all_of_them: bool
) -> None:
    desk.plays = lambda day, _attempt: "failed" if all_of_them or day.day < 3 else "success"
    prepared = desk.prepare(*DAYS)
    done = desk.go(*DAYS)
    backfill_views.ended(prepared, done, settings())
    out = capsys.readouterr().out
    assert "exit code 3: no data for <date>" in out
    count = (3, 0, 3) if all_of_them else (3, 1, 2)
    assert f"{count[0]} attempted, {count[1]} succeeded, {count[2]} failed, 0 skipped" in out
    assert f"summary: {done.path}" in out
    assert "orchctl runs show 2025" in out
    backfill_views.ended(prepared, done, settings(as_json=True))
    found = shown(capsys)
    assert found["status"] == ("error" if all_of_them else "partial")
    assert len(found["errors"]) == count[2]
    assert found["data"]["failed"] == count[2]
    assert json.loads(Path(found["data"]["path"]).read_text())["failed"] == count[2]


def test_progress_off_a_terminal_is_a_line_for_each_date_that_ended(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.plays = lambda day, _attempt: "failed" if day.day == 2 else "success"
    prepared = desk.prepare(*DAYS)
    with backfill_views.follower(prepared, settings()) as show:
        for item in desk.steps(*DAYS):
            if isinstance(item, Progress):
                show(item)
    captured = capsys.readouterr()
    assert not captured.out
    lines = captured.err.splitlines()
    assert len(lines) == 3
    assert "2025-12-02: failed: exit code 3 (2 of 3)" in lines


def test_what_goes_on_without_us_is_said() -> None:
    assert backfill_views.so_far(None) == "nothing was submitted"
    item = Progress(60, 12, 1, (date(2025, 12, 1),), 1, 46, 14)
    assert backfill_views.so_far(item) == (
        "12 of 60 dates have ended, 2 wait or run in Prefect and go on, 46 are left to submit"
    )


_ON_A_TERMINAL = """
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from orchctl.cli import backfill_views
from orchctl.services.backfill_run import News, Progress
from orchctl.wiring import Settings

settings = Settings(Path("/c"), Path("/s"), None)
with backfill_views.follower(SimpleNamespace(partitions=range(60)), settings) as show:
    news = (News(date(2025, 11, 1), "failed", "exit code 3 \\x1b[31m", None),)
    show(Progress(60, 21, 1, (date(2025, 11, 22),), 2, 36, 24, news))
"""


def test_on_a_terminal_a_bar_says_what_runs_what_failed_and_what_remains() -> None:
    child = pexpect.spawn(sys.executable, ["-c", _ON_A_TERMINAL], encoding="utf-8", dimensions=(24, 120), timeout=30)
    child.expect(r"2025-11-01: failed: exit code 3 \\x1b\[31m \(21 of 60\)")
    child.expect(r"21/60.*running 2025-11-22, 2 wait, 1 failed, 36 left")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
