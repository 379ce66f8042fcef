"""`alerts list` and `alerts apply`: gather, plan purely, apply, read back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchctl.core import alerts_plan
from orchctl.core.alert_box import Box
from orchctl.core.alerts import BY_PREFECT, BY_WATCHDOG, Alerts, Channel, Route
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.alerts_plan import Change, Gathered, Plan, RemoteAutomation, RemoteBlock
from orchctl.core.deliveries import Delivery
from orchctl.errors import OrchctlError, PartialFailure, PrefectApiError, StateBroken

_AGAIN = "run `orchctl alerts apply` again: it goes on from what is there"


class AlertsInPrefect(Protocol):
    """Blocks and automations. See `adapters/prefect_automations.py`."""

    def ui_url(self) -> str: ...  # noqa: D102
    def alert_blocks(self) -> tuple[RemoteBlock, ...]: ...  # noqa: D102
    def set_alert_block(self, name: str, data: Mapping[str, Any], *, id: str | None) -> str: ...  # noqa: A002, D102
    def delete_block(self, id: str) -> None: ...  # noqa: A002, D102
    def automations(self) -> tuple[RemoteAutomation, ...]: ...  # noqa: D102
    def create_automation(self, body: Mapping[str, Any]) -> None: ...  # noqa: D102
    def update_automation(self, id: str, body: Mapping[str, Any]) -> None: ...  # noqa: A002, D102
    def delete_automation(self, id: str) -> None: ...  # noqa: A002, D102


class InForce(Protocol):
    """What is in force on this host, and what its channels still have to be told. See `adapters/alert_boxes.py`."""

    def applied(self, catalog: str) -> AppliedAlerts | None: ...  # noqa: D102
    def apply(self, applied: AppliedAlerts) -> None: ...  # noqa: D102
    def box(self, catalog: str, channel: str) -> Box: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Proposed:
    """What `alerts apply` would do: in Prefect, and on this host's disk (`writes`)."""

    plan: Plan
    wanted: AppliedAlerts
    writes: bool

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return self.plan.empty and not self.writes


@dataclass(frozen=True, slots=True)
class ListedChannel:
    """A channel: where it leads, and how it answered last; None: it was never used. `box` is what it has to be told."""

    channel: Channel
    events: tuple[str, ...]
    last: Delivery | None
    box: Box


@dataclass(frozen=True, slots=True)
class ListedRoute:
    """A route, and who tells its events. `state`: `in force`, `not applied`, `differs` or `switched off` in Prefect;
    `not known` where Prefect was not reached.
    """

    route: Route
    by_prefect: tuple[str, ...]
    by_watchdog: tuple[str, ...]
    state: str


def propose(alerts: Alerts, catalog: str, pools: Collection[str], prefect: AlertsInPrefect, host: InForce) -> Proposed:
    """Return what `alerts apply` would do. Makes no mutating call and writes nothing."""
    wanted = AppliedAlerts(catalog, prefect.ui_url(), alerts)
    try:
        before = host.applied(catalog)
    except StateBroken:
        before = None
    writes = before is None or before.to_json() != wanted.to_json()
    return Proposed(_plan(alerts, catalog, pools, prefect), wanted, writes)


def _plan(alerts: Alerts, catalog: str, pools: Collection[str], prefect: AlertsInPrefect) -> Plan:
    gathered = Gathered(prefect.alert_blocks(), prefect.automations())
    return alerts_plan.plan(alerts, catalog, pools, gathered)


def apply(
    proposed: Proposed,
    pools: Collection[str],
    prefect: AlertsInPrefect,
    host: InForce,
    *,
    progress: Callable[[Change], None] = lambda _change: None,
) -> tuple[Change, ...]:
    """Carry it out, then read everything back; return the changes that were made. Repeatable.

    Raises PartialFailure (saying what was done) or the error itself where nothing was done, and PrefectApiError where
    Prefect kept something else than it was given.
    """
    plan = proposed.plan
    if proposed.writes:
        # First: an automation that fires from here on finds its channel.
        host.apply(proposed.wanted)
    ids = dict(plan.block_ids)
    done: list[Change] = []
    for change in plan.changes:
        try:
            _apply_one(change, plan, prefect, ids)
        except OrchctlError as error:
            raise _stopped(error, change, done, plan) from error
        done.append(change)
        progress(change)
    if done:
        left = _plan(proposed.wanted.alerts, plan.catalog, pools, prefect)
        if not left.empty:
            names = ", ".join(f"{each.kind} {each.name}" for each in left.changes)
            raise PrefectApiError(
                f"Prefect kept something else than it was given: {names}",
                hint="see `orchctl alerts apply --dry-run`; somebody else may be changing the same",
            )
    return tuple(done)


def _apply_one(change: Change, plan: Plan, prefect: AlertsInPrefect, ids: dict[str, str]) -> None:
    if change.kind == "block":
        if change.action == "delete":
            prefect.delete_block(_id(change))
        else:
            ids[change.name] = prefect.set_alert_block(change.name, plan.blocks[change.name].data, id=change.id)
    elif change.action == "delete":
        prefect.delete_automation(_id(change))
    else:
        body = plan.automations[change.name].to_body(ids, enabled=change.enabled)
        if change.action == "create":
            prefect.create_automation(body)
        else:
            prefect.update_automation(_id(change), body)


def _id(change: Change) -> str:
    if change.id is None:
        raise OrchctlError(f"{change.kind} {change.name}: the plan does not say which to change")
    return change.id


def _stopped(error: OrchctlError, change: Change, done: list[Change], plan: Plan) -> OrchctlError:
    left = len(plan.changes) - len(done) - 1
    message = f"{change.kind} {change.name}: {error.message}; {len(done)} of {len(plan.changes)} changes were made, "
    stopped = PartialFailure(message + f"{left} were not begun", hint=_AGAIN)
    if not done:
        stopped.exit_code, stopped.code = error.exit_code, error.code
    return stopped


def channels(alerts: Alerts, catalog: str, last: Mapping[str, Delivery], host: InForce) -> tuple[ListedChannel, ...]:
    """Return the channels, by name. Asks nobody."""
    return tuple(
        ListedChannel(
            channel,
            tuple(dict.fromkeys(event for route in alerts.routes if name in route.channels for event in route.events)),
            last.get(name),
            host.box(catalog, name),
        )
        for name, channel in sorted(alerts.channels.items())
    )


def routes(alerts: Alerts, catalog: str, proposed: Proposed | None) -> tuple[ListedRoute, ...]:
    """Return the routes, by name. `proposed` None: Prefect was not reached."""
    return tuple(
        ListedRoute(
            route,
            tuple(event for event in route.events if event in BY_PREFECT),
            tuple(event for event in route.events if event in BY_WATCHDOG and event != "recovered"),
            _state(route, catalog, proposed),
        )
        for route in alerts.routes
    )


def _state(route: Route, catalog: str, proposed: Proposed | None) -> str:
    if not set(route.events) & set(BY_PREFECT):
        return "watchdog only"
    if proposed is None:
        return "not known"
    names = {each.name for each in proposed.plan.automations.values() if alerts_plan.is_of(each.name, catalog, route)}
    blocks = {alerts_plan.block_name(catalog, channel) for channel in route.channels}
    pending = [each for each in proposed.plan.changes if each.name in names or each.name in blocks]
    if any(each.action == "create" and each.kind == "automation" for each in pending):
        return "not applied"
    if pending or proposed.writes:
        return "differs"
    off = names & set(proposed.plan.switched_off)
    return "switched off" if off == names else "partly switched off" if off else "in force"
