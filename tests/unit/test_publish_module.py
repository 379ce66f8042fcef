"""`orchctl.publish`: the example of the docs, and what the module needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from orchctl import publish
from orchctl.core.names import is_run_id

DOCS = Path(__file__).parents[2] / "docs" / "publish.md"
AS_OF, DAY = datetime(2025, 12, 19, 5, tzinfo=UTC), date(2025, 12, 19)
HEAVY = {"pydantic", "typer", "rich", "httpx", "prefect", "subprocess", "polars", "tomlkit"}


def published(folder: Path, run: str, text: str = "1", pointer: str = publish.CURRENT) -> publish.Move:
    with publish.staging(folder) as staged:
        (staged / "a").write_text(text)
        done = publish.promote(staged, folder / f"run={run}")
    return publish.point(done, pointer, run_id=run, as_of=AS_OF, asset="ownership.score", game_date=DAY)


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "player,share\n201939,0.31\n\n"
    folder = tmp_path / "gold/ownership_v1/2025-12-19"
    assert sorted(path.name.partition("=")[0] for path in folder.iterdir()) == [
        "current_run.json",
        "latest_run.json",
        "run",
    ]


def test_the_docs_name_each_key_of_a_pointer(tmp_path: Path) -> None:
    published(tmp_path, publish.new_run_id())
    table = DOCS.read_text().partition("| key |")[2].partition("\n\n")[0]
    named = {word for line in table.splitlines() for word in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == set(json.loads((tmp_path / publish.CURRENT).read_text()))


def test_it_is_light_to_import() -> None:
    script = f"import sys, orchctl.publish; print(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_block_that_fails_publishes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with publish.staging(tmp_path) as staged:
            (staged / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_older_run_is_kept_out_and_a_lost_attempt_can_be_made_again(tmp_path: Path) -> None:
    runs = ["20251219T000002Z-000002", "20251219T000001Z-000001"]
    assert published(tmp_path, runs[0]).kept is None
    assert published(tmp_path, runs[0]).again
    assert "newer" in str(published(tmp_path, runs[1]).kept)
    held = publish.read(tmp_path)
    assert held is not None
    assert (held.run_id, (tmp_path / held.path / "a").read_text()) == (runs[0], "1")
    assert held.run.digest == publish.digest(tmp_path / held.path)
    with pytest.raises(publish.PublishError, match="other files"):
        published(tmp_path, runs[0], text="2")


def test_there_is_no_pointer_before_the_first_run(tmp_path: Path) -> None:
    assert publish.read(tmp_path) is None
    assert publish.read(tmp_path / "nowhere", publish.LATEST) is None
    assert is_run_id(publish.new_run_id())


def test_what_the_dead_left_is_removed_after_a_day_and_what_lives_is_not(tmp_path: Path) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    with publish.staging(tmp_path) as alive:
        dead, young = alive.parent / "dead", alive.parent / "young"
        for path in (dead, young):
            (path / "below").mkdir(parents=True)
        for path in (dead, alive):
            os.utime(path, (old, old))
        with publish.staging(tmp_path):
            pass
        assert (alive.exists(), dead.exists(), young.exists()) == (True, False, True)
