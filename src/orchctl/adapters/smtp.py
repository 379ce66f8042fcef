"""One message by SMTP: with STARTTLS, with TLS from the start, or with neither; with a login where one is named."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from orchctl.adapters.authorities import Authorities, NoAuthority
from orchctl.adapters.deadline import Deadline
from orchctl.core.alerts import Channel
from orchctl.core.deliveries import Fault, Letter

GOODBYE_S = 1.0
_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class Sent:
    """What the server said. `again`: whether the same may be taken later; `fault` is that of `Answer`."""

    ok: bool
    said: str
    again: bool = False
    fault: Fault | None = None


class _Line:
    """A connection that is shut at a deadline. `whole`: all of a mail was sent, and the server has only to say so."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.whole = False


class _Smtp(smtplib.SMTP):
    def __init__(self, line: _Line, channel: Channel, name: str, timeout: float) -> None:
        self._line = line
        super().__init__(channel.host, channel.port, name, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        self._line.deadline.watch(connection)
        return connection

    def send(self, s: Any) -> None:
        super().send(s)
        self._line.whole = self._line.whole or (isinstance(s, bytes) and s.endswith(_END))


class _SmtpSsl(smtplib.SMTP_SSL, _Smtp):
    def __init__(self, line: _Line, channel: Channel, name: str, timeout: float, context: ssl.SSLContext) -> None:
        self._line = line
        smtplib.SMTP_SSL.__init__(self, channel.host, channel.port, name, timeout=timeout, context=context)


def send(
    channel: Channel, letter: Letter, *, trust: Authorities, password: str | None, timeout: float, within_s: float
) -> Sent:
    """Send a letter once; `timeout` is seconds for each answer of the server, `within_s` for all of it. Never raises,
    never falls back to less security than the channel asks for.
    """
    with Deadline(within_s) as deadline:
        line = _Line(deadline)
        try:
            return _sent(channel, letter, line, trust, password, timeout)
        except (smtplib.SMTPException, ValueError, OSError) as error:
            if deadline.over:
                lost = Sent(False, f"no answer within {within_s:.0f} s", again=True)
            else:
                lost = _lost(error, timeout)
            gone = isinstance(error, (smtplib.SMTPServerDisconnected, OSError))
            # smtplib's own errors are OSErrors too, and those that quote an answer tell that there was one.
            answered = isinstance(error, (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused))
            return replace(lost, fault="silence") if line.whole and gone and not answered else lost


def _lost(error: Exception, timeout: float) -> Sent:
    if isinstance(error, ssl.SSLError):  # first: one that does not verify is a ValueError too
        why = getattr(error, "verify_message", None) or error.reason or "the handshake failed"
        return Sent(False, f"TLS was refused: {why}")
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return Sent(False, f"no answer within {timeout:.0f} s", again=True)
    if isinstance(error, (smtplib.SMTPException, ValueError)):
        return _refused(error)
    reason = error.strerror if isinstance(error, OSError) else None
    return Sent(False, f"no connection: {reason or type(error).__name__}", again=True)


def _refused(error: Exception) -> Sent:
    """Return what an error of the protocol says. 4xx means: not now; 5xx: not at all."""
    match error:
        case smtplib.SMTPAuthenticationError():
            again = _for_now(error.smtp_code)
            sent = Sent(False, f"the login is refused: {_words(error)}", again=again, fault=None if again else "login")
        case smtplib.SMTPServerDisconnected():
            sent = Sent(False, "the server broke off", again=True)
        case smtplib.SMTPDataError() if not _for_now(error.smtp_code):
            sent = Sent(False, _words(error), fault="message")
        case smtplib.SMTPResponseException():
            sent = Sent(False, _words(error), again=_for_now(error.smtp_code))
        case smtplib.SMTPRecipientsRefused():
            again = any(_for_now(code) for code, _ in error.recipients.values())
            sent = Sent(False, f"no recipient is taken: {_recipients(error.recipients)}", again=again)
        case smtplib.SMTPNotSupportedError():
            sent = Sent(False, f"the server cannot do what the channel asks for: {error}")
        case NoAuthority():
            sent = Sent(False, str(error))
        case _:
            # A header or an address that cannot be written: the same every time.
            sent = Sent(False, f"the message cannot be sent: {type(error).__name__}", fault="message")
    return sent


def _sent(
    channel: Channel, letter: Letter, line: _Line, trust: Authorities, password: str | None, timeout: float
) -> Sent:
    # Our own name: what smtplib would find out by itself asks the resolver, which may take long.
    name = socket.gethostname()
    context = trust.of(channel.ca_file) if channel.security != "none" else None
    if channel.security == "tls" and context is not None:
        server: smtplib.SMTP = _SmtpSsl(line, channel, name, timeout, context)
    else:
        server = _Smtp(line, channel, name, timeout)
    try:
        if channel.security == "starttls":
            server.starttls(context=context)
        if channel.username is not None:
            server.login(channel.username, password or "")
        refused = server.send_message(_mail(channel, letter))
    finally:
        # What was taken is taken, whatever the goodbye comes to.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            if server.sock is not None:
                server.sock.settimeout(GOODBYE_S)
                server.quit()
        server.close()
    return Sent(True, f"250 taken, but not for {_recipients(refused)}" if refused else "250 taken")


def _mail(channel: Channel, letter: Letter) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.to)
    mail["Subject"] = letter.told.subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    # The same in every attempt: a receiver that has it already can tell.
    mail["Message-ID"] = f"<{letter.id}@orchctl.{socket.gethostname()}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.told.text + "\n")
    return mail


def _for_now(code: int) -> bool:
    return 400 <= code < 500


def _recipients(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{who}: {code} {_text(text)}" for who, (code, text) in refused.items())


def _words(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_text(error.smtp_error)}"


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
