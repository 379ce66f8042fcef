"""The example pipeline both ways, without a server: as one command, and as steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import example_pipeline
from example_pipeline import AS_OF, Runner, published
from orchctl.core import timeline
from orchctl.core.names import run_id
from orchctl.core.timeline import Timeline
from orchctl.runner.shapes import Outcome

BROKEN = "contract broken: rates.features_live: missing column season_fg2_pct; 3 of 251 rows have p50 > 48"
AS_OF_INSTANT = datetime.fromisoformat(AS_OF)


@dataclass
class Ran:
    folder: Path
    runner: Runner
    outcome: Outcome

    @property
    def run_id(self) -> str:
        return self.outcome.run_id

    def manifest(self, asset: str = "live-score") -> dict[str, Any]:
        found = self.runner.tree.existing(asset, AS_OF_INSTANT.date(), self.run_id)
        assert found is not None
        return found

    def statuses(self) -> dict[str, str]:
        return {row["name"]: row["status"] for row in self.manifest()["steps"]}

    def timeline(self) -> Timeline:
        manifest, now = self.manifest(), datetime.now(UTC)
        days = (now.date() + timedelta(days=shift) for shift in (-1, 0, 1))
        events = [each for day in days for each in self.runner.tree.step_events(day, run_id=self.run_id, skipped=[])]
        found = timeline.of(manifest, self.runner.tree.steps_of(manifest), events, now=now)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The example, run as one command."""
    folder = example_pipeline.set_up(tmp_path_factory.mktemp("command"))
    runner = Runner(folder)
    return Ran(folder, runner, runner.run("as-a-command", execution="command"))


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The example, run as steps: a day later by every clock, and with newer snapshots that nobody could read."""
    folder = example_pipeline.set_up(tmp_path_factory.mktemp("steps"))
    assert example_pipeline.poison(folder, AS_OF) == 4
    clock = example_pipeline.later_clock(folder)
    assert example_pipeline.clock_of(clock) - time.time() > 80_000  # the programs' clock does lie
    (folder / "trouble.env").write_text("".join(f"{key}={value}\n" for key, value in clock.items()))
    runner = Runner(folder, now=lambda: datetime.now(UTC) + timedelta(days=1))
    return Ran(folder, runner, runner.run("as-steps"))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The example, with a source that does not answer at once, and a release that breaks a contract."""
    folder = example_pipeline.set_up(tmp_path_factory.mktemp("trouble"))
    (folder / "trouble.env").write_text("PROJECTIONS_OUTAGES=1\nPROJECTIONS_BREAK=rates.features_live\n")
    runner = Runner(folder)
    return Ran(folder, runner, runner.run("in-trouble"))


@pytest.fixture(scope="module")
def mended(troubled: Ran) -> Ran:
    """The same run, tried again with the release mended, and a simulation that fails."""
    (troubled.folder / "trouble.env").write_text("PROJECTIONS_FAIL=sim.run\n")
    return Ran(troubled.folder, troubled.runner, troubled.runner.run("in-trouble", attempt=2))


def test_as_a_command_and_as_steps_the_same_bytes_are_published(commanded: Ran, stepped: Ran) -> None:
    assert commanded.outcome.status == "success", commanded.runner.log
    assert stepped.outcome.status == "success", stepped.runner.log
    assert commanded.run_id != stepped.run_id
    files = published(commanded.folder, commanded.run_id)
    assert len(files) == 9
    assert published(stepped.folder, stepped.run_id) == files


def test_each_input_is_recorded_and_none_is_newer_than_the_run(stepped: Ran) -> None:
    limit, snapshots = AS_OF_INSTANT, set()
    for step in stepped.runner.tree.steps_of(stepped.manifest()):
        for each in step["inputs"]:
            assert datetime.fromisoformat(each["snapshot_ts"]) <= limit
            assert each["row_count"] > 0
            if each["step"] is None:
                snapshots.add((each["name"], each["snapshot_ts"]))
    assert snapshots == {
        ("schedule", "2025-12-19T06:00:00Z"),
        ("box-scores", "2025-12-19T09:00:00Z"),
        ("salaries", "2025-12-19T13:06:00Z"),
        ("rosters", "2025-12-19T20:00:00Z"),
        ("injuries", "2025-12-19T21:00:00Z"),
        ("odds", "2025-12-19T21:30:00Z"),
    }


def test_scoring_is_apart_from_publishing(stepped: Ran) -> None:
    assert stepped.manifest("rates.score")["publish"]["current"] == "moved"
    assert stepped.manifest("finalize.unified")["publish"]["current"].startswith("not published: after lock")


def test_a_broken_contract_fails_at_once_and_skips_what_needs_it(troubled: Ran) -> None:
    # Attempt 2 may have been recorded by now: what the first one left is in its events.
    assert troubled.outcome.status == "failed"
    assert troubled.outcome.reason == f"step rates.features_live failed: {BROKEN}"
    assert "rates.features_live: failed" in " ".join(troubled.runner.log)
    tries = [line for line in troubled.runner.log if "tried again" in line]
    assert len(tries) == 1
    assert "network" in tries[0]


def test_a_rerun_keeps_what_stands_and_a_failed_simulation_only_warns(mended: Ran) -> None:
    assert mended.outcome.status == "success", mended.runner.log
    assert mended.statuses() == {
        "ingest.scrape_all": "kept",
        "minutes.features_live": "kept",
        "minutes.score": "kept",
        "rates.features_live": "success",
        "rates.score": "success",
        "sim.run": "warned",
        "ownership.score": "success",
        "finalize.unified": "success",
        "health.checks": "success",
    }


def test_what_comes_out_of_a_mended_run_is_what_a_good_one_makes(mended: Ran, commanded: Ran) -> None:
    good = published(commanded.folder, commanded.run_id)
    files = published(mended.folder, mended.run_id)
    differ = {key for key in good if files.get(key) != good[key]}
    assert all("sim_v2" in key or "projections" in key for key in differ)
    assert len(differ) == 3


def test_the_timeline_tells_both_attempts(mended: Ran) -> None:
    rows = {row.step: row for row in mended.timeline().rows}
    assert [bar.status for bar in rows["ingest.scrape_all"].bars] == ["failed", "success"]
    assert rows["ingest.scrape_all"].bars[0].error_class == "network"
    assert rows["ingest.scrape_all"].bars[0].delay_s is not None
    assert rows["ingest.scrape_all"].status == "kept"
    assert [bar.status for bar in rows["rates.features_live"].bars] == ["failed", "success"]
    assert rows["rates.features_live"].bars[0].reason == BROKEN
    assert [bar.status for bar in rows["sim.run"].bars] == ["warned"]
    assert rows["finalize.unified"].promoted_to is not None
    assert [one.moved for one in rows["finalize.unified"].pointers] == [True, False]
    starts = [row.bars[0].started_at for row in rows.values()]
    assert starts[0] == min(starts)


def test_before_its_lock_a_run_is_what_production_reads(tmp_path: Path) -> None:
    folder = example_pipeline.set_up(tmp_path)
    runner = Runner(folder, now=lambda: AS_OF_INSTANT + timedelta(minutes=5))
    ran = Ran(folder, runner, runner.run("in-time"))
    assert ran.run_id == run_id(AS_OF_INSTANT, "in-time")
    publish = ran.manifest("finalize.unified")["publish"]
    assert publish["current"] == "moved"
