"""What a real Prefect server makes of schedules: it is asked to create the runs of one deployment that has them all."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import httpx

from orchctl.errors import PrefectUnreachable
from support import Live, eventually
from syncing import NOBODYS


@dataclass(frozen=True)
class Deployed:
    """A deployment; `text_of` are its schedules' names by their ids."""

    live: Live
    id: str
    text_of: Mapping[str, str]

    def runs(self, start: datetime, end: datetime, *, most: int) -> dict[str, list[int]]:
        """Return the first `most` instants of each schedule from `start` on, before `end`, as the server makes them."""
        body = {"start_time": start.isoformat(), "end_time": end.isoformat()}
        wanted = {**body, "min_time": (end - start).total_seconds(), "min_runs": most, "max_runs": most}
        url = f"{self.live.api_url}/deployments/{self.id}/schedule"
        eventually(lambda: httpx.post(url, json=wanted, timeout=300).is_success)  # SQLite may be busy: 503
        found: dict[str, list[int]] = defaultdict(list)
        for row in self._rows(start):
            # Prefect's key of a scheduled run: "scheduled DEPLOYMENT SCHEDULE INSTANT".
            text = self.text_of[row["idempotency_key"].split()[2]]
            found[text].append(int(datetime.fromisoformat(row["expected_start_time"]).timestamp()))
        # Those of a later start lie behind them.
        return {text: sorted(found[text])[:most] for text in self.text_of.values()}

    def _rows(self, start: datetime) -> Iterator[dict[str, Any]]:
        body = {
            "flow_runs": {
                "deployment_id": {"any_": [self.id]},
                "expected_start_time": {"after_": start.isoformat()},
            },
            "sort": "ID_DESC",
        }
        for page in count():
            answer = httpx.post(
                f"{self.live.api_url}/flow_runs/filter", json={**body, "offset": page * 200}, timeout=60
            )
            listed = answer.json()
            yield from listed
            if len(listed) < 200:
                return


@contextlib.contextmanager
def deployed(live: Live, name: str, schedules: Mapping[str, Mapping[str, Any]]) -> Iterator[Deployed]:
    """Create a deployment with these schedules, by name; it is deleted afterwards, with its runs.

    It is paused: the server's own scheduler leaves it alone.
    """
    texts = list(schedules)
    listed = [
        {"slug": f"line-{number}", "schedule": dict(schedules[text]), "active": True}
        for number, text in enumerate(texts)
    ]
    with live.api() as api:
        if api.pool(NOBODYS) is None:
            api.create_pool(NOBODYS, description=None)
        flow = api.create_flow(name)
        body = {"name": name, "flow_id": flow, "work_pool_name": NOBODYS, "work_queue_name": "default", "paused": True}
        deployment = _patiently(lambda: api.create_deployment({**body, "schedules": listed}))
        remote = api.deployment_by_id(deployment)
        assert remote is not None
        text_of = {each.id: texts[int(str(each.slug).removeprefix("line-"))] for each in remote.schedules}
        assert len(text_of) == len(texts)
        yield Deployed(live, deployment, text_of)
        _patiently(lambda: api.delete_flow(flow))


def _patiently(ask: Callable[[], Any]) -> Any:
    """Return what the server answers, once it is not busy any more."""

    def tried() -> tuple[Any] | None:
        with contextlib.suppress(PrefectUnreachable):
            return (ask(),)
        return None

    (answer,) = eventually(tried, within=120, poll=2)
    return answer
