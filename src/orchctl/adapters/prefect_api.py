"""The Prefect API, as far as orchctl uses it: one method a call, answers in the shapes of `core.remote`.

Every method raises PrefectUnreachable, PrefectUnauthorized, PrefectRejected (a 4xx) or PrefectApiError, and
no error of httpx. "Repeatable" below means: doing it twice leaves what doing it once leaves, so it is sent
again when the connection is lost; the rest only where the first try cannot have been carried out.
Reading is always repeatable. Ids are the server's UUIDs as strings.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchctl.adapters import prefect_parse as parsing
from orchctl.adapters.prefect_automations import PrefectAutomations
from orchctl.adapters.prefect_http import PAGE
from orchctl.errors import PrefectRejected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from orchctl.core.remote import RemoteDeployment, RemotePool, RemoteRun, RemoteWorker

# SQLite took 40,000 names in one query; asyncpg, for Postgres, allows 32,767 parameters.
_NAMES_A_QUERY = 10_000
_WAITING: Mapping[str, Any] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
_NOT_BEGUN: Mapping[str, Any] = {"state": {"type": {"any_": ["SCHEDULED", "PENDING"]}}}


class PrefectApi(PrefectAutomations):
    """Prefect's HTTP API. How it connects, retries and fails is said at `PrefectHttp`."""

    def version(self) -> str:
        """Return the version of the server, such as "3.8.8"."""
        return self.shaped(parsing.version, self.request("GET", "/admin/version"))

    def ui_url(self) -> str:
        """Return the address of the UI: that of the API without `/api`. Asks nobody."""
        return self.shown.removesuffix("/api")

    def run_url(self, run_id: str) -> str:
        """Return the address of a flow run in the UI. Asks nobody."""
        return f"{self.ui_url()}/runs/flow-run/{run_id}"

    def pool(self, name: str) -> RemotePool | None:
        """Return a work pool, or None if there is none of this name."""
        if not _can_exist(name):
            return None
        data = self.request("GET", f"/work_pools/{_segment(name)}", ok404=True)
        return None if data is None else self.shaped(parsing.pool, data)

    def create_pool(self, name: str, *, description: str | None) -> None:
        """Make a work pool of type process with Prefect's default job template.

        Repeatable within the call: later, PrefectRejected with status 409.
        """
        metadata = self.request("GET", "/collections/views/aggregate-worker-metadata")
        template = self.shaped(parsing.process_template, metadata)
        body = {"name": name, "type": "process", "description": description, "base_job_template": template}
        self.request("POST", "/work_pools/", body, repeatable=True, done_if=409)

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        """Return the workers of a pool, the one heard of last first; at most 200.

        The server lists them in no other order, so all that are online come before those long gone.
        Raises PrefectRejected with status 404 if there is no such pool.
        """
        data = self.request("POST", f"/work_pools/{_segment(pool)}/workers/filter", {"limit": PAGE})
        return self.shaped(lambda rows: tuple(parsing.worker(row) for row in parsing.rows(rows)), data)

    def deployments(self, *, names: Collection[str], tag: str) -> tuple[RemoteDeployment, ...]:
        """Return the deployments that carry the tag or have one of the names, by name and id."""
        tagged = {"tags": {"all_": [tag]}}
        found: dict[str, RemoteDeployment] = {}
        for chunk in _chunks(names, _NAMES_A_QUERY) if names else [[]]:
            wanted = {"operator": "or_", "name": {"any_": chunk}, **tagged} if chunk else tagged
            rows = self.listing("/deployments/paginate", {"deployments": wanted}, sorts=("CREATED_DESC", "NAME_ASC"))
            found.update((each.id, each) for each in (self.shaped(parsing.deployment, row) for row in rows))
        return tuple(sorted(found.values(), key=lambda each: (each.name, each.id)))

    def deployment(self, flow_name: str, name: str) -> RemoteDeployment | None:
        """Return the deployment of this name and flow, or None."""
        if not (_can_exist(flow_name) and _can_exist(name)):
            return None
        return self._deployment(f"/deployments/name/{_segment(flow_name)}/{_segment(name)}")

    def deployment_by_id(self, id: str) -> RemoteDeployment | None:  # noqa: A002 - the word of the domain
        """Return the deployment of this id, or None."""
        return self._deployment(f"/deployments/{_segment(id)}")

    def flow_names(self, ids: Collection[str]) -> dict[str, str]:
        """Return the name of each flow by its id; ids that do not exist are left out."""
        return dict(self._flows("id", ids))

    def flow_ids(self, names: Collection[str]) -> dict[str, str]:
        """Return the id of each flow by its name; names that do not exist are left out."""
        return {name: key for key, name in self._flows("name", names)}

    def create_flow(self, name: str) -> str:
        """Return the id of the flow of this name, made if it was not there. Repeatable."""
        return self.shaped(parsing.new_id, self.request("POST", "/flows/", {"name": name}, repeatable=True))

    def delete_flow(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Delete a flow and its deployments. Raises PrefectRejected with status 404 if there is none."""
        self._delete(f"/flows/{_segment(id)}")

    def create_deployment(self, body: Mapping[str, Any]) -> str:
        """Make a deployment and return its id; one of the same flow and name is overwritten. Repeatable.

        Overwriting gives all its schedules new ids and activates those that were not: change an existing one
        with `update_deployment` and the methods for schedules.
        """
        data = self.request("POST", "/deployments/", dict(body), repeatable=True)
        return self.shaped(parsing.new_id, data)

    def update_deployment(self, id: str, body: Mapping[str, Any]) -> None:  # noqa: A002 - the word of the domain
        """Set the fields in `body`. Repeatable, if `body` holds no `schedules`."""
        self.request("PATCH", f"/deployments/{_segment(id)}", dict(body))

    def delete_deployment(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Delete a deployment, its schedules and the runs it still waits for.

        Repeatable within the call: later, PrefectRejected with status 404.
        """
        self._delete(f"/deployments/{_segment(id)}")

    def pause_deployment(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Pause a deployment, and delete the runs its schedules made that wait, also the late ones.

        Not those that wait for a concurrency slot or a retry, nor Pending ones. Repeatable; PrefectRejected with
        status 404 if there is none.
        """
        self.request("POST", f"/deployments/{_segment(id)}/pause_deployment", repeatable=True)

    def resume_deployment(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Let the schedules of a deployment make runs again, from the scheduler's next round on; none is made here.

        Schedules that are paused themselves stay so. Repeatable; PrefectRejected with status 404 if there is none.
        """
        self.request("POST", f"/deployments/{_segment(id)}/resume_deployment", repeatable=True)

    def add_schedules(self, deployment_id: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Add schedules to a deployment, all or none. Not repeatable: after a lost answer, look first."""
        if bodies:
            path = f"/deployments/{_segment(deployment_id)}/schedules"
            self.request("POST", path, [dict(body) for body in bodies], repeatable=False)

    def update_schedule(self, deployment_id: str, schedule_id: str, body: Mapping[str, Any]) -> None:
        """Set fields of a schedule in place; its future runs are made anew. Repeatable."""
        path = f"/deployments/{_segment(deployment_id)}/schedules/{_segment(schedule_id)}"
        self.request("PATCH", path, dict(body))

    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """Delete a schedule, and all waiting runs that any schedule of this deployment made.

        Repeatable within the call: later, PrefectRejected with status 404.
        """
        self._delete(f"/deployments/{_segment(deployment_id)}/schedules/{_segment(schedule_id)}")

    def schedule_from(self, deployment_id: str, start: datetime) -> None:
        """Let the server make the runs of the deployment's active schedules from `start` (UTC) on, at once.

        Repeatable: a run that is there already, in whatever state, is not made again.
        """
        path = f"/deployments/{_segment(deployment_id)}/schedule"
        self.request("POST", path, {"start_time": start.isoformat()}, repeatable=True)

    def scheduled_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]:
        """Return the runs in a state of type SCHEDULED (also Late, AwaitingRetry, …), by expected start."""
        found: list[RemoteRun] = []
        for chunk in _chunks(deployment_ids, PAGE):
            found += self._runs({"deployment_id": {"any_": chunk}, **_WAITING})
        return _by_start(found)

    def waiting_runs(self, deployment_ids: Collection[str]) -> tuple[RemoteRun, ...]:
        """Return the runs that have not begun (types SCHEDULED and PENDING), by expected start.

        Workers take them whether the deployment is paused or not; a Pending one has been taken, and is about to begin.
        """
        found: list[RemoteRun] = []
        for chunk in _chunks(deployment_ids, PAGE):
            found += self._runs({"deployment_id": {"any_": chunk}, **_NOT_BEGUN})
        return _by_start(found)

    def next_runs(self, deployment_ids: Collection[str], *, now: datetime) -> tuple[RemoteRun, ...]:
        """Return runs that wait, by expected start: at least the first of each deployment that is due after `now`.

        One request where the 200 runs that are due first hold one of each; for the deployments left over, others.
        """
        found: dict[str, RemoteRun] = {}
        left, wanted = set(deployment_ids), dict(_WAITING)
        while left:
            body = {"flow_runs": {"deployment_id": {"any_": sorted(left)}, **wanted}, "limit": PAGE}
            rows = self.request("POST", "/flow_runs/filter", {**body, "sort": "EXPECTED_START_TIME_ASC"})
            runs = [self.shaped(parsing.run, row) for row in self.shaped(parsing.rows, rows)]
            found.update((run.id, run) for run in runs)
            if len(runs) < PAGE:
                break
            left -= {run.deployment_id for run in runs if run.expected_start is not None and run.expected_start >= now}
            # Those that are late may fill the first page, and have been seen.
            wanted["expected_start_time"] = {"after_": now.isoformat()}
        return _by_start(found.values())

    def taken_runs(self, pool: str, states: Collection[str], *, since: datetime) -> tuple[RemoteRun, ...]:
        """Return a pool's runs in states of these types that were to start at `since` or later, by expected start."""
        wanted = {"state": {"type": {"any_": list(states)}}, "expected_start_time": {"after_": since.isoformat()}}
        filters = {"flow_runs": wanted, "work_pools": {"name": {"any_": [pool]}}}
        rows = self.listing("/flow_runs/paginate", filters, sorts=("ID_DESC",))
        return _by_start(self.shaped(parsing.run, row) for row in rows)

    def flow_run(self, id: str) -> RemoteRun | None:  # noqa: A002 - the word of the domain
        """Return a flow run, or None if there is none of this id."""
        data = self.request("GET", f"/flow_runs/{_segment(id)}", ok404=True)
        return None if data is None else self.shaped(parsing.run, data)

    def tagged_runs(self, tag: str) -> tuple[RemoteRun, ...]:
        """Return the flow runs that carry the tag, whatever their state, by expected start."""
        return _by_start(self._runs({"tags": {"all_": [tag]}}))

    def flow_runs(self, ids: Collection[str]) -> tuple[RemoteRun, ...]:
        """Return the flow runs of these ids, in the order of `ids`; those that do not exist are left out."""
        found = {run.id: run for chunk in _chunks(ids, PAGE) for run in self._runs({"id": {"any_": chunk}})}
        return tuple(found[key] for key in dict.fromkeys(ids) if key in found)

    def create_run(
        self,
        deployment_id: str,
        *,
        parameters: Mapping[str, Any],
        idempotency_key: str,
        tags: Collection[str] = (),
        name: str | None = None,
        scheduled_for: datetime | None = None,
        work_queue: str | None = None,
    ) -> RemoteRun:
        """Return a new run of a deployment, or the one its flow already has for the key. Repeatable.

        `parameters` and `tags` are added to those of the deployment. `name` None lets the server choose one;
        `scheduled_for` (aware) None means at once, `work_queue` None the deployment's own; one that the pool does not
        have is made by the server.
        """
        body: dict[str, Any] = {"parameters": dict(parameters), "idempotency_key": idempotency_key}
        body |= {"tags": list(tags)} | ({} if name is None else {"name": name})
        body |= {} if work_queue is None else {"work_queue_name": work_queue}
        if scheduled_for is not None:
            moment = scheduled_for.astimezone(UTC).isoformat()
            body["state"] = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment}}
        path = f"/deployments/{_segment(deployment_id)}/create_flow_run"
        return self.shaped(parsing.run, self.request("POST", path, body, repeatable=True))

    def set_run_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Replace the parameters of a run. Repeatable; PrefectRejected with status 404 if there is no such run."""
        self.request("PATCH", f"/flow_runs/{_segment(run_id)}", {"parameters": dict(parameters)})

    def delete_run(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Delete a flow run. Repeatable within the call: later, PrefectRejected with status 404."""
        self._delete(f"/flow_runs/{_segment(id)}")

    def set_run_state(
        self,
        run_id: str,
        *,
        type: str,  # noqa: A002 - Prefect's word
        name: str | None = None,
        message: str | None = None,
        force: bool = False,
    ) -> None:
        """Propose a state for a run; with `force`, impose it. Not repeatable.

        After a lost answer, look first. The server also accepts most moves out of a finished state.
        `type` is one of Prefect's (CANCELLED, …); `name` None means the type's own name.
        Raises PrefectRejected: status 409 if the server did not accept it, 404 if there is no such run.
        """
        state = {"type": type, "name": name, "message": message}
        path = f"/flow_runs/{_segment(run_id)}/set_state"
        data = self.request("POST", path, {"state": state, "force": force}, repeatable=False)
        status, reason = self.shaped(parsing.state_answer, data)
        if status != "ACCEPT":
            said = self.quoted(f"{status}: {reason}" if reason else status)
            raise PrefectRejected(f"the Prefect API did not set run {run_id} to {name or type} ({said})", status=409)

    def logs(self, run_id: str, *, offset: int = 0, limit: int = PAGE) -> tuple[str, ...]:
        """Return what a run logged, oldest first: `limit` messages (at most 200) from number `offset` on."""
        wanted = {"flow_run_id": {"any_": [run_id]}}
        body = {"logs": wanted, "sort": "TIMESTAMP_ASC", "offset": offset, "limit": limit}
        return self.shaped(parsing.messages, self.request("POST", "/logs/filter", body))

    def _deployment(self, path: str) -> RemoteDeployment | None:
        data = self.request("GET", path, ok404=True)
        return None if data is None else self.shaped(parsing.deployment, data)

    def _delete(self, path: str) -> None:
        self.request("DELETE", path, done_if=404)

    def _flows(self, by: str, values: Collection[str]) -> Iterator[tuple[str, str]]:
        for chunk in _chunks(values, PAGE):
            filters = {"flows": {by: {"any_": chunk}}}
            for row in self.listing("/flows/paginate", filters, sorts=("NAME_ASC",)):
                yield self.shaped(parsing.id_and_name, row)

    def _runs(self, wanted: Mapping[str, Any]) -> list[RemoteRun]:
        # The order by expected start has ties. Ids are unique, and those of scheduled runs grow with time.
        rows = self.listing("/flow_runs/paginate", {"flow_runs": wanted}, sorts=("ID_DESC",))
        return [self.shaped(parsing.run, row) for row in rows]


def _by_start(runs: Iterable[RemoteRun]) -> tuple[RemoteRun, ...]:
    latest = datetime.max.replace(tzinfo=UTC)
    return tuple(sorted(runs, key=lambda run: (run.expected_start or latest, run.id)))


def _chunks(values: Collection[str], size: int) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), size):
        yield distinct[start : start + size]


def _can_exist(name: str) -> bool:
    """Whether Prefect allows the name. It does not allow a slash, and the path with one leads nowhere."""
    return bool(name) and "/" not in name


def _segment(name: str) -> str:
    """Return the name as one segment of a path, dots escaped where httpx would resolve "." or ".."."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")
