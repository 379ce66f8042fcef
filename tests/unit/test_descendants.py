"""Whatever ends a command, nothing of it is left, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from commands import SLEEP, Runner, eventually
from orchctl.runner import descendants, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchctl.runner.process import Ended


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    runner.end_all()


# Each is a whole script, waits for what it starts to be there, and names every process in a file `*.pid`.
IGNORES_TERM = f"trap '' TERM; echo $$ > me.pid; sleep {SLEEP} & echo $! > child.pid; wait"
GRANDCHILD = f"""
    bash -c 'echo $$ > child.pid; sleep {SLEEP} & echo $! > grandchild.pid; wait' &
    echo $$ > me.pid
    wait
"""
STOPPED = f"""
    sleep {SLEEP} & echo $! > child.pid
    kill -STOP $!
    echo $$ > me.pid
    kill -STOP $$
"""
# fork, setsid, fork: the usual daemon, deaf to SIGTERM, its output elsewhere.
DAEMON = f"""
    (setsid bash -c '(trap "" TERM; echo $BASHPID > tmp; mv tmp daemon.pid
                      exec sleep {SLEEP}) </dev/null >/dev/null 2>&1 &' &)
    until test -s daemon.pid; do sleep 0.01; done
    echo $$ > me.pid
"""
BARE_DAEMON = f"""
    (setsid bash -c '(trap "" TERM; echo $BASHPID > tmp; mv tmp daemon.pid
                      exec env -i sleep {SLEEP}) </dev/null >/dev/null 2>&1 &' &)
    until test -s daemon.pid && grep -qz sleep /proc/$(cat daemon.pid)/cmdline; do sleep 0.01; done
    echo $$ > me.pid
"""
BARE_LEADER = f"""
    (setsid env -i bash -c 'echo $$ > tmp; mv tmp daemon.pid
                            exec sleep {SLEEP}' </dev/null >/dev/null 2>&1 &)
    until test -s daemon.pid; do sleep 0.01; done
    echo $$ > me.pid
"""
FORK_BOMB = f"""
    for i in $(seq 50); do (trap '' TERM; echo $BASHPID >> children.pid; sleep {SLEEP}; sleep {SLEEP}) & done
    until test $(wc -l < children.pid) = 50; do sleep 0.01; done
    echo $$ > me.pid
    wait
"""
STUBBORN = {
    "ignores TERM": IGNORES_TERM,
    "grandchild": GRANDCHILD,
    "stopped": STOPPED,
    "daemon": DAEMON + "sleep 50",
    "daemon without environment": BARE_DAEMON + "sleep 50",
    "session leader without environment": BARE_LEADER + "sleep 50",
    "fork bomb": FORK_BOMB,
}
LEFT_BEHIND = {
    "child": (f"sleep {SLEEP} & echo $! > child.pid", 1),
    "stopped child": (f"sleep {SLEEP} & echo $! > child.pid; kill -STOP $!", 1),
    "daemon": (DAEMON, 1),
    "daemon without environment": (BARE_DAEMON, 1),
    "session leader without environment": (BARE_LEADER, 1),
}


@pytest.mark.parametrize("name", STUBBORN)
def test_a_timeout_leaves_nothing(runner: Runner, name: str) -> None:
    ended = runner.bash(STUBBORN[name], timeout_s=0.7, kill_after_s=0.1)
    assert ended.timed_out
    assert ended.left_alive == 0
    assert runner.all_gone()
    assert (runner.directory / "me.pid").exists()


@pytest.mark.parametrize("name", STUBBORN)
def test_a_stop_event_leaves_nothing(runner: Runner, name: str) -> None:
    with stopping_when(runner.directory / "me.pid") as stop:
        ended = runner.bash(STUBBORN[name], kill_after_s=0.1, stop=stop)
    assert (ended.stopped, ended.timed_out, ended.left_alive) == ("cancelled", False, 0)
    assert runner.all_gone()


@contextmanager
def stopping_when(path: Path) -> Iterator[threading.Event]:
    stop = threading.Event()

    def watch() -> None:
        eventually(path.exists)
        stop.set()

    thread = threading.Thread(target=watch)
    thread.start()
    yield stop
    thread.join()


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_a_command_leaves_behind_is_killed(runner: Runner, name: str) -> None:
    text, count = LEFT_BEHIND[name]
    ended = runner.bash(text + "\nexit 4", kill_after_s=0.1)
    assert (ended.exit_code, ended.survivors_killed, ended.left_alive) == (4, count, 0)
    assert not runner.pump.cut_off
    assert runner.all_gone()


@pytest.mark.parametrize("name", [name for name in LEFT_BEHIND if "leader" not in name])
def test_so_it_is_from_a_thread(runner: Runner, name: str) -> None:
    results: list[Ended] = []
    text = LEFT_BEHIND[name][0] + "\nexit 4"
    thread = threading.Thread(target=lambda: results.append(runner.bash(text, kill_after_s=0.1)))
    thread.start()
    thread.join()
    assert results[0].survivors_killed == 1
    assert runner.all_gone()


def test_from_a_thread_a_session_leader_is_remembered_from_while_it_ran(runner: Runner) -> None:
    text = f"""
        setsid env -i bash -c 'echo $$ > daemon.pid; exec sleep {SLEEP}' &
        sleep 0.4
        echo $$ > me.pid
    """
    thread = threading.Thread(target=lambda: runner.bash(text, kill_after_s=0.1))
    thread.start()
    thread.join()
    assert runner.ended[0].survivors_killed == 1
    assert runner.all_gone()


def test_other_children_of_ours_are_left_alone(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """From before, of a thread that goes on, of one that has ended; in our session and in their own."""
    monkeypatch.setattr(process, "_LOOK_S", 0.1)
    others = [subprocess.Popen(["sleep", SLEEP], start_new_session=True)]
    go_on = threading.Event()

    def start(then: Callable[[], object]) -> None:
        eventually((runner.directory / "me.pid").exists)
        others.append(subprocess.Popen(["sleep", SLEEP], start_new_session=True, env={}))
        others.append(subprocess.Popen(["sleep", SLEEP]))
        then()

    threads = [
        threading.Thread(target=start, args=(lambda: go_on.wait(20),)),
        threading.Thread(target=start, args=(lambda: time.sleep(0.3),)),
    ]
    for thread in threads:
        thread.start()
    try:
        ended = runner.bash(f"echo $$ > me.pid; sleep 0.6; sleep {SLEEP} & exit 0", kill_after_s=0.1)
        assert ended.survivors_killed == 1
        assert [other.poll() for other in others] == [None] * 5
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
        for other in others:
            other.kill()
            other.wait()


def test_orphans_of_other_children_are_left_alone(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LOOK_S", 0.1)
    text = f"""
        until test -s me.pid; do sleep 0.01; done
        setsid env -i bash -c 'echo $$ > other.pid; exec sleep {SLEEP}' &
        sleep 0.4
    """
    other = subprocess.Popen(["bash", "-c", text], cwd=runner.directory)
    try:
        runner.bash("echo $$ > me.pid; sleep 0.8", kill_after_s=0.1)
        assert other.poll() == 0
        assert Path(f"/proc/{(runner.directory / 'other.pid').read_text().strip()}").exists()
    finally:
        other.wait()
        orphan = int((runner.directory / "other.pid").read_text())
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)


def test_commands_at_the_same_time_leave_each_other_alone(tmp_path: Path) -> None:
    runners = [Runner(tmp_path / str(number)) for number in range(4)]
    threads = []
    for number, runner in enumerate(runners):
        runner.directory.mkdir()
        text = f"{DAEMON}\n sleep 0.{number}5; sleep {SLEEP} & exit {number}"
        threads.append(threading.Thread(target=runner.bash, args=(text,), kwargs={"kill_after_s": 0.1}))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [runner.ended[0].exit_code for runner in runners] == [0, 1, 2, 3]
    assert [runner.ended[0].survivors_killed for runner in runners] == [2, 2, 2, 2]
    assert all(runner.all_gone() for runner in runners)


def test_adopting_orphans_ends_with_the_command(runner: Runner) -> None:
    seen: list[bool] = []
    runner.bash("exit 0", on_started=lambda _: seen.append(descendants._is_subreaper()))
    assert seen == [True]
    assert not descendants._is_subreaper()


class Terminated(BaseException):
    """As Prefect's TerminationSignal."""


@contextmanager
def raising(number: signal.Signals) -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def signals_when(*paths: Path) -> Iterator[None]:
    """SIGUSR1 to ourselves as soon as each of the files exists."""

    def watch() -> None:
        for path in paths:
            if eventually(path.exists):
                os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("name", STUBBORN)
def test_an_exception_stops_the_command_and_goes_on(runner: Runner, name: str) -> None:
    with (
        raising(signal.SIGUSR1),
        signals_when(runner.directory / "me.pid"),
        pytest.raises(Terminated),
    ):
        runner.bash(STUBBORN[name], kill_after_s=0.1)
    assert runner.ended[0].stopped == "interrupted"
    assert runner.all_gone()


def test_a_second_exception_kills_at_once(runner: Runner) -> None:
    # A builtin: SIGTERM goes to each new process of the command, and would end a `touch` before its work.
    text = "trap ': > asked' TERM; echo $$ > me.pid; while :; do sleep 0.01; done"
    with (
        raising(signal.SIGUSR1),
        signals_when(runner.directory / "me.pid", runner.directory / "asked"),
        pytest.raises(Terminated),
    ):
        runner.bash(text, kill_after_s=60)
    assert runner.ended[0].signal == "SIGKILL"
    assert runner.ended[0].duration_s < 10
    assert runner.all_gone()


def test_a_storm_of_signals_leaves_nothing(runner: Runner) -> None:
    over = threading.Event()

    def storm() -> None:
        eventually((runner.directory / "me.pid").exists)
        while not over.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.002)

    thread = threading.Thread(target=storm)
    with raising(signal.SIGUSR1):
        thread.start()
        with suppress(Terminated):
            try:
                runner.bash(FORK_BOMB, kill_after_s=60)
            finally:
                over.set()
        with suppress(Terminated):
            over.set()
            thread.join()
    thread.join()
    assert eventually(runner.all_gone)
