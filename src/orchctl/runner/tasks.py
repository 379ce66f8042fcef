"""How a step becomes a task of whatever orchestrates the run: `flow.py` has Prefect's, tests have threads."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Log = Callable[[str], None]
State = Literal["success", "failed", "skipped", "kept", "cancelled"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one try of a task ended, as the orchestrator is to show it.

    `again`: it failed, and trying again may help.
    """

    state: State
    message: str
    again: bool = False


class Stop:
    """Whether a run is to stop. `over`: nothing new begins, and waits end; `is_set`: what runs is stopped too."""

    def __init__(self) -> None:
        self.reason = ""
        self._over = threading.Event()
        self._now = threading.Event()

    def finish(self, reason: str) -> None:
        """Let nothing new begin. The first reason stays."""
        self.reason = self.reason or reason
        self._over.set()

    def interrupt(self, reason: str) -> None:
        """Let nothing new begin, and stop what runs."""
        self.finish(reason)
        self._now.set()

    @property
    def over(self) -> bool:
        """Whether nothing new is to begin."""
        return self._over.is_set()

    def is_set(self) -> bool:
        """Whether what runs is to stop (`process.StopEvent`)."""
        return self._now.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait, and return early with True where nothing new is to begin."""
        return self._over.wait(seconds)


@dataclass(frozen=True, slots=True)
class Task:
    """A step as a task.

    `attempt` does one try of it, logging to what it is given; it raises nothing and may be called `retries` times
    more, after each of `delays` (seconds; the last one holds for all further) where its result says `again`. A place
    in each of `limits` is held while it runs, and only then. Where `stop` is over, waits end and `attempt` is called
    without a place: it knows what to do. `settled` comes first, without a place: where it has a result, nothing is
    tried.
    """

    name: str
    attempt: Callable[[Log], Result]
    stop: Stop
    settled: Callable[[Log], Result | None] = lambda _log: None
    retries: int = 0
    delays: tuple[float, ...] = ()
    limits: tuple[str, ...] = ()

    def delay(self, tried: int) -> float:
        """Return the seconds to wait after try number `tried` (from 1)."""
        return self.delays[min(tried, len(self.delays)) - 1] if self.delays else 0.0


class Tasks(Protocol):
    """What runs tasks."""

    def start(self, task: Task, done: Callable[[Result], None]) -> None:
        """Run a task beside the caller; `done` gets the last try's result, from another thread, exactly once."""

    def close(self, name: str, message: str) -> None:
        """Show a task as cancelled that was started and has not ended: it waits for a retry that will not come."""


class Threads:
    """Tasks as plain threads, without an orchestrator."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def start(self, task: Task, done: Callable[[Result], None]) -> None:
        """Run it in a thread."""

        def run() -> None:
            result = task.settled(self._log) or task.attempt(self._log)
            for tried in range(1, task.retries + 1):
                if not result.again:
                    break
                task.stop.wait(task.delay(tried))
                result = task.attempt(self._log)
            done(result)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name=f"step {task.name}", daemon=True).start()

    def close(self, name: str, message: str) -> None:
        """Do nothing: a thread that waits ends by itself."""
