"""Commands of orchctl that strace kills, or whose system calls it lets fail, at a chosen call, inside a sandbox.

Starting Python takes half a second, so a process inside has everything imported, and each command is a fork of it:
`main` as `python -m orchctl` calls it, in a process of its own, under a strace of its own. A fault is found by number:
a first run without one lists the calls that change something, and in the runs after it the same call is hit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box import Box

# Of what the kernel does for a command, the calls that change something, or start a process or wait for it.
CHANGING = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "chown", "fchown", "lchown", "fchownat", "chmod", "fchmod", "fchmodat"),
    *("fsync", "fdatasync", "ftruncate", "pwrite64", "utimensat", "flock", "vfork", "fork", "clone", "clone3"),
    *("wait4", "sendto", "openat", "write"),
)
FAILING = {"openat", "write", "pwrite64", "fsync", "rename", "link", "symlink", "unlink", "mkdir", "chmod", "chown"}
"""Calls that a full or a sick disk lets fail."""
ERRORS = ("ENOSPC", "EIO", "EINTR")
_CREATES = re.compile(r"O_(?:CREAT|WRONLY|RDWR)")
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")

_SERVER = r"""
import importlib, json, os, pkgutil, subprocess, sys, time, traceback
import orchctl
for found in pkgutil.walk_packages(orchctl.__path__, "orchctl."):
    if not found.name.startswith(("orchctl.runner", "orchctl.__main__")):
        importlib.import_module(found.name)
from orchctl.__main__ import main

def command(job, go):
    os.setsid()
    null, out = os.open("/dev/null", os.O_RDONLY), os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(null, 0), os.dup2(out, 1), os.dup2(out, 2)
    os.environ.update(job["environment"])
    sys.argv = ["orchctl", *job["words"]]
    for line in job["patch"]:
        exec(line, globals())
    os.read(go, 1)
    code = 70
    try:
        code = main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)

for line in sys.stdin:
    job = json.loads(line)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        command(job, ours)
    os.close(ours)
    tracer = None
    if job["strace"]:
        argv = ["strace", *job["strace"], "-o", job["log"], "-p", str(child)]
        tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = tracer.stderr.readline()
        assert "attached" in said, said
    begun = time.monotonic()
    os.write(theirs, b"x")
    os.close(theirs)
    _, status, used = os.wait4(child, 0)
    took = time.monotonic() - begun
    if tracer is not None:
        tracer.communicate()
    ended = {"code": os.waitstatus_to_exitcode(status), "took": took, "worked": used.ru_utime + used.ru_stime}
    print(json.dumps(ended), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at the `number`-th call of this name that a command makes: SIGKILL before it is made (`error` None), or
    this error. `what` is the call as the first run made it.
    """

    call: str
    number: int
    error: str | None
    what: str

    @property
    def inject(self) -> str:
        """How strace is told."""
        return f"inject={self.call}:{f'error={self.error}' if self.error else 'signal=KILL'}:when={self.number}"

    def __str__(self) -> str:
        return f"{self.error or 'KILL'} at {self.what[:150]} (number {self.number})"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it), and what it printed.

    `took` are seconds on the wall, `worked` those of the processors, its children's too. `log` is strace's, and empty
    without one; `was_hit` whether the fault took place.
    """

    code: int
    took: float
    worked: float
    output: str
    log: str = ""

    @property
    def was_hit(self) -> bool:
        return "(INJECTED)" in self.log or "killed by SIGKILL" in self.log


class Forks:
    """Runs commands of orchctl inside a sandbox, each as a fork of one process. `share` is at the same path inside."""

    def __init__(self, box: Box, environment: dict[str, str]) -> None:
        self._share, self._environment = box.share, environment
        argv = box.inside.argv("env", "NO_COLOR=1", "HOME=/root", sys.executable, "-c", _SERVER)
        self._server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End the process."""
        self._server.communicate()

    def run(self, *words: str, fault: Fault | None = None, trace: bool = False, patch: Sequence[str] = ()) -> Ended:
        """Run a command to its end. `patch`: lines of Python that are carried out in it first, for controls."""
        out, log = Path(self._share, "out"), Path(self._share, "strace")
        strace = []
        if fault is not None:
            strace = ["-e", f"trace={fault.call}", "-e", fault.inject]
        elif trace:
            strace = ["-y", "-s", "200", "-e", f"trace={','.join(CHANGING)}"]
        job = {"words": words, "environment": self._environment, "out": str(out), "patch": list(patch)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({**job, "strace": strace, "log": str(log)}) + "\n")
        self._server.stdin.flush()
        answer: Any = json.loads(self._server.stdout.readline())
        traced = log.read_text(errors="replace") if strace else ""
        return Ended(answer["code"], answer["took"], answer["worked"], out.read_text(errors="replace"), traced)


def changing_calls(log: str) -> Iterator[tuple[str, int, str]]:
    """Yield name, number and text of each call in a log of strace that changes something. Numbers count each name."""
    counts: dict[str, int] = {}
    for line in log.splitlines():
        found = _CALL.match(line)
        if found is None or "resumed>" in line:
            continue
        name, words = found[1], found[2]
        counts[name] = counts.get(name, 0) + 1
        if name == "openat" and not _CREATES.search(words):
            continue
        if name == "sendto" and "io.systemd." in words:
            continue  # it asks who a user is
        if name in {"openat", "write"} and re.search(r"<(?:pipe|socket|/dev/)|/dev/null|/out>", words):
            continue
        yield name, counts[name], f"{name}({words}"


def faults(log: str) -> tuple[list[Fault], list[Fault]]:
    """Return every kill, and every error, that can be tried in a command with this log of strace."""
    kills, errors = [], []
    for name, number, text in changing_calls(log):
        kills.append(Fault(name, number, None, text))
        if name in FAILING:
            errors += [Fault(name, number, error, text) for error in ERRORS]
    return kills, errors
