"""One request to the Prefect API: transport, retries, and every failure turned into one of our own errors.

No message holds a secret: URLs are shown without user information, and whatever the server says is scrubbed
of the credentials in use before it is quoted.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from orchctl.adapters import prefect_parse as parsing
from orchctl.adapters.prefect_parse import one_line
from orchctl.errors import PrefectApiError, PrefectRejected, PrefectUnauthorized, PrefectUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

PAGE = 200
"""Rows a page: the most that a Prefect server gives unless its owner raised the limit."""

_REREADS = 5
_BACKOFF_BASE = 0.2
_BACKOFF_CAP = 5.0
_RETRY_AFTER_CAP = 30.0
_DETAIL_CHARACTERS = 300
_BUSY = frozenset({429, 502, 503, 504})
# The request was not carried out. A 502 or 504 comes from a proxy, which may have passed it on.
_TURNED_AWAY = frozenset({429, 503})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_OUR_FAULT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
# uvicorn drops idle connections after 5 s; a connection older than this is not used again, so that no request
# meets a closing one and is lost in a way that looks as if it had been received.
_KEEPALIVE_SECONDS = 2.0
# What a request may take without spending patience: the answer of a server that is well.
_PROMPT_SECONDS = 0.25

_T = TypeVar("_T")
_E = TypeVar("_E", bound=BaseException)


class PrefectHttp:
    """A connection to one Prefect API, for one thread. A context manager; `close` may be called twice.

    `url` is the API's address (`http://127.0.0.1:4200/api`); user information in it is sent as basic auth.
    `auth_string` ("user:password") goes before user information in the URL, and both before `api_key` (a
    bearer token); None or "" means none. `verify` is whether to verify TLS certificates, or the path of a
    bundle of authorities. `connect_timeout` and `read_timeout` are seconds; the latter bounds each wait for
    bytes, not the whole answer. `attempts` is how often a request is sent at most. `patience` bounds the whole:
    the seconds that all requests together may take beyond a quarter of a second each, whatever the server or the
    resolver does; once it is spent, every request raises PrefectUnreachable at once. None: no bound.

    Raises PrefectUnreachable if the URL or the bundle cannot be used, PrefectUnauthorized if the key cannot.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, and each is one thing that a test or a user sets
        self,
        *,
        url: str,
        auth_string: str | None = None,
        api_key: str | None = None,
        verify: bool | str = True,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        attempts: int = 5,
        patience: float | None = None,
    ) -> None:
        self._address = parsing.parse_address(url)
        credentials = parsing.credentials(auth_string or self._address.userinfo, api_key)
        self._secrets = credentials.secrets + self._address.secrets
        self._timeouts = (connect_timeout, read_timeout)
        self._sleep = sleep
        self._jitter = jitter
        self._attempts = max(1, attempts)
        self._patience, self._left = patience, patience
        self.clock_offset_s: float | None = None
        """How far the server's clock was ahead of ours in its last answer, in seconds; None: it did not say."""
        try:
            self._client = httpx.Client(
                base_url=self.shown,
                headers={"User-Agent": "orchctl", "Accept": "application/json", **credentials.headers},
                verify=_tls(verify, https=self._address.https),
                timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
                limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
                trust_env=not self._address.loopback,
                transport=transport,
                event_hooks={"response": [self._heard]},
            )
        except (httpx.InvalidURL, ValueError, ImportError):
            # Not chained: the cause may quote the URL of a proxy, password included.
            raise PrefectUnreachable(
                f"cannot reach the Prefect API at {self.shown}: the address, or a proxy named in the "
                "environment, is not usable",
                hint="check PREFECT_API_URL, HTTP_PROXY, HTTPS_PROXY and ALL_PROXY",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def shown(self) -> str:
        """The address of the API, without user information and without a slash at the end."""
        return self._address.shown

    def _heard(self, response: httpx.Response) -> None:
        told = parsing.date(response.headers)
        if told is not None:
            self.clock_offset_s = told.timestamp() - time.time()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        ok404: bool = False,
        repeatable: bool | None = None,
        done_if: int | None = None,
    ) -> Any:
        """Send one request and return the decoded answer; None for an empty one (204).

        With `ok404`, None also if the object does not exist. `repeatable` says whether it may be sent again
        after it may have been received; None means: for GET, PATCH, DELETE and the reading POSTs. Any
        request is sent again if it cannot have been carried out (no connection, 503, 429). `done_if` is the
        status which after a repetition means that an earlier one had worked. Waits between attempts are
        0.2 s, doubled up to 5 s, times jitter, or the server's Retry-After in seconds up to 30 s.

        Raises PrefectUnreachable, PrefectUnauthorized, PrefectRejected, PrefectApiError.
        """
        again = _reads_or_replaces(method, path) if repeatable is None else repeatable
        return self._in_time(lambda: self._request(method, path, json, again=again, ok404=ok404, done_if=done_if))

    def _in_time(self, send: Callable[[], Any]) -> Any:
        """Return what `send` does, or raise PrefectUnreachable where that takes longer than there is patience.

        In a thread that is left to itself then: no time-out of httpx bounds a slow resolver, or an answer that
        trickles in.
        """
        if self._left is None:
            return send()
        done: list[Any] = []
        failed: list[BaseException] = []

        def call() -> None:
            try:
                done.append(send())
            except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that asked
                failed.append(error)

        if self._left == 0:
            raise self._given_up()
        begun = time.monotonic()
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(self._left + _PROMPT_SECONDS)
        took = time.monotonic() - begun
        alive = thread.is_alive()
        self._left = 0.0 if alive else max(0.0, min(self._left, self._left + _PROMPT_SECONDS - took))
        if failed:
            raise failed[0]
        if not done:
            raise self._given_up()
        return done[0]

    def _request(self, method: str, path: str, json: Any, *, again: bool, ok404: bool, done_if: int | None) -> Any:
        for attempt in range(self._attempts):
            if attempt and self._left == 0:
                raise self._given_up()  # nobody waits for it any more: it must not be done some time later
            last = attempt + 1 == self._attempts
            try:
                response = self._client.request(method, path, json=json)
            except httpx.TransportError as exc:
                if last or not _worth_repeating(exc, repeatable=again):
                    raise self._lost(exc, repeatable=again) from exc
                self._pause(attempt, None)
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise self.foreign("the answer cannot be decoded") from exc
            status = response.status_code
            if not last and status in (_BUSY if again else _TURNED_AWAY):
                self._pause(attempt, parsing.retry_after(response.headers))
            elif attempt and status == done_if:
                return None
            else:
                return self._answer(response, f"{method} {path}", ok404=ok404, repeatable=again)
        raise AssertionError("the last attempt returns or raises")

    def listing(self, path: str, filters: Mapping[str, Any], *, sorts: tuple[str, ...]) -> list[Mapping[str, Any]]:
        """Return every row of a `/paginate` endpoint, each once, in ceil(rows / 200) requests (at least one).

        A listing that changed between its pages is read again, up to five times, with the next of `sorts`:
        where an order has ties, a database may break them differently on each page, every time. Give an order
        first in which new rows come first: then an insertion cannot make up for a deletion unseen.

        Raises PrefectApiError if the listing kept changing, and what `request` raises.
        """
        for attempt in range(_REREADS + 1):
            rows = self._read_pages(path, {**filters, "sort": sorts[attempt % len(sorts)]})
            if rows is not None:
                return rows
            if attempt < _REREADS:
                self._pause(attempt, None)
        raise PrefectApiError(
            f"the listing {path} of the Prefect API at {self.shown} kept changing while it was read",
            hint="try again when fewer deployments or runs are being made",
        )

    def shaped(self, parse: Callable[[Any], _T], data: Any) -> _T:
        """Return `parse(data)`. Raises PrefectUnreachable if the data is not what Prefect sends."""
        try:
            return parse(data)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise self.foreign("an answer has not the expected shape") from exc

    def foreign(self, why: str) -> PrefectUnreachable:
        """Return the error for an answer that no Prefect API gives."""
        return PrefectUnreachable(
            f"{self.shown} did not answer like a Prefect API: {why}",
            hint="check PREFECT_API_URL: it names Prefect's API and usually ends in /api",
        )

    def _read_pages(self, path: str, body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
        """Return all rows, or None if the pages do not fit together."""
        rows: dict[str, Mapping[str, Any]] = {}
        total, page = 0, 0
        while page == 0 or page * PAGE < total:
            page += 1
            answer = self.request("POST", path, {**body, "limit": PAGE, "page": page})
            count, results = self.shaped(parsing.page, answer)
            expected = min(PAGE, count - (page - 1) * PAGE)
            if (page > 1 and count != total) or len(results) != expected:
                return None
            total = count
            rows.update(results)
        return list(rows.values()) if len(rows) == total else None

    def _pause(self, attempt: int, told: float | None) -> None:
        delay: float = min(_BACKOFF_CAP, _BACKOFF_BASE * 2**attempt) * self._jitter()
        self._sleep(delay if told is None else min(told, _RETRY_AFTER_CAP))

    def _given_up(self) -> PrefectUnreachable:
        return PrefectUnreachable(
            f"cannot reach the Prefect API at {self.shown}: no answer within {self._patience:g} s",
            hint="it is not waited for any longer here; try again later",
        )

    def _lost(self, exc: httpx.TransportError, *, repeatable: bool) -> PrefectUnreachable:
        hint = "check PREFECT_API_URL; without it, `orchctl host up` starts a server on this host"
        if _in_chain(exc, ssl.SSLError):
            hint = "check that PREFECT_API_URL should be https, and PREFECT_API_SSL_CERT_FILE"
        elif not repeatable and not isinstance(exc, _NEVER_SENT):
            hint = "the server may have done it all the same: look before you repeat it"
        reason = _transport_reason(exc, *self._timeouts)
        return PrefectUnreachable(f"cannot reach the Prefect API at {self.shown}: {reason}", hint=hint)

    def _answer(self, response: httpx.Response, call: str, *, ok404: bool, repeatable: bool) -> Any:
        status = response.status_code
        if status == 204:
            return None
        try:
            data = response.json()
        except (ValueError, RecursionError) as exc:
            if 200 <= status < 300:
                raise self.foreign("the answer is not JSON, or torn") from exc
            raise self._refusal(response, None, call, repeatable=repeatable) from exc
        if 200 <= status < 300:
            return data
        if status == 404 and ok404 and not _route_missing(data):
            return None
        raise self._refusal(response, data, call, repeatable=repeatable)

    def _refusal(
        self, response: httpx.Response, data: Any, call: str, *, repeatable: bool
    ) -> PrefectApiError | PrefectUnauthorized:
        """Return the error for an answer that is not a success; `data` is None if it was not JSON."""
        status, shown = response.status_code, self.shown
        detail = self.quoted(parsing.detail(data) or response.reason_phrase)
        if 300 <= status < 400:
            target = self.quoted(parsing.bare_url(response.headers.get("location", "")))
            return self.foreign(f"it redirects to {target or 'nowhere'}, which is not followed")
        if status in {401, 403}:
            return PrefectUnauthorized(
                f"the Prefect API at {shown} refuses this user (HTTP {status}: {detail})",
                hint="set PREFECT_API_AUTH_STRING to user:password, or PREFECT_API_KEY",
            )
        if status in _BUSY:
            unsure = not repeatable and status not in _TURNED_AWAY
            hint = "the server may have done it all the same: look before you repeat it" if unsure else None
            return PrefectUnreachable(
                f"the Prefect API at {shown} is up but busy (HTTP {status})", hint=hint or "try again later"
            )
        if status in {405, 501} or (status < 500 and (data is None or _route_missing(data))):
            return self.foreign(f"{one_line(call)} is unknown there (HTTP {status})")
        if 400 <= status < 500:
            return PrefectRejected(f"the Prefect API refused {one_line(call)} (HTTP {status}): {detail}", status=status)
        return PrefectApiError(
            f"the Prefect API at {shown} failed at {one_line(call)} (HTTP {status}): {detail}",
            hint="the server's log says why",
        )

    def quoted(self, text: str) -> str:
        """Return what the server said: one line, no credentials, 300 characters at most."""
        # Scrubbed before it is cut, lest the cut leave half a secret that no longer matches.
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = one_line(text)
        return text if len(text) <= _DETAIL_CHARACTERS else text[: _DETAIL_CHARACTERS - 1] + "…"


def _reads_or_replaces(method: str, path: str) -> bool:
    return method in {"GET", "PATCH", "DELETE"} or path.endswith(("/filter", "/paginate", "/count"))


def _worth_repeating(exc: httpx.TransportError, *, repeatable: bool) -> bool:
    if isinstance(exc, _OUR_FAULT) or _in_chain(exc, ssl.SSLCertVerificationError):
        return False
    return repeatable or isinstance(exc, _NEVER_SENT)


def _route_missing(data: Any) -> bool:
    """Whether a 404 says that the path is unknown (a wrong address), not that an object is missing."""
    return not isinstance(data, dict) or data == {"detail": "Not Found"}


def _tls(verify: bool | str, *, https: bool) -> ssl.SSLContext | bool:
    """Return what httpx verifies with. Raises PrefectUnreachable if the bundle cannot be read."""
    if isinstance(verify, str):
        try:
            return ssl.create_default_context(cafile=verify)
        except OSError as exc:
            reason = "it holds no certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
            raise PrefectUnreachable(
                f"cannot use the TLS authorities in {one_line(verify)}: {reason}",
                hint="check PREFECT_API_SSL_CERT_FILE",
            ) from exc
    if verify and not https:
        # Loading the default authorities takes 20 ms; this context trusts nobody, so it cannot do harm.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return verify


def _transport_reason(exc: httpx.TransportError, connect_timeout: float, read_timeout: float) -> str:
    """Say in a few words why a request was lost. The time-outs are seconds."""
    tls, system = _in_chain(exc, ssl.SSLError), _in_chain(exc, OSError)
    reason = "the connection was cut"
    if isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout):
        reason = f"no connection within {connect_timeout:g} s"
    elif isinstance(exc, httpx.TimeoutException):
        reason = f"no answer within {read_timeout:g} s"
    elif tls is not None:
        why = getattr(tls, "verify_message", None) or getattr(tls, "reason", None) or "no agreement"
        reason = f"TLS failed ({one_line(why)})"
    elif _in_chain(exc, socket.gaierror):
        reason = "the host name is not known"
    elif _in_chain(exc, ConnectionRefusedError):
        reason = "connection refused"
    elif isinstance(exc, httpx.ConnectError | httpx.ProxyError):
        reason = f"no connection ({system.strerror})" if system and system.strerror else "no connection"
    elif isinstance(exc, _OUR_FAULT):
        reason = "the request cannot be sent"
    return reason


def _in_chain(exc: BaseException, kind: type[_E]) -> _E | None:
    """Return the first of an error and its causes that is of this kind, or None."""
    return next((each for each in _chain(exc) if isinstance(each, kind)), None)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
