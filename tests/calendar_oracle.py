"""What systemd itself says of a calendar expression: `systemd-analyze calendar`, which needs no running systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

PROGRAM = shutil.which("systemd-analyze")
_ELAPSE = re.compile(r"(?:Next elapse|Iter(?:\.|ation) #\d+|\(in UTC\)): \w{3} ([0-9-]+ [0-9:]+) UTC")


@dataclass(frozen=True)
class Answer:
    """`valid`: systemd takes the expression. `stuck`: its calculation fails, and it says no elapse at all."""

    valid: bool
    stuck: bool
    elapses: list[int]


@cache
def version() -> int:
    """Return the version of the program."""
    said = _run([str(PROGRAM), "--version"], {})
    return int(re.findall(r"systemd (\d+)", said.stdout)[0])


def ask(expression: str, zone: str, after: int, count: int) -> Answer:
    """Ask for the first `count` elapses after `after`, where the local zone is `zone`."""
    base = datetime.fromtimestamp(after, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    words = ["calendar", f"--iterations={count}", f"--base-time={base}", "--", expression]
    said = _run([str(PROGRAM), *words], {"TZ": zone})
    # In other zones the local time stands in a line before.
    elapses = [
        int(datetime.strptime(found, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
        for found in _ELAPSE.findall(said.stdout)
    ]
    return Answer("Failed to parse" not in said.stderr, "deadlock avoided" in said.stderr, elapses)


def _run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], "LC_ALL": "C", **env}, capture_output=True, text=True, check=False
    )
