"""The demo's stage: a temporary folder, and this same program as a process in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from orchctl.adapters import demo_legacy
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.errors import OrchctlError

_FILES = ("jobs.toml", "schedules.toml")
_SCRIPTS = ("pulse.sh", "report.sh", "broken.sh")


class DemoStage:
    """A folder with the demo's catalog and scripts. `environment` is the caller's; nothing of it that names a
    Prefect server or an orchctl of its own is passed on.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="orchctl-demo-"))
        self._environment = {
            key: value for key, value in environment.items() if not key.startswith(("PREFECT_", "ORCHCTL_"))
        }
        self._stack = LocalStack(self.root / "state", self._environment)
        try:
            self._legacy = self._choose()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        try:
            self._write()
        except BaseException:
            self.remove()
            raise

    def _choose(self) -> demo_legacy.LegacySide:
        return demo_legacy.choose(self.root, self._environment)

    @property
    def has_systemd(self) -> bool:
        """Whether there is a systemd that the demo may put timers into."""
        return self._legacy.scope is not None

    @property
    def systemd_words(self) -> str:
        """Which systemd it is, or why there is none."""
        return self._legacy.why

    def start_timers(self) -> None:
        """Install the demo's timers, which at once begin to fire."""
        folder = resources.files("orchctl") / "demo_files" / "units"
        units = {each.name: each.read_text(encoding="utf-8") for each in folder.iterdir()}
        self._legacy.install({name: text.replace("@ROOT@", str(self.root)) for name, text in units.items()})

    @property
    def hands_over(self) -> bool:
        """Whether a job may be handed over there."""
        return self._legacy.hands_over

    def enable_timer(self, timer: str) -> None:
        """Enable and start a timer behind orchctl's back."""
        self._legacy.enable(timer)

    def _write(self) -> None:
        source = resources.files("orchctl") / "demo_files"
        for folder in ("config", "scripts", "data"):
            (self.root / folder).mkdir()
        for name in _FILES:
            text = (source / name).read_text(encoding="utf-8").replace("@ROOT@", str(self.root))
            text = text.replace("@SCOPE@", self._legacy.scope or "system")
            (self.root / "config" / name).write_text(text, encoding="utf-8")
        for name in _SCRIPTS:
            path = self.root / "scripts" / name
            path.write_bytes((source / "scripts" / name).read_bytes())
            path.chmod(0o755)

    def orchctl(self, *words: str) -> tuple[int, str, str]:
        """Run `orchctl` in the folder; return its exit code and what it printed to stdout and stderr.

        Without --json both are in the first, in the order in which a person would have seen them.
        """
        settings = {
            "ORCHCTL_CONFIG": str(self.root / "config"),
            "ORCHCTL_STATE_DIR": str(self.root / "state"),
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            self._legacy.argv(self.root, [sys.executable, "-m", "orchctl", *words]),
            env={**self._environment, **settings},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if "--json" in words else subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr or ""

    def prefect_logs(self, flow_run_id: str) -> Sequence[str]:
        """Return what Prefect keeps of a run's log. The server writes it in batches, so this waits up to 10 s."""
        url = self._stack.api_url()
        if url is None:
            raise OrchctlError("the demo's server is not running")
        with PrefectApi(url=url) as api:
            deadline, before = time.monotonic() + 10, -1
            while True:
                lines = api.logs(flow_run_id)
                if (lines and len(lines) == before) or time.monotonic() > deadline:
                    return lines
                before = len(lines)
                time.sleep(1)

    def command(self) -> str:
        """Return how a person runs `orchctl` on what `--keep` left."""
        places = ["--config", str(self.root / "config"), "--state-dir", str(self.root / "state")]
        return shlex.join(self._legacy.argv(self.root, [sys.executable, "-m", "orchctl", *places]))

    def ending(self) -> str:
        """Return the shell line that ends and removes what `--keep` left."""
        return " && ".join([f"{self.command()} host down", *self._legacy.remove_by_hand(), f"rm -r {self.root}"])

    @property
    def ui_url(self) -> str | None:
        """Address of Prefect's UI, None where the server is not running."""
        url = self._stack.api_url()
        return url.removesuffix("/api") if url else None

    def leftovers(self) -> Mapping[int, str]:
        """Return the processes that still have the folder in their environment or command, by pid."""
        mark, found = str(self.root).encode(), {}
        for path in Path("/proc").glob("[0-9]*"):
            if int(path.name) in {os.getpid(), *self._legacy.own_pids}:
                continue
            try:
                command = (path / "cmdline").read_bytes()
                if mark in (path / "environ").read_bytes() or mark in command:
                    found[int(path.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue  # it ended, or is another user's
        return found

    def stop(self) -> None:
        """Stop server, worker and timers, whatever state they are in. Repeatable."""
        self._legacy.remove()
        for name in reversed(self._stack.names()):
            self._stack.stop(name, patience_s=10)
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Remove the folder, and the demo's systemd. Repeatable."""
        self._legacy.remove()
        shutil.rmtree(self.root, ignore_errors=True)

    @staticmethod
    def sleep(seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    @staticmethod
    def monotonic() -> float:
        """The monotonic clock, seconds."""
        return time.monotonic()
