"""Run real commands in tests, and see that nothing of them stays."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl.core.mask import Masker
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, Ended, run_command

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/usr/local/bin:/usr/bin:/bin"
SLEEP = "77.25"


class Runner:
    """Runs scripts in a directory of their own, and knows the pids they write to the files `*.pid` there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self.ended: list[Ended] = []

    def command(self, *argv: str, timeout_s: float = 20, kill_after_s: float = 5, nice: int = 0) -> Command:
        return Command(argv, str(self.directory), {"PATH": PATH}, timeout_s, kill_after_s, nice)

    def run(self, command: Command, **options: object) -> Ended:
        self.pump = OutputPump(log_path=self.directory / "log", masker=Masker.of(command.env), emit=self.lines.append)
        return run_command(command, self.pump, on_ended=self.ended.append, **options)  # type: ignore[arg-type]

    def bash(self, script: str, *, timeout_s: float = 20, kill_after_s: float = 5, **options: object) -> Ended:
        argv = ("bash", "-c", textwrap.dedent(script))
        return self.run(self.command(*argv, timeout_s=timeout_s, kill_after_s=kill_after_s), **options)

    def pids(self) -> list[int]:
        texts = [path.read_text().split() for path in self.directory.glob("*.pid")]
        return [int(pid) for text in texts for pid in text]

    def end_all(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def all_gone(self) -> bool:
        return bool(self.pids()) and not any(Path(f"/proc/{pid}").exists() for pid in self.pids())


def eventually(holds: Callable[[], bool], within_s: float = 10) -> bool:
    until = time.monotonic() + within_s
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
    return holds()
