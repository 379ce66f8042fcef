"""What the output pump passes on: lines a second and CPU, against `cat` and against a loop in Python."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.harness import Aim, Options, Ratio, Report, alternate, folder, short
from orchctl.core.mask import Masker
from orchctl.runner.output import OutputPump

CAT, LOOP, PUMP, MASKED = "cat", "a loop in Python", "OutputPump", "OutputPump, 3 secrets to mask"
_SECRETS = {"API_TOKEN": "c0ffee-4711-token", "DB_PASSWORD": "correct horse battery", "S3_SECRET_KEY": "AKIA/+815x"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of wall clock, and of CPU on the reading side of the pipe."""

    wall: float
    cpu: float


def run(options: Options) -> Report:
    lines, rounds = 1_000_000, 9 if options.full else 5
    report = Report("output", ("Reader of the pipe", "Lines a second", "Wall against cat", "CPU", "CPU against cat"))
    with folder() as base:
        source = base / "lines"
        with source.open("w") as file:
            file.writelines(
                f"2025-12-19 02:01:43 INFO scored game {number:07} in 0.031 s, rate 1.25\n" for number in range(lines)
            )
        cases: dict[str, Callable[[], Sample]] = {
            CAT: lambda: _cat(source, base / "out"),
            LOOP: lambda: _here(source, lambda fd: _loop(fd, base / "out")),
            PUMP: lambda: _here(source, lambda fd: _pump(fd, base / "out", Masker.of({}), lines)),
            MASKED: lambda: _here(source, lambda fd: _pump(fd, base / "out", Masker.of(_SECRETS), lines)),
        }
        found = alternate(cases, rounds=rounds, say=options.say)
        size = source.stat().st_size
    cat = found[CAT]
    for name, samples in found.items():
        wall = Ratio.of([each.wall for each in samples], [each.wall for each in cat])
        cpu = Ratio.of([each.cpu for each in samples], [each.cpu for each in cat])
        speed = lines / statistics.median(each.wall for each in samples)
        used = statistics.median(each.cpu for each in samples)
        report.row(name, f"{speed:,.0f}", wall, f"{short(used)} s", cpu)
        report.raw[name] = [astuple(each) for each in samples]
    speed = lines / statistics.median(each.wall for each in found[MASKED])
    report.aims.append(Aim("at least 100,000 lines a second, masked", f"{speed:,.0f}", speed >= 100_000))
    report.notes.append(f"{lines:,} lines, {size / 2**20:.0f} MiB, written by `cat`; CPU without that writer's.")
    return report


def _here(source: Path, read: Callable[[int], None]) -> Sample:
    """Read the pipe within this process."""
    reading, writing = os.pipe()
    began, cpu = time.perf_counter(), time.process_time()
    with subprocess.Popen(["cat", str(source)], stdout=writing) as writer:
        os.close(writing)
        read(reading)
        writer.wait()
    return Sample(time.perf_counter() - began, time.process_time() - cpu)


def _pump(fd: int, log: Path, masker: Masker, lines: int) -> None:
    log.unlink(missing_ok=True)
    pump = OutputPump(log_path=log, masker=masker, emit=lambda _: None)
    pump.start(fd)
    while pump.lines < lines:
        time.sleep(0.01)
    pump.finish(10)
    if pump.lines != lines or pump.log_error is not None:
        raise RuntimeError(f"the pump passed {pump.lines} of {lines} lines: {pump.log_error}")


def _loop(fd: int, log: Path) -> None:
    with os.fdopen(fd, "rb") as pipe, log.open("wb") as file:
        for line in pipe:
            file.write(line)


def _cat(source: Path, out: Path) -> Sample:
    """Let a second `cat` read the pipe; the kernel says what that one used."""
    began = time.perf_counter()
    with out.open("wb") as file, subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE) as writer:
        reader = subprocess.Popen(["cat"], stdin=writer.stdout, stdout=file)
        _, _, used = os.wait4(reader.pid, 0)
        reader.returncode = 0
    return Sample(time.perf_counter() - began, used.ru_utime + used.ru_stime)
