"""What the processes below another one use, looked at from outside."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """One process: seconds of CPU and MiB at its peak, as last seen; `environment` as it was started with."""

    command: str
    environment: bytes
    cpu: float = 0.0
    peak: float = 0.0


class Sampler(threading.Thread):
    """Looks at all descendants of a process, twenty times a second, until it is left."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.seen: dict[tuple[int, str], Seen] = {}
        self._root = root
        self._ended = threading.Event()

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(EVERY_S):
            for pid, stat in self._below():
                with contextlib.suppress(OSError, ValueError, StopIteration):
                    self._look(pid, stat)

    def _look(self, pid: int, stat: list[str]) -> None:
        there = Path(f"/proc/{pid}")
        command = (there / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        # Between fork and exec a child still looks like its parent: so the key holds the command, too.
        seen = self.seen.setdefault((pid, command), Seen(command, (there / "environ").read_bytes()))
        seen.cpu = max(seen.cpu, (int(stat[11]) + int(stat[12])) / _TICKS)
        peak = next(line for line in (there / "status").read_text().splitlines() if line.startswith("VmHWM"))
        seen.peak = max(seen.peak, int(peak.split()[1]) / 1024)

    def _below(self) -> list[tuple[int, list[str]]]:
        """Return pid and stat (from its third field on) of each descendant."""
        stats: dict[int, list[str]] = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    stats[int(name)] = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        below: set[int] = {self._root}
        size = 0
        while size < len(below):
            size = len(below)
            below |= {pid for pid, stat in stats.items() if int(stat[1]) in below}
        return [(pid, stats[pid]) for pid in below - {self._root} if pid in stats]


def on_cpu(pid: int) -> float:
    """Return the seconds that the main thread of a process has run, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def wait_for_lines(path: Path, count: int, *, within: float) -> list[list[str]]:
    """Wait until a file has `count` lines and return their words. Raises RuntimeError where it takes too long."""
    deadline = time.monotonic() + within
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [line.split() for line in lines[:count]]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(lines)} of {count} lines within {within:.0f} s in {path.name}")
        time.sleep(0.2)
