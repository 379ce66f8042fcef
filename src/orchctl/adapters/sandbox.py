"""A real systemd in namespaces of its own, for the demo, the tests and the benchmarks; needs root and unshare.

Its root is an overlay of this machine's, its changes are in memory, and /run, /tmp and /var/tmp are its own:
nothing outside changes, and with its first process everything of it is gone. The network is shared: a server on
127.0.0.1 is reachable from both sides.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
BOOT_PATIENCE_S = 60.0
_PRIVATE = ("/run", "/tmp", "/var/tmp")  # noqa: S108 (not used, but told apart)
# $1 is the folder of the sandbox, what follows are folders that it shares with us, at the same paths.
# systemd clears /tmp and /var/tmp when it boots: it gets its own.
_BOOT = """
set -e
base=$1 store=$1/store root=$1/store/root; shift
mount --make-rprivate /
mkdir -p "$store"
kept=$(mountpoint -q "$store" && echo yes || mount -t tmpfs tmpfs "$store")
mkdir -p "$store/upper" "$store/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$store/upper,workdir=$store/work" "$root"
cd "$root" && mount -t proc proc proc
if [ "$kept" ]; then
  cat /proc/sys/kernel/random/uuid > "$store/boot_id"
  mount --bind "$store/boot_id" proc/sys/kernel/random/boot_id
fi
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup && mkdir sys/fs/cgroup/systemd
# The kernel has one hierarchy of each kind: without a group of its own, this systemd would count, and kill, what runs
# in units of the same names in another sandbox.
group=orchctl-$(cat /proc/sys/kernel/random/uuid)
for kind in 'cgroup -o none,name=systemd' cgroup2; do
  mount -t $kind cgroup sys/fs/cgroup/systemd || continue
  mkdir "sys/fs/cgroup/systemd/$group" && echo 0 > "sys/fs/cgroup/systemd/$group/cgroup.procs"
  umount sys/fs/cgroup/systemd
done
for place in run tmp var/tmp; do mount -t tmpfs tmpfs $place; done
mount --rbind /dev dev
mkdir -p run/lock
for shared in "$@"; do mkdir -p ".$shared" && mount --bind "$shared" ".$shared"; done
[ -e "$store/booted" ] || rm -rf etc/systemd/system/* etc/systemd/user/* etc/cron.d/* var/spool/cron/crontabs/* \
  var/lib/systemd/timers var/lib/systemd/linger var/log/journal
touch "$store/booted"
printf '[Unit]\\nDefaultDependencies=no\\nWants=dbus.socket dbus.service timers.target systemd-journald.socket %s\\n' \
  systemd-logind.service > etc/systemd/system/box.target
exec unshare --cgroup sh -ec 'mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd; exec chroot "$@"' sh \
  . /usr/bin/env -i container=orchctl PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=box.target --show-status=no --log-target=journal
"""


@dataclass(frozen=True)
class Sandbox:
    """A systemd that runs. `init` is its first process as seen from here, `outer` what ends it all when killed."""

    init: int
    outer: subprocess.Popen[bytes]

    def argv(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` inside, as root; the working directory becomes /."""
        return ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-i", "-C", "-r", "-w", *argv]

    def argv_as(self, user: str, *argv: str) -> list[str]:
        """Return the command that runs `argv` inside as a user who has a systemd (see `add_user`)."""
        uid = self.run("id", "-u", user).strip()
        runtime = f"/run/user/{uid}"
        places = [
            f"HOME=/home/{user}",
            f"XDG_RUNTIME_DIR={runtime}",
            f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus",
        ]
        return self.argv("runuser", "-u", user, "--", "env", *places, *argv)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command inside as root and return its output. Raises CalledProcessError where it fails."""
        return self._run(self.argv(*argv), check)

    def run_as(self, user: str, *argv: str, check: bool = True) -> str:
        """Run a command inside as a user and return its output. Raises CalledProcessError where it fails."""
        return self._run(self.argv_as(user, *argv), check)

    def write(self, path: str, text: str, *, mode: str = "644", owner: str = "root") -> None:
        """Write a file inside, with the folders it needs."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1" && chown "$3" "$1"'
        subprocess.run(self.argv("sh", "-c", script, "sh", path, mode, owner), input=text.encode(), check=True)

    def add_user(self, name: str, *, groups: Sequence[str] = ()) -> None:
        """Make a user inside, and start that user's systemd. Repeatable."""
        self.run("sh", "-c", 'id "$1" > /dev/null 2>&1 || useradd -m -s /bin/sh "$1"', "sh", name)
        for group in groups:
            self.run("usermod", "-a", "-G", group, name)
        self.run("sh", "-c", 'systemctl start "user@$(id -u "$1").service"', "sh", name)

    @staticmethod
    def _run(argv: list[str], check: bool) -> str:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=check)
        return done.stdout

    def stop(self) -> None:
        """End it and everything that runs in it. Repeatable."""
        with contextlib.suppress(ProcessLookupError):
            self.outer.send_signal(signal.SIGKILL)
        self.outer.wait()


def why_not() -> str | None:
    """Say why no sandbox can be booted here, None where it can."""
    missing = [name for name in ("unshare", "nsenter", str(SYSTEMD)) if shutil.which(name) is None]
    return "it needs root" if os.geteuid() != 0 else f"{missing[0]} is missing" if missing else None


def boot(base: Path, shared: Sequence[Path] = ()) -> Sandbox:
    """Boot a systemd in the folder `base`; the folders in `shared` are inside too, at the same paths.

    This program can run inside, wherever it is installed. A file system that is mounted at `base/store` already is a
    disk: what changes is kept there, and booting it again is a reboot, with a boot id of its own. Raises RuntimeError
    where it does not boot; nothing is left running then.
    """
    kinds = ("--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child")
    log = base / "boot.log"
    with log.open("wb") as output:
        outer = subprocess.Popen(
            ["unshare", *kinds, "bash", "-c", _BOOT, "boot", str(base), *map(str, [*_places_of_python(), *shared])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    deadline = time.monotonic() + BOOT_PATIENCE_S
    while time.monotonic() < deadline and outer.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(OSError, IndexError, subprocess.CalledProcessError):
            box = Sandbox(int(children.read_text().split()[0]), outer)
            subprocess.run(
                box.argv("systemctl", "is-active", "--quiet", "timers.target"), capture_output=True, check=True
            )
            return box
    outer.kill()
    outer.wait()
    raise RuntimeError(f"systemd did not boot: {log.read_text(errors='replace')[-500:]}")


def _places_of_python() -> list[Path]:
    """Return the folders of this program that an overlay of / lacks: on other file systems, or in what is its own."""
    here = os.stat("/").st_dev
    package = Path(__file__).resolve().parents[1]
    places = {Path(sys.prefix), Path(sys.base_prefix), package}
    return sorted(
        place for place in places if os.stat(place).st_dev != here or any(map(place.is_relative_to, _PRIVATE))
    )


@contextlib.contextmanager
def booted(base: Path, shared: Sequence[Path] = ()) -> Iterator[Sandbox]:
    """Boot a systemd and end it afterwards; see `boot`."""
    box = boot(base, shared)
    try:
        yield box
    finally:
        box.stop()
