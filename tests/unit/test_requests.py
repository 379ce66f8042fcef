"""How many requests a sync makes, counted at the transport."""

from __future__ import annotations

import json
from typing import Any

import httpx

from fakes import NOON, FakeApplied, catalog
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.catalog import Catalog
from orchctl.core.deployments import desired, to_body
from orchctl.services import sync

JOBS = 1000
STATE = "/state"


def rows(wanted: Catalog) -> list[dict[str, Any]]:
    """Return the deployments of a synced catalog as Prefect lists them."""
    digest, found = wanted.digest, []
    for number, job in enumerate(wanted.jobs.values()):
        target = desired(wanted, job, digest=digest, state_dir=STATE)
        body = to_body(target.fields)
        found.append(
            {
                **body,
                "id": f"deployment-{number}",
                "name": job.name,
                "flow_id": f"flow-{number}",
                "paused": False,
                "global_concurrency_limit": {"limit": body.pop("concurrency_limit")},
                "schedules": [
                    {"id": f"{number}-{item.slug}", "slug": item.slug, "active": True, "schedule": dict(item.schedule)}
                    for item in target.schedules
                ],
            }
        )
    return found


def test_a_sync_of_a_thousand_jobs_that_changes_nothing_makes_at_most_ten_requests() -> None:
    wanted = catalog(
        {f"job-{number}": {"schedules": ["daily"]} for number in range(JOBS)}, {"daily": {"cron": "0 5 * * *"}}
    )
    everything = rows(wanted)
    asked: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.url.path.endswith("/queues/filter"):
            ours = {"name": "backfill", "priority": 2, "concurrency_limit": 2, "is_paused": False}
            return httpx.Response(200, json=[ours])
        if request.url.path.startswith("/api/work_pools/"):
            return httpx.Response(
                200, json={"name": "nobody", "type": "process", "is_paused": False, "status": "READY"}
            )
        assert request.url.path == "/api/deployments/paginate"
        body = json.loads(request.content)
        start = (body["page"] - 1) * body["limit"]
        page = everything[start : start + body["limit"]]
        return httpx.Response(
            200, json={"results": page, "count": JOBS, "limit": body["limit"], "pages": 5, "page": body["page"]}
        )

    applied = FakeApplied({wanted.digest: wanted})
    with PrefectApi(url="http://127.0.0.1:1/api", transport=httpx.MockTransport(serve)) as api:
        proposed = sync.propose(wanted, api, applied, state_dir=STATE, now=NOON)
        assert proposed.empty, [change.fields for change in proposed.changes[:1]]
        sync.apply(proposed, wanted, api, applied, now=lambda: NOON)
    assert len(asked) <= 10, asked
