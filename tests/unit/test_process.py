from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from commands import PATH, SLEEP, Runner, eventually
from orchctl.runner.process import Command, CommandNotStarted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    runner.end_all()


def test_a_command_that_ends_well(runner: Runner) -> None:
    pids: list[int] = []
    ended = runner.bash("echo out; echo err >&2; echo $$ > me.pid; sleep 0.1", on_started=pids.append)
    assert (ended.exit_code, ended.signal, ended.timed_out, ended.stopped) == (0, None, False, None)
    assert (ended.survivors_killed, ended.left_alive) == (0, 0)
    assert runner.lines == ["out", "err"]
    assert pids == runner.pids()
    assert runner.ended == [ended]


def test_its_times(runner: Runner) -> None:
    before = datetime.now(UTC)
    ended = runner.bash("sleep 0.1")
    assert before <= ended.started_at < ended.finished_at <= datetime.now(UTC)
    assert ended.duration_s >= 0.1
    assert ended.started_at.tzinfo is UTC


def test_the_end_is_noticed_at_once(runner: Runner) -> None:
    late = []
    for _ in range(5):
        runner.bash("date +%s.%N > end; exit 0", timeout_s=math.inf)
        late.append(time.time() - float((runner.directory / "end").read_text()))
    assert min(late) < 0.02


def test_exit_codes_and_signals(runner: Runner) -> None:
    assert runner.bash("exit 3").exit_code == 3
    for number, name in ((signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (40, "SIGRTMIN+6")):
        ended = runner.bash(f"kill -{int(number)} $$")
        assert (ended.exit_code, ended.signal) == (None, name)


def test_a_lost_exit_status_is_no_success(runner: Runner) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        ended = runner.bash("sleep 0.1; exit 3")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (ended.exit_code, ended.signal) == (None, None)


def test_the_streams_share_one_order(runner: Runner) -> None:
    runner.bash("for i in {1..1000}; do echo out $i; echo err $i >&2; done")
    assert runner.lines == [f"{stream} {i}" for i in range(1, 1001) for stream in ("out", "err")]


def test_output_that_is_not_utf8(runner: Runner) -> None:
    runner.bash(r"printf 'a\xff\0b\n'")
    assert runner.lines == [r"a\xff\x00b"]


def test_a_million_lines_stall_nothing(runner: Runner) -> None:
    assert runner.run(runner.command("seq", "1000000")).exit_code == 0
    assert runner.pump.lines == 1_000_000
    assert runner.pump.emitted + runner.pump.left_out == 1_000_000
    assert runner.lines[-1] == "1000000"


def test_stdin_is_empty(runner: Runner) -> None:
    assert runner.run(runner.command("cat")).exit_code == 0


def test_the_environment_is_the_given_one(runner: Runner) -> None:
    runner.run(runner.command("env"))
    assert sorted(line.split("=")[0] for line in runner.lines) == ["ORCHCTL_RUN_TOKEN", "PATH"]


def test_only_the_named_descriptors_are_inherited(runner: Runner) -> None:
    with open("/dev/null") as kept, open("/dev/null") as other:
        fds = (kept.fileno(),)
        command = Command(("ls", "/proc/self/fd"), "/", {"PATH": PATH}, 20, 5, inherit_fds=fds)
        runner.run(command)
        assert str(kept.fileno()) in runner.lines
        assert str(other.fileno()) not in runner.lines


def test_niceness(runner: Runner) -> None:
    runner.run(runner.command("bash", "-c", "sleep 0.05; nice", nice=7))
    assert runner.lines == ["7"]  # as systemd sets it, and not on top of the worker's


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_program_with_a_slash_is_relative_to_its_directory(runner: Runner) -> None:
    script(runner.directory / "bin/job", "#!/bin/sh\necho mine\n")
    runner.run(runner.command("bin/job"))
    runner.run(runner.command("./bin/job"))
    assert runner.lines == ["mine", "mine"]


def test_a_program_without_one_is_found_in_the_path_of_its_environment(runner: Runner) -> None:
    script(runner.directory / "bin/job", "#!/bin/sh\necho mine\n")
    runner.run(Command(("job",), "/", {"PATH": f"/nowhere:{runner.directory}/bin"}, 20, 5))
    assert runner.lines == ["mine"]


@pytest.mark.parametrize(
    ("argv", "shell_code", "reason"),
    [
        ("no-such-program", 127, "no such program"),
        ("./no-such-program", 127, "no such program"),
        ("./no-interpreter", 126, "the interpreter in its first line does not exist"),
        ("./not-executable", 126, "Permission denied"),
        ("./no-first-line", 126, "Exec format error"),
        ("/", 126, "Permission denied"),
        ("nul\0byte", 126, "embedded null byte"),
    ],
)
def test_a_command_that_cannot_start(runner: Runner, argv: str, shell_code: int, reason: str) -> None:
    script(runner.directory / "no-interpreter", "#!/no/such/shell\n")
    script(runner.directory / "not-executable", "#!/bin/sh\n", mode=0o644)
    script(runner.directory / "no-first-line", "echo hello\n")
    with pytest.raises(CommandNotStarted) as caught:
        runner.run(runner.command(argv))
    assert caught.value.message == f"cannot start {argv} in {runner.directory}: {reason}"
    assert (caught.value.shell_code, caught.value.code) == (shell_code, "not-started")
    assert runner.ended == []


@pytest.mark.parametrize("argv", [("true",), ()])
def test_a_directory_or_a_program_that_is_not_there(runner: Runner, argv: tuple[str, ...]) -> None:
    with pytest.raises(CommandNotStarted, match=r"no such directory|without a program"):
        runner.run(Command(argv, "/no/such/directory", {"PATH": PATH}, 20, 5))


def test_a_command_that_cannot_start_leaks_no_descriptor(runner: Runner) -> None:
    def failing() -> int:
        with pytest.raises(CommandNotStarted):
            runner.run(runner.command("no-such-program"))
        return len(os.listdir("/proc/self/fd"))

    assert failing() == failing()


def test_a_command_leaks_no_descriptor(runner: Runner) -> None:
    def count() -> int:
        runner.bash(f"sleep {SLEEP} & exit 0")
        return len(os.listdir("/proc/self/fd"))

    assert count() == count()


def test_the_polite_are_not_killed(runner: Runner) -> None:
    ended = runner.bash("trap 'echo bye; exit 5' TERM; echo $$ > me.pid; while :; do sleep 0.01; done", timeout_s=0.3)
    assert (ended.exit_code, ended.signal, ended.timed_out) == (5, None, True)
    assert runner.lines[-1] == "bye"
    assert ended.duration_s < 3


def test_sigterm_comes_once(runner: Runner) -> None:
    text = "trap 'echo term' TERM; echo $$ > me.pid; while :; do sleep 0.01; done"
    runner.bash(text, timeout_s=0.3, kill_after_s=0.3)
    assert runner.lines.count("term") == 1


def test_an_exception_from_on_started_stops_the_command(runner: Runner) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        runner.bash(f"sleep {SLEEP}", on_started=broken)
    assert runner.ended[0].signal == "SIGTERM"


HOLDER = """
import fcntl, os, sys
from pathlib import Path
from orchctl.core.mask import Masker
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, run_command

lock = os.open("lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
script = "exec sleep 77.25"
command = Command(("bash", "-c", script), ".", dict(os.environ), 60, 1, inherit_fds=(lock,))
pump = OutputPump(log_path=Path("log"), masker=Masker.of({}), emit=print)
run_command(command, pump, on_started=lambda pid: Path("me.pid").write_text(str(pid)))
"""


def test_an_orphan_still_holds_the_lock(runner: Runner) -> None:
    path = os.pathsep.join(path for path in sys.path if path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=runner.directory, env={"PATH": PATH, "PYTHONPATH": path}
    )
    assert eventually(lambda: bool(runner.pids()))
    holder.kill()
    holder.wait()
    with open(runner.directory / "lock") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(runner.pids()[0], signal.SIGKILL)
        assert eventually(lambda: is_free(lock.fileno()))


def is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
