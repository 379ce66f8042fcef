"""A real systemd in namespaces of its own: private root, /run and /tmp in memory, gone with its first process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
# systemd clears /tmp and /var/tmp when it boots: it gets its own.
_BOOT = """
set -e
store=$1/store root=$1/store/root
mount --make-rprivate /
mkdir "$store" && mount -t tmpfs tmpfs "$store" && mkdir "$store/upper" "$store/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$store/upper,workdir=$store/work" "$root"
cd "$root" && mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup && mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
for place in run tmp var/tmp; do mount -t tmpfs tmpfs $place; done
mount --rbind /dev dev
mkdir -p box run/lock && mount --bind "$1/share" box
rm -rf etc/systemd/system/* var/lib/systemd/timers var/log/journal
printf '[Unit]\\nDefaultDependencies=no\\nWants=dbus.socket timers.target systemd-journald.socket\\n' \
  > etc/systemd/system/box.target
exec chroot . /usr/bin/env -i container=bench PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=box.target --show-status=no --log-target=journal
"""


@dataclass(frozen=True)
class Box:
    """A systemd that runs: `share` is /box inside, `init` its first process as seen from here."""

    share: Path
    init: int

    def run(self, *argv: str) -> str:
        enter = ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-i", "-C", "-r", "-w", *argv]
        return subprocess.run(enter, capture_output=True, text=True, check=True).stdout


def why_not() -> str | None:
    """Say why no box can be booted here, None where it can."""
    missing = [name for name in ("unshare", "nsenter", str(SYSTEMD)) if shutil.which(name) is None]
    return "it needs root" if os.geteuid() != 0 else f"{missing[0]} is missing" if missing else None


@contextlib.contextmanager
def booted(base: Path) -> Iterator[Box]:
    """Boot a systemd; with its first process everything of it is gone. Raises RuntimeError where it does not boot."""
    (base / "share").mkdir()
    kinds = ("--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child")
    with (base / "boot.log").open("wb") as log:
        argv = ["unshare", *kinds, "bash", "-c", _BOOT, "boot", str(base)]
        outer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield _ready(outer.pid, base)
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait()


def _ready(outer: int, base: Path) -> Box:
    children = Path(f"/proc/{outer}/task/{outer}/children")
    for _ in range(200):
        time.sleep(0.1)
        with contextlib.suppress(OSError, IndexError, subprocess.CalledProcessError):
            box = Box(base / "share", int(children.read_text().split()[0]))
            box.run("systemctl", "is-active", "--quiet", "timers.target")
            return box
    raise RuntimeError(f"systemd did not boot: {(base / 'boot.log').read_text()[-500:]}")
