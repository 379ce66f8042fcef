"""An installed server and its workers as the stack that `host up|down|status|logs` acts on: units instead of pids."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchctl.adapters import host_facts
from orchctl.adapters.host_units import HostUnits
from orchctl.adapters.journald import Journald
from orchctl.adapters.local_stack import another_listens
from orchctl.core import host_settings, host_units
from orchctl.core.installation import RECOVER_TIMER, RECOVER_UNIT, SERVER_UNIT, Installation
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

SERVER = "server"
RECOVER = "recover"
_STOP_S = 120.0
_TRIES = 3
"""How often a unit is seen to start anew before it counts as one that does not come up."""


class UnitStack:
    """Names are those of the background stack: `server`, `worker-<pool>`; and `recover`, the timer beside them."""

    def __init__(self, units: HostUnits, installation: Installation, environment: Mapping[str, str]) -> None:
        self._units = units
        self._its = installation
        self._environment = environment
        self._restarts: dict[str, int] = {}

    def unit(self, name: str) -> str:
        """Return the unit of a part."""
        workers = {f"worker-{pool}": unit for pool, unit in host_units.worker_units(self._its).items()}
        return {SERVER: SERVER_UNIT, RECOVER: RECOVER_TIMER, **workers}[name]

    def start_server(self, port: int) -> str:  # noqa: ARG002 - it has its own
        """Begin to start the server, and return its API's address."""
        self._units.start(SERVER_UNIT)
        return self._its.api_url

    def start_worker(self, pool: str, api_url: str, *, limit: int) -> None:  # noqa: ARG002 - it has its own
        """Begin to start the worker of a pool."""
        self._units.start(self.unit(f"worker-{pool}"))
        self._units.start(RECOVER_TIMER)

    def restart(self, name: str) -> None:
        """Begin to stop a part, and to start it then."""
        self._units.restart(self.unit(name))

    @staticmethod
    def worker_name(pool: str) -> str:
        """Return the name under which this host's worker of a pool polls."""
        return f"{socket.gethostname()}-{pool}"

    def stop(self, name: str, *, patience_s: float) -> bool:
        """Stop a part and wait until it has, as long as its unit allows. Returns whether it ran. Repeatable."""
        return self._units.stop(self.unit(name), patience_s=max(patience_s, _STOP_S))

    def pid(self, name: str) -> int | None:
        """Return the main process of a part, None where none runs."""
        return self._units.state(self.unit(name)).pid

    def alive(self, name: str) -> bool:
        """Whether a part runs or is about to, and has not started anew again and again since we look."""
        state = self._units.state(self.unit(name))
        first = self._restarts[name] = min(state.restarts, self._restarts.get(name, state.restarts))
        return (state.runs or state.changes) and state.restarts < first + _TRIES

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts, the server first."""
        server = (SERVER,) if self._its.server else ()
        return (*server, *(f"worker-{pool}" for pool in self._its.pools), RECOVER)

    def guards(self) -> int:
        """Return how many guards end what their runs left: the worker's unit waits for them, and so need not we."""
        return guards_alone(self._its.state_dir)

    def api_url(self) -> str | None:
        """Return the address of the server, None where this host has only workers."""
        return self._its.api_url if self._its.server else None

    def port_is_anothers(self) -> bool:
        """Whether it is seen that another program than this host's server listens where it should."""
        return self._its.server and another_listens(host_settings.port_of(self._its.api_url), self.pid(SERVER))

    def failure(self) -> str | None:
        """Return how the last look for lost runs failed, in systemd's word; None where it did not."""
        result = self._units.state(RECOVER_UNIT).result
        return result if result not in {"", "success"} else None

    def log_path(self, name: str) -> str:
        """Return the command that shows what a part said."""
        return self._its.journal_of(self.unit(name))

    def log_tail(self, name: str) -> str:
        """Return the last lines of what a part said; nothing where they may not be read."""
        lines = list[bytes]()
        with contextlib.suppress(OrchctlError):
            lines += self.logs([name], last=8, follow=False, plain=True)
        return b"".join(lines).decode("utf-8", "replace").rstrip("\n")

    def logs(self, names: Sequence[str], *, last: int, follow: bool, plain: bool = False) -> Iterator[bytes]:
        """Yield the last lines of what parts said, `follow`: and those that come, until it is closed.

        `plain`: without the time and the unit of each. Raises NotAllowed where this user may see none of them,
        SystemdUnavailable where there is no journal.
        """
        words, matches = ["--output=cat"] if plain else ["--output=short-iso"], self._matches(names)
        words += [f"--lines={last}", *(["--follow"] if follow else [])]
        if not self._shows(matches):
            # journalctl shows nothing where it may show nothing, and says why only where it is asked for all.
            Journald(self._environment).first(self._its.manager)
        yield from _journal([*matches, *words], self._environment)

    def _shows(self, matches: Sequence[str]) -> bool:
        with contextlib.suppress(OrchctlError):
            return any(True for _ in _journal([*matches, "--output=cat", "--lines=1"], self._environment))
        return False

    def _matches(self, names: Sequence[str]) -> list[str]:
        field = "--user-unit" if self._its.scope == "user" else "--unit"
        return [f"{field}={self.unit(name).replace('.timer', '.service')}" for name in names]


def _journal(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[bytes]:
    # Its complaints in a file: a pipe that nobody reads would fill.
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                ["journalctl", "--quiet", "--no-pager", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**environment, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
            )
        except FileNotFoundError as error:
            raise SystemdUnavailable("journalctl is not installed: this host has no journal", absent=True) from error
        except PermissionError as error:
            raise NotAllowed(f"journalctl may not be run: {error.strerror}") from error
        with process:
            try:
                yield from process.stdout or ()
                failed = process.wait() != 0
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        complaints.seek(0)
        said = complaints.read().decode("utf-8", "replace").strip()
        if failed and said:
            raise OrchctlError(f"`journalctl` failed: {said.splitlines()[0]}")


def guards_alone(state_dir: str) -> int:
    """Return how many guards of this state directory's runs have lost the process that they guarded."""
    mark = f"ORCHCTL_STATE_DIR={state_dir}".encode()
    guards, carried = dict[bytes, int](), set[bytes]()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environ = (path / "environ").read_bytes().split(b"\0")
            run = next((each for each in environ if each.startswith(b"PREFECT__FLOW_RUN_ID=")), None)
            if run is None or mark not in environ or host_facts.started_ticks(int(path.name)) is None:
                continue
            if b"orchctl.runner.guard" in (path / "cmdline").read_bytes():
                guards[run] = guards.get(run, 0) + 1
            else:
                carried.add(run)
    return sum(count for run, count in guards.items() if run not in carried)
