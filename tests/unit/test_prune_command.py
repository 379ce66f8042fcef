"""What `host prune` asks for, and that nothing else goes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchctl.adapters import host_lock
from orchctl.adapters.prefect_http import PrefectHttp
from orchctl.adapters.run_folders import RunFolders
from orchctl.cli import render
from orchctl.cli.app import app
from orchctl.core.backup import RESTORING
from orchctl.errors import NotAllowed
from orchctl.services import prune
from pruning import DAY, Host, counts, seconds
from pruning import ago as back

AWAY = ("--api-url", "http://127.0.0.1:9/api")


def ago(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)


class Desk:
    """A host with old runs, and who answers with yes: `asked` are the questions."""

    def __init__(self, root: Path) -> None:
        self.host, self.asked = Host(root), list[str]()
        for days in (200, 150, 1):
            self.host.ran(ago(days))
        (root / "config").mkdir()
        (root / "config" / "schedules.toml").write_text("version = 1\n")

    def prune(self, *words: str, policy: str, check: int) -> str:
        jobs = f'version = 1\n[retention]\n{policy}\n[jobs.job]\ncommand = ["true"]\ndata_root = "{self.host.data}"\n'
        (self.host.root / "config" / "jobs.toml").write_text(f'{jobs}working_directory = "/"\nwork_pool = "pool"\n')
        env = {"ORCHCTL_CONFIG": str(self.host.root / "config"), "ORCHCTL_STATE_DIR": str(self.host.state)}
        done = CliRunner().invoke(app, [*AWAY, *words[:1], "host", "prune", *words[1:]], env=env)
        assert done.exit_code == check, done.output
        return done.output

    def confirm(self, question: str, *, yes: bool) -> None:
        assert not yes
        self.asked.append(question)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path)
    monkeypatch.setattr(render, "confirm", made.confirm)
    monkeypatch.setattr(PrefectHttp, "_pause", lambda *_: None)
    return made


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("it went without having been asked for")


def test_after_a_look_that_failed_nothing_is_asked_and_nothing_goes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "prune", never)
    said = desk.prune("--no-color", policy='history = "90d"', check=4)
    assert "cannot reach the Prefect API" in said
    assert desk.asked == []


@pytest.mark.parametrize(
    ("policy", "code"), [('history = "90d"', 13), ('history = "90d"\nmanifests = "800d"', 4)], ids=["alone", "of two"]
)
def test_a_kind_that_cannot_be_seen_is_the_error_of_all_only_where_it_is_all_that_was_wanted(
    desk: Desk, policy: str, code: int
) -> None:
    assert "cannot reach the Prefect API" in desk.prune("--no-color", "--yes", policy=policy, check=code)


def test_where_nothing_is_old_enough_nothing_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "prune", never)
    said = desk.prune("--no-color", policy='manifests = "800d"', check=0)
    assert "0 folders of runs removed" in said
    assert desk.asked == []


def test_a_kind_that_could_not_be_looked_at_is_left_out_and_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[set[str]] = []
    real = prune.prune

    def spied(world: Any, ages: Any, agreed: prune.Pruned) -> prune.Pruned:
        done.append(set(agreed.cutoffs))
        return real(world, ages, agreed)

    monkeypatch.setattr(prune, "prune", spied)
    said = desk.prune("--no-color", policy='manifests = "180d"\nhistory = "90d"', check=4)
    assert "left out, since not all of it could be seen: runs in Prefect to delete: cannot reach the Prefect" in said
    assert (desk.asked, done, len(desk.host.runs())) == (["Do this?"], [{"manifests"}], 2)


def test_of_a_kind_that_could_not_be_looked_at_no_number_is_shown(desk: Desk) -> None:
    said = desk.prune("--no-color", "--dry-run", policy='manifests = "180d"\nhistory = "90d"', check=4)
    assert "1 folder of runs to remove" in said
    assert "not done: runs in Prefect to delete: cannot reach the Prefect" in said
    assert "0 runs in Prefect" not in said


def test_what_was_left_out_is_in_the_json_too(desk: Desk) -> None:
    said = desk.prune("--json", policy='manifests = "180d"\nhistory = "90d"', check=4)
    told = json.loads(said[said.index("{") :])
    assert (told["status"], list(told["data"]["cutoffs"])) == ("partial", ["manifests"])
    assert [(error["code"], error["kind"], error["more"]) for error in told["errors"]] == [
        ("prefect-unreachable", "history", 0)
    ]


def test_where_folders_are_left_out_the_logs_in_them_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at both does not tell of logs that go with their folder: without the folders it is another look."""
    host = Host(tmp_path)
    for days in (200, 150, 1):
        host.ran(back(days))
    real = RunFolders.before

    def before(folders: RunFolders, asset: str, *words: Any, **more: Any) -> Any:
        if asset == "other":
            raise NotAllowed("may not be read")
        return real(folders, asset, *words, **more)

    monkeypatch.setattr(RunFolders, "before", before)
    world, ages = host.world(), seconds({"manifests": 180, "logs": 100})
    assert counts(prune.look(world, ages)) == {("manifests", "job"): 1, ("logs", "job"): 1}
    found = prune.propose(world, ages)
    assert (counts(found), [each.kind for each in found.problems]) == ({("logs", "job"): 2}, ["manifests"])
    done = prune.prune(world, ages, found)
    assert (counts(done), done.problems, len(host.runs())) == (counts(found), found.problems, 3)


def test_an_unfinished_restore_is_seen(desk: Desk) -> None:
    folder = desk.host.state / "host"
    folder.mkdir(parents=True, mode=0o700)
    desk.host.state.chmod(0o700)
    (folder / RESTORING).write_text(json.dumps({"archive": "/an/archive"}))
    (folder / RESTORING).chmod(0o600)
    said = desk.prune("--no-color", policy='state = "90d"', check=4)
    assert "a restore was interrupted: /an/archive" in said


def test_while_another_command_is_at_work_the_state_stays(desk: Desk) -> None:
    with host_lock.held(desk.host.state, "host backup"):
        said = desk.prune("--no-color", "--yes", policy='state = "90d"', check=11)
    assert "orchctl host backup" in said


def test_what_is_asked_is_what_is_done_however_long_the_answer_takes(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for days in (91, 89, 1):
        host.ran(back(days))
    world, ages = host.world(), seconds({"manifests": 90})
    found = prune.propose(world, ages)
    host.now += timedelta(seconds=5 * DAY)
    assert counts(prune.prune(world, ages, found)) == counts(found) == {("manifests", "job"): 1}
