"""What a step costs: 200 of them, 8 wide, against a bare pool of subprocesses and against Prefect's tasks alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Ratio, Report, alternate, folder, ms, short
from benchmarks.overhead import in_state
from benchmarks.stack import Place, running, write_catalog
from orchctl.adapters import toml_files
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.runner.job import execute
from orchctl.runner.shapes import Host, Request
from orchctl.wiring import runs

STEPS, WIDTH = 200, 8
BARE, RUNNER = "a pool of 8 threads, `subprocess.run`", "orchctl's runner, without Prefect"
TASKS, WHOLE = "Prefect's tasks alone, each `subprocess.run`", "orchctl's steps under Prefect"
_OURS = "from orchctl.runner.flow import run_job; run_job({job!r}, {digest!r})"
# The same number of tasks at a time, no cache, no results: what a person would write for it.
_PLAIN = """
import subprocess, time
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

@task(cache_policy=NO_CACHE, persist_result=False)
def step():
    subprocess.run(["/bin/true"], check=True)

@flow(task_runner=ThreadPoolTaskRunner(max_workers={width}))
def whole():
    began = time.monotonic()
    for future in [step.submit() for _ in range({steps})]:
        future.wait()
    print("took", time.monotonic() - began, flush=True)

whole()
"""


def run(options: Options) -> Report:
    """Measure."""
    report = Report("steps", ("How", "A step", "Against the bare pool"))
    with folder() as base:
        digest = _catalog(base)
        _without_prefect(report, options, base, digest)
    with running(options, worker=False) as place:
        digest = _catalog(place.base)
        _with_prefect(report, options, place, digest)
    report.notes.append(f"{STEPS} steps of `/bin/true`, each row of {WIDTH} waiting for two of the row before.")
    return report


def _catalog(base: Path) -> str:
    steps = []
    for number in range(STEPS):
        row, column = divmod(number, WIDTH)
        above = {(row - 1) * WIDTH + column, (row - 1) * WIDTH + (column + 1) % WIDTH} if row else set()
        after = [f"s{one:03}" for one in sorted(above)]
        steps.append({"name": f"s{number:03}", "command": ["/bin/true"], "after": after})
    job = {"execution": "steps", "parallel_steps": WIDTH, "steps": steps}
    catalog = toml_files.load(write_catalog(base / "config", {"dag": job}, {}, data_root=base / "data"))
    AppliedCatalogs(base / "state").write(catalog)
    return catalog.digest


def _without_prefect(report: Report, options: Options, base: Path, digest: str) -> None:
    options.say(f"{STEPS} steps without Prefect")
    with in_state(base):
        host = runs.host(Host, later_due=lambda _: None)
        found = alternate(
            {BARE: _bare, RUNNER: lambda: _runner(host, digest)},
            rounds=9 if options.full else 5,
        )
    report.raw |= {name: [one / STEPS for one in times] for name, times in found.items()}
    report.row(BARE, ms(report.raw[BARE]), "1")
    report.row(RUNNER, ms(report.raw[RUNNER]), Ratio.of(found[RUNNER], found[BARE]))


def _bare() -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(WIDTH) as pool:
        for future in [pool.submit(subprocess.run, ["/bin/true"], check=True) for _ in range(STEPS)]:
            future.result()
    return time.perf_counter() - began


def _runner(host: Host, digest: str) -> float:
    now = datetime.now(UTC)
    request = Request("dag", digest, f"run-{now.timestamp()}", now, 1, None, "manual")
    began = time.perf_counter()
    outcome = execute(request, host, lambda _: None)
    took = time.perf_counter() - began
    assert outcome.status == "success", outcome
    return took


def _with_prefect(report: Report, options: Options, place: Place, digest: str) -> None:
    options.say(f"{STEPS} steps under Prefect")
    env = place.env(place.base / "config")
    found = alternate(
        {BARE: _bare, TASKS: lambda: _plain(env), WHOLE: lambda: _ours(env, digest, place.base)},
        rounds=5 if options.full else 3,
    )
    for name in (TASKS, WHOLE):
        report.raw[name] = [one / STEPS for one in found[name]]
        report.row(name, ms(report.raw[name]), Ratio.of(found[name], found[BARE]))
    ratio = Ratio.of(found[WHOLE], found[TASKS])
    report.notes.append(f"orchctl's steps against Prefect's tasks alone: {ratio} times.")
    extra = [a - b for a, b in zip(report.raw[WHOLE], report.raw[TASKS], strict=True)]
    report.notes.append(f"What orchctl adds to a task: {short(1000 * sorted(extra)[len(extra) // 2])} ms (median).")


def _plain(env: dict[str, str]) -> float:
    script = _PLAIN.format(width=WIDTH, steps=STEPS)
    done = _python(script, env)
    return float(next(line.split()[1] for line in done.splitlines() if line.startswith("took ")))


def _ours(env: dict[str, str], digest: str, base: Path) -> float:
    before = set(_manifests(base))
    _python(_OURS.format(job="dag", digest=digest), env)
    (path,) = set(_manifests(base)) - before
    manifest: dict[str, Any] = json.loads(path.read_text())
    assert manifest["status"] == "success", manifest["reason"]
    return float(manifest["timing"]["duration_s"])


def _manifests(base: Path) -> list[Path]:
    return list((base / "data" / "manifests" / "dag").glob("game_date=*/run=*/manifest.json"))


def _python(script: str, env: dict[str, str]) -> str:
    return subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True).stdout
