"""Who listens on a port of this host: /proc/net/tcp and tcp6, and the processes that hold those sockets."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchctl.adapters import accounts
from orchctl.core import doctor_net
from orchctl.core.doctor_facts import Listener
from orchctl.core.doctor_net import Socket
from orchctl.errors import OrchctlError

_PREFECT = b"prefect"


def listeners(port: int, *, proc: Path = Path("/proc")) -> tuple[Listener, ...]:
    """Return the sockets that wait for connections to `port`, by address. Raises OrchctlError where nobody says."""
    found = [each for each in _sockets(proc) if each.port == port]
    holders = _holders({each.inode for each in found}, proc)
    listed = (_listener(each, holders.get(each.inode), proc) for each in found)
    return tuple(sorted(listed, key=lambda each: (each.address, each.pid or 0)))


def _sockets(proc: Path) -> list[Socket]:
    found: list[Socket] = []
    try:
        found += doctor_net.listening((proc / "net" / "tcp").read_text())
    except OSError as error:
        raise OrchctlError(f"the sockets of this host cannot be looked at: {error.strerror}") from error
    with contextlib.suppress(OSError):  # there is none where IPv6 is off
        found += doctor_net.listening((proc / "net" / "tcp6").read_text())
    return found


def _holders(inodes: set[str], proc: Path) -> dict[str, int]:
    """Return which process holds each socket, the oldest where several do; of another user's nobody says."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    if not wanted:
        return found
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):
        with contextlib.suppress(OSError):
            for entry in os.scandir(proc / str(pid) / "fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(entry.path))
                    if inode is not None:
                        found.setdefault(inode, pid)
        if len(found) == len(wanted):
            break
    return found


def _listener(each: Socket, pid: int | None, proc: Path) -> Listener:
    owner = accounts.user_name(each.uid)
    if pid is None:
        return Listener(each.address, each.port, owner, None, None, None)
    try:
        # Its command line may hold secrets: only whether it is Prefect's is taken from it.
        command = (proc / str(pid) / "cmdline").read_bytes()
        name = (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return Listener(each.address, each.port, owner, pid, None, None)
    return Listener(each.address, each.port, owner, pid, name, _PREFECT in command)
