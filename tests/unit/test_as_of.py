"""Where the run_as_of_ts of a date comes from: a command or a file of the pipeline."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from desk import Desk
from orchctl.adapters.as_of import AsOf
from orchctl.errors import OrchctlError, UsageError

DAY = date(2025, 12, 19)
AT = datetime(2025, 12, 19, 23, 45, tzinfo=UTC)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def instant(
    desk: Desk, given: dict[str, str] | None = None, *, timeout_s: float = 20, user: str | None = None, **mode: Any
) -> datetime:
    job = desk.job(user=user, as_of={"lock": mode}, partition={"season": {"default": "2025"}}, env={"MINE": "{season}"})
    environment = {"PATH": "/usr/bin:/bin", "PREFECT_API_URL": "http://x"}
    return AsOf(environment, timeout_s).instant(job, "lock", DAY, given or {})


def test_a_command_prints_it(desk: Desk) -> None:
    script = 'test -z "$PREFECT_API_URL" && echo "$1T23:45:00Z" && echo "$MINE $ORCHCTL_GAME_DATE" >&2'
    assert instant(desk, command=("sh", "-c", script, "sh", "{game_date}")) == AT


def test_a_shift_is_added(desk: Desk) -> None:
    command = ("echo", "2025-12-19T18:45:00-05:00")
    assert instant(desk, command=command, shift="-15m") == AT.replace(minute=30)
    assert instant(desk, command=command, shift="2h") == datetime(2025, 12, 20, 1, 45, tzinfo=UTC)


FILES = [
    ("locks.txt", "2025-12-19T23:45:00Z\n", None),
    ("locks.json", json.dumps({"2025-12-19": {"main": {"lock": "2025-12-19T23:45:00Z"}}}), "{game_date}.main.lock"),
    ("locks.toml", '[days."2025-12-19"]\nlock = 2025-12-19T23:45:00Z\n', "days.{game_date}.lock"),
    ("locks.toml", '[s.2025]\nlock = "2025-12-19T18:45:00-05:00"\n', "s.{season}.lock"),
]


@pytest.mark.parametrize(("name", "content", "key"), FILES)
def test_a_file_holds_it(desk: Desk, name: str, content: str, key: str | None) -> None:
    (desk.data / name).write_text(content)
    assert instant(desk, file=f"{{data_root}}/{name}", key=key) == AT


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"command": ("sh", "-c", "echo no such day >&2; exit 3")}, "`sh` ended with exit code 3: no such day"),
    ({"command": ("true",)}, "`true` printed nothing"),
    ({"command": ("echo", "tomorrow")}, "it gave 'tomorrow', not an instant like"),
    ({"command": ("no-such-program",)}, "`no-such-program` cannot be started in"),
    ({"file": "{data_root}/none"}, "there is no file"),
    ({"file": "{data_root}/a.json", "key": "a"}, "is not JSON: "),
    ({"file": "{data_root}/b.json", "key": "b.c"}, "has no b.c"),
    ({"file": "{data_root}/b.json", "key": "n"}, "n in .* is 7, not a text"),
    ({"file": "{data_root}/c.toml", "key": "at"}, "an instant without a zone"),
    ({"file": "{data_root}"}, "cannot be read: Is a directory"),
    ({"command": ("echo", "9999-12-31T23:59:59Z"), "shift": "9d"}, "it gave"),
]


@pytest.mark.parametrize(("mode", "message"), WRONG)
def test_whatever_gives_no_instant_says_so(desk: Desk, mode: dict[str, Any], message: str) -> None:
    (desk.data / "a.json").write_text("{")
    (desk.data / "b.json").write_text('{"b": {}, "n": 7}')
    (desk.data / "c.toml").write_text("at = 2025-12-19T23:45:00\n")
    with pytest.raises(OrchctlError, match="as-of mode lock of job has no instant for 2025-12-19: ") as caught:
        instant(desk, **mode)
    assert re.search(message, caught.value.message)
    assert caught.value.hint is not None


def test_a_command_that_hangs_is_killed_with_all_it_started(desk: Desk) -> None:
    began = time.monotonic()
    with pytest.raises(OrchctlError, match="`sh` gave no answer in"):
        instant(desk, command=("sh", "-c", f"sleep 79.5 & echo $! > {desk.root}/pid; sleep 79.5"), timeout_s=0.5)
    assert time.monotonic() - began < 20
    pid = (desk.root / "pid").read_text().strip()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_unknown_mode_or_key_is_wrong_usage(desk: Desk) -> None:
    job = desk.job(as_of={"lock": {"command": ("date",)}})
    with pytest.raises(UsageError, match="has no as-of mode 'lok'") as caught:
        AsOf({}).instant(job, "lok", DAY, {})
    assert caught.value.hint == 'did you mean "lock"?'
    with pytest.raises(UsageError, match="has no partition key 'x'"):
        AsOf({}).instant(job, "lock", DAY, {"x": "1"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_command_runs_and_a_file_is_read_as_the_user_of_the_job() -> None:
    with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to others
        root = Path(name)
        root.chmod(0o755)
        (root / "secret").write_text("hunter2")
        (root / "secret").chmod(0o600)
        (root / "desk").mkdir(mode=0o755)
        desk = Desk(root / "desk")
        script = 'test "$(id -un) $USER $HOME" = "nobody nobody /nonexistent" && echo 2025-12-19T23:45:00Z'
        assert instant(desk, user="nobody", command=("sh", "-c", script)) == AT
        with pytest.raises(OrchctlError, match="Permission denied") as caught:
            instant(desk, user="nobody", file=str(root / "secret"))
        assert "hunter2" not in caught.value.message
