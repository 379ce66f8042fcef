"""What an automation hands to the block, read; and the message that it makes with what this host knows. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchctl.core.alerts import Event, Message
from orchctl.core.deployments import CATALOG_TAG
from orchctl.core.names import is_name, is_run_id, parse_instant, run_id

_RUN = "prefect.flow-run."
_LINES = 20
# Prefect's own reasons may quote a whole traceback.
_REASON_MOST = 300


@dataclass(frozen=True, slots=True)
class Heard:
    """An event of Prefect. None: it does not say, or the run is gone.

    `route` is the route whose automation heard it; `name` is Prefect's name of the event; `expected` is the instant the
    run was scheduled for; `digest` that of the catalog its job comes from; `catalogs` those that it is tagged with: its
    own, and none where another orchctl synced it that did not tag.
    """

    route: str
    name: str
    at: datetime
    flow_run: str | None = None
    flow_run_name: str | None = None
    run_is_gone: bool = False
    job: str | None = None
    digest: str | None = None
    expected: datetime | None = None
    scheduled: bool = False
    slot: datetime | None = None
    backfill: bool = False
    pool: str | None = None
    said: str | None = None
    catalogs: frozenset[str] = frozenset()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids that the run may have: the one that follows from the flow run, and the name that it was given."""
        found = []
        if self.flow_run is not None and self.expected is not None:
            found.append(run_id(self.expected, self.flow_run))
        if self.flow_run_name is not None and is_run_id(self.flow_run_name):
            found.append(self.flow_run_name)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Known:
    """What this host knows of a run. `manifest` None: there is none; `lines` are the end of its output.

    `mode` None: nobody can tell whether Prefect owned the job.
    """

    run_id: str | None = None
    manifest: Mapping[str, Any] | None = None
    status: str | None = None
    reason: str | None = None
    lines: tuple[str, ...] = ()
    mode: str | None = None
    tags: tuple[str, ...] = field(default=())


def read(body: str) -> Heard:
    """Read what `alerts_plan.body` is filled in to. Raises ValueError on anything else."""
    try:
        data = json.loads(body)
        if not isinstance(data, dict) or data.get("orchctl") != 1:
            raise ValueError("it is no message of an automation of orchctl")
        resource = {str(key): str(value) for key, value in data["resource"].items()}
        name = str(data["event"])
        if name.startswith("prefect.work-pool."):
            pool = resource.get("prefect.resource.name")
            return Heard(str(data["route"]), name, _instant(data["at"]), pool=pool)
        return _of_run(data, name, resource)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no message of an automation of orchctl: {error!r:.80}") from error


def _of_run(data: Mapping[str, Any], name: str, resource: Mapping[str, str]) -> Heard:
    run = data.get("flow_run") or {}
    parameters = run.get("parameters") or {}
    job = parameters.get("job") or _deployment(data.get("related") or [])
    digest, slot = parameters.get("digest"), parameters.get("slot")
    return Heard(
        route=str(data["route"]),
        name=name,
        at=_instant(data["at"]),
        flow_run=resource["prefect.resource.id"].removeprefix(_RUN),
        flow_run_name=run.get("name") or resource.get("prefect.resource.name"),
        run_is_gone=not run,
        job=job if isinstance(job, str) and is_name(job) else None,
        digest=digest if isinstance(digest, str) else None,
        expected=_instant(run["expected_start_time"]) if run.get("expected_start_time") else None,
        scheduled=run.get("auto_scheduled") is True,
        slot=parse_instant(slot) if isinstance(slot, str) and slot else None,
        backfill=bool(parameters.get("backfill")),
        said=resource.get("prefect.state-message") or None,
        catalogs=frozenset(_catalogs(data.get("related") or [], run.get("tags") or [])),
    )


def why_not(heard: Heard, known: Known) -> str | None:
    """Return why an event is not told at all, None where it is."""
    if heard.pool is not None:
        return None
    if heard.job is None:
        return "it is not of a job"
    if heard.backfill:
        return "it is of a backfill, which tells by itself how it ended"
    if known.mode == "observe":
        return "the run only observes: the job is not Prefect's"
    if heard.run_is_gone and heard.name == f"{_RUN}Late":
        return "the run was taken back"
    return None


def event_of(heard: Heard, known: Known) -> Event | None:
    """Return which event it is, None where it is none of ours. Prefect's word for an end that is bad may be too plain:
    the manifest knows better.
    """
    plain: dict[str, Event] = {
        f"{_RUN}Crashed": "crashed",
        f"{_RUN}Late": "late",
        f"{_RUN}Completed": "recovered",
        "prefect.work-pool.not-ready": "worker_gone",
        "prefect.work-pool.ready": "recovered",
    }
    if heard.name != f"{_RUN}Failed":
        return plain.get(heard.name)
    error = (known.manifest or {}).get("error")
    kind = error.get("type") if isinstance(error, Mapping) else None
    if known.status == "crashed" or kind == "Crashed":
        return "crashed"
    return "timed_out" if kind == "TimedOut" else "failed"


def message(heard: Heard, known: Known, event: Event, *, host: str, ui_url: str) -> Message:
    """Return the message; the caller masks it."""
    if heard.pool is not None:
        return Message(
            event,
            heard.at,
            host,
            about=f"work pool {heard.pool}",
            reason="Prefect has not heard of a worker of it" if event == "worker_gone" else "a worker asks for runs",
            ui_url=f"{ui_url}/work-pools/work-pool/{heard.pool}",
            command="orchctl host status",
        )
    manifest = known.manifest or {}
    code = manifest.get("exit_code")
    due = _slot(manifest.get("slot")) or heard.slot or (heard.expected if heard.scheduled else None)
    good = event == "recovered"
    run = known.run_id or (heard.run_ids[0] if heard.run_ids and event != "late" else None)
    return Message(
        event,
        heard.at,
        host,
        job=heard.job,
        slot=due,
        run_id=run,
        exit_code=code if isinstance(code, int) and not good else None,
        reason=None if good else _reason(heard, known, event),
        last_lines=() if good else known.lines[-_LINES:],
        ui_url=f"{ui_url}/runs/flow-run/{heard.flow_run}",
        command=f"orchctl runs show {known.run_id}" if known.run_id is not None else f"orchctl status {heard.job}",
    )


def _reason(heard: Heard, known: Known, event: Event) -> str | None:
    if event == "late":
        return "no worker has taken the run"
    reason = known.reason or heard.said
    return reason[:_REASON_MOST] if reason else None


def _deployment(related: Any) -> str | None:
    for each in related:
        if each.get("prefect.resource.role") == "deployment":
            name = each.get("prefect.resource.name")
            return str(name) if name else None
    return None


def _catalogs(related: Any, tags: Any) -> Iterator[str]:
    """Yield the catalogs that a run is tagged with: Prefect relates it to the tags of its deployment."""
    found = [str(each.get("prefect.resource.id", "")) for each in related]
    for tag in [*(each.removeprefix("prefect.tag.") for each in found), *map(str, tags)]:
        if tag.startswith(CATALOG_TAG):
            yield tag.removeprefix(CATALOG_TAG)


def _slot(text: object) -> datetime | None:
    return parse_instant(text) if isinstance(text, str) else None


def _instant(text: object) -> datetime:
    """Read one of Prefect's instants: with a space, or more digits, where ours have a T and six."""
    return parse_instant(datetime.fromisoformat(str(text)).isoformat())
