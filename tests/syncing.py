"""Plan and sync as an operator does them, in process, against the fake or a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.catalog import Catalog
from orchctl.core.plan import Change, Plan
from orchctl.core.remote import RemoteDeployment, RemoteRun, RemoteSchedule
from orchctl.errors import PrefectRejected
from orchctl.services import sync
from orchctl.services.ports import Applied, Prefect

NOBODYS = "nobody"
"""A work pool without a worker: what is due there stays where it is."""


@dataclass
class Operator:
    """Somebody with a catalog, a state directory and a server."""

    prefect: Prefect
    applied: Applied
    state_dir: str
    catalog: Catalog
    now: Callable[[], datetime]

    def plan(self, *only: str, prune: bool = False) -> Plan:
        return sync.propose(
            self.catalog,
            self.prefect,
            self.applied,
            state_dir=self.state_dir,
            now=self.now(),
            only=only,
            prune=prune,
        )

    def apply(self, proposed: Plan) -> sync.Synced:
        return sync.apply(proposed, self.catalog, self.prefect, self.applied, now=self.now)

    def sync(self, *only: str, prune: bool = False) -> sync.Synced:
        return self.apply(self.plan(*only, prune=prune))

    def change(self, job: str) -> Change:
        """Return the one change that is pending, which must be that of `job`."""
        (change,) = self.plan().changes
        assert change.job == job
        return change

    def deployment(self, job: str) -> RemoteDeployment:
        found = self.prefect.deployment(job, job)
        assert found is not None, f"{job} has no deployment"
        return found

    def schedules(self, job: str) -> dict[str | None, RemoteSchedule]:
        """Return the schedules of a job by slug; fails where two have the same."""
        found = self.deployment(job).schedules
        by_slug = {each.slug: each for each in found}
        assert len(by_slug) == len(found)
        return by_slug

    def ids(self, job: str) -> dict[str | None, str]:
        return {slug: each.id for slug, each in self.schedules(job).items()}


def reasons(change: Change) -> dict[str, str]:
    """Return why each field and schedule of a change is in it."""
    found: dict[str, Any] = {item.field: item.because for item in change.fields}
    return found | {f"schedule {item.slug}": item.because for item in change.schedules}


class Wire(httpx.BaseTransport):
    """Real HTTP that counts what is not reading, and breaks where it is told to.

    `before` may answer or raise in the place of the server, `after` may raise although the server has done it.
    Both get the number of the writing call, None for one that reads. A call that is sent again (the client does
    so when a busy server turns it away or is silent) keeps its number.
    """

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.writes: list[str] = []
        self.heal()

    def heal(self) -> None:
        """Behave like a wire again, and count from 0."""
        self.writes.clear()
        self._last = b""
        self.before: Callable[[int | None, httpx.Request], httpx.Response | None] = lambda _number, _request: None
        self.after: Callable[[int | None], None] = lambda _number: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number = None
        if request.method != "GET" and not request.url.path.endswith(("/filter", "/paginate", "/count")):
            call = f"{request.method} {request.url.path} ".encode() + request.read()
            if call != self._last:
                self.writes.append(f"{request.method} {request.url.path}")
            self._last, number = call, len(self.writes) - 1
        instead = self.before(number, request)
        if instead is not None:
            return instead
        answer = self._inner.handle_request(request)
        answer.read()
        self.after(number)
        return answer

    def close(self) -> None:
        self._inner.close()


@dataclass
class Site(Operator):
    """An operator with a real server. `names` are the flows to delete at the end, besides those of the catalog."""

    api: PrefectApi
    wire: Wire
    names: set[str] = field(default_factory=set)

    def by_hand(self, method: str, path: str, body: Any = None) -> Any:
        return self.api.request(method, path, body)

    def patch(self, job: str, **body: Any) -> None:
        """Change a deployment as a person would."""
        self.by_hand("PATCH", f"/deployments/{self.deployment(job).id}", body)

    def patch_schedule(self, job: str, slug: str, **body: Any) -> None:
        path = f"/deployments/{self.deployment(job).id}/schedules/{self.ids(job)[slug]}"
        # Prefect takes silence for "no parameters".
        self.by_hand("PATCH", path, body)

    def add_schedule(self, job: str, **body: Any) -> None:
        self.by_hand("POST", f"/deployments/{self.deployment(job).id}/schedules", [body])

    def runs(self, job: str) -> list[RemoteRun]:
        """Return every run of a job in whatever state, by its slot."""
        wanted = {"deployments": {"name": {"any_": [job]}}}
        rows = self.api.listing("/flow_runs/paginate", wanted, sorts=("ID_DESC",))
        found = self.api.flow_runs([row["id"] for row in rows])
        return sorted(found, key=lambda run: (run.expected_start or datetime.max.replace(tzinfo=UTC), run.id))

    def forget(self) -> None:
        """Delete all of it from the server, and the files of the state directory."""
        self.wire.heal()
        for flow in self.api.flow_ids(self.names | set(self.catalog.jobs)).values():
            self.api.delete_flow(flow)
        for pool in {job.work_pool for job in self.catalog.jobs.values()} | {NOBODYS}:
            if pool != "tests":
                with contextlib.suppress(PrefectRejected):
                    self.by_hand("DELETE", f"/work_pools/{pool}")
        for path in Path(self.state_dir).glob("applied/*"):
            path.unlink()
        self.wire.heal()


@contextlib.contextmanager
def site(api_url: str, state_dir: Path, wanted: Catalog, **options: Any) -> Iterator[Site]:
    """Yield an operator who leaves nothing on the server. `options` are those of PrefectApi."""
    wire = Wire()
    with PrefectApi(url=api_url, transport=wire, **options) as api:
        made = Site(
            api, AppliedCatalogs(state_dir), str(state_dir), wanted, lambda: datetime.now(UTC), api=api, wire=wire
        )
        try:
            yield made
        finally:
            made.forget()
