"""What lies between a slot and the first line of its command: Prefect, orchctl's runner, or systemd."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Report, alternate, clean_env, folder, ms, short, span_ms
from benchmarks.sampler import Sampler, Seen, on_cpu, wait_for_lines
from benchmarks.stack import POOL, Place, running, write_catalog
from orchctl.adapters import sandbox, toml_files
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.runner.job import execute, look_up
from orchctl.runner.shapes import Host, Request
from orchctl.services import sync
from orchctl.wiring import runs

OURS, PLAIN, SYSTEMD = "orchctl's runner in a Prefect worker", "a plain Prefect flow, same worker", "a systemd timer"
PERIOD_S = 30
MARK = "ORCHCTL_BENCH_PLAIN"
# bash's own clock: no process is started for it.
_SCRIPT = '#!/bin/bash\necho "$EPOCHREALTIME ${ORCHCTL_SLOT:-$SLOT}" >> "$1"\n'
_FLOW = """
import os, subprocess
from prefect import flow
from prefect.context import FlowRunContext


@flow(name="plain")
def run(script: str, times: str) -> None:
    slot = FlowRunContext.get().flow_run.expected_start_time
    env = dict(os.environ, SLOT=slot.strftime("%Y-%m-%dT%H:%M:%SZ"))
    subprocess.run([script, times], env=env, check=True)
"""


def run(options: Options) -> Report:
    slots = 20 if options.full else 10
    columns = ("What starts the script", "Slot to first line", "CPU a run", "Peak RSS a run", "Processes")
    report = Report("overhead", columns)
    with running(options, worker=True) as place:
        late, seen = _in_prefect(place, slots, options.say)
    for name in (OURS, PLAIN):
        runs = _by_run(seen, plain=name == PLAIN)
        cpu = [sum(each.cpu for each in run) for run in runs]
        peak = [sum(each.peak for each in run) for run in runs]
        processes = statistics.median(len(run) for run in runs)
        report.row(name, span_ms(late[name]), span_ms(cpu), f"{statistics.median(peak):.0f} MiB", f"{processes:g}")
        report.raw[name] = {"late": late[name], "cpu": cpu, "peak": peak}
    _systemd(report, options)
    report.notes.append(
        f"Earliest start, counted from the slot: orchctl {short(min(late[OURS]) * 1000)} ms, "
        f"the plain flow {short(min(late[PLAIN]) * 1000)} ms."
    )
    _runner_alone(report, rounds=100 if options.full else 40)
    report.notes.append(
        f"Slots every {PERIOD_S} s, {slots} of each kind, half a period apart. The worker starts a flow's processes "
        "up to 10 s ahead, and they then wait for the slot: start-up costs CPU, latency only where it takes longer."
    )
    return report


def _by_run(seen: list[Seen], *, plain: bool) -> list[list[Seen]]:
    """Return Prefect's processes of each flow run, less the first run's: they name it in their environment."""
    runs: dict[bytes, list[Seen]] = {}
    for each in seen:
        names = [word for word in each.environment.split(b"\0") if word.startswith(b"PREFECT__FLOW_RUN_ID=")]
        if names and "prefect" in each.command and (MARK.encode() in each.environment) == plain:
            runs.setdefault(names[0], []).append(each)
    return list(runs.values())[1:]


def _in_prefect(place: Place, slots: int, say: Callable[[str], None]) -> tuple[dict[str, list[float]], list[Seen]]:
    script = _script(place.base)
    times = {OURS: place.base / "ours", PLAIN: place.base / "plain"}
    config = write_catalog(
        place.base / "config",
        {"ours": {"command": [str(script), str(times[OURS])], "schedules": ["often"]}},
        {"often": {"every": f"{PERIOD_S}s"}},
        data_root=place.base / "data",
    )
    catalog, applied = toml_files.load(config), AppliedCatalogs(place.state)
    with place.api() as api:
        now = datetime.now(UTC)
        proposed = sync.propose(catalog, api, applied, state_dir=str(place.state), now=now)
        sync.apply(proposed, catalog, api, applied, now=lambda: now)
        (place.base / "plain_flow.py").write_text(_FLOW)
        api.create_deployment(_plain(place.base, script, times[PLAIN], flow=api.create_flow("plain")))
    say(f"waiting for {slots + 1} slots of {PERIOD_S} s")
    with Sampler(place.host.pid(f"worker-{POOL}") or 0) as sampler:
        patience = (slots + 4) * PERIOD_S
        lines = {name: wait_for_lines(path, slots + 1, within=patience) for name, path in times.items()}
        time.sleep(PERIOD_S / 4)
    late = {name: [_late(*words) for words in found[1:]] for name, found in lines.items()}
    return late, list(sampler.seen.values())


def _script(folder: Path) -> Path:
    path = folder / "script.sh"
    path.write_text(_SCRIPT)
    path.chmod(0o755)
    return path


def _plain(base: Path, script: Path, times: Path, *, flow: str) -> dict[str, Any]:
    """Return a deployment of the plain flow, started as orchctl's is: by the name of its module."""
    anchor = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=PERIOD_S / 2)
    schedule = {"interval": float(PERIOD_S), "anchor_date": anchor.isoformat(), "timezone": "UTC"}
    return {
        "name": "plain",
        "flow_id": flow,
        "entrypoint": "plain_flow.run",
        "pull_steps": [],
        "work_pool_name": POOL,
        "parameters": {"script": str(script), "times": str(times)},
        "enforce_parameter_schema": False,
        "job_variables": {"env": {"PYTHONPATH": str(base), MARK: "1"}},
        "schedules": [{"slug": "often", "schedule": schedule, "active": True}],
    }


def _late(stamp: str, slot: str) -> float:
    return float(stamp) - datetime.fromisoformat(slot).timestamp()


def _systemd(report: Report, options: Options) -> None:
    """Let a systemd of our own start the same script every two seconds."""
    reason = sandbox.why_not()
    if reason is not None:
        report.notes.append(f"The comparison with systemd is left out: {reason}.")
        return
    starts = 60 if options.full else 20
    options.say(f"booting a systemd for {starts} slots of 2 s")
    with folder() as base, folder() as share, sandbox.booted(base, [share]) as booted:
        _script(share)
        units = {
            "bench.service": f"[Service]\nType=oneshot\nExecStart={share}/script.sh {share}/times\n",
            "bench.timer": "[Timer]\nOnCalendar=*-*-* *:*:0/2\nAccuracySec=1us\n",
        }
        for name, text in units.items():
            booted.write(f"/run/systemd/system/{name}", text)
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "start", "bench.timer")
        wait_for_lines(share / "times", 1, within=30)
        before = on_cpu(booted.init)
        lines = wait_for_lines(share / "times", starts + 1, within=starts * 4)
        used = (on_cpu(booted.init) - before) / starts
    late = [float(words[0]) % 2 for words in lines[1:]]
    report.row(SYSTEMD, span_ms(late), f"PID 1: {short(used * 1000)} ms", "", "0")
    report.raw[SYSTEMD] = {"late": late, "pid_1_cpu_a_start": used}
    slower = statistics.median(report.raw[OURS]["late"]) / statistics.median(late)
    report.notes.append(f"Slot to first line, orchctl against systemd: {short(slower)} times (medians).")


def _runner_alone(report: Report, *, rounds: int) -> None:
    """Measure a run without Prefect: slot rule, claim, lock, command, manifest and events."""
    for jobs in (10, 1000):
        with folder() as base, in_state(base):
            request, host = _alone(base, jobs)
            argv = ["/bin/true"]
            found = alternate(
                {
                    "execute": lambda: _timed(lambda: execute(request(), host, lambda _: None)),  # noqa: B023
                    "look up": lambda: _timed(lambda: look_up(request(), host)),  # noqa: B023
                    "bare": lambda: _timed(lambda: subprocess.run(argv, check=True)),  # noqa: B023
                },
                rounds=rounds,
            )
        report.raw[f"runner alone, {jobs} jobs"] = found
        report.notes.append(
            f"The runner without Prefect, `/bin/true`, catalog of {jobs:,} jobs: {ms(found['execute'])} a run, "
            f"{ms(found['look up'])} of it to look the job up; bare `subprocess.run`: {ms(found['bare'])}."
        )


def _timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


@contextmanager
def in_state(base: Path) -> Iterator[None]:
    """Let the runner's composition root find its state directory where it looks for it: in the environment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_env(ORCHCTL_STATE_DIR=str(base / "state")))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _alone(base: Path, jobs: int) -> tuple[Callable[[], Request], Host]:
    tables = {f"job-{number}": {"command": ["/bin/true"], "schedules": ["often"]} for number in range(jobs)}
    config = write_catalog(base / "config", tables, {"often": {"every": "60s"}}, data_root=base / "data")
    catalog = toml_files.load(config)
    AppliedCatalogs(base / "state").write(catalog)

    def request() -> Request:
        now = datetime.now(UTC)
        key = f"run-{now.timestamp()}"
        return Request("job-0", catalog.digest, key, now, 1, now, "schedule")

    return request, runs.host(Host, later_due=lambda _: None)
