"""For how long a handover keeps a job from running, on a real systemd in a sandbox and with a real Prefect server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Report, alternate, folder, span_ms
from benchmarks.stack import Place, running, write_catalog
from orchctl.adapters import sandbox
from orchctl.adapters.sandbox import Sandbox

USER = "bench"
CLOSED = "http://127.0.0.1:9/api"
WAIVED = ("worker", "ahead", "cadence", "runs", "clock", "idle")
CASES = {"one": ("system",), "both": ("system", "user")}
_PLACES = {"system": "/etc/systemd/system", "user": f"/home/{USER}/.config/systemd/user"}
_MOMENTS = {
    "cutover: start of the command to commit": ("cutover", "began", "committed_at"),
    "cutover: commit to Prefect's first instant (held)": ("cutover", "committed_at", "since"),
    "cutover: the whole command": ("cutover", "began", "ended"),
    "rollback: start of the command to draining": ("rollback", "began", "held_from"),
    "rollback: draining to legacy's first instant (held)": ("rollback", "held_from", "released_at"),
    "rollback: start of the command to legacy's first instant": ("rollback", "began", "released_at"),
    "rollback: the whole command": ("rollback", "began", "ended"),
}
Moments = dict[str, float]


def run(options: Options) -> Report:
    report = Report("handover", ("What", "One timer", "Timers in both scopes", "One timer, API closed"))
    reason = sandbox.why_not()
    if reason is not None:
        report.notes.append(f"Left out: {reason}.")
        return report
    with running(options, worker=False) as place, _host(place) as switch:
        cases: dict[str, Callable[[], Mapping[str, Moments]]] = {
            "one": partial(switch, "one"),
            "both": partial(switch, "both"),
            "closed": partial(switch, "one", rolls_back_without=True),
        }
        found = alternate(cases, rounds=20 if options.full else 6, say=options.say)
    for name, (command, start, end) in _MOMENTS.items():
        spans = {case: [each[command][end] - each[command][start] for each in rounds] for case, rounds in found.items()}
        report.row(name, *(span_ms(spans[case]) for case in cases))
        report.raw[name] = spans
    report.notes.append("Median, smallest and largest. No run was going, and nothing was due.")
    report.notes.append("A cutover holds the job for two seconds by design: until the `since` that it wrote.")
    return report


@contextmanager
def _host(place: Place) -> Iterator[Callable[..., Mapping[str, Moments]]]:
    """Yield what switches a job to Prefect and back inside a sandbox, and returns the moments of both, in seconds."""
    with folder() as base:
        place.base.chmod(0o755)
        state = place.base / "host"
        state.mkdir(mode=0o711)
        jobs: dict[str, Any] = {}
        for job, scopes in CASES.items():
            legacy = [
                {"timer": f"{job}.timer", "scope": scope, **({"user": USER} if scope == "user" else {})}
                for scope in scopes
            ]
            jobs[job] = {"schedules": ["daily"], "command": ["true"], "legacy": legacy}
        config = write_catalog(
            place.base / "catalog", jobs, {"daily": {"cron": "30 3 * * *"}}, data_root=place.base / "data"
        )
        with sandbox.booted(base, [place.base]) as inside:
            _install(inside)
            environment = {"ORCHCTL_CONFIG": str(config), "ORCHCTL_STATE_DIR": str(state), "HOME": "/root"}
            call = partial(_orchctl, inside, environment)
            call(place.url, "sync", "--yes")

            def switch(job: str, *, rolls_back_without: bool = False) -> Mapping[str, Moments]:
                waived = [word for gate in WAIVED for word in ("--waive", f"{gate}=a benchmark")]
                found = {}
                for command, url, words in (
                    ("cutover", place.url, waived),
                    ("rollback", CLOSED if rolls_back_without else place.url, []),
                ):
                    began = time.time()
                    call(url, command, job, "--yes", *words)
                    found[command] = {"began": began, "ended": time.time(), **_journal(state, command)}
                call(place.url, "recover")
                return found

            yield switch


def _install(inside: Sandbox) -> None:
    inside.add_user(USER)
    for job, scopes in CASES.items():
        for scope in scopes:
            owner, place = USER if scope == "user" else "root", _PLACES[scope]
            inside.write(f"{place}/{job}.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n", owner=owner)
            timer = "[Timer]\nOnCalendar=*-*-* 03:30:00 UTC\n[Install]\nWantedBy=timers.target\n"
            inside.write(f"{place}/{job}.timer", timer, owner=owner)
            inside.run("chown", "-R", owner, place if scope == "system" else f"/home/{USER}")
            run = (
                partial(inside.run_as, USER, "systemctl", "--user")
                if scope == "user"
                else partial(inside.run, "systemctl")
            )
            run("daemon-reload")
            run("enable", "--quiet", "--now", f"{job}.timer")


def _orchctl(inside: Sandbox, environment: Mapping[str, str], url: str, *words: str) -> None:
    assigned = [f"{key}={value}" for key, value in {**environment, "PREFECT_API_URL": url}.items()]
    argv = inside.argv("env", "NO_COLOR=1", *assigned, sys.executable, "-m", "orchctl", *words)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"orchctl {' '.join(words[:2])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _journal(state: Path, kind: str) -> Moments:
    """Return the moments that the newest journal of a kind tells, as seconds of the epoch."""
    every = [path.read_text().splitlines() for path in sorted(Path(state, "handovers").glob("*.jsonl"))]
    lines = [list(map(json.loads, each)) for each in every if json.loads(each[0])["kind"] == kind][-1]
    found = dict[str, str]()
    for line in lines[1:]:
        found |= {key: value for key, value in (line.get("data") or {}).items() if key in _FACTS and value}
    return {key: datetime.fromisoformat(value).timestamp() for key, value in found.items()}


_FACTS = {"committed_at", "since", "held_from", "released_at"}
