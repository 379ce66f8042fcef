"""One message by SMTP: with STARTTLS, with TLS from the start, or with neither; with a login where one is named."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from orchctl.adapters.authorities import Authorities, NoAuthority
from orchctl.core.alerts import Channel
from orchctl.core.deliveries import Letter

GOODBYE_S = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What the server said. `again`: whether the same may be taken later."""

    ok: bool
    said: str
    again: bool = False


def send(channel: Channel, letter: Letter, *, trust: Authorities, password: str | None, timeout: float) -> Sent:
    """Send a letter once; `timeout` is seconds for each answer of the server. Never raises, never falls back to less
    security than the channel asks for.
    """
    try:
        return _sent(channel, letter, trust, password, timeout)
    except ssl.SSLError as error:  # first: one that does not verify is a ValueError too
        why = getattr(error, "verify_message", None) or error.reason or "the handshake failed"
        return Sent(False, f"TLS was refused: {why}")
    except (smtplib.SMTPException, ValueError) as error:
        return _refused(error)
    except TimeoutError:
        return Sent(False, f"no answer within {timeout:.0f} s", again=True)
    except OSError as error:
        return Sent(False, f"no connection: {error.strerror or type(error).__name__}", again=True)


def _refused(error: Exception) -> Sent:
    """Return what an error of the protocol says. 4xx means: not now; 5xx: not at all."""
    match error:
        case smtplib.SMTPAuthenticationError():
            sent = Sent(False, f"the login is refused: {_words(error)}", again=_for_now(error.smtp_code))
        case smtplib.SMTPServerDisconnected():
            sent = Sent(False, "the server broke off", again=True)
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
            sent = Sent(False, f"the message cannot be sent: {type(error).__name__}")
    return sent


def _sent(channel: Channel, letter: Letter, trust: Authorities, password: str | None, timeout: float) -> Sent:
    context = trust.of(channel.ca_file) if channel.security != "none" else None
    # Our own name: what smtplib would find out by itself asks the resolver, which may take long.
    name = socket.gethostname()
    if channel.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(channel.host, channel.port, name, timeout=timeout, context=context)
    else:
        server = smtplib.SMTP(channel.host, channel.port, name, timeout=timeout)
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
    mail["Subject"] = letter.message.subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    # The same in every attempt: a receiver that has it already can tell.
    mail["Message-ID"] = f"<{letter.id}@orchctl.{socket.gethostname()}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.message.text + "\n")
    return mail


def _for_now(code: int) -> bool:
    return 400 <= code < 500


def _recipients(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{who}: {code} {_text(text)}" for who, (code, text) in refused.items())


def _words(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_text(error.smtp_error)}"


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
