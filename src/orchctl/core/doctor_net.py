"""/proc/net/tcp and /proc/net/tcp6, read. Pure."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from typing import NamedTuple

_LISTEN = "0A"


class Socket(NamedTuple):
    """A listening socket: the address it is bound to, whose it is, and its inode, by which a process holds it."""

    address: str
    port: int
    uid: int
    inode: str


def listening(table: str) -> Iterator[Socket]:
    """Yield the listening sockets of a table; a line that is none of the kernel's is passed over."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        try:
            yield Socket(_address(address), int(port, 16), int(fields[7]), fields[9])
        except ValueError:
            continue


def _address(text: str) -> str:
    """Return an address: the kernel writes its 32-bit words as numbers of this machine."""
    raw = bytes.fromhex(text)
    words = [raw[start : start + 4] for start in range(0, len(raw), 4)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)
