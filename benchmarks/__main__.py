"""`python -m benchmarks [NAME ...] [--full] [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks.harness import Options, Report, machine

NAMES = ("startup", "sync", "runs", "overhead", "output", "handover", "contracts", "steps", "doctor")


def main() -> int:
    """Run benchmarks, print their tables. Exit code 130 after Ctrl-C; a missed aim is no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios, measured side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(NAMES)}; default: all")
    parser.add_argument("--full", action="store_true", help="the big sizes: an hour, 10 GB and 2.5 million inodes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job of a shell inherits it ignored
        signal.signal(number, _terminated)
    print(f"Machine: {machine()}\n", flush=True)
    done: dict[str, Report] = {}
    try:
        for name in arguments.names or NAMES:
            done[name] = _run(name, full=arguments.full)
            print(done[name].markdown(), flush=True)
    except KeyboardInterrupt:
        return 130
    finally:
        if arguments.json is not None and done:
            reports = {name: dataclasses.asdict(report) for name, report in done.items()}
            arguments.json.write_text(json.dumps({"machine": machine(), "benchmarks": reports}, indent=2) + "\n")
    return 0


def _run(name: str, *, full: bool) -> Report:
    module = importlib.import_module(f"benchmarks.{name}")
    began = time.monotonic()
    report: Report = module.run(Options(full, lambda text: _say(f"{name}: {text}")))
    report.notes.append(f"Took {time.monotonic() - began:.0f} s.")
    return report


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """End by way of every `finally`; a second signal must not cut short what that takes away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _say("interrupted: stopping and removing what was started")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
