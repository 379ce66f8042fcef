"""Sends messages: to a Slack webhook, to any webhook as JSON, by SMTP. Bounded in time, and it never raises.

A message that was not taken is sent again at once, a few times, where that may help: after a refused connection, 429, a
5xx, or a 4xx of SMTP. Never after a TLS handshake that failed or a refused login: those stay wrong. Nor where all of it
was sent and no answer came: it may have arrived. When the time is over the connection is closed, so that nothing is
delivered that counts as not sent.
No answer that is returned holds a secret, or the path of a webhook's address.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchctl.adapters import alert_secrets
from orchctl.adapters.authorities import Authorities, NoAuthority
from orchctl.adapters.deadline import Deadline
from orchctl.core.alerts import Channel, Message, Secret
from orchctl.core.deliveries import Answer, Fault, Letter
from orchctl.core.mask import Masker
from orchctl.core.names import visible
from orchctl.errors import OrchctlError

if TYPE_CHECKING:
    import ssl

    import httpx

ATTEMPTS = 4
"""How often a message is sent, at most, in one go."""
_BACKOFF_BASE_S = 0.5
_BACKOFF_CAP_S = 4.0
_SHORTEST_S = 0.2
_GRACE_S = 1.0
"""For the answer of a connection that has just been closed."""
_SAID_MOST = 200
_READ_MOST = 4096
_BUSY = frozenset({408, 425, 429})
_THIS_MESSAGE = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class _Try:
    """One attempt. `wait` is what the receiver asked to be left alone for, in seconds; `fault` is that of `Answer`."""

    ok: bool
    said: str
    again: bool = False
    wait: float | None = None
    fault: Fault | None = None


class Senders:
    """Sends. `environment` holds the secrets that channels name by variable.

    `trust` are users (uids) whose files, those of secrets and of authorities, count as ours.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        trust: Collection[int] = (),
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._environment, self._trust = environment, trust
        self._sleep = sleep
        self._jitter = jitter
        self._web, self._mail = Authorities(trust), Authorities(trust)

    def send_all(
        self, letters: Mapping[str, Sequence[Letter]], channels: Mapping[str, Channel], *, within_s: float
    ) -> dict[str, tuple[Answer, ...]]:
        """Send the letters of each channel in order, the channels side by side; return an answer for each letter.

        All of it takes no longer than `within_s`. Where a channel does not take a letter, those after it are not sent:
        they get the same answer, with no attempts. One that it refuses for what it is holds up no other.
        """
        works = {
            name: _Work(partial(self._in_order, channels[name], own, within_s=within_s))
            for name, own in letters.items()
        }
        deadline = time.monotonic() + within_s
        found = {}
        for name, work in works.items():
            answers = work.answers(max(0.0, deadline - time.monotonic()) + _GRACE_S)
            found[name] = answers + self._unanswered(answers, len(letters[name]), within_s)
        return found

    @staticmethod
    def _unanswered(
        answers: tuple[Answer, ...], count: int, within_s: float, *, attempts: int = 1
    ) -> tuple[Answer, ...]:
        """Return the answers for letters that had none; `attempts`: how often the first was sent."""
        late = Answer(False, f"no answer within {within_s:g} s", attempts, again=True)
        left = count - len(answers)
        return (late, *[replace(late, attempts=0)] * (left - 1)) if left else ()

    def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
        """Send one letter, a few times where that may help; never longer than `within_s`."""
        return self.send_all({channel.name: [letter]}, {channel.name: channel}, within_s=within_s)[channel.name][0]

    def ping(self, url: Secret, *, within_s: float) -> Answer:
        """Ask for an address that somebody watches: GET, and any 2xx is well."""

        def call(masker: Callable[[str], str], address: str, left: float) -> _Try:
            return self._http("GET", address, None, masker, within_s=left, ca_file=None)

        work = _Work(lambda found: found.append(self._with_url(url, call, within_s)))
        answers = work.answers(within_s + _GRACE_S)
        return (answers or self._unanswered((), 1, within_s))[0]

    def _in_order(self, channel: Channel, letters: Sequence[Letter], found: list[Answer], *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for letter in letters:
            last = found[-1] if found else None
            left = deadline - time.monotonic()
            if last is not None and not last.ok and last.fault != "message":
                found.append(replace(last, attempts=0, fault=None))
            elif last is not None and left < _SHORTEST_S:
                found += self._unanswered((), 1, within_s, attempts=0)
            else:
                found.append(self._one(channel, letter, max(_SHORTEST_S, left)))

    def _one(self, channel: Channel, letter: Letter, within_s: float) -> Answer:
        if channel.kind == "email":
            return self._email(channel, letter, within_s)
        if channel.url is None:
            return Answer(False, f"channel {channel.name} names no address")
        content = _slack(letter.told) if channel.kind == "slack" else _webhook(letter)

        def call(masker: Callable[[str], str], address: str, left: float) -> _Try:
            timeout = min(float(channel.timeout), left)
            return self._http("POST", address, content, masker, within_s=timeout, ca_file=channel.ca_file)

        return self._with_url(channel.url, call, within_s)

    def _with_url(
        self, url: Secret, call: Callable[[Callable[[str], str], str, float], _Try], within_s: float
    ) -> Answer:
        try:
            address = alert_secrets.read(url, self._environment, trust=self._trust)
        except OrchctlError as error:
            return Answer(False, error.message)
        masker = Masker(alert_secrets.parts(address))
        return self._repeated(lambda left: call(masker.mask, address, left), within_s)

    def _repeated(self, call: Callable[[float], _Try], within_s: float) -> Answer:
        deadline = time.monotonic() + within_s
        for attempt in range(1, ATTEMPTS + 1):
            tried = call(max(_SHORTEST_S, deadline - time.monotonic()))
            wait = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** (attempt - 1)) * (0.5 + self._jitter() / 2)
            wait = wait if tried.wait is None else max(wait, tried.wait)
            enough = attempt == ATTEMPTS or time.monotonic() + wait + _SHORTEST_S >= deadline
            if tried.ok or not tried.again or tried.fault is not None or enough:
                return Answer(tried.ok, tried.said, attempt, tried.again, tried.fault)
            self._sleep(wait)
        raise AssertionError("the last attempt returns")

    def _http(
        self,
        method: str,
        address: str,
        content: bytes | None,
        mask: Callable[[str], str],
        *,
        within_s: float,
        ca_file: str | None,
    ) -> _Try:
        import httpx

        # identity: a small answer must not unfold to a large one.
        headers = {
            "User-Agent": "orchctl",
            "Accept-Encoding": "identity",
            **({"Content-Type": "application/json"} if content is not None else {}),
        }
        with Deadline(within_s) as deadline:
            request = _Watched(deadline)
            try:
                parts = urlsplit(address)
                far = parts.hostname not in {"127.0.0.1", "::1", "localhost"}
                trust = self._web.of(ca_file) if parts.scheme == "https" else _nobody()
                words: dict[str, Any] = {"content": content, "headers": headers, "extensions": {"trace": request.trace}}
                with (
                    httpx.Client(timeout=within_s, verify=trust, trust_env=far) as client,
                    client.stream(method, address, **words) as answer,
                ):
                    body = _beginning(answer)
            except NoAuthority as error:
                return _Try(False, str(error))
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                if deadline.over:
                    lost = _Try(False, f"no answer within {within_s:.0f} s", again=True)
                else:
                    lost = _lost(error, within_s)
                return replace(lost, fault="silence") if lost.again and request.posted else lost
        status = answer.status_code
        said = _shown(f"{status} {answer.reason_phrase} {body.decode('utf-8', 'replace')}", mask)
        busy = status in _BUSY or status >= 500
        fault: Fault | None = "message" if status in _THIS_MESSAGE else None
        return _Try(answer.is_success, said, again=busy, wait=_retry_after(answer) if busy else None, fault=fault)

    def _email(self, channel: Channel, letter: Letter, within_s: float) -> Answer:
        from orchctl.adapters import smtp

        try:
            password = None
            if channel.password is not None:
                password = alert_secrets.read(channel.password, self._environment, trust=self._trust)
        except OrchctlError as error:
            return Answer(False, error.message)
        masker = Masker(_login_parts(channel.username, password))

        def call(left: float) -> _Try:
            timeout = min(float(channel.timeout), left)
            sent = smtp.send(channel, letter, trust=self._mail, password=password, timeout=timeout, within_s=left)
            return _Try(sent.ok, _shown(sent.said, masker.mask), again=sent.again, fault=sent.fault)

        return self._repeated(call, within_s)


class _Watched:
    """A request of httpx whose connection is closed at a deadline. `posted`: all of a message was sent."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self.posted = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear what httpx is at: https://www.python-httpx.org/advanced/extensions/#trace."""
        if event.endswith(".connect_tcp.complete"):
            self._deadline.watch(info["return_value"].get_extra_info("socket"))
        elif event.endswith(".receive_response_headers.started"):
            self.posted = info["request"].method == b"POST"  # before it there may be a CONNECT, to a proxy


class _Work:
    """Work in a thread of its own, which ends at its deadline but for a slow resolver: nothing stops one. What is
    connected only then is closed at once. `do` adds each answer to the list that it is given.
    """

    def __init__(self, do: Callable[[list[Answer]], None]) -> None:
        self._found: list[Answer] = []

        def run() -> None:
            try:
                do(self._found)
            except Exception as error:  # noqa: BLE001 - whatever it was, it must not take the other channels down
                self._found.append(Answer(False, f"unexpected {type(error).__name__}", 1))

        self._thread = threading.Thread(target=run, name="orchctl-send", daemon=True)
        self._thread.start()

    def answers(self, within_s: float) -> tuple[Answer, ...]:
        """Return the answers that there are when it is done, or the time is over."""
        self._thread.join(within_s)
        return tuple(self._found)


def _beginning(answer: httpx.Response) -> bytes:
    """Return the beginning of a body, as far as it came: what the receiver did its status says already."""
    import httpx

    body = b""
    with contextlib.suppress(httpx.HTTPError):
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) >= _READ_MOST:
                break
    return body[:_READ_MOST]


def _slack(message: Message) -> bytes:
    # What Slack reads as markup: https://api.slack.com/reference/surfaces/formatting#escaping
    text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": text}).encode()


def _webhook(letter: Letter) -> bytes:
    message = letter.told
    said = {"id": letter.id, "subject": message.subject, "text": message.text, **message.to_json()}
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _nobody() -> ssl.SSLContext:
    """Return what trusts nobody, for an address without TLS: to read the authorities of the system takes long."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _lost(error: Exception, timeout: float) -> _Try:
    """Say why there was no answer. In our own words: those of others may quote the address."""
    import httpx

    if _in_chain(error, "SSLError"):
        return _Try(False, f"TLS was refused: {_certificate(error)}")
    if isinstance(error, httpx.TimeoutException):
        return _Try(False, f"no answer within {timeout:.0f} s", again=True)
    if isinstance(error, httpx.ConnectError):
        return _Try(False, f"no connection: {_reason(error)}", again=True)
    if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol):
        return _Try(False, "the connection broke off before there was an answer", again=True)
    return _Try(False, "the address cannot be used: it is no https:// or http:// one")


def _reason(error: BaseException) -> str:
    for each in _chain(error):
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return "refused, or the name of the host is not known"


def _certificate(error: BaseException) -> str:
    for each in _chain(error):
        found = getattr(each, "verify_message", None) or getattr(each, "reason", None)
        if found:
            return str(found)
    return "the handshake failed"


def _in_chain(error: BaseException, name: str) -> bool:
    return any(name in {kind.__name__ for kind in type(each).__mro__} for each in _chain(error))


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _login_parts(username: str | None, password: str | None) -> list[str]:
    """Return what of a login is secret, also as AUTH PLAIN sends it."""
    return [] if password is None else [password, f"\0{username or ''}\0{password}"]


def _shown(text: str, mask: Callable[[str], str]) -> str:
    return visible(" ".join(mask(text).split()))[:_SAID_MOST]
