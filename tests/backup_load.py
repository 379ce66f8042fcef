"""Writing to a server without pause while it is backed up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from orchctl.adapters.prefect_api import PrefectApi
from orchctl.errors import PrefectUnreachable


@dataclass
class Load:
    """How many flow runs were made so far, each answered by the server."""

    made: int = 0


@contextlib.contextmanager
def flow_runs(api_url: str, auth: str | None = None) -> Iterator[Load]:
    """Make flow runs, one after the other, until the end. A server that is too busy to answer is asked again."""
    load, stop = Load(), threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with PrefectApi(url=api_url, auth_string=auth) as api:
                flow = api.create_flow("load")
                while not stop.is_set():
                    with contextlib.suppress(PrefectUnreachable):
                        api.request("POST", "/flow_runs/", {"flow_id": flow, "state": {"type": "COMPLETED"}})
                        load.made += 1
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield load
    finally:
        stop.set()
        thread.join()
    assert failed == []
