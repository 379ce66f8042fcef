"""Receivers of alerts on loopback: HTTP and SMTP, with TLS and logins, that answer as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchctl.adapters.local_stack import free_port

USER, PASSWORD = "orchctl", "s3cr3t-passw0rd"


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], certificate: Path | None = None, *, port: int = 0) -> Iterator[str]:
    """Run an HTTP server on 127.0.0.1 and yield its address; with a certificate (and its key in the same file) behind
    TLS.
    """

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that refuses our certificate, or has stopped waiting, is no news."""

    server = Server(("127.0.0.1", port), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Http:
    """An HTTP receiver. `answers` are the statuses to come, then `status`; `delay` is how long it takes for each.

    What it has received it keeps, whether or not somebody waits for its answer.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list)
    status: int = 200
    delay: float = 0.0
    trickle: bool = False
    body: str = "ok"
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    @property
    def got(self) -> list[Any]:
        """What was taken."""
        return [body for method, _, body in self.asked if method == "POST"]

    def of(self, job: str, event: str) -> list[Any]:
        """Return what a generic webhook took of an event of a job."""
        return [each for each in self.got if (each["job"], each["event"]) == (job, event)]


@contextlib.contextmanager
def http(certificate: Path | None = None, *, port: int = 0) -> Iterator[Http]:
    """Run an HTTP receiver; see `serving`."""
    receiver = Http()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, content: bytes | None) -> None:
            status = receiver.answers.pop(0) if receiver.answers else receiver.status
            body = json.loads(content) if content is not None else None
            receiver.asked.append((self.command if status == 200 else f"{self.command} {status}", self.path, body))
            time.sleep(receiver.delay)
            said = receiver.body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            for byte in said:
                self.wfile.write(bytes([byte]))
                if receiver.trickle:
                    self.wfile.flush()
                    time.sleep(0.4)

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                super().handle()

    with serving(Handler, certificate, port=port) as receiver.url:
        yield receiver


@dataclass
class Mail:
    """An SMTP receiver. `refuse` are the answers to come to DATA, then `always` where there is one, else it is taken.

    `delay` is how long it takes for that answer, `pause` for each one before it; `mails` are what was taken, whether or
    not somebody waits for the answer.
    """

    port: int = 0
    refuse: list[str] = field(default_factory=list)
    always: str | None = None
    delay: float = 0.0
    pause: float = 0.0
    mails: list[EmailMessage] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        refused = self.refuse.pop(0) if self.refuse else self.always
        if refused is not None:
            await asyncio.sleep(self.delay)
            return refused
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.secured.append(session.ssl is not None)
        await asyncio.sleep(self.delay)
        return "250 OK: taken"

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        await asyncio.sleep(self.pause)
        session.host_name = hostname
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self.pause)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self.pause)
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    def about(self, words: str) -> list[str]:
        """Return the texts of the mails whose subject holds these words."""
        return [text_of(mail) for mail in self.mails if words in str(mail["Subject"])]


def text_of(mail: EmailMessage) -> str:
    """Return what a mail says, as it was given to the sender."""
    return str(mail.get_content()).replace("\r\n", "\n").strip()


@contextlib.contextmanager
def smtp(
    certificate: Path | None = None, *, login: bool = False, tls: bool = False, port: int | None = None
) -> Iterator[Mail]:
    """Run an SMTP receiver: with a certificate it offers STARTTLS and insists on it; `tls`: TLS from the start."""
    mail = Mail()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        mail.logins.append(data.login.decode())
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=right)

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    words: dict[str, Any] = {"authenticator": check, "auth_required": True} if login else {}
    if tls:
        words |= {"ssl_context": context}
    elif context is not None:
        words |= {"tls_context": context, "require_starttls": True}
    mail.port = port or free_port()
    controller = Controller(mail, hostname="127.0.0.1", port=mail.port, **words)
    controller.start()
    try:
        yield mail
    finally:
        controller.stop()


def certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 that signs itself, and its key, into one file; return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orchctl tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
