"""A Prefect server and workers as background processes of this host, found and stopped by pid.

Each is written down in `state/host/<name>.json` with its pid and the start of that process, so that a pid that
was given to somebody else by now is never taken for ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchctl.adapters import accounts, doctor_sockets, files, host_facts
from orchctl.core import host_settings
from orchctl.core.host_settings import LOOPBACK
from orchctl.core.installation import API_URL, DATABASE, DATABASES
from orchctl.errors import GateRefused, NotAllowed, OrchctlError

SERVER = "server"
_WORKER = "worker-"
_POLL_S = 0.05
_FOLLOW_S = 0.5
_REAP_S = 5.0
_LOG_BYTES = 10 * 2**20
"""A log that is larger when its process starts makes room for a new one."""
_REACHED = frozenset({LOOPBACK, "0.0.0.0", "::"})  # noqa: S104 (not listened on, but told apart)
# A process that is started in the background of a script inherits "ignore SIGINT", and a worker passes SIGTERM on to
# itself as SIGINT: it could not be stopped. What must not be interrupted itself ignores SIGTERM too.
_WITH_SIGNALS = (
    "import os, signal, sys; [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM)]; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class LocalStack:
    """The processes that `orchctl host up` keeps. `environment` is what they inherit.

    `trust` is a user whose records count as ours, for who only looks.
    """

    def __init__(self, state_dir: Path, environment: Mapping[str, str], *, trust: int | None = None) -> None:
        self._trust = trust
        self._directory = state_dir / "host"
        self._state_dir = state_dir
        self._environment = environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start_server(self, port: int, *, database: str | None = None, services: bool = True) -> str:
        """Start the server on 127.0.0.1 and return its API's address; port 0 takes a free one.

        `database` is the URL of another database than this stack's own; without `services` it only answers, and
        schedules and marks nothing. Returns at once: whether it serves is seen by asking it.
        Raises GateRefused where the port is taken, or the state directory is another host's.
        """
        self._refuse_another_host_s(SERVER)
        port = free_port() if port == 0 else port
        if not is_free(port):
            raise GateRefused(
                f"port {port} of {LOOPBACK} is taken by another program",
                hint=f"stop it, name another port with --port, or point orchctl at it: PREFECT_API_URL=http://{LOOPBACK}:{port}/api",
            )
        url = host_settings.api_url(port)
        files.make_directory(self._home(), mode=0o700)
        files.remove(Path(host_settings.stale_lock(str(self._home()))))
        database = database or host_settings.sqlite(str(self._home()))
        # The state directory: alerts go through a block of ours, in the server's process.
        state = {"ORCHCTL_STATE_DIR": str(self._state_dir)}
        settings = {**host_settings.SERVER, **state, DATABASE: database, API_URL: url}
        argv = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
        argv += [] if services else ["--no-services"]
        self._start(SERVER, argv, settings, {"api_url": url})
        return url

    def start_worker(self, pool: str, api_url: str, *, limit: int) -> None:
        """Start a worker for a pool that runs at most `limit` flow runs at a time.

        Returns at once: whether it polls is seen in the API, under the name `worker_name`. Raises GateRefused where the
        state directory is another host's.
        """
        self._refuse_another_host_s(f"{_WORKER}{pool}")
        argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        argv += ["--name", self.worker_name(pool), "--limit", str(limit)]
        settings = {**host_settings.WORKER, API_URL: api_url, "ORCHCTL_STATE_DIR": str(self._state_dir)}
        self._start(f"{_WORKER}{pool}", argv, settings, {"pool": pool})

    @staticmethod
    def worker_name(pool: str) -> str:
        """Return the name under which this host's worker of a pool polls."""
        return f"{socket.gethostname()}-{pool}"

    def _refuse_another_host_s(self, name: str) -> None:
        """Raise GateRefused where another host has started this: it may run there, on the same database."""
        path = self._record(name)
        record = files.read_json(path, trust=self._trust)
        there = record.get("hostname") if isinstance(record, dict) else None
        if there not in {None, socket.gethostname()}:
            raise GateRefused(
                f"{name} of {self._state_dir} was started on {there}, and may run there",
                hint=f"give this host a state directory of its own: --state-dir DIR; if it was renamed, remove {path}",
            )

    def _home(self) -> Path:
        return self._state_dir / "prefect"

    def _start(self, name: str, argv: list[str], settings: Mapping[str, str], facts: Mapping[str, Any]) -> None:
        files.make_directory(self._directory, mode=0o700)
        # The server's database is this stack's own, whichever the shell names; a worker and its jobs need none.
        left_out = DATABASES if name == SERVER else host_settings.SERVER_ONLY
        inherited = {key: value for key, value in self._environment.items() if key not in left_out}
        environment = {**inherited, host_settings.HOME: str(self._home()), **settings}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._rotate(name)
        with os.fdopen(os.open(self.log_path(name), flags, 0o600), "ab") as log:
            try:
                # cwd: Prefect looks for a prefect.toml and a .env where it starts.
                process = subprocess.Popen(
                    [sys.executable, "-c", _WITH_SIGNALS, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=self._directory,
                    start_new_session=True,
                    # The database is nobody else's to read. A worker's runs write data that others may read.
                    umask=0o077 if name == SERVER else -1,
                )
            except OSError as error:
                raise OrchctlError(f"cannot start {name}: {error.strerror}") from error
        self._children[name] = process
        started = host_facts.started_ticks(process.pid)
        place = {"hostname": socket.gethostname(), "boot_id": host_facts.boot_id()}
        record = {"pid": process.pid, "pid_started": started, **place, **facts}
        files.write_atomic(self._record(name), files.dump(record), mode=0o600)

    def _rotate(self, name: str) -> None:
        """Give a log that has become large another name, in place of the one that had it before."""
        path = self.log_path(name)
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(path).st_size > _LOG_BYTES:
                path.replace(path.with_name(f"{path.name}.1"))

    def stop(self, name: str, *, patience_s: float) -> bool:
        """Stop a process: SIGTERM, after `patience_s` seconds SIGKILL to its whole session. Repeatable.

        Returns whether it was running.
        """
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            while self.pid(name) is not None and time.monotonic() < deadline:
                self._reap(name, 0.0)
                time.sleep(_POLL_S)
            # Also where it went by itself: what it started and left behind is in its session.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._reap(name, _REAP_S)
        self._record(name).unlink(missing_ok=True)
        return pid is not None

    def _reap(self, name: str, patience_s: float) -> None:
        """Collect the process if it is a child of ours and has ended, so that it does not stay as a zombie."""
        child = self._children.get(name)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=patience_s)

    def pid(self, name: str) -> int | None:
        """Return the pid of a process that is running, None where it is not."""
        record = files.read_json(self._record(name), trust=self._trust)
        if not isinstance(record, dict) or record.get("boot_id") != host_facts.boot_id():
            return None
        pid = record.get("pid")
        alive = isinstance(pid, int) and host_facts.started_ticks(pid) == record.get("pid_started")
        return pid if alive and isinstance(pid, int) else None

    def alive(self, name: str) -> bool:
        """Whether a process is running."""
        return self.pid(name) is not None

    def names(self) -> tuple[str, ...]:
        """Return the names of the processes that were started and not stopped, running or not; the server first."""
        # Other files of this folder are not about processes: the records of an installation and of backups.
        records = self._directory.glob("*.json") if self._directory.is_dir() else ()
        found = sorted(path.stem for path in records if path.stem == SERVER or path.stem.startswith(_WORKER))
        return tuple(sorted(found, key=lambda name: name != SERVER))

    def guards(self) -> int:
        """Return how many guards of runs of this state directory are at work."""
        mark, found = f"ORCHCTL_STATE_DIR={self._state_dir}".encode(), 0
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"orchctl.runner.guard" in (path / "cmdline").read_bytes():
                    found += mark in (path / "environ").read_bytes().split(b"\0")
        return found

    def api_url(self) -> str | None:
        """Return the address of the server that was started here and not stopped, None where there is none."""
        record = files.read_json(self._record(SERVER), trust=self._trust)
        return record.get("api_url") if isinstance(record, dict) else None

    def port_is_anothers(self) -> bool:
        """Whether it is seen that another program than the server of this stack listens where it should."""
        url = self.api_url()
        return url is not None and another_listens(host_settings.port_of(url), self.pid(SERVER))

    def log_path(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self._directory / f"{name}.log"

    def log_tail(self, name: str) -> str:
        """Return the last lines of a process's output."""
        try:
            return "\n".join(self.log_path(name).read_text(errors="replace").splitlines()[-8:])
        except OSError:
            return ""

    def logs(self, names: Sequence[str], *, last: int, follow: bool) -> Iterator[bytes]:
        """Yield the last lines of the output of each process; `follow`: and those that come, until it is closed."""
        with contextlib.ExitStack() as opened:
            logs = []
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    logs.append(opened.enter_context(self.log_path(name).open("rb")))
            for log in logs:
                yield from deque(log, maxlen=last)
            while follow:
                news = [line for log in logs for line in log]
                yield from news
                if not news:
                    time.sleep(_FOLLOW_S)

    def _record(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of 127.0.0.1. Raises NotAllowed where we may not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError as error:
            raise NotAllowed(f"port {port} is root's to listen on", hint="name one from 1024 on with --port") from error
        except OSError:
            return False
        return True


def another_listens(port: int | None, pid: int | None) -> bool:
    """Whether it is seen that a port of 127.0.0.1 is not listened on by the server with this pid (None: it has none).

    False where nobody says: which sockets a process has is seen of one's own processes only, of others whose they are.
    """
    if port is None:
        return False
    try:
        found = [each for each in doctor_sockets.listeners(port) if each.address in _REACHED]
        owner = accounts.user_name(os.stat(f"/proc/{pid}").st_uid) if pid is not None else None
    except (OrchctlError, OSError):
        return False
    return bool(found) and not any(each.owner == owner if each.pid is None else _leads(pid, each.pid) for each in found)


def _leads(pid: int | None, other: int) -> bool:
    """Whether a process leads the session of another: what systemd, or we, started, and its children."""
    try:
        return os.getsid(other) == pid
    except OSError:
        return True
