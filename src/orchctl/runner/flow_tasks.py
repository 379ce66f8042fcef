"""Steps as Prefect's tasks: each with its own state, retries and log in the UI. The second half of `flow.py`."""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

from prefect import Task as PrefectTask
from prefect import get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.states import Cancelled, Completed, Failed

from orchctl.core.names import visible
from orchctl.runner.tasks import Log, Result, Task

LEASE_S = 60.0
"""Seconds after which the places of a run that was killed are free again."""
ASK_AGAIN_S = 1.0
_MOST_DELAYS = 50
_FULL = 423


class PrefectTasks:
    """Runs each step as a task of the flow run that the caller is in; `runner.tasks.Tasks` by shape."""

    def __init__(self) -> None:
        self._ids: dict[str, UUID] = {}

    def start(self, task: Task, done: Callable[[Result], None]) -> None:
        """Run a task in a thread of its own.

        The thread is a daemon: while Prefect waits for a retry it cannot be woken, and must not hold the process.
        """
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._run, task, done), name=f"step {task.name}", daemon=True
        )
        thread.start()

    def close(self, name: str, message: str) -> None:
        """Show as cancelled what waits for a retry that will not come."""
        if name not in self._ids:
            return
        try:
            with get_client(sync_client=True) as client:
                client.set_task_run_state(self._ids[name], Cancelled(message=message), force=True)
        except Exception as error:  # noqa: BLE001 - what it shows is not the record
            get_run_logger().warning("the state of %s could not be set: %s", name, type(error).__name__)

    def _run(self, task: Task, done: Callable[[Result], None]) -> None:
        results: list[Result] = []
        try:
            self._task(task, results)(return_state=True)
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise it to
            if not results:
                results.append(Result("failed", f"Prefect could not run its task: {type(error).__name__}: {error}"))
        finally:
            done(results[-1] if results else Result("failed", "Prefect ended its task before it was run"))

    def _task(self, task: Task, results: list[Result]) -> PrefectTask[[], State[Any]]:
        def step() -> State[Any]:
            logger = get_run_logger()
            context = TaskRunContext.get()
            if context is not None:
                self._ids[task.name] = context.task_run.id

            def log(line: str) -> None:
                logger.info("%s", line)

            settled = task.settled(log) if not results else None
            if settled is None:
                with _places(task, log):
                    results.append(task.attempt(log))
            else:
                results.append(settled)
            return _state(results[-1])

        # Prefect tells tasks apart by the name of their function, too.
        step.__name__ = step.__qualname__ = task.name
        return PrefectTask(
            step,
            name=task.name,
            task_run_name=task.name,
            retries=task.retries,
            # Drawn already, jitter and all: the record says how long the wait is.
            retry_delay_seconds=list(task.delays[:_MOST_DELAYS]) or None,
            retry_condition_fn=lambda *_: results[-1].again,
            persist_result=False,
            cache_policy=NO_CACHE,
            log_prints=False,
        )


def _state(result: Result) -> State[Any]:
    message = visible(result.message) or None
    if result.state == "failed":
        return Failed(message=message)
    if result.state == "cancelled":
        return Cancelled(message=message)
    name = {"skipped": "Skipped", "kept": "Kept"}.get(result.state, "Completed")
    return Completed(name=name, message=message)


@contextmanager
def _places(task: Task, log: Log) -> Iterator[None]:
    """Hold a place in each limit of a task; without one where the run is to stop.

    Prefect's own wait could not be ended, so it is asked again and again. While it cannot be asked, the step waits too:
    a limit protects somebody else's service.
    """
    held = ExitStack()
    said = None
    while task.limits and not task.stop.over:
        try:
            held.enter_context(
                concurrency(
                    list(task.limits), max_retries=0, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
                )
            )
            break
        except ConcurrencySlotAcquisitionError as error:
            full = getattr(getattr(error.__cause__, "response", None), "status_code", None) == _FULL
            why = "" if full else f": Prefect cannot be asked ({type(error.__cause__).__name__})"
            if said != full:
                said = full
                log(f"waiting for a place in {', '.join(task.limits)}{why}")
            task.stop.wait(ASK_AGAIN_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the load
    try:
        yield
    finally:
        try:
            held.close()
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log(f"the place in {', '.join(task.limits)} could not be given back: {type(error).__name__}")
