"""The output of one command: to its log file whole, to Prefect within a budget, to the manifest as a tail.

The pipe is always read on, whatever becomes of the log file or of Prefect: a command must never wait for us.
"""

from __future__ import annotations

import contextvars
import fcntl
import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchctl.core.mask import Masker

MAX_LINE = 16 * 1024
"""Bytes. A longer line is cut into pieces of this size; each piece counts as a line."""
TAIL_LINES = 40
TAIL_BYTES = 8 * 1024
HEAD = 5000
"""Lines of one attempt that are emitted at once."""
HEAD_BYTES = 4 * 1024 * 1024
RATE = 100
"""Lines a second after the head; a line costs one more for each whole KiB of it."""
LAST = 200
"""Lines of what was left out that are emitted all the same, at the end."""
FLUSH_S = 0.2
DRAIN_S = 10.0

_READ_SIZE = 64 * 1024
_PIPE_SIZE = 1024 * 1024
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def decoded(line: bytes) -> str:
    r"""Return a line as text that every log can hold: what is not UTF-8 as `\xff`, NUL as `\x00`."""
    return line.decode("utf-8", "backslashreplace").rstrip("\r").replace("\x00", "\\x00")


class _LogFile:
    """A buffered file that gives up at its first error: `error` is then its text, else None."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._flush_at = 0.0
        self._fd = -1

    def open(self) -> None:
        try:
            self._fd = os.open(self.path, _APPEND, 0o600)
        except OSError as exc:
            self._give_up(exc)

    def write(self, data: bytes, now: float) -> None:
        if self._fd < 0:
            return
        if not self._parts:
            self._flush_at = now + FLUSH_S
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _READ_SIZE:
            self._flush()

    def flush_in(self, now: float) -> float | None:
        """Return the seconds until a flush is due, None if nothing waits for one."""
        return max(0.0, self._flush_at - now) if self._parts else None

    def flush_if_due(self, now: float) -> None:
        if self._parts and now >= self._flush_at:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
            if self._fd >= 0:
                os.close(self._fd)
        except OSError as exc:
            self.error = self.error or str(exc)
        self._fd = -1

    def _flush(self) -> None:
        data = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._size = 0
        try:
            while data and self._fd >= 0:
                data = data[os.write(self._fd, data) :]
        except OSError as exc:
            self._give_up(exc)

    def _give_up(self, exc: OSError) -> None:
        self.error = f"cannot write {self.path}: {exc.strerror}"
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


class _Budget:
    """How many lines may be emitted: a head at once, then a token bucket that opens only when it is full.

    A bucket that opened at one token would announce a gap around every single line of a flood.
    """

    def __init__(self, now: float) -> None:
        self._lines = HEAD
        self._bytes = HEAD_BYTES
        self._tokens = 0.0
        self._at = now
        self._open = True

    def takes(self, size: int, now: float) -> bool:
        if self._lines > 0 and self._bytes >= size:
            self._lines -= 1
            self._bytes -= size
            return True
        self._lines = 0
        self._tokens = min(float(RATE), self._tokens + (now - self._at) * RATE)
        self._at = now
        self._open = self._tokens >= (1 if self._open else RATE)
        if self._open:
            self._tokens -= 1 + size // 1024
        return self._open


class _Outbox:
    """Lines on their way to `emit`, bounded as its one writer asks `has_room` first."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | int | None] = SimpleQueue()
        self._put = 0
        self._got = 0

    def has_room(self, size: int) -> bool:
        return self._queue.qsize() < HEAD and self._put - self._got + size <= HEAD_BYTES + MAX_LINE

    def put(self, item: bytes | int | None) -> None:
        """Add a line, the number of lines left out here, or None for the end."""
        self._put += len(item) if isinstance(item, bytes) else 0
        self._queue.put(item)

    def get(self) -> bytes | int | None:
        item = self._queue.get()
        self._got += len(item) if isinstance(item, bytes) else 0
        return item


class OutputPump:
    """Reads one pipe to its end in a thread of its own.

    Every line is masked first, then written to the log file (`log_path`, created with mode 0600 in a
    directory that exists, appended to if it is there), kept as tail, and handed to `emit` from a second
    thread. A gap in what `emit` gets is announced where it is: `emitted + left_out == lines` once `finish`
    has returned. `also` is handed all lines, masked; it never waits and raises nothing.

    `lines`, `bytes`: read so far, `bytes` as the command wrote them. `emitted`: lines given to `emit`, which
    raised `emit_errors` times. `left_out`: lines never given to it. `cut_off`: reading ended before the pipe
    did, because something still held it open.
    """

    def __init__(
        self,
        *,
        log_path: Path,
        masker: Masker,
        emit: Callable[[str], None],
        also: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self.lines = 0
        self.bytes = 0
        self.emitted = 0
        self.left_out = 0
        self.emit_errors = 0
        self.cut_off = False
        self._log = _LogFile(log_path)
        self._masker = masker
        self._emit = emit
        self._also = also
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._rest = b""
        self._held: deque[bytes] = deque()
        self._gap = 0
        self._budget = _Budget(time.monotonic())
        self._outbox = _Outbox()
        self._stop_at: float | None = None
        self._abandoned = False
        self._wake = -1
        self._threads: tuple[threading.Thread, ...] = ()

    @property
    def log_error(self) -> str | None:
        """The first error of the log file, which ended its writing; None if all went well."""
        return self._log.error

    def start(self, fd: int) -> None:
        """Read the pipe `fd`, which from now on is the pump's to close. Once only."""
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._log.open()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        # `emit` finds the run it logs for in the context of whoever started the pump.
        context = contextvars.copy_context()
        threads = (
            threading.Thread(target=self._read_all, args=(fd,), name="output-reader", daemon=True),
            threading.Thread(target=context.run, args=(self._emit_all,), name="output-emitter", daemon=True),
        )
        for thread in threads:
            thread.start()
        self._threads = threads

    def tail(self) -> str:
        """Return the last 40 lines, masked, at most 8 KiB of UTF-8. Callable at any time."""
        text = "\n".join(decoded(line[-TAIL_BYTES:]) for line in tuple(self._tail))
        return text.encode()[-TAIL_BYTES:].decode("utf-8", "ignore")

    def finish(self, timeout: float) -> None:
        """Read what is left, then end both threads. Call it when the command has ended; repeatable.

        `timeout`: seconds to wait for the end of the pipe, should a left-over process hold it open. `emit`
        gets another 10 seconds for what is queued; what it has not taken by then counts as left out.
        """
        if not self._threads:
            return
        reader, emitter = self._threads
        self._stop_at = time.monotonic() + timeout
        os.eventfd_write(self._wake, 1)
        reader.join()
        emitter.join(DRAIN_S)
        self._abandoned = True
        self.left_out = self.lines - self.emitted
        self._threads = ()
        os.close(self._wake)

    def _read_all(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        try:
            while self._read_some(fd, poller):
                pass
            self._deliver([self._rest] if self._rest else [])
            self._announce_gap()
            for line in self._held:
                self._outbox.put(line)
        finally:
            self._outbox.put(None)
            self._log.close()
            os.close(fd)

    def _read_some(self, fd: int, poller: select.poll) -> bool:
        """Wait, then read once; False when there is no more to come."""
        ready = [number for number, _ in poller.poll(self._wait_ms())]
        if self._wake in ready:
            poller.unregister(self._wake)
        if fd in ready:
            data = os.read(fd, _READ_SIZE)
            if not data:
                return False
            self._take(data)
        now = time.monotonic()
        self._log.flush_if_due(now)
        self._release(now)
        # Past the limit one more second goes to what is already in the pipe, which a busy host may owe us.
        if self._stop_at is not None and now >= self._stop_at + (1 if fd in ready else 0):
            self.cut_off = True
        return not self.cut_off

    def _wait_ms(self) -> float | None:
        now = time.monotonic()
        waits = [wait for wait in (self._log.flush_in(now), FLUSH_S if self._held else None) if wait is not None]
        if self._stop_at is not None:
            waits.append(max(0.0, self._stop_at - now))
        return min(waits) * 1000 + 1 if waits else None

    def _take(self, data: bytes) -> None:
        self.bytes += len(data)
        *whole, rest = (self._rest + data).split(b"\n")
        lines: list[bytes] = []
        for line in whole:
            if len(line) > MAX_LINE:
                lines += self._pieces(line, MAX_LINE)
            else:
                lines.append(line)
        *pieces, self._rest = self._pieces(rest, MAX_LINE + self._masker.reach)
        self._deliver(lines + pieces)

    def _pieces(self, line: bytes, most: int) -> list[bytes]:
        """Cut pieces off a line until at most `most` bytes are left; the last piece is what is left."""
        pieces = []
        start = 0
        while len(line) - start > most:
            window = line[start : start + MAX_LINE + self._masker.reach]
            at = self._masker.cut(window, _character_start(window, MAX_LINE))
            pieces.append(window[:at])
            start += at
        pieces.append(line[start:])
        return pieces

    def _deliver(self, lines: list[bytes]) -> None:
        if not lines:
            return
        now = time.monotonic()
        masked = [self._masker.mask_bytes(line) for line in lines]
        self.lines += len(masked)
        self._log.write(b"\n".join(masked) + b"\n", now)
        if self._also is not None:
            self._also(masked)
        self._tail.extend(masked[-TAIL_LINES:])
        flows = True
        for line in masked:
            self._held.append(line)
            if flows:
                flows = self._release(now)
            if len(self._held) > LAST:
                self._held.popleft()
                self._gap += 1

    def _release(self, now: float) -> bool:
        """Pass on the lines held back, as far as the budget goes; False if some have to stay."""
        while self._held:
            size = len(self._held[0])
            if not self._outbox.has_room(size) or not self._budget.takes(size, now):
                return False
            self._announce_gap()
            self._outbox.put(self._held.popleft())
        return True

    def _announce_gap(self) -> None:
        if self._gap:
            self._outbox.put(self._gap)
            self.left_out += self._gap
            self._gap = 0

    def _emit_all(self) -> None:
        while (item := self._outbox.get()) is not None and not self._abandoned:
            if isinstance(item, int):
                text = f"[orchctl] {item} lines left out here; the whole log: {self._log.path}"
            else:
                text = decoded(item)
                self.emitted += 1
            try:
                self._emit(text)
            except BaseException:  # noqa: BLE001 - whatever a logger does, the command's output goes on
                self.emit_errors += 1


def _character_start(line: bytes, at: int) -> int:
    """Return `at`, or up to three bytes before it, where a UTF-8 sequence would otherwise be split."""
    for start in range(at, at - 4, -1):
        if line[start] & 0xC0 != 0x80:
            return start
    return at
