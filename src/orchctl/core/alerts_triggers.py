"""The triggers of a route's automations: which events of Prefect it waits for, and what it hands on. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from orchctl.core.alerts import Alerts, Event, Route
from orchctl.core.deployments import TAG

# A failure may last; Prefect forgets at the end of this what it waits for.
_LONGEST_TROUBLE_S = 30 * 86400
# Prefect's heartbeat of a worker, times those it may miss (PREFECT_SERVER_SERVICES_FOREMAN_…).
_PREFECT_NOTICES_S = 90
_LEAST_S = 10
_RUN = "prefect.flow-run."
_STARTS = tuple(
    f"{_RUN}{state}"
    for state in (
        "AwaitingConcurrencySlot",
        "Cancelled",
        "Cancelling",
        "Completed",
        "Crashed",
        "Failed",
        "Observed",
        "Pending",
        "Running",
        "Skipped",
    )
)


def triggers(route: Route, alerts: Alerts, pools: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return what is waited for, in words and as the JSON of a trigger: one for each way in which Prefect notices."""
    events = set(route.events)
    ends = _states(events)
    found: list[tuple[str, dict[str, Any]]] = []
    if ends:
        found.append((" or ".join(_named(events, ("failed", "timed_out", "crashed"))), _runs(route, ends)))
    if "late" in events:
        found.append(("late", _late(route, alerts.late_after)))
    if "recovered" in events and (ends or "late" in events):
        began = ends + ([f"{_RUN}Late"] if "late" in events else [])
        found.append(("recovered", _recovered(route, began)))
    if "worker_gone" in events:
        after_s = max(_LEAST_S, alerts.watchdog.worker_after - _PREFECT_NOTICES_S)
        found.append(("worker gone", _pool_gone(pools, after_s)))
        if "recovered" in events:
            found.append(("worker back", _pool_back(pools)))
    return found


def body(route: str) -> str:
    """Return the template of what an automation hands to the block: JSON that `core/alert_heard.py` reads."""
    parts = {
        "event": "event.event",
        "at": "event.occurred | string",
        "resource": "event.resource",
        "related": "event.related",
        "flow_run": "flow_run",
    }
    filled = ", ".join(f'"{key}": {{{{ {value} | tojson }}}}' for key, value in parts.items())
    return f'{{"orchctl": 1, "route": "{route}", {filled}}}'


def _named(events: Collection[Event], order: tuple[Event, ...]) -> list[str]:
    return [event.replace("_", " ") for event in order if event in events]


def _states(events: Collection[Event]) -> list[str]:
    """Return Prefect's events of runs that end badly. What a run ended of, its manifest says, not Prefect."""
    failed = [f"{_RUN}Failed"] if {"failed", "timed_out", "crashed"} & set(events) else []
    return failed + ([f"{_RUN}Crashed"] if "crashed" in events else [])


def _event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "event",
        "match": {},
        "match_related": {},
        "after": [],
        "expect": [],
        "for_each": [],
        "posture": "Reactive",
        "threshold": 1,
        "within": 0.0,
        **fields,
    }


def _related(route: Route) -> list[dict[str, Any]]:
    """Return what runs are related to: deployments of ours, of these names, or with these tags.

    Where a route has both names and tags, Prefect cannot say "or": then the block decides alone.
    """
    found: list[dict[str, Any]] = [{"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}]
    if route.jobs and not route.tags:
        found.append({"prefect.resource.role": "deployment", "prefect.resource.name": sorted(route.jobs)})
    if route.tags and not route.jobs:
        tags = [f"prefect.tag.{tag}" for tag in sorted(route.tags)]
        found.append({"prefect.resource.role": "tag", "prefect.resource.id": tags})
    return found


def _runs(route: Route, states: list[str]) -> dict[str, Any]:
    return _event(
        match={"prefect.resource.id": f"{_RUN}*"},
        match_related=_related(route),
        expect=states,
        for_each=["prefect.resource.id"],
    )


def _late(route: Route, after_s: int) -> dict[str, Any]:
    return _event(
        match={"prefect.resource.id": f"{_RUN}*"},
        match_related=_related(route),
        after=[f"{_RUN}Late"],
        expect=list(_STARTS),
        for_each=["prefect.resource.id"],
        posture="Proactive",
        within=float(after_s),
    )


def _recovered(route: Route, began: list[str]) -> dict[str, Any]:
    return _event(
        match={"prefect.resource.id": f"{_RUN}*"},
        match_related=_related(route),
        after=began,
        expect=[f"{_RUN}Completed"],
        for_each=["related:deployment:prefect.resource.id"],
        within=float(_LONGEST_TROUBLE_S),
    )


def _pool_gone(pools: Collection[str], after_s: int) -> dict[str, Any]:
    return _event(
        match={"prefect.resource.id": "prefect.work-pool.*", "prefect.resource.name": sorted(pools)},
        after=["prefect.work-pool.not-ready"],
        expect=["prefect.work-pool.ready"],
        for_each=["prefect.resource.id"],
        posture="Proactive",
        within=float(after_s),
    )


def _pool_back(pools: Collection[str]) -> dict[str, Any]:
    return _event(
        match={"prefect.resource.id": "prefect.work-pool.*", "prefect.resource.name": sorted(pools)},
        after=["prefect.work-pool.not-ready"],
        expect=["prefect.work-pool.ready"],
        for_each=["prefect.resource.id"],
        within=float(_LONGEST_TROUBLE_S),
    )
