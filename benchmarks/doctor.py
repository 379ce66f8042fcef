"""`orchctl doctor` on a host that is well, against `orchctl host status` on the same host."""

from __future__ import annotations

import statistics
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import Options, Ratio, Report, alternate, launch, ms
from benchmarks.stack import running, write_catalog

CHECK, STATUS, DOCTOR = "orchctl check", "orchctl host status", "orchctl doctor"
JOBS = 20


def run(options: Options) -> Report:
    orchctl = str(Path(sys.executable).parent / "orchctl")
    with running(options, worker=True) as place:
        jobs = {f"job-{number:02}": {"command": ["/bin/true"], "schedules": ["hourly"]} for number in range(JOBS)}
        schedules = {"hourly": {"cron": "0 * * * *"}}
        env = place.env(write_catalog(place.base / "config", jobs, schedules, data_root=place.base / "data"))
        launch([orchctl, "sync", "--yes"], env=env, cwd=place.base)
        words = {CHECK: ["check"], STATUS: ["host", "status"], DOCTOR: ["doctor"]}
        # Each ends with 0: what doctor finds are warnings only, of a host without backups and alerts.
        cases = {name: partial(launch, [orchctl, *more], env=env, cwd=place.base) for name, more in words.items()}
        found = alternate(cases, rounds=30 if options.full else 15, say=options.say)
    report = Report("doctor", ("Command", "Wall", "CPU", "Peak RSS", "Wall against `orchctl host status`"))
    for name, used in found.items():
        wall = [each.wall for each in used]
        rss = statistics.median(each.rss for each in used)
        ratio = Ratio.of(wall, [each.wall for each in found[STATUS]])
        report.row(f"`{name}`", ms(wall), ms([each.cpu for each in used]), f"{rss:.1f} MiB", ratio)
        report.raw[name] = [[each.wall, each.cpu, each.rss] for each in used]
    report.notes.append(f"{JOBS} jobs that Prefect has, a server and a worker of `host up`; every check is made.")
    return report
