"""Work that a signal's exception must not break off half-way."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def whole(work: Callable[[], _T]) -> _T:
    """Do `work` in a thread of its own and return what it returns, or raise what it raises.

    An exception that a signal raises in the calling thread meanwhile is raised once the work is done; what
    the work returned or raised is then lost.
    """
    once, begun, done = threading.Lock(), threading.Event(), threading.Event()
    # A logger finds the run it logs for in the context.
    context = contextvars.copy_context()
    returned: list[_T] = []
    raised: list[BaseException] = []
    interruptions: list[BaseException] = []

    def run() -> None:
        if not once.acquire(blocking=False):
            return
        begun.set()
        try:
            returned.append(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            raised.append(error)
        finally:
            done.set()

    while not done.is_set():
        try:
            # An interrupted start does not say whether the thread was started. One too many does nothing.
            if not begun.is_set():
                threading.Thread(target=run, name="whole").start()
            done.wait()
        except BaseException as interruption:  # noqa: BLE001 - raised below
            interruptions.append(interruption)
    for error in (*interruptions, *raised):
        raise error
    return returned[0]
