"""Receivers of alerts on free ports of 127.0.0.1: one that takes JSON by HTTP, one that takes mail by SMTP."""

from __future__ import annotations

import contextlib
import email
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class Hook:
    """What came by HTTP, in order; `status` is what is answered."""

    url: str = ""
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def of(self, job: str, event: str) -> list[dict[str, Any]]:
        """Return what came of an event of a job."""
        return [each for each in self.got if (each["job"], each["event"]) == (job, event)]


@contextlib.contextmanager
def hook() -> Iterator[Hook]:
    """Yield a receiver that listens."""
    found = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked += 1
            if found.status < 300:
                found.got.append(json.loads(content))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/services/T000/B000/not-to-be-seen"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Mailbox:
    """What came by SMTP, in order."""

    host: str = "127.0.0.1"
    port: int = 0
    got: list[Mail] = field(default_factory=list)

    def about(self, words: str) -> list[str]:
        """Return the texts of the mails whose subject holds these words."""
        return [_text(mail) for mail in self.got if words in str(mail["Subject"])]


def _text(mail: Mail) -> str:
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


class _Keeps:
    def __init__(self, box: Mailbox) -> None:
        self._box = box

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self._box.got.append(email.message_from_bytes(envelope.content))
        return "250 OK"


@contextlib.contextmanager
def mailbox(port: int) -> Iterator[Mailbox]:
    """Yield a receiver that listens on a port."""
    found = Mailbox(port=port)
    controller = Controller(_Keeps(found), hostname=found.host, port=port)
    controller.start()
    try:
        yield found
    finally:
        controller.stop()
