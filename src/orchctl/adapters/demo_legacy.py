"""The demo's legacy side: a systemd that it may put timers into, or the reason why there is none.

As root it boots a systemd of its own (`adapters/sandbox.py`), so that the host's is never touched. Otherwise it
uses the caller's own user manager, with runtime units that it removes. With neither, the demo leaves it out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchctl.adapters import sandbox


class LegacySide(Protocol):
    """A systemd for the demo. `scope` is that of its timers, None where there is none; `why` says which it is.

    `hands_over`: a job may be handed over there. It writes drop-ins where the user's own ones are.
    """

    hands_over: bool

    @property
    def scope(self) -> str | None: ...  # noqa: D102
    @property
    def why(self) -> str: ...  # noqa: D102
    @property
    def own_pids(self) -> frozenset[int]: ...  # noqa: D102
    def argv(self, directory: Path, words: Sequence[str]) -> list[str]: ...  # noqa: D102
    def install(self, units: Mapping[str, str]) -> None: ...  # noqa: D102
    def enable(self, timer: str) -> None: ...  # noqa: D102
    def remove(self) -> None: ...  # noqa: D102
    def remove_by_hand(self) -> list[str]: ...  # noqa: D102


def choose(root: Path, environment: Mapping[str, str]) -> LegacySide:
    """Return the legacy side for a demo in `root`, started already."""
    reason = sandbox.why_not()
    if reason is None:
        try:
            return Sandboxed(root)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
    runtime = environment.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime and _answers(environment):
        return OwnManager(Path(runtime), environment)
    return LeftOut(f"no systemd answers this user, and none can be booted: {reason}")


class Sandboxed:
    """A systemd of the demo's own; everything of the demo runs inside it."""

    hands_over = True
    scope = "system"
    why = "a systemd of the demo's own, in namespaces: the host's is not touched"

    def __init__(self, root: Path) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="orchctl-demo-systemd-"))
        try:
            self._box = sandbox.boot(self._base, [root])
        except BaseException:
            shutil.rmtree(self._base, ignore_errors=True)
            raise
        self.own_pids = frozenset({self._box.outer.pid})

    def argv(self, directory: Path, words: Sequence[str]) -> list[str]:
        """Return the command that runs `words` in `directory` beside the timers."""
        return self._box.argv("sh", "-c", 'cd "$0" && exec "$@"', str(directory), *words)

    def install(self, units: Mapping[str, str]) -> None:
        """Write units, and start the timers among them."""
        for name, text in units.items():
            self._box.write(f"/etc/systemd/system/{name}", text)
        self._box.run("systemctl", "daemon-reload")
        self._box.run("systemctl", "enable", "--quiet", "--now", *(name for name in units if name.endswith(".timer")))

    def enable(self, timer: str) -> None:
        """Enable and start a timer, as somebody might who does not know."""
        self._box.run("systemctl", "enable", "--quiet", "--now", timer)

    def remove(self) -> None:
        """End it, and everything that runs in it. Repeatable."""
        self._box.stop()
        shutil.rmtree(self._base, ignore_errors=True)

    def remove_by_hand(self) -> list[str]:
        """Return the shell commands that do what `remove` does."""
        return [f"kill -KILL {self._box.outer.pid}", f"rm -r {self._base}"]


class OwnManager:
    """The caller's own user manager, with units that are gone at the next boot if the demo cannot remove them."""

    hands_over = False
    scope = "user"
    why = "your own systemd (`systemctl --user`), with units that are removed at the end"
    own_pids: frozenset[int] = frozenset()

    def __init__(self, runtime: Path, environment: Mapping[str, str]) -> None:
        self._folder = runtime / "systemd" / "user"
        self._environment = environment
        self._names: list[str] = []

    def argv(self, directory: Path, words: Sequence[str]) -> list[str]:  # noqa: ARG002 (where the caller already is)
        """Return `words`: nothing is between us and the timers."""
        return list(words)

    def install(self, units: Mapping[str, str]) -> None:
        """Write units, and start the timers among them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            with (self._folder / name).open("x", encoding="utf-8") as file:
                self._names.append(name)
                file.write(text)
        self._systemctl("daemon-reload")
        self._systemctl("start", *self._timers())

    def enable(self, timer: str) -> None:
        """Start a timer."""
        self._systemctl("start", timer)

    def remove(self) -> None:
        """Stop the timers and remove the units. Repeatable."""
        if not self._names:
            return
        with contextlib.suppress(subprocess.SubprocessError):
            self._systemctl("stop", *self._timers())
        for name in self._names:
            (self._folder / name).unlink(missing_ok=True)
        self._names.clear()
        with contextlib.suppress(subprocess.SubprocessError):
            self._systemctl("daemon-reload")

    def remove_by_hand(self) -> list[str]:
        """Return the shell commands that do what `remove` does."""
        files = [str(self._folder / name) for name in self._names]
        return [
            f"systemctl --user stop {' '.join(self._timers())}",
            f"rm {' '.join(files)}",
            "systemctl --user daemon-reload",
        ]

    def _timers(self) -> list[str]:
        return [name for name in self._names if name.endswith(".timer")]

    def _systemctl(self, *words: str) -> None:
        argv = ["systemctl", "--user", *words]
        subprocess.run(argv, env=dict(self._environment), check=True, capture_output=True, timeout=30)


class LeftOut:
    """No systemd: the demo goes without."""

    hands_over = False
    scope = None
    own_pids: frozenset[int] = frozenset()

    def __init__(self, why: str) -> None:
        self.why = why

    def argv(self, directory: Path, words: Sequence[str]) -> list[str]:  # noqa: ARG002 (where the caller already is)
        """Return `words`."""
        return list(words)

    def install(self, units: Mapping[str, str]) -> None:
        """Do nothing: there is nowhere to write to."""

    def enable(self, timer: str) -> None:
        """Do nothing: there is no timer."""

    def remove(self) -> None:
        """Do nothing: there is nothing to remove."""

    def remove_by_hand(self) -> list[str]:
        """Return no commands."""
        return []


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        argv = ["systemctl", "--user", "show", "--property=Version"]
        return subprocess.run(argv, env=dict(environment), capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
