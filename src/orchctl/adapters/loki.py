"""Grafana Loki: run logs and events are pushed beside a run, which never waits for it and never fails by it.

What is to be pushed waits in memory, bounded: where Loki is slower than a job writes, or does not answer, the oldest
goes, and how much that was is told at the end.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from orchctl.adapters import alert_secrets
from orchctl.core import loki
from orchctl.core.alerts import Secret
from orchctl.core.loki import Address, Kind, Line
from orchctl.core.mask import Masker
from orchctl.errors import OrchctlError

if TYPE_CHECKING:
    import httpx

    from orchctl.core.catalog_logs import LokiTable

MOST_LINES = 20_000
MOST_BYTES = 16 * 1024 * 1024
"""What may wait in memory."""
BATCH_LINES = 2_000
BATCH_BYTES = 512 * 1024
"""What goes in one push. Loki itself takes 4 MiB."""
FLUSH_S = 1.0
"""A line waits this long for others that go along."""
ANSWER_S = 5.0
"""For each step of one push: connecting, writing, the answer."""
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_AGAIN = frozenset({408, 425, 429})
_SAID = 200


class Loki:
    """The lines of one run on their way to Loki, from a thread of their own that begins with the first.

    `labels` are those of every stream beside the catalog's own. `trust` are users (uids) whose files count as ours.
    """

    def __init__(
        self,
        table: LokiTable,
        labels: Mapping[str, str],
        environment: Mapping[str, str],
        *,
        trust: Collection[int] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._table, self._labels = table, {**table.labels, **labels}
        self._environment, self._trust, self._clock = environment, trust, clock
        self._changed = threading.Condition()
        self._waiting: deque[Line] = deque()
        self._mask = Masker(()).mask
        self._weight = self._at = 0
        self._put = self._sent = 0
        self._problem: str | None = None
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None

    def put(self, lines: Iterable[tuple[Kind, str]], about: Mapping[str, str]) -> None:
        """Take lines to be pushed. Never waits, raises nothing."""
        with self._changed:
            for kind, text in lines:
                self._at = max(self._clock(), self._at + 1)
                self._take(Line(self._at, kind, text, about))
            if self._thread is None and self._waiting:
                self._thread = threading.Thread(target=self._go, name="loki", daemon=True)
                self._thread.start()
            if len(self._waiting) >= BATCH_LINES or self._weight >= BATCH_BYTES:
                self._changed.notify_all()

    def close(self, patience_s: float) -> str | None:
        """Push what waits, for this many seconds at most; return what did not arrive and why, None where all did.

        What Loki has not answered by then counts as not arrived. Once only.
        """
        thread = self._thread
        if thread is None:
            return None
        with self._changed:
            self._deadline = time.monotonic() + patience_s
            self._changed.notify_all()
        thread.join(patience_s)
        with self._changed:
            lost = self._put - self._sent
            why = self._problem or "it gave no answer in time"
        return None if not lost else f"{lost} of {self._put} lines and events did not reach Loki: {why}"

    def _take(self, line: Line) -> None:
        self._waiting.append(line)
        self._put += 1
        self._weight += line.weight
        while len(self._waiting) > MOST_LINES or self._weight > MOST_BYTES:
            self._weight -= self._waiting.popleft().weight

    def _go(self) -> None:
        try:
            address = self._address()
            with self._client(address) as client:
                while batch := self._next():
                    self._deliver(client, address, batch)
        except OrchctlError as error:
            self._problem = error.message
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no failure of the run
            # Its text may hold the address.
            self._problem = f"unexpected {type(error).__name__}"

    def _address(self) -> Address:
        table = self._table
        text = table.url
        if text is None:
            secret = Secret(env=table.url_env, file=table.url_file)
            text = alert_secrets.read(secret, self._environment, trust=self._trust)
        try:
            address = loki.address_of(text)
        except ValueError as error:
            raise OrchctlError(str(error)) from error
        # An address that the catalog itself gives is no secret, but for what opens it.
        hidden = alert_secrets.parts(text) if table.url is None else []
        self._mask = Masker(filter(None, [*hidden, *(address.auth or ())[1:]])).mask
        return address

    def _client(self, address: Address) -> httpx.Client:
        import httpx

        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if self._table.tenant is not None:
            headers["X-Scope-OrgID"] = self._table.tenant
        return httpx.Client(headers=headers, auth=address.auth, timeout=ANSWER_S)

    def _next(self) -> list[Line]:
        """Wait for enough lines, or long enough; return none where there are no more to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
            self._changed.wait_for(self._is_enough, FLUSH_S)
            batch: list[Line] = []
            weight = 0
            while self._waiting and len(batch) < BATCH_LINES and weight < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                weight += batch[-1].weight
            self._weight -= weight
            return batch

    def _is_enough(self) -> bool:
        full = len(self._waiting) >= BATCH_LINES or self._weight >= BATCH_BYTES
        return full or self._deadline is not None

    def _deliver(self, client: httpx.Client, address: Address, batch: list[Line]) -> None:
        """Push a batch until Loki has it, refuses it, or there is no more time."""
        body = loki.payload(batch, self._labels, structured=self._table.structured_metadata)
        packed = gzip.compress(body, compresslevel=1)
        tried = 0
        while self._time_left():
            problem, again = self._push(client, address, packed)
            if problem is None:
                with self._changed:
                    self._sent += len(batch)
                return
            self._problem = problem
            if not again:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._deadline is not None, _WAITS[min(tried, len(_WAITS) - 1)])
            if self._deadline is not None:
                time.sleep(min(_WAITS[0], max(0.0, self._deadline - time.monotonic())))
            tried += 1

    def _time_left(self) -> bool:
        return self._deadline is None or time.monotonic() < self._deadline

    def _push(self, client: httpx.Client, address: Address, packed: bytes) -> tuple[str | None, bool]:
        """Push once. Return what was wrong, None where nothing was, and whether trying again may help."""
        import httpx

        try:
            # Its answer is not read to its end: it may have none.
            with client.stream("POST", address.url, content=packed) as answer:
                if answer.is_success:
                    return None, False
                said = next(answer.iter_bytes(), b"")[:_SAID].decode("utf-8", "replace").strip().partition("\n")[0]
                again = answer.status_code >= 500 or answer.status_code in _AGAIN
                return self._mask(f"HTTP {answer.status_code}{f' ({said})' if said else ''}"), again
        except httpx.HTTPError as error:
            return self._mask(f"{type(error).__name__}{f': {error}' if str(error) else ''}"), True
