"""Channels of every kind with real receivers behind them, as `alerts.toml` names them: well, or broken in every way."""

from __future__ import annotations

import contextlib
import html
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import receivers
from orchctl.adapters.local_stack import free_port
from receivers import PASSWORD, USER, Http, Mail, text_of

KINDS = ("slack", "webhook", "email")
OUTAGES = ("down", "slow", "500", "tls")


@dataclass
class Channels:
    """Receivers by the name of their channel. `tables` are those of `[channels]`; secrets are in files of `folder`."""

    folder: Path
    stack: ExitStack
    receivers: dict[str, Http | Mail] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.certificate = receivers.certificate(self.folder)

    def add(self, name: str, kind: str, *, port: int | None = None, tls: bool = False, listens: bool = True) -> None:
        """Add a channel of a kind; one that does not listen does from `listen` on."""
        port = port or free_port()
        if kind == "email":
            table = {"host": "127.0.0.1", "port": port, "from": "box@example.org", "to": ["ops@example.org"]}
            table |= {"username": USER, "password_file": self.secret("password", PASSWORD)}
        else:
            path = f"/services/{name}/not-to-be-seen"
            table = {"url_file": self.secret(name, f"http{'s' if tls else ''}://127.0.0.1:{port}{path}")}
        trust = {"ca_file": str(self.certificate)} if tls or kind == "email" else {}
        self.tables[name] = {"kind": kind, **table, **trust}
        if listens:
            self.listen(name, kind, port, tls=tls)

    def listen(self, name: str, kind: str, port: int, *, tls: bool = False) -> None:
        if kind == "email":
            receiver: Any = receivers.smtp(self.certificate, login=True, port=port)
        else:
            receiver = receivers.http(self.certificate if tls else None, port=port)
        self.receivers[name] = self.stack.enter_context(receiver)

    def secret(self, name: str, content: str) -> str:
        """Write a secret for its owner alone; return its path."""
        path = self.folder / f"secret-{name}"
        path.touch(0o600)
        path.write_text(content)
        return str(path)

    def texts(self) -> dict[str, list[str]]:
        """Return the texts that each channel took, in order."""
        return {name: _texts(self.receivers.get(name), table) for name, table in self.tables.items()}

    def heads(self) -> dict[str, list[str]]:
        """Return the first lines of these, without the host that they end with."""
        return {
            name: [text.splitlines()[0].rpartition(" on ")[0] for text in texts] for name, texts in self.texts().items()
        }

    def distinct(self) -> dict[str, list[str]]:
        """Return the same, but once each where a receiver takes a message and is too slow to say so: it gets it again,
        for nobody can know.
        """
        found = self.heads().items()
        return {name: list(dict.fromkeys(heads)) if name.endswith("-slow") else heads for name, heads in found}


def _texts(receiver: Http | Mail | None, table: Mapping[str, Any]) -> list[str]:
    if receiver is None:
        return []
    if isinstance(receiver, Mail):
        return [text_of(mail) for mail in receiver.mails]
    texts = [str(body["text"]) for body in receiver.got]
    return [html.unescape(text) for text in texts] if table["kind"] == "slack" else texts


@contextlib.contextmanager
def one_of_each(folder: Path) -> Iterator[Channels]:
    """Yield a channel of each kind, named after it; mail by STARTTLS and with a login."""
    with ExitStack() as stack:
        found = Channels(folder, stack)
        for kind in KINDS:
            found.add(kind, kind)
        yield found


@contextlib.contextmanager
def broken(folder: Path) -> Iterator[tuple[Channels, Callable[[], None]]]:
    """Yield a channel of each kind broken in each way, named `slack-down` and so on, and what mends all of them."""
    (folder / "other").mkdir()
    with ExitStack() as stack:
        found = Channels(folder, stack)
        ports, trusted = dict[str, int](), list[Path]()
        for kind in KINDS:
            ports[kind] = free_port()
            found.add(f"{kind}-down", kind, port=ports[kind], listens=False)
            found.add(f"{kind}-slow", kind)
            found.add(f"{kind}-500", kind)
            found.add(f"{kind}-tls", kind, tls=True)
            trusted.append(folder / f"trusted-{kind}.pem")
            shutil.copy(receivers.certificate(folder / "other"), trusted[-1])
            found.tables[f"{kind}-tls"]["ca_file"] = str(trusted[-1])
            found.tables[f"{kind}-slow"]["timeout"] = "1s"
        _break(found)

        def mend() -> None:
            for receiver in found.receivers.values():
                receiver.delay = 0
                if isinstance(receiver, Mail):
                    receiver.always = None
                else:
                    receiver.status = 200
            for kind, port in ports.items():
                found.listen(f"{kind}-down", kind, port)
            for path in trusted:
                shutil.copy(found.certificate, path)

        yield found, mend


def _break(found: Channels) -> None:
    for name, receiver in found.receivers.items():
        if name.endswith("-slow"):
            receiver.delay = 5
        elif name.endswith("-500") and isinstance(receiver, Mail):
            receiver.always = "451 not now"
        elif name.endswith("-500") and isinstance(receiver, Http):
            receiver.status = 500
