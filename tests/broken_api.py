"""Servers on a loopback port that are no Prefect API, or a sick one: what a rollback must not wait for."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

KINDS = (
    "closed",
    "deaf",
    "hung",
    "503",
    "500",
    "reset",
    "garbage",
    "torn",
    "html",
    "slow",
    "trickling",
    "unauthorised",
)


@contextlib.contextmanager
def api(kind: str) -> Iterator[str]:
    """Yield the address of an API that fails in this way."""
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
    if kind == "closed":
        server.close()
        yield url
        return
    if kind == "deaf":  # connections wait in the kernel, and nobody takes them up
        with server:
            yield url
        return
    ended = threading.Event()
    held: list[socket.socket] = []

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                held.append(connection)
                threading.Thread(target=_answer, args=(connection, kind, ended), daemon=True).start()

    server.settimeout(0.1)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        ended.set()
        thread.join()
        server.close()
        for connection in held:
            connection.close()


def _answer(connection: socket.socket, kind: str, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            if kind == "hung":
                ended.wait()
            elif kind == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            elif kind == "slow":
                ended.wait(1.5)
                connection.sendall(_ANSWERS["slow"]())
            elif kind == "trickling":
                # One byte of a header a moment: each wait for bytes is short, and all together never end.
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Wait: ")
                while not ended.is_set():
                    connection.sendall(b".")
                    time.sleep(0.05)
            else:
                connection.sendall(_ANSWERS[kind]())


def _response(status: str, body: str, *, length: int | None = None, kind: str = "application/json") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n{body}".encode()


_ANSWERS: dict[str, Callable[[], bytes]] = {
    "503": lambda: _response("503 Service Unavailable", "{}"),
    "500": lambda: _response("500 Internal Server Error", '{"exception_message": "broken"}'),
    "garbage": lambda: b"\x00\xff not HTTP at all\r\n\r\n",
    "torn": lambda: _response("200 OK", '{"id": "x', length=500) + b"",
    "html": lambda: _response("200 OK", "<html>hello</html>", kind="text/html"),
    "slow": lambda: _response("404 Not Found", '{"detail": "Deployment not found"}'),
    "unauthorised": lambda: _response("401 Unauthorized", '{"exception_message": "Unauthorized"}'),
}
