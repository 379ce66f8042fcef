"""A job in a sandbox that is handed over again and again, with a Prefect that answers fast, and a judge."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import invariants
from box import USER, Box
from invariants import Entry
from kills import Ended, Fault, Forks
from orchctl.adapters import toml_files
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.owners import Owners
from orchctl.core import slots
from prefect_server import CATALOG, PrefectServer

WAIVED = ("applied", "worker", "ahead", "cadence", "runs", "clock", "idle")
NO_GATES = (
    "from orchctl.services import gates as g",
    "g.table = lambda world, name, **_: g.Table(name, (), None, ())",
)
"""Gates look and change nothing, but importing Prefect for one of them takes two seconds of a processor."""
NOTHING_DUE = (
    "from orchctl.services.slots_in_doubt import SlotsInDoubt as S",
    "from orchctl.services.handover_ports import Doubt",
    "S.missed_by_legacy = lambda *_, **__: Doubt(())",
)
"""Legacy has missed no slot: finding out imports Prefect, too."""
UNFENCED = (
    "from orchctl.adapters.timer_switch import TimerSwitch as T",
    "T.is_fenced = lambda *_: True",
)
"""The step that fences is passed over: a control."""
# It is started far more often than systemd allows without the first line.
_SERVICE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=%s\n"
# Half of the time of a daemon-reload goes to generators that find nothing here.
_NO_GENERATORS = """
mkdir -p /etc/systemd/system-generators /etc/systemd/user-generators
for each in /lib/systemd/system-generators/* /lib/systemd/user-generators/*; do
  for folder in system-generators user-generators; do ln -sf /dev/null "/etc/systemd/$folder/${each##*/}"; done
done
"""
_TRY = """
for scope; do
  ctl=systemctl
  test $scope = system || ctl="runuser -u %(user)s -- env XDG_RUNTIME_DIR=/run/user/$(id -u %(user)s) systemctl --user"
  before=$(grep -c $scope %(ran)s || :)
  $ctl start %(job)s.service > /dev/null 2>&1 || :
  after=$(grep -c $scope %(ran)s || :)
  active=$($ctl is-active %(job)s.timer || :)
  case $($ctl show -p DropInPaths %(job)s.service) in *zz-orchctl*) drop_in=yes;; *) drop_in=no;; esac
  echo $scope $before $after $active $drop_in
done
"""
_UNITS = """
for place in /etc/systemd/system /home/%(user)s/.config/systemd/user; do
  test ! -d $place || find $place ! -name default.target.wants -printf '%%p %%y %%m %%u %%l\\n' | sort
done
cat /etc/systemd/system/*.service /etc/systemd/system/*.timer
systemctl show -p Id,ActiveState,UnitFileState,DropInPaths,NeedDaemonReload -- %(job)s.timer %(job)s.service
"""


@dataclass
class SwitchingBox:
    """One job `j` on a timer a day, in the scopes given. `log` is what happened, for the judge."""

    box: Box
    prefect: PrefectServer
    scopes: Sequence[str] = ("system",)
    job: str = "j"
    options: Sequence[str] = ()
    api_url: str | None = None
    log: list[Entry] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    slowest: float = 0.0
    hardest: float = 0.0
    hits: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.share, job = self.box.share, self.job
        self.ran, self.state = self.share / "ran", self.share / "state"
        self.state.mkdir(mode=0o711)  # a fence of the user's has to see the owner files
        self.ran.touch()
        self.ran.chmod(0o666)
        self.prefect.add(job)
        self.box.sh(_NO_GENERATORS)
        for scope in self.scopes:
            command = f"/bin/sh -c 'echo {scope} >> {self.ran}'"
            self.box.unit(f"{job}.service", _SERVICE % command, scope=scope)
            timer = "OnCalendar=*-*-* 03:30\nPersistent=true\nAccuracySec=1ms"
            self.box.unit(f"{job}.timer", f"[Timer]\n{timer}\n[Install]\nWantedBy=timers.target\n", scope=scope)
        for scope in self.scopes:
            self.box.start(f"{job}.timer", scope=scope)
        self.config = self.share / "config"
        self.config.mkdir()
        user = {"system": "", "user": f', user = "{USER}"'}
        legacy = ", ".join(f'{{ timer = "{job}.timer", scope = "{each}"{user[each]} }}' for each in self.scopes)
        (self.config / "jobs.toml").write_text(
            f'version = 1\nname = "{CATALOG}"\n[jobs.{job}]\ndata_root = "{self.share}/data"\ncommand = ["true"]\n'
            f'working_directory = "/tmp"\nwork_pool = "p"\nlegacy = [{legacy}]\n'
        )
        (self.config / "schedules.toml").write_text("version = 1\n")
        self.environment = {"ORCHCTL_CONFIG": str(self.config), "ORCHCTL_STATE_DIR": str(self.state)}
        self.environment["PREFECT_API_URL"] = self.api_url or self.prefect.url
        self.forks = Forks(self.box, self.environment)
        self.owners, self.handovers = Owners(self.state), Handovers(self.state)
        self._note("units", by="before", state=self.units())

    def close(self) -> None:
        """End what runs commands."""
        self.forks.close()

    def run(self, command: str, *, fault: Fault | None = None, trace: bool = False, patch: Sequence[str] = ()) -> Ended:
        """Run `cutover`, `rollback` or `recover`, and see who is able to run the job afterwards."""
        by = f"{command} {next(self._numbers)}"
        self._note("begin", by=by)
        ended = self.command(command, by, fault=fault, trace=trace, patch=patch)
        self.look(by)
        self._note("finish", by=by)
        return ended

    def command(
        self, command: str, by: str, *, fault: Fault | None = None, trace: bool = False, patch: Sequence[str] = ()
    ) -> Ended:
        """Run a command, and look at nothing afterwards."""
        ended = self.forks.run(*self._words(command), fault=fault, trace=trace, patch=(*NO_GATES, *patch))
        self.told.append(f"{by}: exit {ended.code} in {ended.took:.2f} s{f', {fault}' if fault is not None else ''}")
        assert "Traceback" not in ended.output, f"{self.told[-1]}\n{ended.output}"
        return ended

    def look(self, by: str) -> tuple[str, ...]:
        """Note whose the job is, and whether its services start, which is tried. Return who is able to run it."""
        owner = self.owners.read(self.job)
        self.handovers.open_of(self.job)
        seen, able = self._tried(), set()
        fenced = {scope: each["drop_in"] if owner is None else not each["starts"] for scope, each in seen.items()}
        fences = [Entry(time.monotonic(), "fence", scope=scope, state=up) for scope, up in fenced.items()]
        state = None if owner is None else "draining" if owner.draining else "live"
        owners = [Entry(time.monotonic(), "owner", by=by, state=state)]
        # In the order in which no moment is told that was not: the fence goes first up, and last down.
        self.log += [*fences, *owners] if owner is not None else [*owners, *fences]
        if all(each["starts"] and each["active"] for each in seen.values()):
            able.add("legacy")
        if owner is not None and not self.prefect.deployments[self.job]["paused"]:
            catalog, soon = toml_files.load(self.config), datetime.now(UTC) + timedelta(seconds=10)
            if slots.owned(catalog.jobs[self.job], soon, owner).kind == "run":
                able.add("prefect")
        return tuple(sorted(able))

    def _tried(self) -> dict[str, dict[str, bool]]:
        """Return for each scope whether the service starts now, its timer is active, and it has the drop-in."""
        told = self.box.sh(_TRY % {"user": USER, "job": self.job, "ran": self.ran}, *self.scopes)
        rows = [line.split() for line in told.splitlines()]
        return {
            scope: {"starts": int(after) > int(before), "active": active == "active", "drop_in": drop_in == "yes"}
            for scope, before, after, active, drop_in in rows
        }

    def recover(self, *, fault: Fault | None = None) -> None:
        """Let `recover` be killed by a fault, then run it, and run it again, and note what it left."""
        if fault is not None:
            self.hits += self.run("recover", fault=fault).was_hit
        by = f"recover {next(self._numbers)}"
        self._note("begin", by=by)
        ended = self.command("recover", by)
        self.slowest, self.hardest = max(self.slowest, ended.took), max(self.hardest, ended.worked)
        left = self.fingerprint()
        again = self.command("recover", by)
        able = self.look(by)
        self._note("finish", by=by)
        is_done = ended.code == again.code == 0 and not self.handovers.unfinished()
        changed = "nothing to recover" not in again.output or self.fingerprint() != left
        self._note("recovered", state="unfinished" if not is_done else "changed" if changed else "finished")
        if not is_done or changed:
            self.told.append(ended.output + again.output)
        self._settled(able)

    def settle(self) -> None:
        """Note who would run the next slot, where nothing goes on."""
        by = f"look {next(self._numbers)}"
        self._note("begin", by=by)
        able = self.look(by)
        self._note("finish", by=by)
        self._settled(able)

    def _settled(self, able: tuple[str, ...]) -> None:
        self._note("settled", state=able)
        if able == ("legacy",):
            self._note("units", by="after", state=self.units())

    def killed_from_outside(self, command: str, fault: Fault) -> bool:
        """Run a command as strace's own child, as an operator's shell would, every gate included; return whether it
        was killed.
        """
        assigned = [f"{key}={value}" for key, value in self.environment.items()]
        words = ["strace", "-o", str(self.share / "outside"), "-e", f"trace={fault.call}", "-e", fault.inject]
        python = ["env", "HOME=/root", "PYTHONDONTWRITEBYTECODE=1", *assigned, *words, sys.executable, "-m", "orchctl"]
        by = f"{command} {next(self._numbers)}"
        self._note("begin", by=by)
        argv = self.box.inside.argv(*python, *self._words(command))
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.look(by)
        self._note("finish", by=by)
        return "killed by SIGKILL" in (self.share / "outside").read_text()

    def _words(self, command: str) -> list[str]:
        words = {
            "cutover": ["cutover", self.job, "--yes", *self.options],
            "rollback": ["rollback", self.job, "--yes"],
        }
        return words.get(command, [command])

    @property
    def is_prefects(self) -> bool:
        """Whether Prefect owns the job."""
        return self.job in self.owners.names()

    def units(self) -> str:
        """Return all there is to know of the legacy units, as text."""
        shown = self.box.sh(_UNITS % {"user": USER, "job": self.job})
        if "user" in self.scopes:
            words = ("-p", "Id,ActiveState,UnitFileState,DropInPaths", "--", f"{self.job}.timer", f"{self.job}.service")
            shown += self.box.systemctl("show", *words, scope="user")
        return shown

    def fingerprint(self) -> str:
        """Return a hash of what handovers keep of the job, and of its units."""
        files = sorted(path for name in ("owners", "handovers") for path in Path(self.state, name).rglob("*"))
        content = b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in files)
        return hashlib.sha256(content + self.units().encode()).hexdigest()

    def _note(self, kind: Any, **more: Any) -> None:
        self.log.append(Entry(time.monotonic(), kind, **more))

    def violations(self) -> list[invariants.Violation]:
        """Return what the judge finds."""
        return invariants.check(self.log)
