"""A job that is handed back and forth while it counts its own runs: real systemd, real Prefect, both in the sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from box import USER, Box
from invariants import Entry
from orchctl.adapters.local_stack import free_port
from support import eventually

POOL = "switching"
WHY = "only the switch is looked at here"
SERVER, WORKER = "prefect-server.service", "prefect-worker.service"
# Not in /etc, which is emptied after each test: server and worker serve all of a file's.
_UNITS = "/run/systemd/system"
_SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}
# A line when it begins and one when it ends.
_SCRIPT = """#!/bin/sh
id=$$-$(date +%s%N)
echo "start $id $1 ${{2:--}} $(date +%s.%N)" >> {log}
sleep {seconds}
echo "end $id $1 - $(date +%s.%N)" >> {log}
"""


@dataclass(frozen=True)
class Line:
    """One execution of the job. `slot` in seconds: of Prefect's, or the last before its start. `end` None: killed."""

    id: str
    by: str
    slot: float
    start: float
    end: float | None


@dataclass
class Stage:
    """A catalog with one job, and a state directory, beside a server and a worker inside.

    `every`: seconds between slots; `scopes`: where the legacy timer is; `took`: seconds of each command, by command.
    """

    box: Box
    root: Path
    api_url: str
    job: str = "tick"
    every: int = 15
    scopes: Sequence[str] = ("system",)
    took: dict[str, list[float]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def log(self) -> Path:
        return self.root / "ran"

    @property
    def owner(self) -> Path:
        return self.state / "owners" / f"{self.job}.json"

    def write(
        self,
        *,
        timer: str = "",
        before_service: str = "",
        seconds: float = 0.2,
        on_calendar: str | None = None,
        **job: Any,
    ) -> None:
        """Write script, units and catalog.

        `timer` are more lines of that section, `before_service` what comes before the other; `seconds` is how long the
        job takes, `on_calendar` when legacy runs it, None: as Prefect does.
        """
        self.make_folders()
        self.log.touch()
        self.log.chmod(0o666)
        script = self.root / "tick.sh"
        script.write_text(_SCRIPT.format(log=self.log, seconds=seconds))
        script.chmod(0o755)
        calendar = on_calendar or f"*:*:0/{self.every}"
        for scope in self.scopes:
            unit = f"[Timer]\nOnCalendar={calendar}\nAccuracySec=1us\n{timer}\n[Install]\nWantedBy=timers.target\n"
            self.box.unit(f"{self.job}.timer", unit, scope=scope)
            command = f"{before_service}[Service]\nType=oneshot\nExecStart={script} legacy\n"
            self.box.unit(f"{self.job}.service", command, scope=scope)
        self.box.reload()
        legacy = [
            {"timer": f"{self.job}.timer", "scope": scope, **({"user": USER} if scope == "user" else {})}
            for scope in self.scopes
        ]
        table = {
            "schedules": ["loop"],
            "command": [str(script), "prefect", "{slot}"],
            "timeout": "1m",
            "catchup": "all",
            "catchup_window": "5m",
            "gates": {"min_successes": 0, "within": "1d"},
            "legacy": legacy,
            **job,
        }
        catalog(self.root, {self.job: table}, {"loop": {"on_calendar": f"*:*:0/{self.every}"}})

    def make_folders(self) -> None:
        """Make them so that a user's systemd can see whether there is an owner file, as the gate asks for."""
        self.root.mkdir(exist_ok=True)
        self.root.chmod(0o755)
        self.state.mkdir(exist_ok=True)
        self.state.chmod(0o711)

    def environment(self) -> dict[str, str]:
        return {
            "ORCHCTL_CONFIG": str(self.root / "config"),
            "ORCHCTL_STATE_DIR": str(self.state),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.root / "prefect"),
            "HOME": "/root",
        }

    def orchctl(self, *words: str, check: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line inside, as root; `check` is the exit code that must come, None for any."""
        begun = time.monotonic()
        done = self.box.orchctl(*words, **{**self.environment(), **environment})
        self.took.setdefault(words[0], []).append(time.monotonic() - begun)
        if check is not None:
            assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, check: int | None = 0, **environment: str) -> Any:
        """Run with --json and return the envelope's data."""
        return json.loads(self.orchctl(*words, "--json", check=check, **environment).stdout)["data"]

    def cutover(self, *words: str, wait: bool = True, check: int | None = 0, **environment: str) -> Any:
        """Cut the job over and return what is said of it. A cadence of seconds takes minutes to compare."""
        told = [f"--waive=cadence={WHY}", *(["--wait"] if wait else []), *words]
        return self.json("cutover", self.job, "--yes", *told, check=check, **environment)["jobs"][0]["result"]

    def rollback(self, *words: str, check: int | None = 0, **environment: str) -> Any:
        return self.json("rollback", self.job, "--yes", *words, check=check, **environment)["jobs"][0]["result"]

    def killed(self, when: Callable[[], object], *words: str, **environment: str) -> bool:
        """Run a command that gets SIGKILL once `when` says so; return whether that was before its end."""
        assigned = [f"{key}={value}" for key, value in {"NO_COLOR": "1", **self.environment(), **environment}.items()]
        argv = self.box.inside.argv("env", *assigned, sys.executable, "-m", "orchctl", *words)
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as outer:
            while outer.poll() is None:
                if when():
                    # nsenter waits for what it started, in the sandbox's own pids.
                    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                    for child in children:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(child), signal.SIGKILL)
                    return outer.wait() != 0 and bool(children)
                time.sleep(0.005)
        return False

    def begins(self, step: str, *, after_s: float = 0.0) -> Callable[[], bool]:
        """Return what says when a handover that begins from now on is `after_s` seconds into a step."""
        folder = self.state / "handovers"
        known, seen = set(folder.glob("*.jsonl")), list[float]()

        def look() -> bool:
            new = set(folder.glob("*.jsonl")) - known
            if not seen and any(f'"step":"{step}","phase":"begun"' in path.read_text() for path in new):
                seen.append(time.monotonic())
            return bool(seen) and time.monotonic() - seen[0] >= after_s

        return look

    def reloads(self) -> tuple[str, Callable[[], bool]]:
        """Return a PATH on which `systemctl daemon-reload` takes its time, and what says when one is under way."""
        folder = self.root / "bin"
        mark = folder / "reloading"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the user's manager is asked as the user
        wrapper = folder / "systemctl"
        reload = f"touch {mark}; chmod 666 {mark}; sleep 0.2"
        wrapper.write_text(
            f'#!/bin/sh\ncase " $* " in *" daemon-reload "*) {reload};; esac\nexec /usr/bin/systemctl "$@"\n'
        )
        wrapper.chmod(0o755)
        mark.unlink(missing_ok=True)
        return f"{folder}:/usr/bin:/bin", mark.exists

    def deploy(self) -> None:
        """Apply the catalog, and wait until its runs are ahead and a worker has asked for them."""
        self.orchctl("sync")
        eventually(self.is_ready, within=60, poll=0.5)

    def is_ready(self) -> bool:
        """Whether a worker asks for the job's runs, and some are ahead."""
        found = ask(self.api_url, f"deployments/name/{self.job}/{self.job}")
        body = {
            "deployments": {"id": {"any_": [found["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        return bool(found["status"] == "READY" and ask(self.api_url, "flow_runs/count", body) > 1)

    def wait_for_worker(self) -> None:
        """Wait until a worker asks for runs (again): without one no gate lets a cutover through."""
        path = f"deployments/name/{self.job}/{self.job}"
        eventually(lambda: ask(self.api_url, path)["status"] == "READY", within=90, poll=0.5)

    def problems(self, *, check: int = 0) -> list[str]:
        """Return the codes of what `status --check` finds of the job, which exits with `check`."""
        (found,) = self.json("status", "--check", check=check)["jobs"]
        return [each["code"] for each in found["problems"]]

    def ran_by(self, side: str, *, before: float) -> int:
        """Return how many slots before an instant that side has run so late that it was after the instant."""
        return sum(line.by == side and line.slot < before < line.start for line in self.lines())

    def wait_for(self, slots: set[float]) -> None:
        """Wait until these slots have been begun."""
        eventually(lambda: slots <= {line.slot for line in self.lines()}, within=90)

    def start_timers(self) -> None:
        for scope in self.scopes:
            self.box.systemctl("enable", "--quiet", "--now", f"{self.job}.timer", scope=scope)

    def close(self) -> None:
        """Take the job away from Prefect."""
        with contextlib.suppress(urllib.error.HTTPError):
            found = ask(self.api_url, f"deployments/name/{self.job}/{self.job}")
            ask(self.api_url, f"flows/{found['flow_id']}", method="DELETE")

    def is_on(self, scope: str) -> bool:
        return self.box.systemctl("is-active", f"{self.job}.timer", scope=scope, check=False).strip() == "active"

    # --- what really ran

    def lines(self) -> list[Line]:
        """Return every execution. Timers here fire to the microsecond: legacy starts soon after its slot."""
        begun: dict[str, tuple[str, float, float]] = {}
        ended: dict[str, float] = {}
        for kind, id_, by, slot, at in map(str.split, self.log.read_text().splitlines()):
            if kind == "end":
                ended[id_] = float(at)
            else:
                nominal = float(at) // self.every * self.every if slot == "-" else seconds(slot)
                begun[id_] = (by, nominal, float(at))
        return [Line(id_, *found, ended.get(id_)) for id_, found in begun.items()]

    def facts(self) -> list[dict[str, Any]]:
        """Return what each handover found out, by its journal, in their order."""
        return [found for found, _, _ in self._handovers()]

    def _handovers(self) -> Iterator[tuple[dict[str, Any], float | None, float | None]]:
        """Yield the facts of each handover, when it was about to run what was owed, and when it had been started."""
        for path in sorted((self.state / "handovers").glob("*.jsonl")):
            facts: dict[str, Any] = {}
            about, started = None, None
            for record in map(json.loads, path.read_text().splitlines()):
                data = record.get("data") or {}
                about = seconds(record["at"]) if "owed_in" in data and "owed_in" not in facts else about
                started = seconds(record["at"]) if "owed" in data and "owed" not in facts else started
                facts |= data
            yield facts, about, started

    def served(self) -> list[tuple[Line, float]]:
        """Return each execution with its slot; what a rollback started by hand has the slot that was owed."""
        lines = self.lines()
        slots = {line.id: line.slot for line in lines}
        for facts, about, started in self._handovers():
            if about is None:
                continue
            until = started if started is not None else about + 3
            found = [line for line in lines if line.by == "legacy" and about - 0.1 <= line.start <= until + 0.1]
            # Killed right after it had started the service, it did not write that down: only the time tells.
            found = [line for line in found if started is not None or line.start % self.every > 1]
            if found:
                line = max(found, key=lambda line: line.start % self.every)
                slots[line.id] = _owed_slot(facts, line)
        return [(line, slots[line.id]) for line in lines]

    def given_up(self) -> set[float]:
        """Return the slots that nobody ran and of which a rollback said so: legacy's next run was for all of them."""
        facts = self.facts()
        told = [slot for found in facts for slot in found.get("dropped") or ()]
        told += [found["served"] for found in facts if "served" in found]
        return set(map(seconds, told))

    def skipped(self) -> set[float]:
        """Return the slots that Prefect's side skipped beside the run before, which was late: so `overlap` has it."""
        paths = (self.root / "data" / "manifests").glob("*/game_date=*/run=*/manifest.json")
        found = [json.loads(path.read_text()) for path in paths]
        return {
            seconds(each["slot"])
            for each in found
            if each["status"] == "skipped" and "the job is locked by run" in each["reason"]
        }

    def history(self, first: float, last: float) -> list[Entry]:
        """Return what happened to the slots from `first` to `last`, for `invariants.check`."""
        log = [Entry(slot, "due", slots=(slot,)) for slot in self.slots(first, last)]
        for line, slot in self.served():
            if not first <= slot <= last:
                continue
            log.append(Entry(line.start, "start", by=line.by, run=line.id, slots=(slot,)))
            if line.end is not None:
                log.append(Entry(line.end, "end", run=line.id))
        log.sort(key=lambda entry: entry.t)
        able = [*(["prefect"] if self.owner.exists() else []), *(["legacy"] if self._legacy_can() else [])]
        return [*log, Entry(time.time(), "settled", state=tuple(able))]

    def _legacy_can(self) -> bool:
        return any(map(self.is_on, self.scopes)) and not (self.owner.exists() and self.is_fenced())

    def is_fenced(self) -> bool:
        return any(
            f"zz-orchctl-{self.job}.conf"
            in self.box.systemctl("show", "-p", "DropInPaths", f"{self.job}.service", scope=scope)
            for scope in self.scopes
        )

    def slots(self, first: float, last: float) -> list[float]:
        start = -(-first // self.every) * self.every
        return [start + number * self.every for number in range(int((last - start) // self.every) + 1)]

    def quiet(self) -> None:
        """Wait until the line of the slot before now is there, and its end: nothing goes just now."""
        time.sleep(max(0.0, self.every - time.time() % self.every))
        eventually(lambda: all(line.end is not None for line in self.lines()), within=30)


def _owed_slot(facts: dict[str, Any], line: Line) -> float:
    return seconds(facts["owed"]["slot"]) if facts.get("owed") else line.slot


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def catalog(root: Path, jobs: dict[str, Any], schedules: dict[str, Any], **defaults: Any) -> None:
    """Write the two files of a catalog; `defaults` are those of its jobs, over what every test needs."""
    config = root / "config"
    config.mkdir(exist_ok=True)
    base = {"data_root": str(root / "data"), "working_directory": str(root), "work_pool": POOL, **defaults}
    (root / "data").mkdir(exist_ok=True)
    table = {"version": 1, "name": f"switching-{root.name}", "defaults": base, "jobs": jobs}
    (config / "jobs.toml").write_text(tomli_w.dumps(table))
    table = {"version": 1, "timezone": "UTC", "schedules": schedules}
    (config / "schedules.toml").write_text(tomli_w.dumps(table))


def ask(api_url: str, path: str, body: Any = None, *, method: str | None = None) -> Any:
    """Ask the API of the server inside; a `body` makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{api_url}/{path}", data=data, headers={"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        content = answer.read()
    return json.loads(content) if content else None


@contextlib.contextmanager
def prefect(box: Box, root: Path, *, units: str = _UNITS) -> Iterator[str]:
    """Run server and worker as units of the sandbox's systemd, and yield the API's address. Each is started again."""
    url = start_prefect(box, root, units=units)
    try:
        yield url
    finally:
        box.systemctl("stop", WORKER, SERVER)
        box.sh(f"rm -f {units}/{WORKER} {units}/{SERVER}")
        box.systemctl("daemon-reload")


def start_prefect(box: Box, root: Path, *, units: str = _UNITS) -> str:
    """Write the units of server and worker, start them, and wait until they work. The worker takes every catalog's."""
    root.mkdir(exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    common = {"PREFECT_HOME": str(root), "PREFECT_API_URL": url, "HOME": "/root"}
    python = f"{sys.executable} -m prefect"
    server = {
        **common,
        **_SERVER_SETTINGS,
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{root / 'prefect.db'}",
    }
    worker = {**common, "PREFECT_WORKER_QUERY_SECONDS": "2", "ORCHCTL_STATE_DIR": str(root.parent / "state")}
    start = f"{python} worker start --pool {POOL} --type process --limit 8"
    for name, command, environment in (
        (SERVER, f"{python} server start --host 127.0.0.1 --port {port}", server),
        (WORKER, start, worker),
    ):
        assigned = "".join(f'Environment="{key}={value}"\n' for key, value in environment.items())
        # Runs outlive their worker, as they do on a host where it is started again at once.
        service = f"Restart=always\nRestartSec=500ms\nKillMode={'process' if name == WORKER else 'mixed'}\n"
        text = (
            f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{service}WorkingDirectory={root}\n{assigned}"
            f"ExecStart={command}\n[Install]\nWantedBy=timers.target\n"
        )
        box.inside.write(f"{units}/{name}", text)
    box.systemctl("daemon-reload")
    box.systemctl("start", SERVER)
    eventually(lambda: answers(url), within=120)
    box.systemctl("start", WORKER)
    eventually(lambda: ask(url, "work_pools/filter", {}), within=120)  # it makes its pool
    return url


def answers(url: str) -> bool:
    with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
        return bool(ask(url, "admin/version"))
    return False


def kill(box: Box, unit: str) -> None:
    """SIGKILL the first process of a unit."""
    box.systemctl("kill", "--kill-who=main", "--signal=KILL", unit)


def missed(entries: Sequence[Entry]) -> list[float]:
    """Return the slots that fell due and that nobody ran, whatever any policy says."""
    due = {slot for entry in entries if entry.kind == "due" for slot in entry.slots}
    ran = {slot for entry in entries if entry.kind == "start" for slot in entry.slots}
    return sorted(due - ran)


def doubled(entries: Sequence[Entry]) -> list[float]:
    """Return the slots that were run more than once."""
    ran = [slot for entry in entries if entry.kind == "start" for slot in entry.slots]
    return sorted({slot for slot in ran if ran.count(slot) > 1})


def at(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%H:%M:%S")
