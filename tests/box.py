"""A sandbox with a real systemd, as the tests use it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchctl.adapters.sandbox import Sandbox

USER = "daniel"
_FOLDERS = {"system": "/etc/systemd/system", "user": f"/home/{USER}/.config/systemd/user"}


@dataclass
class Box:
    """`share` is a folder that is at the same path inside and outside. Units are removed by `clean`."""

    inside: Sandbox
    share: Path
    _units: list[tuple[str, str]] = field(default_factory=list)

    def unit(self, name: str, text: str, *, scope: str = "system") -> None:
        """Write a unit file (or a drop-in: `x.service.d/y.conf`); `reload` makes systemd see it."""
        if scope == "user":
            self.inside.add_user(USER, groups=["systemd-journal"])
        owner = USER if scope == "user" else "root"
        self.inside.write(f"{_FOLDERS[scope]}/{name}", text, owner=owner)
        self.inside.run("chown", "-R", f"{owner}:", _FOLDERS[scope])
        self._units.append((scope, name))

    def systemctl(self, *words: str, scope: str = "system", check: bool = True) -> str:
        if scope == "user":
            return self.inside.run_as(USER, "systemctl", "--user", *words, check=check)
        return self.inside.run("systemctl", *words, check=check)

    def reload(self) -> None:
        self.systemctl("daemon-reload")
        if any(scope == "user" for scope, _ in self._units):
            self.systemctl("daemon-reload", scope="user")

    def start(self, *names: str, scope: str = "system", enable: bool = True) -> None:
        """Make systemd see the units, and start these timers."""
        self.reload()
        self.systemctl(*(["enable", "--quiet", "--now"] if enable else ["start"]), *names, scope=scope)

    def orchctl(self, *words: str, user: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `orchctl` inside, as root or as a user, and return what came of it."""
        assigned = [f"{key}={value}" for key, value in {"NO_COLOR": "1", **environment}.items()]
        command = ["env", *assigned, sys.executable, "-m", "orchctl", *words]
        argv = self.inside.argv_as(user, *command) if user else self.inside.argv(*command)
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def python(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python script inside as root, with this project's packages."""
        assigned = [f"{key}={value}" for key, value in environment.items()]
        argv = self.inside.argv("env", *assigned, sys.executable, "-c", script, *arguments)
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def sh(self, script: str, *arguments: Any) -> str:
        return self.inside.run("sh", "-ec", script, "sh", *map(str, arguments))

    def clean(self) -> None:
        """Stop and remove every unit that was written, and reset what failed."""
        for scope in ("system", "user"):
            names = [name for where, name in self._units if where == scope]
            units = sorted({name.partition(".d/")[0] for name in names}, key=lambda name: name.endswith(".service"))
            if not names:
                continue
            with contextlib.suppress(subprocess.CalledProcessError):
                self.systemctl(
                    "disable",
                    "--quiet",
                    "--now",
                    *(unit for unit in units if "@." not in unit),
                    scope=scope,
                    check=False,
                )
            self.sh(f"cd {shlex.quote(_FOLDERS[scope])} && rm -rf -- *")
            self.systemctl("daemon-reload", scope=scope)
            self.systemctl("reset-failed", scope=scope, check=False)
        self._units.clear()
        self.sh("rm -rf /var/spool/cron/crontabs/* /etc/cron.d/* /var/lib/systemd/timers/*")
