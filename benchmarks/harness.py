"""What every benchmark shares: alternating rounds, medians, ratios of pairs, reports, the machine in one line.

Times on a shared machine say little by themselves. So everything is measured side by side (A B A B ...), and what is
kept is the ratio within each round: its median, with the smallest and the largest.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

_T = TypeVar("_T")
ROOT = Path(__file__).resolve().parents[1]

# Starts a command and reports on it. A process of its own, and a small one: the kernel counts the peak of the
# process that forked as the child's, so a large parent would hide what is measured.
_LAUNCHER = """
import json, os, sys, time
out = os.open(os.devnull, os.O_WRONLY)
began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""


@dataclass(frozen=True)
class Options:
    """What the command line said. `say` tells of progress."""

    full: bool
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Used:
    """What a process used: seconds of wall clock and of CPU, MiB at its peak."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratios of paired samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, left: Sequence[float], right: Sequence[float]) -> Ratio:
        """Return the ratio left/right, round by round."""
        ratios = sorted(a / b for a, b in zip(left, right, strict=True))
        return cls(statistics.median(ratios), ratios[0], ratios[-1])

    def __str__(self) -> str:
        return f"{_three(self.median)} ({_three(self.low)}-{_three(self.high)})"


@dataclass(frozen=True, slots=True)
class Aim:
    """What was aimed at, what came out, whether that is good enough."""

    text: str
    found: str
    met: bool


@dataclass
class Report:
    """What a benchmark found: a table, aims, remarks. `raw` holds the samples, in seconds, MiB or counts."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def row(self, *cells: object) -> None:
        self.rows.append(tuple(str(cell) for cell in cells))

    def markdown(self) -> str:
        """Return the report as docs/performance.md shows it."""
        lines = [f"### {self.title}", ""]
        lines += [_line(self.columns), _line(["---"] * len(self.columns)), *map(_line, self.rows), ""]
        lines += [f"- Aim: {aim.text}. Found: {aim.found}. **{'Met' if aim.met else 'Missed'}.**" for aim in self.aims]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _three(number: float) -> str:
    """Write a number with three digits, also where they are zeros: a ratio of 1.00 is not one of 1."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:#.3g}"


def short(number: float) -> str:
    """Write a number with three digits or so."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def ms(seconds: Sequence[float]) -> str:
    """Write the median of some seconds in milliseconds."""
    return f"{short(statistics.median(seconds) * 1000)} ms"


def span_ms(seconds: Sequence[float]) -> str:
    """Write median, smallest and largest of some seconds in milliseconds."""
    return f"{ms(seconds)} ({short(min(seconds) * 1000)}-{short(max(seconds) * 1000)})"


def alternate(
    cases: Mapping[str, Callable[[], _T]], *, rounds: int, warm_up: int = 1, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[_T]]:
    """Call all cases in turn, `rounds` times; return what they returned. The warm-up is thrown away."""
    found: dict[str, list[_T]] = {name: [] for name in cases}
    for number in range(-warm_up, rounds):
        say(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up")
        for name, case in cases.items():
            value = case()
            if number >= 0:
                found[name].append(value)
    return found


def launch(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, exits: int = 0) -> Used:
    """Run a command with its stdout thrown away and return what it used. Raises RuntimeError on another exit code."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *argv]
    done = subprocess.run(launcher, env=dict(env), cwd=cwd, capture_output=True, text=True, check=True)
    wall, cpu, rss_kib, code = json.loads(done.stdout)
    if code != exits:
        raise RuntimeError(f"{argv[:4]} ended with {code}:\n{done.stderr[-2000:]}")
    return Used(wall, cpu, rss_kib / 1024)


def clean_env(**more: str) -> dict[str, str]:
    """Return this environment less what points at somebody's own server or catalog."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "ORCHCTL_"))}
    return {**kept, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "NO_COLOR": "1", **more}


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a temporary folder, which is gone afterwards."""
    with TemporaryDirectory(prefix="orchctl-bench-") as name:
        yield Path(name)


def machine() -> str:
    """Say on what this was measured; no names of hosts."""
    first = _first_line(["systemctl", "--version"])
    systemd = first.split()[1] if first.startswith("systemd ") else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, Prefect {metadata.version('prefect')}, systemd {systemd}"
    )


def _first_line(argv: Sequence[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
