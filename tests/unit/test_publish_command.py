"""`orchctl publish`: what is published of a date, and moving production by hand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchctl.adapters import pointers
from orchctl.cli.app import app
from orchctl.core.publish import CURRENT, LATEST
from publish_cases import AS_OF, DAY, folder_of, publish_once, run_id

JOBS = """\
version = 1

[defaults]
data_root = "{root}"
working_directory = "{root}"
work_pool = "local"

[jobs.live-score]
execution = "steps"
command = ["scripts/score.sh"]

[[jobs.live-score.steps]]
name = "rates.score"
command = ["score", "--out={{staging}}"]
publish = {{ to = "{{data_root}}/gold/rates/{{game_date}}/run={{run_id}}" }}

[[jobs.live-score.steps]]
name = "health.checks"
command = ["check"]
after = ["rates.score"]
"""
SCHEDULES = 'version = 1\ntimezone = "America/New_York"\n'
SHOWN = {"asset", "game_date", "runs", "pointers"}
RUN = {
    "run_id", "job", "status", "good", "promoted_at", "run_as_of_ts", "digest", "path", "manifest", "pointers",
}  # fmt: skip
POINTER = {
    "pointer", "folder", "run_id", "run_as_of_ts", "promoted_at", "path", "manifest", "digest", "asset", "game_date",
    "previous", "newest", "moved_at", "moved_by", "reason",
}  # fmt: skip
MOVED = {"asset", "game_date", "pointer", "from", "to", "moved", "reason", "digest", "path"}
DATE = ("--date", DAY.isoformat())


class Desk:
    """An operator's folder, with runs that steps have published."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "config").mkdir()
        (root / "config" / "jobs.toml").write_text(JOBS.format(root=root))
        (root / "config" / "schedules.toml").write_text(SCHEDULES)

    @property
    def folder(self) -> Path:
        return folder_of(self.root)

    def published(self, *numbers: int, status: str = "success") -> None:
        """Publish runs as steps do, and leave their manifests."""
        for number in numbers:
            done = publish_once(self.root, run_id(number))
            path = self.root / f"manifests/rates.score/game_date={DAY}/run={run_id(number)}/manifest.json"
            partition = {"game_date": DAY.isoformat(), "run_id": run_id(number), "run_as_of_ts": f"{AS_OF:%FT%TZ}"}
            told = {"job": "live-score", "asset": "rates.score", "step": "rates.score", "status": status, "attempt": 1}
            path.write_text(json.dumps({**told, "partition": partition, "publish": done.record}))

    def orchctl(self, *words: str, check: int = 0) -> str:
        env = {"ORCHCTL_CONFIG": str(self.root / "config"), "ORCHCTL_STATE_DIR": str(self.root / "state")}
        done = CliRunner().invoke(app, list(words), env=env)
        assert done.exit_code == check, done.output
        return done.output

    def json(self, *words: str, check: int = 0) -> Any:
        return json.loads(self.orchctl("--json", *words, check=check))

    def held(self) -> str | None:
        pointer = pointers.read_pointer(self.folder, CURRENT)
        return pointer.run_id if pointer is not None else None

    def events(self) -> list[dict[str, Any]]:
        files = sorted((self.root / "manifests" / "events").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_show_tells_the_runs_and_which_the_pointers_hold(desk: Desk) -> None:
    desk.published(1, 2)
    said = desk.orchctl("publish", "show", "rates.score", *DATE)
    lines = said.splitlines()
    assert lines[0].split() == ["STATUS", "RUN", "PROMOTED", "DIGEST", "POINTERS"]
    assert (lines[1].split()[1], lines[1].split()[-1]) == (run_id(1), "-")
    assert lines[2].endswith("latest, current")
    assert f"current_run.json -> {run_id(2)} since" in said
    assert f"before it {run_id(1)}" in said
    data = desk.json("publish", "show", "rates.score", *DATE)["data"]
    assert (set(data), set(data["runs"][0]), set(data["pointers"][0])) == (SHOWN, RUN, POINTER)
    assert [(run["run_id"], run["good"], run["pointers"]) for run in data["runs"]] == [
        (run_id(1), True, []),
        (run_id(2), True, [LATEST, CURRENT]),
    ]
    assert {pointer["pointer"]: pointer["previous"] for pointer in data["pointers"]} == {
        LATEST: run_id(1),
        CURRENT: run_id(1),
    }


def test_a_date_without_runs_and_names_that_are_none(desk: Desk) -> None:
    assert desk.orchctl("publish", "show", "rates.score", *DATE) == f"nothing is published of rates.score for {DAY}\n"
    assert 'did you mean "rates.score"' in desk.orchctl("publish", "show", "rates.scor", *DATE, check=2)
    assert "those that do: rates.score" in desk.orchctl("publish", "show", "health.checks", *DATE, check=2)
    assert "not a date" in desk.orchctl("publish", "show", "rates.score", "--date", "today", check=2)
    assert "no good run" in desk.orchctl("publish", "promote", "rates.score", *DATE, "--yes", check=5)
    assert "is not there" in desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", check=5)


def test_rollback_and_back_moves_production_says_so_and_is_recorded(desk: Desk) -> None:
    desk.published(1, 2)
    said = desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", "--reason", "broken rates")
    assert said == f"{desk.folder}/current_run.json moved from {run_id(2)} to {run_id(1)}\n"
    assert desk.held() == run_id(1)
    (event,) = desk.events()
    assert {key: event[key] for key in ("event", "from", "to", "by", "reason", "step", "pointer")} == {
        "event": "pointer_moved",
        "from": run_id(2),
        "to": run_id(1),
        "by": "hand",
        "reason": "broken rates",
        "step": "rates.score",
        "pointer": CURRENT,
    }
    assert desk.json("publish", "rollback", "rates.score", *DATE, "--yes")["data"]["to"] == run_id(2)
    assert desk.held() == run_id(2)


def test_promote_moves_to_the_newest_good_run(desk: Desk) -> None:
    desk.published(1, 2)
    desk.published(3, status="failed")
    desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", "--run", run_id(1))
    assert desk.json("publish", "promote", "rates.score", *DATE, "--yes")["data"]["to"] == run_id(2)
    again = desk.json("publish", "promote", "rates.score", *DATE, "--yes")["data"]
    assert (set(again), again["moved"], len(desk.events())) == (MOVED, False, 2)
    assert "holds" in desk.orchctl("publish", "promote", "rates.score", *DATE)


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (run_id(3), 5, "is no good run: its step is failed"),
        (run_id(9), 2, "names no run"),
        ("20251219T", 2, "names 3 runs"),
        ("../..", 2, "names no run"),
    ],
)
def test_only_one_good_run_can_be_named(desk: Desk, run: str, code: int, said: str) -> None:
    desk.published(1, 2)
    desk.published(3, status="failed")
    assert said in desk.orchctl("publish", "promote", "rates.score", *DATE, "--yes", "--run", run, check=code)
    assert (desk.held(), desk.events()) == (run_id(3), [])


def test_a_run_whose_files_were_changed_is_refused(desk: Desk) -> None:
    desk.published(1, 2)
    changed = desk.folder / f"run={run_id(1)}" / "rates.parquet"
    changed.write_bytes(changed.read_bytes()[:-1])
    said = desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", check=5)
    assert "were changed since they were published" in said
    shutil.rmtree(changed.parent)
    assert "cannot be read" in desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", check=1)
    assert desk.held() == run_id(2)


def test_without_a_terminal_it_asks_for_an_answer_and_moves_nothing(desk: Desk) -> None:
    desk.published(1, 2)
    said = desk.orchctl("publish", "rollback", "rates.score", *DATE, check=5)
    assert f"current_run.json from {run_id(2)} to {run_id(1)}: move it?" in said
    assert desk.held() == run_id(2)


def test_there_is_no_run_before_the_first(desk: Desk) -> None:
    desk.published(1)
    said = desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", check=5)
    assert f"has held no run before {run_id(1)}" in said


def test_a_run_that_was_killed_when_it_had_moved_the_pointers_is_shown_and_not_good(desk: Desk) -> None:
    desk.published(1)
    publish_once(desk.root, run_id(2))
    data = desk.json("publish", "show", "rates.score", *DATE)["data"]
    assert [(run["run_id"], run["status"], run["good"]) for run in data["runs"]] == [
        (run_id(1), "success", True),
        (run_id(2), None, False),
    ]
    desk.orchctl("publish", "promote", "rates.score", *DATE, "--yes")
    assert desk.held() == run_id(1)


def test_a_pointer_that_is_not_ours_is_refused(desk: Desk) -> None:
    desk.published(1)
    (desk.folder / CURRENT).write_text('{"run_id": "20251219T020143Z"}')
    assert "is not a pointer of orchctl" in desk.orchctl("publish", "show", "rates.score", *DATE, check=1)


def test_manifests_that_cannot_be_believed_are_passed_over(desk: Desk) -> None:
    desk.published(1)
    folder = desk.root / f"manifests/rates.score/game_date={DAY}"
    for name, text in (("a", "{"), ("b", "[]"), ("c", "{}"), ("d", '{"publish": {"to": 3}, "partition": {}}')):
        (folder / f"run={name}").mkdir()
        (folder / f"run={name}" / "manifest.json").write_text(text)
    assert len(desk.json("publish", "show", "rates.score", *DATE)["data"]["runs"]) == 1


def test_a_move_that_no_event_tells_of_says_so(desk: Desk) -> None:
    desk.published(1, 2)
    (desk.root / "manifests" / "events").write_text("in the way")
    said = desk.orchctl("publish", "rollback", "rates.score", *DATE, "--yes", check=4)
    assert f"now holds {run_id(1)}, and no event tells of it" in said
    assert desk.held() == run_id(1)


def test_several_places_of_one_date_need_the_run(desk: Desk) -> None:
    desk.published(1, 2)
    manifest = desk.root / f"manifests/rates.score/game_date={DAY}/run={run_id(1)}/manifest.json"
    data = json.loads(manifest.read_text())
    other = desk.root / "gold" / "rates" / "season=2024"
    other.mkdir()
    os.rename(data["publish"]["to"], other / f"run={run_id(1)}")
    data["publish"]["to"] = str(other / f"run={run_id(1)}")
    manifest.write_text(json.dumps(data))
    assert "has several places" in desk.orchctl("publish", "promote", "rates.score", *DATE, "--yes", check=2)
    moved = desk.json("publish", "promote", "rates.score", *DATE, "--yes", "--run", run_id(1))["data"]
    assert moved["pointer"] == str(other / CURRENT)
