"""A small receiver of Loki's push API on 127.0.0.1, which a test lets be slow, refuse or say nothing."""

from __future__ import annotations

import gzip
import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from receivers import serving


@dataclass
class Receiver:
    """What was pushed. `statuses` are those of the next answers, then `always`; `hold` keeps answers back until set."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    always: int = 204
    hold: threading.Event | None = None
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def values(self) -> list[tuple[dict[str, str], list[Any]]]:
        """What was taken: the labels and the value of each line, in order."""
        found = []
        for _, _, body in self.requests:
            for stream in body["streams"]:
                found += [(stream["stream"], value) for value in stream["values"]]
        return found

    def texts(self, kind: str = "log") -> list[str]:
        return [value[1] for labels, value in self.values if labels["kind"] == kind]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts("event")]

    @property
    def user_and_password(self) -> str:
        return b64decode(self.requests[0][1]["Authorization"].removeprefix("Basic ")).decode()


@contextmanager
def receiver(*, certificate: Path | None = None) -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            packed = self.rfile.read(int(self.headers["Content-Length"]))
            if made.hold is not None:
                made.hold.wait(30)
            status = made.statuses.pop(0) if made.statuses else made.always
            if status == 204:
                body = json.loads(gzip.decompress(packed))
                made.requests.append((self.path, dict(self.headers), body))
            said = b"" if status == 204 else b"entry too far behind\nand more"
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            return None

    with serving(Handler, certificate) as made.url:
        try:
            yield made
        finally:
            if made.hold is not None:
                made.hold.set()
