"""The part of the Prefect API that says how much may go on at a time: global limits, and the queues of work pools.

As in `prefect_api`: one method a call, and no error but our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from orchctl.adapters import prefect_parse as parsing
from orchctl.adapters.prefect_history import PrefectHistory
from orchctl.adapters.prefect_http import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchctl.core.remote import RemoteLimit, RemoteQueue

_T = TypeVar("_T")


class PrefectLimits(PrefectHistory):
    """Global concurrency limits and work queues. Names are those of the catalog: none holds a slash."""

    def limits(self) -> tuple[RemoteLimit, ...]:
        """Return all global concurrency limits, by name; also those that Prefect makes for deployments and tags.

        One request for each 200 of them, one at least.
        """
        return self._pages("/v2/concurrency_limits/filter", parsing.limit)

    def create_limit(self, name: str, *, limit: int) -> None:
        """Make a limit of `limit` places. Repeatable within the call: later, PrefectRejected with status 409."""
        self.request("POST", "/v2/concurrency_limits/", {"name": name, "limit": limit}, repeatable=True, done_if=409)

    def update_limit(self, name: str, body: Mapping[str, Any]) -> None:
        """Set the fields in `body` of a limit. Repeatable; PrefectRejected with status 404 if there is none."""
        self.request("PATCH", f"/v2/concurrency_limits/{quote(name, safe='')}", dict(body))

    def queues(self, pool: str) -> tuple[RemoteQueue, ...]:
        """Return the work queues of a pool, by priority; PrefectRejected with status 404 if there is no such pool.

        One request for each 200 of them, one at least.
        """
        return self._pages(f"/work_pools/{quote(pool, safe='')}/queues/filter", parsing.queue)

    def create_queue(self, pool: str, name: str, *, priority: int, limit: int) -> None:
        """Make a queue in a pool. Repeatable within the call: later, PrefectRejected with status 409.

        Queues of the pool that have this priority, or a worse one right behind, move back by one.
        """
        body = {"name": name, "priority": priority, "concurrency_limit": limit}
        self.request("POST", f"/work_pools/{quote(pool, safe='')}/queues", body, repeatable=True, done_if=409)

    def update_queue(self, pool: str, name: str, body: Mapping[str, Any]) -> None:
        """Set the fields in `body` of a queue. Repeatable; PrefectRejected with status 404 if there is none."""
        self.request("PATCH", f"/work_pools/{quote(pool, safe='')}/queues/{quote(name, safe='')}", dict(body))

    def _pages(self, path: str, parse: Callable[[Any], _T]) -> tuple[_T, ...]:
        """Return all rows of a listing that has a strict order. That it changes while it is read is not noticed."""
        found: list[_T] = []
        while True:
            rows = self.shaped(parsing.rows, self.request("POST", path, {"limit": PAGE, "offset": len(found)}))
            found += [self.shaped(parse, row) for row in rows]
            if len(rows) < PAGE:
                return tuple(found)
