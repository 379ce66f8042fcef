"""`orchctl runs --date` on histories of growing length, against reading every manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Aim, Options, Ratio, Report, Used, alternate, clean_env, folder, launch, ms, short
from benchmarks.stack import write_catalog
from orchctl.core import manifest as manifests
from orchctl.core.manifest import Identity, Place
from orchctl.core.names import run_id

LAST = date(2025, 12, 31)
ASSETS = 10
_WHERE = Place("bench", "00000000-0000-0000-0000-000000000000", 4711, 815)
# The obvious way without an index: every manifest is opened, because a run's start is nowhere but in it.
_NAIVE = """
import glob, json, sys
root, day = sys.argv[1:]
found = []
for path in glob.iglob(root + "/manifests/*/game_date=*/run=*/manifest.json"):
    with open(path, "rb") as file:
        manifest = json.load(file)
    if manifest["timing"]["started_at"].startswith(day):
        found.append(manifest)
found.sort(key=lambda manifest: manifest["timing"]["started_at"])
print(json.dumps([[m["partition"]["run_id"], m["job"], m["status"]] for m in found]))
"""


@dataclass(frozen=True)
class Tree:
    """A history of `days` days with as many runs on each."""

    days: int
    data: Path
    config: Path
    env: dict[str, str]

    def listing(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).parent / "orchctl"), "runs", "--date", str(LAST), *words]


def run(options: Options) -> Report:
    a_day, lengths = (1000, (10, 100, 1000)) if options.full else (200, (1, 10, 100))
    report = Report("runs", ("History", "Manifests", "`runs --date`", "Files opened", "Against the shortest", "Naive"))
    with folder() as base:
        _check_room(base, a_day * sum(lengths))
        trees = [_make(base / str(days), days, a_day, options.say) for days in lengths]
        cases: dict[str, Callable[[], Used]] = {
            str(tree.days): partial(launch, tree.listing("--json"), env=tree.env, cwd=base) for tree in trees
        }
        found = {name: [u.wall for u in used] for name, used in alternate(cases, rounds=15).items()}
        text = alternate({"": lambda: launch(trees[-1].listing(), env=trees[-1].env, cwd=base)}, rounds=3)[""]
        naive = {tree.days: _naive(tree, base, options.say) for tree in trees}
        opened = {tree.days: _opened(tree, base) for tree in trees}
        options.say("removing the trees")
    shortest = found[str(lengths[0])]
    for days in lengths:
        wall, slow = found[str(days)], naive[days]
        report.row(
            f"{days:,} {'day' if days == 1 else 'days'}",
            f"{days * a_day:,}",
            ms(wall),
            "not counted" if opened[days] is None else opened[days],
            Ratio.of(wall, shortest),
            f"{slow:.2f} s, {short(slow / statistics.median(wall))} times",
        )
    growth = Ratio.of(found[str(lengths[-1])], shortest)
    text_aim = f"one day out of {lengths[-1]:,} takes as long as one out of {lengths[0]:,} (within 15 %)"
    report.aims.append(Aim(text_aim, f"{growth} times", growth.median <= 1.15))
    report.notes.append(
        f"{a_day:,} runs a day, listed as JSON; as a table one day takes {ms([used.wall for used in text])}, "
        f"with a peak of {statistics.median(used.rss for used in text):.0f} MiB."
    )
    report.notes.append("Files opened: below the data root, by strace. Naive: every manifest read, one pass, warm.")
    report.raw = {"listing": found, "naive": naive, "opened": opened}
    return report


def _check_room(base: Path, count: int) -> None:
    """Two inodes and two blocks a run. Raises SystemExit where a fifth of the disk would not be left."""
    disk = os.statvfs(base)
    blocks, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if disk.f_files and disk.f_favail < count * 2 + disk.f_files // 5:
        raise SystemExit(f"runs: {count * 2:,} inodes are needed, {disk.f_favail:,} are free")
    if blocks < count * 8192 + total // 5:
        raise SystemExit(f"runs: {count * 8192 / 2**30:.0f} GiB are needed, {blocks / 2**30:.0f} GiB are free")


def _make(base: Path, days: int, a_day: int, say: Callable[[str], None]) -> Tree:
    say(f"making {days * a_day:,} manifests over {days:,} days")
    data = base / "data"
    jobs = {f"job-{number}": {"command": ["/bin/true"]} for number in range(ASSETS)}
    config = write_catalog(base / "config", jobs, {}, data_root=data)
    events = data / "manifests" / "events"
    events.mkdir(parents=True)
    for back in range(days):
        day = LAST - timedelta(days=back)
        lines: list[dict[str, Any]] = []
        for asset in jobs:
            (data / "manifests" / asset / f"game_date={day}").mkdir(parents=True)
        for whole, told in _runs(day, a_day):
            directory = f"{data}/manifests/{whole['asset']}/game_date={day}/run={whole['partition']['run_id']}"
            os.mkdir(directory)
            descriptor = os.open(f"{directory}/manifest.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, json.dumps(whole, indent=2).encode())
            os.close(descriptor)
            lines += told
        lines.sort(key=lambda event: event["ts"])
        text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in lines)
        (events / f"{day}.jsonl").write_text(text)
    return Tree(days, data, config, clean_env(ORCHCTL_CONFIG=str(config), ORCHCTL_STATE_DIR=str(base / "state")))


def _runs(day: date, count: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield manifest and events of each run of a day, spread over it; one in twenty failed."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for number in range(count):
        begun = midnight + timedelta(seconds=86_000 * number / count)
        ended = begun + timedelta(seconds=42)
        key = hashlib.sha256(f"{day} {number}".encode()).hexdigest()
        job = f"job-{number % ASSETS}"
        who = Identity(job, job, run_id(begun, key), day, begun, begun, "schedule", "live", 1)
        facts = {"git_sha": key[:40], "python": "3.11.7", "orchestrator_run_id": key, "catalog_digest": f"sha256:{key}"}
        first = manifests.started(who, _WHERE, facts, at=begun)
        failed = number % 20 == 0
        last = manifests.finished(
            first, "failed" if failed else "success", at=ended, duration_s=42.0, exit_code=int(failed)
        )
        told = [manifests.event("run_started", first, at=begun), manifests.event("run_finished", last, at=ended)]
        yield last, told


def _naive(tree: Tree, cwd: Path, say: Callable[[str], None]) -> float:
    """Return the seconds of the naive listing, its files in the page cache where they fit."""
    say(f"reading {tree.days:,} days naively")
    argv = [sys.executable, "-c", _NAIVE, str(tree.data), str(LAST)]
    rounds = 3 if tree.days < 1000 else 1
    return statistics.median(launch(argv, env=tree.env, cwd=cwd).wall for _ in range(rounds))


def _opened(tree: Tree, cwd: Path) -> int | None:
    """Return how many files below the data root the listing opens; None without strace."""
    if shutil.which("strace") is None:
        return None
    log = cwd / "opened"
    strace = ["strace", "-f", "-qq", "-e", "trace=open,openat", "-o", str(log), *tree.listing("--json")]
    subprocess.run(strace, env=tree.env, cwd=cwd, stdout=subprocess.DEVNULL, check=True)
    return sum(str(tree.data) in line for line in log.read_text(errors="replace").splitlines())
