"""What alerts should look like in Prefect, and what is to be changed there: blocks and automations. Pure.

A block stands for a channel and holds its name and that of the catalog, nothing else: which address and which secret
that is, the host's own disk says (`alerts apply` writes it), so that nobody who reaches Prefect's API can send a file
of this host anywhere. An automation belongs to a route. Ours are marked by a tag; whether one is switched off belongs
to people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchctl.core.alerts import Alerts, Route
from orchctl.core.alerts_triggers import body, triggers
from orchctl.core.deployments import TAG, catalog_tag

BLOCK_TYPE = "orchctl-alert-channel"
BLOCK_TYPE_NAME = "orchctl alert channel"
BLOCK_DESCRIPTION = "A channel of orchctl's alerts.toml. The server's host knows where it leads."
# What `runner/alert_block.py` declares: a test compares the two.
BLOCK_FIELDS: Mapping[str, Any] = {
    "block_schema_references": {},
    "block_type_slug": BLOCK_TYPE,
    "description": BLOCK_DESCRIPTION,
    "properties": {
        "catalog": {"description": "The name of the catalog.", "position": 0, "title": "Catalog", "type": "string"},
        "channel": {"description": "The name of the channel.", "position": 1, "title": "Channel", "type": "string"},
    },
    "required": ["catalog", "channel"],
    "secret_fields": [],
    "title": "AlertChannel",
    "type": "object",
}
Action = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class RemoteBlock:
    """A block of ours as Prefect has it. `current`: it is of the form of this orchctl."""

    id: str
    name: str
    data: Mapping[str, Any]
    current: bool


@dataclass(frozen=True, slots=True)
class RemoteAutomation:
    """An automation as Prefect has it; `trigger` and `actions` are its JSON."""

    id: str
    name: str
    description: str
    enabled: bool
    tags: tuple[str, ...]
    trigger: Mapping[str, Any]
    actions: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What there is in Prefect. `blocks` are of our type, also those of other catalogs."""

    blocks: tuple[RemoteBlock, ...] = ()
    automations: tuple[RemoteAutomation, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedBlock:
    """A block as `alerts.toml` wants it."""

    name: str
    catalog: str
    channel: str

    @property
    def data(self) -> dict[str, str]:
        """What it holds."""
        return {"catalog": self.catalog, "channel": self.channel}


@dataclass(frozen=True, slots=True)
class WantedAutomation:
    """An automation as `alerts.toml` wants it; `blocks` are the names of those that its actions use, in order."""

    name: str
    description: str
    tags: tuple[str, ...]
    trigger: Mapping[str, Any]
    blocks: tuple[str, ...]
    body: str
    subject: str

    def to_body(self, ids: Mapping[str, str], *, enabled: bool) -> dict[str, Any]:
        """Return it under the names of Prefect's API; `ids` are those of the blocks, by name."""
        return {
            "name": self.name,
            "description": self.description,
            "enabled": enabled,
            "tags": list(self.tags),
            "trigger": dict(self.trigger),
            "actions": [self._action(ids[name]) for name in self.blocks],
        }

    def _action(self, block: str) -> dict[str, str]:
        return {
            "type": "send-notification",
            "block_document_id": block,
            "subject": self.subject,
            "body": self.body,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """A block or an automation to make, set or delete. `id` None: it is yet to be made. `fields`: what differs."""

    kind: Literal["block", "automation"]
    action: Action
    name: str
    id: str | None = None
    fields: tuple[str, ...] = ()
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What `alerts apply` would do. `switched_off` are automations of ours that somebody disabled: they stay so."""

    catalog: str
    blocks: Mapping[str, WantedBlock]
    automations: Mapping[str, WantedAutomation]
    changes: tuple[Change, ...]
    block_ids: Mapping[str, str]
    switched_off: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether everything is as it should be."""
        return not self.changes


def plan(alerts: Alerts, catalog: str, pools: Collection[str], gathered: Gathered) -> Plan:
    """Return the changes that turn Prefect into what `alerts` of this catalog wants.

    Blocks come before the automations that use them, and are deleted after those that did. Applying a plan and
    planning again gives none.
    """
    wanted = {each.name: each for route in alerts.routes for each in _of_route(route, alerts, catalog, pools)}
    used = {name for each in wanted.values() for name in each.blocks}
    blocks = {block.name: block for block in _blocks(alerts, catalog) if block.name in used}
    # Under one of these names there can be no other catalog's: what says otherwise was changed by hand.
    there = {each.name: each for each in gathered.blocks if each.data.get("catalog") == catalog or each.name in blocks}
    ours = [each for each in gathered.automations if is_ours(each, catalog)]
    changes = [_block_change(block, there.get(name)) for name, block in sorted(blocks.items())]
    ids = {name: each.id for name, each in there.items()}
    found: dict[str, RemoteAutomation] = {}
    surplus = []
    for each in ours:
        if each.name in wanted and each.name not in found:
            found[each.name] = each
        else:
            surplus.append(Change("automation", "delete", each.name, each.id))
    changes += [_automation_change(each, found.get(name), ids) for name, each in sorted(wanted.items())]
    changes += surplus
    changes += [Change("block", "delete", name, each.id) for name, each in sorted(there.items()) if name not in blocks]
    off = tuple(sorted(name for name, each in found.items() if not each.enabled))
    return Plan(catalog, blocks, wanted, tuple(each for each in changes if each is not None), ids, off)


def is_ours(automation: RemoteAutomation, catalog: str) -> bool:
    """Whether an automation is one of this catalog's: by its name, and by its tag or its description."""
    marked = catalog_tag(catalog) in automation.tags or automation.description.startswith(_description(catalog))
    return marked and automation.name.startswith(_prefix(catalog))


def is_of(automation: str, catalog: str, route: Route) -> bool:
    """Whether the automation of this name is one of a route."""
    return automation.startswith(f"{_prefix(catalog)}{route.name}, ")


def block_name(catalog: str, channel: str) -> str:
    """Return the name of a channel's block: Prefect allows lower letters, digits and dashes there.

    No other channel of any catalog has it: `ops` and `live-mail` read like `ops-live` and `mail`.
    """
    mark = hashlib.sha256(json.dumps([catalog, channel]).encode()).hexdigest()[:8]
    return f"orchctl-{catalog}-{channel}-{mark}".replace("_", "-")


def _prefix(catalog: str) -> str:
    return f"orchctl {catalog}: "


def _description(catalog: str) -> str:
    return f"Kept by `orchctl alerts apply` for catalog {catalog}."


def _blocks(alerts: Alerts, catalog: str) -> Iterable[WantedBlock]:
    return (WantedBlock(block_name(catalog, name), catalog, name) for name in alerts.channels)


def _of_route(route: Route, alerts: Alerts, catalog: str, pools: Collection[str]) -> Iterable[WantedAutomation]:
    """Yield the automations of a route: one for each way in which Prefect can notice its events."""
    for what, trigger in triggers(route, alerts, pools):
        yield WantedAutomation(
            name=f"{_prefix(catalog)}{route.name}, {what}",
            description=f"{_description(catalog)} Route {route.name} of alerts.toml: {what}.",
            tags=(TAG, catalog_tag(catalog)),
            trigger=trigger,
            blocks=tuple(block_name(catalog, channel) for channel in route.channels),
            body=body(route.name),
            subject=f"orchctl: {route.name}, {what}",
        )


def _block_change(wanted: WantedBlock, there: RemoteBlock | None) -> Change | None:
    if there is None:
        return Change("block", "create", wanted.name)
    fields = (["data"] if dict(there.data) != wanted.data else []) + ([] if there.current else ["form"])
    return Change("block", "update", wanted.name, there.id, tuple(fields)) if fields else None


def _automation_change(
    wanted: WantedAutomation, there: RemoteAutomation | None, ids: Mapping[str, str]
) -> Change | None:
    if there is None:
        return Change("automation", "create", wanted.name)
    known = {**dict.fromkeys(wanted.blocks, ""), **ids}
    target = wanted.to_body(known, enabled=there.enabled)
    fields = []
    if there.description != wanted.description:
        fields.append("description")
    if sorted(there.tags) != sorted(wanted.tags):
        fields.append("tags")
    if _plain(there.trigger) != _plain(target["trigger"]):
        fields.append("trigger")
    if [_managed(each) for each in there.actions] != target["actions"]:
        fields.append("actions")
    if not fields:
        return None
    return Change("automation", "update", wanted.name, there.id, tuple(fields), there.enabled)


def _managed(action: Mapping[str, Any]) -> dict[str, Any]:
    return {key: action.get(key) for key in ("type", "block_document_id", "subject", "body")}


def _plain(value: Any) -> Any:
    """Return a trigger in one form: without ids, sets as sorted lists, a single value as a list of one."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if key != "id"}
    if isinstance(value, (list, tuple)):
        plain = [_plain(each) for each in value]
        return sorted(plain) if all(isinstance(each, str) for each in plain) else plain
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
