"""The units of `orchctl host install`: their texts, and what has to change on a host. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchctl.core import host_settings
from orchctl.core.backup import RESTORING
from orchctl.core.env_file import parse
from orchctl.core.installation import (
    RECOVER_TIMER,
    RECOVER_UNIT,
    SERVER_UNIT,
    Installation,
    worker_unit,
)
from orchctl.core.mask import Masker
from orchctl.core.unit_text import literal, quoted
from orchctl.errors import ExitCode

MARK = "# orchctl: `orchctl host install` made this, and makes it anew; for changes use `systemctl edit`"
BACKOFF_FROM = 254
"""The systemd that knows RestartSteps=."""
# Restarts 5 s apart never come to this: it ends a loop that somebody else makes.
_START_LIMIT = ["StartLimitIntervalSec=60", "StartLimitBurst=20"]
# On SQLite it grows with its connections, two files and up to 80 MB each (docs/performance.md). No MemoryHigh=: without
# swap that would hold a grown server at a crawl, in which nothing is scheduled and nothing restarted. One that is
# killed is back in seconds and loses no slot. Without a file left it would go on, unable to do anything.
_SERVER_LIMITS = ["MemoryMax=1536M", "LimitNOFILE=65536"]
# The jobs are in the same group: this keeps them from taking the host along, and no more.
_WORKER_MEMORY = ["MemoryHigh=85%", "MemoryMax=95%"]
_HARDENED = ["NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes"]
_SYSTEM_HARDENED = ["ProtectSystem=full", "ProtectKernelTunables=yes", "ProtectKernelModules=yes"]
_LOOK_EVERY_S = 30
PRIVILEGED = 1024
"""Below it only root, and who is given the right, may listen on a port."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file to write: `before` None where there is none. `private`: for its owner alone, and shown masked."""

    path: str
    before: str | None
    after: str
    private: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the file is as it should be."""
        return self.before == self.after

    def diff(self) -> str:
        """Return the difference as a unified diff, secrets masked; empty where there is none."""
        masker = Masker.of(_values(self.before), _values(self.after)) if self.private else Masker(())
        before, after = (masker.mask(text or "").splitlines(keepends=True) for text in (self.before, self.after))
        if self.private and before == after and not self.is_empty:
            return f"--- {self.path}\n+++ {self.path}\n a secret changes\n"
        source = "/dev/null" if self.before is None else self.path
        return "".join(difflib.unified_diff(before, after, source, self.path))


def _values(text: str | None) -> dict[str, str]:
    return parse((text or "").encode())


def header(state_dir: str) -> str:
    """Return the lines that tell a unit of an installation from any other."""
    return f"{MARK}\n# state directory: {state_dir}\n"


def is_ours(text: str, state_dir: str) -> bool:
    """Whether a unit's text was made by the installation of this state directory."""
    return text.startswith(header(state_dir))


def worker_units(installation: Installation) -> dict[str, str]:
    """Return the unit of each pool's worker, by pool."""
    return {pool: worker_unit(pool, installation.pools) for pool in installation.pools}


def enabled(installation: Installation) -> tuple[str, ...]:
    """Return the units that start at boot, in the order in which they are started."""
    server = (SERVER_UNIT,) if installation.server else ()
    return (*server, *worker_units(installation).values(), RECOVER_TIMER)


def texts(installation: Installation, *, systemd: int) -> dict[str, str]:
    """Return the text of each unit by its name, for this version of systemd, in the order they are written.

    Raises ValueError for a path or name that no unit file can hold.
    """
    workers = worker_units(installation)
    server = {SERVER_UNIT: _server(installation, systemd)} if installation.server else {}
    return {
        **server,
        **{unit: _worker(installation, pool, systemd) for pool, unit in workers.items()},
        RECOVER_UNIT: _recover(installation),
        RECOVER_TIMER: _recover_timer(installation),
    }


def _server(its: Installation, systemd: int) -> str:
    port = host_settings.port_of(its.api_url)
    command = ["prefect", "server", "start", "--host", host_settings.LOOPBACK, "--port", str(port)]
    system = its.scope == "system"
    return _unit(
        its,
        "Prefect's API, scheduler and UI",
        # postgresql.service: only the order, where there is one.
        [*(["After=network.target postgresql.service"] if system else []), _whole(its)],
        [
            # The state directory: alerts go through a block of ours, in the server's process.
            *_common(
                its, {**host_settings.SERVER, host_settings.UI: f"{its.home}/ui", "ORCHCTL_STATE_DIR": its.state_dir}
            ),
            f"ExecStartPre=-:/bin/rm -f {quoted(host_settings.stale_lock(its.home))}",
            f"ExecStart=:{_words(its, *command)}",
            # What comes after this unit is started when the API answers, not when the process is there.
            f"ExecStartPost=:{_orchctl(its, 'host', 'unit', 'ready')}",
            "TimeoutStartSec=300",
            "TimeoutStopSec=30",
            # Its children have nothing to do without it, and one that was left would hold the port.
            "KillMode=mixed",
            *_restart(systemd),
            *_SERVER_LIMITS,
            *_HARDENED,
            *(["AmbientCapabilities=CAP_NET_BIND_SERVICE"] if system and is_privileged(port) else []),
            *([*_SYSTEM_HARDENED, f"ReadWritePaths={quoted(its.state_dir)}"] if system else []),
            "UMask=0077",
        ],
    )


def _worker(its: Installation, pool: str, systemd: int) -> str:
    command = ["prefect", "worker", "start", "--pool", pool, "--type", "process"]
    # %H: the name under which the server knows this host's worker.
    words = f'{_words(its, *command)} "--name" "%H-{literal(pool)}" "--limit" "{its.pools[pool]}"'
    order = [f"Wants={SERVER_UNIT}", f"After={SERVER_UNIT}"] if its.server else []
    if its.scope == "system":
        order += ["Wants=network-online.target", "After=network-online.target"]
    return _unit(
        its,
        f"Prefect worker of pool {pool}",
        [*order, _whole(its)],
        [
            *_common(its, {**host_settings.WORKER, "ORCHCTL_STATE_DIR": its.state_dir}),
            f"UnsetEnvironment={' '.join(host_settings.SERVER_ONLY)}",
            # "-": a server that is away is the worker's to wait for, again and again.
            f"ExecStartPre=-:{_orchctl(its, 'host', 'unit', 'before-worker', pool)}",
            f'ExecStart=:{words} "--install-policy" "never"',
            f"ExecStopPost=-:{_orchctl(its, 'host', 'unit', 'after-worker')}",
            "TimeoutStartSec=180",
            "TimeoutStopSec=60",
            # Only the worker is signalled. Told to stop, it kills its flow runs itself, and their guards, which are in
            # this unit's group, then end the commands and tell the server: mixed would kill the guards first. Killed,
            # it leaves its flow runs to go on: mixed would kill them and their commands too.
            "KillMode=process",
            # For the same reason a restart does not end what runs.
            "RestartKillSignal=SIGKILL",
            # A command that takes too much memory is that run's failure, and no reason to stop the others.
            "OOMPolicy=continue",
            *_restart(systemd),
            *_WORKER_MEMORY,
            "NoNewPrivileges=yes",
        ],
    )


def _whole(its: Installation) -> str:
    """Return what keeps a unit from starting on a host that is half restored: a boot must not, either.

    Without `owners` Prefect only observes while timers are off, and without its database the server makes an empty one.
    """
    return f"ConditionPathExists=!{literal(f'{its.state_dir}/host/{RESTORING}')}"


def is_privileged(port: int | None) -> bool:
    """Whether only root, and who is given the right, may listen on a port."""
    return port is not None and 0 < port < PRIVILEGED


def _recover(its: Installation) -> str:
    lines = [
        *_common(its, {"ORCHCTL_STATE_DIR": its.state_dir}, kind="oneshot"),
        f"UnsetEnvironment={' '.join(host_settings.SERVER_ONLY)}",
        f"ExecStart=:{_orchctl(its, 'host', 'unit', 'recover')}",
        # A server that is away is the server's fault, and its part of `host status` says so.
        f"SuccessExitStatus={ExitCode.PREFECT.value}",
        "TimeoutStartSec=60",
        "NoNewPrivileges=yes",
        # Twice a minute systemd would fill the journal with its coming and going; what it says itself is shown.
        "LogLevelMax=notice",
        "SyslogLevel=notice",
    ]
    return _unit(its, "Runs that Prefect's worker lost", [], lines, wanted=False)


def _recover_timer(its: Installation) -> str:
    return (
        f"{header(its.state_dir)}[Unit]\nDescription=Look for runs that Prefect's worker lost\n\n"
        f"[Timer]\nOnActiveSec={_LOOK_EVERY_S}\nOnUnitInactiveSec={_LOOK_EVERY_S}\nAccuracySec=5\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _unit(
    its: Installation, description: str, order: Iterable[str], service: Iterable[str], *, wanted: bool = True
) -> str:
    target = "multi-user.target" if its.scope == "system" else "default.target"
    lines = [
        "[Unit]",
        f"Description={literal(description)}",
        *order,
        *(_START_LIMIT if wanted else []),
        "",
        "[Service]",
        *service,
        *(["", "[Install]", f"WantedBy={target}"] if wanted else []),
    ]
    return header(its.state_dir) + "\n".join(lines) + "\n"


def _common(its: Installation, environment: Mapping[str, str], *, kind: str = "exec") -> list[str]:
    """Return who runs it, where, and with which settings."""
    if any(char in its.settings for char in "*?["):
        raise ValueError(f"{its.settings} holds a character that systemd takes for a pattern")
    return [
        f"Type={kind}",
        *([f"User={literal(its.user)}"] if its.scope == "system" else []),
        # Prefect looks for a prefect.toml and a .env where it starts: nothing else writes there.
        f"WorkingDirectory={literal(its.home)}",
        *(f"Environment={quoted(f'{key}={value}')}" for key, value in environment.items()),
        f"EnvironmentFile={literal(its.settings)}",
    ]


def _restart(systemd: int) -> list[str]:
    if systemd < BACKOFF_FROM:
        return ["Restart=always", "RestartSec=5"]
    return ["Restart=always", "RestartSec=2", "RestartSteps=5", "RestartMaxDelaySec=30"]


def _words(its: Installation, *words: str) -> str:
    return " ".join(map(quoted, (its.python, "-m", *words)))


def _orchctl(its: Installation, *words: str) -> str:
    return " ".join(map(quoted, (its.python, "-P", "-m", "orchctl", "--state-dir", its.state_dir, *words)))


def to_restart(installation: Installation, files: Iterable[FileChange]) -> frozenset[str]:
    """Return the units that these changes concern, of those that run: a setting concerns what it reaches."""
    found: set[str] = set()
    workers = set(worker_units(installation).values())
    for change in files:
        if change.is_empty or change.before is None:
            continue
        if not change.private:
            found.add(change.path.rpartition("/")[2])
            continue
        before, after = _values(change.before), _values(change.after)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        found |= workers if any(map(host_settings.concerns_worker, changed)) else set()
        found |= {SERVER_UNIT} if changed else set()
    return frozenset(found & set(enabled(installation)))


def moves(files: Iterable[FileChange]) -> bool:
    """Whether these changes lead an installed server to another database."""
    was, now, _ = _databases(files)
    return was is not None and was != now


def to_try(files: Iterable[FileChange]) -> dict[str, str] | None:
    """Return the settings of a server that these changes lead to a database elsewhere, None where they do not."""
    was, now, settings = _databases(files)
    return settings if now not in {was, None, host_settings.sqlite(settings.get(host_settings.HOME, ""))} else None


def _databases(files: Iterable[FileChange]) -> tuple[str | None, str | None, dict[str, str]]:
    """Return the database that the settings name before these changes, the one after, and all that they hold then."""
    found = next((change for change in files if change.private), None)
    before, after = (_values(found.before), _values(found.after)) if found is not None else ({}, {})
    return host_settings.named_database(before), host_settings.named_database(after), after
