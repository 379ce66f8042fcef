"""The text of the watchdog's unit pair. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchctl.core.legacy import Scope
from orchctl.core.unit_text import literal, quoted

SERVICE = "orchctl-watchdog.service"
TIMER = "orchctl-watchdog.timer"
TIMEOUT_S = 55
"""A look is over before the next one begins: what takes longer is stopped. A look bounds itself to less."""
RUNTIME = "orchctl-watchdog"
"""The folder below /run that systemd keeps for it: in memory, for when the disk is full."""
_MADE_BY = "# orchctl: written by `orchctl watchdog install`, removed by `orchctl watchdog uninstall`."

# Of no use to what looks and sends. Those that need a mount namespace are the system's alone: a user's manager can make
# none on every kernel.
_HARDENED = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures=native",
)
_HARDENED_SYSTEM = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "PrivateDevices=yes",
)


@dataclass(frozen=True, slots=True)
class Watch:
    """What the unit runs. `argv`: an absolute program and its words. `user` None: whose manager it is.

    `env_files` may be missing when it starts. `writes` are the only folders that it may write.
    """

    argv: Sequence[str]
    scope: Scope
    user: str | None = None
    env_files: Sequence[str] = ()
    writes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TimerState:
    """How the timer stands: whether its files are there, whether systemd has it active, and how the last look ended
    (`success`, `timeout`, `exit-code`, …; None: it has not run since the boot). `unknown`: why systemd does not say.
    """

    manager: str
    installed: bool = False
    active: bool = False
    result: str | None = None
    unknown: str | None = None


def service(watch: Watch) -> str:
    """Return the service. Raises ValueError for what no unit file can say."""
    system = watch.scope == "system"
    program, *words = watch.argv
    lines = [
        _MADE_BY,
        "[Unit]",
        "Description=Look at Prefect, its workers and this host, and tell what is wrong",
        # It starts every minute: that is no reason to stop starting it.
        "StartLimitIntervalSec=0",
        "[Service]",
        "Type=oneshot",
        *([f"User={watch.user}"] if system and watch.user is not None else []),
        f"Environment=TMPDIR=%t/{RUNTIME}",
        *(f"EnvironmentFile=-{_plain(path)}" for path in watch.env_files),
        f"ExecStart=:{quoted(program)} {' '.join(map(quoted, words))}",
        # Something is wrong, was not delivered now, or somebody looks by hand: no failure of the unit.
        "SuccessExitStatus=3 4 11",
        f"TimeoutStartSec={TIMEOUT_S}",
        f"RuntimeDirectory={RUNTIME}",
        "RuntimeDirectoryMode=0700",
        "RuntimeDirectoryPreserve=yes",
        "UMask=0077",
        "MemoryMax=512M",
        "TasksMax=64",
        *_HARDENED,
        *(_HARDENED_SYSTEM if system else ()),
        *(f"ReadWritePaths=-{_word(path)}" for path in watch.writes if system),
    ]
    return "\n".join(lines) + "\n"


def timer() -> str:
    """Return the timer: every minute, and at once after a time in which the host was off."""
    return "\n".join(
        (
            _MADE_BY,
            "[Unit]",
            "Description=Look at Prefect, its workers and this host every minute",
            "[Timer]",
            "OnCalendar=*-*-* *:*:00",
            "Persistent=true",
            "AccuracySec=1s",
            "[Install]",
            "WantedBy=timers.target",
            "",
        )
    )


def _plain(path: str) -> str:
    """Return a path for a setting that is one path to the end of its line, which systemd does not unquote."""
    if any(char in path for char in "*?["):
        raise ValueError(f"{path} holds a character that systemd takes for a pattern")
    return literal(path)


def _word(path: str) -> str:
    """Return a path for a setting that is a list of words."""
    return quoted(path) if any(char in path for char in ' "\\') else literal(path)
