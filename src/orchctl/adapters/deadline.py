"""The end of an attempt to send: whatever it is at, its connection is closed then.

A time-out of a socket is for one wait of many. What is left to itself would be delivered after it was given up, and
then once more.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self


class Deadline:
    """In `within_s` seconds from now. Used as a context: what it watches is let go at the end of it."""

    def __init__(self, within_s: float) -> None:
        self._end = time.monotonic() + within_s
        self._guard = threading.Lock()
        self._twins: list[socket.socket] = []
        self._timer = threading.Timer(within_s, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._guard:
            for twin in self._twins:
                twin.close()
            self._twins.clear()

    @property
    def over(self) -> bool:
        """Whether it is past."""
        return time.monotonic() >= self._end

    def watch(self, connection: socket.socket) -> None:
        """Shut a connection when it is time, also where it speaks TLS by then. Raises TimeoutError if that is now."""
        with self._guard:
            if self.over:
                connection.close()
                raise TimeoutError("connected too late")
            self._twins.append(connection.dup())

    def _shut(self) -> None:
        with self._guard:
            for twin in self._twins:
                with contextlib.suppress(OSError):
                    twin.shutdown(socket.SHUT_RDWR)
