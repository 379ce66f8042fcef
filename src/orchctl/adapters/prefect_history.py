"""The part of the Prefect API that counts, lists and deletes flow runs that have ended.

As in `prefect_api`: one method a call, and no error but our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchctl.adapters import prefect_parse as parsing
from orchctl.adapters.prefect_http import PAGE, PrefectHttp
from orchctl.core.deployments import TAG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from orchctl.core.remote import RemoteRun
    from orchctl.core.retention import Ended

BATCH = 50
"""Flow runs that the server deletes in one request, at most."""
_OURS: dict[str, Any] = {"all_": [TAG]}
_OVER: dict[str, Any] = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}


class PrefectHistory(PrefectHttp):
    """Flow runs that have ended."""

    def count_ended(self, wanted: Ended) -> int:
        """Return how many flow runs there are."""
        return self.shaped(int, self.request("POST", "/flow_runs/count", _filters(wanted)))

    def all_ended(self, tag: str, before: datetime) -> bool:
        """Whether every flow run that carries the tag has ended at or before an instant."""
        tagged: dict[str, Any] = {"tags": {"all_": [tag]}}
        over = {**tagged, "state": _OVER, "end_time": {"before_": before.isoformat()}}
        every, ended = (self.request("POST", "/flow_runs/count", {"flow_runs": each}) for each in (tagged, over))
        return bool(every == ended)

    def ended_runs(self, wanted: Ended, *, offset: int, limit: int = PAGE) -> tuple[RemoteRun, ...]:
        """Return `limit` flow runs (at most 200) from number `offset` on, in an order that has no ties."""
        body = {**_filters(wanted), "sort": "ID_DESC", "offset": offset, "limit": limit}
        rows = self.request("POST", "/flow_runs/filter", body)
        return tuple(self.shaped(parsing.run, row) for row in self.shaped(parsing.rows, rows))

    def last_ended(self, flow_id: str) -> RemoteRun | None:
        """Return the run of a flow of orchctl that ended last, None where none has."""
        body: dict[str, Any] = {"flows": {"id": {"any_": [flow_id]}}, "flow_runs": {"tags": _OURS, "state": _OVER}}
        body |= {"sort": "END_TIME_DESC", "limit": 1}
        rows = self.shaped(parsing.rows, self.request("POST", "/flow_runs/filter", body))
        return self.shaped(parsing.run, rows[0]) if rows else None

    def delete_ended(self, ids: Sequence[str], before: datetime) -> int:
        """Delete flow runs (at most 50), with their task runs, states, artifacts and logs; return how many.

        Only those that have still ended at or before an instant. Repeatable. The server deletes the logs a moment
        later, and artifacts not by itself: these go first, so that a kill leaves none that nobody would find again.
        """
        of = {"artifacts": {"flow_run_id": {"any_": list(ids)}}}
        while rows := self.shaped(parsing.rows, self.request("POST", "/artifacts/filter", of)):
            for row in rows:
                self.request("DELETE", f"/artifacts/{quote(self.shaped(parsing.new_id, row), safe='')}", ok404=True)
        wanted = {"id": {"any_": list(ids)}, "state": _OVER, "end_time": {"before_": before.isoformat()}}
        answer = self.request("POST", "/flow_runs/bulk_delete", {"flow_runs": wanted, "limit": BATCH}, repeatable=True)
        return self.shaped(lambda data: len(parsing.rows(data["deleted"])), answer)


def _filters(wanted: Ended) -> dict[str, Any]:
    flows = {"deployment": {"is_null_": True}} if wanted.flow_id is None else {"id": {"any_": [wanted.flow_id]}}
    runs: dict[str, Any] = {"tags": _OURS, "state": _OVER, "end_time": {"before_": wanted.before.isoformat()}}
    runs |= {} if wanted.queue is None else {"work_queue_name": {"any_": [wanted.queue]}}
    return {"flows": flows, "flow_runs": runs}
