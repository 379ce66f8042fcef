"""What `alerts list` and `alerts apply` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.alerts import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchctl.core.alerts_plan import Change
    from orchctl.errors import OrchctlError
    from orchctl.services.alerts import ListedChannel, ListedRoute, Proposed
    from orchctl.wiring import Settings


def listed(
    channels: Sequence[ListedChannel],
    routes: Sequence[ListedRoute],
    problem: OrchctlError | None,
    zone: str,
    settings: Settings,
) -> None:
    """List channels and routes. `problem`: why Prefect was not reached, None: it was."""
    data = {"channels": [_channel(each) for each in channels], "routes": [_route(each) for each in routes]}
    errors = [] if problem is None else [{"code": problem.code, "message": problem.message, "hint": problem.hint}]

    def text() -> None:
        rows = [(each.channel.name, each.channel.kind, each.channel.shown, *_last(each, zone)) for each in channels]
        if not rows:
            render.note("alerts.toml has no channels")
            return
        render.table(("CHANNEL", "KIND", "TO", "LAST", "ANSWER"), rows, settings, flexible="ANSWER")
        render.line()
        table = [
            (
                each.route.name,
                ", ".join(each.route.events),
                _whose(each),
                ", ".join(each.route.channels),
                each.state,
            )
            for each in routes
        ]
        render.table(("ROUTE", "EVENTS", "OF", "TO", "IN PREFECT"), table, settings, flexible="EVENTS")
        if problem is not None:
            render.note(f"whether Prefect has them is not known: {problem.message}")
        elif any(each.state in {"not applied", "differs"} for each in routes):
            render.note("`orchctl alerts apply` brings them into force")

    render.emit("alerts list", data, text, settings, errors=errors)


def planned(proposed: Proposed, settings: Settings) -> None:
    """Show what `alerts apply` would do."""
    data = {"changes": [_change(each) for each in proposed.plan.changes], "writes": proposed.writes}

    def text() -> None:
        _changes(proposed.plan.changes, would=True)
        if proposed.writes:
            render.line("this host would be told where the channels lead")
        if proposed.empty:
            render.note("nothing to do: Prefect and this host are as alerts.toml says")
        _off(proposed)

    render.emit("alerts apply", data, text, settings)


def applied(proposed: Proposed, done: Sequence[Change], settings: Settings) -> None:
    """Show what `alerts apply` did."""
    data = {
        "changes": [_change(each) for each in done],
        "writes": proposed.writes,
        "switched_off": list(proposed.plan.switched_off),
    }

    def text() -> None:
        _changes(done, would=False)
        if proposed.writes:
            render.line("this host knows where the channels lead")
        if proposed.empty:
            render.note("nothing to do: Prefect and this host are as alerts.toml says")
        _off(proposed)

    render.emit("alerts apply", data, text, settings)


def _off(proposed: Proposed) -> None:
    for name in proposed.plan.switched_off:
        render.note(f"automation {name} is switched off in Prefect; it stays so")


def _changes(changes: Sequence[Change], *, would: bool) -> None:
    done = {"create": "created", "update": "updated", "delete": "deleted"}
    for each in changes:
        fields = f" ({', '.join(each.fields)})" if each.fields else ""
        render.line(f"{each.kind} {each.name}: {each.action if would else done[each.action]}{fields}")


def _change(change: Change) -> dict[str, Any]:
    return {"kind": change.kind, "action": change.action, "name": change.name, "fields": list(change.fields)}


def _last(each: ListedChannel, zone: str) -> tuple[str, str]:
    waiting = f", {len(each.box.waiting)} waiting" if each.box.waiting else ""
    waiting += f", {each.box.dropped} given up" if each.box.dropped else ""
    if each.last is None:
        return "-", f"never used{waiting}"
    from zoneinfo import ZoneInfo

    at = f"{each.last.at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}"
    return at, f"{'ok' if each.last.ok else 'failed'}: {each.last.said}{waiting}"


def _whose(each: ListedRoute) -> str:
    tags = [f"tag {tag}" for tag in each.route.tags]
    everything = "every job" if set(each.route.events) & set(FAILURES) else "this host"
    return ", ".join((*each.route.jobs, *tags)) or everything


def _channel(each: ListedChannel) -> dict[str, Any]:
    channel = each.channel
    return {
        "name": channel.name,
        "kind": channel.kind,
        "to": channel.shown,
        "events": list(each.events),
        "last": each.last.to_json() if each.last is not None else None,
        "waiting": len(each.box.waiting),
        "troubles": sorted(each.box.troubles),
        "given_up": each.box.dropped,
    }


def _route(each: ListedRoute) -> dict[str, Any]:
    route = each.route
    return {
        "name": route.name,
        "events": list(route.events),
        "jobs": list(route.jobs),
        "tags": list(route.tags),
        "channels": list(route.channels),
        "by_prefect": list(each.by_prefect),
        "by_watchdog": list(each.by_watchdog),
        "state": each.state,
    }
