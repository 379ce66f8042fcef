"""What Loki's push API takes: lines, each with its time and what it is of, in streams with few labels. Pure.

A label makes a stream, and Loki keeps each stream apart: so run ids are none. They go along as structured metadata, or
at the beginning of each line. Loki takes two lines of one stream with the same time and text for one: no two have the
same time here, and a push that is repeated doubles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

Kind = Literal["log", "event"]
PUSH = "/loki/api/v1/push"
_OVERHEAD = 150
"""Bytes of a line's time and metadata in a push, about."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or an event as JSON. `at`: nanoseconds since 1970. `about` says what it is of: the run, the step, …"""

    at: int
    kind: Kind
    text: str
    about: Mapping[str, str]

    @property
    def weight(self) -> int:
        """Bytes that it takes in a push, about."""
        return len(self.text.encode("utf-8", "replace")) + _OVERHEAD


@dataclass(frozen=True, slots=True)
class Address:
    """Where to push to. `auth` is user and password, None: none are needed."""

    url: str
    auth: tuple[str, str] | None


def address_of(text: str) -> Address:
    """Return where to push to by the address of a Loki, or of something in front of it with a path of its own.

    Raises ValueError, which quotes nothing of it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("the address is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the address is no http or https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = host if port is None else f"{host}:{port}"
    path = parts.path if parts.path.rstrip("/").endswith("/push") else parts.path.rstrip("/") + PUSH
    auth = None
    if parts.username is not None or parts.password is not None:
        auth = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Address(urlunsplit((parts.scheme, where, path, parts.query, "")), auth)


def payload(lines: Iterable[Line], labels: Mapping[str, str], *, structured: bool) -> bytes:
    """Return the JSON body of one push."""
    streams: dict[str, list[list[object]]] = {}
    for line in lines:
        values = streams.setdefault(line.kind, [])
        if structured:
            values.append([str(line.at), line.text, dict(line.about)])
        else:
            values.append([str(line.at), f"{_logfmt(line.about)} {line.text}" if line.kind == "log" else line.text])
    found = [{"stream": dict(labels) | {"kind": kind}, "values": values} for kind, values in streams.items()]
    body = {"streams": found}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _logfmt(about: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in about.items())
