"""The systemd side of a handover, called inside the sandbox, by root or by a user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from box import USER, Box

STATE = "/srv/state"
LOG = "/var/ran.log"
_DRIVER = """
import contextlib, datetime, json, os, sys
from pathlib import Path
from types import SimpleNamespace
from orchctl.adapters.confirm_timer import ConfirmTimer
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.timer_switch import TimerSwitch
from orchctl.core import snapshot
from orchctl.core.catalog import TimerTrigger
from orchctl.errors import OrchctlError

CHANGES = ("symlink", "unlink", "replace", "mkdir", "rmdir", "utime", "chmod")
VERBS = ("daemon-reload", "start", "stop", "restart")

class Killed(BaseException):
    pass

class Dying:
    # Dies before the change of the host that comes after `left` others.
    def __init__(self, left):
        self.left, self.kept, self.call = left, {name: getattr(os, name) for name in CHANGES}, Systemd.call

    def before(self, change):
        def changed(*words, **more):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return change(*words, **more)
        return changed

    def __enter__(self):
        for name, change in self.kept.items():
            setattr(os, name, self.before(change))
        counted = self.before(self.call)
        Systemd.call = lambda *words, **more: (counted if words[3] in VERBS else self.call)(*words, **more)

    def __exit__(self, *raised):
        for name, change in self.kept.items():
            setattr(os, name, change)
        Systemd.call = self.call
        return raised[0] is Killed

def read(word):
    if isinstance(word, dict) and "timers" in word:
        return snapshot.from_json(word)
    if isinstance(word, dict):
        return SimpleNamespace(name=word["job"], legacy=[TimerTrigger(**each) for each in word["legacy"]])
    if isinstance(word, str) and word.startswith("@"):
        return datetime.datetime.fromtimestamp(float(word[1:]), datetime.UTC)
    return word

def said(answer):
    if isinstance(answer, snapshot.Snapshot):
        return snapshot.to_json(answer)
    return answer.timestamp() if isinstance(answer, datetime.datetime) else answer

for line in sys.stdin:
    dies_at, state, kind, name, *words = json.loads(line)
    systemd = Systemd(os.environ, os.environ.get("SUDO_USER"))
    if kind == "timers":
        target = TimerSwitch(systemd, lambda job: Path(state, "owners", f"{job}.json"))
    else:
        command, environment = words.pop(0), words.pop(0)
        target = ConfirmTimer(systemd, lambda job: [*command, job], environment)
    try:
        answer = "killed"
        with Dying(dies_at) if dies_at is not None else contextlib.nullcontext():
            answer = said(getattr(target, name)(*map(read, words)))
        print(json.dumps({"answer": answer}), flush=True)
    except OrchctlError as error:
        print(json.dumps({"error": error.message}), flush=True)
"""


class Refused(Exception):
    """What was called inside raised OrchctlError."""


@dataclass
class Inside:
    """The adapters of `ConfirmTimer` and `TimerSwitch` inside the sandbox: one process for each user that asks."""

    box: Box
    _processes: dict[str | None, subprocess.Popen[str]] = field(default_factory=dict)

    def ask(self, words: Sequence[Any], *, user: str | None = None, dies_at: int | None = None) -> Any:
        """Return what came of a call: a state directory, `timers` or `confirm`, a method, its arguments.

        `dies_at`: it ends before that change of the host (from 0), and "killed" is returned where there was one.
        """
        if user not in self._processes:
            command = [sys.executable, "-c", _DRIVER]
            argv = self.box.inside.argv_as(user, *command) if user else self.box.inside.argv(*command)
            self._processes[user] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self._processes[user]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([dies_at, *words]) + "\n")
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        if "error" in found:
            raise Refused(found["error"])
        return found["answer"]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            with process:
                pass
        self._processes.clear()


@dataclass
class Switch:
    """Calls `TimerSwitch` for one job. `timers` are names and scopes; `user` is who calls, None for root."""

    inside: Inside
    timers: Sequence[tuple[str, str]]
    job: str = "j"
    state: str = STATE
    user: str | None = None
    snap: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.box = self.inside.box
        self.box.sh('mkdir -p "$1" && chmod 711 "$1"', self.state)

    def ask(self, name: str, *words: Any, dies_at: int | None = None) -> Any:
        return self.inside.ask([self.state, "timers", name, *words], user=self.user, dies_at=dies_at)

    def ask_dying(self, name: str, *words: Any) -> int:
        """Call it again and again, killed before its first change, its second, and so on; return how often."""
        dies_at = 0
        while self.ask(name, *words, dies_at=dies_at) == "killed":
            dies_at += 1
        return dies_at

    @property
    def described(self) -> Any:
        legacy = [
            {"timer": timer, "scope": scope, **({"user": USER} if scope == "user" else {})}
            for timer, scope in self.timers
        ]
        return {"job": self.job, "legacy": legacy}

    def photograph(self) -> None:
        self.snap = self.ask("snapshot", self.described)

    def own(self, *, prefect: bool) -> None:
        """Make Prefect, or legacy, the owner."""
        path = f"{self.state}/owners/{self.job}.json"
        if prefect:
            self.box.sh('mkdir -p -m 700 "$(dirname "$1")"; umask 77; echo > "$1"', path)
        else:
            self.box.sh('rm -f "$1"', path)

    def cut_over(self) -> None:
        """The steps of a cutover that are systemd's, in their order."""
        self.photograph()
        assert not self.ask("is_fenced", self.job, self.snap)
        self.ask("fence", self.job, self.snap)
        assert self.ask("is_fenced", self.job, self.snap)
        self.own(prefect=True)
        self.ask("turn_off", self.snap)
        assert self.ask("are_off", self.snap)

    def roll_back(self) -> None:
        """The steps of a rollback that are systemd's, in their order."""
        self.ask("put_back", self.snap)
        assert self.ask("are_back", self.snap)
        self.own(prefect=False)
        self.ask("unfence", self.job, self.snap)
        assert not self.ask("has_fence", self.job, self.snap)


def job_units(box: Box, name: str, timer: str, *, scope: str = "system", service: str = "", unit: str = "") -> None:
    """Write a timer and a service that logs each run; `timer` and `service` are lines of those sections."""
    log = f"/bin/sh -c 'echo \"%n {scope}\" >> {LOG}'"
    box.sh("touch $1; chmod 666 $1", LOG)
    box.unit(f"{name}.service", f"[Service]\nType=oneshot\n{service}\nExecStart={log}\n", scope=scope)
    box.unit(
        f"{name}.timer", f"{unit}\n[Timer]\n{timer}\nAccuracySec=1ms\n[Install]\nWantedBy=timers.target\n", scope=scope
    )


def runs(box: Box) -> list[str]:
    return box.sh('cat "$1" 2> /dev/null || true', LOG).splitlines()


_PLACES = "/etc/systemd /home/daniel/.config /run/systemd/system /usr/lib/systemd/system/timers.target.wants"
_SHOWN = (
    "Id,Names,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload,WantedBy,"
    "RequiredBy,UpheldBy,Wants,ExecCondition,Unit"
)


def photo(box: Box, *units: tuple[str, str]) -> str:
    """Return every file where units are, byte for byte, and the state of these units."""
    found = box.sh(
        f"for place in {_PLACES}; do [ ! -e $place ] || find $place -printf '%p %y %m %u:%g %l\\n'; done | sort;"
        f"for place in {_PLACES}; do [ ! -e $place ] || find $place -type f -exec sha256sum {{}} +; done | sort"
    )
    for name, scope in (*units, ("timers.target", "system")):
        shown = box.systemctl("show", f"--property={_SHOWN}", name, scope=scope)
        # Lists are in the order in which systemd came across them.
        found += "".join(" ".join(sorted(line.split())) + "\n" for line in shown.replace("=", "= ").splitlines())
    return found
