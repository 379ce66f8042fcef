from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchctl.core.mask import Masker
from orchctl.runner import output
from orchctl.runner.output import HEAD, LAST, MAX_LINE, TAIL_BYTES, OutputPump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GAP = re.compile(r"\[orchctl\] (\d+) lines left out here; the whole log: (.*)")


class Piped:
    """A pump with a pipe to write to, and what it emitted."""

    def __init__(
        self, log_path: Path, *, env: dict[str, str] | None = None, emit: Callable[[str], None] | None = None
    ) -> None:
        self.emitted: list[str] = []
        self.log_path = log_path
        self.pump = OutputPump(log_path=log_path, masker=Masker.of(env or {}), emit=emit or self.emitted.append)
        reading, self.writing = os.pipe()
        self.pump.start(reading)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.writing, view) :]

    def close(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def finish(self, timeout: float = 5) -> OutputPump:
        self.close()
        self.pump.finish(timeout)
        return self.pump

    def log(self) -> bytes:
        return self.log_path.read_bytes()


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Piped]:
    pipe = Piped(tmp_path / "log")
    yield pipe
    pipe.finish(0)


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
    return holds()


def accounted(emitted: list[str], lines: list[str]) -> bool:
    """Whether `emitted` is `lines` in order, each gap announced where it is and with its size."""
    at = 0
    for text in emitted:
        if gap := GAP.fullmatch(text):
            at += int(gap[1])
        elif at >= len(lines) or lines[at] != text:
            return False
        else:
            at += 1
    return at == len(lines)


def test_lines_go_to_the_log_the_tail_and_emit(piped: Piped) -> None:
    piped.write(b"one\ntwo\nthr")
    piped.write(b"ee\n\nlast")
    pump = piped.finish()
    assert piped.log() == b"one\ntwo\nthree\n\nlast\n"
    assert piped.emitted == ["one", "two", "three", "", "last"]
    assert pump.tail() == "one\ntwo\nthree\n\nlast"
    assert (pump.lines, pump.bytes, pump.emitted, pump.left_out) == (5, 19, 5, 0)
    assert pump.log_error is None
    assert not pump.cut_off


def test_the_log_is_private_and_appended_to(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        pipe = Piped(tmp_path / "log")
        pipe.write(text)
        pipe.finish()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"


def test_a_follower_sees_a_line_soon(piped: Piped) -> None:
    piped.write(b"hello\n")
    assert eventually(lambda: piped.log() == b"hello\n")
    assert eventually(lambda: piped.emitted == ["hello"])


def test_every_copy_is_masked(tmp_path: Path) -> None:
    pipe = Piped(tmp_path / "log", env={"API_TOKEN": "geheim"})
    pipe.write(b"<geheim> https://u:pw@h\n")
    pump = pipe.finish()
    assert pipe.log() == b"<***> https://u:***@h\n"
    assert pipe.emitted == [pump.tail()] == ["<***> https://u:***@h"]


def test_bytes_that_no_text_can_hold(piped: Piped) -> None:
    piped.write(b"a\xffb\x00c \xe2\x82\xac\r\n")
    pump = piped.finish()
    assert piped.emitted == [r"a\xffb\x00c €"] == [pump.tail()]
    assert piped.log() == b"a\xffb\x00c \xe2\x82\xac\r\n"


def test_the_tail_is_bounded_in_lines_and_bytes(piped: Piped) -> None:
    piped.write(b"".join(b"%d\n" % number for number in range(100)))
    assert eventually(lambda: piped.pump.tail().split("\n") == [str(number) for number in range(60, 100)])
    piped.write("€".encode() * 5000 + b"\n" + b"\xff" * 5000)
    tail = piped.finish().tail()
    assert TAIL_BYTES - 2 <= len(tail.encode()) <= TAIL_BYTES
    assert tail.endswith(r"\xff\xff")


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_an_endless_line_is_cut_between_characters(piped: Piped, newline: bytes) -> None:
    line = ("x" + "€" * 20000).encode()
    piped.write(line + newline)
    piped.finish()
    assert "".join(piped.emitted).encode() == line
    assert max(len(piece.encode()) for piece in piped.emitted) <= MAX_LINE
    assert len(piped.emitted) == 4
    assert not any("\\x" in piece for piece in piped.emitted)


@pytest.mark.parametrize("newline", [b"", b"\n"])
@pytest.mark.parametrize("before", [MAX_LINE - 9, MAX_LINE - 8, MAX_LINE - 1, MAX_LINE, 2 * MAX_LINE - 5])
def test_an_endless_line_is_never_cut_inside_a_secret(tmp_path: Path, before: int, newline: bytes) -> None:
    pipe = Piped(tmp_path / "log", env={"API_TOKEN": "geheimnis"})
    pipe.write(b"x" * before + b"geheimnis" + b"y" * 3 * MAX_LINE + newline)
    pipe.finish()
    assert pipe.log().replace(b"\n", b"") == b"x" * before + b"***" + b"y" * 3 * MAX_LINE


def test_a_secret_longer_than_a_line(tmp_path: Path) -> None:
    secret = "geheim" * 4000
    pipe = Piped(tmp_path / "log", env={"API_TOKEN": secret})
    pipe.write(b"x" * 100 + secret.encode() + b"y" * 100)
    pipe.finish()
    assert pipe.log().replace(b"\n", b"") == b"x" * 100 + b"***" + b"y" * 100


def test_the_head_of_an_output_is_emitted_whole(piped: Piped) -> None:
    lines = [f"line {number}" for number in range(HEAD)]
    piped.write("\n".join(lines).encode())
    pump = piped.finish()
    assert piped.emitted == lines
    assert pump.left_out == 0


def test_a_flood_is_thinned_out_and_its_end_kept(piped: Piped) -> None:
    lines = [f"line {number}" for number in range(200_000)]
    piped.write("\n".join(lines).encode())
    pump = piped.finish()
    assert piped.emitted[:HEAD] == lines[:HEAD]
    assert piped.emitted[-LAST:] == lines[-LAST:]
    assert accounted(piped.emitted, lines)
    assert pump.emitted + pump.left_out == pump.lines == 200_000
    assert pump.emitted < HEAD + LAST + 1000
    assert piped.log().count(b"\n") == 200_000


def test_the_head_is_bounded_in_bytes_too(piped: Piped) -> None:
    lines = ["x" * 10_000] * 2000
    piped.write("\n".join(lines).encode())
    pump = piped.finish()
    assert accounted(piped.emitted, lines)
    assert pump.left_out > 1000


def test_after_a_flood_a_quiet_command_is_heard_again(piped: Piped) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    piped.write("\n".join(lines).encode() + b"\n")
    assert eventually(lambda: bool(piped.emitted) and piped.emitted[-1] == lines[-1])
    piped.write(b"quiet\n")
    piped.finish()
    assert accounted(piped.emitted, [*lines, "quiet"])


def test_a_slow_emit_stalls_nothing_and_loses_nothing_unannounced(tmp_path: Path) -> None:
    go_on = threading.Event()
    emitted: list[str] = []

    def slow(text: str) -> None:
        go_on.wait(20)
        emitted.append(text)

    pipe = Piped(tmp_path / "log", emit=slow)
    lines = [f"line {number}" for number in range(100_000)]
    pipe.write("\n".join(lines).encode())
    pipe.close()
    assert eventually(lambda: pipe.pump.lines == len(lines))
    go_on.set()
    pump = pipe.finish()
    assert accounted(emitted, lines)
    assert pump.emitted + pump.left_out == pump.lines


def test_what_a_stuck_emit_never_took_counts_as_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "DRAIN_S", 0.05)
    go_on = threading.Event()

    def stuck(_: str) -> None:
        go_on.wait(20)

    pipe = Piped(tmp_path / "log", emit=stuck)
    pipe.write(b"one\ntwo\nthree\n")
    pump = pipe.finish()
    go_on.set()
    assert (pump.emitted, pump.left_out) == (1, 2)


def test_an_emit_that_raises_is_counted(tmp_path: Path) -> None:
    def broken(text: str) -> None:
        raise SystemExit(text)

    pipe = Piped(tmp_path / "log", emit=broken)
    pipe.write(b"one\ntwo\n")
    pump = pipe.finish()
    assert (pump.emitted, pump.emit_errors, pump.left_out) == (2, 2, 0)
    assert pipe.log() == b"one\ntwo\n"


@pytest.mark.parametrize("path", ["/dev/full", "/no/such/directory/log"])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, path: str) -> None:
    pipe = Piped(Path(path))
    pipe.write(b"x" * 200_000 + b"\nlast\n")
    pump = pipe.finish()
    assert pump.log_error is not None
    assert pump.log_error.startswith(f"cannot write {path}: No s")
    assert pipe.emitted[-1] == "last"


def test_a_pipe_that_is_held_open_is_left_after_the_timeout(piped: Piped) -> None:
    piped.write(b"one\ntwo")
    began = time.monotonic()
    piped.pump.finish(0.1)
    assert 0.1 <= time.monotonic() - began < 10
    assert piped.pump.cut_off
    assert piped.emitted == ["one", "two"]


def test_a_pipe_that_is_written_to_for_ever_is_left_too(piped: Piped) -> None:
    def flood() -> None:
        try:
            while True:
                os.write(piped.writing, b"more\n" * 1000)
        except OSError:
            return

    thread = threading.Thread(target=flood)
    thread.start()
    piped.pump.finish(0.05)
    thread.join(5)
    assert piped.pump.cut_off
    assert not thread.is_alive()


def test_what_is_in_the_pipe_is_read_even_without_a_timeout(piped: Piped) -> None:
    piped.write(b"line\n" * 10_000)
    piped.pump.finish(0)
    assert piped.pump.lines == 10_000


def test_finish_can_be_repeated_and_come_before_start(tmp_path: Path) -> None:
    pump = OutputPump(log_path=tmp_path / "log", masker=Masker.of({}), emit=print)
    pump.finish(1)
    pipe = Piped(tmp_path / "log")
    pipe.finish()
    pipe.finish()


MEASURE = """
import os, sys, threading
from pathlib import Path
from orchctl.core.mask import Masker
from orchctl.runner.output import OutputPump

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

blocked = threading.Event()
pump = OutputPump(log_path=Path(sys.argv[1]), masker=Masker.of({"TOKEN": "geheimnis"}),
                  emit=lambda text: blocked.wait(60) and None)
reading, writing = os.pipe()
lines = b"a line of a usual length, more or less\\n" * 1000
block, times = (b"x" * 100_000, 2000) if sys.argv[2] == "line" else (lines, 1000)
before = peak()
pump.start(reading)
for _ in range(times):
    view = memoryview(block)
    while view:
        view = view[os.write(writing, view):]
os.close(writing)
blocked.set()
pump.finish(10)
assert pump.bytes == len(block) * times
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["line", "lines"])
def test_memory_is_bounded(tmp_path: Path, kind: str) -> None:
    """200 MB in one line, and a million lines, with an `emit` that takes nothing until the end."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), "/dev/null", kind],
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) < 30 * 1024
